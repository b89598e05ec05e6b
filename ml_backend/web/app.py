"""The web application: Label Studio's ML-backend routes on Flask."""

from __future__ import annotations

import json
import logging
import threading
import time
from datetime import timedelta
from typing import Any

from flask import Flask, Response, current_app, g, has_request_context, jsonify, request
from pydantic import SecretStr
from werkzeug.exceptions import HTTPException

from errors import BackendError, Forbidden, InternalError, InvalidRequest
from features.cache_folder import usage
from ml_backend.base import LabelStudioMLBase
from ml_backend.context import Services
from ml_backend.dashboard.metrics import Metrics
from ml_backend.dashboard.remembered import Remembered
from ml_backend.dashboard.views import Dashboard, wants_page
from ml_backend.jobs.queue import SOON, Jobs
from ml_backend.jobs.runner import Runner
from ml_backend.jobs.worker import HEALTH_KEY
from ml_backend.label_studio.client import TOKEN_ADVICE
from ml_backend.label_studio.webhook_secret import HEADER, OWN_HOST, PROVED, CatchUp, WebhookSecrets
from ml_backend.logs import about
from ml_backend.registry import ModelRegistry
from ml_backend.settings import Settings, get_settings
from ml_backend.store import Store
from ml_backend.store.tables import Job, JobKind
from ml_backend.store.values import NO_PROJECT
from ml_backend.strict_json import StrictJSONProvider
from ml_backend.web import openapi
from ml_backend.web.events import Events, Work
from ml_backend.web.gate import RequestGate
from ml_backend.web.predictions import Predictions
from ml_backend.web.schemas import (
    JobStatusRequest,
    PredictRequest,
    Project,
    SetupRequest,
    VersionsRequest,
    WebhookRequest,
    identity,
    parse,
)

logger = logging.getLogger(__name__)

# A worker needs some seconds to import PyTorch, on a busy machine a minute.
WORKER_START = timedelta(seconds=90)
# The event that Label Studio sends through the connection, not as a webhook. It has no annotations.
START_TRAINING = "START_TRAINING"


def init_app(
    model_class: type[LabelStudioMLBase],
    basic_auth_user: str | None = None,
    basic_auth_pass: str | SecretStr | None = None,
    settings: Settings | None = None,
) -> Flask:
    """Makes the web application that serves a model.

    Args:
        model_class: the model.
        basic_auth_user: user of HTTP Basic authentication; by default the environment's.
        basic_auth_pass: its password.
        settings: by default the environment's.

    Returns:
        A Flask application; `app.extensions["jobs"]` are its jobs, and `app.extensions["runner"]` does them.

    Raises:
        ValueError: a user is given without a password, or a password without a user.
    """
    settings = settings or get_settings()
    if basic_auth_user or basic_auth_pass:
        password = {"basic_auth_user": basic_auth_user, "basic_auth_pass": _secret(basic_auth_pass)}
        settings = settings.model_copy(update=password)
    store = Store(settings.database)
    registry = ModelRegistry(model_class, Services(settings, store, has_request_context))
    jobs = Jobs(store, registry)
    app = Flask(__name__, static_folder=None)
    app.json = StrictJSONProvider(app)
    app.extensions["jobs"], app.extensions["runner"] = jobs, Runner(jobs)
    gate = RequestGate(settings, WebhookSecrets(store))
    gate.register(app)
    _answer_errors_as_json(app)
    app.extensions["predictions"] = Predictions(settings, store, registry, jobs)
    Routes(settings, store, registry, app.extensions["runner"], app.extensions["predictions"], gate).register(app)
    threading.Thread(target=registry.model_class.warm_up, name="warm-up", daemon=True).start()
    return app


