"""Questions and programs as tokens, and programs that a model writes."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from unseen.engine.batches import Columns
from unseen.engine.programs import Program, execute, is_correct
from unseen.engine.sampling import sample
from unseen.engine.solution_buffer import EMPTY, Executable
from unseen.engine.token_pairs import END, Vocabulary
from unseen.errors import InvalidData
from unseen.lab import Lab

TOKEN = re.compile(r"[a-z]+\d*|\d+(?:\.\d+)?|[^\sa-z\d]")


@runtime_checkable
class Notation(Protocol):
    """How questions and programs are written for a model."""

    @property
    def end(self) -> int:
        """The token behind a whole program."""

    def prompt(self, question: str) -> list[int]: ...

    def encode(self, text: str) -> list[int]:
        """A program, or the beginning of one, behind its prompt."""

    def decode(self, tokens: Sequence[int]) -> str: ...


@dataclass(frozen=True)
class WordNotation:
    """Words, numbers and signs as the tokens of a vocabulary, for models from scratch."""

    vocabulary: Vocabulary

    @property
    def end(self) -> int:
        return END

    def prompt(self, question: str) -> list[int]:
        return self.vocabulary.prompt(tokens_of(question))

    def encode(self, text: str) -> list[int]:
        return self.vocabulary.encode(tokens_of(text))

    def decode(self, tokens: Sequence[int]) -> str:
        return " ".join(self.vocabulary.decode(tokens))


@runtime_checkable
class TextModel(Protocol):
    """A language model with its tokenizer."""

    @property
    def start(self) -> list[int]: ...

    @property
    def tokenizer(self) -> Any: ...

    def encode(self, text: str) -> list[int]: ...


@dataclass(frozen=True)
class TextNotation:
    """Plain text, for language models as they are."""

    model: TextModel

    @property
    def end(self) -> int:
        """The end of a text, or of a line where the tokenizer has no such token."""
        stop = getattr(self.model.tokenizer, "eos_token_id", None)
        return self.model.encode("\n")[-1] if stop is None else int(stop)

    def prompt(self, question: str) -> list[int]:
        return [*self.model.start, *self.model.encode(f"Question: {question}\nProgram:")]

    def encode(self, text: str) -> list[int]:
        return self.model.encode(f" {text}")

    def decode(self, tokens: Sequence[int]) -> str:
        return str(self.model.tokenizer.decode(tokens))


def tokens_of(text: str) -> tuple[str, ...]:
    """Words, numbers and signs of a text in lower case."""
    return tuple(TOKEN.findall(text.lower()))


def read_program(text: str) -> Program | None:
    """The program that a text spells; None where it spells none."""
    try:
        return Program.parse(text)
    except InvalidData:
        return None


def write_beginning(program: Program) -> str:
    """With the sign behind its last statement, after which the next one is expected."""
    return f"{program};" if len(program) else ""


class ProgramRows(Columns):
    """Questions with their programs as columns `tokens`, `mask` (the program with its end),
    `length` and `problem` (a number), beside the problems and their notation.
    """

    def __init__(self, problems: Sequence[Executable], notation: Notation) -> None:
        if not problems:
            raise InvalidData(
                "There are no problems.", why="nothing can be learned or asked.", fix="give some."
            )
        rows = [
            (notation.prompt(p.question), [*notation.encode(str(p.program)), notation.end])
            for p in problems
        ]
        super().__init__(
            **join_rows([prompt for prompt, _ in rows], [answer for _, answer in rows]),
            length=torch.tensor([len(answer) - 1 for _, answer in rows]),
            problem=torch.arange(len(rows)),
        )
        self.problems, self.notation = tuple(problems), notation


def join_rows(
    prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]
) -> dict[str, Tensor]:
    """`tokens`, filled up on the right with token 0, and `mask` (the answer)."""
    width = max(len(p) + len(a) for p, a in zip(prompts, answers, strict=True))
    tokens = [
        [*p, *a, *[0] * (width - len(p) - len(a))] for p, a in zip(prompts, answers, strict=True)
    ]
    where = torch.arange(width)
    starts = torch.tensor([len(p) for p in prompts])[:, None]
    ends = starts + torch.tensor([len(a) for a in answers])[:, None]
    return {"tokens": torch.tensor(tokens), "mask": (where >= starts) & (where < ends)}


def sample_programs(
    model: nn.Module,
    problems: Sequence[Executable],
    notation: Notation,
    generator: torch.Generator,
    *,
    samples: int,
    temperature: float,
    length: int,
    beginnings: Sequence[Program] = (),
    batch_size: int = 512,
) -> list[list[Program | None]]:
    """`samples` programs of each problem, going on from its beginning where `beginnings` are given;
    None where what was written is no program.
    """
    begun = [write_beginning(program) for program in beginnings or [EMPTY] * len(problems)]
    prompts = [
        [*notation.prompt(problem.question), *(notation.encode(text) if text else [])]
        for problem, text in zip(problems, begun, strict=True)
    ]
    # of similar length together: less padding
    order = sorted(range(len(prompts)), key=lambda k: len(prompts[k]))
    drawn = sample(
        model,
        [prompts[k] for k in order],
        length,
        generator,
        samples=samples,
        temperature=temperature,
        stop=notation.end,
        batch_size=batch_size,
    )
    written = dict(zip(order, drawn, strict=True))
    return [
        [read_program(f"{begun[k]} {notation.decode(row)}") for row in written[k]]
        for k in range(len(prompts))
    ]


@dataclass(frozen=True)
class ProgramSamples:
    """Programs that a model wrote for each of several problems."""

    problems: tuple[Executable, ...]
    programs: tuple[tuple[Program | None, ...], ...]

    @classmethod
    def of(
        cls,
        model: nn.Module,
        problems: Sequence[Executable],
        notation: Notation,
        lab: Lab,
        *,
        samples: int = 20,
        temperature: float = 0.8,
        length: int = 60,
    ) -> "ProgramSamples":
        found = sample_programs(
            model,
            problems,
            notation,
            lab.child("samples").generator(),
            samples=samples,
            temperature=temperature,
            length=length,
        )
        return cls(tuple(problems), tuple(map(tuple, found)))

    @property
    def correct(self) -> Bool[Tensor, "problem sample"]:
        """For `measures.pass_at_k`: whose answer is the problem's."""
        rows = [
            [one is not None and _answers(problem, one) for one in row]
            for problem, row in zip(self.problems, self.programs, strict=True)
        ]
        return torch.tensor(rows)

    def distinct(self, *, correct: bool = False) -> list[int]:
        """Different programs of each problem that have an answer, or the right one."""
        return [
            len({str(one) for one in row if one is not None and _counts(problem, one, correct)})
            for problem, row in zip(self.problems, self.programs, strict=True)
        ]


def _answers(problem: Executable, program: Program) -> bool:
    return is_correct(execute(program, problem.constants), problem.answer)


def _counts(problem: Executable, program: Program, correct: bool) -> bool:
    if correct:
        return _answers(problem, program)
    return execute(program, problem.constants).answer is not None
