"""Coded fields rendered as short English notes, departments instead of hospitals: what a language
model makes of them, and what fine-tuning at a site adds.

Rahman, Jiang, Gabriel, Aphinyanaphongs, Oermann & Chunara (2024), arXiv:2402.10965. Nothing here is
a note that somebody wrote. Part "departments": a linear head on frozen vectors of MiniLM, every
department left out in turn. Part "one model": the same training rows read as vectors, words, number
of words or coded fields. Part "fine-tuned": MiniLM as a whole, once. Part "infants": coded fields
of 98 real hospitals (NEISS).
"""

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import replace
from statistics import fmean

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unseen import stats
from unseen.engine.batches import whole
from unseen.engine.evaluate import per_example
from unseen.engine.loop import Budget, Optimizer
from unseen.figure import Bars
from unseen.lab import Lab
from unseen.measures.subgroups import HighLossFeatures, by_group, drivers
from unseen.method import Method, Trained
from unseen.methods.site_finetune import GlobalModel, LocalFinetune, PooledModel
from unseen.models.text_classifier import TextClassifier
from unseen.reading import Reading
from unseen.studies.clinical_notes.infants import (
    hospital_slope,
    hospitals_figure,
    infants,
    infants_table,
    yearly_slope,
)
from unseen.studies.clinical_notes.readers import (
    classifier,
    coded_model,
    few_rows,
    linear_head,
    one_pass,
    read_by,
    table_of,
    tokens_of,
    vectors,
    word_counts,
    word_weights,
)
from unseen.studies.clinical_notes.settings import (
    Arm,
    Config,
    Corpus,
    Kind,
    no_narratives,
    tiny_encoder,
)
from unseen.studies.clinical_sites import NAMED_GAP, auc_row, better, sufficient
from unseen.study import Claim, Effect, Row, Rows, Scale, Study, Unit, Value, column, pick
from unseen.study.effects import crossed_gap, distinct, grid, restrict
from unseen.study.figures import draw_bars, stack
from unseen.study.grid import Cell, resize
from unseen.study.source import reference
from unseen.study.trial import label
from unseen.subjects.text_tables import TFIDF_MOMENTUM, TFIDF_RATE
from unseen.tasks.hospitals import DepartmentFrame, Part
from unseen.tasks.neiss import synthetic_infants, synthetic_year
from unseen.tasks.table import Tabular, parse_table, split_table
from unseen.tasks.table.texts import count_words

TITLE = "rendered coded fields, departments instead of hospitals"
SITE = "medical_specialty"


def run(cell: Cell[Config, Arm], lab: Lab) -> Iterator[Row]:
    config, arm = cell.setting, cell.arm
    if arm.kind is Kind.INFANTS:
        return label(
            infants(config.infants(), config.years, config.least), seed=cell.seed, part=arm.kind
        )
    parts = {
        Kind.SITES: departments,
        Kind.POOLED: one_model,
        Kind.TUNED: fine_tuned,
        Kind.TUNED_SITES: fine_tuned_departments,
    }
    rows = parts[arm.kind](config, arm.corpus, lab)
    return label(rows, corpus=arm.corpus, seed=cell.seed, part=arm.kind)


def departments(config: Config, corpus: Corpus, lab: Lab) -> Iterator[Row]:
    """Every site in turn is left out; frozen vectors and a linear head."""
    sheet = parse_table(table_of(config, corpus))
    x = vectors(config, corpus is Corpus.NARRATIVES)
    for site in sheet.evaluable[: config.sites or None]:
        tabular = read_by(split_table(sheet, site, lab.child(site, "data")), x)
        methods = GlobalModel(config.first), LocalFinetune(config.then)
        start = linear_head(x, lab.child(site))
        rows = unseen_and_local(config, tabular, start, methods, lab.child(site))
        yield from label(rows, site=site, **facts_of(tabular))


def unseen_and_local(
    config: Config,
    tabular: Tabular,
    start: nn.Module,
    methods: tuple[Method, Method],
    lab: Lab,
) -> Iterator[Row]:
    """Both evaluated on the same rows of the site left out."""
    first, then = methods
    unseen = first.fit(start, tabular.task, lab.child("fit"))
    yield {"variant": "unseen", **evaluate(config, unseen, "unseen")}
    local = then.fit(deepcopy(unseen.model), tabular.task, lab.child("fit"))
    yield {"variant": "local", **evaluate(config, local, "unseen")}


def facts_of(tabular: Tabular) -> dict[str, Value]:
    """What may drive a site's performance: its size, and means over its evaluated rows."""
    rows = tabular.frame.iloc[tabular.rows["unseen"]]
    text = "note" if "note" in rows else "narrative"
    facts: dict[str, Value] = {
        "n_local": int(tabular.rows["local"].size),
        "age": float(rows["age"].astype(float).mean()),
        "words": float(np.nanmean(count_words(rows[text]))),
    }
    if "number_diagnoses" in rows:
        facts["number_diagnoses"] = float(rows["number_diagnoses"].mean())
    return facts


