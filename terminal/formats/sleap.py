"""SLEAP's labels (https://sleap.ai) with events, SLP 2.6, by sleap-io, which is installed when wanted.

An event counts the file's own frames, from 0, both ends included. It has the timeline's source and, for a prediction,
the score.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

from errors import InvalidRequest
from terminal.formats.libraries import Library, path_to_read, path_to_write
from video.timeline import SECONDS_DIGITS, Event, Observation, Timeline

if TYPE_CHECKING:
    import sleap_io

SLEAP_IO = Library("sleap_io", "sleap-io>=0.9,<1")
SUFFIX = ".slp"


def write(timelines: Sequence[Timeline], file: BinaryIO) -> None:
    """Writes labels without poses, with the events of the timelines.

    Raises:
        InvalidRequest: sleap-io isn't installed.
    """
    sleap = SLEAP_IO.load()
    types = {label: sleap.EventType(label) for timeline in timelines for label in timeline.labels}
    rates = {timeline.observation.video: timeline.clock.file_rate for timeline in timelines}
    videos = {
        name: sleap.Video(filename=name, open_backend=False, backend_metadata={"fps": rate} if rate else {})
        for name, rate in rates.items()
    }
    events = [
        _event(sleap, timeline, event, types[event.label], videos[timeline.observation.video])
        for timeline in timelines
        for event in timeline.observation.events
    ]
    labels = sleap.Labels(videos=list(videos.values()), event_types=list(types.values()), events=events)
    with path_to_write(file, SUFFIX) as path:
        sleap.save_slp(labels, str(path), embed=False, verbose=False)


def _event(sleap: Any, timeline: Timeline, event: Event, kind: Any, video: Any) -> sleap_io.Event:
    first, last = (frame - 1 for frame in timeline.clock.file_frames(event))
    known = {
        "type": kind,
        "video": video,
        "start_frame": first,
        "end_frame": last,
        "source": timeline.observation.source,
    }
    return sleap.UserEvent(**known) if event.score is None else sleap.PredictedEvent(score=event.score, **known)


def read(file: BinaryIO) -> list[Observation]:
    """Reads the events. Those of one video and source make one observation. Who takes part in an event is left out.

    Frames become seconds by the video's frame rate.

    Raises:
        InvalidRequest: sleap-io isn't installed, the file can't be read, or a video's frame rate isn't known; the
            message names the video.
    """
    sleap = SLEAP_IO.load()
    with path_to_read(file, SUFFIX) as path:
        try:
            labels = sleap.load_slp(str(path), open_videos=False)
        except Exception as error:  # sleap-io and h5py raise many kinds for a damaged file
            raise InvalidRequest(f"This isn't a file of SLEAP, or it is damaged ({error}).") from error
    found: dict[tuple[str, str], list[Event]] = {}
    for event in labels.events:
        name = str(event.video.filename)
        found.setdefault((name, event.source), []).append(_seconds(event, name))
    if not found:
        raise InvalidRequest("The file has no events.")
    return [Observation(video, source, events) for (video, source), events in found.items()]


def _seconds(event: Any, video: str) -> Event:
    rate = event.video.fps
    if not rate:
        raise InvalidRequest(f"The frame rate of {video} isn't known, so its frames can't become seconds.")
    if event.start_frame < 0:
        raise InvalidRequest(f"An event of {video}, {event.type.name!r}, begins at frame {event.start_frame}.")
    start, stop = (round(frame / rate, SECONDS_DIGITS) for frame in (event.start_frame, event.end_frame + 1))
    score = getattr(event, "score", None)
    return Event(event.type.name, start, stop, None if score is None else float(score))
