"""Fresh predictions: the worker stores the present version's in Label Studio, of the tasks that will be opened next."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import Any

from errors import BackendError, NotReady
from ml_backend.base import Ranked
from ml_backend.jobs.deliveries import Deliveries, predict_task
from ml_backend.jobs.leases import Run
from ml_backend.jobs.queue import Jobs
from ml_backend.label_studio import predictions as in_label_studio
from ml_backend.label_studio.client import TOKEN_ADVICE, Connection, KeyRefused, RequestRefused
from ml_backend.store.jobs import PRIORITY_AHEAD
from ml_backend.store.tables import Project
from ml_backend.store.tasks import Claim

logger = logging.getLogger(__name__)

# Ranking a task takes some milliseconds.
MAX_RANKED = 1000
# Where ranks decide what comes next, so many tasks have predictions: among those Label Studio has an order of its own.
CHOSEN = 10
# The videos of the next tasks whose features a refresh has extracted, at most: hours of work for long videos.
EXTRACTED_AHEAD = 20
# Annotators work with the same Label Studio meanwhile.
MAX_REQUESTS_PER_SECOND = 10

UNCERTAINTY = "Uncertainty sampling"
# The key of the version whose predictions were stored last.
REFRESHED = "refreshed_version"
# The key of the reason why fresh predictions can't be stored, once it was said.
SAID = "refresh_refused"


class Pace:
    """Keeps requests to Label Studio from following each other too fast, and counts them."""

    def __init__(self) -> None:
        self.requests = 0
        self._next = 0.0

    def __call__(self, requests: int = 1) -> None:
        """Waits until so many requests may be sent."""
        time.sleep(max(0.0, self._next - time.monotonic()))
        self._next = time.monotonic() + requests / MAX_REQUESTS_PER_SECOND
        self.requests += requests


class Refresh:
    """Stores predictions of the present version for the next tasks without annotations whose features are cached.

    It ends where a newer version is published: that one's refresh begins then. What a killed worker has stored is found
    in Label Studio, and not stored again.

    Args:
        jobs: for adding the work that follows.
        deliveries: what all deliveries share.
        run: the job.
    """

    def __init__(self, jobs: Jobs, deliveries: Deliveries, run: Run) -> None:
        self._jobs, self._store = jobs, jobs.store
        self._deliveries = deliveries
        self._run = run
        self._project_id = run.job.project_id
        self._model = jobs.registry.get(self._project_id)
        self._version = self._model.model_version
        self._pace = Pace()
        self._stored = self._already = self._uncached = 0

    def __call__(self) -> dict[str, Any]:
        """Stores the predictions.

        Returns:
            `model_version`; the number of tasks that were `ranked`, `stored`, had it `already`, or have no features
            here (`uncached`); the `requests` to Label Studio and the `seconds` that it took. Only `ranked` where the
            project isn't trained.
        """
        started = time.monotonic()
        ranked = self._rank()
        try:
            self._model.check_ready()
        except NotReady:
            return {"ranked": len(ranked)}
        self._store_where_possible(ranked)
        self._run.persist(lambda: self._store.set_value(self._project_id, REFRESHED, self._version))
        counts = {"ranked": len(ranked), "stored": self._stored, "already": self._already, "uncached": self._uncached}
        took = {"requests": self._pace.requests, "seconds": round(time.monotonic() - started, 1)}
        if self._stored:
            logger.info(
                "Project %s: %d predictions of %s stored in Label Studio, %d requests, %.1f s",
                *(self._project_id, self._stored, self._version, took["requests"], took["seconds"]),
            )
        return {"model_version": self._version} | counts | took

    def _store_where_possible(self, ranked: list[Ranked]) -> None:
        if not self._model.predict_ahead:
            return
        if not self._jobs.can_reconcile(self._project_id):
            self._say_once(f"There is no key for its API. {TOKEN_ADVICE}")
            return
        try:
            self._store_next(ranked)
        except KeyRefused as error:
            self._say_once(str(error))

    def _say_once(self, reason: str) -> None:
        """Logs why predictions can't be stored, unless it was said before."""
        if self._store.get_value(self._project_id, SAID) != reason:
            self._run.persist(lambda: self._store.set_value(self._project_id, SAID, reason))
            logger.warning("Project %s: fresh predictions aren't stored in Label Studio. %s", self._project_id, reason)

    def _rank(self) -> list[Ranked]:
        """The tasks whose annotation would teach most, the most first; none where the model has no opinion."""
        tasks = self._store.unannotated_tasks(self._project_id, MAX_RANKED)
        with self._model.context.media.holding_connection():
            ranked = self._model.rank([task for task in tasks if self._is_extracted(task)], self._run.progress)
        if ranked:
            self._run.persist(lambda: self._store.save_ranks(self._project_id, [one.task_id for one in ranked]))
        return ranked

    def _is_extracted(self, task: dict[str, Any]) -> bool:
        try:
            return self._model.is_extracted(task)
        except BackendError:
            return False

    def _store_next(self, ranked: list[Ranked]) -> None:
        self._pace(3)
        project, connection = self._deliveries.in_label_studio(self._project_id)
        settings = in_label_studio.settings(connection, int(project.number))
        chooses = ranked and self._model.chooses_next and settings.sampling != UNCERTAINTY
        if chooses and self._change(connection, project, sampling=UNCERTAINTY):
            settings = settings._replace(sampling=UNCERTAINTY)
        own = (*self._deliveries.own_versions(self._project_id), self._version)
        shown = settings.model_version
        follows = shown != self._version and (not shown or shown in settings.titles or shown.startswith(own))
        clusters = {one.task_id: one for one in ranked}
        missing: list[dict[str, Any]] = []
        for task, versions in self._next(settings, ranked, project, connection):
            self._run.check()
            if self._model.model_version != self._version:
                break
            mine = sum(version.startswith(own) for version in versions)
            if self._version in versions and mine <= self._deliveries.kept:
                self._already += 1
            elif not self._is_extracted(task):
                missing.append(task)
                continue
            elif not self._put(connection, task, clusters.get(task["id"]), own):
                continue
            if follows:
                self._change(connection, project, model_version=self._version)
                follows = False
        self._uncached = len(missing)
        for task in missing[:EXTRACTED_AHEAD]:
            self._jobs.add_extraction(self._project_id, task, PRIORITY_AHEAD)

    def _change(self, connection: Connection, project: Project, **values: str) -> bool:
        """Changes the project's settings in Label Studio. Returns whether it does so."""
        self._pace()
        try:
            in_label_studio.change_settings(connection, int(project.number), **values)
        except RequestRefused as error:
            logger.warning("Project %s keeps its settings: %s", self._project_id, error)
            return False
        return True

    def _next(
        self, settings: in_label_studio.Settings, ranked: list[Ranked], project: Project, connection: Connection
    ) -> Iterator[tuple[dict[str, Any], set[str]]]:
        """The tasks that will be opened next, and the versions of the predictions that they are known to have."""
        budget = self._model.predict_ahead
        if settings.sampling == UNCERTAINTY and ranked:
            for one in ranked[: min(budget, CHOSEN)]:
                task = self._store.known_task(self._project_id, one.task_id)
                if task is not None:
                    yield task, set()
            return
        self._pace()
        yield from in_label_studio.upcoming_tasks(connection, int(project.number), budget)

    def _put(self, connection: Connection, task: dict[str, Any], ranked: Ranked | None, own: tuple[str, ...]) -> bool:
        """Predicts a task and stores the prediction. Returns whether Label Studio has it now."""
        if self._store.annotations_of(self._project_id, task["id"]):
            return False  # annotated since the tasks were listed
        try:
            prediction = predict_task(self._model, task)
        except BackendError as error:
            logger.warning("Project %s, task %s isn't predicted: %s", self._project_id, task["id"], error)
            return False
        if prediction["model_version"] != self._version:
            return False  # a newer version was published just now
        if ranked is not None and ranked.score is not None:
            prediction["score"] = ranked.score
        self._pace(2)
        keep, cluster = self._deliveries.kept, ranked.cluster if ranked else None
        with self._deliveries.claimed(self._run, task, prediction) as claim:
            if claim is Claim.ANSWERED:
                self._already += 1
                return False
            try:
                stored = in_label_studio.put_prediction(connection, task["id"], prediction, own, keep, cluster)
            except RequestRefused as error:
                task_id = task["id"]
                logger.warning("Project %s, task %s: its prediction isn't stored. %s", self._project_id, task_id, error)
                return False
        if stored:
            self._stored += 1
        else:
            self._already += 1
        return True
