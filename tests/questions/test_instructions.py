"""Unseen tasks are asked in every condition; mixtures see the target's examples in one order."""

import copy
import json
from dataclasses import replace

import language
import pytest
import torch

import unseen
from unseen.cli.main import main
from unseen.engine.batches import Columns
from unseen.engine.loop import Budget, draws
from unseen.errors import InvalidConfig, InvalidData
from unseen.lab import Lab, Silent
from unseen.measures.text_overlap import Overlap, rouge_l
from unseen.models.pretrained import load_causal
from unseen.objectives import exact_match
from unseen.questions.instructions.document import instructions_document
from unseen.questions.instructions.job import (
    AFTER,
    BEFORE,
    Condition,
    InstructionRequest,
    compare_instructions,
)
from unseen.questions.instructions.mixture import MixtureRequest, compare_mixture
from unseen.questions.instructions.mixture_document import mixture_document
from unseen.subjects.instruction_mixture import ShareOfBatch, mix
from unseen.subjects.instruction_tuning import InstructionTuning
from unseen.task import Axis, Split, Task, Use
from unseen.tasks.instructions import (
    INSTRUCTION,
    By,
    Instance,
    InstructionTask,
    arithmetic_tasks,
    read_instructions,
)

TUNING = InstructionTuning(Budget(steps=3, batch_size=4, lr=1e-3, clip=1.0), None, 120, 6)
REQUEST = InstructionRequest(
    tuple(arithmetic_tasks()), share=0.4, n_train=6, n_test=3, tuning=TUNING
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return language.llama(tmp_path_factory.mktemp("model"), context=256)


@pytest.fixture(scope="module")
def model(folder):
    return load_causal(folder)


@pytest.fixture(scope="module")
def found(model):
    return compare_instructions(model, REQUEST, Lab(1))


def test_every_unseen_task_is_answered_in_every_condition(found):
    assert {len(one.instances) for one in found.answers} == {3}
    for one in found.answers:
        assert set(one.texts) == {
            *((AFTER, condition) for condition in Condition),
            (BEFORE, Condition.NONE),
            (BEFORE, Condition.INSTRUCTION),
        }
        assert {len(texts) for texts in one.texts.values()} == {3}
    assert not {task.name for task in found.split.seen} & {one.task.name for one in found.answers}


def test_answers_are_told_as_a_part_of_their_own(model):
    events = []

    class Told(Silent):
        def track(self, path, items, total):
            if path[-1] == "answers":
                events.append(total)
            return iter(items)

    lab = replace(Lab(1), sink=Told())
    found = compare_instructions(model, REQUEST, lab, lambda: events.append("trained"))
    assert events == ["trained", len(found.answers)]


def test_scores_are_means_over_tasks_and_benefits_are_paired(found):
    own = [
        sum(rouge_l(text, one.outputs) for text, one in zip(
            answer.texts[AFTER, Condition.INSTRUCTION], answer.instances, strict=True)) / 3
        for answer in found.answers
    ]  # fmt: skip
    reading = found.score(AFTER, Condition.INSTRUCTION, Overlap.ROUGE_L)
    assert reading.value == pytest.approx(sum(own) / len(own))
    assert reading.n == len(found.answers)
    none = found.score(AFTER, Condition.NONE, Overlap.ROUGE_L)
    assert found.benefit(Overlap.ROUGE_L).value == pytest.approx(reading.value - none.value)


def test_training_sees_all_forms_but_another_instruction(model):
    before = {name: x.clone() for name, x in model.state_dict().items()}
    one = compare_instructions(model, REQUEST, Lab(1))
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())
    assert one.train_examples == 6 * len(one.split.seen)
    assert 0 < one.target_tokens < one.train_tokens


def test_answers_do_not_depend_on_what_is_asked_beside_them(model):
    task = arithmetic_tasks()[0]
    prompts = [TUNING.prompt(model, task, one.input, INSTRUCTION) for one in task.instances[:5]]
    together = TUNING.write(model, prompts)
    assert together == [TUNING.write(model, [one])[0] for one in prompts]
    assert together == TUNING.write(model, prompts, batch=2)


