"""The dashboard: its pages, and the actions of its buttons."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

from flask import Blueprint, Response, make_response, request

from errors import BackendError, NotFound, NotReady
from ml_backend.base import LabelStudioMLBase
from ml_backend.dashboard import notes, overview, timelines
from ml_backend.dashboard.actions import check_csrf, set_csrf_cookie
from ml_backend.dashboard.colours import colours
from ml_backend.dashboard.label_studio_state import reached
from ml_backend.dashboard.pages import Pages
from ml_backend.dashboard.quality import quality
from ml_backend.dashboard.review import Review
from ml_backend.dashboard.saved import saved
from ml_backend.dashboard.summary import Summary
from ml_backend.dashboard.video_file import send_video
from ml_backend.jobs.queue import PRIORITY_WANTED, Jobs
from ml_backend.label_studio.client import Connection
from ml_backend.registry import ModelRegistry
from ml_backend.settings import Settings
from ml_backend.startup import database_words
from ml_backend.store import Store
from video.timeline import Timeline, Track
from words import counted

TASKS_PER_PAGE = 50
SHOWN_TRAININGS = 20
SHOWN_ENDED_JOBS = 30
# A page may show private video: it loads nothing from elsewhere, and no other page may frame it.
SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "media-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


def wants_page() -> bool:
    """Whether the request comes from a browser rather than from a program."""
    accepted = request.accept_mimetypes
    return accepted["text/html"] > accepted["application/json"]


class Dashboard(Pages):
    """Serves the dashboard.

    Args:
        settings: the environment.
        store, registry, jobs: as of `Pages`.
        cache_size: returns the bytes in the cache, None while that isn't known.
    """

    def __init__(
        self,
        settings: Settings,
        store: Store,
        registry: ModelRegistry,
        jobs: Jobs,
        cache_size: Callable[[], int | None],
    ) -> None:
        super().__init__(store, registry, jobs)
        self._settings = settings
        key = settings.secret("label_studio_api_key")
        self._label_studio = reached(Connection(settings.label_studio_url, key))
        self._cache_size = cache_size

    def blueprint(self) -> Blueprint:
        """The dashboard's routes, as a Flask blueprint."""
        pages = Blueprint("dashboard", __name__, template_folder="templates", static_folder="static")
        pages.static_url_path = "/dashboard/static"
        project, task = "/projects/<project_id>", "/projects/<project_id>/tasks/<int:task_id>"
        summary, review = (kind(self._store, self._registry, self._jobs) for kind in (Summary, Review))
        for rule, view in {
            "/queue": self.queue,
            "/dashboard/state": self.state,
            project: self.project,
            task: self.task,
            f"{task}/video/<name>": self.video,
            f"{project}/summary": summary.summary,
            f"{project}/summary.csv": summary.summary_csv,
            f"{project}/review": review.review,
        }.items():
            pages.add_url_rule(rule, view_func=view)
        for rule, view in {
            f"{project}/train": self.train,
            f"{project}/reset": self.reset,
            f"{project}/rollback": self.roll_back,
            f"{project}/review/start": review.start_review,
            f"{project}/review/confirm": review.confirm_review,
            f"{task}/read": self.read,
            f"{task}/clear": self.clear,
            "/jobs/<job_id>/cancel": self.cancel,
            "/jobs/<job_id>/retry": self.retry,
        }.items():
            pages.add_url_rule(rule, view_func=view, methods=["POST"])
        pages.add_app_template_filter(counted)
        pages.before_request(_check_post)
        pages.after_request(_protect)
        pages.register_error_handler(BackendError, self._error)
        return pages

    # -- pages

    def index(self) -> Response:
        """The overview."""
        response = self._page(
            "overview.html",
            facts=self._registry.model_class.facts(),
            reached=self._label_studio(),
            cache=(self._cache_size(), int(self._settings.cache_size_limit)),
            database=database_words(self._store.engine.url),
            state=overview.state(self._store),
        )
        return _protect(response)

    def project(self, project_id: str) -> Response:
        """A project's page: its learning curve, model, trainings and tasks."""
        project, model, error = self._project(project_id)
        trainings = self._store.trainings(project_id)
        offset = max(0, request.args.get("offset", 0, type=int))
        tasks, total = self._store.known_tasks(project_id, TASKS_PER_PAGE, offset)
        if offset >= total > 0:  # tasks were deleted since
            offset = (total - 1) // TASKS_PER_PAGE * TASKS_PER_PAGE
            tasks, _ = self._store.known_tasks(project_id, TASKS_PER_PAGE, offset)
        controls = colours(model) if model else {}
        return self._page(
            "project.html",
            project=project,
            error=error,
            model_version=model.model_version if model else None,
            controls=[quality(trainings, *one, _has_timeline(model, one[0])) for one in controls.items()],
            saved=saved(self._store.efforts(project_id), {label for part in controls.values() for label in part}),
            trainings=trainings[: -SHOWN_TRAININGS - 1 : -1],
            notes=notes.grouped(self._store.notes(project_id)),
            tasks=tasks,
            total=total,
            offset=offset,
            per_page=TASKS_PER_PAGE,
            versions=self._store.versions(project_id),
            label_studio=self._label_studio_url(project, model),
            state=overview.state(self._store, project_id),
        )

    def task(self, project_id: str, task_id: int) -> Response:
        """A task's page: the video, and the annotated timeline above the predicted one."""
        project, model, error = self._project(project_id)
        task = self._known_task(project_id, task_id)
        annotations = self._store.annotations_of(project_id, task_id)
        chosen = request.args.get("annotation", type=int)
        annotation = next((one for one in annotations if one.id == chosen), annotations[0] if annotations else None)
        tracks: list[dict[str, Any]] = []
        wholes: list[dict[str, Any]] = []
        extracted = False
        if model is not None:
            try:
                extracted = model.is_extracted(task)
                shown = model.tracks(task, recall=False) if extracted else []
                tracks = [self._track(track, annotation, task_id) for track in shown]
                parts = [part for part in model.control_models if extracted and not part.has_timeline]
                wholes = [_whole(part, task, annotation) for part in parts]
            except BackendError as failure:
                error = str(failure)
        return self._page(
            "task.html",
            project=project,
            task=task,
            error=error,
            extracted=extracted,
            tracks=tracks,
            wholes=wholes,
            annotations=annotations,
            annotation=annotation,
            notes=[note.text for note in self._store.notes(project_id) if note.task_id == task_id],
            label_studio=self._label_studio_url(project, model),
            jobs=[job for job in overview.live_jobs(self._store, project_id) if job["task"] == task_id],
        )

    @staticmethod
    def _track(track: Track, annotation: Any, task_id: int) -> dict[str, Any]:
        annotated: Timeline | None = None
        if annotation is not None:
            annotated = track.annotated(annotation.result, f"annotation {annotation.id}", task_id)
        return {
            "track": track,
            "rows": timelines.rows(track, annotated),
            "disagreements": timelines.disagreements(track, annotated),
            "agreement": timelines.agreement(track, annotated),
            "facts": timelines.facts(track),
        }

    def queue(self) -> Response:
        """The queue's page: running, waiting and ended jobs."""
        state = overview.state(self._store)
        ended = overview.ended_jobs(self._store, SHOWN_ENDED_JOBS)
        return self._page("queue.html", state=state, ended=ended)

    def state(self) -> Response:
        """The part of the state that open pages poll, as JSON; 304 without a body where it hasn't changed."""
        state = overview.state(self._store, request.args.get("project"))
        body = json.dumps(state, default=str)
        response = make_response(body)
        response.mimetype = "application/json"
        response.set_etag(hashlib.blake2b(body.encode(), digest_size=12).hexdigest())
        return response.make_conditional(request)

    def video(self, project_id: str, task_id: int, name: str) -> Response:
        """The video of a control tag in a task, in the parts that the browser asks for."""
        model, task = self._model(project_id), self._known_task(project_id, task_id)
        media = model.media(task).get(name)
        # A file whose features were extracted is a video; any other file may be anything.
        path = model.context.media.find(media, task_id) if media and model.is_extracted(task) else None
        if path is None:
            raise NotFound("The video's features aren't cached, so it isn't served. Press \"Read it now …\" first.")
        return send_video(path)

    # -- actions

    def train(self, project_id: str) -> Response:
        """Queues a training."""
        self._project(project_id)
        self._store.note_event(project_id, "START_TRAINING")
        self._store.request_training(project_id)
        self._jobs.add_training(project_id)
        return self._back("train", "dashboard.project", project_id=project_id)

    def reset(self, project_id: str) -> Response:
        """Forgets the project's model."""
        self._model(project_id).forget()
        return self._back("reset", "dashboard.project", project_id=project_id)

    def roll_back(self, project_id: str) -> Response:
        """Makes an earlier version of the model the present one."""
        model = self._model(project_id)
        name, _, version = request.form.get("version", "").rpartition(" ")
        if not version.isdecimal():
            raise NotFound("Choose a version.")
        model.roll_back(int(version), name)
        return self._back("rollback", "dashboard.project", project_id=project_id)

    def read(self, project_id: str, task_id: int) -> Response:
        """Queues the extraction of a task's features."""
        self._project(project_id)
        self._jobs.add_extraction(project_id, self._known_task(project_id, task_id), PRIORITY_WANTED)
        return self._back("read", "dashboard.task", project_id=project_id, task_id=task_id)

    def clear(self, project_id: str, task_id: int) -> Response:
        """Drops a video's features from the cache."""
        self._model(project_id).evict(self._known_task(project_id, task_id))
        return self._back("clear", "dashboard.task", project_id=project_id, task_id=task_id)

    def cancel(self, job_id: str) -> Response:
        """Cancels a job."""
        self._jobs.cancel(job_id)
        return self._back("cancel", "dashboard.queue")

    def retry(self, job_id: str) -> Response:
        """Queues a failed or cancelled job again."""
        self._jobs.retry(job_id)
        return self._back("retry", "dashboard.queue")

    # -- helpers

    def _error(self, error: BackendError) -> Response:
        return self._page("error.html", error.status, error=str(error))


