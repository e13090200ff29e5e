"""A corpus that states procedures, facts and noise, so that one can ask from which documents an
answer comes.

After Ruis et al. (2025), arXiv:2411.12580, at the size of one core: what they find among five
million documents of a language model is built in here. Two procedures on three digits a b c, one of
them in two formats:

    successor             + a b c = x y z      x y z = a+1 b+1 c+1 (modulo 10)
    successor, postfix    a b c # > x y z      the same procedure
    reversal              R a b c = c b a      another procedure in the format of the first

and facts "A is B", and filler. Evaluated are triples of digits that no document of the procedure
uses.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar, TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn

from unseen.engine.batches import Columns
from unseen.engine.decode import greedy, log_probability
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.method import Trained
from unseen.objectives import all_tokens_right, drawn_tokens, sequence_log_probability
from unseen.task import Axis, Batch, Objective, Split, Task, Use
from unseen.tasks.reversal import BOS, EOS, PAD, SPECIAL, Ints

Made: TypeAlias = dict[str, NDArray[Any]]
"""Columns by name."""

DIGITS = 10
PLUS, EQUALS, REVERSE, HASH, ARROW, IS = range(SPECIAL + DIGITS, SPECIAL + DIGITS + 6)
FIRST_WORD = IS + 1
LENGTH = 16
FRONT = 3
"""Most filler words in front of a fact."""
TEXT = LENGTH - 2
"""Words of a filler document."""
TAIL = 3
"""Its last words, which are asked for."""
NONE = -1
"""In place of operands, of an answer or of a fact's number where a document has none."""


class Kind(StrEnum):
    """What a document states; the column `kind` holds its place in this list."""

    SUCCESSOR = "successor"
    POSTFIX = "successor, postfix"
    REVERSAL = "reversal"
    FACT = "fact"
    FILLER = "filler"

    @property
    def number(self) -> int:
        return list(Kind).index(self)


PROCEDURES = (Kind.SUCCESSOR, Kind.POSTFIX, Kind.REVERSAL)


def nats_per_position(model: nn.Module, batch: Batch) -> Tensor:
    """−log p of a document over the 15 positions of the longest: proportional to its nats, as
    influence assumes.
    """
    return -sequence_log_probability(model, batch) / (LENGTH - 1)


