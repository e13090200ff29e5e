"""A clinical model generalizes unevenly over sites and patients; fine-tuning on a site helps most.

Rahman, Jiang, Gabriel, Aphinyanaphongs, Oermann & Chunara (2024), arXiv:2402.10965. The paper
fine-tunes a language model on the notes of one health system; its data are not public. Here: four
real hospitals (UCI heart disease), and the departments of Diabetes-130, which names no hospital,
under a random and a temporal split. The model reads coded items instead of notes.

The paper's size: a clinical encoder of BERT-base size, 512 tokens, fine-tuned at 2e-5 on any corpus
of notes with columns site, time, label, text; the same cells, with `tasks.hospitals.note` as a
stand-in for the text.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from enum import StrEnum
from math import isfinite

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from unseen import stats
from unseen.engine.batches import whole
from unseen.engine.evaluate import per_example
from unseen.engine.loop import Budget
from unseen.errors import InvalidData
from unseen.figure import Bars, Points
from unseen.lab import Lab
from unseen.measures.subgroups import LEAST, GroupPerformance, HighLossFeatures, by_group, drivers
from unseen.method import Method, Trained
from unseen.methods.site_finetune import (
    ClusterFinetune,
    GlobalModel,
    InstanceAugmentedFinetune,
    LocalFinetune,
    LocalScratch,
    PooledModel,
)
from unseen.models.mlp import mlp
from unseen.reading import Reading
from unseen.study import Claim, Effect, Row, Rows, Scale, Study, Unit, Value, column, pick
from unseen.study.effects import crossed_gap, distinct, grid, overlapping
from unseen.study.figures import draw_bars, summary
from unseen.study.grid import Cell, Grid, resize
from unseen.study.source import reference
from unseen.study.trial import label, untrained_model
from unseen.tasks.hospitals import Diabetes130, HeartDisease, Part
from unseen.tasks.table import Table, Tabular, parse_table, split_table
from unseen.tasks.table.splitting import Shares

SHARES = Shares(select=0.05, seen=0.35, later=0.4)
"""60 % fit, as at the site itself; with time the first 60 % are the past."""


class Corpus(StrEnum):
    """Which patients, and how judged ones differ."""

    HEART = "heart disease"
    """Four hospitals, random split inside each."""
    DEPARTMENTS = "departments"
    """Diabetes-130, random split inside each department."""
    LATER = "departments, later"
    """Diabetes-130, first 60 % of encounters against the last 40 %."""
    PATIENTS = "patients"
    """Diabetes-130, all rows, one global model, random split: for subgroups."""


@dataclass(frozen=True)
class Config:
    corpora: tuple[Corpus, ...] = tuple(Corpus)
    part: Part = Part.ALL
    min_rows: int = 500
    sites: int = 0
    """At most so many sites per corpus; 0: all."""
    first: Budget = Budget(steps=600, batch_size=128, lr=2e-3, weight_decay=1e-2)
    then: Budget = Budget(steps=100, batch_size=128, lr=5e-4, weight_decay=1e-2)
    k: int = 5
    n_clusters: int = 4
    width: int = 64
    why: HighLossFeatures = HighLossFeatures(folds=3, repeats=2, trees=60)
    why_rows: int = 4_000
    least: int = LEAST
    """Examples of the rarer class that a site or group needs for a verdict."""
    seeds: int = 5


def run(cell: Cell[Config, Corpus], lab: Lab) -> Iterator[Row]:
    config, corpus = cell.setting, cell.arm
    by_site = corpus is not Corpus.PATIENTS
    rows = at_sites(config, corpus, lab) if by_site else patients(config, lab)
    return label(rows, corpus=corpus, seed=cell.seed)


def table_of(config: Config, corpus: Corpus) -> Table:
    """60 % of the rows of a site left out are for fine-tuning (with time: its past)."""
    if corpus is Corpus.HEART:
        return replace(HeartDisease(shares=SHARES).table(), local=0.6)
    by_department = corpus is not Corpus.PATIENTS
    spec = Diabetes130(
        by_department,
        by_time=corpus is Corpus.LATER,
        part=config.part,
        min_rows=config.min_rows,
        shares=SHARES,
    )
    return replace(spec.table(), local=0.6 if by_department else 0.0)


def initial_model(tabular: Tabular, width: int, lab: Lab) -> nn.Module:
    sizes = [len(tabular.encoder.names), width, tabular.target.outputs]
    return untrained_model(lambda: mlp(sizes, dropout=0.2), lab)


def at_sites(config: Config, corpus: Corpus, lab: Lab) -> Iterator[Row]:
    """Every site in turn is the one left out."""
    sheet = parse_table(table_of(config, corpus))
    known = "later" if corpus is Corpus.LATER else "seen"
    for site in sheet.sites[: config.sites or None]:
        tabular = split_table(sheet, site, lab.child(site, "data"))
        rows = variants(config, tabular, known, lab.child(site))
        yield from label(rows, site=site, **drivers_of(tabular))


def variants(config: Config, tabular: Tabular, known: str, lab: Lab) -> Iterator[Row]:
    """Every variant evaluated on the same held-out rows of the site.

    The model that never saw it also on the `known` split: new patients of its training sites.
    """
    task, start = tabular.task, initial_model(tabular, config.width, lab)
    first, then, least = config.first, config.then, config.least

    def fit(method: Method, model: nn.Module) -> Trained:
        return method.fit(deepcopy(model), task, lab.child("fit"))

    unseen = fit(GlobalModel(first), start)
    seen_auc = evaluate_site(unseen, known, least, lab)["auc"]
    scores = evaluate_site(unseen, "unseen", least, lab)
    yield {"variant": "unseen", **scores, "seen_auc": seen_auc}
    methods: Mapping[str, tuple[Method, nn.Module]] = {
        "local": (LocalFinetune(then), unseen.model),
        "instances": (InstanceAugmentedFinetune(config.k, then), unseen.model),
        "clusters": (ClusterFinetune(config.n_clusters, then), unseen.model),
        "scratch": (LocalScratch(first), start),
        "pooled": (PooledModel(first), start),
    }
    for name, (method, model) in methods.items():
        yield {"variant": name, **evaluate_site(fit(method, model), "unseen", least, lab)}


def drivers_of(tabular: Tabular) -> dict[str, Value]:
    """What may drive a site's performance: its size, and means over its evaluated patients."""
    rows = tabular.frame.iloc[tabular.rows["unseen"]]
    facts: dict[str, Value] = {
        "n_local": int(tabular.rows["local"].size),
        "age": float(rows["age"].astype(float).mean()),
    }
    for name in ("number_diagnoses", "coded_items"):
        if name in rows:
            facts[name] = float(rows[name].astype(float).mean())
    return facts


