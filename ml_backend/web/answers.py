"""The answers of the protocol's routes as pydantic models, for `/openapi.json`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Answer(BaseModel):
    model_config = ConfigDict(extra="allow", protected_namespaces=())


class ErrorAnswer(_Answer):
    """An error: a sentence that says what is wrong and what to do."""

    error: str


class HealthAnswer(_Answer):
    """`GET /health`; a model adds what it runs on."""

    status: Literal["UP"]
    model_class: str
    worker: Literal["alive", "starting", "dead"]
    worker_alive: bool
    queue_length: int = Field(ge=0)


class SetupAnswer(_Answer):
    """`POST /setup`."""

    model_version: str


class Prediction(_Answer):
    """One task's prediction, or its error."""

    result: list[dict[str, Any]] | None = None
    score: float | None = None
    model_version: str | None = None
    error: str | None = None


class PredictAnswer(_Answer):
    """`POST /predict`: one entry a task, in the tasks' order."""

    results: list[Prediction]
    model_version: str | None = None


class WebhookAnswer(_Answer):
    """`POST /webhook`: `queued` with the job that follows, `ok`, or `Unknown event`."""

    status: Literal["queued", "ok", "Unknown event"]
    job: str | None = None
    result: dict[str, Any] | None = None


class VersionsAnswer(_Answer):
    """`/versions`: model versions; of a named project, the present one comes first."""

    versions: list[str]


class JobStatusAnswer(_Answer):
    """`POST /job_status`. Moments are ISO 8601, UTC."""

    job_status: Literal["queued", "started", "finished", "failed", "cancelled"]
    progress: float = Field(ge=0, le=1)
    error: str | None
    result: dict[str, Any] | None
    created_at: str
    started_at: str | None
    finished_at: str | None
