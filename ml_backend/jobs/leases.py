"""Leases: a job belongs to one process, which renews its lease while it does the job.

with leases.run(job) as run:
    for number, item in enumerate(items):
        work(item)
        run.progress(number / len(items))  # raises JobStopped where the job must not go on
"""

from __future__ import annotations

import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import Enum
from pathlib import Path
from typing import TypeVar

from errors import DatabaseUnavailable
from ml_backend.store import Store
from ml_backend.store.jobs import LEASE
from ml_backend.store.tables import Job
from progress import Progress

logger = logging.getLogger(__name__)

RENEW_SECONDS = LEASE.total_seconds() / 5
PROGRESS_SECONDS = 1.0
# The time before a failed write is tried again.
WRITE_RETRY_SECONDS = 1.0

Result = TypeVar("Result")


class Stop(Enum):
    """Why a job must not go on."""

    SHUTDOWN = "the worker stops"
    CANCELLED = "it was cancelled"
    LOST = "its lease ran out, and another worker may do the job now"


class JobStopped(Exception):
    """Raised by a running job's progress function.

    Attributes:
        reason: why the job must not go on.
    """

    def __init__(self, reason: Stop) -> None:
        super().__init__(reason.value)
        self.reason = reason


class Run:
    """A job that this process is doing.

    Attributes:
        job: the job.
        progress: of the job; it raises JobStopped where the job must not go on.
    """

    def __init__(self, job: Job, leases: Leases) -> None:
        self.job = job
        self.progress = Progress(self._record)
        self._leases = leases
        self._reported = 0.0

    def check(self) -> None:
        """Raises JobStopped where the job must not go on."""
        reason = self._leases.stop_reason(self)
        if reason is not None:
            raise JobStopped(reason)

    def _record(self, share: float) -> None:
        """Records the share done once a second."""
        self.check()
        if time.monotonic() - self._reported < PROGRESS_SECONDS:
            return
        self._reported = time.monotonic()
        with suppress(DatabaseUnavailable):  # the next write may succeed
            self._leases.store.set_progress(self.job.id, self._leases.owner, min(max(share, 0.0), 1.0))

    def persist(self, write: Callable[[], Result]) -> Result:
        """Writes what must not be lost, and tries again as long as the database can't be written.

        Raises:
            JobStopped: the process ends, or the job was taken over; it is done again.
        """
        while True:
            try:
                return write()
            except DatabaseUnavailable as error:
                logger.warning("Job %s (%s) waits to be written: %s", self.job.id, self.job.subject, error)
            reason = self._leases.stop_reason(self)
            if reason in (Stop.SHUTDOWN, Stop.LOST):
                raise JobStopped(reason)
            time.sleep(WRITE_RETRY_SECONDS)


class Leases:
    """The leases of this process, renewed in the background while there are any.

    Args:
        store: the state.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.owner = f"{_machine()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._lock = threading.Lock()
        self._stops: dict[Run, Stop | None] = {}  # the running jobs here, and why they must stop
        self._stopping = threading.Event()
        self._renewer: threading.Thread | None = None

    @contextmanager
    def run(self, job: Job) -> Iterator[Run]:
        """Renews the lease of a claimed job inside the block."""
        run = Run(job, self)
        with self._lock:
            for other in self._stops:
                if other.job.id == job.id:  # the lease was lost, and this process has claimed the job again
                    self._stops[other] = Stop.LOST
            self._stops[run] = None
            if self._renewer is None:
                self._renewer = threading.Thread(target=self._renew, name="leases", daemon=True)
                self._renewer.start()
        try:
            yield run
        finally:
            with self._lock:
                del self._stops[run]

    def _renew(self) -> None:
        while True:
            time.sleep(RENEW_SECONDS)
            with self._lock:
                running = list(self._stops)
                if not running:
                    self._renewer = None
                    return
            try:
                held = self.store.renew_leases(self.owner)
            except Exception as error:
                logger.warning("The leases of %d jobs can't be renewed now: %s", len(running), error)
                continue
            with self._lock:
                for run in running:
                    if self._stops.get(run, Stop.LOST) is Stop.LOST:
                        continue
                    if run.job.id not in held:
                        self._stops[run] = Stop.LOST
                    elif held[run.job.id]:
                        self._stops[run] = Stop.CANCELLED

    def stop_reason(self, run: Run) -> Stop | None:
        """Why a job must not go on; None where it may."""
        return Stop.SHUTDOWN if self._stopping.is_set() else self._stops.get(run)

    def running(self) -> list[str]:
        """The ids of the jobs that run here."""
        with self._lock:
            return [run.job.id for run in self._stops]

    @property
    def stopping(self) -> bool:
        """Whether the process ends."""
        return self._stopping.is_set()

    def stop(self) -> None:
        """Makes all jobs stop at their next progress."""
        self._stopping.set()

    def dead_owners(self) -> list[str]:
        """The owners of leases that were processes of this machine and are gone; their leases needn't run out."""
        machine = _machine()
        return [
            owner
            for owner in self.store.lease_owners()
            if owner.startswith(f"{machine}:") and not Path(f"/proc/{owner.split(':')[1]}").exists()
        ]


def _machine() -> str:
    """Identifies the kernel and the container, in which a process id is unique."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}-{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return uuid.uuid4().hex  # unique
