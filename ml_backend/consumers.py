"""The worker process: Huey's consumers, and a watch that finds lost work."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from datetime import timedelta

from huey.consumer import Consumer

from errors import BackendError
from ml_backend import strict_json
from ml_backend.jobs import Jobs
from ml_backend.startup import report_label_studio
from ml_backend.store.values import NO_PROJECT
from ml_backend.tables import JobKind, QueueName

logger = logging.getLogger(__name__)

# Trainings have a place of their own beside extractions.
PLACES = {QueueName.TRAIN: 1, QueueName.EXTRACT: 2}
# The worker takes the processors that the web leaves free: a webhook must be answered within a second.
NICENESS = 10
WATCH_SECONDS = 5.0
# Running jobs get this long to stop by themselves; then they are put back as they are.
SHUTDOWN_SECONDS = 1.0
# Label Studio sends each webhook once. What it couldn't deliver is found by comparing.
RECONCILE_INTERVAL = timedelta(minutes=30)
# When a worker starts: also then not all the time, where it starts again and again.
RECONCILE_AT_START = timedelta(minutes=1)
FORGET_SECONDS = 3600.0
# A model file that was put into MODEL_ROOT is found after at most this time.
LOOK_SECONDS = 30.0


# Where the store keeps what the worker says of itself: which encoder, device and precision extract.
HEALTH_KEY = "worker_health"


class WorkerProcess:
    """Does queued jobs until it is told to stop.

    Args:
        jobs: the jobs.
        parent: stop as well when this process isn't the parent any more.
    """

    def __init__(self, jobs: Jobs, parent: int | None = None) -> None:
        self._jobs = jobs
        self._store = jobs.store
        self._parent = parent
        self._stopped = threading.Event()
        self._consumers = [self._consumer(name, places) for name, places in PLACES.items()]
        self._next_forgetting = 0.0
        self._next_look = 0.0
        self._fingerprints: dict[str, str] = {}  # of the projects' models

    def _consumer(self, queue: QueueName, places: int) -> Consumer:
        return self._jobs.queues[queue].create_consumer(
            workers=places,
            initial_delay=0.05,
            max_delay=0.5,
            periodic=False,
            scheduler_interval=60,
            shutdown_timeout=SHUTDOWN_SECONDS,
        )

    def run(self) -> None:
        """Works until SIGTERM or SIGINT; what runs then goes back to wait."""
        os.nice(NICENESS)
        for consumer in self._consumers:
            consumer.start()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):  # after the consumers have set theirs
            signal.signal(number, lambda *_: self._stopped.set())
        threading.Thread(target=self._report, name="report", daemon=True).start()
        self._start()
        while not self._stopped.wait(WATCH_SECONDS):
            self.watch()
            for consumer in self._consumers:
                consumer.check_worker_health()
            if self._parent is not None and os.getppid() != self._parent:
                logger.error("The server is gone: the worker stops")
                self._stopped.set()
        self._stop()

    def _start(self) -> None:
        """What another environment or a long absence may have made necessary."""
        try:
            self._store.worker_alive(self._jobs.leases.owner)
            self._store.make_jobs_due()
            self.look_at_models()
            self.reconcile(RECONCILE_AT_START)
        except Exception:
            logger.exception("The worker starts without having looked for work; it looks again")
        self.watch()

    def _report(self) -> None:
        """Tells the log and `/health` what this worker runs on, and whether Label Studio's key works."""
        model_class = self._jobs.registry.model_class
        try:
            model_class.warm_up()
            self._store.set_value(NO_PROJECT, HEALTH_KEY, strict_json.dumps(model_class.health()))
            for level, line in model_class.start_up_lines():
                logger.log(level, "%s", line)
            report_label_studio(model_class.services.settings)
        except Exception:
            logger.exception("What the worker runs on can't be told")

    def look_at_models(self) -> None:
        """Queues a training where a model doesn't fit the files that it is made from, such as its encoder's; once for
        each change of them."""
        self._next_look = time.monotonic() + LOOK_SECONDS
        for project in self._store.projects():
            if project.revision > project.trained_revision:
                continue  # it is trained in any case, and looked at again then
            try:
                model = self._jobs.registry.get(project.id)
                fingerprint = model.fingerprint()
                if self._fingerprints.get(project.id) != fingerprint and model.needs_training():
                    self._store.request_training(project.id)
            except BackendError as error:
                fingerprint = str(error)
                if self._fingerprints.get(project.id) != fingerprint:
                    logger.warning("Project %s: %s", project.id, error)
            self._fingerprints[project.id] = fingerprint

    def _stop(self) -> None:
        self._jobs.leases.stop()
        deadline = time.monotonic() + SHUTDOWN_SECONDS
        for consumer in self._consumers:
            consumer.stop()
        while self._jobs.leases.running() and time.monotonic() < deadline:
            time.sleep(0.05)
        try:
            for job in self._store.release_jobs(self._jobs.leases.owner):
                logger.info("Job %s (%s) is put back: the worker stops", job.id, job.subject)
            self._store.worker_gone(self._jobs.leases.owner)
        except BackendError as error:
            logger.warning("%s", error)  # the leases run out
        self._jobs.registry.model_class.shut_down()
        logging.shutdown()
        # Threads may be inside PyTorch, which doesn't survive the interpreter's end.
        os._exit(0)

    def watch(self) -> None:
        """Tells that this worker is alive, and finds lost work."""
        try:
            self._store.worker_alive(self._jobs.leases.owner)
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
        """Takes over dead workers' jobs, queues a training where a model is behind its data or a video may be reached
        again, and wakes workers for what waits."""
        for job in self._store.take_over_jobs(self._jobs.leases.dead_owners()):
            logger.warning("Job %s (%s) is taken over: its worker died", job.id, job.subject)
        for project_id in dict.fromkeys([*self._store.projects_behind(), *self._store.projects_to_retry()]):
            if self._store.live_training(project_id) is None:
                self._jobs.add_training(project_id)
        for queue, waiting in self._store.count_due_jobs().items():
            if len(self._jobs.queues[queue]) == 0:
                for _ in range(min(waiting, PLACES[queue])):
                    self._jobs.wake(queue)

    def reconcile(self, interval: timedelta) -> None:
        """Has the projects compared with Label Studio that weren't for some time, where there is a key."""
        for project_id in self._store.projects_to_reconcile(interval):
            self._store.begin_reconciliation(project_id)  # looked at, also where it can't be done
            waiting = self._store.live_job(f"{JobKind.RECONCILE}:{project_id}")
            if waiting is None and self._jobs.can_reconcile(project_id):
                self._jobs.add_reconciliation(project_id)
