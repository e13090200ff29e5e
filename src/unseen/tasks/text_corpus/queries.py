"""Questions to ask of an influence: prompts with the completion whose log-probability is the
queried behaviour.
"""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from unseen.engine.decode import Side, greedy, pad_sequences
from unseen.errors import InvalidData, MissingFile
from unseen.models.pretrained import CausalLM
from unseen.task import Batch


@dataclass(frozen=True)
class Query:
    """`completion` None: the model writes it."""

    prompt: str
    completion: str | None = None
    at: str = "query"
    """Where it stands, for messages."""
    is_written: bool = False
    """Whether the model wrote the completion."""


def read_queries(path: str | Path) -> list[Query]:
    """`prompt` and `completion` of each line of a `.jsonl` or `.csv` file; without completions the
    model writes them.
    """
    path = Path(path)
    text = read_utf8(path, "queries")
    rows = _csv(text) if path.suffix.lower() == ".csv" else _jsonl(text, path)
    found = [_query(row, f"{path}, line {line}") for line, row in rows]
    if not found:
        raise InvalidData(
            f"{path} holds no query.", why="there is nothing to ask.", fix='write {"prompt": "…"}.'
        )
    return found


def read_utf8(path: Path, what: str) -> str:
    """The text of a file; `what` is read from it, in the words of a refusal."""
    if not path.is_file():
        raise MissingFile(
            f"There is no file `{path}`.",
            why=f"the {what} are read from it.",
            fix="check the path.",
        )
    try:
        return path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidData(
            f"{path} is not UTF-8: byte {error.start:,} begins no character.",
            why="guessing another encoding would turn letters into others.",
            fix="convert it: iconv -f latin1 -t utf-8 FILE > NEW.",
        ) from None


def _csv(text: str) -> list[tuple[int, Mapping[str, object]]]:
    # newlines inside quotes belong to a cell, and U+2028 ends no line
    reader = csv.DictReader(io.StringIO(text, newline=""))
    return [(reader.line_num, row) for row in reader]


def _jsonl(text: str, path: Path) -> list[tuple[int, Mapping[str, object]]]:
    rows = list[tuple[int, Mapping[str, object]]]()
    # not splitlines: U+2028, U+0085 and others may stand inside a JSON string
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise InvalidData(
                f"Line {number} of {path} is no JSON: {error.msg} at column {error.colno}.",
                why="every line of a .jsonl file is one object.",
                fix='write {"prompt": "…", "completion": "…"}.',
            ) from None
        rows.append((number, row if isinstance(row, dict) else {}))
    return rows


def _query(row: Mapping[str, object], at: str) -> Query:
    prompt, completion = row.get("prompt"), row.get("completion")
    if not isinstance(prompt, str) or not prompt:
        raise InvalidData(
            f"The query at {at} has no prompt.",
            why="the first token of a completion would be predicted from nothing.",
            fix='give every query a text under "prompt".',
        )
    if completion is not None and not isinstance(completion, str):
        raise InvalidData(
            f"The completion at {at} is a {type(completion).__name__}.",
            why="it is a text.",
            fix="put it in quotes.",
        )
    if completion == "":
        raise _empty(at, "it is empty")
    return Query(prompt, completion, at)


def _empty(at: str, why: str) -> InvalidData:
    return InvalidData(
        f"The query at {at} has no completion: {why}.",
        why="the queried behaviour is the log-probability of its tokens.",
        fix="give one, or leave the field out and the model writes it.",
    )


def complete_queries(queries: Sequence[Query], model: CausalLM, length: int = 16) -> list[Query]:
    """The queries, with the model's most likely `length` tokens where a completion is missing."""
    open_ = [k for k, query in enumerate(queries) if query.completion is None]
    made = list(queries)
    if not open_:
        return made
    prompts = [encode_text(queries[k].prompt, model, queries[k].at) for k in open_]
    for k, prompt in zip(open_, prompts, strict=True):
        refuse_long(len(prompt) + length, model, queries[k].at)
    stop = getattr(model.tokenizer, "eos_token_id", None)
    for k, tokens in zip(open_, greedy(model, prompts, length, stop), strict=True):
        text = model.tokenizer.decode(tokens)
        if not text:
            raise _empty(queries[k].at, "the model ends there and writes none")
        made[k] = replace(queries[k], completion=text, is_written=True)
    return made


def as_batch(queries: Sequence[Query], model: CausalLM) -> Batch:
    """Prompts and completions as `tokens`; `mask` is true on completions, `attention_mask` on
    both.
    """
    prompts, answers = [], []
    for query in queries:
        prompts.append(encode_text(query.prompt, model, query.at))
        answers.append(
            encode_text(query.completion or "", model, query.at) if query.completion else []
        )
        if not answers[-1]:
            raise _empty(query.at, "it has no token")
        refuse_long(len(prompts[-1]) + len(answers[-1]), model, query.at)
    rows = pad_sequences(prompts, answers, Side.RIGHT)
    return {"tokens": rows.tokens, "mask": rows.answer, "attention_mask": rows.real}


def encode_text(text: str, model: CausalLM, at: str) -> list[int]:
    """Token numbers; a text of no token raises."""
    tokens = model.encode(text)
    if not tokens:
        raise InvalidData(
            f"The text at {at} has no token.",
            why="the tokenizer leaves nothing of it.",
            fix="give another text.",
        )
    return tokens


def refuse_long(tokens: int, model: CausalLM, at: str) -> None:
    """Raises where the model cannot read so many tokens at once."""
    most = context(model)
    if most and tokens > most:
        raise InvalidData(
            f"The query at {at} has {tokens} tokens with its completion; the model reads {most}.",
            why="what lies before would be cut off, and another question would be answered.",
            fix="shorten the prompt, or use a model with a longer context.",
        )


def context(model: CausalLM) -> int:
    """How many tokens the model reads at once; 0 where it does not say."""
    config = model.model.config
    return int(
        next(
            (v for n in ("max_position_embeddings", "n_positions") if (v := getattr(config, n, 0))),
            0,
        )
    )


def pieces_of(tokens: Sequence[int], model: CausalLM) -> list[tuple[str, int]]:
    """A text by tokens: (text, how many tokens it takes); several where one character takes more
    than one token.
    """
    made, held = list[tuple[str, int]](), list[int]()
    for token in tokens:
        held.append(int(token))
        text = model.tokenizer.decode(held, clean_up_tokenization_spaces=False)
        if not text.endswith("\ufffd") or len(held) > 8:
            made.append((text, len(held)))
            held = []
    return [*made, (model.tokenizer.decode(held), len(held))] if held else made


def log_probabilities(model: CausalLM, batch: Batch) -> torch.Tensor:
    """log p of each completion in nats."""
    from unseen.objectives import sequence_log_probability

    with torch.no_grad():
        return torch.cat(
            [
                sequence_log_probability(model, {n: t[k : k + 1] for n, t in batch.items()})
                for k in range(len(batch["tokens"]))
            ]
        )
