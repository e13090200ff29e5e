"""A model card: front matter that YAML reads, the findings, and nothing that breaks out of it."""

from pathlib import Path

import pytest
import yaml

from unseen.document import Document, Note, Section, Tone
from unseen.errors import InvalidConfig
from unseen.questions.answer import LIMITS, Answer
from unseen.questions.audit.card import front_matter
from unseen.questions.audit.results import Findings, Score
from unseen.reading import Reading

HOSTILE = 'a: "b"\n---\n# no heading'


def answer(site: str = "Basel") -> Answer:
    score = Score(
        model="net", split="unseen", metric="accuracy", reading=Reading(0.8, 0.7, 0.9, 50)
    )
    one = Findings(
        name="net",
        task=f"clinics: {site}",
        score_name="accuracy",
        seeds=3,
        sizes={"unseen": 50},
        sites={"unseen": site},
        unseen=["unseen"],
        scores=[score],
    )
    sections = [
        Section("What to do next", [Note("Collect labels.", Tone.CAUTION)]),
        Section("Evidence", [Note("folded away")], folded=True),
        Section(LIMITS, [Note("Nothing about a next site.")], folded=True),
    ]
    page = Document(title="Net on clinics", lead="It holds.", sections=sections)
    return Answer(results=[one], document=page, front_matter=front_matter([one]))


def parts(path: Path) -> tuple[dict, str]:
    _, head, body = path.read_text("utf-8").split("---\n", 2)
    return yaml.safe_load(head), body


def test_a_card_has_front_matter_findings_and_limits(tmp_path):
    head, body = parts(answer().card(tmp_path / "README.md"))
    (result,) = head["model-index"][0]["results"]
    assert result["metrics"][0]["value"] == 0.8
    assert result["dataset"]["name"] == "clinics: Basel"
    assert "Collect labels" in body
    assert "Nothing about a next site" in body
    assert "folded away" not in body


def test_no_name_breaks_out_of_the_front_matter(tmp_path):
    head, _ = parts(answer(HOSTILE).card(tmp_path / "card.md"))
    assert head["model-index"][0]["results"][0]["dataset"]["name"].endswith(HOSTILE)


def test_what_is_no_card_is_refused(tmp_path):
    with pytest.raises(InvalidConfig, match=r"does not end in \.md"):
        answer().card(tmp_path / "card.html")
    with pytest.raises(InvalidConfig, match="makes no model card"):
        Answer(results=[], document=Document(title="t")).card(tmp_path / "card.md")
