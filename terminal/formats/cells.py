"""Texts in CSV tables that spreadsheet programs open: never a formula."""

from __future__ import annotations

# What begins a formula there; a tab and a return may stand before one.
FORMULA = ("=", "+", "-", "@", "\t", "\r")
TEXT = "'"  # marks a text, for spreadsheet programs


def to_cell(text: str) -> str:
    """The text as a cell: one that a program could compute is marked as text."""
    return TEXT + text if text.startswith((TEXT, *FORMULA)) else text


def from_cell(cell: str) -> str:
    """The text of a cell that `to_cell` made."""
    marked = cell.startswith(TEXT) and cell[1:].startswith((TEXT, *FORMULA))
    return cell[1:] if marked else cell
