"""Which features of a text speak for its author: exact linear SHAP of an estimator of authors that
was fitted to a column of texts.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from unseen.document import Block, Document, Note, Paragraph, Passage, Section, Table, Tone, Value
from unseen.errors import InvalidConfig
from unseen.figure import Bars
from unseen.lab import Lab
from unseen.models.author_explanations import credit_bars, mark_text
from unseen.models.linear_author import CharNgram, FeatureCredits, Stylometry
from unseen.questions.explain.request import ExplainRequest
from unseen.questions.explain.setup import find_examples
from unseen.subjects.session import Session, open_session
from unseen.subjects.subject import Subject
from unseen.subjects.text_tables import TextLookup

LINEAR = (CharNgram, Stylometry)
MOST_CREDITS = 12


@dataclass(frozen=True, kw_only=True)
class AuthorCredits:
    """One text: for whom it was taken, and what spoke for it."""

    row: int
    """In the table."""
    author: str
    """Of the label."""
    predicted: str
    credits: FeatureCredits
    passage: Passage | None
    """The text with its credits, where they stand on letters."""


@dataclass(frozen=True, kw_only=True)
class AuthorCreditsReport:
    """Texts that one estimator was asked about."""

    estimator: str
    task: str
    authors: Sequence[str]
    texts: Sequence[AuthorCredits]
    decisions: Sequence[str] = ()
    seconds: float = 0.0


def explain_author(subject: Subject, request: ExplainRequest, lab: Lab) -> AuthorCreditsReport:
    """Fits the subject's estimator and credits the features of the texts that the request names, as
    they speak for the author that was predicted (or for the class asked for).
    """
    began = time.perf_counter()
    session = open_session(subject, lab.child(subject.task.name))
    model = session.first.model
    estimator = getattr(model, "estimator", None)
    lookup = getattr(model, "inputs", None)
    if not isinstance(estimator, LINEAR) or not isinstance(lookup, TextLookup):
        raise InvalidConfig(
            f"{type(estimator or model).__name__} has no exact credits.",
            why="they are those of a linear model of authors: weight times distance from the mean.",
            fix="--estimator unseen.models:CharNgram, or unseen.models:Stylometry; without an "
            "estimator the words of TF-IDF are explained.",
        )
    if request.target is not None and request.target not in estimator.classes_:
        raise InvalidConfig(
            f"No training text is by {subject.classes[request.target]}.",
            why="nothing was learned about this author.",
            fix="name another one, or hold out another site.",
        )
    split = request.split or session.main_split
    positions = find_examples(session, split, request, session.lab.child("rows"))
    texts = [
        _credit(session, estimator, lookup, position, request.target) for position in positions
    ]
    return AuthorCreditsReport(
        estimator=type(estimator).__name__,
        task=session.task.name,
        authors=[subject.classes[int(k)] for k in estimator.classes_],
        texts=texts,
        decisions=list(subject.decisions),
        seconds=time.perf_counter() - began,
    )


def _credit(
    session: Session,
    estimator: CharNgram | Stylometry,
    lookup: TextLookup,
    position: tuple[str, int],
    target: int | None,
) -> AuthorCredits:
    split, index = position
    batch = session.task.split(split).data[index]
    (text,) = lookup(batch["x"][None])
    predicted = int(estimator.predict([text])[0])
    author = predicted if target is None else target
    passage = None
    if isinstance(estimator, CharNgram):
        passage = mark_text(estimator, text, author)
    return AuthorCredits(
        row=int(batch["index"]),
        author=session.subject.classes[int(batch["y"])],
        predicted=session.subject.classes[predicted],
        credits=estimator.explain(text, author),
        passage=passage,
    )


def authors_document(found: AuthorCreditsReport) -> Document:
    right = sum(one.author == one.predicted for one in found.texts)
    rows: list[dict[str, Value]] = [
        {
            "row": one.row,
            "label": one.author,
            "predicted": one.predicted,
            "logit": one.credits.logit,
            "mean of training texts": one.credits.mean_logit,
        }
        for one in found.texts
    ]
    sections = [Section("The texts", [Table(rows=rows), Note(NO_PROOF, Tone.CAUTION)])]
    sections += [Section(f"Row {one.row}: {one.predicted}", _blocks(one)) for one in found.texts]
    sections.append(Section("How to read it", [Paragraph(HOW), *map(Paragraph, found.decisions)]))
    return Document(
        kicker="explanation",
        title=f"What {found.estimator} reads in a text: {found.task}",
        lead=f"{right} of {len(found.texts)} texts are given to the author of their label. Credits "
        "are exact: they sum to the logit less its mean over the training texts.",
        sections=sections,
        facts={"authors": str(len(found.authors)), "seconds": f"{found.seconds:.1f}"},
    )


NO_PROOF = (
    "Credits say what this model reads, not who wrote the text: n-grams follow topics and names as "
    "well as habits. Never proof about a person."
)
HOW = (
    "A feature's credit is its weight times its distance from the mean of the training texts "
    "(linear SHAP). Above 0 it speaks for the author named, below 0 against. The colour of a word "
    "is the sum of the credits of the n-grams in it; n-grams that are missing speak, too, and have "
    "no word to stand on."
)


def _blocks(one: AuthorCredits) -> list[Block]:
    bars: Bars = credit_bars(one.credits, MOST_CREDITS)
    found: list[Block] = [replace(bars, title=f"Features for {one.predicted}, and against")]
    return found if one.passage is None else [*found, one.passage]


def machine_authors(found: AuthorCreditsReport) -> dict[str, object]:
    return {
        "estimator": found.estimator,
        "task": found.task,
        "authors": list(found.authors),
        "texts": [
            {
                "row": one.row,
                "label": one.author,
                "predicted": one.predicted,
                "logit": one.credits.logit,
                "mean_logit": one.credits.mean_logit,
                "credits": dict(one.credits.top(MOST_CREDITS)),
            }
            for one in found.texts
        ],
        "seconds": found.seconds,
    }
