"""String rewriting: `x > y : z` asks for z with the leftmost x replaced by y, a step of a Markov
algorithm (Zhang et al., 2024, arXiv:2410.04717).

Every rule x → y is an instruction. Training shows some rules on many inputs; evaluation asks
training rules on new inputs, rules that training never shows, and rules of other families. A family
is a pattern of equal letters: in `aabb` each of two letters is doubled, in `abcd` all four differ.

Columns of every split: `tokens`, `mask` (the answer with its end token), `length` (letters of the
answer), `rule` (its number). In evaluation also `unchanged` (the letters of the answer that are
copied) and `new_string` (1 where no training rule has this x, or none this y).
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from string import ascii_lowercase
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from unseen.engine.batches import Columns
from unseen.engine.token_pairs import END, PAD, SPECIAL, TO, Vocabulary
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.objectives import exact_match
from unseen.task import Axis, Batch, Split, Task, Use

ARROW, COLON = ">", ":"
TRIES = 1_000
"""Draws without anything new after which there is nothing new."""


class Rule(NamedTuple):
    """x → y; a last rule ends the algorithm."""

    x: str
    y: str
    last: bool = False

    def rewrite(self, text: str) -> str:
        """The text with its leftmost x replaced; the text where x does not occur."""
        return text.replace(self.x, self.y, 1)


@dataclass(frozen=True)
class MarkovAlgorithm:
    """Rules in order: the first that applies rewrites its leftmost x, again and again."""

    rules: tuple[Rule, ...]

    def run(self, text: str, max_steps: int = 1_000) -> str:
        """The text at which no rule applies, or a last rule has applied."""
        for _ in range(max_steps):
            rule = next((rule for rule in self.rules if rule.x in text), None)
            if rule is None:
                return text
            text = rule.rewrite(text)
            if rule.last:
                return text
        raise InvalidData(
            f"The algorithm has not stopped after {max_steps} steps, at `{text[:40]}`.",
            why="its rules may go round for ever.",
            fix="raise max_steps, or give a rule that ends it: Rule(x, y, last=True).",
        )


@dataclass(frozen=True)
class Rewriting:
    """Training shows `rules` rules, evaluation `n_unseen` others; equal labs give equal unseen
    rules whatever the number of training rules, and fewer rules are the first of more.
    """

    alphabet: int = 10
    rule_length: int = 2
    """Letters of x and of y."""
    input_length: int = 6
    rules: int = 2_000
    """Different rules in training, evenly over the families."""
    n_train: int = 100_000
    """Training examples, whatever the number of rules."""
    n_test: int = 1_000
    """Examples of every evaluation split."""
    n_unseen: int = 2_000
    """Rules from which the evaluation of unseen rules draws, in every family."""
    noop: float = 0.0
    """Share of inputs in which x does not occur."""
    exponent: float = 0.0
    """Rule r is drawn in proportion to r^−exponent."""
    families: tuple[str, ...] = ("",)
    """Of training rules: patterns of equal letters for x and y, such as `aabb`; empty: any."""
    unseen_families: tuple[str, ...] = ()
    """Patterns that evaluation asks beside the training ones."""
    pool: tuple[tuple[str, str], ...] = ()
    """Rules of one's own, of any lengths, instead of all pairs of strings: `rules` of them are
    for training, the others unseen. Then `alphabet`, lengths and families are not read.
    """

    def __post_init__(self) -> None:
        self._check_ranges()
        if self.pool:
            self._check_pool()
            return
        for family in (*self.families, *self.unseen_families):
            available = self.count(family)
            part = self.n_unseen
            if family in self.families:
                part += math.ceil(self.rules / len(self.families))
            if part > available:
                name = f"of the family `{family}`" if family else f"of length {self.rule_length}"
                raise InvalidConfig(
                    f"{part} rules {name} are asked for (training and unseen ones).",
                    why=f"{self.alphabet} letters give {available:,}.",
                    fix=f"ask for at most {available:,} together, or use more letters.",
                )

    def _check_ranges(self) -> None:
        lengths = [len(x) for x, _ in self.pool] or [self.rule_length]
        if not 0 < min(lengths) <= max(lengths) <= self.input_length:
            raise InvalidConfig(
                f"A rule's x has {min(lengths)} to {max(lengths)} letters, an input "
                f"{self.input_length}.",
                why="x is written into the input.",
                fix=f"x may have 1 to {self.input_length} letters.",
            )
        within = 0 <= self.noop < 1 and self.exponent >= 0 and 2 <= self.alphabet <= 26
        if min(self.rules, self.n_train, self.n_test, self.n_unseen) < 1 or not within:
            raise InvalidConfig(
                f"Rewriting(alphabet={self.alphabet}, rules={self.rules}, "
                f"n_train={self.n_train}, n_test={self.n_test}, n_unseen={self.n_unseen}, "
                f"noop={self.noop}, exponent={self.exponent}) is out of range.",
                why="numbers of rules and examples are positive, noop is a share below 1, the "
                "exponent is not negative, and letters are a to z, at least two.",
                fix="correct the value.",
            )
        both = set(self.families) & set(self.unseen_families)
        patterns = [*self.families, *self.unseen_families]
        bad = [p for p in patterns if p and (len(p) != self.rule_length or p != pattern(p))]
        if not self.pool and (both or bad or not self.families):
            raise InvalidConfig(
                f"The families {self.families} and {self.unseen_families} do not fit.",
                why=f"a family is a pattern of {self.rule_length} letters whose new letters come "
                "in alphabetical order, in training or unseen, not both.",
                fix='write for example families=("aabb",), unseen_families=("abcd",).',
            )

    def _check_pool(self) -> None:
        wrong = [text for rule in self.pool for text in rule if set(text) - set(ascii_lowercase)]
        if wrong or len(set(self.pool)) < len(self.pool) or self.rules >= len(self.pool):
            raise InvalidConfig(
                f"A pool of {len(self.pool)} rules, {len(set(self.pool))} of them different, for "
                f"{self.rules} training rules" + (f" holds `{wrong[0]}`." if wrong else "."),
                why="rules consist of the letters a to z, each rule stands once, and at least one "
                "is left unseen.",
                fix=f"correct the rules, or ask for at most {len(set(self.pool)) - 1} of them.",
            )

    def count(self, family: str = "") -> int:
        """How many rules there are: ordered pairs of different strings."""
        strings = self.alphabet**self.rule_length
        if family:
            strings = math.perm(self.alphabet, len(set(family)))
        return strings * (strings - 1)

    @property
    def letters(self) -> str:
        used = {letter for rule in self.pool for text in rule for letter in text}
        return "".join(sorted(used)) if self.pool else ascii_lowercase[: self.alphabet]

    @property
    def vocabulary(self) -> Vocabulary:
        return Vocabulary((ARROW, COLON, *self.letters))

    def rules_of(self, lab: Lab) -> tuple[list[Rule], dict[str, list[Rule]]]:
        """Training rules, and unseen ones by split."""
        if self.pool:
            order = lab.child("rules").numpy().permutation(len(self.pool))
            chosen = [Rule(*self.pool[k]) for k in order]
            return chosen[: self.rules], {"unseen rules": chosen[self.rules :]}
        train, unseen = list[list[Rule]](), list[Rule]()
        share = math.ceil(self.rules / len(self.families))
        for family in self.families:
            # unseen rules come first: they are the same for every number of training rules
            drawn = self.draw_rules(family, self.n_unseen + share, lab)
            unseen += drawn[: self.n_unseen]
            train.append(drawn[self.n_unseen :])
        mixed = [rule for turn in zip(*train, strict=True) for rule in turn][: self.rules]
        others = {
            f"family {family}": self.draw_rules(family, self.n_unseen, lab)
            for family in self.unseen_families
        }
        return mixed, {"unseen rules": unseen, **others}

    def draw_rules(self, family: str, n: int, lab: Lab) -> list[Rule]:
        """The first n different rules of the family's stream."""
        rng = lab.child("rules", family).numpy()

        def string() -> str:
            if family:
                drawn = rng.permutation(self.alphabet)
                return "".join(ascii_lowercase[drawn[ord(c) - ord("a")]] for c in family)
            return "".join(ascii_lowercase[k] for k in rng.integers(self.alphabet, size=size))

        size = self.rule_length
        found: dict[Rule, None] = {}
        while len(found) < n:
            rule = Rule(string(), string())
            if rule.x != rule.y:
                found[rule] = None
        return list(found)

    def build(self, lab: Lab) -> Task:
        rules, unseen = self.rules_of(lab)
        train = self.draw(rules, self.n_train, lab.child("train"))
        shown = {example.text for example in train}
        every = {
            rule: k for k, rule in enumerate([*rules, *(r for p in unseen.values() for r in p)])
        }
        splits = {"train": Split(self.encode(train, every), Use.TRAIN, "training rules")}
        sides = {rule.x for rule in rules}, {rule.y for rule in rules}
        for name, part in {"seen rules": rules, **unseen}.items():
            examples = self.draw(part, self.n_test, lab.child(name), shown)
            columns = self.encode(examples, every).columns
            new = [e.rule.x not in sides[0] or e.rule.y not in sides[1] for e in examples]
            at = "training rules" if name == "seen rules" else name
            data = Columns(
                **columns,
                unchanged=self.copied_letters(examples, columns),
                new_string=torch.tensor(new).long(),
            )
            splits[name] = Split(data, Use.EVALUATE, at)
        return Task(name="rewriting", axis=Axis.TASK, splits=splits, objective=exact_match)

    def draw(
        self, rules: Sequence[Rule], n: int, lab: Lab, shown: Iterable[str] = ()
    ) -> list["Example"]:
        """So many examples, none of them in `shown`."""
        shown = set(shown)
        rng = lab.numpy()
        weights = np.arange(1, len(rules) + 1, dtype=float) ** -self.exponent
        found: list[Example] = []
        misses = 0
        while len(found) < n:
            size = n - len(found)
            chosen = rng.choice(len(rules), size, p=weights / weights.sum())
            drawn = rng.integers(len(self.letters), size=(size, self.input_length))
            idle, start = rng.random(size) < self.noop, rng.random(size)
            before = len(found)
            picked = (rules[i] for i in chosen)
            for rule, row, skip, at in zip(picked, drawn.tolist(), idle, start, strict=True):
                z = "".join([self.letters[i] for i in row])
                if not skip:
                    z = plant(rule.x, z, at)
                example = Example(rule, z)
                if (not skip or rule.x not in z) and example.text not in shown:
                    found.append(example)
            misses = misses + 1 if len(found) == before else 0
            if misses == TRIES:
                raise InvalidData(
                    f"No new example in {TRIES} draws.",
                    why="training shows every input of these rules, or x is in every input.",
                    fix="lower n_train or noop, or raise input_length.",
                )
        return found

    def encode(self, examples: Sequence["Example"], numbers: dict[Rule, int]) -> Columns:
        prompts = [e.text for e in examples]
        answers = [e.answer for e in examples]
        width = max(len(p) + len(a) for p, a in zip(prompts, answers, strict=True)) + 2
        # one table look-up for all letters: pairs one by one take longer than a training step
        rows = [
            f"{p}{TO_SIGN}{a}{END_SIGN}".ljust(width, PAD_SIGN)
            for p, a in zip(prompts, answers, strict=True)
        ]
        table = np.zeros(256, dtype=np.int64)
        signs = {PAD_SIGN: PAD, END_SIGN: END, TO_SIGN: TO, **self.vocabulary.number}
        for sign, number in signs.items():
            if sign not in SPECIAL:
                table[ord(sign)] = number
        codes = np.frombuffer("".join(rows).encode("ascii"), dtype=np.uint8)
        tokens = torch.tensor(table[codes]).view(len(rows), width)
        at = torch.arange(width)
        start = torch.tensor([len(p) for p in prompts])[:, None]
        length = torch.tensor([len(a) for a in answers])
        mask = (at > start) & (at <= start + 1 + length[:, None])
        rule = torch.tensor([numbers[e.rule] for e in examples])
        return Columns(tokens=tokens, mask=mask, length=length, rule=rule)

    def copied_letters(self, examples: Sequence["Example"], columns: Batch) -> Tensor:
        """The letters of the answer that stand in the input, too, outside the leftmost x."""
        copied = columns["mask"] & (columns["tokens"] != END)
        for k, example in enumerate(examples):
            at = example.z.find(example.rule.x)
            if at >= 0:
                first = len(example.text) + 1 + at
                copied[k, first : first + len(example.rule.y)] = False
        return copied


