"""Summaries of the state, for the dashboard's pages and the terminal's `status`."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from ml_backend.store import Store
from ml_backend.store.tables import LIVE, Job, JobKind, JobStatus, Project, Training, TrainingStatus, now
from words import counted

# The largest number of live jobs that are listed.
SHOWN_JOBS = 50
# Below this progress, a job's speed can't be estimated.
MIN_SHARE_FOR_ESTIMATE = 0.02

JOB_NAMES = {
    JobKind.TRAIN: "training",
    JobKind.RESET: "training afresh",
    JobKind.RECONCILE: "fetching annotations",
    JobKind.EXTRACT: "reading a video",
    JobKind.EXTRACT_MANY: "queueing videos",
    JobKind.DELIVER: "delivering a prediction",
    JobKind.DELIVER_MANY: "queueing deliveries",
    JobKind.REFRESH: "storing fresh predictions",
    JobKind.REVIEW: "reviewing annotations",
}


def state(store: Store, project_id: str | None = None) -> dict[str, Any]:
    """Summarises projects, queue, workers and the last error, as JSON.

    Args:
        store: the state.
        project_id: restricts the summary to one project.
    """
    counts = {JobStatus.QUEUED: 0, JobStatus.STARTED: 0}
    for (_, status), count in store.job_counts().items():
        counts[status] = counts.get(status, 0) + count
    return {
        "projects": [entry for entry in projects(store) if project_id in (None, entry["id"])],
        "queue": {"queued": counts[JobStatus.QUEUED], "started": counts[JobStatus.STARTED]},
        "jobs": live_jobs(store, project_id),
        "workers": len(store.live_workers()),
        "last_error": last_error(store, project_id),
    }


def projects(store: Store) -> list[dict[str, Any]]:
    """Summarises each project: version, number of annotated videos, scores, state."""
    annotated, behind = store.count_annotated_tasks(), set(store.projects_behind())
    latest, present = store.latest_trainings(), store.present_versions()
    entries = []
    for project in store.projects():
        trainings = latest.get(project.id, [])
        entries.append(
            {
                "id": project.id,
                "name": project.name,
                "model_version": _present_model(present.get(project.id, {}), trainings),
                "annotated_tasks": annotated.get(project.id, 0),
                "f1": prequential_scores(trainings[0]) if trainings else {},
                "state": _project_state(project, trainings, project.id in behind, project.id in present),
            }
        )
    return entries


def _present_model(present: dict[str, int], trainings: list[Training]) -> str | None:
    """The present version's name, as the latest published training gave it, or its number after a roll-back."""
    published = next((training for training in trainings if training.status == TrainingStatus.PUBLISHED), None)
    if not present or published is None:
        return None
    made = {name: metrics.get("version") for name, metrics in (published.metrics or {}).items()}
    if all(version in (None, present.get(name)) for name, version in made.items()):
        return published.model_version
    if all(present.get(name, 0) >= (version or 0) for name, version in made.items()):
        return "+".join(f"v{version}" for version in dict.fromkeys(present.values()))  # its training ends just now
    return "+".join(f"v{version}" for version in dict.fromkeys(present.values())) + " (rolled back)"


def _project_state(project: Project, trainings: list[Training], behind: bool, has_model: bool) -> str:
    if not project.label_config:
        return "has no known labeling config"
    if trainings and trainings[0].status == TrainingStatus.RUNNING:
        return "is being trained"
    if behind:
        return "waits for a training"
    if trainings and trainings[0].status == TrainingStatus.FAILED:
        return f"is unchanged, because the last training failed: {trainings[0].error}"
    if waiting := project.revision - project.trained_revision:
        return f"has {counted(waiting, 'change')} to learn, and waits for more submissions or Start Training"
    if not trainings:
        return "waits for the first annotation"
    return "is up to date" if has_model else "waits for the next annotation"


def prequential_scores(training: Training) -> dict[str, float]:
    """Label -> F1 by frame that the earlier model had on the training's new videos; empty where there were none."""
    scores: dict[str, float] = {}
    for metrics in (training.metrics or {}).values():
        prequential = metrics.get("prequential") if isinstance(metrics, dict) else None
        for label, score in ((prequential or {}).get("frames") or {}).get("per_label", {}).items():
            scores[label] = score["f1"]
    return scores


def live_jobs(store: Store, project_id: str | None = None) -> list[dict[str, Any]]:
    """The running and waiting jobs, as `job_entry`; running ones first."""
    return _entries(store, store.next_jobs(project_id, SHOWN_JOBS))


def ended_jobs(store: Store, limit: int) -> list[dict[str, Any]]:
    """The jobs that ended, as `job_entry`, the latest first."""
    return _entries(store, store.ended_jobs(None, limit))


def _entries(store: Store, jobs: list[Job]) -> list[dict[str, Any]]:
    names = {project.id: project.name for project in store.projects()} if jobs else {}
    return [job_entry(job, names.get(job.project_id, f"Project {job.project_id}")) for job in jobs]


def job_entry(job: Job, project_name: str) -> dict[str, Any]:
    """A job as the pages and commands show it."""
    task = (job.arguments or {}).get("task") or {}
    return {
        "id": job.id,
        "kind": JOB_NAMES[job.kind],
        "project": job.project_id,
        "project_name": project_name,
        "task": task.get("id"),
        "status": str(job.status),
        "live": job.status in LIVE,
        "stopping": bool(job.cancel_requested and job.status == JobStatus.STARTED),
        "progress": round(job.progress, 3),
        "seconds_left": seconds_left(job),
        "time_left": time_words(seconds_left(job)),
        "created_at": _iso(job.created_at),
        "ended_at": _iso(job.ended_at),
        "error": job.error,
    }


def seconds_left(job: Job) -> int | None:
    """Seconds until a running job ends, if it goes on at its mean speed; None where that can't be estimated."""
    if job.status != JobStatus.STARTED or job.started_at is None or job.progress < MIN_SHARE_FOR_ESTIMATE:
        return None
    elapsed = (now() - job.started_at).total_seconds()
    return max(0, round(elapsed * (1 - job.progress) / job.progress))


def time_words(seconds: int | None) -> str | None:
    """A span of time, as exactly as an estimate of it is: "40 s", "55 min" or "3.5 h"."""
    if seconds is None or seconds < 100:
        return None if seconds is None else f"{seconds} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"


def last_error(store: Store, project_id: str | None = None) -> dict[str, str] | None:
    """When and what failed last, and its error; None where nothing failed."""
    job = store.last_failed_job(project_id)
    if job is None:
        return None
    project = store.project(job.project_id)
    what = f"{JOB_NAMES[job.kind]}, {project.name if project else f'project {job.project_id}'}"
    return {"when": _iso(job.ended_at) or "", "what": what, "error": job.error or ""}


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat(timespec="seconds") + "Z" if moment else None
