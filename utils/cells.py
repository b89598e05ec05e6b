"""Write texts into CSV tables so that no spreadsheet program takes them for a formula."""

from __future__ import annotations

# A formula begins with one of these, or with a tab or a return before it.
FORMULA = ("=", "+", "-", "@", "\t", "\r")
TEXT = "'"  # marks a text in spreadsheet programs


def to_cell(text: str) -> str:
    """Makes a cell of a text. One that could be a formula is marked as text."""
    return TEXT + text if text.startswith((TEXT, *FORMULA)) else text


def from_cell(cell: str) -> str:
    """Returns the text of a cell that `to_cell` made."""
    marked = cell.startswith(TEXT) and cell[1:].startswith((TEXT, *FORMULA))
    return cell[1:] if marked else cell
