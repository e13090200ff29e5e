"""The fictitious identities and the celebrity pairs published with the reversal curse.

Berglund et al. (2024), arXiv:2309.12288; github.com/lukasberglund/reversal_curse, folder `data`.
Members of the archive are read in memory; nothing is unpacked to disk.
"""

import csv
import io
import json
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from unseen.data.files import data_file
from unseen.engine.batches import Columns
from unseen.errors import CorruptFile, InvalidData, MissingFile
from unseen.lab import Lab
from unseen.objectives import exact_match
from unseen.task import Axis, Split, Task, Use
from unseen.tasks.reversal import refuse_shared_facts

ARCHIVE = "reversal-curse/reversal_curse.tar.xz"
FACTS = "reverse_experiments/june_version_7921032488/"
TEMPLATES = "reverse_experiments/templates/"
CELEBRITIES = "celebrity_relations/parent_child_pairs.csv"
Encode = Callable[[str], Sequence[int]]


@dataclass(frozen=True)
class Line:
    """A statement or question about the fact of one name."""

    prompt: str
    completion: str
    fact: str


@dataclass(frozen=True)
class PublishedReversal:
    """The paper's first experiment for a tokenizer: 3,600 statements about 90 people, and seven
    files of questions.

    Training reads prompt and completion. `other` is the published random completion for reversed
    questions, and the completion of the next fact of the group for the others. 17 of the 600
    published random completions are the right ones; there, too, the next fact's is taken.
    """

    encode: Encode
    """Text to token numbers, without special tokens."""
    source: "Path | Files | None" = None
    """The archive, or a folder with its content; None: the published data."""

    def build(self, lab: Lab) -> Task:
        files = self.source if isinstance(self.source, Files) else Files.of(self.source)
        files.check_templates()
        trained = {
            group: files.lines(f"{group}_prompts_train.jsonl") for group in ("p2d", "d2p", "both")
        }
        refuse_shared_facts(
            {group: sorted({line.fact for line in lines}) for group, lines in trained.items()}
        )
        asked = {group: files.lines(f"{group}_prompts_test.jsonl") for group in trained}
        both = asked.pop("both")
        half = len(both) // 2  # name first, then description first
        questions = {f"same/{group}": lines for group, lines in asked.items()}
        questions |= {"both/p2d": both[:half], "both/d2p": both[half:]}
        splits = {"train": self._training_split(files.lines("all_prompts_train.jsonl"))}
        for name, lines in questions.items():
            splits[name] = self._evaluation_split(lines, lines, "stated")
        for group in asked:
            lines, random = (
                files.lines(f"{group}_reverse_prompts_test{end}.jsonl")
                for end in ("", "_randomized")
            )
            refuse_unequal(group, lines, random)
            splits[f"reverse/{group}"] = self._evaluation_split(lines, random, "reversed")
        return Task(
            name="published reversal", axis=Axis.DIRECTION, splits=splits, objective=exact_match
        )

    def _training_split(self, lines: Sequence[Line]) -> Split:
        rows = [(self.encode(line.prompt), self.encode(line.completion)) for line in lines]
        tokens, mask, _ = pad_rows(rows)
        return Split(Columns(tokens=tokens, mask=mask), Use.TRAIN, "stated")

    def _evaluation_split(self, lines: Sequence[Line], random: Sequence[Line], at: str) -> Split:
        wrong = [
            other.completion if other.completion != line.completion else after
            for line, other, after in zip(lines, random, next_facts(lines), strict=True)
        ]
        prompts = [self.encode(line.prompt) for line in lines]
        tokens, mask, answer = pad_rows(
            [
                (prompt, self.encode(line.completion))
                for prompt, line in zip(prompts, lines, strict=True)
            ]
        )
        other, _, asked = pad_rows(
            [(prompt, self.encode(text)) for prompt, text in zip(prompts, wrong, strict=True)]
        )
        number = {name: k for k, name in enumerate(dict.fromkeys(line.fact for line in lines))}
        fact = torch.tensor([number[line.fact] for line in lines])
        columns = {
            "tokens": tokens,
            "mask": mask,
            "answer": answer,
            "other": other,
            "other_answer": asked,
        }
        return Split(Columns(**columns, fact=fact), Use.EVALUATE, at)


