"""A clinical model generalizes unevenly over sites and patient groups; fine-tuning on the site
itself helps most.

Rahman, Jiang, Gabriel, Aphinyanaphongs, Oermann & Chunara (2024), arXiv:2402.10965. The paper
fine-tunes a language model on the notes of one health system; its data are not public. Here: four
real hospitals (UCI heart disease), and the departments of Diabetes-130, which names no hospital,
under a random and a temporal split. The model reads coded items instead of notes.

The paper's size: a clinical encoder of BERT-base size, 512 tokens, fine-tuned at 2e-5 on any corpus
of notes with columns site, time, label, text; the same cells, with `tasks.hospitals.note` as a
stand-in for the text.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
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
from unseen.study import (
    Claim,
    Effect,
    Row,
    Rows,
    Scale,
    Study,
    Value,
    column,
    effects,
    figures,
    pick,
)
from unseen.study.source import Source
from unseen.tasks.hospitals import Diabetes130, HeartDisease, Part
from unseen.tasks.table import ParsedTable, Table, Tabular, parse_table, split_table
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


@dataclass(frozen=True)
class Cell:
    corpus: Corpus
    config: Config
    seed: int


def cells(config: Config) -> Iterator[Cell]:
    for seed in range(config.seeds):
        for corpus in config.corpora:
            yield Cell(corpus, config, seed)


def run(cell: Cell, lab: Lab) -> Iterable[Row]:
    if cell.corpus is Corpus.PATIENTS:
        return list(patients(cell, lab))
    sheet = parse_table(table_of(cell))
    chosen = sheet.sites[: cell.config.sites or None]
    return [row for site in chosen for row in at_site(cell, sheet, site, lab.child(site))]


def table_of(cell: Cell) -> Table:
    """60 % of the rows of a site left out are for fine-tuning (with time: its past)."""
    if cell.corpus is Corpus.HEART:
        return replace(HeartDisease(shares=SHARES).table(), local=0.6)
    by_department = cell.corpus is not Corpus.PATIENTS
    spec = Diabetes130(
        by_department,
        by_time=cell.corpus is Corpus.LATER,
        part=cell.config.part,
        min_rows=cell.config.min_rows,
        shares=SHARES,
    )
    return replace(spec.table(), local=0.6 if by_department else 0.0)


def initial_model(tabular: Tabular, width: int, lab: Lab) -> nn.Module:
    with lab.child("init").seeded():
        return mlp([len(tabular.encoder.names), width, tabular.target.outputs], dropout=0.2)


def at_site(cell: Cell, sheet: ParsedTable, site: str, lab: Lab) -> Iterator[Row]:
    """Every variant judged on the same held-out rows of one site, and f₀ on the sites it was fitted
    on.
    """
    config, tabular = cell.config, split_table(sheet, site, lab.child("data"))
    facts: dict[str, Value] = {
        "corpus": cell.corpus.value,
        "site": site,
        "seed": cell.seed,
        **about(tabular),
    }
    task, start, fit = tabular.task, initial_model(tabular, config.width, lab), lab.child("fit")
    unseen = GlobalModel(config.first).fit(deepcopy(start), task, fit)
    seen = evaluate_site(
        unseen, "later" if cell.corpus is Corpus.LATER else "seen", config.least, lab
    )
    yield {
        **facts,
        "variant": "unseen",
        **evaluate_site(unseen, "unseen", config.least, lab),
        "seen_auc": seen["auc"],
    }
    variants: Mapping[str, tuple[Method, nn.Module]] = {
        "local": (LocalFinetune(config.then), unseen.model),
        "instances": (InstanceAugmentedFinetune(config.k, config.then), unseen.model),
        "clusters": (ClusterFinetune(config.n_clusters, config.then), unseen.model),
        "scratch": (LocalScratch(config.first), start),
        "pooled": (PooledModel(config.first), start),
    }
    for name, (method, model) in variants.items():
        yield {
            **facts,
            "variant": name,
            **evaluate_site(method.fit(deepcopy(model), task, fit), "unseen", config.least, lab),
        }


def about(tabular: Tabular) -> dict[str, Value]:
    """What may drive a site's performance: its size, base rate, and the means of its judged
    patients.
    """
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
    batch = whole(trained.task.split(split).data, lab)
    scores, y = log_odds(trained.model, batch["x"]), batch["y"].cpu().numpy() == 1
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
    spread: dict[str, Value] = (
        {"variance": variance(found.reading)} if isfinite(found.reading.low) else {}
    )
    counts: dict[str, Value] = {
        "n": found.n,
        "positives": found.positives,
        "judged": found.is_sufficient,
    }
    return {"auc": found.reading.value, **spread, **counts}


@torch.no_grad()
def log_odds(model: nn.Module, x: torch.Tensor) -> NDArray[np.float64]:
    model.eval()
    logits = torch.cat([model(part) for part in x.split(4_096)]).double().cpu()
    return (logits[:, 1] - logits[:, 0]).numpy()


def variance(reading: Reading) -> float:
    """Sampling variance from the width of a 95 % interval."""
    return ((reading.high - reading.low) / (2 * 1.96)) ** 2


def patients(cell: Cell, lab: Lab) -> Iterator[Row]:
    """One global model of all patients: AUC by subgroup, contrasts between subgroups, and what goes
    wrong.
    """
    tabular = table_of(cell).prepare(lab.child("data"))
    model = initial_model(tabular, cell.config.width, lab)
    trained = PooledModel(cell.config.first).fit(model, tabular.task, lab.child("fit"))
    batch = whole(trained.task.split("seen").data, lab)
    scores, y = log_odds(trained.model, batch["x"]), batch["y"].cpu().numpy() == 1
    rows = tabular.frame.iloc[tabular.rows["seen"]]
    facts: dict[str, Value] = {"corpus": cell.corpus.value, "seed": cell.seed}
    yield {
        **facts,
        "group": "all",
        "level": "all",
        **evaluate_site(trained, "seen", cell.config.least, lab),
    }
    for spec, names in tabular.groups.items():
        for found in by_group(
            scores, y, batch[f"group:{spec}"].numpy(), names, least=cell.config.least
        ):
            if found.reading is not None:
                yield {**facts, "group": spec.split(":")[0], "level": found.name, **auc_row(found)}
    age, payer = rows["age"].to_numpy(float), rows["payer_code"].to_numpy()
    diagnoses = rows["number_diagnoses"].to_numpy(float)
    medicare, other = (
        payer == "Medicare",
        (payer != "Medicare") & rows["payer_code"].notna().to_numpy(),
    )
    pairs = {
        "80+ against under 60": (age >= 80, age < 60),
        "over 8 diagnoses against fewer": (diagnoses > 8, diagnoses <= 8),
        "Medicare against other payers": (medicare, other),
    }
    for name, (a, b) in pairs.items():
        yield {**facts, "contrast": name, **contrast(scores, y, a, b)}
    # Medicare begins at 65: unadjusted, a difference between payers is a difference between ages
    for low, high in ((0, 50), (50, 60), (60, 70), (70, 80), (80, 200)):
        band = (age >= low) & (age < high)
        if min((y & band & side).sum() for side in (medicare, other)) >= cell.config.least:
            yield {
                **facts,
                "contrast": "Medicare in band",
                "band": low,
                **contrast(scores, y, medicare & band, other & band),
            }
    yield from causes(cell, tabular, trained, lab)


def contrast(scores: NDArray, y: NDArray, a: NDArray, b: NDArray) -> dict[str, Value]:
    """AUC inside a minus AUC inside b (different patients: variances add)."""
    one, two = (stats.auc(scores[side], y[side]) for side in (a, b))
    return {
        "difference": one.value - two.value,
        "variance": variance(one) + variance(two),
        "n": int(a.sum() + b.sum()),
    }


def causes(cell: Cell, tabular: Tabular, trained: Trained, lab: Lab) -> Iterator[Row]:
    """Importance of each feature, and of the note's length, for going wrong."""
    batch = whole(trained.task.split("seen").data, lab)
    losses = per_example(
        trained.model, trained.task.split("seen").data, trained.task.objective.loss, lab
    )
    rng = lab.child("some").numpy()
    some = rng.permutation(len(losses))[: cell.config.why_rows]
    cells_of = tabular.frame.iloc[tabular.rows["seen"][some]]
    length = cells_of["coded_items"].to_numpy(float)
    x = np.concatenate([batch["x"].numpy()[some], length[:, None]], 1)
    blocks = {**tabular.encoder.blocks, "coded_items": slice(x.shape[1] - 1, x.shape[1])}
    person = np.unique(cells_of["patient_nbr"], return_inverse=True)[1]
    found = cell.config.why.rank(x, losses.double().numpy()[some], blocks, person, lab.child("why"))
    for place, (name, reading) in enumerate(list(found.items())[:8], 1):
        yield {
            "corpus": cell.corpus.value,
            "seed": cell.seed,
            "cause": name,
            "rank": place,
            "importance": reading.value,
            "named": int(name in NAMED),
        }


