"""Do jobs: choose the next one, do it, and record how it ended."""

from __future__ import annotations

import logging
import time
from collections import Counter
from typing import Any

from errors import BackendError, NotReady, TransientMediaError
from ml_backend.jobs.handlers import Handlers, retry_delay
from ml_backend.jobs.leases import JobStopped, Leases, Run, Stop
from ml_backend.jobs.queue import PRIORITY_WANTED, TRAININGS, Jobs
from ml_backend.logs import about
from ml_backend.store.jobs import PRIORITY_AHEAD
from ml_backend.store.tables import Job, JobKind, JobStatus, QueueName

logger = logging.getLogger(__name__)

# The worker slots of each queue: how many of its jobs a process does at once. Trainings have a slot of their own.
SLOTS = {QueueName.TRAIN: 1, QueueName.EXTRACT: 2, QueueName.REFRESH: 1}
# Deaths of its worker, perhaps for lack of memory, after which a job is given up. One more than the deaths after which
# the cache refuses a video, so that a training goes on without that video.
MAX_ATTEMPTS = 4
# What killed its worker and runs again without doing so for this time is no longer alone: a long video takes hours.
ALONE_SECONDS = 300.0
WAIT_SECONDS = 0.1


class Runner:
    """Does jobs in this process.

    Args:
        jobs: the jobs.
    """

    def __init__(self, jobs: Jobs) -> None:
        self.jobs = jobs
        self.store = jobs.store
        self.leases = Leases(jobs.store)
        self._handlers = Handlers(jobs)
        self._running: list[Job] = []  # claimed jobs that haven't ended
        self._alone_until = 0.0

    def claim(self) -> Job | None:
        """Claims the most urgent job that this process has a slot for; None where there is none.

        Jobs ahead of need run one at a time in a process, so that they never take all slots. A job that ran when a
        worker died runs alone for its first minutes, so that no other job dies with it.
        """
        while not self.leases.stopping:
            running = list(self._running)
            taken = Counter(job.queue for job in running)
            free = [queue for queue, slots in SLOTS.items() if taken[queue] < slots]
            suspect = any(job.attempts for job in running)
            if not free or (suspect and time.monotonic() < self._alone_until):
                return None
            ahead = all(job.priority > PRIORITY_AHEAD for job in running)
            job = self.store.next_job(free, ahead, suspects=not suspect)
            if job is None or (job.attempts and running):
                return None
            claimed = self.store.claim_job(self.leases.owner, job.id)
            if claimed is not None:
                self._running.append(claimed)
                if claimed.attempts:
                    self._alone_until = time.monotonic() + ALONE_SECONDS
                return claimed
        return None

    def run(self, job: Job) -> None:
        """Does a claimed job."""
        with about(project=job.project_id, task=job.task_id, job=job.id):
            self._run(job)

    def _run(self, job: Job) -> None:
        try:
            with self.leases.run(job) as run:
                better = self._handlers.queue_of(job) if job.queue == QueueName.TRAIN else job.queue
                if better == job.queue:
                    self._do(run)
                else:
                    self.store.move_job(job.id, self.leases.owner, better)
        except JobStopped as stop:
            logger.info("Job %s (%s) stops: %s", job.id, job.subject, stop)
        except Exception:
            # Its lease runs out, and the job is done again.
            logger.exception("Job %s (%s) couldn't be ended", job.id, job.subject)
        finally:
            self._running.remove(job)

    def _do(self, run: Run) -> dict[str, Any] | Exception:
        """Does a claimed job and records how it ended. Returns its result, or the error that ended it.

        Raises:
            JobStopped: the job must not go on; nothing is recorded, unless it was cancelled.
        """
        job = run.job
        if job.attempts >= MAX_ATTEMPTS:
            if job.kind in TRAININGS:
                run.persist(lambda: self.store.give_up_training(job.project_id))
            error = BackendError(f"The job was given up: its worker died {MAX_ATTEMPTS} times. See the worker's log.")
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
            if self._handlers.is_transient(job, error):
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
        """Does a project's job in the caller's thread, after the project's running job, and returns its result.

        Raises:
            BackendError: the job failed.
        """
        job = self.jobs.store_job(kind, project_id, {}, PRIORITY_WANTED)
        while (claimed := self.store.claim_job(self.leases.owner, job.id)) is None:
            current = self.jobs.status(job.id)
            if current.status == JobStatus.FINISHED:
                return current.result or {}
            if current.status in (JobStatus.FAILED, JobStatus.CANCELLED):
                raise BackendError(current.error or f"The {kind} job was cancelled.")
            if current.due_at is not None:
                raise NotReady(current.error)  # it failed with a transient error, and is tried again
            job = current
            time.sleep(WAIT_SECONDS)
        try:
            with about(project=project_id, job=claimed.id), self.leases.run(claimed) as run:
                outcome = self._do(run)
        except JobStopped as stop:
            raise NotReady(f"The {kind} job stopped: {stop}.") from stop
        finally:
            self.store.release_jobs(self.leases.owner, claimed.id)  # after Ctrl-C the workers do it
        if isinstance(outcome, Exception):
            raise outcome
        return outcome