TO_SIGN, END_SIGN, PAD_SIGN = "=", ".", " "


class Example(NamedTuple):
    """A rule and an input."""

    rule: Rule
    z: str

    @property
    def text(self) -> str:
        return f"{self.rule.x}{ARROW}{self.rule.y}{COLON}{self.z}"

    @property
    def answer(self) -> str:
        return self.rule.rewrite(self.z)


def plant(x: str, z: str, at: float) -> str:
    """z with x written over it; `at` in [0, 1) says where, uniformly over the starts."""
    start = int(at * (len(z) - len(x) + 1))
    return z[:start] + x + z[start + len(x) :]


def pattern(text: str) -> str:
    """The family of a string: its letters renamed a, b, … in the order in which they come."""
    names = {letter: ascii_lowercase[k] for k, letter in enumerate(dict.fromkeys(text))}
    return "".join(names[letter] for letter in text)


@torch.no_grad()
def copy_accuracy(model: nn.Module, batch: Batch) -> Float[Tensor, " batch"]:
    """Share of the copied letters that are right, given the true letters before them: a model that
    cannot copy yet has no chance with any rule. 1 where nothing is copied.
    """
    hit = model(batch["tokens"])[:, :-1].argmax(-1) == batch["tokens"][:, 1:]
    copied = batch["unchanged"][:, 1:]
    n = copied.sum(1)
    return torch.where(n == 0, 1.0, (hit & copied).sum(1) / n.clamp_min(1))


def example() -> Rewriting:
    return Rewriting(alphabet=6, rules=20, n_train=400, n_test=50, n_unseen=50)
