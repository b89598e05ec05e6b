"""Apply Label Studio's webhook events to the stored state, and tell what work follows."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, NamedTuple

from errors import BackendError, InvalidRequest
from ml_backend.registry import ModelRegistry
from ml_backend.store import Store
from ml_backend.web.schemas import Annotation, Project, Task, WebhookRequest

logger = logging.getLogger(__name__)


class Work(NamedTuple):
    """The work that follows from an event.

    Attributes:
        train: whether to train, because the model is behind its data.
        reset: whether the training replaces the present model in any case.
        reconcile: whether to fetch annotations from Label Studio that the event doesn't contain.
        extract: tasks whose features to extract ahead of need.
        refresh: whether to store predictions of other tasks, since one of the next ones was annotated, or the config
            may say so.
    """

    train: bool = False
    reset: bool = False
    reconcile: bool = False
    extract: tuple[dict[str, Any], ...] = ()
    refresh: bool = False


class Events:
    """Applies webhook events to the store.

    Args:
        store: the state.
        registry: gives the projects' models.
    """

    def __init__(self, store: Store, registry: ModelRegistry) -> None:
        self._store = store
        self._registry = registry
        self._handlers: dict[str, Callable[[Project, WebhookRequest], Work]] = {
            "ANNOTATION_CREATED": self._annotation_saved,
            "ANNOTATION_UPDATED": self._annotation_saved,
            "ANNOTATIONS_CREATED": self._annotations_created,
            "ANNOTATION_DELETED": self._annotations_deleted,
            "ANNOTATIONS_DELETED": self._annotations_deleted,
            "TASKS_CREATED": self._tasks_created,
            "TASKS_DELETED": self._tasks_deleted,
            "PROJECT_UPDATED": self._project_updated,
            "PROJECT_DELETED": self._project_deleted,
            "START_TRAINING": self._start_training,
        }

    def knows(self, action: str) -> bool:
        """Whether the action is one that is handled here."""
        return action in self._handlers

    def apply(self, request: WebhookRequest) -> Work:
        """Stores an event's content.

        Raises:
            InvalidRequest: a key that the action needs is missing.
            InvalidConfig, EncoderError: the labeling config can't be used. The annotation is stored all the same, and
                learnt once the config can be used.
        """
        project = _needed(request.project, "project", request)
        return self._handlers[request.action](project, request)

    def _annotation_saved(self, project: Project, request: WebhookRequest) -> Work:
        annotation = _needed(request.annotation, "annotation", request)
        task = _needed(request.task, "task", request)
        return self._save(project, request, [(task, annotation)])

    def _annotations_created(self, project: Project, request: WebhookRequest) -> Work:
        tasks = {task.id: task for task in request.tasks} | ({request.task.id: request.task} if request.task else {})
        pairs = []
        for annotation in request.annotations:
            task_id = (annotation.model_extra or {}).get("task")
            task = (tasks.get(task_id) or self._stored_task(project.id, task_id)) if isinstance(task_id, int) else None
            if task is not None:
                pairs.append((task, annotation))
        # Bulk imports name only the task's id. The data of an unknown task is fetched from Label Studio.
        return self._save(project, request, pairs)._replace(reconcile=len(pairs) < len(request.annotations))

    def _stored_task(self, project_id: str, task_id: int) -> Task | None:
        data = self._store.task_data(project_id, task_id)
        return None if data is None else Task(id=task_id, data=data)

    def _save(self, project: Project, request: WebhookRequest, pairs: list[tuple[Task, Annotation]]) -> Work:
        config_error: BackendError | None = None
        train_every = 1
        try:
            train_every = self._registry.get(project.id, project.label_config).train_every
        except InvalidRequest:
            raise
        except BackendError as error:  # the config or its encoder can't be used now
            config_error = error
        _check_ids(task for task, _ in pairs)
        changed = self._store.save_annotations(
            project.id,
            project.label_config,
            [(task.model_dump(), annotation.model_dump()) for task, annotation in pairs],
            request.action,
            train_every,
        )
        if config_error is not None:
            raise config_error
        return self._follow(project, changed)

    def _follow(self, project: Project, changed: bool) -> Work:
        """The work that follows from changed annotations: a training, or others become the next tasks."""
        train = changed and project.id in self._store.projects_behind()
        return Work(train=train, refresh=changed and not train)

    def _annotations_deleted(self, project: Project, request: WebhookRequest) -> Work:
        ids = [a.id for a in [*request.annotations, *([request.annotation] if request.annotation else [])]]
        train_every = self._registry.train_every(project.id, project.label_config)
        return self._changed(project, request, self._store.delete_annotations(project.id, ids, train_every))

    def _tasks_created(self, project: Project, request: WebhookRequest) -> Work:
        self._store.update_project(project.id, project.label_config)
        return Work(extract=tuple({"id": task.id, "data": task.data} for task in request.tasks))

    def _tasks_deleted(self, project: Project, request: WebhookRequest) -> Work:
        _check_ids(request.tasks)
        ids = [task.id for task in request.tasks]
        train_every = self._registry.train_every(project.id, project.label_config)
        return self._changed(project, request, self._store.delete_tasks(project.id, ids, train_every))

    def _project_updated(self, project: Project, request: WebhookRequest) -> Work:
        changed = self._store.update_project(project.id, project.label_config)
        if changed:
            self._registry.get(project.id)  # raises where the new config can't be used
        if not changed:
            return Work()
        behind = project.id in self._store.projects_behind()
        return self._changed(project, request, behind)._replace(refresh=not behind)

    def _changed(self, project: Project, request: WebhookRequest, changed: bool) -> Work:
        if changed:
            self._store.note_event(project.id, request.action)
        return self._follow(project, changed)

    def _project_deleted(self, project: Project, request: WebhookRequest) -> Work:
        same = self._store.numbered(project.identity.number)
        if len(same) > 1 and project.created_at is None:  # Label Studio sends only the number
            logger.warning(
                "A project %s was deleted in one of %d Label Studios. None is deleted: Label Studio doesn't say which.",
                project.id,
                len(same),
            )
            return Work()
        with suppress(BackendError):
            self._registry.get(project.id).forget()
        self._store.delete_project(project.id)
        return Work()

    def _start_training(self, project: Project, request: WebhookRequest) -> Work:
        self._store.update_project(project.id, project.label_config)
        self._registry.get(project.id)  # raises where the config can't be used
        self._store.note_event(project.id, request.action)
        return Work(train=True, reset=True, reconcile=True)


def _check_ids(tasks: Iterable[Task]) -> None:
    if any(task.id is None for task in tasks):
        raise InvalidRequest("task.id is missing.")


def _needed(value: Any, key: str, request: WebhookRequest) -> Any:
    if value is None:
        raise InvalidRequest(f"{request.action} needs the key {key!r}.")
    return value
