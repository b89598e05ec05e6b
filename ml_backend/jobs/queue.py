"""Add jobs, ask about them and cancel them. `runner.py` does them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

from errors import BackendError, InvalidRequest, NotReady, UnknownJob
from ml_backend.base import LabelStudioMLBase
from ml_backend.registry import ModelRegistry
from ml_backend.store import Store
from ml_backend.store.jobs import PRIORITY_AHEAD
from ml_backend.store.tables import Job, JobKind, JobStatus, QueueName

# Higher is sooner. A prediction that somebody waits for comes before a training, and that before work ahead of need.
PRIORITY_WANTED = 20
# Before the training that will use the annotations.
PRIORITY_RECONCILE = 11
PRIORITY_TRAINING = 10
# A prediction of a whole list; an annotator who opens a single task doesn't wait for these.
PRIORITY_BATCH = 5
# After a submission and after an extraction, which may be one of several, fresh predictions are stored after these
# times. Ranking a thousand tasks takes some seconds.
SOON, LATER = timedelta(seconds=10), timedelta(seconds=30)
# A longer queue would take days. Refused jobs are asked for again when they are needed.
MAX_QUEUED_JOBS = 10_000

# In place of a task's name: a review runs beside the project's trainings.
REVIEW = "review"
TRAININGS = (JobKind.TRAIN, JobKind.RESET)


class Jobs:
    """Adds jobs to the table that the workers look at.

    Args:
        store: the state.
        registry: gives the projects' models.

    Attributes:
        on_added: called after a job was added in this process, so that a worker here looks at the table at once.
    """

    def __init__(self, store: Store, registry: ModelRegistry) -> None:
        self.store = store
        self.registry = registry
        self.on_added: Callable[[], None] = lambda: None

    # -- adding

    def add_training(self, project_id: str, forget: bool = False) -> Job:
        """Queues a training of the project's model on its latest data, unless one waits already.

        Args:
            project_id: the project.
            forget: whether the present model is replaced in any case.
        """
        return self._add(JobKind.RESET if forget else JobKind.TRAIN, project_id, {}, PRIORITY_TRAINING)

    def add_reconciliation(self, project_id: str) -> Job:
        """Queues a comparison of the stored annotations with Label Studio's."""
        return self._add(JobKind.RECONCILE, project_id, {}, PRIORITY_RECONCILE)

    def add_review(self, project_id: str) -> Job:
        """Queues a comparison of the project's annotations with models that are trained without their videos."""
        return self._add(JobKind.REVIEW, project_id, {}, PRIORITY_BATCH, REVIEW)

    def live_review(self, project_id: str) -> Job | None:
        """The review of a project that waits or runs, or None."""
        return self.store.live_job(f"{JobKind.REVIEW}:{project_id}:{REVIEW}")

    def can_reconcile(self, project_id: str) -> bool:
        """Whether Label Studio can be asked for annotations: its address and a key are known."""
        project = self.store.project(project_id)
        try:
            connection = self.registry.get(project_id).connection
        except BackendError:
            return False  # its labeling config can't be used
        return project is not None and project.number.isdecimal() and bool(connection.url and connection.api_key)

    def add_refresh(
        self, project_id: str, model: LabelStudioMLBase | None = None, after: timedelta | None = None
    ) -> Job | None:
        """Queues the ranking of tasks and the storing of fresh predictions, unless it waits already, or the project has
        neither.

        One project at a time is refreshed, which bounds the requests to Label Studio.

        Args:
            project_id: the project.
            model: its model; by default the registry's.
            after: the time before it starts; by default none.
        """
        with suppress(BackendError):  # its labeling config can't be used
            model = model or self.registry.get(project_id)
            if model.predict_ahead or model.ranks:
                return self._add(JobKind.REFRESH, project_id, {}, PRIORITY_BATCH, after=after)
        return None

    def add_extraction(self, project_id: str, task: dict[str, Any], priority: int) -> Job:
        """Queues the extraction of a task's features.

        Raises:
            NotReady: the queue is full.
        """
        name = str(task["id"]) if task.get("id") is not None else _digest([task["data"]])  # keys must be short
        live = self.store.live_job(f"{JobKind.EXTRACT}:{project_id}:{name}")
        arguments = _arguments(task)
        if live is not None and live.status == JobStatus.STARTED and live.arguments == arguments:
            return live
        if live is None and self.store.count_jobs(JobStatus.QUEUED) >= MAX_QUEUED_JOBS:
            raise NotReady(f"{MAX_QUEUED_JOBS} jobs are waiting already. Ask again when the worker has caught up.")
        return self._add(JobKind.EXTRACT, project_id, arguments, priority, name)

    def add_extractions(self, project_id: str, tasks: list[dict[str, Any]]) -> Job:
        """Queues the extraction of many tasks' features ahead of need. The worker adds a job for each."""
        return self._add(JobKind.EXTRACT_MANY, project_id, {"tasks": tasks}, PRIORITY_AHEAD, _digest(tasks))

    def add_delivery(
        self,
        project_id: str,
        task: dict[str, Any],
        priority: int = PRIORITY_WANTED,
        after: timedelta | None = None,
    ) -> Job:
        """Queues a prediction that is stored in Label Studio when it is ready. `after` is that of `add_refresh`."""
        return self._add(JobKind.DELIVER, project_id, _arguments(task), priority, str(task["id"]), after)

    def add_deliveries(self, project_id: str, tasks: list[dict[str, Any]]) -> Job:
        """Queues deliveries of many tasks. The worker adds a job for each."""
        return self._add(JobKind.DELIVER_MANY, project_id, {"tasks": tasks}, PRIORITY_BATCH, _digest(tasks))

    def _add(self, *job: Any, **options: Any) -> Job:
        """Stores a job as `store_job`, and wakes a worker of this process."""
        job = self.store_job(*job, **options)
        self.on_added()
        return job

    def store_job(
        self,
        kind: JobKind,
        project_id: str,
        arguments: dict[str, Any],
        priority: int,
        task: str | None = None,
        after: timedelta | None = None,
    ) -> Job:
        """Stores a job of a project, or of one of its tasks."""
        name = project_id if task is None else f"{project_id}:{task}"
        queue, resource = QueueName.EXTRACT, f"task:{name}"
        if task is None:
            queue, resource = QueueName.TRAIN, f"project:{name}"
        if kind == JobKind.REFRESH:
            queue, resource = QueueName.REFRESH, str(kind)
        return self.store.add_job(kind, queue, f"{kind}:{name}", resource, project_id, arguments, priority, after)

    # -- asking

    def status(self, job_id: str) -> Job:
        """The job with that id.

        Raises:
            UnknownJob: there is none.
        """
        job = self.store.job(job_id)
        if job is None:
            raise UnknownJob(f"There is no job {job_id!r}. Ended jobs are deleted after two weeks.")
        return job

    def training_state(self, project_id: str) -> str | None:
        """A sentence that says why a project with annotations isn't trained; None for a project without annotations."""
        videos = self.store.count_annotated_tasks(project_id).get(project_id, 0)
        if not videos:
            return None
        job = self.store.live_training(project_id)
        what = f"The training on {videos} annotated task{'s' * (videos > 1)}"
        if job is not None and job.error and job.status == JobStatus.QUEUED:
            return f"{what} failed, and is tried again at {job.due_at or job.created_at:%H:%M:%S} UTC: {job.error}"
        if job is not None:
            return f"{what} {'runs' if job.status == JobStatus.STARTED else 'waits for its turn'}: ask again later."
        latest = self.store.latest_training(project_id)
        if latest is not None and latest.error:
            return f"{what} failed, and is tried again when an annotation changes: {latest.error}"
        if project_id not in self.store.projects_behind():
            return f"{what} waits for more submissions (model_train_every), or for Start Training."
        return None

    def cancel(self, job_id: str) -> Job:
        """Cancels a job: a waiting one at once, a running one at its next progress. A project whose training is
        cancelled is trained at its next change.

        Raises:
            UnknownJob: there is none.
        """
        job = self.store.cancel_job(self.status(job_id).id)
        if job.status == JobStatus.CANCELLED and job.kind in TRAININGS:
            self.store.give_up_training(job.project_id)
        return job

    def retry(self, job_id: str) -> Job:
        """Queues the work of a failed or cancelled job again.

        Raises:
            UnknownJob: there is none.
            InvalidRequest: the job didn't fail and wasn't cancelled.
        """
        job = self.status(job_id)
        if job.status not in (JobStatus.FAILED, JobStatus.CANCELLED):
            raise InvalidRequest(f"Job {job.id} is {job.status}: only a failed or cancelled one can be tried again.")
        if job.kind == JobKind.TRAIN:
            self.store.request_training(job.project_id)
        again = self.store.add_job(
            job.kind, job.queue, job.key, job.resource, job.project_id, job.arguments, job.priority
        )
        self.on_added()
        return again


def _arguments(task: dict[str, Any]) -> dict[str, Any]:
    return {"task": {"id": task.get("id"), "data": task["data"]}}


def _digest(tasks: list[dict[str, Any]]) -> str:
    """A hash of tasks, so that the same ones are queued once."""
    return hashlib.sha256(json.dumps(tasks, sort_keys=True).encode()).hexdigest()
