"""Tasks with instructions: fields of text, examples and instances, out of JSON lines or the files
of Natural Instructions (version 1: Mishra et al., 2022; version 2: Wang et al., 2022).
"""

import gzip
import json
import tarfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from unseen.errors import CorruptFile, InvalidData, MissingFile
from unseen.tasks.graded_questions.reading import read_objects

EMPTY = "-"
"""What Natural Instructions writes where there is nothing."""
FORM = '{"task": "antonym", "instruction": "Write the opposite.", "input": "hot", "output": "cold"}'
V1_FIELDS = ("Title", "Prompt", "Definition", "Things to Avoid", "Emphasis & Caution")
V2_FIELDS = ("Definition",)
V2_FACTS = (
    "Contributors", "Source", "URL", "Categories", "Reasoning", "Input_language",
    "Output_language", "Instruction_language", "Domains", "Instance License", "Instance_License",
)  # fmt: skip
EXAMPLES = ("Positive Examples", "Negative Examples")


class Instance(NamedTuple):
    """An input with every output that counts as right."""

    input: str
    outputs: tuple[str, ...]


class Example(NamedTuple):
    """An input with an output, right or wrong, and why."""

    input: str
    output: str
    reason: str = ""


@dataclass(frozen=True)
class InstructionTask:
    """Instances that one instruction belongs to."""

    name: str
    fields: tuple[tuple[str, str], ...]
    """The instruction's texts by name, in the order of the source; empty ones are left out."""
    instances: tuple[Instance, ...]
    positive: tuple[Example, ...] = ()
    negative: tuple[Example, ...] = ()
    category: str = ""
    dataset: str = ""
    """Where the instances come from: tasks of one data set share their texts."""

    def __post_init__(self) -> None:
        if not self.instances:
            raise InvalidData(
                f"The task `{self.name}` has no instances.",
                why="nothing can be trained on or asked.",
                fix="add some, or leave the task out.",
            )
        # an example that is asked again would be answered by copying
        rest = tuple(one for one in self.instances if not self._is_example(one))
        if not rest:
            raise InvalidData(
                f"All instances of the task `{self.name}` are its examples.",
                why="an instance that stands in the prompt is not asked.",
                fix="add instances that are no examples.",
            )
        object.__setattr__(self, "instances", rest)

    def _is_example(self, one: Instance) -> bool:
        return any(
            one.input == shown.input and (one.input or shown.output in one.outputs)
            for shown in (*self.positive, *self.negative)
        )

    def group(self, by: str) -> str:
        """The task's name, category or data set."""
        found = {"task": self.name, "category": self.category, "dataset": self.dataset}[by]
        if not found:
            raise InvalidData(
                f"The task `{self.name}` has no {by}.",
                why=f"tasks are split by {by}.",
                fix=f'write {{"{by}": "…"}} into its lines, or split by task.',
            )
        return found


def read_instructions(path: str | Path) -> list[InstructionTask]:
    """The tasks of a file of JSON lines (`task`, `instruction`, `input`, `output`, optionally
    `examples`, `category` and `dataset`) or of a folder or archive of Natural Instructions.

    `output` is a text or a list of right ones. Without `task` a task is named by its instruction.
    """
    path = Path(path)
    if path.is_dir():
        files = sorted(path.rglob("*.json")) + sorted(path.rglob("*.json.gz"))
        found = [read_published(file.read_bytes(), file.name) for file in files]
        found += [task for file in sorted(path.glob("*.tar.*")) for task in read_archive(file)]
    elif ".tar" in path.suffixes:
        found = list(read_archive(path))
    elif path.suffixes[:1] == [".json"]:
        found = [read_published(_bytes(path), path.name)]
    else:
        found = read_lines(path)
    if not found:
        raise InvalidData(
            f"{path} holds no task.", why="there is nothing to read.", fix=f"add lines like {FORM}"
        )
    return found


def _bytes(path: Path) -> bytes:
    if not path.is_file():
        raise MissingFile(
            f"There is no file {path}.",
            why="the instructions are read from it.",
            fix="check the path.",
        )
    return path.read_bytes()


def read_archive(path: Path) -> Iterator[InstructionTask]:
    """The tasks of an archive, in its order. Nothing is unpacked to disk."""
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                name = Path(member.name).name
                if member.isfile() and name.endswith(".json"):
                    file = archive.extractfile(member)
                    assert file is not None
                    yield read_published(file.read(), name)
    except (OSError, EOFError, tarfile.TarError) as error:
        raise CorruptFile(
            f"{path} cannot be read as an archive.", why=str(error), fix="get the file again."
        ) from error


def read_lines(path: Path) -> list[InstructionTask]:
    """The tasks of JSON lines, in the order in which they begin."""
    rows: dict[str, list[tuple[Mapping[str, Any], str]]] = {}
    for entry, where in read_objects(path):
        unknown = sorted(set(entry) - set(LINE_FIELDS))
        if unknown:
            raise _refusal(f"{where} has the unknown field `{unknown[0]}`.")
        # data without names of tasks: what has one instruction is one task
        name = "task" if "task" in entry or "instruction" not in entry else "instruction"
        rows.setdefault(_text(entry, name, where), []).append((entry, where))
    return [_task_of_lines(name, lines) for name, lines in rows.items()]


LINE_FIELDS = (
    "task", "instruction", "input", "output", "examples", "category", "dataset", "id"
)  # fmt: skip


