"""The command as a person and a script use it: exit codes, three lines, JSON, and quick answers."""

import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from unseen import __version__
from unseen.cli import doctor
from unseen.cli import main as cli
from unseen.cli.main import main
from unseen.errors import InvalidConfig, InvalidData
from unseen.runs import catalog
from unseen.runs.overview import BEGIN, END, overview, replace_table
from unseen.study import Scale, average

RUN = ["run", "fake_counting", "--scale", "smoke"]


def said(capsys) -> dict:
    return json.loads(capsys.readouterr().out)


def lines(capsys) -> list[str]:
    """The standard error, which must be the three lines."""
    text = capsys.readouterr().err.rstrip("\n").split("\n")
    assert len(text) == 3, text
    assert text[1].startswith("  why: ")
    assert text[2].startswith("  fix: ")
    return text


QUICK = {
    "help": [],
    "version": ["--version"],
    "list": ["list"],
    "list json": ["list", "studies", "--json"],
    "list help": ["list", "--help"],
}


@pytest.mark.parametrize("words", QUICK)
def test_quick_answers_do_not_wait_for_torch(words):
    code = (
        "import sys; from unseen.cli.main import main; code = main(sys.argv[1:]); "
        "assert code == 0; assert 'torch' not in sys.modules and 'numpy' not in sys.modules; "
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *QUICK[words]], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_the_package_is_the_command_as_well():
    program = [sys.executable, "-m", "unseen", "--version"]
    done = subprocess.run(program, capture_output=True, text=True)
    assert done.stdout == f"unseen {__version__}\n"


def test_version_and_help(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"unseen {__version__}\n"
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"\n  {name} " in text for name in cli.COMMANDS)
    for name in cli.COMMANDS:
        assert main([name, "--help"]) == 0
        assert f"unseen {name}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "near"),
    [
        (["rum"], "run"),
        (["run", "fake_countin"], "fake_counting"),
        (["cite", "fake_countin"], "fake_counting"),
        (["check", "fake_countin"], "fake_counting"),
        (["report", "fake_countin"], "fake_counting"),
        ([*RUN, "--task.dmi", "3"], "--task.dim"),
    ],
)
def test_unknown_names_show_near_ones(words, near, store, capsys):
    assert main(words) == 2
    what, _, fix = lines(capsys)
    assert what.startswith("UnknownName: There is no ")
    assert near in fix


