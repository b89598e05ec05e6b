"""The clips that a browser test plays with: real ones of a folder, or drawn ones."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import NamedTuple

from demo import football
from tests.live.timelines import Truth

COLOURS = ("#1c7ed6", "#e8590c", "#2f9e44", "#ae3ec9", "#c2255c", "#0b7285")
MAX_LABELS = len(COLOURS)


class Clip(NamedTuple):
    """A video with what a careful annotator marks.

    Attributes:
        path: the file.
        num_frames: labeling frames.
        frame_rate: per second.
        truth: label -> ranges of frames.
    """

    path: Path
    num_frames: int
    frame_rate: float
    truth: Truth


def clips(count: int, folder: Path) -> list[Clip]:
    """The first clips of the folder that FOOTAGE names, each an .mp4 with `{"frame_rate", "frames", "ranges": {label:
    [[first, last] …]}}` in a .json beside it; without FOOTAGE, drawn footballers.

    Args:
        count: how many.
        folder: where to draw.
    """
    footage = os.environ.get("FOOTAGE")
    if not footage:
        return [_drawn(number, folder) for number in range(count)]
    found = [_real(path) for path in sorted(Path(footage).glob("*.json"))[:count]]
    assert len(found) == count, f"{footage} has {len(found)} clips with labels, and the test needs {count}"
    return found


def _drawn(number: int, folder: Path) -> Clip:
    path = folder / f"football-{number + 1:02}.mp4"
    truth = football.write_video(number, path)
    return Clip(path, football.num_frames(number), float(football.FRAME_RATE), truth)


def _real(described: Path) -> Clip:
    facts = json.loads(described.read_text())
    truth = {label: [tuple(pair) for pair in pairs] for label, pairs in facts["ranges"].items()}
    return Clip(described.with_suffix(".mp4"), facts["frames"], facts["frame_rate"], truth)


def config(clips: list[Clip], reviewed: str, query: str) -> str:
    """The labeling config for clips of one set."""
    labels = list(dict.fromkeys(label for clip in clips for label in clip.truth))[:MAX_LABELS]
    tags = [f'<Label value="{label}" background="{colour}"/>' for label, colour in zip(labels, COLOURS, strict=False)]
    return f"""<View>
  <TimelineLabels name="tl" toName="video" model_trainable="true" model_reviewed_label="{reviewed}"
                  model_query_label="{query}">
    {"".join(tags)}<Label value="{reviewed}" background="#868e96"/><Label value="{query}" background="#fab005"/>
  </TimelineLabels>
  <Video name="video" value="$video" height="360" frameRate="{clips[0].frame_rate:g}" timelineHeight="300"/>
</View>"""
