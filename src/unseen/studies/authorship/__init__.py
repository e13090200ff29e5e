"""Who wrote it? Authors across books, topics and time; machine text across generators and domains;
which generator; and where a machine takes over.

The four problems of the survey by Huang, Chen & Shu (2024), arXiv:2408.08946.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from statistics import fmean
from typing import Any

from unseen import stats
from unseen.lab import Lab
from unseen.reading import Reading
from unseen.studies.authorship import machines, people
from unseen.studies.authorship.corpora import INVENTED, Corpora
from unseen.study import (
    Claim,
    Effect,
    Row,
    Rows,
    Scale,
    Study,
    Unit,
    Value,
    average,
    column,
    gap,
    pick,
    rate,
)
from unseen.study.effects import derive, restrict
from unseen.study.figures import bars, stack, summary
from unseen.study.grid import Cell, Grid, interleave, resize
from unseen.study.source import reference
from unseen.study.trial import label
from unseen.tasks.authorship.corpora import GENERATORS


class Part(StrEnum):
    """What a cell trains and evaluates."""

    BOOKS = "books"
    TOPICS = "topics"
    TIME = "time"
    DISPUTED = "disputed"
    PEOPLE = "people"
    GENERATORS = "generators"
    NAMES = "names"
    ZERO_SHOT = "zero-shot"
    JOINED = "joined"


MANY_AUTHORS = (Part.BOOKS, Part.TOPICS, Part.TIME)
DETECTORS = (Part.PEOPLE, Part.GENERATORS, Part.NAMES)
"""Parts whose splits are drawn anew by every seed."""
TRAINED = "gpt-3.5-turbo"


@dataclass(frozen=True)
class File:
    """Pairs of one domain and generator, for a part that draws nothing or needs no training."""

    part: Part
    domain: str = ""
    generator: str = ""


@dataclass(frozen=True)
class Config:
    corpora: Corpora = Corpora()
    domains: tuple[str, str] = ("xsum", "writing")
    generators: tuple[str, ...] = (TRAINED, "gpt-4", "davinci", "gpt2-xl")
    """The first one is trained on."""
    names: tuple[str, ...] = GENERATORS
    """Whose texts are told apart."""
    articles: tuple[int, int] = (15, 8)
    """Of each author, for training and for each evaluation."""
    files: tuple[File, ...] = ()
    pairs: int = 24
    """Of each file that the language model scores."""
    words: int = 95
    author_seeds: int = 4
    """Of the parts with many authors, which cost most."""
    seeds: int = 5

    def cells(self) -> Iterator[Cell["Config | File", Any]]:
        yield from interleave(
            Grid((self,), MANY_AUTHORS, self.author_seeds),
            Grid((self,), DETECTORS, self.seeds),
            Grid((File(Part.DISPUTED), *self.files), (self,), 1),
        )


def run(cell: Cell["Config | File", Any], lab: Lab) -> Iterator[Row]:
    if isinstance(cell.setting, File) and isinstance(cell.arm, Config):
        rows = scored_rows(cell.setting, cell.arm, lab)
    else:
        assert isinstance(cell.setting, Config)
        rows = trained_rows(Part(cell.arm), cell.setting, lab)
    return label(rows, seed=cell.seed)


def trained_rows(part: Part, config: Config, lab: Lab) -> Iterator[Row]:
    """One draw of what is trained on and what is evaluated."""
    texts = config.corpora
    match part:
        case Part.BOOKS:
            return people.across_books(texts, lab)
        case Part.TOPICS:
            return people.across_topics(texts, lab, *config.articles)
        case Part.TIME:
            return people.across_time(texts, lab)
        case Part.PEOPLE:
            return people.against_people(texts, lab)
        case Part.GENERATORS:
            return machines.across_generators(texts, lab, config.domains, config.generators)
        case _:
            return machines.name_generator(texts, lab, config.domains, config.names)


def scored_rows(file: File, config: Config, lab: Lab) -> Iterator[Row]:
    """Items of a file under a fixed model, or the disputed papers."""
    if file.part is Part.DISPUTED:
        return people.disputed_papers(config.corpora)
    where = (file.domain, file.generator)
    if file.part is Part.ZERO_SHOT:
        return machines.zero_shot(config.corpora, *where, config.pairs, config.words)
    return machines.join_texts(config.corpora, lab, *where, config.pairs, config.words)


def area(statistic: str, file: str) -> Effect:
    """AUROC of a statistic over the texts of a file."""

    def read(rows: Rows) -> Reading:
        where: dict[str, Value] = {"part": "zero-shot", "file": file}
        return stats.auc(column(rows, statistic, **where), column(rows, "machine", **where))

    return read


def boundary_gap(kind: str, against: str = "") -> Effect:
    """Error of the change point minus that of always guessing the middle, or minus that of the
    same search in the human half of the pair; shares of the text's length, over human texts (the
    files of a domain continue the same ones)."""

    def read(rows: Rows) -> Reading:
        here = pick(rows, part="change", kind=kind)
        other = pick(rows, part="change", kind=against) if against else here
        name = "error" if against else "middle"
        rest = {(row["file"], row["item"]): float(row[name]) for row in other}
        found: dict[tuple[str, Value], list[float]] = {}
        for row in here:
            domain = str(row["file"]).partition(" ")[0]
            gap_here = float(row["error"]) - rest[row["file"], row["item"]]
            found.setdefault((domain, row["item"]), []).append(gap_here)
        return stats.mean([fmean(gaps) for gaps in found.values()])

    return read


NGRAMS: dict[str, Value] = {"part": "generators", "method": "CharNgram"}
BOOKS: dict[str, Value] = {"part": "books", "method": "CharNgram"}


def narrowing(rows: Rows) -> Reading:
    """The gap between known and other books with all words, minus that with masked ones."""
    found = {
        (row["seed"], row["words"], row["at"]): float(row["accuracy"])
        for row in pick(rows, **BOOKS)
    }
    seeds = sorted({key[0] for key in found})
    plain, masked = (
        [found[s, words, "known books"] - found[s, words, "another book"] for s in seeds]
        for words in ("all", "masked")
    )
    return stats.difference(plain, masked)


CLAIMS = (
    Claim("Authors are recognised in books that were not seen: character n-grams name more than "
          "half of the passages.",
          average("accuracy", {**BOOKS, "words": "all", "at": "another book"}, within=(0.0, 1.0)),
          above=0.5),
    Claim("But less often than in known books, by at least 0.05.",
          gap("accuracy", {**BOOKS, "words": "all", "at": "known books"},
              {**BOOKS, "words": "all", "at": "another book"}), above=0.05),
    # an eighth of the gap here: the rest is not in these words
    Claim("Masking names and rare words narrows that gap, by at least 0.02.", narrowing,
          above=0.02),
    Claim("Journalists are recognised less often when their topic changes, by at least 0.05.",
          gap("accuracy", {"part": "topics", "method": "CharNgram", "at": "same topics"},
              {"part": "topics", "method": "CharNgram", "at": "another topic"}), above=0.05),
    Claim("Burrows' Delta gives more than half of the twelve disputed Federalist papers to "
          "Madison.",
          rate("madison", "n", part="disputed", method="BurrowsDelta"), above=0.5,
          unit=Unit.ITEM),
    Claim("ChatGPT's essays are told from people's by character n-grams on new topics (area "
          "under the ROC curve above 0.9).",
          average("auc", part="people", data="essays", method="CharNgram", within=(0.0, 1.0)),
          above=0.9),
    Claim("In short answers length alone tells them apart (above 0.9).",
          average("auc", part="people", data="answers", method="length", within=(0.0, 1.0)),
          above=0.9),
    Claim("A detector trained on one generator fails on another: AUROC from gpt-3.5 to itself "
          "minus to gpt2-xl, at least 0.3.",
          gap("auc", {**NGRAMS, "domain": "xsum", "generator": TRAINED},
              {**NGRAMS, "domain": "xsum", "generator": "gpt2-xl"}), above=0.3),
    Claim("On the same aligned generator it holds in another domain (above 0.8).",
          average("auc", {**NGRAMS, "domain": "writing", "generator": TRAINED}, within=(0.0, 1.0)),
          above=0.8),
    Claim("With shuffled labels nothing is learned (AUROC within 0.1 of one half).",
          average("auc", part="generators", method="shuffled labels", within=(0.0, 1.0)),
          above=0.4, below=0.6),
    Claim("Which of eight generators or a person wrote it can be told above chance (macro-F1 "
          "above 0.2; chance 0.11).",
          average("macro_f1", part="names", at="same domain", within=(0.0, 1.0)), above=0.2),
    Claim("But worse in another domain, by at least 0.05.",
          gap("macro_f1", {"part": "names", "at": "same domain"},
              {"part": "names", "at": "another domain"}), above=0.05),
    Claim("Zero-shot curvature tells the base model gpt2-xl from people without training "
          "(AUROC above 0.6; 24 texts of either).",
          area("curvature", "xsum gpt2-xl"), above=0.6, unit=Unit.ITEM),
    Claim("Zero-shot likelihood tells the aligned gpt-4 from people (AUROC above 0.6; 24 texts of "
          "either).",
          area("likelihood", "xsum gpt-4"), above=0.6, unit=Unit.ITEM),
    Claim("Where a machine continues a person's words, the change point errs less than the middle, "
          "by at least a tenth of the text.", boundary_gap("prefix"), below=-0.1, unit=Unit.ITEM),
    Claim("It finds the machine and not only the beginning: it errs less than the same search in "
          "the text that the person wrote on, by at least 0.03 of the text.",
          boundary_gap("prefix", "prefix, human text"),
          below=-0.03, unit=Unit.ITEM),
    Claim("Where the two are joined at a random word, it errs less than the middle, too, by "
          "at least 0.03 of the text.",
          boundary_gap("joined"), below=-0.03, unit=Unit.ITEM),
)  # fmt: skip

detectors = restrict(
    derive(
        bars(
            average("auc"),
            by="tested",
            title="Trained on gpt-3.5 in news: AUROC elsewhere (mean over seeds)",
            label="AUROC",
        ),
        tested=lambda row: f"{row['generator']}, {row['domain']}",
    ),
    **NGRAMS,
)
table = stack(
    summary(("part", "method", "words", "at"), ("accuracy",), where={"part": "books"}),
    summary(("part", "method", "at"), ("accuracy",), where={"part": "topics"}),
    summary(("part", "method", "at"), ("accuracy",), where={"part": "time"}),
    summary(("part", "method"), ("madison",), where={"part": "disputed"}),
    summary(("part", "data", "method"), ("auc",), where={"part": "people"}),
    summary(("part", "method", "domain", "generator"), ("auc",), where={"part": "generators"}),
    summary(("part", "at"), ("macro_f1",), where={"part": "names"}),
    summary(("part", "kind", "file"), ("error", "middle"), where={"part": "change"}),
)


def areas(rows: Rows) -> list[Row]:
    """AUROC of every statistic and file, with the lowest end of its interval."""
    found: list[Row] = []
    for file in dict.fromkeys(row["file"] for row in pick(rows, part="zero-shot")):
        for statistic in ("likelihood", "rank", "lrr", "curvature", "entropy", "binoculars"):
            reading = area(statistic, str(file))(rows)
            found.append({
                "part": "zero-shot", "file": file, "method": statistic, "auc": reading.value,
                "auc, low": reading.low, "auc, high": reading.high,
            })  # fmt: skip
    return found


ZERO_SHOT = (("xsum", TRAINED), ("xsum", "gpt-4"), ("xsum", "davinci"), ("xsum", "gpt2-xl"),
             ("writing", "gpt-4"), ("writing", "gpt2-xl"))  # fmt: skip
JOINED = (("xsum", "gpt-4"), ("xsum", "gpt2-xl"))
FILES = (
    *(File(Part.ZERO_SHOT, *one) for one in ZERO_SHOT),
    *(File(Part.JOINED, *one) for one in JOINED),
)
LAPTOP = Config(files=FILES)
study = Study(
    name="authorship",
    system="24",
    differs=(
        "The survey runs nothing; here its four problems are run on public texts with classical "
        "methods and 5 seeds (4 for books, topics and time), each of which draws the split anew: "
        "26 novels, 15 journalists, the "
        "Federalist papers, 84 essays and 817 answers of people and ChatGPT, and 150 pairs of "
        "each of 16 of the 24 files of Fast-DetectGPT. Zero-shot statistics come from "
        "SmolLM2-135M, which is far smaller than the scoring models of the literature and none of "
        "the generators, on 24 pairs of 95 words in six files. The disputed Federalist papers are "
        "a closed set of twelve, and other methods differ: character n-grams give Madison none."
    ),
    not_tested=(
        "Fine-tuned and contrastive neural detectors at their published size, watermarks, "
        "paraphrase attacks, human edits of machine text, and languages other than English."
    ),
    source=reference("huang2024authorship"),
    scales={
        Scale.SMOKE: resize(
            LAPTOP,
            corpora=INVENTED,
            names=(TRAINED, "gpt2-xl"),
            articles=(4, 2),
            files=tuple(f for f in FILES if f.generator in ("gpt-4", "gpt2-xl")),
            pairs=4,
            words=30,
            author_seeds=2,
            seeds=2,
        ),
        Scale.LAPTOP: LAPTOP,
        Scale.PAPER: resize(LAPTOP, pairs=150, words=150, seeds=10),
    },
    cells=Config.cells,
    run=run,
    claims=CLAIMS,
    figures=(detectors,),
    table=lambda rows: [*table(rows), *areas(rows)],
)