def test_prompt_labels_do_not_change_the_gradient(model):
    task = arithmetic_tasks()[0]
    exchanges = [
        TUNING.exchange(model, TUNING.prompt(model, task, one.input, INSTRUCTION), one)
        for one in task.instances[:4]
    ]
    columns = TUNING.encode(model, exchanges).columns
    data = columns.columns
    labels = torch.where(data["mask"], data["tokens"], 7)
    fits = [
        TUNING.fit(model, {"target": part}, Lab(2)).state_dict()
        for part in (columns, Columns(**data, labels=labels))
    ]
    assert all(torch.equal(fits[0][name], fits[1][name]) for name in fits[0])


def numbers(n, name="target", shift=0):
    """Numbers and the next one."""
    return InstructionTask(
        name,
        (("Instruction", "Write the next number."),),
        tuple(Instance(str(k + shift), (str(k + shift + 1),)) for k in range(n)),
    )


def test_the_mixture_reads_the_same_target_examples_in_the_same_order():
    target, general = (Columns(k=torch.arange(n)) for n in (30, 200))

    def seen(parts):
        splits = {name: Split(part, Use.TRAIN, name) for name, part in parts.items()}
        task = Task(name="t", axis=Axis.TASK, splits=splits, objective=exact_match)
        return list(draws(task, Budget(steps=20, batch_size=6), Lab(3)))

    alone, half, most = (seen(mix(target, general, share)) for share in (0.0, 0.5, 0.75))
    for one, two, three in zip(alone, half, most, strict=True):
        assert list(one.fit) == ["target"]
        assert torch.equal(one.fit["target"]["k"], two.fit["target"]["k"])
        assert torch.equal(one.fit["target"]["k"], three.fit["target"]["k"])
        assert [len(x.fit["general"]["k"]) for x in (two, three)] == [6, 18]
    with pytest.raises(InvalidConfig):
        ShareOfBatch(general, 1.0)


def test_without_general_data_mixed_is_the_specialist_bit_for_bit(model):
    request = MixtureRequest(
        (numbers(40),), (numbers(30, "general", 100),), 0.0, (8, 24), 10, TUNING
    )
    found = compare_mixture(model, request, Lab(0))
    for n in found.sizes:
        for overlap in Overlap:
            one, other = (found.scores[f"{arm}, {n}"][overlap] for arm in ("specialist", "mixed"))
            assert torch.equal(one, other)


def test_copies_of_the_test_are_counted_and_left_out(model):
    words = " ".join(f"word{k}" for k in range(20))
    rows = tuple(Instance(f"{words} {k}", (str(k),)) for k in range(30))
    target = InstructionTask("target", (), rows)
    general = InstructionTask("general", (), (*rows[:3], *numbers(20).instances))
    tuning = InstructionTuning(TUNING.budget, None, 250, 6)
    found = compare_mixture(
        model, MixtureRequest((target,), (general,), 0.5, (8,), 10, tuning), Lab(0)
    )
    # all rows share a run of 13 words
    assert found.contamination.value == 1
    assert found.general_left_out == 3
    assert found.n_general == 20
    assert found.target_tokens[8] > 0


@pytest.mark.parametrize("sizes", [(0, 8), (500,)])
def test_sizes_beyond_the_data_are_refused(model, sizes):
    request = MixtureRequest((numbers(40),), (numbers(30, "g", 100),), 0.5, sizes, 10, TUNING)
    with pytest.raises(InvalidConfig, match="Sizes"):
        compare_mixture(model, request, Lab(0))


def test_what_cannot_be_compared_is_refused(model):
    few = MixtureRequest((numbers(12),), (numbers(30, "g", 100),), tuning=TUNING)
    with pytest.raises(InvalidData, match="12 target examples"):
        compare_mixture(model, few, Lab(0))
    same = MixtureRequest((numbers(40),), (numbers(40),), tuning=TUNING)
    found = compare_mixture(model, same, Lab(0))
    assert found.contamination.value == 1
    copies = MixtureRequest((numbers(40),), (numbers(1),), tuning=TUNING)
    with pytest.raises(InvalidConfig):
        MixtureRequest((numbers(40),), (numbers(40),), share=1.0)
    with pytest.raises(InvalidConfig):
        InstructionTuning(length=10, response=10)
    assert copies.share == 0.5


