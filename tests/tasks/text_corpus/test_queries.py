"""Prompts with completions: read, written by the model itself, and refused."""

import json

import pytest
import torch
from language import llama

from unseen.engine.decode import log_probability
from unseen.errors import InvalidData, MissingFile

pytest.importorskip("transformers")
from unseen.models.pretrained import CausalLM, load_causal
from unseen.tasks.text_corpus.queries import (
    Query,
    as_batch,
    complete_queries,
    log_probabilities,
    pieces_of,
    read_queries,
)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load_causal(llama(tmp_path_factory.mktemp("model"))).eval()


def written(tmp_path, *rows, name="q.jsonl"):
    (tmp_path / name).write_text("\n".join(json.dumps(row) for row in rows))
    return tmp_path / name


def test_json_lines_and_csv_are_the_same_queries(tmp_path):
    a = read_queries(
        written(tmp_path, {"prompt": "To be", "completion": ", or"}, {"prompt": "All"})
    )
    (tmp_path / "q.csv").write_text('prompt,completion\n"To be",", or"\n')
    assert [(q.prompt, q.completion) for q in a] == [("To be", ", or"), ("All", None)]
    assert [(q.prompt, q.completion) for q in read_queries(tmp_path / "q.csv")] == [
        ("To be", ", or")
    ]


def test_the_log_probability_is_that_of_the_completion_alone(model):
    queries = [Query("ab", "cde"), Query("a longer prompt", "x")]
    prompts = [model.encode(q.prompt) for q in queries]
    answers = [model.encode(q.completion) for q in queries]
    wanted = log_probability(
        model, prompts, answers
    )  # by the decoder, padded and masked in another way
    assert torch.allclose(log_probabilities(model, as_batch(queries, model)), wanted, atol=1e-5)


def test_a_missing_completion_is_the_models_own(model):
    made = complete_queries([Query("ab", "c"), Query("hello")], model, 4)
    assert made[0].completion == "c"
    assert not made[0].is_written
    assert made[1].is_written
    tokens = model.encode("hello")
    for _ in range(4):
        tokens.append(int(model(torch.tensor([tokens]))[0, -1].argmax()))
    assert model.encode(made[1].completion) == tokens[-4:]


@pytest.mark.parametrize(
    ("row", "match"),
    [
        ({"prompt": "a", "completion": ""}, "line 1 has no completion: it is empty"),
        ({"prompt": ""}, "line 1 has no prompt"),
        ({"completion": "a"}, "line 1 has no prompt"),
        ({"prompt": "a", "completion": 3}, "line 1 is a int"),
    ],
)
def test_bad_queries_are_refused(tmp_path, row, match):
    with pytest.raises(InvalidData, match=match):
        read_queries(written(tmp_path, row))


def test_other_refusals(tmp_path, model):
    with pytest.raises(InvalidData, match="has 65 tokens with its completion; the model reads 64"):
        as_batch([Query("a" * 60, "b" * 5, "q.jsonl, line 7")], model)
    with pytest.raises(InvalidData, match=r"q\.jsonl, line 7"):
        complete_queries([Query("a" * 60, None, "q.jsonl, line 7")], model, 8)
    (tmp_path / "q.jsonl").write_text('{"prompt": "a"}\n{"prompt": "b')
    with pytest.raises(InvalidData, match=r"Line 2 .* is no JSON"):
        read_queries(tmp_path / "q.jsonl")
    (tmp_path / "q.jsonl").write_text("\n")
    with pytest.raises(InvalidData, match="holds no query"):
        read_queries(tmp_path / "q.jsonl")
    (tmp_path / "q.jsonl").write_bytes(b'{"prompt": "caf\xe9"}')
    with pytest.raises(InvalidData, match="byte 15"):
        read_queries(tmp_path / "q.jsonl")
    with pytest.raises(MissingFile):
        read_queries(tmp_path / "none.jsonl")


def test_pieces_are_the_text_token_by_token(model):
    text = "To be, or not"
    made = pieces_of(model.encode(text), model)
    assert "".join(piece for piece, _ in made) == text
    assert sum(n for _, n in made) == len(text)


def test_a_character_of_several_tokens_is_one_piece():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    plain = Tokenizer(models.BPE({c: k for k, c in enumerate(alphabet)}, []))
    plain.pre_tokenizer, plain.decoder = (
        pre_tokenizers.ByteLevel(add_prefix_space=False),
        decoders.ByteLevel(),
    )
    bytewise = CausalLM(torch.nn.Linear(1, 1), PreTrainedTokenizerFast(tokenizer_object=plain))
    tokens = bytewise.encode("né €5")
    assert pieces_of(tokens, bytewise) == [("n", 1), ("é", 2), (" ", 1), ("€", 3), ("5", 1)]
    assert pieces_of(tokens[:-2], bytewise)[-1] == (
        "\ufffd",
        2,
    )  # cut inside a character: all tokens are accounted for


@pytest.mark.parametrize("mark", ["\u2028", "\u0085", "\u2029"])
def test_separators_that_are_no_newline_may_stand_inside_a_string(tmp_path, mark):
    row = {"prompt": f"one{mark}two", "completion": f"three{mark}four"}
    path = tmp_path / "q.jsonl"
    text = json.dumps(row, ensure_ascii=False)
    path.write_text(text + "\r\n" + text + "\n", "utf-8")
    assert [(q.prompt, q.completion) for q in read_queries(path)] == [tuple(row.values())] * 2
    table = tmp_path / "q.csv"
    table.write_text(f"prompt,completion\none{mark}two,three\n", "utf-8")
    assert read_queries(table)[0].prompt == f"one{mark}two"
