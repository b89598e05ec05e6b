"""Jobs: their work, their owners and how they ended. This table is the queue.

The process that does a job holds its *lease* and renews it while the job runs. A lease that runs out belongs to a dead
process, and its job waits again. A process writes nothing for a job whose lease it has lost.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from ml_backend.store.tables import LIVE, Job, JobKind, JobStatus, Project, QueueName, Worker, now
from ml_backend.store.trainings import Trainings

# A lease is renewed several times within this time; otherwise its owner is dead. Another machine, which looks for lost
# work, begins the job within 20 s.
LEASE = timedelta(seconds=15)
# A worker that hasn't reported for this time doesn't count as alive.
WORKER_SILENT = timedelta(seconds=30)
# Ended jobs are kept this long for /job_status.
JOB_RETENTION = timedelta(days=14)
# The priority of jobs ahead of need; somebody waits for jobs of a higher one.
PRIORITY_AHEAD = 0


class JobRows(Trainings):
    """The rows of jobs and of live workers."""

    # -- adding

    def add_job(
        self,
        kind: JobKind,
        queue: QueueName,
        key: str,
        resource: str,
        project_id: str,
        arguments: dict[str, Any],
        priority: int,
        after: timedelta | None = None,
    ) -> Job:
        """Adds a job. If one with the same key waits, it gets the new arguments and the higher priority instead.

        Args:
            kind: the kind of job.
            queue: the queue.
            key: identifies the job's work; at most one job of a key waits.
            resource: what the job uses; at most one job of a resource runs.
            project_id: the project.
            arguments: JSON.
            priority: higher is sooner.
            after: the time before it may start, where none of the key waits; by default none.
        """
        with self._reading() as session:
            waiting = session.scalar(sa.select(Job).where(Job.key == key, Job.status == JobStatus.QUEUED))
        same = waiting is not None and waiting.arguments == arguments
        if same and waiting.priority >= priority and (waiting.due_at is None or after is not None):
            return waiting  # without a write there is no wait for a lock
        values = {"id": uuid.uuid4().hex, "kind": kind, "queue": queue, "key": key, "resource": resource}
        values |= {"project_id": project_id, "arguments": arguments, "priority": priority}
        values["due_at"] = None if after is None else self._now() + after
        insert = self._insert(Job).values(values)
        higher = sa.case((insert.excluded.priority > Job.priority, insert.excluded.priority), else_=Job.priority)
        statement = insert.on_conflict_do_update(
            index_elements=[Job.key],
            index_where=sa.text("status = 'queued'"),
            set_={"priority": higher, "due_at": None, "retries": 0, "arguments": insert.excluded.arguments},
        )
        with self._transaction() as session:
            return session.scalar(statement.returning(Job))

    # -- reading

    def job(self, job_id: str) -> Job | None:
        """The job with that id, or the one that does its work instead; None where there is none."""
        with self._reading() as session:
            job = session.get(Job, job_id)
            while job is not None and job.superseded_by is not None:
                job = session.get(Job, job.superseded_by)
            return job

    def live_job(self, key: str) -> Job | None:
        """The started job with this key, else the queued one, else None."""
        live = sa.select(Job).where(Job.key == key, Job.status.in_(LIVE)).order_by(Job.status.desc()).limit(1)
        with self._reading() as session:
            return session.scalar(live)

    def live_training(self, project_id: str) -> Job | None:
        """The project's running training, else a waiting one, else None."""
        live = sa.and_(Job.project_id == project_id, Job.status.in_(LIVE))
        query = sa.select(Job).where(live, Job.kind.in_((JobKind.TRAIN, JobKind.RESET)))
        with self._reading() as session:
            return session.scalar(query.order_by(Job.status.desc()).limit(1))

    def jobs(self, *statuses: JobStatus | str) -> list[Job]:
        """The jobs in the given states, oldest first."""
        with self._reading() as session:
            return list(session.scalars(sa.select(Job).where(Job.status.in_(statuses)).order_by(Job.created_at)))

    def count_jobs(self, status: JobStatus | str) -> int:
        """The number of jobs in a state."""
        with self._reading() as session:
            return session.scalar(sa.select(sa.func.count()).select_from(Job).where(Job.status == status)) or 0

    def job_counts(self) -> dict[tuple[JobKind, JobStatus], int]:
        """The number of jobs by kind and state."""
        with self._reading() as session:
            rows = session.execute(sa.select(Job.kind, Job.status, sa.func.count()).group_by(Job.kind, Job.status))
            return {(kind, status): count for kind, status, count in rows}

    # -- doing

    def _is_due(self) -> sa.ColumnElement[bool]:
        return sa.and_(Job.status == JobStatus.QUEUED, sa.or_(Job.due_at.is_(None), Job.due_at <= self._now()))

    def _can_begin(self) -> sa.ColumnElement[bool]:
        other = sa.orm.aliased(Job)
        in_use = sa.exists().where(other.resource == Job.resource, other.status == JobStatus.STARTED)
        return sa.and_(self._is_due(), ~in_use)

    def next_job(self, queues: Sequence[QueueName], ahead: bool = True, suspects: bool = True) -> Job | None:
        """The job to start next, or None.

        A job that ran when its worker died comes first, of several the one with the fewest deaths.

        Args:
            queues: the queues of all other jobs, an earlier queue first.
            ahead: whether a job ahead of need may be taken.
            suspects: whether a job that ran when its worker died may be taken.
        """
        with self._reading() as session:
            if session.scalar(sa.select(Job.id).where(self._is_due()).limit(1)) is None:
                return None  # most looks end here, and must cost next to nothing
            can_begin, urgent = sa.select(Job).where(self._can_begin()).limit(1), (Job.priority.desc(), Job.created_at)
            searches = [can_begin.where(Job.attempts > 0).order_by(Job.attempts, *urgent)] if suspects else []
            if not suspects:
                can_begin = can_begin.where(Job.attempts == 0)
            if not ahead:
                can_begin = can_begin.where(Job.priority > PRIORITY_AHEAD)
            searches += [can_begin.where(Job.queue == queue).order_by(*urgent) for queue in queues]
            return next(filter(None, map(session.scalar, searches)), None)

    def claim_job(self, owner: str, job_id: str) -> Job | None:
        """Starts a job and gives its lease to an owner. None where it can't start, or another process was faster."""
        values = {"status": JobStatus.STARTED, "lease_owner": owner, "lease_expires_at": self._now() + LEASE}
        values |= {"started_at": now(), "progress": 0.0, "due_at": None}
        claim = sa.update(Job).where(Job.id == job_id, self._can_begin()).values(values).returning(Job)
        try:
            with self._transaction() as session:
                return session.scalar(claim)
        except sa.exc.IntegrityError:  # a job of the same resource was started at the same time
            return None

    def renew_leases(self, owner: str) -> dict[str, bool]:
        """Renews an owner's leases.

        Returns:
            Id of each job that the owner still holds -> whether its cancellation was requested.
        """
        held = sa.and_(Job.lease_owner == owner, Job.status == JobStatus.STARTED)
        with self._transaction() as session:
            renewed = sa.update(Job).where(held).values(lease_expires_at=self._now() + LEASE)
            rows = session.execute(renewed.returning(Job.id, Job.cancel_requested))
            return dict(rows.all())

    def set_progress(self, job_id: str, owner: str, progress: float) -> None:
        """Records a job's progress, in [0, 1]."""
        with self._transaction() as session:
            session.execute(sa.update(Job).where(self._held(job_id, owner)).values(progress=progress))

    @staticmethod
    def _held(job_id: str, owner: str) -> sa.ColumnElement[bool]:
        return sa.and_(Job.id == job_id, Job.lease_owner == owner, Job.status == JobStatus.STARTED)

    def end_job(
        self,
        job_id: str,
        owner: str,
        status: JobStatus = JobStatus.FINISHED,
        result: dict[str, Any] | None = None,
        error: str | None = None,
    ) -> bool:
        """Records how a job ended. Returns False where the owner has lost its lease."""
        values = {"status": status, "ended_at": now(), "result": result, "error": error, "lease_owner": None}
        values["lease_expires_at"] = None
        if status == JobStatus.FINISHED:
            values["progress"] = 1.0
        with self._transaction() as session:
            self._interrupt_trainings(session, job_id)
            return session.execute(sa.update(Job).where(self._held(job_id, owner)).values(values)).rowcount > 0

    def retry_job(self, job_id: str, owner: str, delay: timedelta, error: str) -> bool:
        """Puts back a job that failed with a transient error. Returns False where the owner has lost its lease."""
        with self._transaction() as session:
            job = session.scalar(sa.select(Job).where(self._held(job_id, owner)).with_for_update())
            if job is None:
                return False
            self._put_back(session, job)
            job.retries += 1
            job.due_at, job.error = self._now() + delay, error
            return True

    def move_job(self, job_id: str, owner: str, queue: QueueName) -> None:
        """Moves a started job to another queue, where it waits."""
        with self._transaction() as session:
            job = session.scalar(sa.select(Job).where(self._held(job_id, owner)).with_for_update())
            if job is not None:
                self._put_back(session, job)
                job.queue = queue

    def release_jobs(self, owner: str, job_id: str | None = None) -> list[Job]:
        """Puts back the jobs of an owner that stops, or one of them, and returns them. That counts as no failure."""
        held = sa.and_(Job.lease_owner == owner, Job.status == JobStatus.STARTED)
        return self._release(held if job_id is None else self._held(job_id, owner), failed=False)

    def take_over_jobs(self, dead_owners: list[str], running: Collection[str] = ()) -> list[Job]:
        """Puts back the jobs whose lease ran out and those of dead owners, and returns them.

        Args:
            dead_owners: owners whose leases needn't run out.
            running: the ids of jobs that run in this process. They stay where a lease ran out because the machine was
                suspended or too busy to renew it.
        """
        with self._reading() as session:
            expired = sa.or_(Job.lease_expires_at < self._now(), Job.lease_owner.in_(dead_owners))
            abandoned = sa.and_(Job.status == JobStatus.STARTED, expired, Job.id.not_in(running))
            if session.scalar(sa.select(Job.id).where(abandoned).limit(1)) is None:
                return []
        return self._release(abandoned, failed=True)

    def _release(self, which: sa.ColumnElement[bool], failed: bool) -> list[Job]:
        with self._transaction() as session:
            jobs = list(session.scalars(sa.select(Job).where(which).with_for_update(skip_locked=True)))
            for job in jobs:
                job.attempts += failed
                self._put_back(session, job)
            return jobs

    def _put_back(self, session: Session, job: Job) -> None:
        """Makes a started job wait again. If one of the same key waits already, that one replaces it."""
        self._interrupt_trainings(session, job.id)
        same = sa.select(Job).where(Job.key == job.key, Job.status == JobStatus.QUEUED)
        waiting = session.scalar(same.with_for_update())
        job.lease_owner, job.lease_expires_at, job.progress = None, None, 0.0
        if waiting is None and not job.cancel_requested:
            job.status, job.started_at = JobStatus.QUEUED, None
            return
        job.status, job.ended_at = JobStatus.CANCELLED, now()
        if waiting is not None:
            job.superseded_by = waiting.id
            waiting.attempts = max(waiting.attempts, job.attempts)

    def lease_owners(self) -> list[str]:
        """The owners of running jobs."""
        with self._reading() as session:
            return list(session.scalars(sa.select(Job.lease_owner).where(Job.status == JobStatus.STARTED).distinct()))

    # -- from outside

    def cancel_job(self, job_id: str) -> Job | None:
        """Cancels a waiting job, or requests that a running one be cancelled. Returns the job, None for no job."""
        with self._transaction() as session:
            job = session.get(Job, job_id, with_for_update=True)
            if job is not None and job.status == JobStatus.QUEUED:
                job.status, job.ended_at = JobStatus.CANCELLED, now()
            elif job is not None and job.status == JobStatus.STARTED:
                job.cancel_requested = True
            return job

    def make_jobs_due(self) -> None:
        """Makes jobs and videos that wait for another try due now, since the cause may be gone."""
        later = sa.and_(Job.status == JobStatus.QUEUED, Job.due_at.is_not(None))
        with self._transaction() as session:
            session.execute(sa.update(Job).where(later).values(due_at=None))
            now_ = self._now()
            session.execute(sa.update(Project).where(Project.retry_at > now_).values(retry_at=now_))

    def forget_old_jobs(self) -> None:
        """Deletes the rows of old ended jobs and of workers that are gone."""
        with self._transaction() as session:
            session.execute(sa.delete(Job).where(Job.ended_at < now() - JOB_RETENTION))
            session.execute(sa.delete(Worker).where(Worker.seen_at < self._now() - WORKER_SILENT))

    # -- workers

    def worker_alive(self, worker: str) -> None:
        """Records that a worker is alive."""
        with self._transaction() as session:
            session.merge(Worker(id=worker, seen_at=self._now()))

    def worker_gone(self, worker: str) -> None:
        """Deletes the row of a worker that stops."""
        with self._transaction() as session:
            session.execute(sa.delete(Worker).where(Worker.id == worker))

    def live_workers(self, within: timedelta = WORKER_SILENT) -> list[str]:
        """The ids of the workers that reported lately, within `within` or WORKER_SILENT, whichever is shorter."""
        with self._reading() as session:
            since = self._now() - min(within, WORKER_SILENT)
            return list(session.scalars(sa.select(Worker.id).where(Worker.seen_at >= since)))