def _task_of_lines(name: str, lines: list[tuple[Mapping[str, Any], str]]) -> InstructionTask:
    same = dict.fromkeys(("instruction", "category", "dataset"), "")
    examples: dict[Example, None] = {}
    instances = []
    for entry, where in lines:
        for key, before in same.items():
            text = _text(entry, key, where) if key in entry else ""
            if text and before and text != before:
                raise InvalidData(
                    f"{where} gives the task `{name}` another {key} than the lines before.",
                    why=f"a task has one {key}: it is what its instances share.",
                    fix="name the tasks apart.",
                )
            same[key] = before or text
        outputs = entry.get("output")
        if isinstance(outputs, str):
            outputs = [outputs]
        instances.append(Instance(_text(entry, "input", where), _outputs(outputs, name, where)))
        shown = entry.get("examples") or ()
        if not isinstance(shown, list | tuple):
            raise _refusal(f"{where} (task `{name}`): `examples` is no list.")
        for one in shown:
            examples[_example(one, name, where)] = None
    fields = (("Instruction", same["instruction"]),) if same["instruction"] else ()
    return InstructionTask(
        name,
        fields,
        tuple(instances),
        tuple(examples),
        category=same["category"],
        dataset=same["dataset"],
    )


def read_published(raw: bytes, name: str) -> InstructionTask:
    """A file of Natural Instructions, version 1 or 2; it may be gzipped."""
    title = name.removesuffix(".gz").removesuffix(".json")
    try:
        entry = json.loads(gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw)
    except (OSError, EOFError, UnicodeDecodeError, zlib.error, ValueError) as error:
        raise CorruptFile(
            f"{name} cannot be read as JSON.", why=str(error), fix="get the file again."
        ) from error
    if not isinstance(entry, dict) or not isinstance(entry.get("Instances"), list):
        raise _schema(name, title, "Instances", "it is missing or no list")
    is_second = "Categories" in entry or "Positive Examples" in entry
    known = (
        {*V2_FIELDS, *V2_FACTS, *EXAMPLES, "Instances"}
        if is_second
        else {*V1_FIELDS, "Examples", "Instances"}
    )
    if unknown := sorted(set(entry) - known):
        raise _schema(name, title, unknown[0], "no such field is known")
    texts = {key: entry.get(key) for key in (V2_FIELDS if is_second else V1_FIELDS)}
    fields = tuple((key, text) for key, raw in texts.items() if (text := _join(raw)))
    shown = entry if is_second else entry.get("Examples") or {}
    positive, negative = (
        tuple(_example(one, title, name) for one in shown.get(key) or () if isinstance(one, dict))
        for key in EXAMPLES
    )
    return InstructionTask(
        title,
        fields,
        tuple(_published_instance(k, one, title, name) for k, one in enumerate(entry["Instances"])),
        positive,
        negative,
        category=_join(entry.get("Categories")),
        dataset=_join(entry.get("Source")) if is_second else dataset_of(title),
    )


def _published_instance(k: int, one: Any, title: str, name: str) -> Instance:
    if not isinstance(one, dict) or not isinstance(one.get("input"), str):
        raise _schema(name, title, f"Instances[{k}].input", "it is missing or no text")
    outputs = one.get("output")
    if not isinstance(outputs, list) or not outputs:
        raise _schema(name, title, f"Instances[{k}].output", "it is no list of texts")
    return Instance(one["input"], _outputs(outputs, title, f"{name}, Instances[{k}]"))


def dataset_of(title: str) -> str:
    """The data set in the name of a task of version 1: `subtask003_mctaco_question_generation` is
    of mctaco.
    """
    parts = title.split("_")
    return parts[1] if len(parts) > 1 and parts[0].startswith("subtask") else ""


def _join(text: Any) -> str:
    """A text, or the texts of a list; empty where there is nothing."""
    texts = [text] if isinstance(text, str) else text or ()
    return " ".join(one.strip() for one in texts if one.strip() != EMPTY).strip()


def _text(entry: Mapping[str, Any], key: str, where: str) -> str:
    text = entry.get(key)
    if not isinstance(text, str) or (not text.strip() and key != "input"):
        raise _refusal(f"{where} has no `{key}`, or one that is no text.")
    return text.strip()


def _outputs(outputs: Any, task: str, where: str) -> tuple[str, ...]:
    texts = outputs if isinstance(outputs, Sequence) else ()
    if not texts or not all(isinstance(one, str) and one.strip() for one in texts):
        raise _refusal(f"{where} (task `{task}`): `output` is no text and no list of texts.")
    return tuple(one.strip() for one in texts)


def _example(one: Any, task: str, where: str) -> Example:
    output = one.get("output") if isinstance(one, dict) else None
    output = output[0] if isinstance(output, list) and output else output
    if not isinstance(output, str) or not isinstance(one.get("input"), str):
        raise _refusal(f"{where} (task `{task}`): an example without `input` and `output`.")
    reason = one.get("reason", one.get("explanation", ""))
    return Example(one["input"].strip(), output.strip(), _join(reason))


def _refusal(what: str) -> InvalidData:
    return InvalidData(what, why="instructions have named fields.", fix=f"write lines like {FORM}")


def _schema(name: str, task: str, field: str, fault: str) -> InvalidData:
    return InvalidData(
        f"{name} (task `{task}`): {field}.",
        why=f"{fault}.",
        fix="write it as Natural Instructions does, or give JSON lines: " + FORM,
    )
