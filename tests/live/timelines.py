"""Timelines as the tests write them down, and how far two agree."""

from typing import Any

from tests.servers import region

# A video's true regions: label -> ranges of frames, 1-based, both ends included, as Label Studio counts.
Truth = dict[str, list[tuple[int, int]]]


def regions(truth: Truth) -> list[dict[str, Any]]:
    """The truth as the result of an annotation."""
    return [region(start, end, label) for label, ranges in truth.items() for start, end in ranges]


def frames(result: list[dict[str, Any]]) -> set[tuple[str, int]]:
    """Every (label, frame) that a result marks."""
    return {
        (label, frame)
        for region in result
        for label in region["value"]["timelinelabels"]
        for span in region["value"]["ranges"]
        for frame in range(span["start"], span["end"] + 1)
    }


def agreement(result: list[dict[str, Any]], truth: Truth) -> float:
    """Frame-level F1 over all labels."""
    found, expected = frames(result), frames(regions(truth))
    return 2 * len(found & expected) / (len(found) + len(expected))
