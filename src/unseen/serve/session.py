"""One person's session with a generator: boards, marks, directions, checks. It knows no network.

A session is its log: model, edit site, seed and marks in their order give the same directions on
another run.
"""

import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from unseen import stats
from unseen.attributions.directions import (
    LEAST_MARKS,
    LatentDirection,
    PCADirections,
    WeightEigenDirections,
    check_marks,
    last_marks,
    random_directions,
    uncertain_board,
)
from unseen.engine.image_attributes import ATTRIBUTES
from unseen.errors import InvalidConfig, InvalidData, UnknownName
from unseen.lab import Lab
from unseen.measures.latent_directions import (
    STRENGTHS,
    blind_accuracy,
    effect_of,
)
from unseen.models.generator import LATENT, Direction
from unseen.reading import Reading
from unseen.serve.marks import (
    Board,
    Question,
    SavedDirection,
    describe_missing,
    find_question,
    reading_json,
    require_current,
    require_strength,
    require_unanswered,
)
from unseen.serve.studio import BOARDS, POOL, Samples, Studio

BOARD = 12
ANCHORS = 5
WALK = tuple(range(-3, 4))
BLIND = 2.0
"""Strength of the two images of a blind pair."""
COMPONENTS = 8
CURRENT = "current"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 _-]{0,39}")


