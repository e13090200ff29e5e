"""Multiple-choice items under a language model: choices against one by one, hardness of every kind,
and what is stored and refused.
"""

import json
from dataclasses import replace

import pytest
import torch

pytest.importorskip("transformers")
from language import llama

import unseen
from unseen.cli.main import main
from unseen.engine.choice_likelihood import Precision, choice_likelihoods
from unseen.errors import InvalidConfig, InvalidData, UnknownName
from unseen.lab import Lab
from unseen.measures.hardness import choice_loss
from unseen.models.pretrained import load_causal
from unseen.models.tiny_causal import tiny_causal
from unseen.questions.measure.items_document import OWN_HARDNESS, items_document, machine_items
from unseen.questions.measure.of_items import ItemsRequest, Score, measure_items, score_items
from unseen.tasks.graded_questions import Item


def some_items(n=40):
    return [
        Item(
            f"What is {k} plus {k % 3}?" + " Please." * (k % 4),
            tuple(str(k + j) for j in range(2 + k % 3)),
            k % 2,
            annotations=(("grade", float(k % 4)),),
        )
        for k in range(n)
    ]


@pytest.fixture(scope="module")
def model():
    return tiny_causal()


def asked(model, items, **more):
    return ItemsRequest(model=model, name="tiny", items=items, **more)


def test_choices_likelihoods_and_chance_are_those_of_each_item_alone(model):
    items = some_items()
    report = measure_items(asked(model, items), Lab())
    for item, one in zip(items, report.scores, strict=True):
        (alone,) = choice_likelihoods(model, [item.prompt], [item.continuations])
        assert one.likelihoods[Score.TOTAL] == pytest.approx(alone.total.tolist(), abs=1e-4)
        assert one.likelihoods[Score.PER_TOKEN] == pytest.approx(alone.per_token.tolist(), abs=1e-4)
        assert one.likelihoods[Score.PER_BYTE] == pytest.approx(alone.per_byte.tolist(), abs=1e-4)
        wrong = [x for k, x in enumerate(alone.total.tolist()) if k != item.answer]
        assert one.margin == pytest.approx(float(alone.total[item.answer]) - max(wrong), abs=1e-4)
    right = [one.right(Score.PER_TOKEN) for one in report.scores]
    assert report.accuracy[Score.PER_TOKEN].value == pytest.approx(sum(right) / len(right))
    assert report.chance == pytest.approx(sum(1 / len(i.choices) for i in items) / len(items))


def test_the_order_of_the_items_changes_no_number(model):
    items = some_items()
    one, other = (measure_items(asked(model, rows), Lab()) for rows in (items, items[::-1]))
    assert one.accuracy == other.accuracy
    assert one.fall == other.fall
    assert one.trend.value == pytest.approx(other.trend.value)


def test_strata_by_an_annotation_have_their_own_chance_and_sum_to_all_items(model):
    items = some_items()
    report = measure_items(asked(model, items, hardness="grade", cuts=(0.0, 3.0)), Lab())
    assert [one.n for one in report.strata] == [10, 20, 10]
    hard = [k for k, item in enumerate(items) if item.level("grade") == 3]
    assert report.strata[-1].accuracy[Score.TOTAL].value == pytest.approx(
        sum(report.scores[k].right(Score.TOTAL) for k in hard) / 10
    )
    assert report.strata[-1].chance == pytest.approx(
        sum(1 / len(items[k].choices) for k in hard) / 10
    )


def test_hardness_is_the_loss_under_another_model_and_its_own_is_said_to_be(model):
    items, other = some_items(), tiny_causal(seed=1)
    report = measure_items(asked(model, items, hardness="likelihood", hardness_model=other), Lab())
    for item, one in zip(items, report.scores, strict=True):
        (alone,) = choice_likelihoods(other, [item.prompt], [item.continuations])
        assert one.hardness == pytest.approx(choice_loss(alone.total, item.answer), abs=1e-4)
    assert not report.is_own_hardness
    own = measure_items(asked(model, items, hardness="likelihood"), Lab())
    assert own.is_own_hardness
    assert own.trend.value < -0.5
    notes = [block for section in items_document(own).sections for block in section.blocks]
    assert any(getattr(block, "text", "") == OWN_HARDNESS for block in notes)
    assert machine_items(own)["hardness_is_the_tested_models_own"] is True


def test_a_probe_reads_texts_or_the_hidden_states_of_another_model(model):
    items = some_items()
    words = measure_items(asked(model, items, hardness="probe"), Lab())
    states = measure_items(
        asked(model, items, hardness="probe", hardness_model=tiny_causal(seed=1)), Lab()
    )
    assert "TF-IDF" in words.hardness
    assert "hidden states of another model" in states.hardness
    for report in (words, states):
        assert all(one.hardness > 0 for one in report.scores)


