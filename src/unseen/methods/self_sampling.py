"""Learning from one's own programs that turn out right (Ni et al., 2023, arXiv:2205.14318).

A model samples programs for its training problems while it trains; what computes the answer is
kept as one more target, and beginnings that reach a state of a right program are kept, too. Such
beginnings are targets without an end token: with one they would teach to stop early.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from unseen.engine.batches import model_to_device
from unseen.engine.loop import Budget, Draw, Schedule, train
from unseen.engine.program_writing import (
    ProgramRows,
    WordNotation,
    join_rows,
    sample_programs,
    tokens_of,
    write_beginning,
)
from unseen.engine.programs import ANSWER, Program
from unseen.engine.response_losses import mle_aug, weight_entropy
from unseen.engine.responses import parts_by_length
from unseen.engine.solution_buffer import EMPTY, SolutionBuffer
from unseen.engine.token_pairs import Pair, Vocabulary
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab
from unseen.method import Trained
from unseen.models.response_loss import response_log_likelihood
from unseen.models.transformer import Decoder, Transformer
from unseen.objectives import exact_match
from unseen.task import Axis, Objective, Split, Task, Use

SolutionLoss = Callable[
    [Float[Tensor, "prompt response"], Bool[Tensor, "prompt response"]], Float[Tensor, " prompt"]
]
"""Of the log-likelihoods of a problem's programs, and which of them are there: `mle_aug`, `mml`,
`partial(beta_mml, beta=0.25)`."""


@dataclass(frozen=True)
class SelfSampled(Trained):
    """A trained model with the programs that it was trained on in the end."""

    buffers: tuple[SolutionBuffer, ...] = ()
    outcomes: dict[str, int] = field(default_factory=dict)
    """What became of the sampled programs, by `Outcome`; "no program" counts what is none."""


@dataclass(frozen=True)
class SelfSampling:
    """Minimises `objective` of the kept programs of each problem, the given one among them.

    The task's TRAIN splits hold `ProgramRows`. `samples=0` is maximum likelihood of the given
    program.
    """

    objective: SolutionLoss = mle_aug
    partial: bool = True
    """Whether beginnings are kept, trained on and continued."""
    samples: int = 3
    """Programs that are sampled for each problem of a minibatch."""
    begin_at: float = 0.4
    """Share of the steps after which sampling begins: before, hardly a sample is right."""
    temperature: float = 0.8
    length: int = 60
    """Most tokens of a sample."""
    most: int = 10
    """Most targets of a problem."""
    longer: int = 0
    """Statements that a kept program may have more than the shortest right one."""
    budget: Budget = Budget(
        steps=500, batch_size=64, lr=2e-3, schedule=Schedule.COSINE, warmup=100, clip=1.0
    )
    part_tokens: int = 4096
    """Tokens, with padding, that go through the model together: more for a GPU."""

    def __post_init__(self) -> None:
        if self.samples < 0 or not 0 <= self.begin_at <= 1:
            raise InvalidConfig(
                f"SelfSampling(samples={self.samples}, begin_at={self.begin_at:g}).",
                why="0 or more programs are sampled, from a share of the steps on.",
                fix="SelfSampling(samples=3, begin_at=0.4).",
            )

    def fit(self, model: nn.Module, task: Task, lab: Lab) -> SelfSampled:
        rows = {name: _program_rows(name, split) for name, split in task.of(Use.TRAIN).items()}
        work = {
            name: _SelfSamplingStep(self, data, lab.child("programs", name))
            for name, data in rows.items()
        }
        model_to_device(model, lab)

        def step(model: nn.Module, draw: Draw, objective: Objective) -> Tensor:
            losses = [
                work[name](model, batch["problem"].tolist(), draw.step)
                for name, batch in draw.fit.items()
            ]
            return torch.stack(losses).mean()

        trained = train(model, task, step, self.budget, lab)
        curves = {
            f"{key} {name}": values for name, one in work.items() for key, values in one.read()
        }
        return SelfSampled(
            trained.model,
            task,
            {**trained.curves, **curves},
            trained.start,
            tuple(buffer for one in work.values() for buffer in one.buffers),
            dict(sum((one.outcomes for one in work.values()), Counter[str]())),
        )


class _SelfSamplingStep:
    """The kept programs of one split, and a step on some of its problems."""

    def __init__(self, method: SelfSampling, rows: ProgramRows, lab: Lab) -> None:
        self.method, self.notation = method, rows.notation
        self.buffers = [
            SolutionBuffer(problem, method.partial, method.most, method.longer)
            for problem in rows.problems
        ]
        self.prompts = [self.notation.prompt(problem.question) for problem in rows.problems]
        self.generator = lab.generator()
        self.outcomes: Counter[str] = Counter()
        self.curves: dict[str, list[float]] = {"targets": [], "weight entropy": []}

    def read(self) -> Iterator[tuple[str, list[float]]]:
        yield from self.curves.items()

    def __call__(self, model: nn.Module, problems: Sequence[int], step: int) -> Tensor:
        """Leaves the gradient of the mean loss of these problems."""
        method = self.method
        if method.samples and step >= method.begin_at * method.budget.steps:
            self.sample(model, problems)
        targets = [self.encode_targets(k) for k in problems]
        likelihoods, present, parts = self.likelihoods(model, problems, targets)
        # gradients of ℓ are taken part by part, so that only one part's activations are held
        found = likelihoods.detach().requires_grad_()
        losses = method.objective(found, present)
        losses.mean().backward()
        self._read_weights(found, present)
        assert found.grad is not None
        for log_p, at in parts:
            log_p.backward(found.grad[at])
        return losses.detach().mean()

    def likelihoods(
        self, model: nn.Module, problems: Sequence[int], targets: Sequence[Sequence[list[int]]]
    ) -> tuple[Tensor, Tensor, list[tuple[Tensor, tuple[Tensor, Tensor]]]]:
        """ℓ [problem, response], which are there, and their parts with where they stand."""
        counts = torch.tensor([len(one) for one in targets])
        row = torch.arange(len(targets)).repeat_interleave(counts)
        column = torch.cat([torch.arange(len(one)) for one in targets])
        batch = join_rows(
            [self.prompts[k] for k, one in zip(problems, targets, strict=True) for _ in one],
            [target for one in targets for target in one],
        )
        device = next(model.parameters()).device
        present = torch.zeros(len(targets), int(counts.max()), dtype=torch.bool, device=device)
        present[row, column] = True
        parts = []
        for part in parts_by_length(
            {**batch, "row": row, "column": column}, self.method.part_tokens
        ):
            tokens = {name: part[name].to(device) for name in ("tokens", "mask")}
            at = part["row"].to(device), part["column"].to(device)
            parts.append((response_log_likelihood(model, tokens), at))
        found = torch.zeros(present.shape, device=device, dtype=parts[0][0].dtype)
        for log_p, at in parts:
            found[at] = log_p.detach()
        return found, present, parts

    def encode_targets(self, problem: int) -> list[list[int]]:
        notation = self.notation
        return [
            [*notation.encode(str(program)), notation.end]
            if ends
            else notation.encode(write_beginning(program))
            for program, ends in self.buffers[problem].targets()
        ]

    def sample(self, model: nn.Module, problems: Sequence[int]) -> None:
        """Keeps what is right of new programs."""
        buffers = [self.buffers[k] for k in problems]
        drawn = sample_programs(
            model,
            [buffer.problem for buffer in buffers],
            self.notation,
            self.generator,
            samples=self.method.samples,
            temperature=self.method.temperature,
            length=self.method.length,
            beginnings=[self._choose(buffer.prefixes()) for buffer in buffers],
        )
        for buffer, programs in zip(buffers, drawn, strict=True):
            for program in programs:
                kind = "no program" if program is None else str(buffer.insert(program))
                self.outcomes[kind] += 1

    def _choose(self, programs: Sequence[Program]) -> Program:
        if len(programs) == 1:
            return EMPTY
        return programs[int(torch.randint(len(programs), (1,), generator=self.generator))]

    def _read_weights(self, likelihoods: Tensor, present: Tensor) -> None:
        several = present.sum(1) > 1
        self.curves["targets"].append(present.sum(1).float().mean().item())
        if bool(several.any()):
            entropy = weight_entropy(likelihoods.detach()[several], present[several])
            self.curves["weight entropy"].append(entropy.mean().item())


def _program_rows(name: str, split: Split) -> ProgramRows:
    if not isinstance(split.data, ProgramRows):
        raise InvalidData(
            f"The split `{name}` holds no problems with programs.",
            why="what a model samples is executed, and compared with the problem's answer.",
            fix="MathPrograms(train, unseen).build(lab), or Split(ProgramRows(problems, notation), "
            "Use.TRAIN).",
        )
    return split.data


@dataclass(frozen=True)
class _Sum:
    """A problem whose answer is a + b."""

    name: str
    question: str
    program: Program
    answer: Fraction
    constants: dict[str, Fraction]


def example() -> tuple[SelfSampling, Trained]:
    """A small decoder learns which of two numbers are added."""
    problems = [
        _Sum(
            f"sum {k}",
            f"add n0 and n1 in case {k}",
            Program.parse(f"{ANSWER} = n0 + n1"),
            Fraction(2 * k + 3),
            {"n0": Fraction(k), "n1": Fraction(k + 3)},
        )
        for k in range(8)
    ]
    words = Vocabulary.of(Pair(tokens_of(p.question), tokens_of(str(p.program))) for p in problems)
    split = Split(ProgramRows(problems, WordNotation(words)), Use.TRAIN)
    task = Task(name="sums", axis=Axis.IID, splits={"train": split}, objective=exact_match)
    with Lab().child("init").seeded():
        model = Transformer(Decoder(vocabulary=len(words), width=16, heads=2, context=32))
    budget = Budget(steps=30, batch_size=8, lr=1e-2)
    return SelfSampling(length=8, budget=budget), Trained(model, task)