def write(path, tasks):
    rows = [
        {"task": task.name, "instruction": dict(task.fields)["Instruction"], "input": one.input,
         "output": list(one.outputs), "category": task.category or "none"}
        for task in tasks for one in task.instances
    ]  # fmt: skip
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


SMALL = (
    "--steps",
    "2",
    "--train-items",
    "4",
    "--prompt-tokens",
    "120",
    "--answer-tokens",
    "4",
    "--quiet",
)


def test_the_command_on_a_file_of_instructions(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("UNSEEN_HOME", str(tmp_path / "home"))
    file, report = write(tmp_path / "i.jsonl", arithmetic_tasks()), tmp_path / "page.html"
    command = ["compare", file, "--by", "task", "--model", str(folder), *SMALL]
    assert main([*command, "--test-items", "2", "--report", str(report), "--json"]) == 0
    out = json.loads(capsys.readouterr().out)
    assert len(out["unseen"]) == 2
    assert {one["prompt"] for one in out["scores"]} == {condition.value for condition in Condition}
    assert out["benefit"]["ROUGE-L"]["n"] == 2
    page = report.read_text()
    assert "Do instructions carry over" in page
    assert "another task&#39;s instruction" in page or "another task's instruction" in page
    assert main([*command[:3], "dataset", *command[4:]]) == 2
    assert "The task `sum` has no dataset" in capsys.readouterr().err


def test_the_command_on_target_and_general_data(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("UNSEEN_HOME", str(tmp_path / "home"))
    target = write(tmp_path / "t.jsonl", [numbers(40)])
    general = write(tmp_path / "g.jsonl", arithmetic_tasks())
    report = tmp_path / "page.html"
    command = ["compare", target, "--mix", general, "--model", str(folder), *SMALL]
    command += ["--test-items", "10", "--sizes", "8,20", "--report", str(report), "--json"]
    assert main(command) == 0
    out = json.loads(capsys.readouterr().out)
    assert [one["n"] for one in out["sizes"]] == [8, 20]
    assert out["contamination"]["value"] == 0
    page = report.read_text()
    assert "With 8 target examples" in page
    assert "0 of 10 test items stand in the general data" in page


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--by", "task"), "without --model"),
        (("--mix", "g.jsonl"), "without --model"),
        (("--mix", "g.jsonl", "--model", "m", "--sizes", "few"), "--sizes few"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, words, tmp_path, capsys):
    file = write(tmp_path / "i.jsonl", arithmetic_tasks())
    assert main(["compare", file, *options]) == 2
    assert words in capsys.readouterr().err


def test_from_python_with_values(model):
    answer = unseen.compare_instructions(
        arithmetic_tasks(), by="task", share=0.4, model=copy.deepcopy(model), n_train=3, n_test=2,
        steps=1, length=120, answer_tokens=4, lab=Lab(0), progress=False,
    )  # fmt: skip
    assert By.TASK is answer.results.split.by
    assert "unseen tasks ROUGE-L" in answer.summary()


def test_shortened_inputs_of_the_test_are_counted(model):
    tasks = arithmetic_tasks()
    long = tuple(Instance("word " * 40 + one.input, one.outputs) for one in tasks[0].instances[:4])
    tasks[:2] = [replace(task, instances=long) for task in tasks[:2]]
    request = replace(REQUEST, tasks=tuple(tasks), unseen=(tasks[0].name, tasks[1].name))
    found = compare_instructions(model, request, Lab(0))
    # two tasks, three instances, four conditions; a prompt counts once, however often it is read
    assert found.inputs_shortened == 2 * 3 * 4


def test_unseen_tasks_without_an_instruction_are_refused(model):
    tasks = tuple(replace(task, fields=()) for task in arithmetic_tasks())
    with pytest.raises(InvalidData, match="has no instruction"):
        compare_instructions(model, replace(REQUEST, tasks=tasks), Lab(0))


def test_instructions_of_both_sides_and_letters_that_rouge_skips_are_named(found):
    tasks = [
        replace(
            task,
            fields=found.split.seen[0].fields,
            instances=tuple(Instance(one.input, ("да",)) for one in task.instances),
        )
        for task in found.split.unseen
    ]
    answers = tuple(
        replace(one, instances=task.instances[:3])
        for one, task in zip(found.answers, tasks, strict=True)
    )
    split = replace(found.split, unseen=tuple(tasks))
    text = str(instructions_document(replace(found, split=split, answers=answers), "file"))
    assert f"{len(tasks)} unseen tasks with the instruction of a seen one" in text
    assert f"{3 * len(tasks)} of {3 * len(tasks)} right outputs have other letters" in text
    assert "other letters than" not in str(instructions_document(found, "file"))


@pytest.mark.parametrize(("share", "few", "words"), [
    (0.01, 30, "1 general example beside them, 20% of a step"),
    (0.9, 3, "3 general examples beside them, 43% of a step"),
    (0.0, 30, "0 general examples beside them, 0% of a step"),
])  # fmt: skip
def test_the_report_has_the_share_that_was_trained_on(model, share, few, words):
    general = (numbers(few, "general", 100),)
    request = MixtureRequest((numbers(40),), general, share, (8,), 10, replace(TUNING, response=2))
    found = compare_mixture(model, request, Lab(0))
    assert words in str(mixture_document(found, "target", "general"))


def test_tests_without_items_and_no_general_data_are_refused(model):
    for n_test in (0, -20):
        with pytest.raises(InvalidConfig, match="for a test"):
            MixtureRequest((numbers(40),), (numbers(30, "g", 100),), n_test=n_test)
    with pytest.raises(InvalidData, match="no general examples"):
        compare_mixture(model, MixtureRequest((numbers(40),), (), tuning=TUNING), Lab(0))


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--test-items", "each is at least one"),
        ("--train-items", "each is at least one"),
        ("--shots", "each is at least one"),
        ("--steps", "steps=0"),
    ],
)
def test_nothing_is_not_taken_for_the_default(folder, option, words, tmp_path, capsys):
    file = write(tmp_path / "i.jsonl", arithmetic_tasks())
    command = ["compare", file, "--by", "task", "--model", str(folder), *SMALL, option, "0"]
    assert main(command) == 2
    assert words in capsys.readouterr().err


