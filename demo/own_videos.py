"""The demo with the user's own videos: a folder of them, and the labels that the user names.

    make demo VIDEOS=~/clips LABELS="Walking,Standing"

The videos stay where they are. Label Studio serves them from there, and the backend reads them there.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote
from xml.etree import ElementTree
from xml.sax.saxutils import quoteattr

from rich.console import Console
from rich.markup import escape

from demo.label_studio import LabelStudio
from demo.servers import DemoError
from errors import MediaError
from video.labeling_frames import own_rate
from video.reader import VIDEO_SUFFIXES, decode, why_not_played

EXAMPLE = 'make demo VIDEOS=~/clips LABELS="Walking,Standing"'
COLOURS = ("blue", "red", "green", "orange", "purple", "teal", "brown", "magenta", "olive", "navy")
MAX_TITLE = 50  # characters, in Label Studio
MAX_SAID = 10  # files that are named one by one
TASKS_AT_ONCE = 100
BYTES, BYTES_A_FRAME = 150 * 10**6, 6200  # databases and logs; features of a frame (README_DEVELOP.md)


@dataclass(frozen=True)
class Video:
    """A video that can be annotated.

    Attributes:
        path: the file.
        rate: labeling frames per second, its own average rate.
        num_frames: how many of them.
    """

    path: Path
    rate: float
    num_frames: int


class OwnVideos:
    """A project of a folder of videos.

    Args:
        folder: the folder, as the user names it.
        labels: the labels with commas between them, None where they are known already or asked for.
        data: the demo's folder.
        console: where it says which files it leaves out, and asks for labels.

    Raises:
        DemoError: there is no such folder, no video in it can be annotated, or the labels aren't known.
    """

    def __init__(self, folder: str, labels: str | None, data: Path, console: Console) -> None:
        self._folder = _existing(folder)
        self._data, self._console = data, console
        self.title = _title(self._folder)
        self._labels = self._chosen(labels)
        with console.status(f"Videos are looked for in {escape(str(self._folder))}") as status:
            self._videos = self._found(lambda said: status.update(escape(said)))
        self._say_where_disk_is_short()
        self.arguments = f" VIDEOS={shlex.quote(str(self._folder))}"
        # The storage must lie in a folder that is served, and not be it.
        self.environment = {
            "LOCAL_FILES_SERVING_ENABLED": "true",
            "LOCAL_FILES_DOCUMENT_ROOT": str(self._folder.parent),
        }

    @property
    def label_config(self) -> str:
        """The labels' config. Each video has its own frame rate."""
        labels = "\n".join(
            f"    <Label value={quoteattr(label)} background={quoteattr(COLOURS[number % len(COLOURS)])}/>"
            for number, label in enumerate(self._labels)
        )
        return f"""<View>
  <TimelineLabels name="tl" toName="video" model_trainable="true">
{labels}
  </TimelineLabels>
  <Video name="video" value="$video" height="360" frameRate="$fps" timelineHeight="160"/>
</View>"""

    @property
    def needed_bytes(self) -> int:
        """For databases, unless they are there."""
        return BYTES // 10 if self.title in self._known_labels() else BYTES

    @property
    def tasks(self) -> list[dict[str, str | float]]:
        """The tasks' data: the URL at which Label Studio serves the video, its frame rate, its path in the folder."""
        root = self._folder.parent
        return [
            {
                "video": f"/data/local-files/?d={quote(video.path.relative_to(root).as_posix())}",
                "fps": video.rate,
                "name": video.path.relative_to(self._folder).as_posix(),
            }
            for video in self._videos
        ]

    def steps(self, arguments: str) -> str:
        """What to do when it runs."""
        return f"""\
1. Open the first video. Click a label ({escape(", ".join(self._labels))}) and drag over the
   timeline, where it occurs. Submit.
2. Some seconds later the model has learnt it.
3. Open another video: its timeline is filled in. Correct it, and submit that."""

    def prepare(self) -> None:
        """Nothing is missing."""

    def add(self, api: LabelStudio, project: int, report: Callable[[str], None]) -> None:
        """Adds the videos that the project lacks, as tasks that name them."""
        api.serve_folder(project, self._folder)
        there = set(api.videos(project))
        tasks = [task for task in self.tasks if task["video"] not in there]
        for start in range(0, len(tasks), TASKS_AT_ONCE):
            report(f"Videos are added: {start} of {len(tasks)}")
            api.add_tasks(project, tasks[start : start + TASKS_AT_ONCE])
        has = [label.get("value") for label in ElementTree.fromstring(api.label_config(project)).iter("Label")]
        if has != self._labels:
            self._console.print(
                f"The project's labels are {escape(', '.join(map(str, has)))}. Label Studio changes them: Settings, "
                "Labeling Interface."
            )
        known = self._known_labels() | {self.title: self._labels}
        self._labels_file.write_text(json.dumps(known, indent=1, ensure_ascii=False), encoding="utf-8")

    def _say_where_disk_is_short(self) -> None:
        features = BYTES_A_FRAME * sum(video.num_frames for video in self._videos)
        free = shutil.disk_usage(next(one for one in (self._data, *self._data.parents) if one.exists())).free
        if features > free:
            self._console.print(
                f"Reading all of these videos takes {features / 1e6:.0f} MB, and the disk of {escape(str(self._data))} "
                f"has {free / 1e6:.0f} MB left. A folder on another disk: make demo DEMO_DATA=/path …"
            )

    @property
    def _labels_file(self) -> Path:
        return self._data / "labels.json"

    def _known_labels(self) -> dict[str, list[str]]:
        """The labels of the projects that were made, by title."""
        try:
            return json.loads(self._labels_file.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return {}

    def _chosen(self, labels: str | None) -> list[str]:
        if labels is not None:
            chosen = _parsed(labels)
            if not chosen:
                raise DemoError(f"LABELS names no label. For example: {EXAMPLE}")
            return chosen
        if known := self._known_labels().get(self.title):
            return known
        if not sys.stdin.isatty():
            raise DemoError(f"Name the labels, with commas between them: {EXAMPLE}")
        while True:
            try:
                asked = self._console.input("Which labels should the timeline have? For example Walking, Standing: ")
            except EOFError as error:
                raise DemoError("No label was named.") from error
            if chosen := _parsed(asked):
                return chosen

    def _found(self, report: Callable[[str], None]) -> list[Video]:
        paths = list(_paths(self._folder, self._data))
        if not paths:
            raise DemoError(f"{self._folder} holds no videos ({', '.join(sorted(VIDEO_SUFFIXES))}).")
        videos: list[Video] = []
        left_out: list[str] = []
        for number, path in enumerate(paths, start=1):
            report(f"Videos are looked at: {number} of {len(paths)}")
            try:
                videos.append(_readable(path))
            except MediaError as error:
                left_out.append(str(error))
            except OSError as error:
                left_out.append(f"{path.name}: {error.strerror}.")
        for reason in left_out[:MAX_SAID]:
            self._console.print(f"[yellow]Left out:[/yellow] {escape(reason)}")
        if len(left_out) > MAX_SAID:
            self._console.print(f"[yellow]Left out:[/yellow] {len(left_out) - MAX_SAID} more")
        if not videos:
            raise DemoError(f"No video in {self._folder} can be annotated; the reasons stand above.")
        return videos


def _existing(name: str) -> Path:
    folder = Path(name).expanduser()
    if not folder.exists():
        raise DemoError(f"There is no folder {folder}. VIDEOS names a folder of videos: {EXAMPLE}")
    if not folder.is_dir():
        raise DemoError(f"{folder} is a file. VIDEOS names the folder in which it lies: {EXAMPLE}")
    if not os.access(folder, os.R_OK | os.X_OK):
        raise DemoError(f"The folder {folder} can't be read: permission denied.")
    folder = folder.resolve()
    if folder == folder.parent:
        raise DemoError(f"VIDEOS can't be {folder}. Name a folder in it: {EXAMPLE}")
    return folder


def _title(folder: Path) -> str:
    """The folder's path, by which the project is found again."""
    home = Path.home().resolve()
    path = f"~/{folder.relative_to(home)}" if folder.is_relative_to(home) else str(folder)
    return path if len(path) <= MAX_TITLE else f"…{path[1 - MAX_TITLE :]}"


def _parsed(labels: str) -> list[str]:
    return list(dict.fromkeys(label.strip() for label in labels.split(",") if label.strip()))


def _paths(folder: Path, data: Path) -> Iterator[Path]:
    """The files in the folder that may be videos, by name; not hidden ones, nor the demo's own."""
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.suffix.lower() in VIDEO_SUFFIXES and not hidden and path.is_file() and data not in path.parents:
            yield path


def _readable(path: Path) -> Video:
    """Raises MediaError, with the reason, where a video can't be annotated."""
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise MediaError(f"{path.name!a}: the name isn't in UTF-8. Rename the file.") from error
    if reason := why_not_played(path):
        raise MediaError(reason)
    reader = decode(path)
    if next(reader, None) is None:
        raise MediaError(f"{path.name}: no picture in it can be read.")
    rate = own_rate(reader.average_rate)
    return Video(path, rate, round(reader.duration * rate))
