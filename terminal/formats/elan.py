"""ELAN's annotations (https://archive.mpi.nl/tla/elan): EAF 3.0, XML with a tier for each label.

Annotations of a tier can't overlap, so overlapping events of one label become one. Times are whole milliseconds. The
timelines of a video are told apart by the tiers' annotator. Scores are left out, since an annotation has no place for
them.
"""

from __future__ import annotations

import mimetypes
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from typing import BinaryIO
from urllib.parse import quote, unquote
from xml.etree import ElementTree

from errors import InvalidRequest
from terminal.formats.names import unused
from video.task_data import file_name
from video.timeline import Event, Observation, Timeline, without_overlaps

VERSION = "3.0"
SCHEMA = "http://www.mpi.nl/tools/elan/EAFv3.0.xsd"
XSI = "http://www.w3.org/2001/XMLSchema-instance"
MILLISECONDS = 1000
TIER_TYPE = "label"


def write(timelines: Sequence[Timeline], file: BinaryIO) -> None:
    """Writes a document with the timelines of one video."""
    root = ElementTree.Element(
        "ANNOTATION_DOCUMENT",
        {
            "AUTHOR": "",
            "DATE": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "FORMAT": VERSION,
            "VERSION": VERSION,
            "xmlns:xsi": XSI,
            "xsi:noNamespaceSchemaLocation": SCHEMA,
        },
    )
    _add_media(root, timelines[0].observation.video)
    slots = ElementTree.SubElement(root, "TIME_ORDER")
    tiers = [
        (timeline, label, [event for event in events if event.label == label])
        for timeline in timelines
        for events in [without_overlaps(timeline.observation.events, shortest=1 / MILLISECONDS)]
        for label in timeline.labels
    ]
    times = sorted({time for _, _, events in tiers for event in events for time in _milliseconds(event)})
    for number, time in enumerate(times, start=1):
        ElementTree.SubElement(slots, "TIME_SLOT", TIME_SLOT_ID=f"ts{number}", TIME_VALUE=str(time))
    slot = {time: f"ts{number}" for number, time in enumerate(times, start=1)}
    taken: set[str] = set()
    number = 0
    for timeline, label, events in tiers:
        source = timeline.observation.source
        name = unused(label if len(timelines) == 1 else f"{label}, {source}", taken)
        tier = ElementTree.SubElement(root, "TIER", LINGUISTIC_TYPE_REF=TIER_TYPE, TIER_ID=name, ANNOTATOR=source)
        for event in events:
            number += 1
            start, stop = (slot[time] for time in _milliseconds(event))
            annotation = ElementTree.SubElement(
                ElementTree.SubElement(tier, "ANNOTATION"),
                "ALIGNABLE_ANNOTATION",
                ANNOTATION_ID=f"a{number}",
                TIME_SLOT_REF1=start,
                TIME_SLOT_REF2=stop,
            )
            ElementTree.SubElement(annotation, "ANNOTATION_VALUE").text = label
    ElementTree.SubElement(
        root, "LINGUISTIC_TYPE", LINGUISTIC_TYPE_ID=TIER_TYPE, TIME_ALIGNABLE="true", GRAPHIC_REFERENCES="false"
    )
    ElementTree.indent(root)
    ElementTree.ElementTree(root).write(file, encoding="UTF-8", xml_declaration=True)


def _add_media(root: ElementTree.Element, video: str) -> None:
    header = ElementTree.SubElement(root, "HEADER", MEDIA_FILE="", TIME_UNITS="milliseconds")
    name = file_name(video)
    ElementTree.SubElement(
        header,
        "MEDIA_DESCRIPTOR",
        MEDIA_URL=video if "://" in video else f"file://{quote(video)}",
        MIME_TYPE=mimetypes.guess_type(name)[0] or "video/*",
        RELATIVE_MEDIA_URL=f"./{quote(name)}",  # where ELAN looks if the other isn't there
    )


def _milliseconds(event: Event) -> tuple[int, int]:
    return round(event.start * MILLISECONDS), round(event.stop * MILLISECONDS)


def read(file: BinaryIO) -> list[Observation]:
    """Reads the annotations that are aligned with the video. Those of one annotator make one observation.

    An annotation's value is the label, or where it has none, its tier's name. Annotations that depend on others are
    left out, since they have no times of their own.

    Raises:
        InvalidRequest: the document can't be read; the message names the tier.
    """
    try:
        root = ElementTree.parse(file).getroot()
    except (ElementTree.ParseError, UnicodeError, LookupError) as error:
        raise InvalidRequest(f"This isn't an annotation document of ELAN, because it isn't XML ({error}).") from error
    if root.tag != "ANNOTATION_DOCUMENT":
        raise InvalidRequest(f"This isn't an annotation document of ELAN: its root is <{root.tag}>.")
    units = root.find("HEADER[@TIME_UNITS]")
    if units is not None and units.get("TIME_UNITS") != "milliseconds":
        raise InvalidRequest(f"The times are {units.get('TIME_UNITS')}; only milliseconds can be read.")
    video, origin = _media(root)
    times = {slot.get("TIME_SLOT_ID"): slot.get("TIME_VALUE") for slot in root.iterfind("TIME_ORDER/TIME_SLOT")}
    found: dict[str, list[Event]] = {}
    for tier in root.iterfind("TIER"):
        events = list(_events(tier, times, origin))
        if events:
            found.setdefault(tier.get("ANNOTATOR", ""), []).extend(events)
    return [Observation(video, source, events) for source, events in found.items()]


def _media(root: ElementTree.Element) -> tuple[str, int]:
    """The video, and the moment in it at which the annotations' time begins, in milliseconds."""
    media = root.findall("HEADER/MEDIA_DESCRIPTOR")
    videos = [one for one in media if one.get("MIME_TYPE", "").startswith("video")] or media
    if not videos:
        raise InvalidRequest("No video is linked: link it in ELAN (Edit, Linked Files), and save.")
    url = videos[0].get("MEDIA_URL") or videos[0].get("RELATIVE_MEDIA_URL") or ""
    video = unquote(url.removeprefix("file://")) if url.startswith("file://") else url
    origin = videos[0].get("TIME_ORIGIN") or "0"
    try:
        return video, int(origin)
    except ValueError as error:
        raise InvalidRequest(f"TIME_ORIGIN of {url} must be milliseconds, not {origin!r}.") from error


def _events(tier: ElementTree.Element, times: dict[str | None, str | None], origin: int) -> Iterator[Event]:
    name = tier.get("TIER_ID", "")
    for annotation in tier.iterfind("ANNOTATION/ALIGNABLE_ANNOTATION"):
        label = (annotation.findtext("ANNOTATION_VALUE") or "").strip() or name
        where = f"Tier {name!r}, annotation {annotation.get('ANNOTATION_ID')} ({label!r})"
        try:
            start, stop = (
                (int(times[annotation.get(f"TIME_SLOT_REF{end}")]) + origin) / MILLISECONDS for end in (1, 2)
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidRequest(f"{where} isn't aligned with the video: it has no start or no end.") from error
        if not 0 <= start <= stop:
            raise InvalidRequest(f"{where} lasts from {start:g} to {stop:g} s.")
        yield Event(label, start, stop)
