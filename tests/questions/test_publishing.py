"""What is pushed to a hub: a folder with card, numbers and page; huggingface_hub uploads it."""

import json
from pathlib import Path

import pytest
import yaml
from stored_audits import SITES, store_audit

from unseen.cli.main import main
from unseen.document import Document
from unseen.errors import CorruptFile, InvalidConfig, MissingExtra, MissingFile
from unseen.questions.publishing import find_answer, write_folder
from unseen.questions.storage import store_answer
from unseen.runs import hub
from unseen.runs.answers import Answers


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


def front_matter(card: Path) -> dict:
    _, head, _ = card.read_text("utf-8").split("---\n", 2)
    return yaml.safe_load(head)


def test_a_dry_run_writes_card_numbers_and_page(home, capsys):
    stored = store_audit(home)
    code = main(["push", stored.key, "--to", "me/heart", "--dry-run", "--home", str(home)])
    assert code == 0, capsys.readouterr().err
    folder = Path("unseen-push")
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "report.html",
        "results.json",
    ]
    head = front_matter(folder / "README.md")
    (model,) = head["model-index"]
    assert [one["dataset"]["name"] for one in model["results"]] == [
        f"clinics: {site}" for site in SITES
    ]
    assert "It reaches 1.0." in (folder / "README.md").read_text("utf-8")
    numbers = json.loads((folder / "results.json").read_text("utf-8"))
    assert numbers["question"] == "audit"
    scores = numbers["findings"][0]["scores"]
    assert {one["metric"] for one in scores} >= {"accuracy"}
    assert "predictions" not in numbers
    assert (folder / "report.html").read_text("utf-8") == Answers(home).report(stored.key)
    assert "not uploaded to me/heart" in capsys.readouterr().out


def test_a_data_set_has_no_model_index(home):
    stored = store_audit(home)
    write_folder(Answers(home), stored.key, Path("folder"), is_dataset=True)
    head = front_matter(Path("folder/README.md"))
    assert "model-index" not in head
    assert "unseen" in head["tags"]


@pytest.mark.parametrize("name", ["README.md", "patients.csv"])
def test_a_folder_with_other_files_is_left_alone(home, name):
    """It would be uploaded as a whole; what was written here before is written anew."""
    stored, folder = store_audit(home), Path("folder")
    write_folder(Answers(home), stored.key, folder, is_dataset=False)
    write_folder(Answers(home), stored.key, folder, is_dataset=False)
    (folder / name).write_text("mine")
    with pytest.raises(InvalidConfig, match=name):
        write_folder(Answers(home), stored.key, folder, is_dataset=False)
    assert (folder / name).read_text() == "mine"


def test_other_questions_are_pushed_with_tags(home):
    page = Document(title="Methods", kicker="compare", lead="SAM is better.", sections=[])
    stored = store_answer(home, "compare", page, {"results": 1})
    write_folder(Answers(home), stored.key, Path("folder"), is_dataset=False)
    head = front_matter(Path("folder/README.md"))
    assert head["tags"] == ["unseen", "compare"]
    assert "SAM is better." in Path("folder/README.md").read_text("utf-8")


def test_a_report_is_found_by_its_content_and_none_is_the_newest(home):
    first, second = store_audit(home), store_audit(home, seed=1, title="Another")
    answers = Answers(home)
    Path("report.html").write_text(answers.report(first.key), "utf-8")
    assert find_answer(answers, "report.html").key == first.key
    assert find_answer(answers, None).key == second.key
    Path("report.html").write_text("<p>", "utf-8")
    with pytest.raises(MissingFile, match="no stored answer"):
        find_answer(answers, "report.html")
    with pytest.raises(MissingFile, match="no report"):
        find_answer(answers, "absent.html")
    with pytest.raises(MissingFile, match="No answer is stored"):
        find_answer(Answers(home / "empty"), None)


def test_an_answer_without_a_card_says_how_to_get_one(home):
    stored = store_audit(home)
    path = home / "answers" / stored.key / "results.json"
    path.write_text(json.dumps({"machine": {}}))
    with pytest.raises(CorruptFile, match="unseen audit clinics"):
        write_folder(Answers(home), stored.key, Path("folder"), is_dataset=False)


class FakeHub:
    """huggingface_hub as far as it is called."""

    def __init__(self, card: str | None = None, error: Exception | None = None):
        self.card, self.error, self.calls = card, error, []

    def HfApi(self):
        return self

    def create_repo(self, name, **settings):
        self.calls.append(("create_repo", name, settings))
        if self.error:
            raise self.error

    def file_exists(self, *_, **__):
        return self.card is not None

    def hf_hub_download(self, *_, **__):
        path = Path("their-card.md")
        path.write_text(self.card or "", "utf-8")
        return str(path)

    def upload_folder(self, **settings):
        self.calls.append(("upload_folder", settings["repo_id"], settings))


def test_an_upload_makes_a_private_repository(home, monkeypatch, capsys):
    fake = FakeHub()
    monkeypatch.setattr(hub, "_library", lambda: fake)
    store_audit(home)
    command = ["push", "--to", "me/heart", "--dataset", "--into", "a", "--home", str(home)]
    assert main([*command, "--json"]) == 0
    (made, _, how), (sent, _, what) = fake.calls
    assert (made, sent) == ("create_repo", "upload_folder")
    assert how["private"]
    assert how["repo_type"] == what["repo_type"] == "dataset"
    assert what["path_in_repo"] == "a"
    found = json.loads(capsys.readouterr().out)
    assert found["address"] == "https://huggingface.co/datasets/me/heart"


def test_a_card_of_somebody_else_is_never_replaced(home, monkeypatch):
    fake = FakeHub(card="---\nlicense: mit\n---\n# Mine\nunseen_version: in the text\n")
    monkeypatch.setattr(hub, "_library", lambda: fake)
    with pytest.raises(InvalidConfig, match="--into"):
        hub.upload(Path(), "me/heart", is_dataset=False)
    assert [name for name, *_ in fake.calls] == ["create_repo"]
    fake.card = '---\ntags: ["unseen"]\nunseen_version: "0.3.0"\n---\n'
    hub.upload(Path(), "me/heart", is_dataset=False)
    assert fake.calls[-1][0] == "upload_folder"


def test_errors_are_typed(home, monkeypatch):
    monkeypatch.setattr(hub, "_library", lambda: FakeHub(error=RuntimeError("401 no token")))
    with pytest.raises(hub.UploadFailed, match="hf auth login"):
        hub.upload(Path(), "me/heart", is_dataset=False)
    with pytest.raises(InvalidConfig, match="OWNER/NAME"):
        hub.check_repository("heart")
    monkeypatch.undo()
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(MissingExtra, match=r"unseen\[hub\]"):
        hub.check_library()
