"""The heavy work as jobs: adding them, asking about them, doing them.

The job table says what is to be done and who does it; a message in a queue only wakes a worker, which takes the most
urgent job from the table. So a lost message delays a job by seconds, and one too many finds nothing to do.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import time
from typing import Any

from errors import BackendError, DatabaseUnavailable, InvalidRequest, NotReady, TransientMediaError, UnknownJob
from ml_backend.handlers import PRIORITY_BATCH, Handlers, retry_delay
from ml_backend.leases import JobStopped, Leases, Run, Stop
from ml_backend.queues import Queues
from ml_backend.registry import ModelRegistry
from ml_backend.store import Store
from ml_backend.store.jobs import PRIORITY_AHEAD
from ml_backend.tables import Job, JobKind, JobStatus, QueueName

logger = logging.getLogger(__name__)

# Somebody waits for a prediction; then the training whose model the next one shows; then what may be needed some day.
PRIORITY_WANTED = 20
PRIORITY_TRAINING = 10
# Before the training that is to use the annotations.
PRIORITY_RECONCILE = 11
# A queue longer than this would take days; what is refused then is asked for again when it is needed.
MAX_QUEUED_JOBS = 10_000
# A job that was begun this often and never ended killed its worker each time (out of memory, say). One more than the
# deaths after which the cache refuses a video: a training goes on without it.
MAX_ATTEMPTS = 4
WAIT_SECONDS = 0.1

TRAININGS = (JobKind.TRAIN, JobKind.RESET)


class Jobs:
    """Adds jobs and does them.

    Args:
        store: the state.
        registry: gives the projects' models.
        queues: wake the workers; in immediate mode a job is done where it is added.
    """

    def __init__(self, store: Store, registry: ModelRegistry, queues: Queues) -> None:
        self.store = store
        self.registry = registry
        self.queues = queues
        self.leases = Leases(store)
        self._handlers = Handlers(self)
        self._claiming = threading.Lock()
        self._running: dict[str, Job] = {}  # in this process
        self._messages = {name: huey.task(name="wake")(self._work_off(name)) for name, huey in queues.items()}

    # -- adding

    def add_training(self, project_id: str, forget: bool = False) -> Job:
        """Queues a training of the project's model on its latest data; one that waits already serves everybody.

        Args:
            project_id: the project.
            forget: the present model is replaced in any case.
        """
        return self._add(JobKind.RESET if forget else JobKind.TRAIN, project_id, {}, PRIORITY_TRAINING)

    def add_reconciliation(self, project_id: str) -> Job:
        """Queues a comparison of the stored annotations with those that Label Studio has."""
        return self._add(JobKind.RECONCILE, project_id, {}, PRIORITY_RECONCILE)

    def can_reconcile(self, project_id: str) -> bool:
        """Whether Label Studio's annotations can be asked for: its address and a key are known."""
        project = self.store.project(project_id)
        try:
            connection = self.registry.get(project_id).connection
        except BackendError:
            return False  # its labeling config can't work
        return project is not None and project.number.isdecimal() and bool(connection.url and connection.api_key)

    def add_preparation(self, project_id: str, task: dict[str, Any], priority: int) -> Job:
        """Queues the heavy part of a task's prediction.

        Raises:
            NotReady: the queue is full.
        """
        name = str(task["id"]) if task.get("id") is not None else _digest([task["data"]])  # an index's row is short
        live = self.store.live_job(f"{JobKind.PREPARE}:{project_id}:{name}")
        arguments = {"task": {"id": task.get("id"), "data": task["data"]}}
        if live is not None and live.status == JobStatus.STARTED and live.arguments == arguments:
            return live
        if live is None and self.store.count_jobs(JobStatus.QUEUED) >= MAX_QUEUED_JOBS:
            raise NotReady(f"{MAX_QUEUED_JOBS} jobs are waiting already: ask again when the worker has caught up.")
        return self._add(JobKind.PREPARE, project_id, arguments, priority, name)

    def add_preparations(self, project_id: str, tasks: list[dict[str, Any]]) -> Job:
        """Queues the preparation of many tasks ahead of need. The worker makes a job of each: here it would take too
        long."""
        return self._add(JobKind.PREPARE_MANY, project_id, {"tasks": tasks}, PRIORITY_AHEAD, _digest(tasks))

    def add_delivery(self, project_id: str, task: dict[str, Any], priority: int = PRIORITY_WANTED) -> Job:
        """Queues a prediction that couldn't be given in time, to be stored in Label Studio when it is ready."""
        arguments = {"task": {"id": task["id"], "data": task["data"]}}
        return self._add(JobKind.DELIVER, project_id, arguments, priority, str(task["id"]))

    def add_deliveries(self, project_id: str, tasks: list[dict[str, Any]]) -> Job:
        """As `add_delivery`, for many tasks: the worker makes a job of each."""
        return self._add(JobKind.DELIVER_MANY, project_id, {"tasks": tasks}, PRIORITY_BATCH, _digest(tasks))

    def _add(
        self, kind: JobKind, project_id: str, arguments: dict[str, Any], priority: int, task: str | None = None
    ) -> Job:
        job, wake = self._store_job(kind, project_id, arguments, priority, task)
        if wake:
            self.wake(job.queue)
        return job

    def _store_job(
        self, kind: JobKind, project_id: str, arguments: dict[str, Any], priority: int, task: str | None = None
    ) -> tuple[Job, bool]:
        of_project = task is None
        name = project_id if of_project else f"{project_id}:{task}"
        return self.store.add_job(
            kind,
            queue=QueueName.TRAIN if of_project else QueueName.EXTRACT,
            key=f"{kind}:{name}",
            resource=f"{'project' if of_project else 'task'}:{name}",
            project_id=project_id,
            arguments=arguments,
            priority=priority,
        )

    def wake(self, queue: QueueName) -> None:
        """Wakes a worker of a queue."""
        try:
            self.queues[queue].enqueue(self._messages[queue].s())
        except Exception as error:  # of the database's driver; workers look by themselves, too
            logger.warning("A worker couldn't be told of a new job, and finds it by itself: %s", error)

    # -- asking

    def status(self, job_id: str) -> Job:
        """The job of that id.

        Raises:
            UnknownJob: there is none.
        """
        job = self.store.job(job_id)
        if job is None:
            raise UnknownJob(f"No job {job_id!r} is known; ended jobs are forgotten after two weeks.")
        return job

    def training_state(self, project_id: str) -> str | None:
        """Why a project with annotations isn't trained, as a sentence; None where there are none."""
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
        return None

    def cancel(self, job_id: str) -> Job:
        """Cancels a job: at once where it waits, at its next progress where it runs. A project whose training is
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
            InvalidRequest: it didn't fail.
        """
        job = self.status(job_id)
        if job.status not in (JobStatus.FAILED, JobStatus.CANCELLED):
            raise InvalidRequest(f"Job {job.id} is {job.status}: only a failed or cancelled one can be tried again.")
        if job.kind == JobKind.TRAIN:
            self.store.request_training(job.project_id)
        again, wake = self.store.add_job(
            job.kind, job.queue, job.key, job.resource, job.project_id, job.arguments, job.priority
        )
        if wake:
            self.wake(again.queue)
        return again

    # -- doing

    def _work_off(self, queue: QueueName) -> Any:
        def wake() -> None:
            while self.run_next(queue):
                pass

        return wake

    def run_next(self, queue: QueueName) -> bool:
        """Does the most urgent job of a queue. False where there is none to do."""
        if self.leases.stopping:
            return False
        job = self._claim(queue)
        if job is None:
            return False
        try:
            with self.leases.run(job) as run:
                better = self._handlers.queue_of(job) if queue == QueueName.TRAIN else queue
                if better != queue:
                    self.store.move_job(job.id, self.leases.owner, better)
                    self.wake(better)
                    return True
                self._do(run)
        except JobStopped as stop:
            logger.info("Job %s (%s) stops: %s", job.id, job.subject, stop)
        except Exception:
            # Its lease runs out, and it is done again.
            logger.exception("Job %s (%s) couldn't be ended", job.id, job.subject)
        finally:
            self._done(job, queue)
        return True

    def _claim(self, queue: QueueName) -> Job | None:
        """Takes a job. What nobody waits for runs one at a time in a process, so that it never takes all places; what
        ran when a worker died runs alone, so that it takes no other job along."""
        with self._claiming:
            try:
                job = self._choose(queue, list(self._running.values()))
            except DatabaseUnavailable as error:
                logger.warning("No job can be taken now: %s", error)
                return None
            if job is not None:
                self._running[job.id] = job
            return job

    def _choose(self, queue: QueueName, running: list[Job]) -> Job | None:
        if any(job.attempts for job in running):
            return None
        suspect = self.store.waiting_suspect()
        if suspect is not None:
            if running or suspect.queue != queue:
                return None  # the places become free for it
            return self.store.claim_job(self.leases.owner, queue, job_id=suspect.id)
        ahead = all(job.priority > PRIORITY_AHEAD for job in running)
        return self.store.claim_job(self.leases.owner, queue, ahead=ahead)

    def _done(self, job: Job, queue: QueueName | None) -> None:
        with self._claiming:
            self._running.pop(job.id, None)
        try:
            waiting = set(self.store.queues_waiting_for(job.resource)) - {queue}
            if job.attempts or self.store.waiting_suspect() is not None:  # the other places stood idle for it, or shall
                waiting |= set(self.queues)
            for other in waiting:
                self.wake(other)
        except DatabaseUnavailable as error:
            logger.debug("%s", error)  # workers look by themselves, too

    def _do(self, run: Run) -> dict[str, Any] | Exception:
        """Does a claimed job, records how it ended, and returns its result, or the error that ended it.

        Raises:
            JobStopped: it must not go on; nothing is recorded, unless it was cancelled.
        """
        job = run.job
        if job.attempts >= MAX_ATTEMPTS:
            if job.kind in TRAININGS:
                run.persist(lambda: self.store.give_up_training(job.project_id))
            error = BackendError(f"Given up: the worker died {MAX_ATTEMPTS} times on it. See the worker's log.")
            self._fail(run, error)
            return error
        if job.attempts:
            logger.warning("Job %s (%s) begins again: its worker died (%d)", job.id, job.subject, job.attempts)
        try:
            result = self._handlers.do(run)
        except JobStopped as stop:
            if stop.reason == Stop.CANCELLED:
                run.persist(lambda: self._end(run, JobStatus.CANCELLED))
            raise
        except Exception as error:
            if self._handlers.is_passing(job, error):
                self._retry(run, error)
            else:
                self._fail(run, error)
            return error
        run.persist(lambda: self._end(run, JobStatus.FINISHED, result=result))
        return result

    def _end(self, run: Run, status: JobStatus, **values: Any) -> bool:
        return self.store.end_job(run.job.id, self.leases.owner, status, **values)

    def _retry(self, run: Run, error: Exception) -> None:
        delay = retry_delay(run.job.retries)
        log = logger.warning if isinstance(error, BackendError) else logger.exception
        log("Job %s (%s): %s It is tried again in %d s.", run.job.id, run.job.subject, error, delay.total_seconds())
        run.persist(lambda: self.store.retry_job(run.job.id, self.leases.owner, delay, str(error)))

    def _fail(self, run: Run, error: Exception) -> None:
        job = run.job
        if isinstance(error, BackendError):
            logger.warning("Job %s (%s): %s", job.id, job.subject, error)
            transient = isinstance(error, TransientMediaError)
            values = {"result": {"status": error.status, "transient": transient}, "error": str(error)}
        else:
            logger.exception("Job %s (%s) failed", job.id, job.subject)
            values = {"error": f"{type(error).__name__}: {error}. See the worker's log, job {job.id}."}
        run.persist(lambda: self._end(run, JobStatus.FAILED, **values))

    def run_now(self, kind: JobKind, project_id: str) -> dict[str, Any]:
        """Does a project's job in the caller's thread, after any of the project's that is running, and returns its
        result.

        Raises:
            BackendError: why it failed.
        """
        job, _ = self._store_job(kind, project_id, {}, PRIORITY_WANTED)
        while (claimed := self.store.claim_job(self.leases.owner, job_id=job.id)) is None:
            current = self.status(job.id)
            if current.status == JobStatus.FINISHED:
                return current.result or {}
            if current.status in (JobStatus.FAILED, JobStatus.CANCELLED):
                raise BackendError(current.error or f"The {kind} job was cancelled.")
            if current.due_at is not None:
                raise NotReady(current.error)  # it failed for a passing reason, and is tried again
            job = current
            time.sleep(WAIT_SECONDS)
        try:
            with self.leases.run(claimed) as run:
                outcome = self._do(run)
        except JobStopped as stop:
            raise NotReady(f"The {kind} job stopped: {stop}.") from stop
        finally:
            self.store.release_jobs(self.leases.owner, claimed.id)  # interrupted (Ctrl-C): left to the workers
            self._done(claimed, None)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


def _digest(tasks: list[dict[str, Any]]) -> str:
    """The same for the same tasks: they are queued once, however often they are asked for."""
    return hashlib.sha256(json.dumps(tasks, sort_keys=True).encode()).hexdigest()
