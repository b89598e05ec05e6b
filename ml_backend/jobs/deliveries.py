"""Predict tasks, and store the predictions in Label Studio when they are ready."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

from errors import BackendError
from ml_backend.base import LabelStudioMLBase, ModelResponse
from ml_backend.jobs.leases import Run
from ml_backend.jobs.queue import PRIORITY_BATCH, Jobs
from ml_backend.label_studio import client as label_studio
from ml_backend.label_studio.client import Connection, LabelStudioError
from ml_backend.label_studio.predictions import put_prediction
from ml_backend.store.tables import Project
from ml_backend.store.tasks import Claim

# Label Studio stores what it got as an answer within this time.
STORING = timedelta(minutes=1)
# Storing a prediction takes two requests.
WAIT_SECONDS = 0.1


class OtherLabelStudio(BackendError):
    """The Label Studio at the address isn't the project's."""


class Deliveries:
    """Does the jobs that store predictions.

    Args:
        jobs: give the state and the projects' models.
    """

    def __init__(self, jobs: Jobs) -> None:
        self._jobs, self._store = jobs, jobs.store
        self._registry = jobs.registry

    def in_label_studio(self, project_id: str) -> tuple[Project, Connection]:
        """A project, and the connection to its Label Studio.

        Raises:
            OtherLabelStudio: the Label Studio at that address has another project of that number.
        """
        project, connection = self._store.project(project_id), self._registry.get(project_id).connection
        created = project.created
        if created is not None:
            with suppress(LabelStudioError):  # the next request raises it again
                created = label_studio.created(connection, int(project.number))
        if created != project.created:
            raise OtherLabelStudio(
                f"The Label Studio at {connection.url} has another project {project.number} than the one that is "
                f"known here as {project.id}, so nothing is fetched from it or stored there. LABEL_STUDIO_URL names "
                "one Label Studio; with two, leave it unset."
            )
        return project, connection

    @staticmethod
    def score(model: LabelStudioMLBase, task: dict[str, Any]) -> dict[str, Any]:
        """The prediction of an extracted task, empty where the model can't predict yet."""
        try:
            model.check_ready()
            return predict_task(model, task)
        except BackendError:
            return {}

    def remember(self, run: Run, task: dict[str, Any], prediction: dict[str, Any]) -> None:
        """Stores the score for the dashboard's list of tasks, unless the task has other data since."""
        if self.present(run.job.project_id, task) == task:
            given = (task, prediction.get("score"), prediction.get("model_version"))
            run.persist(lambda: self._store.save_predictions(run.job.project_id, [given], train_every=None))

    def present(self, project_id: str, task: dict[str, Any]) -> dict[str, Any]:
        """A job's task with the data that it has now."""
        known = None if task.get("id") is None else self._store.known_task(project_id, task["id"])
        return known or task

    def deliver(self, run: Run) -> dict[str, Any]:
        """Predicts a task and stores the prediction in Label Studio, once for each model version."""
        project_id = run.job.project_id
        task = self.present(project_id, run.job.arguments["task"])
        model = self._registry.get(project_id)
        _, connection = self.in_label_studio(project_id)
        model.check_ready()
        model.extract(task, run.progress)
        prediction = predict_task(model, task)
        with self.claimed(run, task, prediction) as claim:
            if claim is Claim.ANSWERED:
                self._jobs.add_delivery(project_id, task, PRIORITY_BATCH, STORING)  # in case that it was lost
                return {}
            if model.model_version != prediction["model_version"]:  # a newer one was published meanwhile
                prediction = predict_task(model, task)
            self.put(project_id, connection, task, prediction)
        return {"model_version": prediction["model_version"]}

    @contextmanager
    def claimed(self, run: Run, task: dict[str, Any], prediction: dict[str, Any]) -> Iterator[Claim]:
        """Keeps other jobs from storing a task's prediction inside the block, after waiting for one that does so. Label
        Studio itself would store two of a version.

        Yields:
            CLAIMED, or ANSWERED: then it isn't to be stored.
        """
        project_id, job_id = run.job.project_id, run.job.id
        given = (task, prediction["score"], prediction["model_version"])

        def claim() -> Claim:
            return run.persist(lambda: self._store.claim_prediction(project_id, given, STORING, job_id))

        while (found := claim()) is Claim.HELD:
            run.check()
            time.sleep(WAIT_SECONDS)
        try:
            yield found
        finally:
            if found is Claim.CLAIMED:
                run.persist(lambda: self._store.release_prediction(project_id, task["id"], job_id))

    def put(self, project_id: str, connection: Connection, task: dict[str, Any], prediction: dict[str, Any]) -> None:
        """Stores a prediction in Label Studio, in place of an older one of this backend's where too many would be
        kept."""
        # What an annotation was begun from stays as it was.
        own = () if self._store.annotations_of(project_id, task["id"]) else self.own_versions(project_id)
        put_prediction(connection, task["id"], prediction, own, self.kept)

    @property
    def kept(self) -> int:
        """The number of versions of which a task keeps the prediction."""
        return self._registry.model_class.services.settings.keep_predictions

    def own_versions(self, project_id: str) -> tuple[str, ...]:
        """How the versions of this backend's predictions in a project begin: a change of the config appends to them."""
        return tuple(self._store.published_versions(project_id))


def predict_task(model: LabelStudioMLBase, task: dict[str, Any], context: Any = None) -> dict[str, Any]:
    """Predicts one task, in Label Studio's form: `result`, `score` and `model_version`."""
    answer = model.predict([task], context=context)
    if not isinstance(answer, ModelResponse):
        answer = ModelResponse(predictions=answer)
    prediction = answer.predictions[0]
    return {
        "result": prediction["result"],
        "score": prediction.get("score"),
        "model_version": prediction.get("model_version") or answer.model_version or model.model_version,
    }