def test_of_several_processes_the_first_has_the_standard_output(capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert main(["influence", "--shrad", "--json"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "--shrad" in err


def test_an_unknown_option_shows_a_near_one_and_no_wall_of_usage(capsys):
    assert main(["influence", "--shrad"]) == 2
    what, why, fix = lines(capsys)
    assert "--shrad" in what
    assert len(why) < 100
    assert "did you mean --shard?" in fix


@pytest.mark.parametrize(
    "words",
    [
        ["run", "fake_counting", "--scale", "huge"],
        ["run", "fake_counting", "--scale", "paper"],
        [*RUN, "--jobs", "many"],
        [*RUN, "--jobs", "0"],
        [*RUN, "--seeds", "few"],
        [*RUN, "--seeds", "2", "--ledger"],
        ["list", "studios"],
        ["report", "fake_counting"],
        ["check"],
        [*RUN, "--home", "/proc/nowhere"],
        [*RUN, "--report", "/proc/nowhere/report.html"],
    ],
)
@pytest.mark.parametrize("as_json", [False, True])
def test_usage_errors_are_three_lines_and_exit_code_2(words, as_json, store, capsys):
    assert main([*words, *["--json"] * as_json]) == 2
    if as_json:
        error = json.loads(capsys.readouterr().out)["error"]
        assert error["what"]
        assert error["fix"]
    else:
        lines(capsys)


@pytest.mark.parametrize(("shift", "code", "sign"), [(1.0, 0, "✓"), (0.0, 1, "✗"), (0.5, 3, "?")])
def test_exit_codes_follow_the_verdicts(shift, code, sign, store, capsys):
    assert main([*RUN, "--task.shift", str(shift)]) == code
    out = capsys.readouterr().out
    assert out.startswith("fake_counting · smoke · 3 cells · ")
    assert f"{sign} The draws are shifted." in out
    assert "report: reports/fake_counting/smoke.html" in out


def test_a_second_run_says_what_came_from_the_store(store, capsys):
    main(RUN)
    main([*RUN, "--seeds", "4"])
    assert "4 cells (3 from store)" in capsys.readouterr().out


def test_a_failed_cell_is_listed_and_the_exit_code_says_incomplete(store, capsys):
    assert main([*RUN, "--trouble", "diverged"]) == 2
    out = capsys.readouterr().out
    assert "✗ failed" in out
    assert "The loss is not finite." in out
    assert "--retry-failed" in out
    assert main([*RUN, "--trouble", "diverged", "--json"]) == 2
    (failure,) = said(capsys)["failures"]
    assert failure["kind"] == "Divergence"
    assert "in give" in failure["traceback"]


def test_json_of_every_command(store, capsys):
    assert main([*RUN, "--json", "--ledger", "--report", "r.md"]) == 0
    run = said(capsys)
    assert run["cells"] == {"total": 3, "finished": 3, "from_store": 0, "of_added_seeds": 0}
    assert run["claims"][0]["verdict"] == "supported"
    assert len(run["rows"]) == 15
    assert run["ledger"] == "results/fake_counting.json"
    assert (
        main(["report", "fake_counting", "--scale", "smoke", "--rows", "rows.csv", "--json"]) == 0
    )
    again = said(capsys)
    assert (again["rows"], again["claims"]) == (run["rows"], run["claims"])
    assert set(again["files"]) == {"report", "rows"}
    assert main(["list", "--json"]) == 0
    assert {"fake_counting"} <= {entry["name"] for entry in said(capsys)["studies"]}
    assert main(["list", "stored", "--json"]) == 0
    assert said(capsys)["stored"][0]["rows"] == 15
    assert main(["cite", "fake_counting", "--json"]) == 0
    assert said(capsys)["fake_counting"]["year"] == 2026
    assert main(["check", "--json"]) == 0
    assert said(capsys)["checked"][0]["standing"] == "holds"
    assert main(["doctor", "--json"]) in (0, 1)
    assert {"torch", "home"} <= {one["name"] for one in said(capsys)["findings"]}
    assert main(["--version", "--json"]) == 0
    assert said(capsys) == {"version": __version__}


def test_unseen_cites_itself_as_its_citation_file_does(capsys):
    assert main(["cite", "unseen"]) == 0
    entry = capsys.readouterr().out
    assert entry.startswith("@software{unseen,")
    assert main(["cite", "unseen", "--apa"]) == 0
    line = capsys.readouterr().out
    text = (Path(__file__).parents[2] / "CITATION.cff").read_text(encoding="utf-8")
    known = dict(re.findall(r'^([a-z-]+): "?(.*?)"?$', text, re.MULTILINE))
    authors = re.findall(r"^  - name: (.*)$", text, re.MULTILINE)
    for said in (entry, line):
        for part in (known["title"], known["version"], known["repository-code"], *authors):
            assert part in said
        assert known["date-released"][:4] in said
    assert known["version"] == __version__
    assert main(["cite", "--apa"]) == 2
    assert "--apa" in lines(capsys)[0]


def test_cite_prints_bibtex(store, capsys):
    assert main(["cite", "fake_counting"]) == 0
    assert capsys.readouterr().out.startswith("@article{fake2026,")


def test_help_of_a_study_shows_its_flags_with_the_scales_defaults(store, capsys):
    assert main(["run", "fake_counting", "--scale", "laptop", "--help"]) == 0
    out = capsys.readouterr().out
    assert "--task.dim" in out
    assert "(default: 6)" in out
    assert "--retry-failed" in out


def test_the_ledger_has_what_it_must(store, capsys):
    main([*RUN, "--ledger", "--no-report"])
    ledger = json.loads(Path("results/fake_counting.json").read_text())
    assert {"system", "study", "scale", "claims", "seconds", "commit", "versions"} <= set(ledger)
    assert (ledger["system"], ledger["study"], ledger["scale"]) == ("00", "fake_counting", "smoke")
    (claim,) = ledger["claims"]
    assert set(claim) == {
        *("says", "value", "low", "high", "freedom", "n", "unit", "verdict", "because", "p", "holm")
    }
    assert claim["low"] < claim["value"] < claim["high"]
    assert claim["n"] == 3  # seeds, not the five rows of each
    assert ledger["versions"]["torch"].startswith(torch.__version__.split("+")[0])


def test_no_ledger_of_an_incomplete_run(store, monkeypatch, capsys):
    module = sys.modules[catalog.load("fake_counting").run.__module__]
    broken = replace(module.study.scales[Scale.SMOKE], trouble="diverged")
    monkeypatch.setattr(module, "study", replace(module.study, scales={Scale.SMOKE: broken}))
    assert main([*RUN, "--ledger", "--json"]) == 2
    assert "ledger" not in said(capsys)


def recorded(store, capsys) -> str:
    main([*RUN, "--ledger", "--no-report"])
    capsys.readouterr()
    return "results/fake_counting.json"


def edited(path: str, **claim) -> None:
    text = json.loads(Path(path).read_text())
    text["claims"][0].update(claim)
    Path(path).write_text(json.dumps(text))


def with_claim(monkeypatch, **changes) -> None:
    module = sys.modules[catalog.load("fake_counting").run.__module__]
    claims = tuple(replace(claim, **changes) for claim in module.study.claims)
    monkeypatch.setattr(module, "study", replace(module.study, claims=claims))


@pytest.mark.parametrize("rows", ["stored", "gone"])
def test_check_holds(rows, store, capsys):
    recorded(store, capsys)
    home = [] if rows == "stored" else ["--home", "elsewhere"]
    assert main(["check", *home]) == 0
    assert ("from stored rows" in capsys.readouterr().out) == (rows == "stored")


@pytest.mark.parametrize("home", [[], ["--home", "elsewhere"]])
def test_check_notices_another_margin_verdict_or_claim(home, store, capsys, monkeypatch):
    path = recorded(store, capsys)
    edited(path, verdict="refuted")
    assert main(["check", *home]) == 1
    edited(path, verdict="supported")
    assert main(["check", *home]) == 0
    for changes in ({"above": 3.0}, {"says": "Something else."}):
        with monkeypatch.context() as patch:
            with_claim(patch, **changes)
            assert main(["check", *home]) == 1


def test_check_notices_an_effect_that_left_its_interval(store, capsys):
    edited(recorded(store, capsys), value=0.7, low=0.6, high=0.8)
    assert main(["check"]) == 1
    assert "left its recorded interval" in capsys.readouterr().out


def test_check_says_stale_when_the_code_changed_and_missing_when_there_is_no_file(
    store, capsys, monkeypatch
):
    path = recorded(store, capsys)
    text = json.loads(Path(path).read_text())
    Path(path).write_text(json.dumps(text | {"code": "of before"}))
    assert main(["check", "--home", "elsewhere"]) == 3
    assert "? fake_counting: stale" in capsys.readouterr().out
    assert main(["check", "fake_counting", "--results", "nowhere"]) == 3
    assert "missing" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"study": 1}'])
def test_check_refuses_a_file_that_is_no_ledger(text, store, capsys):
    path = recorded(store, capsys)
    Path(path).write_text(text)
    assert main(["check"]) == 2
    assert lines(capsys)[0].startswith("CorruptFile: ")


def test_unexpected_errors_name_the_way_to_the_traceback(store, capsys, monkeypatch):
    def broken(_):
        raise ZeroDivisionError("by\nzero")

    monkeypatch.setattr("unseen.cli.list.main", broken)
    assert main(["list"]) == 2
    what, _, fix = lines(capsys)
    assert what == "ZeroDivisionError: by zero"
    assert "--debug" in fix
    assert main(["list", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_debug_shows_the_traceback_of_a_typed_error(store, capsys):
    assert main(["run", "fake_countin", "--debug"]) == 2
    assert "in locate" in capsys.readouterr().err


def test_where_nothing_is_kept_an_interruption_does_not_say_so(capsys, monkeypatch):
    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("unseen.cli.dense.main", interrupted)
    assert main(["dense", "images", "labels"]) == 130
    said = capsys.readouterr().err
    assert "interrupted" in said
    assert "kept" not in said


def test_interruptions_end_with_130(store, capsys, monkeypatch):
    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("unseen.cli.list.main", interrupted)
    assert main(["list"]) == 130


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_termination_ends_a_command_as_ctrl_c_does(number, store, capsys, monkeypatch):
    before = signal.signal(number, signal.SIG_DFL)

    def terminated(_):
        signal.raise_signal(number)

    monkeypatch.setattr("unseen.cli.list.main", terminated)
    try:
        assert main(["list"]) == 130
        assert "interrupted" in capsys.readouterr().err
        assert signal.getsignal(number) == signal.SIG_DFL
    finally:
        signal.signal(number, before)


def test_nohup_keeps_a_command_alive(store, capsys, monkeypatch):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def hung_up(_):
        signal.raise_signal(signal.SIGHUP)
        return 0

    monkeypatch.setattr("unseen.cli.list.main", hung_up)
    try:
        assert main(["list"]) == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_an_error_names_arguments_as_options_and_shows_no_control(capsys, monkeypatch):
    def refused(_):
        raise InvalidConfig(
            "a \u202e b", 'groups="age:decade" is', 'give target="COLUMN"; or x="y"'
        )

    monkeypatch.setattr("unseen.cli.list.main", refused)
    assert main(["list"]) == 2
    said = capsys.readouterr().err
    assert "a � b" in said
    assert "--group age:decade is" in said
    assert 'give --target COLUMN; or x="y"' in said


@pytest.mark.parametrize("words", [["list", "studies"], ["cite"]])
def test_a_pipe_without_unicode_gets_all_that_was_said(words):
    wide, narrow = (
        subprocess.run(
            [sys.executable, "-m", "unseen.cli.main", *words],
            capture_output=True,
            env={**os.environ, "PYTHONIOENCODING": encoding},
        )
        for encoding in ("utf-8", "ascii")
    )
    assert narrow.returncode == 0, narrow.stderr
    assert len(narrow.stdout.splitlines()) == len(wide.stdout.splitlines())
    assert narrow.stdout.isascii()
    assert narrow.stdout != wide.stdout


def test_json_without_unicode_is_the_same_json():
    said = [
        subprocess.run(
            [sys.executable, "-m", "unseen.cli.main", "list", "--json"],
            capture_output=True,
            env={**os.environ, "PYTHONIOENCODING": encoding},
        ).stdout
        for encoding in ("utf-8", "ascii")
    ]
    assert json.loads(said[0]) == json.loads(said[1])


def test_claims_about_missing_rows_are_undecided_not_a_crash(store, capsys, monkeypatch):
    with_claim(monkeypatch, effect=average("mean", seed=17))
    assert main([*RUN, "--no-report"]) == 3
    assert "No row has seed=17" in capsys.readouterr().out


def test_audit_is_found_lazily(monkeypatch):
    given = []
    auditing = SimpleNamespace(main=lambda argv: given.append(argv) or 3)
    monkeypatch.setitem(sys.modules, "unseen.cli.audit", auditing)
    assert main(["audit", "x.csv", "--target", "y"]) == 3
    assert given == [["x.csv", "--target", "y"]]


def test_an_error_of_a_plug_within_claims_is_not_swallowed(store, capsys, monkeypatch):
    def effect(_):
        raise InvalidData("Nothing.", why="none.", fix="some.")

    with_claim(monkeypatch, effect=effect)
    assert main([*RUN, "--no-report"]) == 3
    assert "the effect has no value: Nothing." in capsys.readouterr().out


def test_what_fails_on_missing_cells_is_undecided_and_hides_nothing(store, capsys, monkeypatch):
    module = sys.modules[catalog.load("fake_counting").run.__module__]

    def brittle(rows):
        return {row["seed"]: row for row in rows}[1]

    (claim,) = module.study.claims
    claims = (claim, replace(claim, says="Brittle.", effect=brittle))
    monkeypatch.setattr(
        module, "study", replace(module.study, claims=claims, table=brittle, figures=(brittle,))
    )
    assert main([*RUN, "--trouble", "diverged"]) == 2
    out = capsys.readouterr().out
    assert "? The draws are shifted." in out  # two seeds say little
    assert "cells are missing, and the effect failed: KeyError: 1" in out
    assert "1 of 3 cells failed" in out
    assert Path("reports/fake_counting/smoke.html").exists()
    monkeypatch.setattr(
        module, "study", replace(module.study, claims=(replace(claim, effect=lambda _: 1 / 0),))
    )
    assert main(RUN) == 2  # with all cells there it is a bug of the study, and said as one
    assert lines(capsys)[0].startswith("ZeroDivisionError")


def test_a_run_of_which_every_cell_fails_lists_them(store, capsys):
    assert main([*RUN, "--seeds", "2", "--trouble", "diverged", "--task.dim", "-1"]) == 2
    out = capsys.readouterr().out
    assert "2 of 2 cells failed" in out


def test_values_reach_the_configuration_in_any_order(store, capsys):
    assert (
        main(
            [
                "run",
                "fake_counting",
                "--seeds",
                "2",
                "--task.shift",
                "-1",
                "--scale",
                "smoke",
                "--json",
            ]
        )
        == 1
    )
    report = said(capsys)
    assert report["cells"]["total"] == 2
    assert report["claims"][0]["value"] < -0.5
    assert main([*RUN, "--task.shift=-1", "--seeds=2", "--json"]) == 1
    assert said(capsys)["cells"]["from_store"] == 2


def test_doctor_finds_a_home_and_data_that_do_not_work(store, capsys, monkeypatch):
    monkeypatch.setenv("UNSEEN_DATA", "/proc/nowhere")
    assert main(["doctor", "--home", "/proc/nowhere", "--json"]) == 1
    broken = {one["name"]: one for one in said(capsys)["findings"] if one["sign"] == "✗"}
    assert {"home", "UNSEEN_DATA"} <= set(broken)
    assert all(one["fix"] for one in broken.values())


@pytest.mark.parametrize(("works", "sign"), [(True, "✓"), (False, "✗")])
def test_doctor_tries_torchvision_where_it_is_installed(works, sign, store, capsys, monkeypatch):
    def tried(command, **_):
        assert "torchvision" in command[-1]
        return subprocess.CompletedProcess(
            command, 1 - works, "", "RuntimeError: operator nms does not exist\n"
        )

    version = doctor._version
    monkeypatch.setattr(
        doctor, "_version", lambda name: "0.1" if name == "torchvision" else version(name)
    )
    monkeypatch.setattr(doctor.subprocess, "run", tried)
    main(["doctor", "--json"])
    (found,) = [one for one in said(capsys)["findings"] if one["name"] == "torchvision"]
    assert found["sign"] == sign
    assert ("nms" in found["seen"]) is not works


def test_a_run_can_start_at_another_seed_but_not_with_the_ledger(store, capsys):
    assert main([*RUN, "--first-seed", "50", "--json", "--no-report"]) == 0
    rows = said(capsys)["rows"]
    assert {row["seed"] for row in rows} == {50, 51, 52}
    assert main([*RUN, "--first-seed", "50", "--ledger"]) == 2
    assert "repeat it" in capsys.readouterr().err


def test_check_fresh_repeats_the_studies_with_new_seeds_and_resumes(store, capsys, monkeypatch):
    recorded(store, capsys)
    marks = Path("marks")
    marks.mkdir()
    monkeypatch.setenv("FAKE_MARKS", str(marks))
    assert main(["check", "--fresh", "--seconds", "0"]) == 3
    assert "cells are missing; the same command goes on" in capsys.readouterr().out
    assert len(list(marks.iterdir())) == 1  # stopped after one cell
    assert main(["check", "--fresh", "--json"]) == 0
    found = said(capsys)
    assert {path.name for path in marks.iterdir()} == {"2000", "2001", "2002"}
    assert all(len(path.read_text().split()) == 1 for path in marks.iterdir())  # none twice
    (study,) = found["studies"]
    assert study["first_seed"] == 2000
    assert found["effects"] == len(study["effects"]) == 1
    (one,) = study["effects"]
    was, now = one["recorded"], one["fresh"]
    assert one["inside"] == (was["low"] <= now["value"] <= was["high"])
    assert main(["check", "--fresh", "--first-seed", "3000", "--claims", "SHIFTED"]) == 0
    assert "1 effects lie inside the recorded intervals" in capsys.readouterr().out
    assert main(["check", "--fresh", "--claims", "nothing like it"]) == 2


def test_the_table_of_studies_is_written_between_its_marks(store, capsys):
    recorded(store, capsys)
    page = Path("page.md")
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    assert main(["check", "--table", "page.md"]) == 0
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "| [00 fake_counting](docs/studies/fake_counting.md) | 1 | 0 | 0 | 0 | 1 | 3 |" in text
    page.write_text("no marks")
    assert main(["check", "--table", "page.md"]) == 2


def test_the_table_in_the_readme_equals_the_ledgers():
    root = Path(__file__).parents[2]
    page = (root / "README.md").read_text(encoding="utf-8")
    assert replace_table(page, overview(root / "results")) == page, (
        "unseen check --table README.md writes it again"
    )


def test_rejudging_lists_the_verdicts_that_change(store, capsys, monkeypatch):
    recorded(store, capsys)
    with_claim(monkeypatch, above=3.0)
    assert main(["check", "--rejudge"]) == 0
    assert "“The draws are shifted.” was supported, is refuted" in capsys.readouterr().out


def test_json_and_report_of_a_run_count_the_cells_and_seconds_of_added_seeds(
    store, capsys, monkeypatch
):
    assert main([*RUN, "--json", "--no-report"]) == 0
    with_claim(monkeypatch, above=said(capsys)["claims"][0]["low"])  # the interval ends there
    recorded_text = json.loads(Path(recorded(store, capsys)).read_text())
    main([*RUN, "--json", "--report", "page.md"])
    run = said(capsys)
    assert run["claims"][0]["doublings"] > 0
    assert run["cells"]["total"] == 3
    assert 3 + run["cells"]["of_added_seeds"] == recorded_text["cells"] > 3
    assert run["seconds"] == pytest.approx(recorded_text["seconds"], abs=0.06)
    assert f"{run['cells']['of_added_seeds']} of added seeds" in Path("page.md").read_text()


def test_a_claim_in_other_words_keeps_the_doublings_of_its_seeds(store, capsys, monkeypatch):
    path = recorded(store, capsys)
    edited(path, doublings=1)
    with_claim(monkeypatch, says="The draws lie above zero.")
    assert main(["check", "--rejudge"]) == 0
    said = capsys.readouterr().out
    assert "“The draws are shifted.” now says “The draws lie above zero.”" in said
    assert "was not claimed" not in said
    (line,) = json.loads(Path(path).read_text())["claims"]
    assert (line["says"], line["doublings"]) == ("The draws lie above zero.", 1)


def test_the_report_of_a_ledger_needs_no_store(store, capsys):
    recorded(store, capsys)
    run = ["report", "fake_counting", "--kept", "--home", "elsewhere", "--report", "page.md"]
    assert main(run) == 0
    page = Path("page.md").read_text()
    assert "The draws are shifted." in page
    assert "3 seeds; claims over seeds (n = 3)" in page
    assert not Path("elsewhere").exists()
