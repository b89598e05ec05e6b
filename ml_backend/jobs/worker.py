"""The worker process: it looks at the table of jobs, does them in threads, and finds the work of dead workers.

`gunicorn.conf.py` starts it, and starts it again when it ends.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta

from errors import BackendError, NotReady
from ml_backend import strict_json
from ml_backend.base import LabelStudioMLBase
from ml_backend.jobs.refresh import REFRESHED
from ml_backend.jobs.runner import SLOTS, Runner
from ml_backend.logs import about
from ml_backend.startup import report_label_studio
from ml_backend.store.tables import JobKind, Project
from ml_backend.store.values import NO_PROJECT

logger = logging.getLogger(__name__)

# Below the web processes' priority: a webhook must be answered within a second.
NICENESS = 10
# The time between two looks at the table; benchmarks/jobs.md has their cost.
POLL_SECONDS = 0.2
WATCH_SECONDS = 5.0
# Running jobs have this time to stop; then they are put back.
SHUTDOWN_SECONDS = 1.0
# Label Studio sends each webhook once; a comparison finds what it couldn't deliver.
RECONCILE_INTERVAL = timedelta(minutes=30)
# At a worker's start; it may start again and again.
RECONCILE_AT_START = timedelta(minutes=1)
FORGET_SECONDS = 3600.0
# A new file in MODEL_ROOT is found within this time; of hundreds of projects later, since a look at each of them takes
# one to five milliseconds.
LOOK_SECONDS, LOOK_SECONDS_PER_PROJECT = 30.0, 0.2


# The key of the value that holds the worker's encoder, device and precision.
HEALTH_KEY = "worker_health"


class WorkerProcess:
    """Does jobs until it is told to stop.

    Args:
        runner: does one job.
        parent: the worker also stops when this process isn't its parent any more.
    """

    def __init__(self, runner: Runner, parent: int | None = None) -> None:
        self._runner = runner
        self._jobs = runner.jobs
        self._store = runner.store
        self._parent = parent
        self._stopped = threading.Event()
        self._changed = threading.Event()  # a job was added here or has ended: look at once
        self._next_forgetting = 0.0
        self._next_look = 0.0
        self._fingerprints: dict[str, str] = {}  # of the projects' models

    def run(self) -> None:
        """Works until SIGTERM, SIGINT or SIGHUP; then running jobs are put back."""
        os.nice(NICENESS)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: self._stopped.set())
        threading.Thread(target=self._report, name="report", daemon=True).start()
        working = threading.Thread(target=self.work, name="work", daemon=True)
        working.start()
        self._start()
        while not self._stopped.wait(WATCH_SECONDS):
            self.watch()
            if self._parent is not None and os.getppid() != self._parent:
                logger.error("The server is gone: the worker stops")
                self._stopped.set()
        self._stop(working)

    def work(self) -> None:
        """Begins jobs, each in a thread, until the process is told to stop."""
        threads = ThreadPoolExecutor(sum(SLOTS.values()), "job")
        self._jobs.on_added = self._changed.set
        while not self._runner.leases.stopping:
            self._changed.clear()
            try:
                while (job := self._runner.claim()) is not None:
                    threads.submit(self._runner.run, job).add_done_callback(lambda _: self._changed.set())
                self._changed.wait(POLL_SECONDS)
            except Exception as error:
                log = logger.warning if isinstance(error, BackendError) else logger.exception
                log("No job can be begun now: %s", error)
                self._stopped.wait(WATCH_SECONDS)

    def _start(self) -> None:
        """Looks for work that another environment or a long absence may have made necessary."""
        try:
            self._store.worker_alive(self._runner.leases.owner)
            self._store.make_jobs_due()
            self.look_at_models()
            self.reconcile(RECONCILE_AT_START)
        except Exception:
            logger.exception("The worker couldn't look for work at its start; it looks again")
        self.watch()

    def _report(self) -> None:
        """Reports to the log and to `/health` what this worker runs on, and whether Label Studio's key works."""
        model_class = self._jobs.registry.model_class
        try:
            facts = model_class.warm_up()
            self._store.set_value(NO_PROJECT, HEALTH_KEY, strict_json.dumps(model_class.health()))
            for level, line in facts:
                logger.log(level, "%s", line)
            report_label_studio(model_class.services.settings)
        except Exception:
            logger.exception("The worker can't report what it runs on")

    def look_at_models(self) -> None:
        """Requests trainings where models don't fit their files, such as the encoder's, once for each change."""
        projects = self._store.projects()
        self._next_look = time.monotonic() + max(LOOK_SECONDS, len(projects) * LOOK_SECONDS_PER_PROJECT)
        for project in projects:
            # The others are trained in any case, and checked then.
            if project.wanted_revision <= project.trained_revision:
                with about(project=project.id):
                    self._fingerprints[project.id] = self._look_at(project)

    def _look_at(self, project: Project) -> str:
        """Requests a project's training where its model doesn't fit its files, unless the first one waits for more
        submissions. Returns their fingerprint, or why there is none."""
        known = self._fingerprints.get(project.id)
        try:
            model = self._jobs.registry.get(project.id, project.label_config or None)
            fingerprint = f"{model.fingerprint()} {model.model_version}"  # it changes where a file is damaged
            if known != fingerprint and project.trained_revision > 0 and model.needs_training():
                self._store.request_training(project.id)
            elif known != fingerprint:
                self._refresh(project.id, model)
        except BackendError as error:
            fingerprint = str(error)
            if known != fingerprint:
                logger.warning("Project %s: %s", project.id, error)
        return fingerprint

    def _refresh(self, project_id: str, model: LabelStudioMLBase) -> None:
        """Queues fresh predictions of a version that has none yet, such as an earlier one after a roll-back."""
        with suppress(NotReady):
            model.check_ready()
            if self._store.get_value(project_id, REFRESHED) != model.model_version:
                self._jobs.add_refresh(project_id, model)

    def _stop(self, working: threading.Thread) -> None:
        deadline = time.monotonic() + SHUTDOWN_SECONDS
        self._runner.leases.stop()
        working.join(SHUTDOWN_SECONDS)  # it may be about to begin a job
        while self._runner.leases.running() and time.monotonic() < deadline:
            time.sleep(0.05)
        try:
            for job in self._store.release_jobs(self._runner.leases.owner):
                logger.info("Job %s (%s) is put back: the worker stops", job.id, job.subject)
            self._store.worker_gone(self._runner.leases.owner)
        except BackendError as error:
            logger.warning("%s", error)  # the leases run out
        self._jobs.registry.model_class.shut_down()
        logging.shutdown()
        # Threads may be inside PyTorch, which doesn't survive the interpreter's end.
        os._exit(0)

    def watch(self) -> None:
        """Reports that this worker is alive, and finds lost work."""
        try:
            self._store.worker_alive(self._runner.leases.owner)
            if time.monotonic() >= self._next_look:
                self.look_at_models()
            self.recover()
            self.reconcile(RECONCILE_INTERVAL)
            if time.monotonic() >= self._next_forgetting:
                self._next_forgetting = time.monotonic() + FORGET_SECONDS
                self._store.forget_old_jobs()
        except BackendError as error:
            logger.warning("%s", error)
        except Exception:
            logger.exception("The worker's watch failed; it goes on")

    def recover(self) -> None:
        """Takes over dead workers' jobs, and queues trainings where a model is behind its data, or where an unreachable
        video is to be tried again."""
        leases = self._runner.leases
        for job in self._store.take_over_jobs(leases.dead_owners(), leases.running()):
            logger.warning("Job %s (%s) is taken over: its worker died", job.id, job.subject)
        for project_id in dict.fromkeys([*self._store.projects_behind(), *self._store.projects_to_retry()]):
            if self._store.live_training(project_id) is None:
                self._jobs.add_training(project_id)

    def reconcile(self, interval: timedelta) -> None:
        """Queues comparisons with Label Studio for the projects whose last one is old, where there is a key."""
        for project_id in self._store.projects_to_reconcile(interval):
            self._store.begin_reconciliation(project_id)  # also where it can't be done
            waiting = self._store.live_job(f"{JobKind.RECONCILE}:{project_id}")
            if waiting is None and self._jobs.can_reconcile(project_id):
                self._jobs.add_reconciliation(project_id)