@dataclass
class Session:
    """What one tab of the browser has done. Every method that changes it takes the lock."""

    studio: Studio
    layer: str = LATENT
    seed: int = 0
    log: list[tuple[int, int]] = field(default_factory=list)
    boards: list[Board] = field(default_factory=list)
    saved: dict[str, SavedDirection] = field(default_factory=dict)
    pairs: list[Question] = field(default_factory=list)
    comparisons: list[Question] = field(default_factory=list)
    current: SavedDirection | None = None
    fits: int = 0
    lock: threading.RLock = field(default_factory=threading.RLock, repr=False)

    def __post_init__(self) -> None:
        self.studio.generator.require_layer(self.layer)
        if not 0 <= self.seed < 2**31:
            raise InvalidConfig(
                f"There is no seed {self.seed}.", "seeds are 0 to 2³¹ − 1.", "choose one of them."
            )
        if not self.boards:
            self.draw_board("random")

    @property
    def lab(self) -> Lab:
        return Lab(self.seed).child("compass")

    @property
    def samples(self) -> Samples:
        return self.studio.samples(self.seed, self.layer)

    @property
    def marks(self) -> dict[int, int]:
        return last_marks(self.log)

    @property
    def method(self) -> LatentDirection:
        return LatentDirection(standardise=self.layer != LATENT)

    def draw_board(self, kind: str) -> Board:
        """The next board: `random`, or `uncertain` for the images about which the direction says
        least.
        """
        with self.lock:
            shown = {sample for board in self.boards for sample in board.samples}
            lab = self.lab.child("board", len(self.boards))
            free = torch.tensor([k for k in range(BOARDS) if k not in shown])
            if len(free) < BOARD:
                raise InvalidData(
                    "All images of this seed were shown.",
                    why=f"{BOARDS} are kept for boards, the others for checks.",
                    fix="begin a session with another seed.",
                )
            drawn = free[torch.randperm(len(free), generator=lab.generator())]
            if kind == "uncertain":
                direction = self.require_direction(CURRENT)
                drawn = uncertain_board(
                    self.samples.h, direction, drawn[:200], BOARD, lab.child("uncertain")
                )
            elif kind != "random":
                raise UnknownName.near("kind of board", kind, ("random", "uncertain"))
            board = Board(kind, tuple(drawn[:BOARD].tolist()))
            self.boards.append(board)
            return board

    def mark(self, marks: Mapping[int, int]) -> None:
        """1 more, −1 less, 0 neither; only images that a board may show."""
        for sample, mark in marks.items():
            if not 0 <= sample < BOARDS or mark not in (-1, 0, 1):
                raise InvalidData(
                    f"Mark {mark} of image {sample} is none.",
                    why=f"images are 0 to {BOARDS - 1}; marks are 1 (more), -1 (less) and 0.",
                    fix="mark an image of the board.",
                )
        with self.lock:
            self.log.extend(marks.items())

    def undo(self) -> None:
        """Takes back the last mark."""
        with self.lock:
            if not self.log:
                raise InvalidData("There is nothing to undo.", "no image was marked.", "")
            self.log.pop()

    def fit(self) -> Direction:
        with self.lock:
            marks = self.marks
            direction = self.method.fit(self.samples.h, marks)
            self.current = SavedDirection(CURRENT, marks, direction)
            self.fits += 1
            return direction

    def require_fit(self, name: str) -> SavedDirection:
        """The direction of that name, with its marks."""
        if name == CURRENT:
            if self.current is None:
                raise InvalidData(
                    "There is no direction yet.", "no marks were fitted.", "mark images, then fit."
                )
            return self.current
        if name not in self.saved:
            raise UnknownName.near("direction", name, self.saved)
        return self.saved[name]

    def require_direction(self, name: str) -> Direction:
        return self.require_fit(name).direction

    def save_direction(self, name: str) -> None:
        """The current direction under a name, which may be a file's."""
        if not NAME.fullmatch(name) or name == CURRENT:
            raise InvalidData(
                "A direction cannot have this name.",
                why="it becomes the name of a file.",
                fix="use up to 40 letters, digits, spaces, - and _, beginning with a letter or "
                "digit.",
            )
        with self.lock:
            current = self.require_fit(CURRENT)
            self.saved[name] = SavedDirection(name, current.marks, current.direction)

    def remove_direction(self, name: str) -> None:
        with self.lock:
            if name not in self.saved:
                raise UnknownName.near("saved direction", name, self.saved)
            del self.saved[name]

    def anchors(self, page: int = 0) -> list[int]:
        """Samples of a walk, which no board shows."""
        first = page * ANCHORS % (POOL - BOARDS - ANCHORS)
        return [*range(BOARDS + first, BOARDS + first + ANCHORS)]

    def images(self, samples: list[int]) -> Float[Tensor, "n c h w"]:
        if not samples or not all(0 <= sample < POOL for sample in samples):
            raise InvalidData(
                "An image of this list does not exist.",
                why=f"they are numbered 0 to {POOL - 1}.",
                fix="choose images of a board or of the walk.",
            )
        return self.studio.generator.images(self.samples.z[torch.tensor(samples)])

    def walk(self, name: str = CURRENT, page: int = 0) -> Float[Tensor, "n m c h w"]:
        z = self.samples.z[torch.tensor(self.anchors(page))]
        return self.studio.walk(z, self.require_direction(name), WALK, self.layer)

    def mix(
        self, sample: int, strengths: Mapping[str, float], *, orthogonal: bool = False
    ) -> Float[Tensor, "1 c h w"]:
        """One image after steps along several directions; `orthogonal`: each without what it
        shares with those before it (Gram–Schmidt).
        """
        for strength in strengths.values():
            require_strength(strength)
        self.images([sample])
        shift = torch.zeros(self.samples.h.shape[1]).to(self.samples.h)
        basis: list[Tensor] = []
        for name, strength in strengths.items():
            direction = self.require_direction(name)
            vector = direction.vector
            if orthogonal:
                for other in basis:
                    vector = vector - (vector @ other) * other
                length = vector.norm()
                if length < 1e-6:  # nothing of it is left beside the others
                    continue
                vector = vector / length
                basis.append(vector)
            shift = shift + strength * direction.scale * vector
        return self.studio.edit(self.samples.z[sample : sample + 1], shift, self.layer)

    def measure(self, name: str = CURRENT) -> dict[str, Any]:
        """What the direction does on fresh latents, with intervals; what cannot be said."""
        found = self.require_fit(name)
        direction, marks = found.direction, found.marks
        z = self.samples.z[-self.studio.measured :]
        images = self.studio.walk(z, direction, STRENGTHS, self.layer)
        middle = images[:, STRENGTHS.index(0.0)]
        effects = []
        for attribute, of in ATTRIBUTES.items():
            deviation = float(of(middle).double().std())
            if deviation > 1e-9:  # an attribute that all images share
                values = of(images.flatten(0, 1)).view(images.shape[:2])
                reading = effect_of(values, STRENGTHS, deviation)
                effects.append({"attribute": attribute, **reading_json(reading)})
        low, high = self.studio.safe_range(z, direction, self.layer)
        return {
            "effects": effects,
            "safe_range": [low if isfinite(low) else None, high if isfinite(high) else None],
            "images": len(z),
            "features": "encoder" if self.studio.generator.encoder else "coarse pixels",
            "marks_test": self._test(marks),
            "marks": [sum(m > 0 for m in marks.values()), sum(m < 0 for m in marks.values())],
        }

    def _test(self, marks: Mapping[int, int]) -> dict[str, float] | None:
        if (
            min(sum(m > 0 for m in marks.values()), sum(m < 0 for m in marks.values()))
            < LEAST_MARKS
        ):
            return None
        found = check_marks(self.samples.h, marks, self.lab.child("test"))
        return {"auc": found.auc, "p": found.p, "n": found.n}

    def ask_pair(self) -> int:
        """A blind pair: the same fresh sample moved either way, left and right at random."""
        with self.lock:
            self.require_direction(CURRENT)
            rng = self.lab.child("pair", len(self.pairs)).numpy()
            order = ("more", "less") if rng.random() < 0.5 else ("less", "more")
            sample = int(rng.integers(BOARDS, POOL))
            self.pairs.append(Question(order, sample, self.fits))
            return len(self.pairs) - 1

    def pair_images(self, number: int) -> Float[Tensor, "1 2 c h w"]:
        question = find_question(self.pairs, number)
        require_current(question, self.fits)
        signs = {"more": BLIND, "less": -BLIND}
        images = [self.mix(question.sample, {CURRENT: signs[side]}) for side in question.order]
        return torch.stack(images, 1)

    def answer_pair(self, number: int, side: str) -> bool:
        """Whether the side that shows more, for the person, is the one that the direction means."""
        with self.lock:
            question = find_question(self.pairs, number)
            require_current(question, self.fits)
            require_unanswered(question)
            if side not in ("left", "right"):
                raise UnknownName.near("side", side, ("left", "right"))
            question.answer = question.order[side == "right"]
            return question.answer == "more"

    def accuracy(self) -> Reading | None:
        answers = self._answers(self.pairs)
        return blind_accuracy(answers.count("more"), len(answers)) if answers else None

    def _answers(self, questions: list[Question]) -> list[str]:
        return [q.answer for q in questions if q.answer and q.fits == self.fits]

    def rivals(self) -> dict[str, Direction]:
        """Mine, and of each kind the direction that fits the marks best, in their sense."""
        samples, size = self.samples, self.samples.h.shape[1]
        found = {"mine": self.require_direction(CURRENT)}
        bases = {"random": random_directions(COMPONENTS, size, self.lab.child("random"))}
        count = min(COMPONENTS, size)
        if self.layer == LATENT:
            hidden = self.studio.samples(self.seed, self.studio.middle_layer).h
            bases["PCA"] = PCADirections(count).fit(hidden, samples.z)
            if self.studio.first_weight is not None:
                bases["SeFa"] = WeightEigenDirections(count).fit(self.studio.first_weight)
        else:
            bases["PCA"] = PCADirections(count).fit(samples.h)
        marks = self.require_fit(CURRENT).marks
        rows = samples.h[torch.tensor([*marks])]
        signs = torch.tensor([*marks.values()]).to(rows)
        for kind, vectors in bases.items():
            scores = rows @ vectors.T.to(rows)
            apart = scores[signs > 0].mean(0) - scores[signs < 0].mean(0)
            apart = apart / scores.std(0).clamp_min(1e-9)
            best = int(apart.abs().argmax())
            vector = vectors[best].to(rows) * apart[best].sign()
            scale = 1.0 if self.layer == LATENT else float((samples.h @ vector).std())
            found[kind] = Direction(vector / vector.norm(), scale)
        return found

    def ask_comparison(self) -> int:
        with self.lock:
            kinds = [*self.rivals()]
            order = self.lab.child("comparison", len(self.comparisons)).numpy().permutation(kinds)
            number = len(self.comparisons)
            self.comparisons.append(Question(tuple(map(str, order)), number, self.fits))
            return number

    def comparison_images(self, number: int) -> Float[Tensor, "n m c h w"]:
        """One anchor along every candidate, a row each."""
        question = find_question(self.comparisons, number)
        require_current(question, self.fits)
        rivals = self.rivals()
        anchor = BOARDS + question.sample % (POOL - BOARDS)
        z = self.samples.z[anchor : anchor + 1]
        rows = [self.studio.walk(z, rivals[kind], WALK, self.layer) for kind in question.order]
        return torch.cat(rows)

    def answer_comparison(self, number: int, row: int) -> tuple[str, ...]:
        """What the rows were."""
        with self.lock:
            question = find_question(self.comparisons, number)
            require_current(question, self.fits)
            require_unanswered(question)
            if not 0 <= row < len(question.order):
                raise InvalidData(
                    f"There is no row {row}.", f"there are {len(question.order)}.", "choose one."
                )
            question.answer = question.order[row]
            return question.order

    def preference(self) -> dict[str, Any] | None:
        """How often mine was chosen, against chance."""
        answers = self._answers(self.comparisons)
        if not answers:
            return None
        kinds = len(self.comparisons[0].order)
        reading = stats.proportion(answers.count("mine"), len(answers))
        return {**reading_json(reading), "chance": 1 / kinds}

    def missing(self) -> list[str]:
        """What keeps the page from saying more, one sentence each."""
        sides = [sum(m == side for m in self.marks.values()) for side in (1, -1)]
        return describe_missing(
            min(sides),
            few=self.method.few,
            least=LEAST_MARKS,
            is_blind=self.accuracy() is not None,
            has_encoder=self.studio.generator.encoder is not None,
        )

    def state(self) -> dict[str, Any]:
        """Everything that the page shows but images and measures."""
        with self.lock:
            marks = self.marks
            accuracy = self.accuracy()
            return {
                "layer": self.layer,
                "seed": self.seed,
                "board": len(self.boards) - 1,
                "samples": self.boards[-1].samples,
                "kind": self.boards[-1].kind,
                "marks": {str(sample): mark for sample, mark in marks.items()},
                "more": [s for s, m in marks.items() if m > 0],
                "less": [s for s, m in marks.items() if m < 0],
                "fits": self.fits,
                "fitted": self.current is not None,
                "changed": self.current is not None and self.current.marks != marks,
                "directions": [*self.saved],
                "blind": None if accuracy is None else reading_json(accuracy),
                "compared": self.preference(),
                "missing": self.missing(),
            }
