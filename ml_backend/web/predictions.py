"""Answer `/predict`: predict tasks with cached features, and wait for the others or deliver them later."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

from errors import BackendError, DatabaseUnavailable, InternalError, InvalidRequest, Loading, MediaError, NotReady
from ml_backend.base import LabelStudioMLBase
from ml_backend.jobs.deliveries import predict_task
from ml_backend.jobs.queue import PRIORITY_BATCH, PRIORITY_WANTED, Jobs
from ml_backend.logs import about
from ml_backend.registry import ModelRegistry
from ml_backend.settings import Settings
from ml_backend.store import Store
from ml_backend.store.tables import LIVE, Job, JobStatus
from ml_backend.web.schemas import PredictRequest

logger = logging.getLogger(__name__)

# An annotator who opens a task waits meanwhile. The rest of five seconds is left for the prediction itself.
SINGLE_TASK_SECONDS = 4.0
POLL_SECONDS = 0.1
# A request waits for at most so many tasks; the worker gets the others at once.
MAX_WAITED_FOR = 100
ERRORS_LOGGED = 5  # of one request's tasks
# The time from Label Studio's look at what it has to its request.
ASKED = timedelta(seconds=2)
# The event of an interactive request that only makes a later one fast.
PREWARM = "prewarm"


class AlreadyStored(BackendError):
    """Label Studio has the prediction already."""

    status = 409


class Predictions:
    """Answers prediction requests.

    Args:
        settings: the environment.
        store: the state.
        registry: gives the projects' models.
        jobs: the job queue.
    """

    def __init__(self, settings: Settings, store: Store, registry: ModelRegistry, jobs: Jobs) -> None:
        self._settings = settings
        self._store = store
        self._registry = registry
        self._jobs = jobs
        self.is_stopping: Callable[[], bool] = lambda: False  # whether the process ends, so that no request may wait
        # Requests that wait for features must leave threads for those that need an answer at once.
        self._waiting = threading.BoundedSemaphore(max(1, settings.threads // 2))

    def answer(self, body: PredictRequest) -> dict[str, Any]:
        """Returns the answer: `results` in the tasks' order, with `{"error": …}` in place of a task that fails.

        The request's labeling config is the project's present one, as that of `/setup` is; it is stored where it
        differs.

        Raises:
            BackendError: the first task's error, where no task succeeds.
        """
        try:
            model = self._registry.get(body.project or "", body.label_config or None)
            self._keep_config(body)
            if not body.tasks:
                return {"results": [], "model_version": model.model_version}
            if _is_prewarming(body):
                return self._prewarm(body, model)
            self._check_ready(model, body.project)
            return self._answer_tasks(body, model)
        except BackendError as error:
            # Where it is a task's error, it is the first task's.
            first = body.tasks[0].id if body.tasks else None
            with about(task=first):
                named = "" if first is None else f", task {first}"
                logger.warning("Project %s%s: the prediction failed: %s", body.project, named, error)
            raise

    def _prewarm(self, body: PredictRequest, model: LabelStudioMLBase) -> dict[str, Any]:
        """Has the worker extract the tasks' features, and answers at once, without regions.

        Label Studio shows the answer to a request with a context, and doesn't store it.
        """
        version = model.model_version
        for task in body.tasks if body.project else ():
            entry = task.model_dump()
            with suppress(MediaError):  # whoever opens the task is told
                if not model.is_extracted(entry):
                    self._jobs.add_extraction(body.project, entry, PRIORITY_BATCH)
        return {"results": [{"result": [], "model_version": version} for _ in body.tasks], "model_version": version}

    def _check_ready(self, model: LabelStudioMLBase, project_id: str | None) -> None:
        """Raises NotReady where the project isn't trained, with its training's state. The wait for an encoder that is
        being loaded comes later, with the tasks."""
        try:
            model.check_ready()
        except Loading:
            pass
        except NotReady as error:
            reason = self._jobs.training_state(project_id) if project_id else None
            if reason is None and model.needs_training():
                reason = "The stored annotations haven't been learnt yet. A worker starts a training within a minute."
            raise NotReady(reason or str(error)) from error

    def _keep_config(self, body: PredictRequest) -> None:
        """Stores the request's labeling config, where the worker that extracts features finds it."""
        if body.project and body.label_config:
            changed = self._store.update_project(body.project, body.label_config)
            if changed and body.project in self._store.projects_behind():
                self._jobs.add_training(body.project)

    def _answer_tasks(self, body: PredictRequest, model: LabelStudioMLBase) -> dict[str, Any]:
        single = len(body.tasks) == 1
        patience = self._settings.predict_timeout
        started = time.monotonic()
        deadline = started + (min(SINGLE_TASK_SECONDS, patience) if single else patience)
        context = (body.params or {}).get("context")
        later = _later(model)
        self._know(body)
        answers: list[dict[str, Any] | BackendError | None] = [None] * len(body.tasks)
        loading = self._wait_until_loaded(model, deadline)
        if loading is not None:
            self._deliver(body, list(range(len(answers))), model)
            raise Loading(f"{loading} {later}")

        def of_task(index: int, act: Callable[[dict[str, Any]], Any]) -> Any:
            """The result of `act` for a task, None where it fails; the task's answer is then the error."""
            task_id = body.tasks[index].id
            with about(task=task_id):
                try:
                    return act(body.tasks[index].model_dump())
                except BackendError as error:
                    answers[index] = error
                except Exception:
                    # A bug with one task's data must not keep the others from their predictions.
                    answers[index] = error = InternalError()
                    logger.exception("Reference %s: project %s, task %s failed", error.reference, body.project, task_id)
            return None

        def predict(index: int) -> None:
            answers[index] = of_task(index, lambda task: predict_task(model, task, context)) or answers[index]

        # Tasks with cached features come first, so that they are answered however long the others take. At least one of
        # them is predicted, however short the time is.
        missing: list[int] = []
        late: list[int] = []
        predicted = 0
        for index in range(len(body.tasks)):
            if predicted and time.monotonic() > deadline:
                late.append(index)
                continue
            extracted = of_task(index, model.is_extracted)
            if extracted:
                predict(index)
                predicted += 1
            elif extracted is not None:
                missing.append(index)
        late += missing[MAX_WAITED_FOR:]
        outcomes = self._extract(body, missing[:MAX_WAITED_FOR], deadline)
        for index in missing[:MAX_WAITED_FOR]:
            outcome = outcomes.get(index)
            if outcome is None:
                late.append(index)
            elif isinstance(outcome, BackendError):
                answers[index] = outcome
            elif outcome.status == JobStatus.FINISHED:
                predict(index)
            elif outcome.status in LIVE:
                answers[index] = self._being_extracted(outcome, later)
                if model.connection.api_key:
                    late.append(index)
            else:
                answers[index] = _failure(outcome)
                if (outcome.result or {}).get("transient") and model.connection.api_key:
                    late.append(index)  # the delivery job tries again, with growing pauses
        self._deliver(body, late, model)
        for index in late:
            answers[index] = answers[index] or NotReady(f"The time of the request was too short for this task. {later}")
        self._remember(body, answers, started)
        return self._as_json(body, answers, model)

    def _know(self, body: PredictRequest) -> None:
        """Stores the tasks' data, which may be new: a job that follows keeps what is stored."""
        tasks = [{"id": task.id, "data": task.data} for task in body.tasks if task.id is not None]
        if body.project:
            with suppress(DatabaseUnavailable):
                self._store.save_tasks(body.project, tasks, self._registry.train_every(body.project))

    def _remember(
        self, body: PredictRequest, answers: list[dict[str, Any] | BackendError | None], started: float
    ) -> None:
        """Stores the scores for the dashboard's list of tasks. A failure to do so doesn't fail the answer.

        What the worker has stored since Label Studio asked isn't answered: Label Studio would store it again.
        """
        given = [
            (task.model_dump(), answer["score"], answer["model_version"])
            for task, answer in zip(body.tasks, answers, strict=True)
            if isinstance(answer, dict)
        ]
        if not body.project or not given:
            return
        with suppress(DatabaseUnavailable):
            train_every = self._registry.train_every(body.project)
            if not _is_stored(body):
                self._store.save_predictions(body.project, given, train_every)
                return
            within = timedelta(seconds=time.monotonic() - started) + ASKED
            stored = self._store.answer_predictions(body.project, given, within, train_every)
            for index, task in enumerate(body.tasks):
                if task.id in stored and isinstance(answers[index], dict):
                    answers[index] = AlreadyStored("The worker has just stored this prediction in Label Studio.")

    def _extract(self, body: PredictRequest, indices: list[int], deadline: float) -> dict[int, Job | BackendError]:
        """Has the worker extract tasks' features, and waits. Returns by index the job as it is then, or the error that
        kept it from being added. A task for which the time was too short is missing."""
        outcomes: dict[int, Job | BackendError] = {}
        jobs: dict[int, Job] = {}
        for index in indices:
            if time.monotonic() > deadline:
                break
            try:
                if not body.project:
                    raise InvalidRequest("project is missing: the worker needs it to find the labeling config.")
                task = body.tasks[index].model_dump()
                jobs[index] = self._jobs.add_extraction(body.project, task, PRIORITY_WANTED)
            except BackendError as error:
                outcomes[index] = error
        pending = list(jobs.values())

        def ended() -> bool:
            while pending and self._jobs.status(pending[-1].id).status not in LIVE:
                pending.pop()
            return not pending

        self._wait(ended, deadline)
        return outcomes | {index: self._jobs.status(job.id) for index, job in jobs.items()}

    def _wait_until_loaded(self, model: LabelStudioMLBase, deadline: float) -> Loading | None:
        """Waits while the encoder is being loaded. Returns the error where it isn't loaded at the deadline."""
        loading: Loading | None = None

        def loaded() -> bool:
            nonlocal loading
            loading = None
            try:
                model.check_ready()
            except Loading as error:
                loading = error
            return loading is None

        self._wait(loaded, deadline)
        return loading

    def _wait(self, condition: Callable[[], bool], deadline: float) -> None:
        """Waits until a condition holds or the deadline has passed; not at all where too many requests wait already."""
        if condition() or not self._waiting.acquire(blocking=False):
            return
        try:
            while not condition() and time.monotonic() < deadline and not self.is_stopping():
                time.sleep(POLL_SECONDS)
        finally:
            self._waiting.release()

    def _deliver(self, body: PredictRequest, indices: list[int], model: LabelStudioMLBase) -> None:
        """Has the worker extract tasks' features and, with a key, store their predictions in Label Studio."""
        tasks = [{"id": task.id, "data": task.data} for task in (body.tasks[i] for i in indices) if task.id is not None]
        if not body.project or not tasks:
            return
        if not model.connection.api_key:
            self._jobs.add_extractions(body.project, tasks)
        elif len(tasks) == 1:
            self._jobs.add_delivery(body.project, tasks[0])
        else:
            self._jobs.add_deliveries(body.project, tasks)

    def _being_extracted(self, job: Job, later: str) -> NotReady:
        if not self._store.live_workers():
            return NotReady("The video's features can't be extracted, because no worker runs: see the server's log.")
        state = f"{job.progress:.0%} done" if job.status == JobStatus.STARTED else "waiting for their turn"
        return NotReady(f"The video's features are being extracted ({state}). {later}")

    def _as_json(
        self, body: PredictRequest, answers: list[dict[str, Any] | BackendError | None], model: LabelStudioMLBase
    ) -> dict[str, Any]:
        errors = {index: answer for index, answer in enumerate(answers) if isinstance(answer, BackendError)}
        if len(errors) == len(answers):
            raise errors[0]
        if errors:
            shown = [f"task {body.tasks[index].id}: {error}" for index, error in list(errors.items())[:ERRORS_LOGGED]]
            logger.warning(
                "Project %s: %d of %d tasks have no prediction: %s",
                body.project,
                len(errors),
                len(answers),
                " ".join(shown),
            )
        results = [{"error": str(answer)} if index in errors else answer for index, answer in enumerate(answers)]
        return {"results": results, "model_version": model.model_version}


def _is_stored(body: PredictRequest) -> bool:
    """Whether Label Studio stores the answer: it names a login, and no context, in such requests."""
    params = body.params or {}
    return "login" in params and params.get("context") is None


def _is_prewarming(body: PredictRequest) -> bool:
    context = (body.params or {}).get("context")
    return isinstance(context, dict) and context.get("event") == PREWARM


def _later(model: LabelStudioMLBase) -> str:
    if model.connection.api_key:
        return "Label Studio gets the prediction when it is ready."
    return "Ask again later. With LABEL_STUDIO_API_KEY, Label Studio would get the prediction when it is ready."


def _failure(job: Job) -> BackendError:
    error = BackendError(job.error or "The extraction of the video's features was cancelled.")
    error.status = (job.result or {}).get("status", BackendError.status)
    return error
