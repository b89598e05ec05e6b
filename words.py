"""Words of sentences that people read."""

from __future__ import annotations


def counted(count: int, noun: str) -> str:
    """A count with its noun.

    >>> counted(1, "new video"), counted(0, "new video")
    ('1 new video', '0 new videos')
    """
    return f"{count} {noun}{'s' * (count != 1)}"
