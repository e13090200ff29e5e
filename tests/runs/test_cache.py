"""What the home holds is listed as it is; what goes is what was asked, never what is being
written and nothing behind a link.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

import unseen
from unseen.cli import cache
from unseen.cli.main import main
from unseen.errors import InvalidConfig, UnknownName
from unseen.identity import identify
from unseen.questions.influence import of_text
from unseen.questions.influence.saving import factor_keeper
from unseen.runs.inventory import inventory, total_seconds
from unseen.runs.locks import removing, writing
from unseen.runs.pruning import Selection, prune
from unseen.runs.sizes import format_age, format_size, parse_age, parse_size
from unseen.runs.store import Run, Store
from unseen.runs.tensors import TensorCache, home_cache

DAY = 86_400.0
KEY = "0123456789abcdef" * 2


def age(path: Path, days: float) -> None:
    """The thing as if it had been written so many days ago."""
    when = time.time() - days * DAY
    for one in (path, *path.rglob("*")) if path.is_dir() else (path,):
        os.utime(one, (when, when), follow_symlinks=False)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home with a cell of a study, two factor files, a training run, an answer and a download."""
    root = tmp_path / "home"
    monkeypatch.setenv("UNSEEN_HOME", str(root))
    Store(root).put(Run(study="coins", key=KEY, cell={}, rows=[{"x": 1}], facts={"seconds": 12.5}))
    for n, (room, name) in enumerate(
        [("influence", "curvature"), ("audits", "curvature"), ("audits", "training run")]
    ):
        cache = TensorCache(root / room, lambda code: "1", root)
        cache(identify(name, n=n), lambda: {"w": torch.zeros(1000)})
    answer = root / "answers" / "0123456789abcdef"
    answer.mkdir(parents=True)
    (answer / "answer.json").write_text('{"title": "Heart"}')
    (root / "data" / "usps").mkdir(parents=True)
    (root / "data" / "usps" / "usps.npz").write_bytes(b"x" * 50)
    for folder in ("runs/coins", "influence", "audits", "answers", "data"):
        for one in (root / folder).iterdir():
            age(one, 10)
    return root


def paths(items) -> list[str]:
    return sorted(one.path.name for one in items)


def test_everything_is_listed_by_kind_with_its_size_and_what_it_took(home):
    found = inventory(home)
    counts = {kind: len(items) for kind, items in found.kinds.items()}
    assert counts == {"factors": 2, "audits": 1, "rows": 1, "answers": 1, "downloads": 1}
    files = [one for one in home.rglob("*") if one.is_file() and one.parent.name != ".locks"]
    assert found.size == sum(one.stat().st_size for one in files)
    assert found.foreign == 0
    assert total_seconds(found.kinds["rows"]) == (12.5, 0)
    assert total_seconds(found.kinds["factors"])[1] == 0, "the keeper records what a value took"
    assert total_seconds(found.kinds["downloads"]) == (0, 1)
    assert found.kinds["answers"][0].about == "Heart"
    assert found.kinds["audits"][0].about == "training run"


def test_what_is_not_ours_is_counted_and_stays(home):
    (home / "notes.txt").write_text("mine")
    (home / "audits" / "notes.txt").write_text("mine, too")
    assert inventory(home).foreign == 13
    prune(home, Selection(limit=0), is_dry=False)
    assert (home / "notes.txt").exists()
    assert (home / "audits" / "notes.txt").exists()
    assert inventory(home).items == ()


def test_a_home_that_is_a_folder_of_the_users_loses_none_of_their_files(home):
    own = [
        "data/patients.csv",
        "data/usps/usps.npz.bak",
        "data/usps/raw/usps.npz",
        "data/mine/usps.npz",
        "examples/mine.py",
        "slurm/job.sh",
        "answers/notes/answer.json",
        "influence/corpora/plays.txt",
    ]
    for name in own:
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text("mine")
    weights = home / "audits" / "resnet-0123456789ab.safetensors"
    save_file({"w": torch.zeros(3)}, weights)  # named like ours, without the key of ours
    prune(home, Selection(limit=0), is_dry=False)
    for one in (*own, weights):
        age(home / one, 10)
    pruning = prune(home, Selection(limit=0), is_dry=False)
    assert pruning.items == ()
    assert all((home / one).exists() for one in (*own, weights))