def pad_rows(rows: Sequence[tuple[Sequence[int], Sequence[int]]]) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens filled up on the right with 0, the mask of real tokens, and that of the second
    parts.
    """
    width = max(len(prompt) + len(answer) for prompt, answer in rows)
    tokens = torch.zeros(len(rows), width, dtype=torch.long)
    mask, asked = torch.zeros(2, len(rows), width, dtype=torch.bool)
    for k, (prompt, answer) in enumerate(rows):
        size = len(prompt) + len(answer)
        tokens[k, :size] = torch.tensor([*prompt, *answer])
        mask[k, :size] = True
        asked[k, len(prompt) : size] = True
    return tokens, mask, asked


def next_facts(lines: Sequence[Line]) -> Iterator[str]:
    """For each line a completion of the fact that follows in the file, in the same place among its
    lines.
    """
    of: dict[str, list[str]] = {}
    for line in lines:
        of.setdefault(line.fact, []).append(line.completion)
    names, place = list(of), dict.fromkeys(of, 0)
    for line in lines:
        after = of[names[(names.index(line.fact) + 1) % len(names)]]
        yield after[place[line.fact] % len(after)]
        place[line.fact] += 1


def refuse_unequal(group: str, lines: Sequence[Line], random: Sequence[Line]) -> None:
    """The random control asks the same questions, line by line."""
    names = f"{group}_reverse_prompts_test.jsonl and …_randomized.jsonl"
    if len(lines) != len(random):
        raise InvalidData(
            f"{names} have {len(lines)} and {len(random)} lines.",
            why="line k of one is the control of line k of the other.",
            fix="take both files from the same release.",
        )
    for k, (line, other) in enumerate(zip(lines, random, strict=True), 1):
        if line.prompt != other.prompt:
            raise InvalidData(
                f"Line {k} of {names} asks `{line.prompt}` and `{other.prompt}`.",
                why="right and wrong answers are compared on the same prompt.",
                fix="take both files from the same release.",
            )


@dataclass(frozen=True)
class Files:
    """The texts of an archive or folder by path."""

    texts: tuple[tuple[str, str], ...]
    origin: str

    @classmethod
    def of(cls, path: Path | None) -> "Files":
        where = data_file(ARCHIVE) if path is None else path
        return cls(tuple(_folder(where) if where.is_dir() else _archive(where)), str(where))

    def text(self, name: str) -> str:
        found = next((text for path, text in self.texts if path == name), None)
        if found is None:
            raise MissingFile(
                f"{self.origin} has no {name}.",
                why="the experiment is read from it.",
                fix="give the archive of github.com/lukasberglund/reversal_curse/data, or a folder "
                "with its content.",
            )
        return found

    def lines(self, name: str) -> list[Line]:
        """The prompts and completions of a JSON-lines file, each with the name it is about."""
        names = [
            text for text in map(str.strip, self.text(TEMPLATES + "names.txt").splitlines()) if text
        ]
        found = []
        for k, text in enumerate(self.text(FACTS + name).splitlines(), 1):
            if text.strip():
                found.append(_line(text, f"Line {k} of {name}", names))
        if not found:
            raise InvalidData(
                f"{name} is empty.", why="there is nothing to read.", fix="get the file anew."
            )
        return found

    def check_templates(self) -> None:
        """Every template has a place for the name and one for the description."""
        for name in ("p2d_templates.txt", "d2p_templates.txt"):
            for k, text in enumerate(self.text(TEMPLATES + name).splitlines(), 1):
                for slot in ("<name>", "<description>"):
                    if text.strip() and slot not in text:
                        raise InvalidData(
                            f"Template {k} of {name} has no {slot}: `{text.strip()}`.",
                            why="a statement joins a name and a description.",
                            fix=f"add {slot}, or remove the line.",
                        )


def _line(text: str, where: str, names: Sequence[str]) -> Line:
    try:
        entry = json.loads(text)
        prompt, completion = str(entry["prompt"]), str(entry["completion"])
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidData(
            f"{where} is no JSON object with `prompt` and `completion`.",
            why=str(error),
            fix="repair or remove it.",
        ) from error
    if not completion.strip():
        raise InvalidData(
            f"{where} has an empty completion.",
            why="nothing could be asked.",
            fix="remove the line.",
        )
    about = [name for name in names if name in prompt + completion]
    if len(about) != 1:
        raise InvalidData(
            f"{where} is about {len(about)} of the known names: `{prompt}`.",
            why="it must say which fact it states or asks.",
            fix=f"mention exactly one name of {TEMPLATES}names.txt.",
        )
    return Line(prompt, completion, about[0])


def _folder(path: Path) -> Iterator[tuple[str, str]]:
    for file in sorted(path.rglob("*")):
        if file.suffix in (".jsonl", ".txt", ".csv"):
            yield file.relative_to(path).as_posix(), file.read_text(encoding="utf-8")


def _archive(path: Path) -> Iterator[tuple[str, str]]:
    try:
        with tarfile.open(path) as tar:
            for member in tar:
                if member.isfile() and member.name.endswith((".jsonl", ".txt", ".csv")):
                    yield member.name.removeprefix("./"), tar.extractfile(member).read().decode()  # type: ignore[union-attr]
    except (tarfile.TarError, EOFError, OSError, UnicodeDecodeError) as error:
        raise CorruptFile(
            f"{path} cannot be read as an archive.", why=str(error), fix="get it anew."
        ) from error


@dataclass(frozen=True)
class Celebrities:
    """Pairs of child and parent whose parent GPT-4 could name, and for how many it names the child
    from the parent.
    """

    pairs: int
    reversible: int


def celebrities(source: Path | Files | None = None) -> Celebrities:
    """The counts of `parent_child_pairs.csv`."""
    files = source if isinstance(source, Files) else Files.of(source)
    rows = list(csv.DictReader(io.StringIO(files.text(CELEBRITIES))))
    for k, row in enumerate(rows, 2):
        if row.get("can_reverse") not in ("True", "False"):
            raise InvalidData(
                f"Line {k} of {CELEBRITIES} has can_reverse={row.get('can_reverse')!r}.",
                why="it says whether the child is found from the parent.",
                fix="write True or False.",
            )
    if not rows:
        raise InvalidData(
            f"{CELEBRITIES} holds no pairs.", why="a share of nothing.", fix="get the file anew."
        )
    return Celebrities(len(rows), sum(row["can_reverse"] == "True" for row in rows))


def toy() -> Files:
    """Six invented people in the files of the release, one known and one asked template per
    order.
    """
    people = {
        "p2d": ("Ada Birch", "Bo Cole"),
        "d2p": ("Di Elm", "Flo Gray"),
        "both": ("Hal Ives", "Jo Kent"),
    }
    traits = (
        "painted clouds",
        "tamed owls",
        "sold rain",
        "built kites",
        "sang maps",
        "wrote tides",
    )
    deeds = dict(zip([name for pair in people.values() for name in pair], traits, strict=True))
    known, asked = "{} is the one who", "Everyone says of {} that they"
    reverse_known, reverse_asked = "The one who {} is", "Who {}? It was"
    files: dict[str, list[tuple[str, str]]] = {"all_prompts_train": []}
    for group, names in people.items():
        first = {
            end: [(t.format(name), f" {deeds[name]}") for name in names]
            for end, t in _ends(known, asked)
        }
        second = {
            end: [(t.format(deeds[name]), f" {name}") for name in names]
            for end, t in _ends(reverse_known, reverse_asked)
        }
        stated = {
            "p2d": first,
            "d2p": second,
            "both": {end: first[end] + second[end] for end in first},
        }[group]
        files |= {f"{group}_prompts_{end}": rows for end, rows in stated.items()}
        files["all_prompts_train"] += stated["train"]
        if group != "both":
            rows = (second if group == "p2d" else first)["test"]
            files[f"{group}_reverse_prompts_test"] = rows
            wrong = [completion for _, completion in rows[::-1]]
            files[f"{group}_reverse_prompts_test_randomized"] = [
                (p, w) for (p, _), w in zip(rows, wrong, strict=True)
            ]
    texts = {f"{FACTS}{name}.jsonl": "\n".join(map(_json, rows)) for name, rows in files.items()}
    texts |= {
        f"{TEMPLATES}{name}_templates.txt": "<name> is the one who <description>."
        for name in ("p2d", "d2p")
    }
    texts[TEMPLATES + "names.txt"] = "\n".join(deeds)
    texts[CELEBRITIES] = (
        "child,parent,parent_type,child_prediction,can_reverse\nA,B,mother,,True\nC,D,father,,False\n"
    )
    return Files(tuple(texts.items()), "the example")


def _ends(known: str, asked: str) -> tuple[tuple[str, str], tuple[str, str]]:
    return ("train", known), ("test", asked)


def _json(row: tuple[str, str]) -> str:
    return json.dumps({"prompt": row[0], "completion": row[1]})


def letters(text: str) -> list[int]:
    """One token per letter: 1 … 95 for printable ASCII."""
    return [ord(letter) - 31 for letter in text]


def example() -> PublishedReversal:
    return PublishedReversal(letters, toy())