NAMED = ("age", "number_diagnoses", "coded_items")
"""The paper's drivers beside sample size: age, number of comorbidities, words per note."""


def sufficient(rows: Rows, corpus: Corpus) -> list[Row]:
    """The rows of the sites whose judged examples suffice for a verdict in every seed."""
    here = [row for row in pick(rows, corpus=corpus.value) if "site" in row]
    scarce = {row["site"] for row in here if not row["judged"]}
    return [row for row in here if row["site"] not in scarce]


def seed_by_site(rows: Rows, variant: str, name: str = "auc") -> NDArray[np.float64]:
    """[seed, site] of one variant; sites in alphabetical order."""
    return effects.grid(pick(rows, variant=variant), name, "seed", "site")


def better(corpus: Corpus, a: str, b: str) -> Effect:
    """Mean of AUC(a) − AUC(b); seeds and sites both count as samples."""

    def read(rows: Rows) -> Reading:
        mine = sufficient(rows, corpus)
        return effects.crossed_gap(seed_by_site(mine, a), seed_by_site(mine, b), unit="AUC")

    return read


def gap_to_seen(corpus: Corpus) -> Effect:
    """f₀ at the unseen site minus f₀ on new patients of the sites it was fitted on."""

    def read(rows: Rows) -> Reading:
        mine = sufficient(rows, corpus)
        return effects.crossed_gap(
            seed_by_site(mine, "unseen"), seed_by_site(mine, "unseen", "seen_auc"), unit="AUC"
        )

    return read