def _check_post() -> None:
    if request.method == "POST":
        check_csrf()


def _protect(response: Response) -> Response:
    is_media = request.endpoint in ("dashboard.video", "dashboard.static")
    for name, value in SECURITY_HEADERS.items():
        if not (is_media and name == "Cache-Control"):
            response.headers.setdefault(name, value)
    return set_csrf_cookie(response)


def _whole(part: Any, task: dict[str, Any], annotation: Any) -> dict[str, Any]:
    """What a control tag without a timeline says of a extracted task."""
    annotated = None if annotation is None else _chosen(part.tag, annotation.result)
    try:
        prediction = part.predict(task, recall=False)
    except NotReady as error:
        return {"name": part.from_name, "annotated": annotated, "predicted": None, "reason": str(error)}
    predicted = f"{_chosen(part.tag, prediction.regions)}, score {prediction.score:.2f}"
    return {"name": part.from_name, "annotated": annotated, "predicted": predicted, "reason": None}


def _chosen(tag: Any, result: list[Any]) -> str:
    chosen = tag.shows(result)
    return ", ".join(label for label in tag.labels if label in chosen) or "nothing"


def _has_timeline(model: LabelStudioMLBase, name: str) -> bool:
    """Whether a control tag has a timeline; of a model without parts, it has."""
    return all(part.has_timeline for part in model.control_models if part.from_name == name)