@dataclass(frozen=True)
class ProceduralCorpus:
    """`triples` documents of each procedure, `facts` facts in `copies` documents each, `fillers`
    filler documents.

    An answer's digit is replaced by a random one with probability `noise`: without it the loss
    vanishes, and with it every gradient. Columns of every split: `tokens`, `mask` (what is no
    padding), `answer` (the mask of what is asked: the answer; the last words of filler), and what a
    document states: `kind`, `operands` [3], `says` [3] (the tokens of the answer as stated, noise
    included), `fact` (its number). Missing entries are −1.
    """

    triples: int = 700
    held_out: int = 300
    """Unseen triples of each procedure that are evaluated, and as many seen ones."""
    facts: int = 150
    copies: int = 3
    fillers: int = 400
    noise: float = 0.1
    tokens: int = 30
    """First and second tokens of names and of attributes, each so many."""
    words: int = 61
    """Filler words; word k is drawn with probability ∝ 1/k (Zipf)."""
    recalls: ClassVar[frozenset[str]] = frozenset(
        {"facts", *(f"seen/{kind}" for kind in PROCEDURES)}
    )

    def __post_init__(self) -> None:
        enough = self.triples + self.held_out <= DIGITS**3 and self.facts <= self.tokens**2
        some = (
            min(self.triples, self.held_out, self.facts, self.copies, self.fillers, self.words) >= 1
        )
        if not enough or not some or not 0 <= self.noise < 1:
            raise InvalidConfig(
                f"ProceduralCorpus(triples={self.triples}, held_out={self.held_out}, "
                f"facts={self.facts}, "
                f"copies={self.copies}, fillers={self.fillers}, noise={self.noise}, "
                f"tokens={self.tokens}, "
                f"words={self.words}) is out of range.",
                why="there are 1,000 triples to fit and to evaluate and tokens² names; noise is a "
                "probability below 1; "
                "every kind has documents.",
                fix="ask for fewer triples or facts, or raise `tokens`.",
            )

    @property
    def vocabulary(self) -> int:
        return FIRST_WORD + 4 * self.tokens + self.words

    @property
    def documents(self) -> int:
        return len(PROCEDURES) * self.triples + self.facts * self.copies + self.fillers

    def build(self, lab: Lab) -> Task:
        parts: list[Made] = []
        splits: dict[str, Split] = {}
        for kind in PROCEDURES:
            place = lab.child(kind)
            order = place.numpy().permutation(DIGITS**3)
            fitted, unseen = (
                order[: self.triples],
                order[self.triples : self.triples + self.held_out],
            )
            parts.append(calculations(kind, fitted, self.noise, place.child("noise").numpy()))
            for name, chosen in (("seen", fitted[: self.held_out]), ("unseen", unseen)):
                asked = calculations(kind, chosen, 0.0, place.numpy())
                splits[f"{name}/{kind}"] = Split(columns(asked), Use.EVALUATE, f"{name} numbers")
        names, attributes = self.pairs(lab)
        facts = np.arange(self.facts)
        stated = np.repeat(facts, self.copies)
        front = self.text((len(stated), FRONT), lab.child("front"))
        counts = lab.child("how many in front").numpy().integers(FRONT + 1, size=len(stated))
        parts.append(statements(names[stated], attributes[stated], stated, front, counts))
        parts.append(fillers(self.text((self.fillers, TEXT), lab.child("filler"))))
        bare = statements(names, attributes, facts, front[: self.facts], np.zeros_like(facts))
        control = fillers(self.text((self.held_out, TEXT), lab.child("control")))
        train = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        return Task(
            name="procedural corpus",
            axis=Axis.COMPOSITION,
            splits={
                "train": Split(columns(train), Use.TRAIN, "seen numbers"),
                **splits,
                "facts": Split(columns(bare), Use.EVALUATE, "seen numbers"),
                "control": Split(columns(control), Use.EVALUATE, "unseen text"),
            },
            objective=Objective(nats_per_position, all_tokens_right, drawn_tokens),
        )

    def pairs(self, lab: Lab) -> tuple[Ints, Ints]:
        """Names and attributes [facts, 2], no name and no attribute twice."""

        def sample_pairs(name: str, first: int) -> Ints:
            chosen = lab.child(name).numpy().choice(self.tokens**2, self.facts, replace=False)
            one, two = np.divmod(chosen, self.tokens)
            return np.stack([first + one, first + self.tokens + two], 1)

        return sample_pairs("names", FIRST_WORD), sample_pairs(
            "attributes", FIRST_WORD + 2 * self.tokens
        )

    def text(self, shape: tuple[int, int], lab: Lab) -> Ints:
        """Filler words, each drawn for itself."""
        p = 1 / np.arange(1, self.words + 1)
        return FIRST_WORD + 4 * self.tokens + lab.numpy().choice(self.words, shape, p=p / p.sum())