def gains(rows: Rows, corpus: Corpus) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """log10 of each site's fitted rows, and what fine-tuning on them gains there (mean over
    seeds).
    """
    mine = sufficient(rows, corpus)
    size = np.log10(seed_by_site(mine, "local", "n_local")[0])
    return size, seed_by_site(mine, "local").mean(0) - seed_by_site(mine, "unseen").mean(0)


def gain_by_size(corpus: Corpus) -> Effect:
    """Slope over sites of the gain by local fine-tuning on log10 of the site's size; below 0: most
    where data are few.
    """
    return lambda rows: stats.slope(*gains(rows, corpus), unit="AUC per decade")


def why_sites(rows: Rows, corpus: Corpus = Corpus.DEPARTMENTS) -> dict[str, Reading]:
    """Slopes of the unseen sites' AUC on size, base rate, age, diagnoses and coded items (means
    over seeds).

    Few sites can tell few drivers apart: then the first ones only.
    """
    mine = [
        {
            **row,
            "log n": np.log(float(row["n_local"])).item(),
            "base rate": float(row["positives"]) / float(row["n"]),
        }
        for row in sufficient(rows, corpus)
    ]
    names = ("log n", "base rate", "age", "number_diagnoses", "coded_items")
    means = {name: seed_by_site(mine, "unseen", name).mean(0) for name in ("auc", *names)}
    return drivers(
        means["auc"], {name: means[name] for name in names[: max(1, means["auc"].size - 2)]}
    )


def contrast_effect(name: str) -> Effect:
    def read(rows: Rows) -> Reading:
        values, variances = (column(rows, key, contrast=name) for key in ("difference", "variance"))
        return effects.overlapping(values, variances, "AUC")

    return read


def within_age(rows: Rows) -> Reading:
    """Medicare against other payers inside age bands, bands weighted by precision, then over
    seeds.
    """
    bands, values, variances = pick(rows, contrast="Medicare in band"), [], []
    for (seed,) in effects.distinct(bands, "seed"):
        d, v = (np.array(column(bands, key, seed=seed)) for key in ("difference", "variance"))
        values.append(float((d / v).sum() / (1 / v).sum()))
        variances.append(float(1 / (1 / v).sum()))
    return effects.overlapping(values, variances, "AUC")


def share_of_expected_causes(rows: Rows) -> Reading:
    """Share of seeds in which age, number of diagnoses or note length is among the four main
    causes.
    """
    first = [row for row in rows if "cause" in row and float(row["rank"]) <= 4]
    seeds = [seed for (seed,) in effects.distinct(first, "seed")]
    return stats.proportion(
        sum(max(column(first, "named", seed=seed)) for seed in seeds), len(seeds)
    )


