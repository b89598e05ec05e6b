"""The heavy work: training and preparing (extracting features), queued with Huey and done by a worker process.

The queue's messages hold a job's id and nothing else; what is to be done, and how far it is, stands in the store. So a
lost message is found again by comparing the two, and a message that comes twice runs once.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
import uuid
from datetime import timedelta
from typing import Any

from huey import Huey, SqliteHuey
from huey.exceptions import RetryTask

from errors import BackendError, EncoderError, InvalidConfig, InvalidRequest, MediaError, NotReady, UnknownJob
from ml_backend import label_studio
from ml_backend.base import LabelStudioMLBase, ModelResponse, Progress
from ml_backend.registry import ModelRegistry
from ml_backend.store import Store
from ml_backend.tables import Job

logger = logging.getLogger(__name__)

TRAIN = "train"
PREPARE = "prepare"
PREPARE_MANY = "prepare_many"
DELIVER = "deliver"
# Fetching the annotations from Label Studio is this share of a training's progress bar.
FETCHING_SHARE = 0.1
# Somebody waits for a prediction; then the training whose model the next one shows; then what may be needed some day.
PRIORITY_WANTED = 20
PRIORITY_TRAINING = 10
PRIORITY_AHEAD = 0
# A queue longer than this would take days; what is refused then is asked for again when it is needed.
MAX_QUEUED_JOBS = 10_000
# One job extracts while another trains.
WORKER_THREADS = 2
# A job that was begun this often and never ended killed its worker each time (out of memory, say).
MAX_ATTEMPTS = 3
# A training that failed because a video or Label Studio couldn't be reached is tried again after this time.
RETRY_DELAY = timedelta(minutes=10)
# The worker takes the processors that the web leaves free: a webhook must be answered within a second.
NICENESS = 10
HEARTBEAT_SECONDS = 5.0
SHUTDOWN_SECONDS = 5.0
RECOVERY_SECONDS = 30.0
# A job whose twin is running asks again after this time.
TWIN_RETRY_SECONDS = 1
PROGRESS_SECONDS = 1.0


class Jobs:
    """Adds jobs and, in a worker process, does them.

    Args:
        store: the state.
        registry: gives the projects' models.
        huey: the queue; in immediate mode a job is done where it is added.
    """

    def __init__(self, store: Store, registry: ModelRegistry, huey: Huey) -> None:
        self.store = store
        self.registry = registry
        self.huey = huey
        self.worker = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._message = huey.task(name="run_job")(self.run)

    # -- adding

    def add_training(self, project_id: str) -> Job:
        """Queues a training of the project's model on its latest data; one that waits already serves everybody."""
        return self._add(TRAIN, f"{TRAIN}:{project_id}", project_id, {}, PRIORITY_TRAINING)

    def add_preparation(self, project_id: str, task: dict[str, Any], priority: int) -> Job:
        """Queues the heavy part of a task's prediction.

        Raises:
            NotReady: the queue is full.
        """
        key = f"{PREPARE}:{project_id}:{task['id'] if task.get('id') is not None else task['data']}"
        running = self.store.live_job(key)
        if running is not None and (running.status == "started" or running.priority >= priority):
            return running
        if running is None and self.store.count_jobs("queued") >= MAX_QUEUED_JOBS:
            raise NotReady(f"{MAX_QUEUED_JOBS} jobs are waiting already: ask again when the worker has caught up.")
        if running is not None:
            # The message of the lower priority stays behind and finds its work done.
            self._send(running.id, priority)
            return running
        arguments = {"task": {"id": task.get("id"), "data": task["data"]}}
        return self._add(PREPARE, key, project_id, arguments, priority)

    def add_preparations(self, project_id: str, tasks: list[dict[str, Any]]) -> Job:
        """Queues the preparation of many tasks ahead of need. The worker makes a job of each: here it would take too
        long."""
        key = f"{PREPARE_MANY}:{project_id}:{uuid.uuid4().hex}"
        return self._add(PREPARE_MANY, key, project_id, {"tasks": tasks}, PRIORITY_AHEAD)

    def add_delivery(self, project_id: str, task: dict[str, Any]) -> Job:
        """Queues a prediction that couldn't be given in time, to be stored in Label Studio when it is ready."""
        arguments = {"task": {"id": task["id"], "data": task["data"]}}
        return self._add(DELIVER, f"{DELIVER}:{project_id}:{task['id']}", project_id, arguments, PRIORITY_WANTED)

    def _add(self, kind: str, key: str, project_id: str, arguments: dict[str, Any], priority: int) -> Job:
        job, new = self.store.add_job(kind, key, project_id, arguments, priority)
        if new:
            self._send(job.id, priority)
        return job

    def _send(self, job_id: str, priority: int) -> None:
        self.huey.enqueue(self._message.s(job_id, priority=priority))

    def status(self, job_id: str) -> Job:
        """The job of that id.

        Raises:
            UnknownJob: there is none.
        """
        job = self.store.job(job_id)
        if job is None:
            raise UnknownJob(f"No job {job_id!r} is known; ended jobs are forgotten after two weeks.")
        return job

    # -- doing

    def run(self, job_id: str) -> None:
        """Does a queued job in this process, and records how it ended."""
        job = self.store.claim_job(job_id, self.worker)
        if job is None:
            waiting = self.store.job(job_id)
            if waiting is not None and waiting.status == "queued":
                raise RetryTask(delay=TWIN_RETRY_SECONDS)
            return
        if job.attempts > MAX_ATTEMPTS:
            if job.kind == TRAIN:
                self.store.give_up_training(job.project_id)
            self.store.end_job(
                job.id, error=f"Given up: the worker died {MAX_ATTEMPTS} times on it. See the worker's log."
            )
            return
        try:
            self.store.end_job(job.id, result=self._do(job))
        except BackendError as error:
            logger.warning("Job %s (%s): %s", job.id, job.key, error)
            self.store.end_job(job.id, result={"status": error.status}, error=str(error))
        except Exception as error:
            logger.exception("Job %s (%s) failed", job.id, job.key)
            self.store.end_job(job.id, error=f"{type(error).__name__}: {error}. See the worker's log, job {job.id}.")

    def _do(self, job: Job) -> dict[str, Any]:
        if job.kind == TRAIN:
            return self.train(job.project_id, self._reporter(job))
        if job.kind == PREPARE:
            self.registry.get(job.project_id).prepare(job.arguments["task"], self._reporter(job))
        if job.kind == DELIVER:
            return self._deliver(job)
        if job.kind == PREPARE_MANY:
            for task in job.arguments["tasks"]:
                self.add_preparation(job.project_id, task, PRIORITY_AHEAD)
        return {}

    def _deliver(self, job: Job) -> dict[str, Any]:
        """Predicts a task and stores the prediction in Label Studio, once for each model version."""
        model = self.registry.get(job.project_id)
        task = job.arguments["task"]
        model.check_ready()
        model.prepare(task, self._reporter(job))
        prediction = predict_task(model, task)
        version = prediction["model_version"]
        if version not in label_studio.prediction_versions(model.connection, task["id"]):
            label_studio.create_prediction(
                model.connection, task["id"], prediction["result"], prediction["score"], version
            )
        return {"model_version": version}

    def run_training_now(self, project_id: str) -> dict[str, Any]:
        """Trains in the caller's thread, after any training of the project that is running, and returns the metrics.

        Raises:
            BackendError: why there is no training.
        """
        job, _ = self.store.add_job(TRAIN, f"{TRAIN}:{project_id}", project_id, {}, PRIORITY_TRAINING)
        while self.store.claim_job(job.id, self.worker) is None:
            if self.status(job.id).status != "queued":
                return self.status(job.id).result or {}
            time.sleep(0.1)
        try:
            result = self.train(project_id, self._reporter(job))
        except Exception as error:
            self.store.end_job(job.id, error=str(error))
            raise
        self.store.end_job(job.id, result=result)
        return result

    def train(self, project_id: str, progress: Progress | None = None) -> dict[str, Any]:
        """Brings a project's model up to its latest data revision, and records the training.

        Returns:
            What the model's `fit` returned.

        Raises:
            BackendError: why there is no training.
        """
        project = self.store.project(project_id)
        if project is None:
            raise InvalidRequest(f"Project {project_id} isn't known: connect this backend to it first.")
        if project.revision == project.trained_revision:
            trainings = self.store.trainings(project_id)
            return (trainings[-1].metrics if trainings else None) or {}
        try:
            model = self.registry.get(project_id)
            if project.from_scratch:
                self._reconcile(project_id, model, progress)
            return self._fit(project_id, model, progress)
        except (InvalidConfig, EncoderError):
            self.store.give_up_training(project_id)  # until the config changes
            raise
        except (MediaError, label_studio.LabelStudioError):
            self.store.retry_training(project_id, RETRY_DELAY)
            raise

    def _fit(self, project_id: str, model: LabelStudioMLBase, progress: Progress | None) -> dict[str, Any]:
        """Trains on what is stored now, and records it."""
        project = self.store.project(project_id)
        tasks = self.store.annotated_tasks(project_id)
        event = project.last_event or {"event": "", "data": {}}
        training_id = self.store.start_training(project_id, project.revision, len(tasks))
        started = time.monotonic()
        try:
            result = model.fit(
                event["event"], event["data"], tasks=tasks, from_scratch=project.from_scratch, progress=progress
            )
        except Exception as error:
            seconds = time.monotonic() - started
            passing = isinstance(error, MediaError)
            self.store.end_training(training_id, "failed", seconds, error=str(error), up_to_date=not passing)
            raise
        result = result or {}
        published = all(metrics.get("published", True) for metrics in result.values() if isinstance(metrics, dict))
        self.store.end_training(
            training_id,
            "published" if published else "rejected",
            time.monotonic() - started,
            model_version=model.model_version,
            metrics=result,
        )
        return result

    def _reconcile(self, project_id: str, model: LabelStudioMLBase, progress: Progress | None) -> None:
        """Makes the stored annotations those that Label Studio has."""

        def fetched(done: int, total: int) -> None:
            if progress and total:
                progress(FETCHING_SHARE * done / total)

        tasks = list(label_studio.annotated_tasks(model.connection, int(project_id), fetched))
        self.store.replace_annotations(project_id, tasks)
        logger.info("Project %s: %d annotated tasks fetched from Label Studio", project_id, len(tasks))

    def _reporter(self, job: Job) -> Progress:
        """A progress function that writes to the store once a second."""
        last = 0.0

        def report(share: float) -> None:
            nonlocal last
            if time.monotonic() - last >= PROGRESS_SECONDS:
                last = time.monotonic()
                self.store.set_progress(job.id, min(max(share, 0.0), 1.0))

        return report

    # -- the worker process

    def work(self, parent: int | None = None) -> None:
        """Does queued jobs until SIGTERM, which gives running jobs a moment to end, or SIGINT.

        A job that is interrupted goes back to the queue when a worker starts again.

        Args:
            parent: stop as well when this process isn't the parent any more.
        """
        consumer = self.huey.create_consumer(
            workers=WORKER_THREADS,
            initial_delay=0.05,
            max_delay=0.5,
            periodic=False,
            scheduler_interval=1,
            graceful_signal="TERM",
            shutdown_timeout=SHUTDOWN_SECONDS,
        )
        os.nice(NICENESS)
        self.store.worker_alive(self.worker)
        self._retrain_where_needed()
        stopped = threading.Event()
        watch = threading.Thread(target=self._watch, args=(stopped, parent), name="watch", daemon=True)
        watch.start()
        try:
            consumer.run()
        finally:
            stopped.set()
            watch.join()
            self.store.worker_gone(self.worker)

    def _watch(self, stopped: threading.Event, parent: int | None) -> None:
        """Tells that this worker is alive, and finds lost work, until stopped."""
        next_recovery = 0.0
        while not stopped.wait(HEARTBEAT_SECONDS if next_recovery else 0):
            try:
                self.store.worker_alive(self.worker)
                if time.monotonic() >= next_recovery:
                    next_recovery = time.monotonic() + RECOVERY_SECONDS
                    self.recover()
            except Exception:
                logger.exception("The worker's watch failed; it goes on")
            if parent is not None and os.getppid() != parent:
                logger.error("The server is gone: the worker stops")
                self.store.worker_gone(self.worker)
                os._exit(1)

    def recover(self) -> None:
        """Takes over dead workers' jobs, sends lost messages again, and queues a training where a model is behind its
        data."""
        self.store.requeue_abandoned_jobs()
        sent = {message.args[0] for message in [*self.huey.pending(), *self.huey.scheduled()]}
        for job in self.store.jobs("queued"):
            if job.id not in sent:
                self._send(job.id, job.priority)
        for project_id in self.store.projects_behind(due=True):
            if self.store.live_job(f"{TRAIN}:{project_id}") is None:
                self.add_training(project_id)

    def _retrain_where_needed(self) -> None:
        """Queues a training where the stored model doesn't fit the present encoder; at start-up, when that can have
        changed."""
        for project in self.store.projects():
            try:
                if self.registry.get(project.id).needs_training():
                    self.store.request_training(project.id)
            except BackendError as error:
                logger.warning("Project %s: %s", project.id, error)


def predict_task(model: LabelStudioMLBase, task: dict[str, Any], context: Any = None) -> dict[str, Any]:
    """One task's prediction as Label Studio takes it: `result`, `score` and `model_version`."""
    answer = model.predict([task], context=context)
    if not isinstance(answer, ModelResponse):
        answer = ModelResponse(predictions=answer)
    prediction = answer.predictions[0]
    return {
        "result": prediction["result"],
        "score": prediction.get("score"),
        "model_version": prediction.get("model_version") or answer.model_version or model.model_version,
    }


def open_queue(database_url: str) -> Huey:
    """The queue beside the state's database.

    Raises:
        ValueError: there is no queue for this kind of database.
    """
    if not database_url.startswith("sqlite:///"):
        raise ValueError(f"DATABASE_URL={database_url.split(':')[0]}:… isn't supported: use sqlite:///FILE.")
    return SqliteHuey("jobs", filename=database_url.removeprefix("sqlite:///") + ".queue", fsync=True, results=False)
