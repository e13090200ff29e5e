"""A document as JSON, for machines: every text, number and figure; a number that is not finite
becomes null.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from math import isfinite
from typing import Any

from torch import Tensor

from unseen.document import Document

NOT_PLAIN = {"not_plain": True}
"""Metadata of a field that is no part of a document for machines: values of single examples."""


def as_json(document: Document, indent: int | None = 2) -> str:
    """The document; every block, figure and reading names its kind."""
    return json.dumps(plain(document), indent=indent, ensure_ascii=False, allow_nan=False)


def plain(value: Any) -> Any:
    """Dictionaries, lists, text, finite numbers and None; dataclasses carry their `kind`. Tensors
    are left out.
    """
    match value:
        case None | bool() | str() if not isinstance(value, Enum):
            return value
        case Enum():
            return value.value
        case int():
            return int(value)
        case float():
            return float(value) if isfinite(value) else None
        case Mapping():
            return {str(key): plain(item) for key, item in value.items()}
        case Sequence():
            return [plain(item) for item in value]
    if isinstance(value, Tensor):
        return None
    if is_dataclass(value):
        inside = {
            field.name: getattr(value, field.name)
            for field in fields(value)
            if field.name not in ("detail", "freedom")  # tensors, and what only widening needs
            and not field.metadata.get("not_plain")
        }
        detail = getattr(value, "detail", None)
        inside |= {"detail": detail} if isinstance(detail, str) else {}
        return {"kind": type(value).__name__.lower(), **plain(inside)}
    return plain(value.tolist())