def test_examples_that_are_no_list_are_refused(tmp_path):
    row = {"task": "a", "instruction": "b", "input": "c", "output": "d", "examples": 5}
    (tmp_path / "i.jsonl").write_text(json.dumps(row))
    with pytest.raises(InvalidData, match="`examples` is no list"):
        read_instructions(tmp_path / "i.jsonl")


@pytest.mark.parametrize("part", ["seen", "unseen"])
def test_instructions_that_do_not_fit_are_refused_before_the_training(model, monkeypatch, part):
    tasks = arithmetic_tasks()
    where = 0 if part == "unseen" else -1
    tasks[where] = replace(tasks[where], fields=(("Instruction", "word " * 60),))
    request = replace(REQUEST, tasks=tuple(tasks), unseen=(tasks[0].name, tasks[1].name))
    monkeypatch.setattr(InstructionTuning, "fit", lambda *_: pytest.fail("trained first"))
    with pytest.raises(InvalidData, match="longer than the 250 tokens"):
        compare_instructions(model, request, Lab(0))


def test_no_prompt_is_longer_than_the_model_reads(model):
    tuning = InstructionTuning(TUNING.budget, None, 1_000, 6)
    task = arithmetic_tasks()[0]
    for text in ("x" * 3_000, "word " * 600, "9 4"):
        found = tuning.prompt(model, task, text, INSTRUCTION)
        assert len(model.start) + len(model.encode(found.text)) <= 256 - 6
        assert found.is_shortened == (len(text) > 3)
        assert tuning.exchange(model, found, task.instances[0]).prompt == found.text
    with pytest.raises(InvalidConfig, match="Answers of 300 tokens"):
        InstructionTuning(length=1_000, response=300).prompt(model, task, "9 4", INSTRUCTION)
