"""The annotations of a project: which of them a model learns from, as examples, and what can't be used."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from errors import InvalidAnnotation, MediaError
from features.cache import VideoFeatures
from features.sequence import FeatureSequence
from learning.dataset import Example, choose_videos
from ml_backend.base import Progress
from utils.converter import Region, convert_timelinelabels_to_probs, usable_regions

if TYPE_CHECKING:
    from control_models.timeline_labels import TimelineLabelsModel

logger = logging.getLogger(__name__)

# What the data of one task can raise in code that expects other data: its own loss, and not its project's.
ERRORS_OF_DATA = (ValueError, TypeError, LookupError, ArithmeticError)


class Examples(NamedTuple):
    """What a training learns from.

    Attributes:
        examples: in order of their tasks' ids; at least one.
        unavailable: task id -> why the task is left out.
    """

    examples: list[Example]
    unavailable: dict[str, str]


class Chosen(NamedTuple):
    """What is learnt from of a project's annotated tasks.

    Attributes:
        tasks: of `{"id", "data", "annotations"}`.
        stands_for: how many of the project's tasks each of them stands for.
    """

    tasks: list[dict[str, Any]]
    stands_for: list[float]


def choose_tasks(model: TimelineLabelsModel, tasks: list[dict[str, Any]]) -> Chosen:
    """The tasks of many that a model learns from (`learning.dataset.choose_videos`): a training of five thousand takes
    as long as one of some hundred. Only annotations are looked at, no video."""
    columns = model.label_map
    shown = np.zeros((len(tasks), len(columns)), bool)
    changed = []
    for row, task in zip(shown, tasks, strict=True):
        for annotation in task["annotations"]:
            regions, _ = usable_regions(annotation["result"], model.from_name)
            row[[columns[label] for label in _labels(regions) if label in columns]] = True
        changed.append(max((str(a.get("updated_at", "")), a["id"]) for a in task["annotations"]))
    order = np.empty(len(tasks), int)
    order[sorted(range(len(tasks)), key=changed.__getitem__)] = np.arange(len(tasks))
    chosen, stands_for = choose_videos(shown, order)
    return Chosen([tasks[index] for index in chosen], stands_for.tolist())


def recalled(model: TimelineLabelsModel, task: dict[str, Any], probs: np.ndarray) -> np.ndarray:
    """A prediction [num_frames, num_labels] that agrees with the task's annotations: 0 or 1 in the frames that were
    annotated, as at least half of the annotators drew it.

    A model that generalises contradicts its own annotations here and there, and an annotator who opens an annotated
    video again sees that as an error.
    """
    drawn, weight = np.zeros(probs.shape, np.float32), np.zeros((len(probs), 1), np.float32)
    for annotation in task["annotations"]:
        regions, _ = usable_regions(annotation["result"], model.from_name)
        reviewed = _reviewed(regions, model, len(probs))[:, None]
        drawn += reviewed * _marks(regions, model.label_map, len(probs))
        weight += reviewed
    return np.where(weight > 0, 2 * drawn >= weight, probs).astype(probs.dtype)


def read_examples(
    model: TimelineLabelsModel,
    tasks: list[dict[str, Any]],
    progress: Progress | None,
    stands_for: list[float] | None = None,
) -> Examples:
    """Reads annotated tasks, each once; extracts the features that aren't cached.

    A task or a region that can't be used is left out, and a note of the task says why.

    Args:
        model: of the control tag.
        tasks: `{"id", "data", "annotations": [{"id", "result"}]}`.
        progress: told the share done, in [0, 1].
        stands_for: as of `choose_tasks`; 1 each where None.

    Raises:
        InvalidAnnotation: there is no annotated video.
        MediaError: no annotated video can be had.
    """
    counts = stands_for or [1.0] * len(tasks)
    return _Reader(model, progress).read(list(zip(tasks, counts, strict=True)))


class _Reader:
    def __init__(self, model: TimelineLabelsModel, progress: Progress | None) -> None:
        self._model = model
        self._progress = progress
        self._examples: list[Example] = []
        self._unavailable: dict[str, str] = {}
        self._notes: dict[tuple[Any, str], None] = {}  # an ordered set of task id and text

    def read(self, tasks: list[tuple[dict[str, Any], float]]) -> Examples:
        # Cached ones first: in another order, each that is extracted could drop one that is still to be read, and of
        # features beyond CACHE_SIZE_LIMIT every training would extract them all.
        missing = []
        done = 0
        with self._model.backend.holding_connection():
            for task, stands_for in tasks:
                if self._read(task, stands_for, only_cached=True):
                    done += 1
                    self._report(done / len(tasks))
                else:
                    missing.append((task, stands_for))
        for task, stands_for in missing:
            self._read(task, stands_for, only_cached=False)
            done += 1
            self._report(done / len(tasks))
        self._model.backend.note_all(self._notes)
        if self._examples:
            return Examples(sorted(self._examples, key=lambda example: example.task_id), self._unavailable)
        if self._unavailable:
            raise MediaError(f"No annotated video can be had: {next(iter(self._unavailable.values()))}")
        raise InvalidAnnotation("There is no annotation to train on: annotate a video and submit it.")

    def _report(self, share: float) -> None:
        if self._progress:
            self._progress(share)

    def _read(self, task: dict[str, Any], stands_for: float, only_cached: bool) -> bool:
        """Adds a task's examples, or why there are none. False where its features aren't cached and were to be."""
        try:
            features = self._model.cached_features(task) if only_cached else self._model.prepared_features(task)
            if features is None:
                return False
            self._add(task, stands_for, features)
        except MediaError as error:
            if only_cached:
                return False  # tried once, with the others that aren't at hand
            self._leave_out(task, str(error))
        except ERRORS_OF_DATA as error:
            logger.exception("Task %s is left out of the training", task.get("id"))
            self._leave_out(task, f"The task can't be used ({type(error).__name__}: {error}). See the worker's log.")
        return True

    def _leave_out(self, task: dict[str, Any], reason: str) -> None:
        logger.warning("Task %s is left out of the training: %s", task.get("id"), reason)
        self._unavailable[str(task.get("id"))] = reason
        self._note(task, f"Left out of the training: {reason}")

    def _note(self, task: dict[str, Any], text: str) -> None:
        self._notes[task.get("id"), text] = None

    def _add(self, task: dict[str, Any], stands_for: float, features: VideoFeatures) -> None:
        model = self._model
        for text in model.remarks(task, features):
            self._note(task, text)
        sequence = FeatureSequence(features, model.labeling_index(task, features))
        frame_rate = model.labeling_frame_rate(task)
        weight = 1 / len(task["annotations"])
        added = []
        for annotation in task["annotations"]:
            regions = self._regions(task, annotation)
            labels = _marks(regions, model.label_map, len(sequence))
            mask: np.ndarray | None = None
            if model.parameters.model_reviewed_label is not None:
                mask = _reviewed(regions, model, len(sequence))
                if not mask.any():
                    self._note(task, f"Annotation {annotation['id']} marks no frame as reviewed: it isn't used.")
                    continue
            added.append(Example(task["id"], sequence, labels, weight, mask, frame_rate, stands_for))
        self._examples += added

    def _regions(self, task: dict[str, Any], annotation: dict[str, Any]) -> list[Region]:
        """The annotation's regions of the control tag that can be read; what can't be used is noted."""
        regions, faults = usable_regions(annotation["result"], self._model.from_name)
        for fault in faults:
            self._note(task, f"Annotation {annotation['id']} is used without a region: {fault}")
        unknown = sorted({label for label in _labels(regions) if label not in self._model.control.labels})
        if unknown:
            names = ", ".join(map(repr, unknown))
            self._note(
                task, f"Annotation {annotation['id']} is used without {names}: the labeling config has no such label."
            )
        return regions


def _labels(regions: list[Region]) -> Iterator[str]:
    for region in regions:
        yield from region["value"].get("timelinelabels") or []


def _reviewed(regions: list[Region], model: TimelineLabelsModel, num_frames: int) -> np.ndarray:
    """[num_frames] bool: the frames that an annotation says something of."""
    label = model.parameters.model_reviewed_label
    return np.ones(num_frames, bool) if label is None else _marks(regions, {label: 0}, num_frames)[:, 0] > 0


def _marks(regions: list[Region], columns: dict[str, int], num_frames: int) -> np.ndarray:
    """[num_frames, labels], 1 where a label is on; labels without a column are left out."""
    return convert_timelinelabels_to_probs(_with_labels(regions, columns), columns, num_frames)[0]


def _with_labels(regions: list[Region], labels: Collection[str]) -> Iterator[Region]:
    for region in regions:
        value = region["value"]
        known = [label for label in value.get("timelinelabels") or [] if label in labels]
        yield {**region, "value": {**value, "timelinelabels": known}}
