"""BORIS projects (https://www.boris.unito.it): JSON with an ethogram and observations, whose events are state changes.

Projects are written in format 7.0, which BORIS 7 to 9 open. The start and the stop of a state are two events of the
same behaviour, which only their order tells apart, so overlapping events of one label become one. Times are in seconds
with three digits.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, TextIO

from errors import InvalidRequest
from terminal.formats.names import unused
from video.task_data import file_name
from video.timeline import Event, Observation, Timeline, without_overlaps

FORMAT_VERSION = "7.0"
PLAYERS = [str(number) for number in range(1, 9)]
NO_SUBJECT = ""
NOT_APPLICABLE = "NA"  # for an unknown frame index
TIME_DIGITS = 3  # BORIS rounds to milliseconds when it opens a project


def write(timelines: Sequence[Timeline], file: TextIO) -> None:
    """Writes a project with one observation for each timeline."""
    labels = list(dict.fromkeys(label for timeline in timelines for label in timeline.labels))
    date = datetime.now().isoformat(timespec="seconds")
    taken: set[str] = set()
    observations = {unused(_name(one.observation), taken): _observation(one, date) for one in timelines}
    project = {
        "time_format": "hh:mm:ss",
        "project_date": date,
        "project_name": "Label Studio timeline",
        "project_description": "",
        "project_format_version": FORMAT_VERSION,
        "subjects_conf": {},
        "behaviors_conf": {str(number): _behavior(label) for number, label in enumerate(labels)},
        "observations": observations,
        "behavioral_categories": [],
        "independent_variables": {},
        "coding_map": {},
        "behaviors_coding_map": [],
        "converters": {},
    }
    json.dump(project, file, indent=1, ensure_ascii=False)


def _behavior(label: str) -> dict[str, str]:
    empty = dict.fromkeys(("key", "description", "color", "category", "modifiers", "excluded", "coding map"), "")
    return {"type": "State event", "code": label, **empty}


def _name(observation: Observation) -> str:
    task = "" if observation.task is None else f"task {observation.task} "
    return f"{task}{file_name(observation.video)}, {observation.source}"


def _observation(timeline: Timeline, date: str) -> dict[str, Any]:
    video, clock = timeline.observation.video, timeline.clock
    changes = []
    for event in without_overlaps(timeline.observation.events):
        comment = "" if event.score is None else f"score {event.score:.3f}"
        for order, (time, remark) in enumerate(((event.stop, ""), (event.start, comment))):
            row = [round(time, TIME_DIGITS), NO_SUBJECT, event.label, "", remark, NOT_APPLICABLE]
            changes.append((time, order, row))
    # At equal times a stop comes before the next start of the same behaviour.
    changes.sort(key=lambda change: change[:2])
    return {
        "file": {player: [video] if player == "1" else [] for player in PLAYERS},
        "type": "MEDIA",
        "date": date,
        "description": timeline.observation.source,
        "time offset": 0.0,
        "events": [row for _, _, row in changes],
        "observation time interval": [0, 0],
        "independent_variables": {},
        "visualize_spectrogram": False,
        "visualize_waveform": False,
        "close_behaviors_between_videos": False,
        "media_info": {
            "length": {video: round(clock.duration, TIME_DIGITS)},
            "fps": {video: round(clock.file_rate, TIME_DIGITS)},
            "hasVideo": {video: True},
            "hasAudio": {video: False},
            "offset": {"1": 0.0},
        },
    }


def read(file: TextIO) -> list[Observation]:
    """Reads a project's observations of media files.

    A state event lasts from an odd to the next even occurrence, for each subject and set of modifiers; a point event is
    an instant. Subjects and modifiers are dropped, since a labeling config has no place for them.

    Raises:
        InvalidRequest: the file isn't a BORIS project, or an observation can't be read; the message names it.
    """
    try:
        project = json.load(file)
        behaviors = {entry["code"]: entry["type"] for entry in project["behaviors_conf"].values()}
        observations = project["observations"].items()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidRequest('This isn\'t a BORIS project, JSON with "behaviors_conf" and "observations".') from error
    return [
        _read_observation(name, observation, behaviors)
        for name, observation in observations
        if observation.get("type") == "MEDIA"
    ]


def _read_observation(name: str, observation: dict[str, Any], behaviors: dict[str, str]) -> Observation:
    try:
        media = [path for paths in observation["file"].values() for path in paths]
        offset = float(observation.get("time offset") or 0)
        rows = [(float(row[0]) - offset, *map(str, row[1:4])) for row in observation["events"]]
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise InvalidRequest(f"BORIS observation {name!r} can't be read: {type(error).__name__} {error}.") from error
    if len(media) != 1:
        raise InvalidRequest(f"BORIS observation {name!r} has {len(media)} media files; it must have one to be a task.")
    return Observation(media[0], name, _events(name, rows, behaviors))


def _events(name: str, rows: list[tuple[float, str, str, str]], behaviors: dict[str, str]) -> list[Event]:
    started: dict[tuple[str, str, str], float] = {}
    events = []
    for time, subject, code, modifier in rows:
        key = (subject, code, modifier)
        if behaviors.get(code, "").lower().startswith("point"):
            events.append(Event(code, time, time))
        elif key in started:
            events.append(Event(code, started.pop(key), time))
        else:
            started[key] = time
    if started:
        (_, code, _), time = next(iter(started.items()))
        raise InvalidRequest(f"BORIS observation {name!r}: {code!r} starts at {time:g} s and never stops.")
    if any(event.start < 0 or event.stop < event.start for event in events):
        raise InvalidRequest(f"BORIS observation {name!r} has events before the video's start, or out of order.")
    return events
