"""A language model fine-tuned on instructions: unseen tasks, and general data beside a target."""

from collections.abc import Sequence
from pathlib import Path

from unseen.api.common import language_model, make_lab, save_if_asked
from unseen.engine.choice_likelihood import Precision
from unseen.engine.loop import Budget
from unseen.errors import InvalidConfig
from unseen.lab import Lab
from unseen.methods.response_finetune import LoRA
from unseen.models.pretrained import CausalLM
from unseen.questions.answer import Answer, check_report_path
from unseen.questions.instructions import job, mixture
from unseen.questions.instructions.document import instructions_document, machine_instructions
from unseen.questions.instructions.job import InstructionRequest, InstructionResults
from unseen.questions.instructions.mixture import MixtureRequest, MixtureResults
from unseen.questions.instructions.mixture_document import machine_mixture, mixture_document
from unseen.runs.progress import watcher
from unseen.subjects.instruction_tuning import InstructionTuning
from unseen.tasks.instructions import By, InstructionTask, read_instructions
from unseen.text import count_noun

Source = str | Path | Sequence[InstructionTask]
STEPS, BATCH = 100, 8
SIZES = 3
"""Sizes of target data where none are named."""


def compare_instructions(
    instructions: Source,
    *,
    by: str = "task",
    model: str | Path | CausalLM,
    share: float = 0.25,
    unseen: Sequence[str] = (),
    n_train: int = 40,
    n_test: int = 20,
    shots: int = 1,
    steps: int | None = None,
    lr: float = 3e-5,
    lora: int | None = None,
    length: int = 384,
    answer_tokens: int = 48,
    precision: str = "float32",
    seed: int = 0,
    device: str = "cpu",
    lab: Lab | None = None,
    progress: bool = True,
    report: str | Path | None = None,
) -> Answer[InstructionResults]:
    """Does a language model (a folder, or "smollm2") use instructions on tasks that it never saw?

    `instructions` is a file of JSON lines (`task`, `instruction`, `input`, `output`, optionally
    `examples`, `category`, `dataset`) or a folder of Natural Instructions. A `share` of the tasks,
    or whole categories or data sets (`by`), or the tasks named by `unseen`, are kept from a
    fine-tuning on the others and then asked without the instruction, with it, with `shots`
    examples, and with another task's.
    """
    path = None if report is None else check_report_path(report)
    watch = watcher(shown=progress)
    lab = lab or make_lab(seed, device, "instructions", watch.sink)
    tasks, name = read_source(instructions)
    request = InstructionRequest(
        tasks=tasks,
        by=By(by),
        share=share,
        unseen=tuple(unseen),
        n_train=n_train,
        n_test=n_test,
        shots=shots,
        tuning=make_tuning(steps, lr, lora, length, answer_tokens, precision),
    )
    watch.begin("compare", 2, 0, "parts")  # training, and answers to the unseen tasks
    try:
        found = job.compare_instructions(
            language_model(model)[0].to(lab.device), request, lab, lambda: watch.on_finish(None)
        )
    finally:
        watch.end()
    answer = Answer(
        results=found,
        document=instructions_document(found, name),
        summary_sections=2,
        machine=machine_instructions(found),
    )
    return save_if_asked(answer, path)


def compare_mixture(
    target: Source,
    general: Source,
    *,
    model: str | Path | CausalLM,
    share: float = 0.5,
    sizes: Sequence[int] = (),
    n_test: int = 60,
    steps: int | None = None,
    lr: float = 3e-5,
    lora: int | None = None,
    length: int = 384,
    answer_tokens: int = 48,
    precision: str = "float32",
    seed: int = 0,
    device: str = "cpu",
    lab: Lab | None = None,
    progress: bool = True,
    report: str | Path | None = None,
) -> Answer[MixtureResults]:
    """How much are general instruction data worth to a target, beside so many target examples?

    Both are files as in `compare_instructions`. Specialist and mixture make the same target updates
    from the same weights; the mixture reads general examples beside them, a `share` of every step.
    General examples that have text in common with the target's test are counted and left out.
    """
    path = None if report is None else check_report_path(report)
    watch = watcher(shown=progress)
    lab = lab or make_lab(seed, device, "instructions", watch.sink)
    (wanted, name), (broad, other) = read_source(target), read_source(general)
    request = MixtureRequest(
        target=wanted,
        general=broad,
        share=share,
        sizes=tuple(sizes),
        n_test=n_test,
        tuning=make_tuning(steps, lr, lora, length, answer_tokens, precision),
    )
    watch.begin("compare", 1 + 2 * (len(request.sizes) or SIZES), 0, "trainings")
    try:
        language = language_model(model)[0].to(lab.device)
        found = mixture.compare_mixture(language, request, lab, watch.on_finish)
    finally:
        watch.end()
    answer = Answer(
        results=found,
        document=mixture_document(found, name, other),
        summary_sections=2,
        machine=machine_mixture(found),
    )
    return save_if_asked(answer, path)


def read_source(source: Source) -> tuple[tuple[InstructionTask, ...], str]:
    """The tasks, and what they are called."""
    if isinstance(source, str | Path):
        return tuple(read_instructions(source)), Path(source).name
    return tuple(source), count_noun(len(source), "task")


def make_tuning(
    steps: int | None, lr: float, lora: int | None, length: int, answer_tokens: int, precision: str
) -> InstructionTuning:
    if steps is not None and steps < 1:
        raise InvalidConfig(
            f"steps={steps}.",
            why="the model would be as it was before.",
            fix=f"use --steps {STEPS}, or leave it out.",
        )
    budget = Budget(
        steps=STEPS if steps is None else steps,
        batch_size=BATCH,
        lr=lr,
        clip=1.0,
        bfloat16=Precision(precision) is Precision.BFLOAT16,
    )
    adapters = None if lora is None else LoRA(rank=lora, scale=2 * lora)
    return InstructionTuning(budget, adapters, length, answer_tokens)
