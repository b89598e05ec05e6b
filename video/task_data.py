"""Look up values of a task's data as Label Studio's tags name them: `$video`, `$media.video`, `$videos[0].url`, and
composed ones such as `https://example.com/$name`; and name the files of their paths and URLs."""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import Any
from urllib.parse import unquote

VARIABLE = re.compile(r"\$[\w\[\].{}]+")  # a name, as Label Studio's front end reads it
# The key of a file that was uploaded before the project had a labeling config.
UNDEFINED = "$undefined$"
LOCAL_FILE = "?d="  # Label Studio's URLs of local files name the path in their query


def task_value(expression: str, data: dict[str, Any]) -> Any:
    """Returns the value that a tag's attribute names, or the attribute's text with each name replaced by its value.

    It is None where the data has no such value.

    >>> task_value("$videos[0].url", {"videos": [{"url": "a.mp4"}]})
    'a.mp4'
    >>> task_value("/data/local-files/?d=$name", {"name": "a.mp4"})
    '/data/local-files/?d=a.mp4'
    """
    if VARIABLE.fullmatch(expression):
        return _look_up(expression[1:], data)
    values = {name: _look_up(name[1:], data) for name in VARIABLE.findall(expression)}
    if any(not isinstance(value, str | int | float) for value in values.values()):
        return None
    return VARIABLE.sub(lambda found: str(values[found.group()]), expression)


def _look_up(name: str, data: dict[str, Any]) -> Any:
    if name in data:  # a key may contain dots
        return data[name]
    value: Any = data
    for part in re.findall(r"[^.\[\]]+", name):
        if isinstance(value, list) and part.isdecimal():
            value = value[int(part)] if int(part) < len(value) else None
        else:
            value = value.get(part) if isinstance(value, dict) else None
    return data.get(UNDEFINED) if value is None else value


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
