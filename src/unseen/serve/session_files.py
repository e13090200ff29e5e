"""A session of the compass as a file, and its directions as files of their own."""

import json
from typing import Any

import torch
from safetensors.torch import save

from unseen import __version__
from unseen.errors import InvalidData
from unseen.serve.marks import Board, OtherModel, Question, reading_json
from unseen.serve.session import Session
from unseen.serve.studio import Studio

FORMAT = "unseen-compass-1"


def session_file(session: Session) -> dict[str, Any]:
    """The session as it is kept in a file."""
    with session.lock:
        return {
            "format": FORMAT,
            "model": session.studio.generator.digest,
            "layer": session.layer,
            "seed": session.seed,
            "log": [list(entry) for entry in session.log],
            "boards": [[board.kind, list(board.samples)] for board in session.boards],
            "directions": [
                {"name": one.name, "marks": {str(s): m for s, m in one.marks.items()}}
                for one in session.saved.values()
            ],
            "blind": [
                [q.order[0], q.sample, q.answer]
                for q in session.pairs
                if q.answer and q.fits == session.fits
            ],
        }


def card(session: Session, name: str) -> dict[str, Any]:
    """What belongs beside an exported direction."""
    direction = session.require_direction(name)
    one = session.require_fit(name)
    is_current = session.current is not None and one.marks == session.current.marks
    blind = session.accuracy() if is_current else None
    return {
        "name": name,
        "made_by": f"unseen {__version__}, unseen compass",
        "model": session.studio.generator.name,
        "model_sha256": session.studio.generator.digest,
        "licence": session.studio.generator.licence,
        "edit_site": session.layer or "latent",
        "seed": session.seed,
        "scale": direction.scale,
        "marks": {
            "more": [s for s, m in one.marks.items() if m > 0],
            "less": [s for s, m in one.marks.items() if m < 0],
        },
        "measures": session.measure(name),
        "blind_accuracy": None if blind is None else reading_json(blind),
        "units": "effects in standard deviations of the attribute per unit of strength; "
        "intervals are 95 %, over fresh latents of this model",
    }


def tensors(session: Session, name: str) -> bytes:
    """A safetensors file of an exported direction, with its card."""
    direction = session.require_direction(name)
    weights = direction.vector if direction.weights is None else direction.weights
    numbers = {
        "vector": direction.vector.contiguous(),
        "weights": weights.clone(),
        "scale": torch.tensor(direction.scale),
        "offset": torch.tensor(direction.offset),
    }
    return save(numbers, {"card": json.dumps(card(session, name), ensure_ascii=False)})


def open_session(studio: Studio, content: object) -> Session:
    """The session of a file, if it is of this model."""
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise InvalidData(
            "This is no session of the compass.",
            why=f"its format is not {FORMAT}.",
            fix="open a file that this page saved.",
        )
    if content.get("model") != studio.generator.digest:
        raise OtherModel(
            "This session is of another model.",
            why="its marks are of images that this model does not make.",
            fix="start `unseen compass` with that model.",
        )
    try:
        log = [(int(sample), int(mark)) for sample, mark in content["log"]]
        boards = [
            Board(str(kind), tuple(int(s) for s in samples)) for kind, samples in content["boards"]
        ]
        named = {
            str(one["name"]): {int(s): int(m) for s, m in one["marks"].items()}
            for one in content["directions"]
        }
        pairs = [
            Question(
                ("more", "less") if first == "more" else ("less", "more"), int(sample), 1, answer
            )
            for first, sample, answer in content["blind"]
            if answer in ("more", "less")
        ]
        session = Session(studio, str(content["layer"]), int(content["seed"]), boards=boards)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidData(
            "This session file is damaged.",
            why=f"{type(error).__name__} in it.",
            fix="open another file.",
        ) from error
    for board in boards:
        session.mark(dict.fromkeys(board.samples, 0))
    session.log.clear()
    for name, marks in named.items():
        session.log = []
        session.mark(marks)
        session.fit()
        session.save_direction(name)
    session.log, session.current, session.fits = [], None, 0
    for sample, mark in log:
        session.mark({sample: mark})
    if {1, -1} <= {*session.marks.values()}:
        session.fit()
        session.pairs = pairs
    return session
