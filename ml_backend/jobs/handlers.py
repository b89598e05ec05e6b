"""Do each kind of job."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from errors import (
    BackendError,
    CacheUnwritable,
    DatabaseUnavailable,
    InvalidRequest,
    InvalidTask,
    MediaError,
    ModelsUnwritable,
    UnreadableVideo,
)
from ml_backend.base import LabelStudioMLBase
from ml_backend.jobs.deliveries import Deliveries, OtherLabelStudio
from ml_backend.jobs.leases import JobStopped, Run, Stop
from ml_backend.jobs.queue import LATER, PRIORITY_BATCH, TRAININGS, Jobs
from ml_backend.jobs.refresh import Refresh
from ml_backend.jobs.review import review
from ml_backend.label_studio import client as label_studio
from ml_backend.label_studio.client import Connection, LabelStudioError, RequestRefused
from ml_backend.label_studio.webhook_secret import WebhookSecrets
from ml_backend.store.jobs import PRIORITY_AHEAD
from ml_backend.store.tables import Job, JobKind, Project, QueueName, TrainingStatus
from progress import Progress

logger = logging.getLogger(__name__)

# After a transient error a job is tried again after this time, and then after twice as long each time.
FIRST_RETRY = timedelta(seconds=10)
LONGEST_RETRY = timedelta(hours=1)
# That takes about half a day.
MAX_RETRIES = 20


def retry_delay(retries: int) -> timedelta:
    """The time before the next try, after so many tries."""
    return min(FIRST_RETRY * 2 ** min(retries, 16), LONGEST_RETRY)


# After a video was read, a refresh waits for so many times what the last one took: hundreds of videos that are read one
# after the other are ranked in a tenth of the time.
REFRESH_PAUSES = 9

# Errors that aren't transient: trying again doesn't help.
LASTING = (UnreadableVideo, InvalidTask, OtherLabelStudio, RequestRefused)


@dataclass(frozen=True)
class Handler:
    """How a kind of job is done.

    Attributes:
        do: does the job and returns JSON.
        transient: errors after which the job is tried again; any other error ends it.
    """

    do: Callable[[Run], dict[str, Any]]
    transient: tuple[type[Exception], ...]


class Handlers:
    """Does jobs by their kind.

    Args:
        jobs: for adding the work that follows.
    """

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs
        self._store = jobs.store
        self._registry = jobs.registry
        self._secrets = WebhookSecrets(jobs.store)
        self._deliveries = Deliveries(jobs)
        self._refresh_took: dict[str, float] = {}  # by project, seconds
        # OSError: a full disk, or a read-only folder.
        unwritable = (DatabaseUnavailable, CacheUnwritable, ModelsUnwritable, OSError)
        unreachable = (MediaError, LabelStudioError, *unwritable)
        self._table: dict[JobKind, Handler] = {
            JobKind.TRAIN: Handler(self._train, unreachable),
            JobKind.RESET: Handler(self._train, unreachable),
            JobKind.RECONCILE: Handler(self._reconcile, (Exception,)),
            # Whoever waits for the features asks again.
            JobKind.EXTRACT: Handler(self._extract, (DatabaseUnavailable,)),
            JobKind.EXTRACT_MANY: Handler(self._extract_many, (DatabaseUnavailable,)),
            JobKind.DELIVER: Handler(self._deliveries.deliver, unreachable),
            JobKind.DELIVER_MANY: Handler(self._deliver_many, (DatabaseUnavailable,)),
            JobKind.REFRESH: Handler(self._refresh, unreachable),
            JobKind.REVIEW: Handler(self._review, (DatabaseUnavailable,)),
        }

    def do(self, run: Run) -> dict[str, Any]:
        """Does a job. One of a task that was deleted since has nothing to do."""
        if run.job.task_id is not None and self._store.is_deleted(run.job.project_id, run.job.task_id):
            return {}
        return self._table[run.job.kind].do(run)

    def is_transient(self, job: Job, error: Exception) -> bool:
        """Whether a job that failed with this error is tried again."""
        transient = isinstance(error, self._table[job.kind].transient) and not isinstance(error, LASTING)
        return transient and job.retries < MAX_RETRIES

    # -- training

    def queue_of(self, job: Job) -> QueueName:
        """The queue of a job. A training that must extract features first goes to the extractions, so that it doesn't
        hold up other projects' trainings."""
        if job.kind not in TRAININGS:
            return job.queue
        try:
            model = self._registry.get(job.project_id)
        except BackendError:
            return job.queue  # the job ends at once
        try:
            extracted = model.can_train_at_once(self._store.annotated_tasks(job.project_id))
        except MediaError:
            extracted = False  # an attempt to reach a video takes time too
        except Exception:
            extracted = True  # the training raises it again, and its failure is recorded
        return QueueName.TRAIN if extracted else QueueName.EXTRACT

    def _train(self, run: Run) -> dict[str, Any]:
        """Trains a project's model on its latest data revision, and records the training.

        Returns:
            The result of the model's `fit`.
        """
        project = self._store.project(run.job.project_id)
        if project is None:
            raise InvalidRequest(f"Project {run.job.project_id} isn't known: connect this backend to it first.")
        try:
            return self._train_project(project, run)
        except Exception as error:
            cancelled = isinstance(error, JobStopped) and error.reason == Stop.CANCELLED
            if cancelled or not (isinstance(error, JobStopped) or self.is_transient(run.job, error)):
                run.persist(lambda: self._store.give_up_training(project.id, project.revision))
            raise

    def _train_project(self, project: Project, run: Run) -> dict[str, Any]:
        model = self._registry.get(project.id)
        if run.job.kind == JobKind.TRAIN and project.wanted_revision <= project.trained_revision:
            latest = self._store.latest_training(project.id)
            metrics = (latest.metrics if latest else None) or {}
            if not self._came_back(project, model, metrics, run):
                return metrics
        return self._fit(project, model, run)

    def _came_back(self, project: Project, model: LabelStudioMLBase, metrics: dict[str, Any], run: Run) -> bool:
        """Whether a video that the latest training left out can be fetched now."""
        missing = _unavailable(metrics)
        if not missing:
            return False
        came_back = False
        for task in self._store.annotated_tasks(project.id):
            if str(task["id"]) in missing:
                try:
                    model.extract(task, run.progress)
                    came_back = True
                except MediaError:
                    pass
        if not came_back:
            self._retry_videos(project, run)
        return came_back

    def _retry_videos(self, project: Project, run: Run) -> None:
        delay = retry_delay(project.retries) if project.retries < MAX_RETRIES else None
        run.persist(lambda: self._store.retry_videos(project.id, delay))

    def _fit(self, project: Project, model: LabelStudioMLBase, run: Run) -> dict[str, Any]:
        """Trains on the stored annotations, and records the training."""
        tasks = self._store.annotated_tasks(project.id)
        event, data = self._store.event(project.id)
        training_id = self._store.start_training(project.id, project.revision, len(tasks), run.job.id)
        started = time.monotonic()

        def end(status: TrainingStatus, **values: Any) -> None:
            seconds = time.monotonic() - started
            run.persist(lambda: self._store.end_training(training_id, status, seconds, **values))

        try:
            forget = run.job.kind == JobKind.RESET
            result = model.fit(event, data, tasks=tasks, from_scratch=forget, progress=run.progress) or {}
        except JobStopped:
            raise  # recorded with the job
        except Exception as error:
            end(TrainingStatus.FAILED, error=str(error), up_to_date=False)
            raise
        controls = [metrics for metrics in result.values() if isinstance(metrics, dict)]
        published = all(metrics.get("published", True) for metrics in controls)
        status = TrainingStatus.PUBLISHED if published else TrainingStatus.REJECTED
        end(status, model_version=model.model_version, metrics=result)
        seconds = time.monotonic() - started
        logger.info(
            "Project %s: %s, %s, %d videos, %.1f s%s",
            project.id,
            model.model_version,
            status,
            len(tasks),
            seconds,
            _prequential(result),
        )
        if published:
            self._jobs.add_refresh(project.id, model)
        if _unavailable(result):
            self._retry_videos(project, run)
        elif project.retry_at is not None:
            run.persist(lambda: self._store.retry_videos(project.id, None))
        return result

    # -- the other kinds

    def _reconcile(self, run: Run) -> dict[str, Any]:
        """Makes the stored annotations and tasks the same as Label Studio's."""
        project_id = run.job.project_id
        project, connection = self._deliveries.in_label_studio(project_id)
        self._store.begin_reconciliation(project_id)
        self._prove_webhook(project, connection)
        with suppress(LabelStudioError):  # the title is only shown; the annotations' request raises it again
            self._store.adopt(project_id, None, label_studio.title(connection, int(project.number)))
        fetched: set[int] = set()
        tasks = label_studio.annotated_tasks(connection, int(project.number), run.progress.part(0.0, 0.5))
        train_every = self._registry.get(project_id).train_every
        changed = self._store.replace_annotations(project_id, _noted(tasks, fetched), train_every)
        logger.log(
            logging.INFO if changed else logging.DEBUG,
            "Project %s: %d annotated tasks fetched from Label Studio%s",
            project_id,
            len(fetched),
            "; some of them were new here" if changed else "",
        )
        known = self._know_tasks(project, connection, run.progress.part(0.5, 1.0), train_every)
        if project_id in self._store.projects_behind():
            self._jobs.add_training(project_id)
        return {"tasks": len(fetched), "changed": changed, "known": known}

    def _know_tasks(self, project: Project, connection: Connection, progress: Progress, train_every: int) -> int:
        """Makes the stored tasks those of Label Studio, also the ones without annotations. Returns their number.

        The number of tasks and the largest id tell whether any is missing, since events bring nearly all new ones.
        """
        known = self._store.task_ids(project.id)
        count, latest = label_studio.extent(connection, int(project.number))
        if (count, latest) == (len(known), max(known, default=None)):
            return count
        fetched: set[int] = set()
        tasks = label_studio.tasks(connection, int(project.number), progress)
        self._store.save_tasks(project.id, _noted(tasks, fetched), train_every)
        self._store.delete_tasks(project.id, sorted(known - fetched), train_every)
        return len(fetched)

    def _prove_webhook(self, project: Project, connection: Connection) -> None:
        """Puts the project's secret into its webhook, where webhooks need one (`webhook_secret.py`)."""
        if not self._registry.model_class.services.settings.proves_webhooks:
            return
        try:
            if not self._secrets.put_in_place(connection, project):
                logger.warning("Project %s: Label Studio has no webhook to this backend. Connect it again.", project.id)
        except LabelStudioError as error:
            logger.warning("Project %s: the secret can't be put into its webhook: %s", project.id, error)

    def _extract(self, run: Run) -> dict[str, Any]:
        model, task = self._registry.get(run.job.project_id), run.job.arguments["task"]
        model.extract(task, run.progress)
        prediction = self._deliveries.score(model, task)
        self._deliveries.remember(run, task, prediction)
        took = timedelta(seconds=self._refresh_took.get(run.job.project_id, 0.0))
        self._jobs.add_refresh(run.job.project_id, model, max(LATER, REFRESH_PAUSES * took))
        return {}

    def _extract_many(self, run: Run) -> dict[str, Any]:
        tasks = [task for task in run.job.arguments["tasks"] if task.get("id") is not None]
        run.persist(lambda: self._store.save_tasks(run.job.project_id, tasks, train_every=None))
        for task in run.job.arguments["tasks"]:
            run.check()
            self._jobs.add_extraction(run.job.project_id, task, PRIORITY_AHEAD)
        return {}

    def _refresh(self, run: Run) -> dict[str, Any]:
        started = time.monotonic()
        result = Refresh(self._jobs, self._deliveries, run)()
        self._refresh_took[run.job.project_id] = time.monotonic() - started
        return result

    def _deliver_many(self, run: Run) -> dict[str, Any]:
        for task in run.job.arguments["tasks"]:
            run.check()
            self._jobs.add_delivery(run.job.project_id, task, PRIORITY_BATCH)
        return {}

    def _review(self, run: Run) -> dict[str, Any]:
        result = review(self._registry.get(run.job.project_id), self._store, run.progress)
        return {"videos": result["videos"], "doubts": len(result["doubts"])}


def _noted(tasks: Iterator[dict[str, Any]], ids: set[int]) -> Iterator[dict[str, Any]]:
    """Yields tasks, and adds their ids to `ids`."""
    for task in tasks:
        ids.add(task["id"])
        yield task


def _unavailable(result: dict[str, Any]) -> set[str]:
    """The ids of the tasks whose videos a training left out."""
    controls = [metrics for metrics in result.values() if isinstance(metrics, dict)]
    return {task_id for metrics in controls for task_id in metrics.get("unavailable") or ()}


def _prequential(result: dict[str, Any]) -> str:
    """The F1 of the earlier model on the training's new videos, for the log."""
    scores = {
        name: metrics["prequential"]["frames"]["macro_f1"]
        for name, metrics in result.items()
        if isinstance(metrics, dict) and metrics.get("prequential")
    }
    return "".join(f", prequential F1 of {name} {score:.3f}" for name, score in scores.items())
