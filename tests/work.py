"""Does jobs in the test's own process."""

from __future__ import annotations

from ml_backend.jobs.queue import Jobs
from ml_backend.jobs.runner import Runner


def work_off(jobs: Jobs) -> int:
    """Does what waits and what follows from it, one job after the other, and returns the number of jobs."""
    runner = Runner(jobs)
    count = 0
    while (job := runner.claim()) is not None:
        runner.run(job)
        count += 1
    return count
