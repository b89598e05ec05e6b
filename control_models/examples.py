"""Choose the annotated tasks that a model learns from, and read them as examples."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from control_models.tag import Tag
from control_models.videos import Videos
from errors import InvalidAnnotation, MediaError
from features.cache import VideoFeatures
from learning.dataset import Example, choose_videos
from ml_backend.context import Notes
from progress import UNTOLD, Progress

logger = logging.getLogger(__name__)

# Errors that unexpected data of a task can raise. They cost that task, not its project.
ERRORS_OF_DATA = (ValueError, TypeError, LookupError, ArithmeticError)


class Examples(NamedTuple):
    """The examples of a training.

    Attributes:
        examples: at least one, in order of their tasks' ids.
        unavailable: task id -> why the task is left out.
    """

    examples: list[Example]
    unavailable: dict[str, str]


class Chosen(NamedTuple):
    """The annotated tasks of a project that a training reads.

    Attributes:
        tasks: each `{"id", "data", "annotations"}`.
        stands_for: the number of the project's tasks that each of them stands for.
    """

    tasks: list[dict[str, Any]]
    stands_for: list[float]


def choose_tasks(tag: Tag, tasks: list[dict[str, Any]]) -> Chosen:
    """Chooses the tasks that a model learns from (`learning.dataset.choose_videos`), by their annotations alone. So a
    training of five thousand tasks takes as long as one of some hundred."""
    columns = tag.label_map
    shown = np.zeros((len(tasks), len(columns)), bool)
    changed = []
    for row, task in zip(shown, tasks, strict=True):
        for annotation in task["annotations"]:
            row[[columns[label] for label in tag.shows(annotation["result"])]] = True
        changed.append(max((str(a.get("updated_at", "")), a["id"]) for a in task["annotations"]))
    order = np.empty(len(tasks), int)
    order[sorted(range(len(tasks)), key=changed.__getitem__)] = np.arange(len(tasks))
    chosen, stands_for = choose_videos(shown, order)
    return Chosen([tasks[index] for index in chosen], stands_for.tolist())


def recalled(tag: Tag, task: dict[str, Any], probs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Makes a prediction [num_rows, num_labels] agree with the task's annotations: annotated rows become 0 or 1, as at
    least half of the annotators drew them. Returns it and the annotated rows, [num_rows] bool.

    A model that generalises contradicts its annotations in places, and an annotator who opens an annotated video again
    would see that as an error.
    """
    drawn, weight = np.zeros(probs.shape, np.float32), np.zeros((len(probs), 1), np.float32)
    for annotation in task["annotations"]:
        labels, reviewed, _ = tag.drawn(annotation["result"], len(probs))
        if labels is not None:
            counted = np.ones_like(weight) if reviewed is None else reviewed[:, None]
            drawn += counted * labels
            weight += counted
    return np.where(weight > 0, 2 * drawn >= weight, probs).astype(probs.dtype), weight[:, 0] > 0


def read_examples(
    tag: Tag,
    videos: Videos,
    notes: Notes,
    tasks: list[dict[str, Any]],
    progress: Progress = UNTOLD,
    stands_for: list[float] | None = None,
) -> Examples:
    """Reads annotated tasks, each once, and extracts missing features.

    A task or a region that can't be used is left out, and a note on the task says why.

    Args:
        tag: interprets annotations.
        videos: the tag's videos.
        notes: for the user.
        tasks: each `{"id", "data", "annotations": [{"id", "result"}]}`.
        progress: called with the share done, in [0, 1].
        stands_for: as of `choose_tasks`; None is 1 for each.

    Raises:
        InvalidAnnotation: there is no annotated video.
        MediaError: no annotated video can be fetched.
    """
    reader = _Reader(tag, videos)
    reader.read(list(zip(tasks, stands_for or [1.0] * len(tasks), strict=True)), progress)
    notes.say_all([task["id"] for task in tasks], reader.notes)
    return reader.result()


class _Reader:
    def __init__(self, tag: Tag, videos: Videos) -> None:
        self._tag = tag
        self._videos = videos
        self._examples: list[Example] = []
        self._unavailable: dict[str, str] = {}
        self.notes: dict[tuple[Any, str], None] = {}  # an ordered set of task id and text

    def read(self, tasks: list[tuple[dict[str, Any], float]], progress: Progress) -> None:
        # Cached ones first. In another order, an extraction could drop features that are still to be read, and every
        # training of more features than CACHE_SIZE_LIMIT would extract them all.
        missing = []
        with self._videos.holding_connection():
            for number, task in enumerate(tasks, start=1):
                if not self._read(*task, only_cached=True):
                    missing.append(task)
                progress((number - len(missing)) / len(tasks))
        for part, task in progress.part(1 - len(missing) / len(tasks), 1.0).over(missing):
            self._read(*task, only_cached=False, progress=part)

    def result(self) -> Examples:
        if self._examples:
            return Examples(sorted(self._examples, key=lambda example: example.task_id), self._unavailable)
        if self._unavailable:
            raise MediaError(f"No annotated video can be fetched: {next(iter(self._unavailable.values()))}")
        raise InvalidAnnotation("There is no annotation to train on. Annotate a video and submit it.")

    def _read(self, task: dict[str, Any], stands_for: float, only_cached: bool, progress: Progress = UNTOLD) -> bool:
        """Adds a task's examples, or why there are none. Returns False where `only_cached`, and its features aren't."""
        try:
            features = self._videos.cached(task) if only_cached else self._videos.extracted(task, progress)
            if features is None:
                return False
            self._add(task, stands_for, features)
        except MediaError as error:
            if only_cached:
                return False  # tried again later, with the others that aren't cached
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
        self.notes[task.get("id"), text] = None

    def _add(self, task: dict[str, Any], stands_for: float, features: VideoFeatures) -> None:
        for text in self._videos.remarks(task, features):
            self._note(task, text)
        frame_rate = self._tag.frame_rate(task)
        sequence = self._tag.sequence(features, frame_rate)
        added: list[Example] = []
        for annotation in task["annotations"]:
            labels, reviewed, remarks = self._tag.drawn(annotation["result"], sequence.shape[0])
            for remark in remarks:
                self._note(task, f"Annotation {annotation['id']} {remark}")
            if labels is not None:
                added.append(
                    Example(task["id"], sequence, labels, 1.0, reviewed, frame_rate, stands_for, annotation["id"])
                )
        self._examples += [replace(example, weight=1 / len(added)) for example in added]
