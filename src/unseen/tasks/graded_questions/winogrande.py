"""Sentences of WinoGrande with a blank, two options, and the rule that a person or GPT-3 wrote as
the reason (Saha et al., 2022, arXiv:2211.07517).

`hardness` is the authors' own: confidence of RoBERTa-large on Data Maps.
"""

import re
from dataclasses import dataclass
from enum import StrEnum

from unseen.data.files import data_file
from unseen.errors import InvalidData
from unseen.tasks.graded_questions.item import Item

FOLDER = "winogrande-explanations"
BLANK = "_"
BLANK_TEMPLATE = "{question}\nThe blank stands for"
COLUMNS = 6


class Level(StrEnum):
    """Hardness of the item; only easy and hard ones have a pool beside the test."""

    EASY = "easy"
    MEDIUM = "medium"
    HARD = "hard"


@dataclass(frozen=True)
class ExplainedSentence:
    """A sentence with one blank, what may fill it, and a rule that explains the right option."""

    sentence: str
    options: tuple[str, str]
    answer: int
    rule: str
    agrees: bool = True
    """Whether the person who wrote the rule agreed with the label."""
    where: str = "the sentence"

    def __post_init__(self) -> None:
        if (count := self.sentence.count(BLANK)) != 1:
            raise InvalidData(
                f"{self.where} has {count} blanks `{BLANK}`: {self.sentence!r}.",
                why="exactly one place is filled.",
                fix=f"write one `{BLANK}` where the option stands.",
            )

    @property
    def parts(self) -> tuple[str, str]:
        """What stands before the blank and behind it."""
        before, _, behind = self.sentence.partition(BLANK)
        return before, behind

    @property
    def sentence_with_answer(self) -> str:
        """The sentence with the right option."""
        return self.sentence.replace(BLANK, self.options[self.answer])

    def mask(self, text: str) -> str:
        """A text with the options' names replaced by X and Y."""
        for name, sign in zip(self.options, "XY", strict=True):
            text = re.sub(rf"\b{re.escape(name)}\b", sign, text, flags=re.IGNORECASE)
        return text

    def item(self, before: str = "") -> Item:
        """Which option the blank stands for, as a question, with a text `before` it."""
        text = f"{before}\n{self.sentence}" if before else self.sentence
        return Item(text, self.options, self.answer, self.where, template=BLANK_TEMPLATE)


def read_sentences(text: str, name: str) -> list[ExplainedSentence]:
    """Lines of sentence, option 1, option 2, answer, agree or disagree, rule, with tabs between."""
    rows = [row for row in enumerate(text.splitlines(), 1) if row[1].strip()]
    return [_sentence(line, f"Line {number} of {name}") for number, line in rows]


def _sentence(line: str, where: str) -> ExplainedSentence:
    fields = [field.strip() for field in line.split("\t")]
    if len(fields) != COLUMNS:
        raise InvalidData(
            f"{where} has {len(fields)} columns.",
            why="a row is sentence, option 1, option 2, answer, agree or disagree, and rule.",
            fix="separate the six by tabs.",
        )
    sentence, first, second, answer, agrees, rule = fields
    if answer not in (first, second):
        raise InvalidData(
            f"The answer `{answer}` on {where[0].lower()}{where[1:]} is neither `{first}` nor "
            f"`{second}`.",
            why="one of the two options is right.",
            fix="write the answer as the option is written.",
        )
    return ExplainedSentence(
        sentence, (first, second), (first, second).index(answer), rule, agrees == "agree", where
    )


def explained_sentences(level: Level, part: str = "test_100") -> list[ExplainedSentence]:
    """The 100 test sentences of a level, or with `pool_400` the 400 others (easy and hard), all
    with human rules.
    """
    name = f"{level}_{part}.tsv"
    return read_sentences(data_file(f"{FOLDER}/{name}").read_text("utf-8-sig"), name)


def generated_rules(level: Level) -> list[str]:
    """GPT-3's rules (text-davinci-002) for the test sentences of a level, in their order."""
    text = data_file(f"{FOLDER}/{level}_gpt_generations.txt").read_text("utf-8-sig")
    return [line.strip() for line in text.splitlines() if line.strip()]
