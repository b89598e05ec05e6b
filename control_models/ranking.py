"""Order a project's tasks by how much their annotation would teach (`learning/order.py`)."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import numpy as np

from control_models.examples import ERRORS_OF_DATA
from control_models.tag import Tag
from control_models.videos import Videos
from errors import BackendError
from learning.dataset import FrameFeatures
from learning.order import comparable, distances, examples, summary, teaching_order
from learning.questions import chance_of_error
from ml_backend.base import Ranked
from progress import Progress
from utils.neural_nets import MultiLabelLSTM

logger = logging.getLogger(__name__)

# Of a video, from its middle: a thousand tasks are ordered in about ten seconds, however long their videos are.
PREDICTED_FRAMES = 1000


def ranked(
    tag: Tag,
    videos: Videos,
    classifier: MultiLabelLSTM,
    annotated: list[dict[str, Any]],
    tasks: list[dict[str, Any]],
    progress: Progress,
) -> list[Ranked]:
    """Orders tasks: those whose annotation would teach most come first. Those without cached features are left out.

    A task's cluster is the id of the task that it resembles most, of those that are annotated and of the examples
    of the others. So Label Studio's uncertainty sampling, which prefers clusters of which an annotator solved
    fewest tasks, begins with tasks that resemble no annotated one.

    Args:
        tag: the control tag.
        videos: its videos.
        classifier: its present one.
        annotated: the annotated tasks to compare with.
        tasks: to order, without annotations.
        progress: told the share done, in [0, 1].
    """
    known = {
        task["id"]: summary(sequence, sequence.layout)
        for task, sequence in _sequences(tag, videos, annotated, progress.part(0.0, 0.2))
    }
    new, uncertainty = {}, []
    for task, sequence in _sequences(tag, videos, tasks, progress.part(0.2, 0.9)):
        new[task["id"]] = summary(sequence, sequence.layout)
        uncertainty.append(_uncertainty(classifier, sequence, tag.frame_rate(task)))
    if not new:
        return []
    rows = comparable([*known.values(), *new.values()])
    chosen = examples(rows[len(known) :], rows[: len(known)], progress=progress.part(0.9, 1.0))
    ids = np.array([*known, *new])
    centres = [*range(len(known)), *(len(known) + index for index in chosen)]
    clusters = distances(rows[len(known) :], rows[centres]).argmin(axis=1)
    order = teaching_order(np.array(uncertainty), clusters, np.arange(len(centres)) < len(known))
    return [Ranked(int(ids[len(known) + index]), int(ids[centres[clusters[index]]])) for index in order]


def _sequences(
    tag: Tag, videos: Videos, tasks: list[dict[str, Any]], progress: Progress
) -> Iterator[tuple[dict[str, Any], Any]]:
    """Yields the tasks with cached features, and their features."""
    for _, task in progress.over(tasks):
        try:
            features = videos.cached(task)
            sequence = features and tag.sequence(features, tag.frame_rate(task))
        except BackendError:
            continue  # the task's page says why it can't be used
        except ERRORS_OF_DATA:
            logger.exception("Task %s has no place in the order", task.get("id"))
            continue
        if sequence is not None and sequence.shape[0]:
            yield task, sequence


def _uncertainty(classifier: MultiLabelLSTM, sequence: FrameFeatures, frame_rate: float) -> float:
    """The mean chance that a frame's labels aren't all right."""
    start = max(0, (sequence.shape[0] - PREDICTED_FRAMES) // 2)
    probs = classifier.predict(sequence[slice(start, start + PREDICTED_FRAMES)], frame_rate)
    return float(chance_of_error(probs).mean())
