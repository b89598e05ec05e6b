"""The content of the demo's project: the drawn videos, or the user's own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from demo import football
from demo.label_studio import LabelStudio

NUM_VIDEOS, NUM_ANNOTATED = 12, 6


class Content(Protocol):
    """A project's videos and labels.

    Attributes:
        title: the project's.
        label_config: the project's.
        environment: what the servers are told about the videos.
        needed_bytes: space on the demo's disk, for what isn't there yet.
        arguments: of `make demo`, that start it again.
    """

    title: str
    label_config: str
    environment: dict[str, str]
    needed_bytes: int
    arguments: str

    def steps(self, arguments: str) -> str:
        """What to do when it runs. `arguments` are those of `make demo-submit`."""

    def prepare(self) -> None:
        """Makes what is missing, in a thread, while the servers start."""

    def add(self, api: LabelStudio, project: int, report: Callable[[str], None]) -> None:
        """Adds the videos that the project lacks.

        Args:
            api: Label Studio.
            project: the project's id.
            report: is told how far it is.
        """


class Football:
    """The drawn videos: a dozen, of which six have finished annotations.

    Args:
        folder: the demo's.
    """

    title = "Football demo"
    # The height keeps the timeline on the screen; Label Studio's default is 600 pixels.
    label_config = f"""<View>
  <TimelineLabels name="tl" toName="video" model_trainable="true">
    <Label value="{football.IN_FRAME}" background="blue"/>
    <Label value="{football.TOUCH}" background="red"/>
  </TimelineLabels>
  <Video name="video" value="$video" height="360" frameRate="{football.FRAME_RATE}" timelineHeight="160"/>
</View>"""
    arguments = ""

    def __init__(self, folder: Path) -> None:
        self.environment: dict[str, str] = {}
        self._videos = folder / "videos"
        self._annotations = folder / "annotations.json"

    @property
    def needed_bytes(self) -> int:
        """For databases, videos and their features."""
        return 50 * 10**6 if self._annotations.exists() else 500 * 10**6

    def steps(self, arguments: str) -> str:
        """What to do when it runs."""
        return f"""\
1. Open the first video. Click a label and drag over the timeline, where the ball
   is in the frame, or is kicked. Submit.
   Or have six videos annotated for you, in another terminal:
   make demo-submit{arguments}
2. Some seconds later the model has learnt it.
3. Open another video: its timeline is filled in. Correct it, and submit that."""

    def prepare(self) -> None:
        """Draws the videos and their annotations, unless they are there."""
        if self._annotations.exists():  # written last
            return
        self._videos.mkdir(parents=True, exist_ok=True)
        results = {}
        for number in range(NUM_VIDEOS):
            path = self._videos / f"{number + 1:02}.mp4"
            marked = football.write_video(number, path)
            if number < NUM_ANNOTATED:
                results[path.name] = football.result(marked)
        part = self._annotations.with_suffix(".part")
        part.write_text(json.dumps(results, indent=1))
        part.replace(self._annotations)

    def add(self, api: LabelStudio, project: int, report: Callable[[str], None]) -> None:
        """Uploads the videos that the project lacks."""
        there = api.tasks(project)
        for video in sorted(self._videos.glob("*.mp4")):
            if video.name not in there:
                report(f"Sample videos are uploaded: {video.name}")
                api.upload(project, video)

    def annotations(self) -> dict[str, list[dict[str, Any]]]:
        """The finished annotations' regions by the video's name; FileNotFoundError where none are drawn."""
        return json.loads(self._annotations.read_text())
