"""Cells of tables that a spreadsheet may open."""

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""A spreadsheet runs a text that begins so (OWASP, CSV injection)."""


def plain_cell(value: object) -> object:
    """The value; a text that a spreadsheet would take for a formula begins with an apostrophe."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value
