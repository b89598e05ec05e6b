"""Convert Label Studio's timeline regions to arrays of frames, and back. Pure NumPy, without I/O.

Label Studio counts labeling frames from 1 and includes both ends of a range; row `f - 1` of an array is frame `f`.

>>> region = {"type": "timelinelabels", "value": {"ranges": [{"start": 2, "end": 3}], "timelinelabels": ["Ball"]}}
>>> labels, used = convert_timelinelabels_to_probs([region], {"Ball": 0, "Goal": 1}, max_frame=4)
>>> labels.tolist(), used
([[0.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 0.0]], {'Ball'})
>>> convert_probs_to_timelinelabels(labels, {"Ball": 0, "Goal": 1}, "tl")[0]["value"]
{'ranges': [{'start': 2, 'end': 3}], 'timelinelabels': ['Ball']}
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from errors import InvalidAnnotation
from learning.events import segments

REGION_TYPE = "timelinelabels"
# 64 bits of a hash; a collision among a thousand regions has a probability below 1e-13.
REGION_ID_BYTES = 8
MAX_FRAME = 2**53  # numbers beyond aren't exact in JavaScript, nor in floating point

Region = dict[str, Any]


def convert_timelinelabels_to_probs(
    regions: Iterable[Region],
    label_map: Mapping[str, int],
    max_frame: int | None = None,
    from_name: str | None = None,
) -> tuple[np.ndarray, set[str]]:
    """Marks the frames of an annotation's timeline regions.

    Results of another type than `timelinelabels` are ignored. A region may have several ranges and several labels, and
    regions may overlap. Frames beyond `max_frame` are cut off. Frame 0, which a seek to the very beginning can give, is
    taken for frame 1. A region without labels or ranges marks nothing.

    Args:
        regions: the annotation's `result` list.
        label_map: label -> column.
        max_frame: number of labeling frames of the video; None for the last end of a range.
        from_name: takes only the regions of this control tag; None for all.

    Returns:
        labels_array: float32 [num_frames, num_labels], 1 where a frame has the label, else 0.
        used_labels: the labels that at least one frame has.

    Raises:
        InvalidAnnotation: a label isn't in `label_map`, or a region is malformed; the message names it.
    """
    marks = [
        mark
        for region in regions
        if region.get("type", REGION_TYPE) == REGION_TYPE
        and (from_name is None or region.get("from_name") == from_name)
        for mark in region_ranges(region)
    ]
    unknown = {label for label, _, _ in marks} - label_map.keys()
    if unknown:
        raise InvalidAnnotation(
            f"The annotation has labels that the labeling config doesn't: {_names(unknown)}. The config's labels are "
            f"{_names(label_map)}. Rename them in the annotation or add them to the config."
        )
    num_frames = max((end for _, _, end in marks), default=0) if max_frame is None else max_frame
    num_labels = max(label_map.values(), default=-1) + 1
    labels_array = np.zeros((num_frames, num_labels), dtype=np.float32)
    used_labels = set()
    for label, start, end in marks:
        if start <= num_frames:
            labels_array[start - 1 : end, label_map[label]] = 1
            used_labels.add(label)
    return labels_array, used_labels


def convert_probs_to_timelinelabels(
    probs: ArrayLike,
    label_mapping: Mapping[str, int],
    from_name: str,
    score_threshold: float | Mapping[str, float] = 0.5,
    to_name: str = "video",
    labels: ArrayLike | None = None,
) -> list[Region]:
    """Joins consecutive frames at or above the threshold to regions, one for each label and run of frames.

    A region's `score` is the mean probability of its frames. Its `id` follows from `from_name`, label and range, so
    that equal input gives equal ids, and the regions of several control tags fit in one result.

    Args:
        probs: [num_frames, num_labels], in [0, 1]; booleans and 0/1 labels too.
        label_mapping: label -> column of `probs`.
        from_name: name of the control tag.
        score_threshold: a threshold for all labels, or label -> threshold.
        to_name: name of the video tag.
        labels: [num_frames, num_labels] bool, the labels of each frame; None for those at or above the threshold.

    Returns:
        Label Studio regions, sorted by start, then in the order of `label_mapping`. Plain Python values.

    Raises:
        ValueError: `probs` isn't two-dimensional, or has NaN or values outside [0, 1].
    """
    probs = np.asarray(probs)
    if probs.ndim != 2:
        raise ValueError(f"probs must be [num_frames, num_labels], not of shape {probs.shape}")
    if not np.all((probs >= 0) & (probs <= 1)):
        raise ValueError("probs must lie in [0, 1]; they hold NaN or values outside")
    regions = []
    for label, column in label_mapping.items():
        threshold = score_threshold[label] if isinstance(score_threshold, Mapping) else score_threshold
        is_on = probs[:, column] >= threshold if labels is None else np.asarray(labels)[:, column]
        for start, end in segments(is_on):
            score = float(probs[start:end, column].mean(dtype=np.float64))
            regions.append(_region(label, start + 1, end, score, from_name, to_name))
    return sorted(regions, key=lambda region: region["value"]["ranges"][0]["start"])


def _region(label: str, start: int, end: int, score: float, from_name: str, to_name: str) -> Region:
    identity = repr((from_name, label, start, end)).encode()
    return {
        "id": hashlib.blake2b(identity, digest_size=REGION_ID_BYTES).hexdigest(),
        "type": REGION_TYPE,
        "from_name": from_name,
        "to_name": to_name,
        "value": {"ranges": [{"start": start, "end": end}], "timelinelabels": [label]},
        "score": score,
    }


def usable_regions(regions: Iterable[Any], from_name: str | None = None) -> tuple[list[Region], list[str]]:
    """Returns an annotation's usable timeline regions, and a sentence about each of the others.

    Args:
        regions: the annotation's `result` as Label Studio has it, which may hold anything that was imported.
        from_name: takes only the regions of this control tag; None for all.
    """
    usable, faults = [], []
    for region in regions:
        if not isinstance(region, dict):
            faults.append(f"A region is {str(region)[:50]!r} instead of an object. Delete it or draw it again.")
            continue
        if region.get("type", REGION_TYPE) != REGION_TYPE or from_name not in (None, region.get("from_name")):
            continue
        try:
            list(region_ranges(region))
        except InvalidAnnotation as error:
            faults.append(str(error))
        else:
            usable.append(region)
    return usable, faults


def region_ranges(region: Region) -> Iterator[tuple[str, int, int]]:
    """Yields (label, start, end) for each label and range of a timeline region, 1-based, both ends included.

    Raises:
        InvalidAnnotation: the region is malformed.
    """
    value = region.get("value")
    if not isinstance(value, dict) or not isinstance(value.get("ranges"), list):
        raise _malformed(region, "has no list of ranges")
    labels = value.get("timelinelabels") or []
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise _malformed(region, f"has labels that aren't a list of names: {labels!r}")
    for frame_range in value["ranges"]:
        if not isinstance(frame_range, dict) or not all(_is_frame(frame_range.get(key)) for key in ("start", "end")):
            raise _malformed(region, f"has a range whose start and end aren't frame numbers: {frame_range!r}")
        start, end = (max(int(frame_range[key]), 1) for key in ("start", "end"))
        if start > end:
            raise _malformed(region, f"has a range that starts at frame {start}, after its end at frame {end}")
        for label in labels:
            yield label, start, end


def _is_frame(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and 0 <= value < MAX_FRAME and value % 1 == 0


def _malformed(region: Region, fault: str) -> InvalidAnnotation:
    return InvalidAnnotation(f"Region {region.get('id')!r} {fault}. Delete it or draw it again.")


def _names(labels: Iterable[str]) -> str:
    return ", ".join(repr(label) for label in sorted(labels))