CLAIMS = (
    Claim(
        says="A department that was not fitted does worse than new patients of those that were.",
        effect=gap_to_seen(Corpus.DEPARTMENTS),
        below=0.0,
    ),
    Claim(
        says="Local fine-tuning beats the model that never saw the department (random split).",
        effect=better(Corpus.DEPARTMENTS, "local", "unseen"),
        above=0.0,
    ),
    Claim(
        says="Local fine-tuning beats the model that never saw the department (temporal split).",
        effect=better(Corpus.LATER, "local", "unseen"),
        above=0.0,
    ),
    Claim(
        says="Local fine-tuning beats the model that never saw the hospital (heart disease).",
        effect=better(Corpus.HEART, "local", "unseen"),
        above=0.0,
    ),
    Claim(
        says="Local fine-tuning gains most where data are few (slope of the gain on log10 of size, "
        "random split).",
        effect=gain_by_size(Corpus.DEPARTMENTS),
        below=0.0,
    ),
    Claim(
        says="Local fine-tuning beats cluster-based fine-tuning (random split).",
        effect=better(Corpus.DEPARTMENTS, "local", "clusters"),
        above=0.0,
    ),
    Claim(
        says="Local fine-tuning beats instance-based augmentation (random split).",
        effect=better(Corpus.DEPARTMENTS, "local", "instances"),
        above=0.0,
    ),
    Claim(
        says="Instance-based augmentation helps on a random split.",
        effect=better(Corpus.DEPARTMENTS, "instances", "unseen"),
        above=0.0,
    ),
    Claim(
        says="Instance-based augmentation hurts on a temporal split.",
        effect=better(Corpus.LATER, "instances", "unseen"),
        below=0.0,
    ),
    Claim(
        says="Cluster-based fine-tuning gives no help worth naming (within ±0.01 AUC, random "
        "split).",
        effect=better(Corpus.DEPARTMENTS, "clusters", "unseen"),
        above=-0.01,
        below=0.01,
    ),
    Claim(
        says="The model does worse for patients of 80 and more than for those under 60.",
        effect=contrast_effect("80+ against under 60"),
        below=0.0,
    ),
    Claim(
        says="The model does worse for patients with more than 8 diagnoses.",
        effect=contrast_effect("over 8 diagnoses against fewer"),
        below=0.0,
    ),
    Claim(
        says="The model does worse for patients of Medicare than of other payers.",
        effect=contrast_effect("Medicare against other payers"),
        below=0.0,
    ),
    Claim(says="Medicare patients do worse also within age bands.", effect=within_age, below=0.0),
    Claim(
        says="Age, number of diagnoses or note length is among the four main causes of errors "
        "(share of seeds).",
        effect=share_of_expected_causes,
        above=0.5,
    ),
)


def table(rows: Rows) -> Sequence[Row]:
    """Mean AUC by corpus and variant over the sites that suffice for a verdict."""
    made: list[Row] = []
    for corpus in Corpus:
        if mine := sufficient(rows, corpus):
            means = {
                str(row["variant"]): float(row["auc"])
                for row in figures.summary(["variant"], ["auc"])(mine)
            }
            made.append(
                {"what": corpus.value, "sites": len(effects.distinct(mine, "site")), **means}
            )
    return made


def groups_figure(rows: Rows) -> Bars:
    """AUC of the global model by subgroup."""
    groups = [row for row in rows if "group" in row and row["judged"]]
    found = {}
    for group, level in sorted(effects.distinct(groups, "group", "level")):
        values, variances = (
            column(groups, key, group=group, level=level) for key in ("auc", "variance")
        )
        found["all patients" if group == "all" else f"{group} {level}"] = effects.overlapping(
            values, variances
        )
    return figures.draw_bars(
        found, title="AUC of one global model by patient group (Diabetes-130)", label="AUC"
    )


def sites_figure(rows: Rows) -> Points:
    """Gain by local fine-tuning against the size of the site."""
    groups = {corpus.value: gains(rows, corpus) for corpus in Corpus if sufficient(rows, corpus)}
    return Points(
        title="What local fine-tuning gains at each site",
        groups={
            name: list(zip(*(values.tolist() for values in pair), strict=True))
            for name, pair in groups.items()
        },
        x_label="log10 of the site's fitted rows",
        y_label="AUC local − unseen",
    )


def drivers_figure(rows: Rows) -> Bars:
    """Why departments differ."""
    title = "Change in the AUC of an unseen department per standard deviation of …"
    return figures.draw_bars(why_sites(rows), title=title, label="AUC per SD")


study = Study(
    name="clinical_sites",
    system="09",
    source=Source(
        key="rahman2024generalization",
        title="Generalization in Healthcare AI: Evaluation of a Clinical Large Language Model",
        authors=(
            "Rahman, Salman",
            "Jiang, Lavender Yao",
            "Gabriel, Saadia",
            "Aphinyanaphongs, Yindalon",
            "Oermann, Eric Karl",
            "Chunara, Rumi",
        ),
        year=2024,
        arxiv="2402.10965",
    ),
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
        Scale.LAPTOP: Config(),
        Scale.PAPER: Config(
            width=512,
            first=Budget(steps=3_000, batch_size=128, lr=1e-3, weight_decay=1e-2),
            seeds=20,
        ),
    },
    cells=cells,
    run=run,
    claims=CLAIMS,
    figures=(groups_figure, sites_figure, drivers_figure),
    table=table,
)