def evaluate_site(trained: Trained, split: str, least: int, lab: Lab) -> dict[str, Value]:
    """AUC on one split, the counts, and whether they suffice for a verdict."""
    scores, y = predictions(trained, split, lab)
    (found,) = by_group(scores, y, np.zeros(len(y), np.int64), [split], least=least)
    if found.reading is None:
        raise InvalidData(
            f"Split `{split}` of `{trained.task.name}` has one class only.",
            why="no AUC exists.",
            fix="use more rows.",
        )
    return auc_row(found)


def auc_row(found: GroupPerformance) -> dict[str, Value]:
    """AUC, its sampling variance where there is one (two of each class), and the counts."""
    assert found.reading is not None
    row: dict[str, Value] = {"auc": found.reading.value}
    if isfinite(found.reading.low):
        row["variance"] = variance(found.reading)
    return row | {"n": found.n, "positives": found.positives, "judged": found.is_sufficient}


def predictions(
    trained: Trained, split: str, lab: Lab
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Log-odds of the rows of a split, and which are positive."""
    batch = whole(trained.task.split(split).data, lab)
    return log_odds(trained.model, batch["x"]), batch["y"].cpu().numpy() == 1


@torch.no_grad()
def log_odds(model: nn.Module, x: torch.Tensor) -> NDArray[np.float64]:
    model.eval()
    logits = torch.cat([model(part) for part in x.split(4_096)]).double().cpu()
    return (logits[:, 1] - logits[:, 0]).numpy()


def variance(reading: Reading) -> float:
    """Sampling variance from the width of a 95 % interval."""
    return ((reading.high - reading.low) / (2 * 1.96)) ** 2


BANDS = ((0, 50), (50, 60), (60, 70), (70, 80), (80, 200))


def patients(config: Config, lab: Lab) -> Iterator[Row]:
    """One global model of all patients: AUC by subgroup, contrasts between them, and causes."""
    tabular = table_of(config, Corpus.PATIENTS).prepare(lab.child("data"))
    model = initial_model(tabular, config.width, lab)
    trained = PooledModel(config.first).fit(model, tabular.task, lab.child("fit"))
    yield {"group": "all", "level": "all", **evaluate_site(trained, "seen", config.least, lab)}
    yield from subgroups(tabular, trained, config.least, lab)
    yield from contrasts(tabular, trained, config.least, lab)
    yield from causes(config, tabular, trained, lab)


def subgroups(tabular: Tabular, trained: Trained, least: int, lab: Lab) -> Iterator[Row]:
    scores, y = predictions(trained, "seen", lab)
    batch = whole(trained.task.split("seen").data, lab)
    for spec, names in tabular.groups.items():
        codes = batch[f"group:{spec}"].numpy()
        for found in by_group(scores, y, codes, names, least=least):
            if found.reading is not None:
                yield {"group": spec.split(":")[0], "level": found.name, **auc_row(found)}


def contrasts(tabular: Tabular, trained: Trained, least: int, lab: Lab) -> Iterator[Row]:
    """Older against younger, more against fewer diagnoses, Medicare against other payers."""
    scores, y = predictions(trained, "seen", lab)
    rows = tabular.frame.iloc[tabular.rows["seen"]]
    age, payer = rows["age"].to_numpy(float), rows["payer_code"].to_numpy()
    diagnoses = rows["number_diagnoses"].to_numpy(float)
    medicare = payer == "Medicare"
    other = ~medicare & rows["payer_code"].notna().to_numpy()
    pairs = {
        "80+ against under 60": (age >= 80, age < 60),
        "over 8 diagnoses against fewer": (diagnoses > 8, diagnoses <= 8),
        "Medicare against other payers": (medicare, other),
    }
    for name, (one, two) in pairs.items():
        yield {"contrast": name, **contrast(scores, y, one, two)}
    # Medicare begins at 65: unadjusted, a difference between payers is one between ages
    for low, high in BANDS:
        band = (age >= low) & (age < high)
        sides = medicare & band, other & band
        if min((y & side).sum() for side in sides) >= least:
            row = contrast(scores, y, *sides)
            yield {"contrast": "Medicare in band", "band": low, **row}


def contrast(scores: NDArray, y: NDArray, a: NDArray, b: NDArray) -> dict[str, Value]:
    """AUC inside a minus AUC inside b (different patients: variances add)."""
    one, two = (stats.auc(scores[side], y[side]) for side in (a, b))
    return {
        "difference": one.value - two.value,
        "variance": variance(one) + variance(two),
        "n": int(a.sum() + b.sum()),
    }


def causes(config: Config, tabular: Tabular, trained: Trained, lab: Lab) -> Iterator[Row]:
    """Importance of each feature, and of the note's length, for going wrong."""
    data, loss = trained.task.split("seen").data, trained.task.objective.loss
    losses = per_example(trained.model, data, loss, lab).double().numpy()
    some = lab.child("some").numpy().permutation(len(losses))[: config.why_rows]
    rows = tabular.frame.iloc[tabular.rows["seen"][some]]
    length = rows["coded_items"].to_numpy(float)
    x = np.concatenate([whole(data, lab)["x"].numpy()[some], length[:, None]], 1)
    n = x.shape[1]
    blocks = {**tabular.encoder.blocks, "coded_items": slice(n - 1, n)}
    person = np.unique(rows["patient_nbr"], return_inverse=True)[1]
    found = config.why.rank(x, losses[some], blocks, person, lab.child("why"))
    for rank, (name, reading) in enumerate(list(found.items())[:8], 1):
        yield {
            "cause": name,
            "rank": rank,
            "importance": reading.value,
            "named": int(name in NAMED),
        }


NAMED = ("age", "number_diagnoses", "coded_items")
"""The paper's drivers beside sample size: age, number of comorbidities, words per note."""


def sufficient(rows: Rows, corpus: str) -> list[Row]:
    """The rows of the sites whose evaluated examples suffice for a verdict in every seed."""
    here = [row for row in pick(rows, corpus=corpus) if "site" in row]
    scarce = {row["site"] for row in here if not row["judged"]}
    return [row for row in here if row["site"] not in scarce]


def seed_by_site(rows: Rows, variant: str, name: str = "auc") -> NDArray[np.float64]:
    """[seed, site] of one variant; sites in alphabetical order."""
    return grid(pick(rows, variant=variant), name, "seed", "site")


def better(corpus: str, a: str, b: str, other: str = "auc") -> Effect:
    """Mean of AUC(a) − AUC(b); seeds and sites both count as samples."""

    def read(rows: Rows) -> Reading:
        rows = sufficient(rows, corpus)
        return crossed_gap(seed_by_site(rows, a), seed_by_site(rows, b, other), unit="AUC")

    return read


def gap_to_seen(corpus: Corpus) -> Effect:
    """f₀ at the unseen site minus f₀ on new patients of the sites that it was trained on."""
    return better(corpus, "unseen", "unseen", "seen_auc")


def gains(rows: Rows, corpus: Corpus) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """log10 of a site's training rows, and what fine-tuning on them gains there (mean of seeds)."""
    rows = sufficient(rows, corpus)
    size = np.log10(seed_by_site(rows, "local", "n_local")[0])
    return size, seed_by_site(rows, "local").mean(0) - seed_by_site(rows, "unseen").mean(0)


def gain_by_size(corpus: Corpus) -> Effect:
    """Slope over sites of the gain by local fine-tuning on log10 of the site's size.

    Below 0: most where data are few.
    """
    return lambda rows: stats.slope(*gains(rows, corpus), unit="AUC per decade")


DRIVERS: Mapping[str, Callable[[Row], Value]] = {
    "log n": lambda row: np.log(float(row["n_local"])).item(),
    "base rate": lambda row: float(row["positives"]) / float(row["n"]),
    "age": lambda row: row["age"],
    "number_diagnoses": lambda row: row["number_diagnoses"],
    "coded_items": lambda row: row["coded_items"],
}


def why_sites(rows: Rows, corpus: Corpus = Corpus.DEPARTMENTS) -> dict[str, Reading]:
    """Slopes of the unseen sites' AUC on the drivers (means over seeds).

    Few sites can tell few drivers apart: then the first ones only.
    """
    rows = sufficient(rows, corpus)
    auc = seed_by_site(rows, "unseen").mean(0)
    names = list(DRIVERS)[: max(1, auc.size - 2)]
    rows = [{**row, **{name: DRIVERS[name](row) for name in names}} for row in rows]
    return drivers(auc, {name: seed_by_site(rows, "unseen", name).mean(0) for name in names})


def contrast_effect(name: str) -> Effect:
    def read(rows: Rows) -> Reading:
        values, variances = (column(rows, of, contrast=name) for of in ("difference", "variance"))
        return overlapping(values, variances, "AUC")

    return read


def within_age(rows: Rows) -> Reading:
    """Medicare against other payers inside age bands, weighted by precision, then over seeds."""
    bands, values, variances = pick(rows, contrast="Medicare in band"), [], []
    for (seed,) in distinct(bands, "seed"):
        d, v = (np.array(column(bands, key, seed=seed)) for key in ("difference", "variance"))
        values.append(float((d / v).sum() / (1 / v).sum()))
        variances.append(float(1 / (1 / v).sum()))
    return overlapping(values, variances, "AUC")


def share_of_expected_causes(rows: Rows) -> Reading:
    """Share of seeds in which age, diagnoses or note length is among the four main causes."""
    first = [row for row in rows if "cause" in row and float(row["rank"]) <= 4]
    seeds = [seed for (seed,) in distinct(first, "seed")]
    hits = sum(max(column(first, "named", seed=seed)) for seed in seeds)
    return stats.proportion(hits, len(seeds))


NAMED_GAP = 0.01
"""A difference of AUC worth naming, either way."""
ALTERNATIVES = {
    "clusters": "cluster-based fine-tuning",
    "instances": "instance-based augmentation",
    "scratch": "training on the department alone",
    "pooled": "one model of all departments with this one",
}
SMALLEST_GAIN = 0.0025
"""AUC: the smallest gain by local fine-tuning that the paper reports of a hospital."""


def most_effective(corpus: Corpus, split: str) -> list[Claim]:
    """Local fine-tuning is the most effective if it beats every alternative."""
    return [
        Claim(f"Most effective: local fine-tuning beats {name} by the paper's smallest gain "
              f"({SMALLEST_GAIN} AUC; {split}).",
              better(corpus, "local", variant), above=SMALLEST_GAIN, unit=Unit.SITE)
        for variant, name in ALTERNATIVES.items()
    ]  # fmt: skip


CLAIMS = (
    Claim("A department that was not fitted does worse than new patients of those that were, by at "
          "least 0.01 AUC.",
          gap_to_seen(Corpus.DEPARTMENTS), below=-NAMED_GAP, unit=Unit.SITE),
    Claim("Local fine-tuning beats the model that never saw the department by at least 0.01 AUC "
          "(random split).",
          better(Corpus.DEPARTMENTS, "local", "unseen"), above=NAMED_GAP, unit=Unit.SITE),
    Claim("Local fine-tuning beats the model that never saw the department by at least 0.01 AUC "
          "(temporal split).",
          better(Corpus.LATER, "local", "unseen"), above=NAMED_GAP, unit=Unit.SITE),
    Claim("Local fine-tuning beats the model that never saw the hospital by at least 0.01 AUC "
          "(heart disease).",
          better(Corpus.HEART, "local", "unseen"), above=NAMED_GAP, unit=Unit.SITE),
    Claim("Local fine-tuning gains most where data are few (slope of the gain on log10 of size, "
          "random split).", gain_by_size(Corpus.DEPARTMENTS), below=0.0, unit=Unit.SITE,
          sign_because="the paper names a direction over sizes, no slope"),
    *most_effective(Corpus.DEPARTMENTS, "random split"),
    *most_effective(Corpus.LATER, "temporal split"),
    Claim("Instance-based augmentation helps by at least 0.01 AUC on a random split.",
          better(Corpus.DEPARTMENTS, "instances", "unseen"), above=NAMED_GAP, unit=Unit.SITE),
    Claim("Instance-based augmentation hurts by at least 0.01 AUC on a temporal split.",
          better(Corpus.LATER, "instances", "unseen"), below=-NAMED_GAP, unit=Unit.SITE),
    Claim("Cluster-based fine-tuning gives no help worth naming (within ±0.01 AUC, random split).",
          better(Corpus.DEPARTMENTS, "clusters", "unseen"), above=-NAMED_GAP, below=NAMED_GAP,
          unit=Unit.SITE),
    # the interval holds the patients' variance and the spread of seeds
    Claim("The model does worse for patients of 80 and more than for those under 60, by at least "
          "0.01 AUC (over patients and seeds).",
          contrast_effect("80+ against under 60"), below=-NAMED_GAP),
    Claim("The model does worse for patients with more than 8 diagnoses, by at least 0.01 AUC "
          "(over patients and seeds).",
          contrast_effect("over 8 diagnoses against fewer"), below=-NAMED_GAP),
    Claim("The model does worse for patients of Medicare than of other payers, by at least 0.01 "
          "AUC (over patients and seeds).",
          contrast_effect("Medicare against other payers"), below=-NAMED_GAP),
    Claim("Medicare patients do worse also within age bands, by at least 0.01 AUC (over patients "
          "and seeds).", within_age, below=-NAMED_GAP),
    Claim("Age, number of diagnoses or note length is among the four main causes of errors in more "
          "than half of the seeds.", share_of_expected_causes, above=0.5),
)  # fmt: skip


def table(rows: Rows) -> Sequence[Row]:
    """Mean AUC by corpus and variant over the sites that suffice for a verdict."""
    lines: list[Row] = []
    for corpus in Corpus:
        if here := sufficient(rows, corpus):
            means = {str(row["variant"]): row["auc"] for row in summary("variant", ["auc"])(here)}
            lines.append({"what": corpus, "sites": len(distinct(here, "site")), **means})
    return lines


def groups_figure(rows: Rows) -> Bars:
    """AUC of the global model by subgroup."""
    groups = [row for row in rows if "group" in row and row["judged"]]
    readings = {}
    for group, level in sorted(distinct(groups, "group", "level")):
        here = pick(groups, group=group, level=level)
        name = "all patients" if group == "all" else f"{group} {level}"
        readings[name] = overlapping(column(here, "auc"), column(here, "variance"))
    return draw_bars(readings, "AUC of one global model by patient group (Diabetes-130)", "AUC")


def sites_figure(rows: Rows) -> Points:
    """Gain by local fine-tuning against the size of the site."""
    groups = {}
    for corpus in Corpus:
        if sufficient(rows, corpus):
            size, gain = gains(rows, corpus)
            groups[str(corpus)] = list(zip(size.tolist(), gain.tolist(), strict=True))
    return Points(
        title="What local fine-tuning gains at each site",
        groups=groups,
        x_label="log10 of the site's fitted rows",
        y_label="AUC local − unseen",
    )


def drivers_figure(rows: Rows) -> Bars:
    """Why departments differ."""
    title = "Change in the AUC of an unseen department per standard deviation of …"
    return draw_bars(why_sites(rows), title, "AUC per SD")


LAPTOP = Config()
study = Study(
    name="clinical_sites",
    system="09",
    differs=(
        "The paper fine-tunes a clinical language model of BERT size on the notes of four "
        "hospitals of one health system; neither notes nor hospitals are public. Here a network "
        "with 64 hidden units reads coded items of Diabetes-130, whose sites are departments (11 "
        "with enough cases), and of the four hospitals of UCI heart disease, with 5 seeds. The "
        "outcome of Diabetes-130, readmission within 30 days, is hard to tell from codes (AUC "
        "about 0.65), so differences between sites and methods are small against their intervals; "
        "heart disease has three sites with enough cases."
    ),
    not_tested=(
        "Anything about notes: words per note as a cause, and what a language model's pre-training "
        "adds. Gains of up to 11.7 % AUC in a hospital with scarce data, and the identity of "
        "insurance groups beyond Medicare."
    ),
    source=reference("rahman2024generalization"),
    scales={
        Scale.SMOKE: Config(
            part=Part.SHIPPED,
            min_rows=200,
            sites=3,
            first=Budget(steps=20, batch_size=64, lr=5e-3),
            then=Budget(steps=5, batch_size=64, lr=5e-4),
            n_clusters=2,
            why=HighLossFeatures(folds=2, repeats=1, trees=5),
            why_rows=300,
            least=3,
            seeds=1,
        ),
        Scale.LAPTOP: LAPTOP,
        Scale.PAPER: resize(LAPTOP, width=512, first={"steps": 3_000, "lr": 1e-3}, seeds=20),
    },
    cells=lambda config: Grid((config,), config.corpora, config.seeds),
    run=run,
    claims=CLAIMS,
    figures=(groups_figure, sites_figure, drivers_figure),
    table=table,
)
