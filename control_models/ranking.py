"""Order a project's tasks by how much their annotation would teach (`learning/order.py`)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from control_models.examples import ERRORS_OF_DATA
from control_models.tag import Tag
from control_models.videos import Videos
from errors import BackendError
from learning.order import Summary, comparable, distances, summary, teaching_order
from ml_backend.base import Ranked

logger = logging.getLogger(__name__)

# The first tasks of an order are examples of what isn't annotated yet: other tasks count as alike to the nearest of
# them or of the annotated ones. An annotator opens about so many between two trainings.
HEADS = 10


def rank(
    tag: Tag,
    videos: Videos,
    annotated: list[dict[str, Any]],
    tasks: list[dict[str, Any]],
    check: Callable[[], None],
) -> list[Ranked]:
    """Orders extracted tasks: those whose annotation would teach most come first.

    A task's cluster is the id of the task that it resembles most, of those that are annotated and the first of the
    order. So Label Studio's uncertainty sampling, which prefers clusters of which an annotator solved fewest tasks,
    comes to what resembles no annotated task first.

    Args:
        tag: the control tag.
        videos: its videos.
        annotated: the annotated tasks to compare with; those without cached features are left out.
        tasks: to order; those without cached features are left out.
        check: called now and then; what it raises ends the work.
    """

    def summarised(some: list[dict[str, Any]]) -> dict[int, Summary]:
        found = {task["id"]: _summary(tag, videos, task, check) for task in some}
        return {task_id: one for task_id, one in found.items() if one is not None}

    known, new = summarised(annotated), summarised(tasks)
    if not new:
        return []
    ids, known_ids = list(new), list(known)
    rows = comparable([*known.values(), *new.values()])
    known_rows, new_rows = rows[: len(known)], rows[len(known) :]
    order = teaching_order(new_rows, known_rows, check=check)
    heads = known_ids + [ids[index] for index in order[:HEADS]]
    nearest = distances(new_rows, rows[[*range(len(known)), *(len(known) + index for index in order[:HEADS])]])
    clusters = nearest.argmin(axis=1)
    return [Ranked(ids[index], heads[clusters[index]]) for index in order]


def _summary(tag: Tag, videos: Videos, task: dict[str, Any], check: Callable[[], None]) -> Summary | None:
    check()
    try:
        features = videos.cached(task)
        if features is None:
            return None
        sequence = tag.sequence(features, tag.frame_rate(task))
        return summary(sequence, sequence.layout) if sequence.shape[0] else None
    except BackendError:
        return None  # its page says why it can't be used
    except ERRORS_OF_DATA:
        logger.exception("Task %s has no place in the order", task.get("id"))
        return None