class Routes:
    """The routes of the protocol.

    Args:
        settings: the environment.
        store: the state.
        registry: gives the projects' models.
        runner: the jobs, and what does them.
        predictions: answers /predict.
        gate: checks the requests.
    """

    def __init__(
        self,
        settings: Settings,
        store: Store,
        registry: ModelRegistry,
        runner: Runner,
        predictions: Predictions,
        gate: RequestGate,
    ) -> None:
        self._settings = settings
        self._store = store
        self._registry = registry
        self._runner = runner
        self._jobs = jobs = runner.jobs
        self._events = Events(store, registry)
        cache_size = Remembered[int | None](lambda: usage(settings.cache_dir), None)
        self._metrics = Metrics(store, cache_size, registry.model_class.counters)
        self._dashboard = Dashboard(settings, store, registry, jobs, cache_size)
        self._predictions = predictions
        self._gate = gate
        self._catch_up = CatchUp(jobs.add_reconciliation)
        self._started = time.monotonic()

    def register(self, app: Flask) -> None:
        """Adds the routes to the application."""
        app.add_url_rule("/", view_func=self.index)
        app.add_url_rule("/health", view_func=self.health)
        app.add_url_rule("/setup", view_func=self.setup, methods=["POST"])
        app.add_url_rule("/predict", view_func=self.predict, methods=["POST"])
        app.add_url_rule("/webhook", view_func=self.webhook, methods=["POST"])
        app.add_url_rule("/versions", view_func=self.versions, methods=["GET", "POST"])
        app.add_url_rule("/job_status", view_func=self.job_status, methods=["POST"])
        app.add_url_rule("/metrics", view_func=self.metrics)
        app.add_url_rule(openapi.PATH, view_func=self.openapi)
        app.register_blueprint(self._dashboard.blueprint())
        app.before_request(self._start_clock)
        app.after_request(self._observe)

    @staticmethod
    def _start_clock() -> None:
        g.started = time.perf_counter()

    def _observe(self, response: Response) -> Response:
        route = request.url_rule.rule if request.url_rule else "unknown"
        started = g.get("started")
        if response.status_code >= 400:
            self._metrics.errors.labels(g.get("error_kind", str(response.status_code))).inc()
        if started is not None:
            self._metrics.latency.labels(route, response.status_code).observe(time.perf_counter() - started)
        return response

    def index(self) -> Response:
        """The dashboard for browsers, the same as `/health` for programs."""
        response = self._dashboard.index() if wants_page() else self.health()
        response.vary.add("Accept")
        return response

    def health(self) -> Response:
        """Whether the backend is up, and what it runs on: the network and device that the worker reports."""
        said_by_worker = self._store.get_value(NO_PROJECT, HEALTH_KEY)
        worker = self._worker_state()
        return jsonify(
            {
                "status": "UP",
                "model_class": self._registry.model_class.__name__,
                **self._registry.model_class.health(),
                **(json.loads(said_by_worker) if said_by_worker else {}),
                "worker": worker,
                "worker_alive": worker == "alive",
                "queue_length": self._store.count_jobs("queued"),
            }
        )

    def _worker_state(self) -> str:
        """Alive, starting or dead. Workers of the server's last run, whose rows may still be stored, don't count."""
        age = timedelta(seconds=time.monotonic() - self._started)
        if self._store.live_workers(within=age):
            return "alive"
        return "starting" if age < WORKER_START else "dead"

    def setup(self) -> Response:
        """Connects a project: checks its labeling config, and reports the model version."""
        body = parse(SetupRequest, _json())
        number, created = identity(body.project)
        body.project = self._store.identify(number, created)
        model = self._registry.get(body.project, body.label_config)
        hostname, token = self._address(body)
        changed = self._store.update_project(body.project, body.label_config, hostname, token, created=created)
        if self._settings.proves_webhooks:
            self._prove_webhook(body.project)
        model.set_extra_params(body.extra_params)
        if changed and body.project in self._store.projects_behind():
            self._jobs.add_training(body.project)
        return jsonify({"model_version": model.model_version})

    def _address(self, body: SetupRequest) -> tuple[str | None, str | None]:
        """Label Studio's address and token of `/setup`; neither where anybody could have sent the request, since videos
        and annotations are fetched from that address."""
        if not body.hostname or self._settings.label_studio_url:
            return body.hostname, body.access_token
        if not self._gate.trusts_sender:
            logger.warning(
                "Project %s: Label Studio's address isn't taken from /setup, since anybody may send it without a "
                "password. Set LABEL_STUDIO_URL.",
                body.project,
            )
            return None, None
        return body.hostname, body.access_token

    def _prove_webhook(self, project_id: str) -> None:
        """Stores the host by which Label Studio calls, which its webhook names too, and has the worker put the secret
        into that webhook."""
        self._store.set_value(project_id, OWN_HOST, request.host)
        if not self._store.get_value(project_id, PROVED) and self._jobs.can_reconcile(project_id):
            self._jobs.add_reconciliation(project_id)

    def predict(self) -> Response:
        """Predicts tasks. The results are in the tasks' order, with `{"error": …}` in place of a task that fails.

        Where no task succeeds, the answer is the first one's error, with its status.
        """
        body = parse(PredictRequest, _json())
        if body.project is not None:
            body.project = self._store.identify(*identity(body.project))
        with about(project=body.project):
            return jsonify(self._predictions.answer(body))

    def webhook(self) -> tuple[Response, int]:
        """Stores an event of Label Studio, and queues the work that follows."""
        body = parse(WebhookRequest, _json())
        if not self._events.knows(body.action):
            return jsonify({"status": "Unknown event"}), 200
        if body.project is not None:
            number, created = body.project.identity
            body.project.id = self._store.identify(number, created)
        with about(project=body.project and body.project.id, task=body.task and body.task.id):
            self._check_proof(body)
            if body.project is not None:
                self._store.adopt(body.project.id, created, body.project.title)
            return self._follow(body.project, self._events.apply(body))

    def _follow(self, project: Project, work: Work) -> tuple[Response, int]:
        """Queues the work that follows from a project's event, and answers it."""
        project_id = project.id
        if work.reconcile and not self._jobs.can_reconcile(project_id):
            logger.warning(
                "Project %s: its annotations can't be fetched from Label Studio without an API key. %s",
                project_id,
                TOKEN_ADVICE,
            )
            work = work._replace(reconcile=False)
        if self._settings.train_in_request and (work.train or work.reconcile):
            return jsonify({"status": "ok", "result": self._train_now(project_id, work)}), 201
        job: Job | None = None
        if work.extract:
            job = self._jobs.add_extractions(project_id, list(work.extract))
        if work.reconcile:
            job = self._jobs.add_reconciliation(project_id)
        if work.refresh:
            self._jobs.add_refresh(project_id, after=SOON)
        if work.train:
            job = self._jobs.add_training(project_id, forget=work.reset)
        return (jsonify({"status": "queued", "job": job.id}), 201) if job else (jsonify({"status": "ok"}), 200)

    def _check_proof(self, body: WebhookRequest) -> None:
        """Raises Forbidden where an event doesn't prove its origin, and has Label Studio asked for its annotations."""
        project_id = body.project.id if body.project else None
        if g.webhook_project is not None:
            proved = g.webhook_project == project_id
        else:
            proved = g.is_authenticated or not self._settings.proves_webhooks or body.action == START_TRAINING
        if proved or project_id is None:
            return
        if self._gate.trusts_sender and HEADER not in request.headers and not self._store.get_value(project_id, PROVED):
            return  # from a Label Studio on this machine, before the worker has put the secret into it
        if self._store.project(project_id) is not None and self._jobs.can_reconcile(project_id):
            self._catch_up(project_id)
        raise Forbidden(
            f"This webhook doesn't prove that Label Studio sent it: the header {HEADER} of project {project_id} is "
            "missing or wrong. The worker puts the header into Label Studio's webhook, and asks Label Studio for the "
            "annotations."
        )

    def _train_now(self, project_id: str, work: Work) -> dict[str, Any]:
        if work.reconcile:
            self._runner.run_now(JobKind.RECONCILE, project_id)
        return self._runner.run_now(JobKind.RESET if work.reset else JobKind.TRAIN, project_id)

    def versions(self) -> Response:
        """The versions of a project's model (`?project=` or `{"project"}`), the present one first; or the published
        ones of all projects."""
        named = request.args.get("project")
        if request.method == "POST":
            named = parse(VersionsRequest, _json()).project or named
        if not named:
            return jsonify({"versions": self._store.published_versions()})
        project_id = self._store.identify(*identity(named))
        versions = [self._registry.get(project_id).model_version, *self._store.published_versions(project_id)]
        return jsonify({"versions": list(dict.fromkeys(versions))})

    def job_status(self) -> Response:
        """The progress of a job."""
        job = self._jobs.status(parse(JobStatusRequest, _json()).job)
        return jsonify(
            {
                "job_status": job.status,
                "progress": job.progress,
                "error": job.error,
                "result": job.result,
                "created_at": _iso(job.created_at),
                "started_at": _iso(job.started_at),
                "finished_at": _iso(job.ended_at),
            }
        )

    def metrics(self) -> Response:
        """Prometheus' text format."""
        return Response(self._metrics.text(), mimetype="text/plain; version=0.0.4")

    @staticmethod
    def openapi() -> Response:
        """The routes' OpenAPI description."""
        return jsonify(openapi.describe(current_app))