def test_a_dry_run_names_what_goes_and_removes_nothing(home):
    before = inventory(home)
    pruning = unseen.prune_cache(["factors"], older_than=5 * DAY)
    assert len(pruning.items) == 2
    assert pruning.is_dry
    assert inventory(home) == before


@pytest.mark.parametrize("kind", ["rows", "factors", "audits", "answers", "downloads"])
def test_a_kind_goes_and_the_others_stay(kind, home):
    before = inventory(home).kinds
    pruning = prune(home, Selection(kinds=(kind,)), is_dry=False)
    assert paths(pruning.items) == paths(before[kind])
    assert inventory(home).kinds == {k: items for k, items in before.items() if k != kind}


def test_age_and_size_select_the_oldest(home):
    young, old = inventory(home).kinds["factors"]
    age(old.path, 40)
    assert paths(prune(home, Selection(older_than=30 * DAY)).items) == [old.path.name]
    assert paths(prune(home, Selection(kinds=("factors",), limit=young.size)).items) == [
        old.path.name
    ]
    assert prune(home, Selection(limit=inventory(home).size)).items == ()
    assert len(prune(home, Selection(kinds=("factors",), limit=young.size - 1)).items) == 2


def test_what_went_is_computed_again_and_is_equal(home):
    key, made = identify("curvature", n=0), []

    def make():
        made.append(1)
        return {"w": torch.zeros(1000)}

    keeper = TensorCache(home / "influence", lambda code: "1", home)
    assert keeper.holds(key)
    prune(home, Selection(kinds=("factors",)), is_dry=False)
    assert torch.equal(keeper(key, make)["w"], torch.zeros(1000))
    assert made == [1]


def test_what_is_made_and_what_is_read_lie_in_memory_alike(home, tmp_path):
    key = identify("curvature", n=6)
    columns = {"q": torch.arange(6.0).reshape(2, 3).T}
    keeper = TensorCache(home / "influence", lambda code: "1", home)
    for one in (keeper, factor_keeper(tmp_path / "f.safetensors", {}, keeper)):
        made, read = one(key, lambda: dict(columns)), one(key, lambda: {})
        assert torch.equal(made["q"], read["q"])
        assert made["q"].stride() == read["q"].stride()


def test_the_sums_of_one_pass_are_not_read_as_those_of_another(home, caplog):
    keeper = TensorCache(home / "influence", lambda code: "1", home)
    key = identify("curvature", n=7)
    one, other = (keeper.state_file(key, f"{name}-0", "memory=1") for name in ("sums", "squares"))
    one.save({"w": torch.ones(2)})
    one.path.rename(other.path)
    assert other.load() is None
    assert "starts anew" in caplog.text
    other.path.rename(one.path)
    assert torch.equal(one.load()["w"], torch.ones(2))


def test_a_read_only_home_is_not_called_busy(home, monkeypatch):
    monkeypatch.setattr("unseen.runs.pruning.os.access", lambda path, mode: False)
    pruning = prune(home, Selection(kinds=("rows",)), is_dry=False)
    assert (pruning.items, pruning.busy) == ((), ())
    assert "read-only" in pruning.errors[0]
    assert len(inventory(home).kinds["rows"]) == 1


