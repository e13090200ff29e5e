"""`unseen explain --prompts` as a person uses it: a language model of letters and a decoder without
a tokenizer; killed and resumed; everything that can be wrong.
"""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from language import llama
from torch.testing import assert_close

import unseen
from unseen.cli.explain import main
from unseen.errors import InvalidConfig, InvalidData, MissingFile, UnknownName
from unseen.lab import Lab
from unseen.models.pretrained import CausalLM, load_causal
from unseen.models.transformer import Decoder, Transformer
from unseen.questions.explain import of_text
from unseen.questions.explain.of_text import (
    BETWEEN,
    CHANGED,
    LAST,
    TraceRequest,
    crossing,
    layer_of_answer,
    mean_shares,
    token_groups,
    trace_prompts,
)
from unseen.questions.explain.prompts import PromptPair, encode_prompts, read_prompts
from unseen.reading import Reading
from unseen.report.html import html
from unseen.runs.tensors import TensorCache

PROMPTS = """
{"prompt": "a cat", "counterfactual": "a dog", "intermediate": "x"}
{"prompt": "one b", "counterfactual": "two b"}

{"prompt": "plain", "answer": "s"}
"""


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    pytest.importorskip("transformers")
    monkeypatch.setenv("UNSEEN_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    llama(tmp_path / "model")
    Path("p.jsonl").write_text(PROMPTS)


def said(capsys, *arguments: str) -> dict:
    assert main(["--model", "model", "--prompts", "p.jsonl", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def write(*rows: dict) -> None:
    Path("p.jsonl").write_text("\n".join(json.dumps(row) for row in rows))


def test_lens_and_tracing_of_a_folder(capsys):
    found = said(capsys, "--trace", "--report", "r.html")
    assert found["modules"] == ["model.model.layers.0", "model.model.layers.1"]
    first, second, third = found["prompts"]
    assert first["tokens"] == ["a", "␣", "c", "a", "t"]
    assert first["changed"] == [False, False, True, True, True]
    assert first["answer_rank"] == 1  # the model's own, where none is given
    assert first["counterfactual_answer"]
    assert (len(first["share"]), len(first["share"][0])) == (2, 5)
    assert third["effect_nats"] is None
    assert third["answer"] == "s"
    assert len(first["intermediate_rank_at_last_token"]) == 2
    assert not second["intermediate_lens_log_probability"]
    # the last layer at the last token carries all of the change
    assert first["share_by_kind"][LAST][-1] == pytest.approx(1, abs=1e-4)
    # the tokens before the first change have the same states in both prompts
    assert max(abs(row[0]) for row in first["share"]) < 1e-5
    page = Path("r.html").read_text()
    assert page.count("<svg") >= 2 + 3 + 2
    assert "Where model computes its answers" in page
    assert found["mean_share"][CHANGED][0].keys() >= {"value", "low", "high"}


def test_numbers_are_those_of_the_model_itself():
    model = load_causal("model")
    answer = unseen.explain_of_text(model, "p.jsonl", progress=False)
    one = answer.results.prompts[0]
    tokens, twin = (torch.tensor([model.encode(text)]) for text in ("a cat", "a dog"))
    with torch.no_grad():
        plain, other = model(tokens)[0, -1], model(twin)[0, -1]
    own, theirs = int(plain.argmax()), int(other.argmax())
    assert one.lens[-1][-1] == pytest.approx(float(plain.log_softmax(-1)[own]), abs=1e-5)
    effect = (plain[own] - plain[theirs]) - (other[own] - other[theirs])
    assert one.effect == pytest.approx(float(effect), abs=1e-5)


def test_a_prompt_begins_as_the_tokenizer_begins_a_text():
    model = load_causal("model")

    class Opened(CausalLM):
        @property
        def start(self):
            return [3]

    opened = Opened(model.model, model.tokenizer)
    (pair,) = encode_prompts([PromptPair("a cat", " s", counterfactual="a dog")], opened, 1)
    assert pair.tokens == [3, *model.encode("a cat")]
    assert pair.counterfactual == [3, *model.encode("a dog")]
    assert pair.answer == model.encode(" s")[0]


def test_without_trace_no_counterfactual_is_needed(capsys):
    write({"prompt": "plain"})
    found = said(capsys)
    assert found["mean_share"] == {}
    assert found["prompts"][0]["share"] == []
    assert "Causal tracing needs" in Path("unseen-explanation.html").read_text()


def test_a_decoder_without_tokenizer_takes_token_numbers():
    with Lab(0).seeded():
        model = Transformer(Decoder(vocabulary=20, width=16, layers=2, context=8, loops=2))
    pairs = [
        PromptPair([1, 2, k], counterfactual=[1, 3, k], answer=[5], counterfactual_answer=[6])
        for k in range(4, 9)
    ]
    found = unseen.explain_of_text(model, pairs, progress=False).results
    assert found.modules == [f"blocks.{k}@{loop}" for loop in range(2) for k in range(2)]
    assert found.prompts[0].pieces == ["1", "2", "4"]
    assert model.training  # as it came
    with pytest.raises(InvalidData, match="has no tokenizer"):
        unseen.explain_of_text(model, [PromptPair("text")], progress=False)
    with pytest.raises(InvalidData, match=r"(?s)holds token 20.*knows 0 to 19"):
        unseen.explain_of_text(model, [PromptPair([20])], trace=False, progress=False)


def test_a_run_that_was_killed_goes_on_at_its_prompt(tmp_path):
    request = TraceRequest(model=load_causal("model"), name="m", prompts=read_prompts("p.jsonl"))
    cache, measured = TensorCache(tmp_path / "kept"), []

    def keep(key, make, most):
        def count():
            if len(measured) == most:
                raise KeyboardInterrupt
            measured.append(key.digest)
            return make()

        return cache(key, count)

    with pytest.raises(KeyboardInterrupt):
        trace_prompts(request, Lab(keeper=partial(keep, most=1)))
    resumed = trace_prompts(request, Lab(keeper=partial(keep, most=9)))
    assert len(measured) == len(set(measured)) == 3  # none is read twice
    whole = trace_prompts(request, Lab())
    assert [one.shares for one in resumed.prompts] == [one.shares for one in whole.prompts]
    other = replace(request, model=load_causal(llama(tmp_path / "other", seed=1)))
    trace_prompts(other, Lab(keeper=partial(keep, most=9)))
    assert len(set(measured)) == 6


def test_layers_by_name(capsys):
    names = ["model.model.layers.0.mlp", "model.model.layers.1"]
    found = said(capsys, "--trace", *(word for name in names for word in ("--layers", name)))
    assert found["modules"] == names
    with pytest.raises(UnknownName, match=r"no module `layers\.7`"):
        said(capsys, "--layers", "layers.7")


def test_groups_of_tokens_do_not_overlap():
    changed = torch.tensor([False, True, False, True, False, False])
    assert token_groups(changed).long().tolist() == [
        [0, 1, 0, 1, 0, 0],
        [0, 0, 1, 0, 1, 0],
        [0, 0, 0, 0, 0, 1],
    ]
    at_end = token_groups(torch.tensor([False, True]))
    assert at_end.any(1).tolist() == [False, False, True]


def test_the_layer_of_an_answer_and_where_it_passes_on():
    found = unseen.explain_of_text(load_causal("model"), "p.jsonl", progress=False).results
    one = found.prompts[0]
    assert layer_of_answer(replace(one, ranks=[3, 1, 2, 1, 1])) == 4
    assert layer_of_answer(replace(one, ranks=[1, 1])) == 1
    assert layer_of_answer(replace(one, ranks=[1, 2])) is None
    falling, rising = ([Reading(v) for v in line] for line in ((1, 0.6, 0.1), (0, 0.2, 0.9)))
    assert crossing({CHANGED: falling, LAST: rising}) == 3
    assert crossing({CHANGED: falling, BETWEEN: rising}) is None


def test_a_counterfactual_that_changes_nothing_is_counted_and_left_out():
    with Lab(0).seeded():
        model = Transformer(Decoder(vocabulary=20, width=16, layers=2, context=8))
    pair = PromptPair([1, 2], counterfactual=[1, 3], answer=[5], counterfactual_answer=[6])
    turned = replace(pair, answer=[6], counterfactual_answer=[5])
    with torch.no_grad():
        model.head.weight.mul_(8)
    answer = unseen.explain_of_text(model, [pair, turned], progress=False)
    (used,) = answer.results.pairs  # what one gains the other loses
    assert abs(used.effect) >= of_text.LEAST_CHANGE
    assert "For 1 of 2 traced prompts" in answer.summary()
    assert "too little to trace" in html(answer.document)
    still = [replace(turned if used.answer == "5" else pair)]
    answer = unseen.explain_of_text(model, still, progress=False)
    assert mean_shares(answer.results) == {}
    assert "nothing can be traced" in answer.document.lead


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": ""}, "the prompt is empty"),
        ({"answer": "x"}, "has no prompt"),
        ({"prompt": 3}, "`prompt` is 3"),
        ({"prompt": "a", "awnser": "b"}, "has a field `awnser`"),
        ({"prompt": "aé"}, "does not know: “aé”"),
        ({"prompt": "a", "answer": "é"}, "the answer holds a token"),
        ({"prompt": "a", "answer": ""}, "the answer is empty"),
        ({"prompt": "a cat", "counterfactual": "a horse"}, "5 tokens, the counterfactual one 7"),
        ({"prompt": "a", "counterfactual": "a"}, "is the prompt"),
        ({"prompt": "a", "counterfactual_answer": "b"}, "and no counterfactual"),
        ({"prompt": "a" * 65}, "65 tokens"),
        (
            {"prompt": "a", "answer": "cd", "counterfactual": "b", "counterfactual_answer": "ce"},
            "begin with the same token, “c”",
        ),
        ([1], "has no prompt"),
    ],
)
def test_bad_lines_are_named(row, message):
    Path("p.jsonl").write_text('{"prompt": "fine"}\n' + json.dumps(row))
    with pytest.raises(InvalidData, match=f"(?s)line 2.*{message}|{message}") as error:
        main(["--model", "model", "--prompts", "p.jsonl"])
    assert "line 2" in str(error.value)


def test_bad_requests(capsys):
    with pytest.raises(InvalidConfig, match="--prompts is missing"):
        main(["--model", "model"])
    with pytest.raises(InvalidConfig, match="--model is missing"):
        main(["--prompts", "p.jsonl"])
    with pytest.raises(InvalidConfig, match=r"`table\.csv` is a subject"):
        main(["table.csv", "--model", "model", "--prompts", "p.jsonl"])
    with pytest.raises(InvalidConfig, match=r"There are 3 prompts, and at most 2"):
        said(capsys, "--most", "2")
    with pytest.raises(InvalidConfig, match="--most 0"):
        said(capsys, "--most", "0")
    with pytest.raises(MissingFile, match=r"no file `none\.jsonl`"):
        main(["--model", "model", "--prompts", "none.jsonl"])
    write({"prompt": "plain"})
    with pytest.raises(InvalidConfig, match="No prompt has a counterfactual"):
        said(capsys, "--trace")
    Path("p.jsonl").write_text("{no\n")
    with pytest.raises(InvalidData, match="line 1, is no JSON"):
        said(capsys)
    Path("p.jsonl").write_text("\n")
    with pytest.raises(InvalidData, match="holds no prompt"):
        said(capsys)
    Path("p.jsonl").write_bytes(b'{"prompt": "\xe9"}')
    with pytest.raises(InvalidData, match="is not UTF-8"):
        said(capsys)


def test_prompts_of_different_length_do_not_change_each_other():
    model = load_causal("model")
    pairs = read_prompts("p.jsonl")
    together = unseen.explain_of_text(model, pairs, progress=False, batch_size=3).results
    alone = unseen.explain_of_text(model, pairs[1:2], progress=False).results
    assert_close(torch.tensor(together.prompts[1].shares), torch.tensor(alone.prompts[0].shares))
