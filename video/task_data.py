"""Look up values of a task's data as Label Studio's tags name them: `$video`, `$media.video`, `$videos[0].url`, and
composed ones such as `https://example.com/$name`."""

from __future__ import annotations

import re
from typing import Any

VARIABLE = re.compile(r"\$[\w\[\].{}]+")  # a name, as Label Studio's front end reads it
# The key of a file that was uploaded before the project had a labeling config.
UNDEFINED = "$undefined$"


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