@torch.no_grad()
def log_odds(
    config: Config, trained: Trained, split: str
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Log-odds of the rows of a split, and which are positive."""
    batch, model = whole(trained.task.split(split).data, Lab()), trained.model.eval()
    is_short = config.bfloat16 and isinstance(model, TextClassifier)
    with torch.autocast("cpu", torch.bfloat16, enabled=is_short):
        logits = torch.cat([model(rows) for rows in batch["x"].split(64)]).double()
    return (logits[:, 1] - logits[:, 0]).numpy(), batch["y"].numpy() == 1


def evaluate(config: Config, trained: Trained, split: str) -> dict[str, Value]:
    scores, y = log_odds(config, trained, split)
    (found,) = by_group(scores, y, np.zeros(len(y), np.int64), [split], least=config.least)
    return auc_row(found)


def pooled_task(config: Config, corpus: Corpus, lab: Lab) -> tuple[Tabular, str]:
    """One task of all departments with `notes` training rows, and the split that evaluates it."""
    table = table_of(config, corpus)
    table = replace(
        table, site=None, local=0.0, text=None, groups=(SITE,), drop=(*table.drop, SITE, "note")
    )
    tabular = few_rows(table.prepare(lab.child("data")), config.notes, lab)
    return tabular, "unseen" if corpus is Corpus.LATER else "seen"


def one_model(config: Config, corpus: Corpus, lab: Lab) -> Iterator[Row]:
    """The same rows read in four ways, AUC in every department; and what tells errors."""
    tabular, split = pooled_task(config, corpus, lab)
    plain = replace(config.first, optimizer=Optimizer.SGD, weight_decay=0.0)
    readers: dict[str, tuple[Tensor | None, Budget]] = {
        FROZEN: (vectors(config, False), config.first),
        "TF-IDF": (
            word_weights(config, tabular),
            replace(plain, lr=TFIDF_RATE, momentum=TFIDF_MOMENTUM),
        ),
        "number of words": (word_counts(config), config.first),
        CODED: (None, config.first),
    }
    for name, (x, budget) in readers.items():
        here, start = tabular, coded_model(tabular, config.width, lab)
        if x is not None:
            here, start = read_by(tabular, x), linear_head(x, lab)
        trained = PooledModel(budget).fit(start, here.task, lab.child("fit"))
        yield from by_department(config, trained, tabular, split, name)
        if name == FROZEN and corpus is Corpus.RANDOM:
            yield from causes(config, tabular, trained, lab)


FROZEN, TUNED, CODED = "MiniLM, frozen", "MiniLM, fine-tuned", "coded fields, network"


def by_department(
    config: Config, trained: Trained, tabular: Tabular, split: str, name: str
) -> Iterator[Row]:
    """AUC over all rows and in each department, with its interval."""
    (scores, y), least = log_odds(config, trained, split), config.least
    batch = whole(trained.task.split(split).data, Lab())
    codes, names = batch[f"group:{SITE}"].numpy(), tabular.groups[SITE]
    every = by_group(scores, y, np.zeros(len(y), np.int64), ["all"], least=least)
    for found in (*every, *by_group(scores, y, codes, names, least=least)):
        if found.reading is not None:
            limits = {"low": found.reading.low, "high": found.reading.high}
            yield {"reads": name, "department": found.name, **auc_row(found), **limits}


def causes(config: Config, tabular: Tabular, trained: Trained, lab: Lab) -> Iterator[Row]:
    """Importance of each coded field, and of the note's length, for a loss above the median."""
    losses = per_example(
        trained.model, trained.task.split("seen").data, trained.task.objective.loss, lab
    )
    x = whole(tabular.task.split("seen").data, lab)["x"].numpy()
    rows = tabular.frame.iloc[tabular.rows["seen"]]
    words = count_words(rows["note"])[:, None]
    blocks = {**tabular.encoder.blocks, "words": slice(x.shape[1], x.shape[1] + 1)}
    person = np.unique(rows["patient_nbr"], return_inverse=True)[1]
    found = config.why.rank(
        np.concatenate([x, words], 1), losses.double().numpy(), blocks, person, lab.child("why")
    )
    for rank, (name, reading) in enumerate(found.items(), 1):
        if rank <= SHOWN or name == "words":
            yield {"cause": name, "rank": rank, "importance": reading.value}


SHOWN = 8


def fine_tuned(config: Config, corpus: Corpus, lab: Lab) -> Iterator[Row]:
    """All weights of MiniLM trained for one pass over the notes that part "one model" reads."""
    tabular, split = pooled_task(config, corpus, lab)
    method = PooledModel(one_pass(config.tuning, len(tabular.rows["train"])))
    here = read_by(tabular, tokens_of(config))
    trained = method.fit(classifier(config, lab), here.task, lab.child("fit"))
    yield from by_department(config, trained, tabular, split, TUNED)


def fine_tuned_departments(config: Config, corpus: Corpus, lab: Lab) -> Iterator[Row]:
    """The smallest and the largest department left out, by their rows in the data set."""
    sheet = parse_table(table_of(config, corpus))
    rows = DepartmentFrame(config.part, config.min_rows)()[SITE].value_counts()
    sizes = {site: int(rows[site]) for site in sheet.evaluable}
    x = tokens_of(config)
    for site in (min(sizes, key=lambda s: sizes[s]), max(sizes, key=lambda s: sizes[s])):
        tabular = few_rows(split_table(sheet, site, lab.child(site, "data")), config.notes, lab)
        tabular = read_by(tabular, x)
        budgets = [one_pass(config.tuning, len(tabular.rows[of])) for of in ("train", "local")]
        methods = GlobalModel(budgets[0]), LocalFinetune(budgets[1])
        start = classifier(config, lab.child(site))
        rows_of_site = unseen_and_local(config, tabular, start, methods, lab.child(site))
        yield from label(rows_of_site, site=site, **facts_of(tabular))


def is_part(kind: Kind) -> Callable[[Row], bool]:
    return lambda row: row.get("part") == kind


def reading_gap(corpus: Corpus, a: str, b: str) -> Effect:
    """Mean of AUC(a) − AUC(b) over departments with enough cases; seeds and departments are both
    samples.
    """

    def read(rows: Rows) -> Reading:
        rows = [row for row in pick(rows, corpus=corpus) if row.get("department", "all") != "all"]
        scarce = {row["department"] for row in rows if not row["judged"]}
        rows = [row for row in rows if row["department"] not in scarce]
        one, other = (grid(pick(rows, reads=name), "auc", "seed", "department") for name in (a, b))
        return crossed_gap(one, other, unit="AUC")

    return restrict(read, part=Kind.POOLED)


def gain(corpus: Corpus, kind: Kind = Kind.SITES) -> Effect:
    """AUC after fine-tuning at the site minus that of the model that never saw it."""
    return restrict(better(corpus, "local", "unseen"), part=kind)


def words_rank(rows: Rows) -> Reading:
    """Share of seeds in which the number of words is among the four main causes of errors."""
    ranks = column(rows, "rank", cause="words")
    return stats.proportion(sum(rank <= 4 for rank in ranks), len(ranks))


CLAIMS = (
    Claim("Fine-tuning a linear head at the department beats the head that never saw it by at "
          "least 0.01 AUC (random split).", gain(Corpus.RANDOM), above=NAMED_GAP, unit=Unit.SITE),
    Claim("Fine-tuning a linear head at the department beats the head that never saw it by at "
          "least 0.01 AUC (temporal split).", gain(Corpus.LATER), above=NAMED_GAP, unit=Unit.SITE),
    Claim("Reading the rendered fields gains nothing over the fields themselves: frozen vectors "
          "rank at most 0.01 AUC better (random split).", reading_gap(Corpus.RANDOM, FROZEN, CODED),
          below=NAMED_GAP, unit=Unit.SITE),
    Claim("Frozen vectors rank no worse than TF-IDF by more than 0.02 AUC (random split).",
          reading_gap(Corpus.RANDOM, FROZEN, "TF-IDF"), above=-2 * NAMED_GAP, unit=Unit.SITE),
    Claim("The number of words is among the four main causes of errors in more than half of the "
          "seeds.",
          words_rank, above=0.5),
    Claim("MiniLM fine-tuned as a whole gains at the smallest and the largest department.",
          gain(Corpus.RANDOM, Kind.TUNED_SITES), above=NAMED_GAP, unit=Unit.MODEL),
    Claim("In infants' injuries, hospitals with more rows are ranked better by a model that has "
          "not seen them (slope of AUC on log10 of rows).", hospital_slope, above=0.0,
          unit=Unit.SITE, sign_because="the paper names a direction over sizes, no slope"),
    # years follow each other: a slope over them has fewer independent values than years
    Claim("In infants' injuries, AUC falls with the years since training (slope over years, taken "
          "as independent).",
          yearly_slope, below=0.0, unit=Unit.YEAR,
          sign_because="the paper compares two periods, no slope"),
    Claim("NEISS narratives, where the user has the files: fine-tuning a linear head at the "
          "hospital beats the head that never saw it.", gain(Corpus.NARRATIVES), above=NAMED_GAP,
          unit=Unit.SITE, needs=Scale.PAPER),
)  # fmt: skip


def table(rows: Rows) -> Sequence[Row]:
    """By reader and split, the AUC over all rows and the mean over departments; then the sites."""
    lines: list[Row] = []
    found = [row for row in rows if "reads" in row]
    for name, corpus in distinct(found, "reads", "corpus"):
        here = pick(found, reads=name, corpus=corpus)
        every = pick(here, department="all")
        lines.append(
            {
                TITLE: f"{name}: {corpus}",
                "AUC, all": fmean(column(every, "auc")),
                "low": fmean(column(every, "low")),
                "high": fmean(column(every, "high")),
                "n": fmean(column(every, "n")),
                "positive": fmean(column(every, "positives")),
                "seeds": len(every),
            }
        )
    for part, corpus, variant in distinct(rows, "part", "corpus", "variant"):
        here = pick(rows, part=part, corpus=corpus, variant=variant)
        lines.append(
            {
                TITLE: f"{part}, {corpus}: {variant}",
                "mean AUC of sites": fmean(column(here, "auc")),
                "sites": len(distinct(here, "site")),
                "seeds": len(distinct(here, "seed")),
            }
        )
    return [*lines, *department_lines(rows)]


def department_lines(rows: Rows) -> Iterator[Row]:
    """AUC in each department with the mean limits of its interval over seeds."""
    found = [row for row in rows if row.get("department", "all") != "all"]
    for name, corpus, department in distinct(found, "reads", "corpus", "department"):
        here = pick(found, reads=name, corpus=corpus, department=department)
        yield {
            TITLE: f"{department}, {name}: {corpus}",
            **{key: fmean(column(here, key)) for key in ("low", "high", "n")},
            "AUC": fmean(column(here, "auc")),
            "positive": fmean(column(here, "positives")),
            "seeds": len(here),
        }


def drivers_figure(rows: Rows) -> Bars:
    """Why departments differ."""
    return draw_bars(
        site_drivers(rows), f"Change in an unseen department's AUC ({TITLE})", "per SD"
    )


def site_drivers(rows: Rows) -> dict[str, Reading]:
    """Slopes of the unseen departments' AUC on what may drive it (means over seeds)."""
    rows = pick(sufficient(pick(rows, part=Kind.SITES), Corpus.RANDOM), variant="unseen")
    auc = grid(rows, "auc", "seed", "site").mean(0)
    names = ["words", "n_local", "positives", "age"][: max(1, auc.size - 2)]
    return drivers(auc, {name: grid(rows, name, "seed", "site").mean(0) for name in names})


LAPTOP = Config()
study = Study(
    name="clinical_notes",
    system="09",
    differs=(
        "Nothing here is a note that somebody wrote: coded fields of Diabetes-130 are rendered in "
        "one fixed wording, departments stand in for hospitals, at most 1,000 rows of each, and "
        "the first 64 tokens are read, in bfloat16. The paper fine-tunes a clinical language model "
        "of BERT size on 512 tokens of real notes of four hospitals. Local minus unseen is judged "
        "with a linear head on frozen vectors of MiniLM (22 million weights, not clinical), with 5 "
        "seeds; MiniLM as a whole is fine-tuned on 600 notes in one pass, once per split and at "
        "the smallest and the largest department only (leaving out all 13 would be 13 "
        "fine-tunings), and is reported. The outcome is hard to tell from codes (AUC about 0.6). "
        "Real narratives with hospital and outcome are those of NEISS, the user's own download: "
        "claims about them are not judged here. The infants' injuries are coded fields of 98 real "
        "hospitals, without narratives."
    ),
    not_tested=(
        "Anything about notes as clinicians write them: words per note as a cause in real notes, "
        "and what clinical pre-training adds. Instance-based and cluster-based fine-tuning of a "
        "language model. Insurance groups."
    ),
    source=reference("rahman2024generalization"),
    scales={
        Scale.SMOKE: resize(
            LAPTOP,
            part=Part.SHIPPED,
            min_rows=200,
            most=220,
            sites=3,
            encoder=tiny_encoder,
            bfloat16=False,
            first={"steps": 20, "lr": 5e-3},
            then={"steps": 5},
            tuning={"bfloat16": False},
            notes=64,
            why=HighLossFeatures(folds=2, repeats=1, trees=5),
            least=3,
            seeds=1,
            infants=synthetic_infants,
            narratives=synthetic_year,
        ),
        Scale.LAPTOP: LAPTOP,
        Scale.PAPER: replace(
            LAPTOP, most=0, notes=20_000, seeds=20, tuned_seeds=5, narratives=no_narratives
        ),
    },
    cells=Config.cells,
    run=run,
    claims=CLAIMS,
    figures=(drivers_figure, hospitals_figure),
    table=stack(table, infants_table),
)
