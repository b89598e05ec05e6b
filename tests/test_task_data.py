"""Values of a task's data, as Label Studio's front end reads a tag's attribute."""

from __future__ import annotations

import doctest
from types import ModuleType
from typing import Any

import pytest

import words
from video import task_data
from video.task_data import task_value


@pytest.mark.parametrize("module", [task_data, words])
def test_the_examples_hold(module: ModuleType) -> None:
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize(
    ("expression", "data", "expected"),
    [
        ("$video", {"video": "a.mp4"}, "a.mp4"),
        ("$media.video", {"media": {"video": "a.mp4"}}, "a.mp4"),
        ("$media.video", {"media.video": "dotted.mp4", "media": {"video": "a.mp4"}}, "dotted.mp4"),
        ("$videos[1].url", {"videos": [{"url": "a.mp4"}, {"url": "b.mp4"}]}, "b.mp4"),
        ("https://host/$folder/$name.mp4", {"folder": "f", "name.mp4": "x"}, "https://host/f/x"),
        ("https://host/$id", {"id": 7}, "https://host/7"),
        ("/data/a.mp4", {}, "/data/a.mp4"),
        ("$meta.fps", {"meta": {"fps": 30}}, 30),
        # A file uploaded before the project had a labeling config (heartexlabs/label-studio-transformers#14).
        ("$video", {"$undefined$": "a.mp4"}, "a.mp4"),
        ("$video", {"$undefined$": "a.mp4", "video": "b.mp4"}, "b.mp4"),
    ],
)
def test_what_there_is_is_found(expression: str, data: dict[str, Any], expected: object) -> None:
    assert task_value(expression, data) == expected


@pytest.mark.parametrize(
    ("expression", "data"),
    [
        ("$video", {}),
        ("$video.url", {"video": "a.mp4"}),
        ("$videos[2].url", {"videos": [{"url": "a.mp4"}]}),
        ("$videos[99999999999999999999]", {"videos": ["a.mp4"]}),
        ("$videos[-1]", {"videos": ["a.mp4"]}),
        ("https://host/$name", {}),
        ("https://host/$name", {"name": ["a.mp4"]}),
        ("https://host/$name", {"name": None}),
    ],
)
def test_what_there_is_not_is_none(expression: str, data: dict[str, Any]) -> None:
    assert task_value(expression, data) is None
