"""How an answer gets into the home: its document, its numbers, and what pairs it with another."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unseen import __version__
from unseen.document import Document, Note
from unseen.questions.answer import brief_of, card_body
from unseen.report.html import html
from unseen.report.json import plain
from unseen.runs.answers import Answers, StoredAnswer, key_of
from unseen.runs.provenance import command_line

if TYPE_CHECKING:
    from unseen.questions.audit.results import Findings


def store_answer(
    home: Path, question: str, document: Document, machine: Mapping[str, Any], results: Any = None
) -> StoredAnswer:
    """Stores a document with its numbers; `results` are the values of an audit, whose predictions
    are stored with it.
    """
    numbers = plain(machine)
    command = document.facts.get("command") or command_line()
    content = {
        "title": document.title,
        "data": document.facts.get("data", ""),
        "numbers": numbers,
        "command": command,
        "version": __version__,
    }
    answer = StoredAnswer(
        key=key_of(question, content),
        question=question,
        title=document.title,
        kicker=document.kicker,
        lead=document.lead,
        notes=notes_of(document),
        facts=dict(document.facts),
        command=command,
        folder=str(Path.cwd()) if command else "",
        date=datetime.now().astimezone().isoformat(timespec="microseconds"),
        version=__version__,
    )
    stored = {
        "machine": numbers,
        "predictions": predictions_of(results),
        "card": card_of(question, document, results),
    }
    Answers(home).put(answer, stored, html(document))
    return answer


def notes_of(document: Document) -> list[dict[str, str]]:
    """Every finding of the document."""
    notes = [b for section in document.sections for b in section.blocks if isinstance(b, Note)]
    return [
        {
            "code": note.code,
            "tone": note.tone.value,
            "text": note.text,
            "detail": note.detail,
            "sign": note.sign,
        }
        for note in notes
    ]


def card_of(question: str, document: Document, results: Any) -> dict[str, Any]:
    """The card with which an answer is pushed to a hub: of an audit its model card."""
    head: dict[str, Any] = {"tags": ["unseen", question], "unseen_version": __version__}
    if findings := findings_of(results):
        from unseen.questions.audit.card import front_matter

        head = front_matter(findings)
    return {"front_matter": head, "body": card_body(document, brief_of(document))}


def findings_of(results: Any) -> "list[Findings]":
    """The findings of an audit; of another question none."""
    found = results if isinstance(results, list | tuple) else ()
    if not found:
        return []
    # not above: an audit's rooms import scikit-learn and pandas, which the run of a study, whose
    # answer is stored, too, does without
    from unseen.questions.audit.results import Findings

    return [one for one in found if isinstance(one, Findings)]


def predictions_of(results: Any) -> list[dict[str, Any]]:
    """Of every site of an audit, what its model said of each example there."""
    findings = findings_of(results)
    if not findings:
        return []
    from unseen.subjects.stored_predictions import as_plain

    return [
        {"subject": one.task, "split": split, **as_plain(predictions)}
        for one in findings
        for split, predictions in one.predictions.items()
    ]
