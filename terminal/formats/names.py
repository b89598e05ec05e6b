"""Names for files about videos."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import chain, count
from pathlib import PurePath

from video.task_data import file_name

MAX_BYTES = 200  # of a name; file systems take 255 with its number and suffix
CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def unused(name: str, taken: set[str]) -> str:
    """Returns the name, numbered where it is taken already, and adds it to the taken ones."""
    numbered = (f"{name} ({number})" for number in count(2))
    found = next(one for one in chain([name], numbered) if one not in taken)
    taken.add(found)
    return found


def stems(videos: Iterable[str]) -> dict[str, str]:
    """A name without suffix for each video. Videos of one name are numbered, from the second on.

    >>> stems(["a/kick.mp4", "b/kick.mp4"])
    {'a/kick.mp4': 'kick', 'b/kick.mp4': 'kick (2)'}
    """
    taken: set[str] = set()
    return {video: unused(_stem(video), taken) for video in dict.fromkeys(videos)}


def _stem(video: str) -> str:
    """The name without suffix, as far as a file can have it."""
    stem = CONTROL.sub("_", PurePath(file_name(video)).stem)
    return stem.encode(errors="backslashreplace")[:MAX_BYTES].decode(errors="ignore") or "video"
