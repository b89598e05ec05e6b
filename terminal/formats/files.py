"""Files of the exchange formats: where timelines are written to, and what is read from where."""

from __future__ import annotations

import csv
import math
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import typer

from errors import InvalidRequest
from terminal.common import can_be_written, make_folder
from terminal.formats.names import stems
from terminal.formats.registry import Format
from video.timeline import Observation, Timeline

# What the parsers raise for content that they don't expect.
DAMAGED = (ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RecursionError, csv.Error)
MAX_SECONDS = 1e7  # longer than any video that can be labelled; bounds the frames' numbers


def check_output(form: Format, output: Path | None) -> Path | None:
    """Checks, before the work begins, that files of the format can be written. Returns the file, or the folder.

    Raises:
        typer.BadParameter: the file can't be written, or standard output is a terminal and the format is binary.
        InvalidRequest: the folder can't be made, or the format's library isn't installed.
    """
    if form.needs:
        form.needs.load()
    if form.one_video:
        return make_folder(output or Path())
    if form.binary and output is None and sys.stdout.isatty():
        raise typer.BadParameter(f"A {form.suffix} file isn't text: name one with --output.")
    return can_be_written(output)


def write_files(form: Format, timelines: Sequence[Timeline], output: Path | None) -> list[Path]:
    """Writes timelines to a file, or to files in a folder, one for each video, which are named as the videos are.

    Args:
        form: the format.
        timelines: the timelines.
        output: the file, None for standard output; the folder where a file holds one video.

    Returns:
        The files, none for standard output.
    """
    if not form.one_video:
        with _opened(form, output) as file:
            form.write(timelines, file)
        return [output] if output else []
    of_video: dict[str, list[Timeline]] = {}
    for timeline in timelines:
        of_video.setdefault(timeline.observation.video, []).append(timeline)
    written = []
    for video, stem in stems(of_video).items():
        written.append((output or Path()) / f"{stem}{form.suffix}")
        with _opened(form, written[-1]) as file:
            form.write(of_video[video], file)
    return written


def _opened(form: Format, path: Path | None) -> Any:
    if path is None:
        return nullcontext(sys.stdout.buffer if form.binary else sys.stdout)
    return path.open("wb") if form.binary else path.open("w", newline="", encoding="utf-8")


def read_file(form: Format, file: Path, suffix: str | None = None) -> list[Observation]:
    """Reads a file's observations.

    Args:
        form: the format.
        file: the file.
        suffix: the videos' suffix, which a format may leave out. Without a video's name, the file has it.

    Raises:
        InvalidRequest: the file can't be read; the message names the file and the place.
    """
    try:
        with _opened_to_read(form, file) as opened:
            observations = form.read(opened)
        _check(observations)
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"{file}: this isn't text in UTF-8, as {form.description} is.") from error
    except InvalidRequest as error:
        raise InvalidRequest(f"{file}: {error}") from error
    except DAMAGED as error:
        raise InvalidRequest(f"{file}: this isn't {form.description}, or it is damaged ({error}).") from error
    if not form.without_suffix:
        if suffix is None and not all(one.video for one in observations):
            raise InvalidRequest(
                f"{file}: a row names no video. Fill the column video, or give the suffix of the video that has the "
                "file's name, such as --suffix .mp4."
            )
        return [one if one.video else replace(one, video=f"{file.stem}{suffix}") for one in observations]
    return [replace(one, video=f"{one.video or file.stem}{suffix or ''}") for one in observations]


def _check(observations: Sequence[Observation]) -> None:
    """Raises InvalidRequest where an event has no place in a video, or its score is no number."""
    for one in observations:
        for event in one.events:
            if not 0 <= event.start <= event.stop <= MAX_SECONDS or not math.isfinite(event.score or 0.0):
                score = "" if event.score is None else f", with the score {event.score:g}"
                raise InvalidRequest(f"{event.label!r} lasts from {event.start:g} to {event.stop:g} s{score}.")


def _opened_to_read(form: Format, file: Path) -> IO[Any]:
    if form.binary:
        return file.open("rb")
    return file.open(newline="", encoding="utf-8-sig")  # spreadsheets write a byte order mark