def _iso(moment: Any) -> str | None:
    return moment.isoformat(timespec="seconds") + "Z" if moment else None


def _json() -> Any:
    """The request's JSON body.

    Raises:
        InvalidRequest: it isn't JSON.
    """
    try:
        return request.get_json()
    except HTTPException as error:
        if error.code != 400:
            raise
        raise InvalidRequest("The body isn't JSON.") from error


def _secret(text: str | SecretStr | None) -> SecretStr | None:
    return SecretStr(text) if isinstance(text, str) else text


def _answer_errors_as_json(app: Flask) -> None:
    @app.errorhandler(BackendError)
    def backend_error(error: BackendError) -> Response:
        g.error_kind = type(error).__name__
        response = jsonify({"error": str(error)})
        response.status_code = error.status
        if error.retry_after is not None:
            response.headers["Retry-After"] = str(error.retry_after)
        return response

    @app.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> Response:
        response = jsonify({"error": error.description})
        response.status_code = error.code or 500
        return response

    @app.errorhandler(Exception)
    def bug(error: Exception) -> Response:
        g.error_kind = type(error).__name__
        answer = InternalError()
        logger.exception("Reference %s: %s %s failed", answer.reference, request.method, request.path)
        response = jsonify({"error": str(answer)})
        response.status_code = answer.status
        return response
