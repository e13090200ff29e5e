"""What a model reads before it answers: fields of the instruction, examples, the input."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from unseen.errors import InvalidConfig, UnknownName
from unseen.tasks.instructions.source import V1_FIELDS, Example, InstructionTask

INPUT, OUTPUT = "input", "output"
Size = Callable[[str], int]
"""Tokens of a text."""


class EncodedPrompt(NamedTuple):
    """A prompt, and what did not fit into it."""

    text: str
    examples: int
    """Positive and negative ones that it holds."""
    examples_cut: int
    """Left out because they did not fit."""
    is_shortened: bool
    """Whether the input lost words, or of a single one letters, at its start: it did not fit even
    without examples.
    """


@dataclass(frozen=True)
class Encoding:
    """Which fields of an instruction a prompt shows, each as `Name: text` on a line, and how many
    examples. Where the whole is too long, examples go first, the last one before the others.
    """

    fields: tuple[str, ...] | None = None
    """In the order of the prompt; None: all, in the order of the source."""
    positive: int = 0
    negative: int = 0

    def __post_init__(self) -> None:
        if min(self.positive, self.negative) < 0:
            raise InvalidConfig(
                f"{self.positive} positive and {self.negative} negative examples.",
                why="there are no fewer than none.",
                fix="give 0 or more.",
            )

    def lines(self, task: InstructionTask) -> list[str]:
        """The instruction."""
        texts = dict(task.fields)
        chosen = tuple(texts) if self.fields is None else self.fields
        for name in chosen:
            if name not in texts and name not in V1_FIELDS:
                raise UnknownName.near("field of an instruction", name, texts)
        return [f"{name}: {texts[name]}" for name in chosen if name in texts]

    def examples(self, task: InstructionTask) -> list[str]:
        """Right ones before wrong ones; all where more are asked for than there are."""
        right = [
            _example(one, f"example {k}") for k, one in enumerate(task.positive[: self.positive], 1)
        ]
        wrong = [
            _example(one, f"wrong example {k}")
            for k, one in enumerate(task.negative[: self.negative], 1)
        ]
        return right + wrong

    def prompt(
        self,
        task: InstructionTask,
        text: str,
        *,
        size: Size = len,
        most: int | None = None,
        instruction: InstructionTask | None = None,
    ) -> EncodedPrompt:
        """The prompt for an input, of at most `most` tokens; `instruction` is another task's."""
        shown = task if instruction is None else instruction
        head, examples = self.lines(shown), self.examples(shown)
        asked = len(examples)
        found = _join(head, examples, text)
        while most is not None and examples and size(found) > most:
            examples.pop()
            found = _join(head, examples, text)
        words = text.split(" ")
        is_shortened = False
        while most is not None and len(words) > 1 and size(found) > most:
            is_shortened = True
            words = words[max(1, (size(found) - most) // 2) :] or words[-1:]
            found = _join(head, examples, " ".join(words))
        # a text without blanks; the instruction is never shortened
        word = words[-1]
        while most is not None and word and size(found) > most:
            is_shortened = True
            word = word[max(1, (size(found) - most) // 4) :]
            found = _join(head, examples, word)
        return EncodedPrompt(found, len(examples), asked - len(examples), is_shortened)


def _example(one: Example, title: str) -> str:
    reason = f"\nreason: {one.reason}" if one.reason else ""
    return f"{title}:\n{INPUT}: {one.input}\n{OUTPUT}: {one.output}{reason}"


def _join(head: Sequence[str], examples: Sequence[str], text: str) -> str:
    return "\n".join([*head, *examples, f"{INPUT}: {text}", f"{OUTPUT}:"])


NONE = Encoding(fields=())
INSTRUCTION = Encoding()
VARIANTS: dict[str, Encoding] = {
    "none": NONE,
    "prompt": Encoding(("Prompt",)),
    "prompt+definition": Encoding(("Prompt", "Definition")),
    "prompt+avoid": Encoding(("Prompt", "Things to Avoid")),
    "prompt+emphasis": Encoding(("Prompt", "Emphasis & Caution")),
    "definition+prompt": Encoding(("Definition", "Prompt")),
    "full": Encoding(positive=100, negative=100),
}
"""Encodings of the published code; with examples: `dataclasses.replace(one, positive=k)`."""
