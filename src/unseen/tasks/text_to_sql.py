"""Questions that people asked and the SQL that answers them: GeoQuery and Advising
(Finegan-Dollak et al., 2018, arXiv:1806.09029).

Names of places, courses and the like are variables (`state_name0`) on both sides, so that what is
asked is the form of the query.
"""

import gzip
import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from unseen.data.files import data_file
from unseen.engine.token_pairs import Pair, pair
from unseen.errors import CorruptFile
from unseen.lab import Lab
from unseen.task import Axis, Task
from unseen.tasks.token_pairs import TokenPairs


class Source(StrEnum):
    """A database that people asked about."""

    GEOGRAPHY = "geography"
    ADVISING = "advising"


class Unit(StrEnum):
    """What is in one part of the published split only."""

    QUESTION = "question-split"
    """Another wording may be of the same query: not compositional."""
    QUERY = "query-split"
    """Every query pattern is in one part."""


@dataclass(frozen=True)
class Question:
    """A wording with its query, and the parts that it is in by both splits."""

    pair: Pair
    part: dict[Unit, str]


def read_questions(source: Source) -> list[Question]:
    """Every different wording of every query once, in the order of the file; those that the release
    excludes are left out. Of several equivalent queries the first is taken.
    """
    name = f"text-to-sql/{source.value}.json.gz"
    try:
        entries = json.loads(gzip.decompress(data_file(name).read_bytes()))
        found: dict[Pair, Question] = {}
        for entry in entries:
            for sentence in entry["sentences"]:
                one = question(entry, sentence)
                if "exclude" not in one.part.values():
                    found.setdefault(one.pair, one)
    except (KeyError, ValueError, OSError) as error:
        raise CorruptFile(f"{name} cannot be read.", why=str(error), fix="get it anew.") from error
    return list(found.values())


def question(entry: dict[str, Any], sentence: dict[str, Any]) -> Question:
    return Question(
        pair(sentence["text"], entry["sql"][0]),
        {Unit.QUERY: entry[Unit.QUERY], Unit.QUESTION: sentence[Unit.QUESTION]},
    )


@dataclass(frozen=True)
class TextToSql:
    """A published split; its development part belongs to training."""

    source: Source = Source.GEOGRAPHY
    unit: Unit = Unit.QUERY

    def pairs(self) -> TokenPairs:
        questions = read_questions(self.source)
        train = [q.pair for q in questions if q.part[self.unit] in ("train", "dev")]
        test = [q.pair for q in questions if q.part[self.unit] == "test"]
        axis = Axis.COMPOSITION if self.unit is Unit.QUERY else Axis.IID
        name = f"{self.source.value} by {self.unit.name.lower()}"
        return TokenPairs(name, tuple(train), {"unseen": tuple(test)}, axis)

    def build(self, lab: Lab) -> Task:
        return self.pairs().build(lab)


def example() -> TextToSql:
    return TextToSql()
