"""Typed errors that say what happened, why it is a problem, and how to fix it."""

import difflib
from collections.abc import Iterable


class UnseenError(Exception):
    """An error in three lines: what, why, fix. The shell prints it without a traceback."""

    def __init__(self, what: str, why: str = "", fix: str = "") -> None:
        super().__init__(what)
        self.what, self.why, self.fix = what, why, fix

    def __str__(self) -> str:
        lines = [self.what] + [
            f"  {name}: {text}" for name, text in (("why", self.why), ("fix", self.fix)) if text
        ]
        return "\n".join(lines)

    def __reduce__(self) -> tuple:  # survives the trip from a worker process
        return type(self), (self.what, self.why, self.fix)


class InvalidData(UnseenError, ValueError):
    """Data from which the asked-for number cannot be computed: empty, non-finite, one class, wrong
    shape.
    """


class InvalidConfig(UnseenError, ValueError):
    """A hyperparameter outside its range."""


class UnsupportedLayer(UnseenError, TypeError):
    """A layer or model for which a quantity does not exist, or which the engine cannot treat
    exactly.
    """


class WiringError(UnseenError, TypeError):
    """A diagram, map or machine that does not type-check: raised before anything runs."""


class Divergence(UnseenError, ArithmeticError):
    """Training produced a loss or weight that is not finite."""


class MissingExtra(UnseenError, ImportError):
    """An optional library is not installed."""


class MissingFile(UnseenError, FileNotFoundError):
    """A file is absent, unreadable or cannot be written."""


class CorruptFile(UnseenError, OSError):
    """A stored or downloaded file does not hold what it should."""


class TooBig(UnseenError, MemoryError):
    """The request would need more memory than allowed."""


class UnknownName(UnseenError, LookupError):
    """No such study, column, split or layer."""

    @classmethod
    def near(cls, kind: str, name: str, known: Iterable[str]) -> "UnknownName":
        """The error for `name`, with the closest of the `known` names in its `fix`."""
        known = sorted(known)
        close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        hint = (
            f"did you mean {' or '.join(close)}?"
            if close
            else f"choose one of: {', '.join(known) or '(none)'}."
        )
        return cls(
            f"There is no {kind} `{name}`.", why=f"{len(known)} names are known here.", fix=hint
        )


def reason(error: Exception) -> str:
    """What, why and fix on one line, or the kind of error and its text."""
    if isinstance(error, UnseenError):
        return " ".join(str(error).split())
    return f"{type(error).__name__}: {error}"
