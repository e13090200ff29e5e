"""`unseen measure --sweep`: which measure foretells the gap of many models."""

import json
from math import isnan

import numpy as np
import pandas as pd
import pytest

import unseen
from unseen.cli.measure import main
from unseen.errors import InvalidConfig, InvalidData, MissingFile
from unseen.questions.measure.sweep import SweepRequest, evaluate_sweep, known_measures, read_sweep


def sweep(**columns) -> pd.DataFrame:
    """Two hyperparameters and three seeds; `coherence_α` is an oracle that is better when
    higher.
    """
    rng = np.random.default_rng(0)
    rows = [
        {"depth": depth, "width": width, "seed": seed}
        for depth in (2, 4, 6)
        for width in (64, 128)
        for seed in range(3)
    ]
    table = pd.DataFrame(rows)
    table["gap"] = 0.02 * table.depth + 0.01 * rng.normal(size=len(table))
    table["coherence_α"] = -table.gap
    table["weight_norm"] = rng.normal(size=len(table))
    return table.assign(**columns)


def evaluation(table: pd.DataFrame, measure: str, **request):
    found = evaluate_sweep(table, SweepRequest(**request))
    return next(one for one in found.evaluations if one.measure == measure)


def test_columns_are_told_apart_by_the_catalogue():
    found = evaluate_sweep(sweep(note="x"), SweepRequest())
    assert found.axes == ["depth", "width"]
    assert [one.measure for one in found.evaluations] == ["coherence_α", "weight_norm"]
    assert found.flipped == ["coherence_α"]
    assert known_measures(pd.DataFrame({"largest curvature": [1], "Weight Norm": [2]})) == [
        "largest curvature",
        "Weight Norm",
    ]


def test_columns_that_are_not_read_are_listed_with_a_near_match(capsys):
    numbers = {name: np.linspace(0, 1, 18) for name in ("sharpness", "coherence", "my_number")}
    answer = unseen.measure_sweep(sweep(n_test=1000, **numbers))
    assert answer.results.unread == {
        "sharpness": "sharpness start",
        "coherence": "coherence α",
        "my_number": "",
    }
    answer.show()
    shown = " ".join(capsys.readouterr().out.split())
    assert "Columns not read: `sharpness` (the catalogue has `sharpness start`)" in shown
    assert "`my_number`; name them with --measure" in shown
    assert not unseen.measure_sweep(sweep()).results.unread
    assert not evaluate_sweep(sweep(**numbers), SweepRequest(measures=["sharpness"])).unread


def test_an_oracle_that_is_better_when_higher_orders_all_gaps():
    oracle = evaluation(sweep(), "coherence_α")
    assert oracle.tau.value == 1.0
    assert oracle.granulated.total.value == pytest.approx(1.0)
    assert oracle.granulated.p_family == pytest.approx(0.005)
    turned = evaluation(sweep().assign(mine=lambda t: -t.gap), "mine", measures=["mine"])
    assert turned.granulated.total.value == pytest.approx(-1.0)


def test_what_does_not_exist_has_a_reason_and_a_count():
    same = evaluate_sweep(sweep(gap=0.5), SweepRequest())
    for one in same.evaluations:
        assert isnan(one.tau.value)
        assert one.tau.reason == "all 18 models have the same gap"
    alone = sweep().assign(lr=np.linspace(0, 1, 18)).assign(depth=range(18))
    found = evaluation(alone, "coherence_α", axes=["lr", "depth"])
    assert isnan(found.granulated.total.value)
    assert "no two models differ in `lr` alone" in found.granulated.total.reason


@pytest.mark.parametrize(
    ("table", "request_", "said"),
    [
        (sweep().drop(columns="gap"), {}, "no column `gap`"),
        (sweep(gap="large"), {}, "holds words"),
        (sweep()[["depth", "gap"]], {}, "No column is a measure"),
        (sweep()[["gap", "weight_norm"]], {}, "No column is a hyperparameter"),
        (sweep().head(2), {"axes": ["depth"]}, "has 2 models"),
        (sweep(), {"measures": ["absent"]}, "no column `absent`"),
        (sweep(mine="x"), {"measures": ["mine"]}, "holds words"),
    ],
)
def test_a_table_that_is_no_sweep_is_refused(table, request_, said):
    with pytest.raises(InvalidData, match=said):
        evaluate_sweep(table, SweepRequest(**request_))


def test_a_folder_holds_tables_and_stored_runs(tmp_path):
    with pytest.raises(MissingFile, match="no model in"):
        read_sweep(tmp_path)
    with pytest.raises(MissingFile, match="no file"):
        read_sweep(tmp_path / "absent.csv")
    sweep().head(9).to_csv(tmp_path / "first.csv", index=False)
    cell = tmp_path / "runs" / "study" / "key"
    cell.mkdir(parents=True)
    rest = sweep().tail(9)
    (cell / "run.json").write_text(json.dumps({"rows": rest.to_dict("records")}), "utf-8")
    assert len(read_sweep(tmp_path)) == 18
    (tmp_path / "notes.txt").write_text("none")
    with pytest.raises(InvalidData, match="is no table"):
        read_sweep(tmp_path / "notes.txt")


def test_the_command_writes_and_prints(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    sweep(n_test=1000).to_csv("runs.csv", index=False)
    assert main(["--sweep", "runs.csv", "--json", "--report", "page.html"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["hyperparameters"] == ["depth", "width"]
    assert said["measures"][0]["Psi"]["value"] == pytest.approx(1.0)
    assert "coherence_α" in (tmp_path / "page.html").read_text("utf-8")
    with pytest.raises(InvalidConfig, match="--sweep was given with"):
        main(["table.csv", "--sweep", "runs.csv"])
    with pytest.raises(InvalidConfig, match="--minutes was given with --sweep"):
        main(["--sweep", "runs.csv", "--minutes", "5"])


def test_rows_without_a_gap_stand_aside():
    table = sweep()
    table.loc[0, "gap"] = np.nan
    answer = unseen.measure_sweep(table)
    assert answer.results.left_out == 1
    assert "1 row without a gap" in answer.document.lead
