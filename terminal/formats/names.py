"""Names of videos' files, from the paths and URLs of Label Studio's tasks."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import chain, count
from pathlib import PurePath
from urllib.parse import unquote

MAX_BYTES = 200  # of a name; file systems take 255 with its number and suffix
CONTROL = re.compile(r"[\x00-\x1f\x7f]")
LOCAL_FILE = "?d="  # Label Studio's URLs of local files name the path in their query


def file_name(video: str) -> str:
    """The name of a video's file.

    >>> file_name("/data/local-files/?d=clips/a%20kick.mp4"), file_name("https://example.org/kick.mp4?key=1")
    ('a kick.mp4', 'kick.mp4')
    """
    return file_path(video).name


def file_path(video: str) -> PurePath:
    """The path of a video's file, also one of another machine."""
    if LOCAL_FILE in video:
        return PurePath(unquote(video.partition(LOCAL_FILE)[2]))
    if video.startswith(("http://", "https://", "/data/")):
        return PurePath(unquote(video.partition("?")[0]))
    return PurePath(video)


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