def test_bfloat16_says_what_it_changed(model):
    report = measure_items(asked(model, some_items(), precision=Precision.BFLOAT16), Lab())
    assert report.compared == 16
    assert 0 < report.shift < 1
    assert "bfloat16: on the first 16 items" in " ".join(
        block.text
        for section in items_document(report).sections
        for block in section.blocks
        if type(block).__name__ == "Paragraph"
    )


class Memory(dict):
    """A keeper in memory that is interrupted at the second value it makes."""

    made = 0

    def __call__(self, key, make):
        if key.digest not in self:
            self.made += 1
            if self.made == 2:
                raise KeyboardInterrupt
            self[key.digest] = make()
        return self[key.digest]


def test_an_interrupted_command_goes_on_behind_the_last_chunk(model):
    items, memory = some_items(70), Memory()
    lab = replace(Lab(), keeper=memory)
    with pytest.raises(KeyboardInterrupt):
        score_items(model, items, Precision.FLOAT32, lab)
    found = score_items(model, items, Precision.FLOAT32, lab)
    assert memory.made == 4  # the first chunk, the interrupted one, and the last two
    plain = choice_likelihoods(
        model, [i.prompt for i in items], [list(i.continuations) for i in items]
    )
    for one, other in zip(found, plain, strict=True):
        assert torch.allclose(one.total, other.total, atol=1e-4)


def test_items_without_the_annotation_stand_aside_and_equal_ones_have_no_strata(model):
    items = some_items()
    items[0] = replace(items[0], annotations=())
    report = measure_items(asked(model, items, hardness="grade"), Lab())
    assert report.without_hardness == 1
    flat = [replace(item, annotations=(("grade", 2.0),)) for item in items]
    report = measure_items(asked(model, flat, hardness="grade"), Lab())
    assert not report.strata
    assert "equally hard" in report.warnings[0]
    assert items_document(report).sections


def test_what_cannot_be_asked_is_refused(model):
    items = some_items()
    with pytest.raises(UnknownName, match="grades"):
        asked(model, items, hardness="grades")
    with pytest.raises(InvalidConfig, match="model for the hardness"):
        asked(model, items, hardness_model=model)
    with pytest.raises(InvalidData, match="5 items, 20 are needed"):
        asked(model, items[:5], hardness="probe")


def test_an_item_beyond_the_context_is_named_before_any_is_read(model, monkeypatch):
    items = [*some_items(), Item("long " * 1_000, ("a", "b"), 0, name="last")]
    monkeypatch.setattr("unseen.questions.measure.of_items.choice_likelihoods", None)
    with pytest.raises(InvalidData, match=r"Item last and its longest continuation are 5,0\d\d"):
        measure_items(asked(model, items), Lab())


@pytest.fixture
def folder(tmp_path):
    return llama(tmp_path / "model", context=128)


def write_lines(path, items):
    lines = [
        {"question": i.question, "choices": list(i.choices), "answer": i.answer, "grade": 1 + k % 3}
        for k, i in enumerate(items)
    ]
    for line in lines:  # numbers as text would be ambiguous
        line["choices"] = [f"about {choice}" for choice in line["choices"]]
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def test_the_command_answers_as_the_function(folder, tmp_path, capsys):
    path = write_lines(tmp_path / "items.jsonl", some_items(12))
    report = tmp_path / "report.html"
    options = ["measure", "--model", str(folder), "--items", str(path), "--hardness", "grade"]
    assert main([*options, "--report", str(report), "--json", "--quiet"]) == 0
    found = json.loads(capsys.readouterr().out)
    answer = unseen.measure_of_items(load_causal(folder), path, hardness="grade", progress=False)
    assert found["accuracy"]["sum"]["value"] == pytest.approx(
        answer.results.accuracy[Score.TOTAL].value
    )
    assert len(found["items"]) == 12
    assert [one["stratum"] for one in found["strata"]] == ["easy", "medium", "hard"]
    assert "Accuracy by hardness" in report.read_text()
    assert "chance" in answer.summary()


def test_the_command_names_what_is_wrong(folder, tmp_path, capsys):
    path = write_lines(tmp_path / "items.jsonl", some_items(4))
    assert main(["measure", "--items", str(path)]) == 2
    assert "--model is missing" in capsys.readouterr().err
    path.write_text('{"question": "2 + 2?", "choices": ["4"], "answer": "4"}\n')
    options = ["measure", "--model", str(folder), "--items", str(path), "--quiet"]
    assert main(options) == 2
    assert "1 choice" in capsys.readouterr().err
    path.write_text('{"question": "2 + 2?", "choices": ["4", "5"], "answer": "6"}\n')
    assert main(options) == 2
    assert "not among them" in capsys.readouterr().err