def test_what_another_process_writes_stays_until_it_ends(home):
    code = (
        "import sys; from pathlib import Path; from unseen.runs.locks import writing\n"
        f"with writing(Path({str(home)!r}), 'audits'):\n"
        "    print('in', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "in\n"
        pruning = prune(home, Selection(older_than=DAY), is_dry=False)
        assert {one.room for one in pruning.busy} == {"audits"}
        assert {one.room for one in inventory(home).items} == {"audits"}
        process.kill()  # the lock goes with the process, however it ends
    assert len(prune(home, Selection(older_than=DAY), is_dry=False).items) == 2
    assert inventory(home).items == ()


def test_a_value_in_the_making_and_a_cell_at_work_hold_their_room(home):
    rooms = []

    def make():
        with removing(home, "audits") as is_free:
            rooms.append(is_free)
        return {"w": torch.zeros(1)}

    keeper = TensorCache(home / "audits", lambda code: "1", home)
    keeper(identify("training run", n=99), make)
    assert rooms == [False]
    with removing(home, "audits") as is_free:
        assert is_free
    with writing(home, "runs/coins"):
        assert prune(home, Selection(kinds=("rows",)), is_dry=False).items == ()


def test_an_unfinished_corpus_keeps_its_running_best_and_its_tokens(home, monkeypatch):
    rooms = ["influence", "influence/corpora"]

    def work(asked, lab, sink):
        found = []
        for room in rooms:
            with removing(home, room) as is_free:
                found.append(is_free)
        return found

    monkeypatch.setattr(of_text, "_trace_completions", work)
    asked = SimpleNamespace(cache=home_cache("influence"))
    assert of_text.trace_completions(asked, None, None) == [False, False]
    assert work(asked, None, None) == [True, True]


def test_links_are_neither_followed_nor_removed(home, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    big = outside / f"curvature-{'0' * 12}.safetensors"
    big.write_bytes(b"x" * 10_000)
    (home / "elsewhere").symlink_to(outside)  # a room
    (home / "audits" / f"curvature-{'1' * 12}.safetensors").symlink_to(big)  # a file
    (home / "answers" / "fedcba9876543210").symlink_to(outside)  # an entry
    (home / "runs" / "coins" / ("a" * 32)).symlink_to(outside)  # a cell
    (home / "runs" / "coins" / KEY / "more").symlink_to(outside)  # inside a cell
    assert inventory(home).size < 10_000 + 10_000
    assert all("x" * 10 not in str(one) for one in inventory(home).items)
    prune(home, Selection(limit=0), is_dry=False)
    assert inventory(home).items == ()
    assert big.stat().st_size == 10_000
    assert (home / "elsewhere").is_symlink()
    assert (home / "answers" / "fedcba9876543210").is_symlink()


def test_a_link_that_replaces_a_folder_after_the_listing_is_not_followed(
    home, tmp_path, monkeypatch
):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("stays")
    stored = inventory(home)
    cell = home / "runs" / "coins" / KEY
    cell.rename(tmp_path / "moved")
    cell.symlink_to(outside)
    monkeypatch.setattr("unseen.runs.pruning.inventory", lambda home: stored)
    pruning = prune(home, Selection(kinds=("rows",)), is_dry=False)
    assert "is a link" in pruning.errors[0]
    assert (outside / "file").read_text() == "stays"


def test_what_is_being_downloaded_stays(home):
    (home / "data" / "usps" / ".part-x").mkdir()
    (home / "data" / "zoo").mkdir()
    (home / "data" / "zoo" / "zoo.data").write_bytes(b"x")
    pruning = prune(home, Selection(limit=0), is_dry=False)
    assert paths(pruning.busy) == [".part-x", "zoo.data"]
    assert (home / "data" / "zoo" / "zoo.data").exists()
    assert not (home / "data" / "usps" / "usps.npz").exists()


def test_left_overs_go_only_when_their_process_has_gone(home):
    import socket

    cells = home / "runs" / "coins"
    alive = cells / f".tmp-{KEY}-{socket.gethostname()}-{os.getpid()}-01234567"
    dead = cells / f".tmp-{KEY}-{socket.gethostname()}-{2**22 + 1}-01234567"
    for one in (alive, dead):
        one.mkdir()
    pruning = prune(home, Selection(kinds=("unfinished",)), is_dry=False)
    assert (paths(pruning.items), paths(pruning.busy)) == ([dead.name], [alive.name])
    assert alive.exists()
    assert not dead.exists()


def test_factors_beyond_the_limit_are_used_and_not_kept(home, monkeypatch, caplog):
    present = sum(one.size for one in inventory(home).kinds["factors"])
    monkeypatch.setenv("UNSEEN_CACHE_LIMIT", f"{present + 1000}")
    keeper = TensorCache(home / "influence", lambda code: "1", home)
    key = identify("curvature", n=5)
    assert torch.equal(keeper(key, lambda: {"w": torch.ones(1000)})["w"], torch.ones(1000))
    assert not keeper.holds(key)
    assert "UNSEEN_CACHE_LIMIT is" in caplog.text
    assert "unseen cache --prune --kind factors" in caplog.text
    keeper(identify("training run", n=6), lambda: {"w": torch.ones(1000)})  # no factors: no limit
    assert keeper.holds(identify("training run", n=6))
    monkeypatch.setenv("UNSEEN_CACHE_LIMIT", f"{present + 10_000}")
    keeper(key, lambda: {"w": torch.ones(1000)})
    assert keeper.holds(key)
    monkeypatch.setenv("UNSEEN_CACHE_LIMIT", "much")
    with pytest.raises(InvalidConfig, match="UNSEEN_CACHE_LIMIT: `much` is no size"):
        home_cache("influence")


def test_the_command_lists_and_prunes(home, capsys):
    assert main(["cache"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"{home}: ")
    assert "rows" in text
    assert "took 12 s of a CPU" in text
    assert main(["cache", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["kinds"]["rows"]["seconds"] == 12.5
    assert len(found["items"]) == 6
    assert main(["cache", "--prune", "--kind", "rows"]) == 0
    text = capsys.readouterr().out
    assert "would go" in text
    assert "computed again by `unseen run`" in text
    assert "add --yes" in text
    assert main(["cache", "--prune", "--kind", "rows", "--yes", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["dry_run"], len(found["items"])) == (False, 1)
    assert "rows" not in inventory(home).kinds


def test_an_empty_home_is_no_error(tmp_path, capsys):
    assert main(["cache", "--home", str(tmp_path / "none")]) == 0
    assert "0 B" in capsys.readouterr().out
    assert main(["cache", "--home", str(tmp_path / "none"), "--prune", "--limit", "0"]) == 0
    assert not (tmp_path / "none").exists()


def test_what_cannot_be_meant_is_refused(home):
    with pytest.raises(InvalidConfig, match="Nothing says what is to go"):
        cache.main(["--prune"])
    with pytest.raises(UnknownName, match="factr"):
        cache.main(["--prune", "--kind", "factr"])
    with pytest.raises(UnknownName, match="factr"):
        cache.main(["--kind", "factr"])
    with pytest.raises(InvalidConfig, match="belong to --prune"):
        cache.main(["--yes"])
    for words in (
        ["--limit", "many"],
        ["--limit", ""],  # of a variable of the shell that is not set
        ["--limit", "9" * 400],
        ["--older-than", "30"],
        ["--older-than", "-1d"],
    ):
        with pytest.raises(InvalidConfig):
            cache.main(["--prune", "--kind", "rows", "--yes", *words])
    assert len(inventory(home).kinds["rows"]) == 1
    with pytest.raises(InvalidConfig, match="belong to --prune"):
        cache.main(["--limit", ""])


def test_sizes_and_ages_are_read_and_written():
    assert [parse_size(x) for x in ("20GB", "1.5 kB", "7", "1MiB")] == [20 * 10**9, 1500, 7, 2**20]
    assert [parse_age(x) for x in ("30d", "12h", "5 min", "1w")] == [
        30 * DAY,
        43_200,
        300,
        7 * DAY,
    ]
    sizes = [format_size(x) for x in (0, 999, 999_600, 5_400_000, 7e9, 3e12)]
    assert sizes == ["0 B", "999 B", "1.0 MB", "5.4 MB", "7.0 GB", "3.0 TB"]
    assert [format_age(x) for x in (5, 90, 7200, 3 * DAY)] == ["5 s", "2 min", "2 h", "3 d"]
