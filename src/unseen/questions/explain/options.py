"""What a person types about an explanation, as the values that a request holds."""

from unseen.attributions.explanation import eight
from unseen.errors import InvalidConfig, UnknownName
from unseen.subjects.subject import Subject


def _letters(text: str) -> str:
    return "".join(letter for letter in text.lower() if letter.isalpha())


METHODS = {_letters(name): name for name in eight()}
"""The explanation methods by what may be typed: lime, clime, kernelshap, occlusion,
vanillagradients, …
"""


def method_name(typed: str) -> str:
    """The method, whatever its case and hyphens; "" for "auto"."""
    letters = _letters(typed)
    if letters not in (*METHODS, "auto"):
        raise UnknownName.near("method", typed, [*METHODS, "auto"])
    return METHODS.get(letters, "")


def class_index(named: int | str | None, subject: Subject) -> int | None:
    """The number of a class given by name or number."""
    if named is None or isinstance(named, int):
        return named
    names = [str(name) for name in subject.classes]
    if named in names:
        return names.index(named)
    if named.isdigit():
        return int(named)
    raise UnknownName.near("class", named, names)


def refuse_nonpositive(*, sigma: float = 1.0, **counts: int) -> None:
    """Refuses counts below one and noise that changes nothing."""
    for name, value in counts.items():
        if value < 1:
            raise InvalidConfig(
                f"--{name} {value}.", "nothing would be explained.", "give 1 or more."
            )
    if not sigma > 0:
        raise InvalidConfig(
            f"--sigma {sigma}.", "no noise changes nothing.", "give a positive number."
        )
