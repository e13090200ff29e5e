"""`unseen explain` as a person uses it: tables, images, tokens, estimators, resume, and everything
that can be wrong.
"""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from unseen.attributions.explanation import eight, guide
from unseen.attributions.explanation.guide import Question
from unseen.cli.explain import main
from unseen.engine.batches import Columns
from unseen.engine.loop import Budget
from unseen.errors import InvalidConfig, InvalidData, UnknownName
from unseen.lab import Lab
from unseen.objectives import classify, next_token, regress
from unseen.questions.explain.document import document
from unseen.questions.explain.job import explain
from unseen.questions.explain.request import ExplainRequest
from unseen.report.html import html
from unseen.report.markdown import markdown
from unseen.runs.tensors import TensorCache
from unseen.subjects.subject import Subject
from unseen.task import Axis, Split, Task, Use
from unseen.tasks.table import clinics
from unseen.wording import number

FAST = ["--steps", "30", "--sample", "12", "--draws", "60"]


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UNSEEN_HOME", str(tmp_path / "home"))
    clinics().to_csv("table.csv", index=False)


def said(capsys, *arguments: str) -> dict:
    assert main([*arguments, *FAST, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def task(splits: dict[str, dict[str, Tensor]], objective) -> Task:
    uses = {"train": Use.TRAIN, "test": Use.EVALUATE}
    data = {name: Split(Columns(**columns), uses[name]) for name, columns in splits.items()}
    return Task(name="own", axis=Axis.IID, splits=data, objective=objective)


def squares() -> Subject:
    """Bright squares: in one site or another."""

    def drawn(n: int) -> dict[str, Tensor]:
        y = torch.arange(n) % 2
        x = 0.1 * torch.rand(n, 1, 14, 14, generator=Lab().child(n).generator())
        x[y == 1, 0, 2:6, 2:6] += 1
        x[y == 0, 0, 8:12, 8:12] += 1
        return {"x": x, "y": y}

    return Subject(
        task=task({"train": drawn(80), "test": drawn(20)}, classify),
        model=lambda: nn.Sequential(nn.Flatten(), nn.Linear(196, 2)),
        classes=("low", "high"),
        budget=Budget(steps=60, lr=1e-2),
        name="net",
    )


class Words(nn.Module):
    """Bigrams, with a tokenizer's names for its tokens."""

    class Tokenizer:
        pad_token_id, unk_token_id, eos_token_id = None, 3, None

        @staticmethod
        def decode(tokens: list[int]) -> str:
            return " ".join("abcdefgh"[t] for t in tokens) + " "

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.out = nn.Embedding(8, 6), nn.Linear(6, 8)
        self.tokenizer = self.Tokenizer()

    def forward(self, tokens: Tensor) -> Tensor:
        return self.out(self.embed(tokens).cumsum(1))


def sentences() -> Subject:
    tokens = torch.randint(8, (30, 5), generator=Lab().generator())
    with Lab().seeded():
        model = Words().eval()
    return Subject(
        task=task({"train": {"tokens": tokens}, "test": {"tokens": tokens[:9]}}, next_token),
        model=Words,
        trained=model,
        name="bigrams",
    )


def test_rows_of_a_table_are_explained_in_its_own_columns(capsys):
    found = said(capsys, "table.csv", "--target", "ill", "--rows", "17,3")
    assert [one["row"] for one in found["examples"]] == [17, 3]
    assert set(found["examples"][0]["credits"]) == {"clinic", "age", "sex", "pressure"}
    assert set(found["faithfulness"]) == set(eight())
    assert found["method"] == found["chosen"]
    assert found["chosen"] in found["why"]
    best = found["faithfulness"][found["chosen"]]
    assert best["low"] <= best["value"] <= best["high"]
    assert best["value"] == max(reading["value"] for reading in found["faithfulness"].values())
    one = found["examples"][0]
    assert sum(one["credits"].values()) == pytest.approx(
        one["output"] - one["at_baseline"], abs=0.5
    )
    assert one["completeness_gap"] == pytest.approx(
        one["output"] - one["at_baseline"] - sum(one["credits"].values()), abs=1e-4
    )
    assert found["is_exact"]  # four features: all masks
    first, *_ = sorted(one["credits"], key=lambda name: -abs(one["credits"][name]))
    page = Path("unseen-explanation.html").read_text()
    assert "perturbations that there are" in page
    assert "Row 17" in page
    assert f"The largest credits, in log-odds: {first} (" in page
    assert "Which explanation, and why" in page


@pytest.mark.parametrize(("method", "says"), [("occlusion", True), ("kernelshap", False)])
def test_credits_that_do_not_sum_to_the_change_of_the_output_say_by_how_much(
    capsys, method: str, says: bool
):
    found = said(capsys, "table.csv", "--target", "ill", "--rows", "17", "--method", method)
    one = found["examples"][0]
    change, total = one["output"] - one["at_baseline"], sum(one["credits"].values())
    assert (abs(one["completeness_gap"]) > 1e-3 * max(abs(change), abs(total))) == says
    page = Path("unseen-explanation.html").read_text()
    assert (f"a gap of {number(abs(change - total))} log-odds" in page) == says


def test_an_asked_method_is_used_and_compared(capsys):
    found = said(
        capsys,
        "table.csv",
        "--target",
        "ill",
        "--method",
        "Vanilla-Gradients",
        "--question",
        "change",
    )
    assert found["method"] == "Vanilla Gradients"
    assert found["chosen"] in ("C-LIME", "SmoothGrad", "Vanilla Gradients", "Gradient × Input")
    assert len(found["examples"]) == 8
    assert (
        main(
            ["table.csv", "--target", "ill", *FAST, "--method", "occlusion", "--report", "page.md"]
        )
        == 0
    )
    told = capsys.readouterr().out
    told = " ".join(told.split())  # a narrow terminal breaks lines anywhere
    assert "Occlusion was asked for" in told or "Occlusion explains" in told
    assert "Which explanation, and why" in Path("page.md").read_text()


def test_a_number_is_explained_in_its_own_unit(capsys):
    clinics().dropna().to_csv("numbers.csv", index=False)
    found = said(capsys, "numbers.csv", "--target", "pressure", "--examples", "2")
    assert found["explained"] == "predicted value"
    assert all(80 < one["output"] < 200 for one in found["examples"])


def test_an_estimator_has_no_gradients_and_is_explained_all_the_same(capsys):
    found = said(
        capsys,
        "table.csv",
        "--target",
        "ill",
        "--estimator",
        "sklearn.linear_model:LogisticRegression",
    )
    assert len(found["left_out"]) == 4
    assert found["chosen"] in ("LIME", "KernelSHAP", "Occlusion", "C-LIME")
    with pytest.raises(InvalidConfig, match="SmoothGrad cannot explain"):
        main(
            [
                "table.csv",
                "--target",
                "ill",
                "--estimator",
                "sklearn.linear_model:LogisticRegression",
                *FAST,
                "--method",
                "smoothgrad",
            ]
        )


def test_images_are_drawn_as_heat_maps_where_the_square_is():
    report = explain(squares(), ExplainRequest(sample=10, draws=300, examples=4))
    for told in report.examples:
        heat = torch.tensor(told.heat)
        assert heat.shape == (7, 7)
        assert heat.abs().sum() > 0
        assert told.picture.shape == (14, 14)
        around = (
            heat[4:6, 4:6].sum() + heat[1:3, 1:3].sum()
        )  # both sites speak for the predicted one
        assert around > 0.8 * heat.sum()
    page = html(document(report))
    assert "data:image/png" in page
    assert "Credits of the patches" in page


def test_tokens_are_coloured_and_the_tokenizer_names_what_is_removed():
    report = explain(sentences(), ExplainRequest(sample=6, draws=40, examples=2))
    found = report
    assert found.behaviour == "log-probability of the most likely next token"
    assert "token 3" in found.removed
    assert "d" in found.removed
    for told in found.examples:
        assert len(told.pieces) == len(told.credits) == 5
        assert set("".join(told.pieces).split()) <= set("abcdefgh")
    assert "passage" in html(document(report))
    assert "What each token adds" in markdown(document(report))


def test_marked_tokens_are_what_is_explained():
    subject = sentences()
    tokens = subject.task.splits["test"].data.columns["tokens"]
    mask = torch.zeros_like(tokens)
    mask[:, 3] = 1
    marked = task(
        {"train": {"tokens": tokens, "mask": mask}, "test": {"tokens": tokens, "mask": mask}},
        next_token,
    )
    found = explain(
        Subject(task=marked, model=Words, trained=subject.trained),
        ExplainRequest(sample=6, draws=40, examples=3),
    )
    assert found.behaviour == "log-probability of the marked tokens"
    for (
        told
    ) in found.examples:  # the marked token is asked for, not read; those after it come too late
        assert max(abs(value) for value in list(told.credits.values())[3:]) < 1e-4


def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path, monkeypatch):
    asked: list[str] = []
    make = guide.solve_explanation

    def counting(at, how, lab):
        asked.append(lab.path[-1])
        if len(asked) == 4:
            raise KeyboardInterrupt
        return make(at, how, lab)

    monkeypatch.setattr(guide, "solve_explanation", counting)
    lab, ask, subject = (
        Lab(keeper=TensorCache(tmp_path / "kept")),
        ExplainRequest(sample=8, draws=300, examples=2),
        squares(),
    )
    with pytest.raises(KeyboardInterrupt):
        explain(subject, ask, lab)
    resumed = explain(subject, ask, lab)
    assert asked[4:9] == list(eight())[3:]  # then close methods on further draws
    asked.clear()
    again = explain(subject, ask, lab)
    assert asked == []
    monkeypatch.setattr(guide, "solve_explanation", make)
    fresh = explain(subject, ask, Lab())
    for other in (resumed, again):
        assert {k: r.value for k, r in other.choice.readings.items()} == {
            k: r.value for k, r in fresh.choice.readings.items()
        }
        assert [told.credits for told in other.examples] == [
            told.credits for told in fresh.examples
        ]
    explain(subject, ExplainRequest(sample=8, draws=300, examples=2, baseline=0.5), lab)
    assert Path(tmp_path / "kept").is_dir()


def test_another_baseline_is_another_question(tmp_path):
    lab, subject = Lab(keeper=TensorCache(tmp_path / "kept")), squares()
    one, other = (
        explain(subject, ExplainRequest(sample=8, draws=300, examples=2, baseline=b), lab).examples[
            0
        ]
        for b in (None, 0.7)
    )
    assert one.base != other.base
    assert one.credits != other.credits


def test_a_class_can_be_asked_for():
    told = {
        target: explain(
            squares(), ExplainRequest(sample=8, draws=300, examples=2, target=target)
        ).examples
        for target in (0, 1)
    }
    for zero, one in zip(told[0], told[1], strict=True):
        assert zero.output == pytest.approx(-one.output, rel=1e-4)


@pytest.mark.parametrize(
    ("arguments", "error", "names"),
    [
        (["--method", "shape"], UnknownName, "method"),
        (["--rows", "3,x"], InvalidConfig, "--rows"),
        (["--rows", "100000"], InvalidConfig, "Row 100000"),
        (["--class", "maybe"], UnknownName, "class"),
        (["--class", "7"], InvalidConfig, "target=7"),
        (["--examples", "0"], InvalidConfig, "--examples"),
        (["--draws", "0"], InvalidConfig, "--draws"),
        (["--sigma", "0"], InvalidConfig, "--sigma"),
        (["--split", "nowhere"], UnknownName, "split"),
    ],
)
def test_wrong_options_are_refused_by_name(arguments, error, names):
    with pytest.raises(error, match=names):
        main(["table.csv", "--target", "ill", *FAST, *arguments])
    assert not Path("unseen-explanation.html").exists()


def test_what_cannot_be_explained_is_refused():
    x = torch.rand(30, 3)
    two = task(
        {"train": {"x": x, "y": torch.rand(30, 2)}, "test": {"x": x, "y": torch.rand(30, 2)}},
        regress,
    )
    with pytest.raises(InvalidData, match="2 outputs"):
        explain(
            Subject(task=two, model=lambda: nn.Linear(3, 2), budget=Budget(steps=5)),
            ExplainRequest(sample=5),
        )
    with pytest.raises(InvalidConfig, match="no example 99"):
        explain(squares(), ExplainRequest(rows=(99,), sample=5))


def test_the_other_question_is_offered():
    page = document(
        explain(
            squares(), ExplainRequest(sample=8, draws=300, examples=1, question=Question.CHANGE)
        )
    )
    assert "--question remove" in " ".join(block.text for block in page.sections[-1].blocks)


@pytest.mark.parametrize("is_named", [True, False])
def test_of_very_many_features_the_others_count_as_one(is_named, monkeypatch):
    """A linear model's credits are weight × distance from the mean, also of those in one."""
    monkeypatch.setattr("unseen.questions.explain.setup.MOST_EXPLAINED", 4)
    weights = torch.tensor([[5.0, 0.1, 3.0, 0.0, 0.2, -2.0, 4.0]])
    x = torch.randn(60, 7, generator=Lab().generator())
    model = nn.Linear(7, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(weights)
    y = model(x).detach()
    parts = {"train": {"x": x[:40], "y": y[:40]}, "test": {"x": x[40:], "y": y[40:]}}
    # a column of two inputs is one feature
    groups = {"pair": [5, 6], **{f"c{k}": [k] for k in range(5)}} if is_named else {}
    subject = Subject(
        task=task(parts, regress), model=lambda: nn.Linear(7, 1), trained=model, features=groups
    )
    found = explain(subject, ExplainRequest(sample=8, draws=300, rows=(3,)))
    moved = (weights[0] * (x[43] - x[:40].mean(0))).tolist()
    wanted = {"c0": moved[0], "c2": moved[2], "pair": moved[5] + moved[6]}
    if not is_named:
        wanted = {"x[0]": moved[0], "x[2]": moved[2], "x[6]": moved[6]}
    others = f"the other {3 if is_named else 4} features"
    (told,) = found.examples
    assert told.credits == pytest.approx(
        {**wanted, others: sum(moved) - sum(wanted.values())}, abs=1e-4
    )
    assert any(f"Of {6 if is_named else 7} features the 3" in said for said in found.decisions)
