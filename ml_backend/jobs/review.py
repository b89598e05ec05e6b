"""Compare a project's annotations with models that were trained without their videos."""

from __future__ import annotations

import json
from typing import Any

from errors import InvalidAnnotation, InvalidRequest
from ml_backend.base import LabelStudioMLBase
from ml_backend.store import Store
from ml_backend.store.tables import now
from progress import UNTOLD, Progress
from study.review import Doubt, doubts

RESULT = "review"  # the key of the last result among the project's values
# So many models are trained, each on the videos of the others' parts.
FOLDS = 10
# More videos than a training learns at most. The latest annotated ones are compared.
MAX_VIDEOS = 300
# Nobody looks at more before the annotations are corrected, and compared again.
MAX_DOUBTS = 200


def review(model: LabelStudioMLBase, store: Store, progress: Progress = UNTOLD) -> dict[str, Any]:
    """Compares and stores the result.

    Returns:
        at, the time in UTC; revision, the project's data revision; videos, the number compared; left_out, of those that
        weren't; doubts, each as of `Doubt`, the strongest first.

    Raises:
        InvalidRequest: the project has no trainable timeline.
        InvalidAnnotation: fewer than two different videos are annotated.
        MediaError: no annotated video can be fetched.
    """
    project = store.project(model.project_id)
    parts = [part for part in model.control_models if part.has_timeline and part.tag.parameters.model_trainable]
    if project is None or not parts:
        raise InvalidRequest(
            f"Project {model.project_id} has no timeline that is trained, so there is no model to compare with."
        )
    annotated = store.annotated_tasks(project.id)
    tasks = sorted(annotated, key=_changed, reverse=True)[:MAX_VIDEOS]
    tasks.sort(key=lambda task: task["id"])
    if len(tasks) < 2:
        raise InvalidAnnotation("Annotate at least two different videos: each is compared with a model of the others.")
    ids = [task["id"] for task in tasks]
    folds = [set(ids[start::FOLDS]) for start in range(min(FOLDS, len(ids)))]
    found: list[Doubt] = []
    for share, part in progress.over(parts):
        found += doubts(part.mode.held_out(tasks, folds, share))
    found.sort(key=lambda doubt: -doubt.evidence)
    result = {
        "at": now().isoformat(timespec="seconds"),
        "revision": project.revision,
        "videos": len(tasks),
        "left_out": len(annotated) - len(tasks),
        "doubts": [doubt.json() for doubt in found[:MAX_DOUBTS]],
    }
    store.set_value(project.id, RESULT, json.dumps(result))
    return result


def last_review(store: Store, project_id: str) -> dict[str, Any] | None:
    """The last stored result, with its doubts as `Doubt`; None where there is none."""
    stored = store.get_value(project_id, RESULT)
    if stored is None:
        return None
    result = json.loads(stored)
    return result | {"doubts": [Doubt.of_json(doubt) for doubt in result["doubts"]]}


def _changed(task: dict[str, Any]) -> str:
    return max(str(annotation["updated_at"]) for annotation in task["annotations"])