def calculations(kind: Kind, triples: Ints, noise: float, rng: np.random.Generator) -> Made:
    """One document per triple abc, written as the number 100a + 10b + c."""
    n = len(triples)
    digits = np.stack([triples // 100, triples // 10 % 10, triples % 10], 1)
    right = digits[:, ::-1] if kind is Kind.REVERSAL else (digits + 1) % DIGITS
    wrong = rng.random((n, 3)) < noise
    operands, says = (
        SPECIAL + digits,
        SPECIAL + np.where(wrong, rng.integers(DIGITS, size=(n, 3)), right),
    )

    def sign(token: int) -> Ints:
        return np.full((n, 1), token, dtype=np.int64)

    asked = {
        Kind.SUCCESSOR: [sign(PLUS), operands, sign(EQUALS)],
        Kind.POSTFIX: [operands, sign(HASH), sign(ARROW)],
        Kind.REVERSAL: [sign(REVERSE), operands, sign(EQUALS)],
    }[kind]
    tokens = pad(np.concatenate([sign(BOS), *asked, says, sign(EOS)], 1))
    place = np.broadcast_to(np.arange(LENGTH), tokens.shape)
    return document_columns(
        kind, tokens, (place >= 6) & (place < 9), digits, says, np.full(n, NONE)
    )


def statements(names: Ints, attributes: Ints, fact: Ints, front: Ints, counts: Ints) -> Made:
    """One document per row: `counts` of the words in `front`, then "name is attribute"."""
    n = len(names)
    tokens = np.full((n, LENGTH), PAD, dtype=np.int64)
    tokens[:, 0] = BOS
    stated = np.concatenate([names, np.full((n, 1), IS), attributes, np.full((n, 1), EOS)], 1)
    for k in range(FRONT + 1):
        mine = counts == k
        tokens[mine, 1 : 1 + k] = front[mine, :k]
        tokens[mine, 1 + k : 7 + k] = stated[mine]
    place = np.arange(LENGTH) - counts[:, None]
    says = np.concatenate([attributes, np.full((n, 1), NONE)], 1)
    return document_columns(
        Kind.FACT, tokens, (place == 4) | (place == 5), np.full((n, 3), NONE), says, fact
    )


def fillers(words: Ints) -> Made:
    """One document per row of words."""
    n = len(words)
    tokens = np.concatenate([np.full((n, 1), BOS), words, np.full((n, 1), EOS)], 1)
    place = np.broadcast_to(np.arange(LENGTH), tokens.shape)
    missing = np.full((n, 3), NONE)
    tail = (place > TEXT - TAIL) & (place <= TEXT)
    return document_columns(Kind.FILLER, tokens, tail, missing, missing, np.full(n, NONE))


def pad(tokens: Ints) -> Ints:
    """Padded to the common length."""
    return np.pad(tokens, ((0, 0), (0, LENGTH - tokens.shape[1])), constant_values=PAD)


def document_columns(
    kind: Kind, tokens: Ints, answer: NDArray[np.bool_], operands: Ints, says: Ints, fact: Ints
) -> Made:
    """The columns of documents of one kind."""
    number = np.full(len(tokens), kind.number)
    return {
        "tokens": tokens,
        "mask": tokens != PAD,
        "answer": answer,
        "kind": number,
        "operands": operands,
        "says": says,
        "fact": fact,
    }


def columns(made: Made) -> Columns:
    return Columns(
        **{name: torch.from_numpy(np.ascontiguousarray(column)) for name, column in made.items()}
    )


def states(
    answers: Int[Tensor, "query 3"], documents: Int[Tensor, "document 3"]
) -> Bool[Tensor, "query document"]:
    """Whether a document states an answer, by the column `says` of both, whatever it states it
    of.
    """
    known = (answers != NONE).any(1)[:, None]
    return (answers[:, None] == documents).all(2) & known


SPLITS = {
    **{kind: f"unseen/{kind}" for kind in PROCEDURES},
    Kind.FACT: "facts",
    Kind.FILLER: "control",
}
"""Where the queries of each group come from; filler, which needs neither procedure nor fact, is the
control.
"""


@dataclass(frozen=True, eq=False)
class Queries:
    """Prompts with the model's own completions."""

    tokens: Int[Tensor, "query position"]
    mask: Bool[Tensor, "query position"]
    """Of the completion."""
    nats: Float[Tensor, " query"]
    group: Int[Tensor, " query"]
    says: Int[Tensor, "query 3"]
    fact: Int[Tensor, " query"]

    @property
    def batch(self) -> Batch:
        return {"tokens": self.tokens, "mask": self.mask}

    def of(self, *groups: int) -> Bool[Tensor, " query"]:
        return torch.isin(self.group, torch.tensor(groups))


def ask(trained: Trained, most: int, is_right: bool = True) -> Queries:
    """The first `most` held-out triples, facts and texts of each group as the model completes them:
    of filler any, otherwise (with `is_right`) those that are right.
    """
    parts = []
    for kind, name in SPLITS.items():
        split = trained.task.split(name).data
        assert isinstance(split, Columns)
        data = split.columns
        tokens, answer = data["tokens"].clone(), data["answer"]
        start, length = int(answer[0].long().argmax()), int(answer[0].sum())
        span = slice(start, start + length)
        prompts = tokens[:, :start].tolist()
        completions = torch.tensor(greedy(trained.model, prompts, length))
        right = (completions == tokens[:, span]).all(1)
        tokens[:, span] = completions
        chosen = right | (kind is Kind.FILLER or not is_right)
        rows = chosen.nonzero().squeeze(1)[:most]
        if not len(rows):
            raise InvalidData(
                f"None of the {len(right)} queries of “{kind}” is answered right.",
                why="influence on wrong answers is another question.",
                fix="train longer: raise budget.steps.",
            )
        answers = completions[rows]
        nats = -log_probability(trained.model, [prompts[k] for k in rows], answers.tolist())
        says = torch.full((len(rows), 3), NONE)
        if kind is not Kind.FILLER:
            says[:, :length] = answers
        group = torch.full((len(rows),), kind.number)
        parts.append(Queries(tokens[rows], answer[rows], nats, group, says, data["fact"][rows]))
    fields = Queries.__annotations__
    return Queries(*(torch.cat([getattr(part, name) for part in parts]) for name in fields))


def example() -> ProceduralCorpus:
    return ProceduralCorpus(
        triples=40, held_out=10, facts=8, copies=2, fillers=20, tokens=4, words=8
    )
