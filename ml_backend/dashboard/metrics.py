"""The metrics of `/metrics`: answered requests, and the state of jobs, trainings and media.

Where PROMETHEUS_MULTIPROC_DIR names a folder (gunicorn.conf.py sets it), all processes count into files there, and each
of them shows the sum. A new histogram or counter is made with `registry=self._own`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from ml_backend.dashboard.overview import prequential_scores
from ml_backend.store import Store
from ml_backend.store.tables import now

# From a cached prediction (milliseconds) to one that waits for a long video's features (Label Studio's limit is 100 s).
LATENCY_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 30, 100)


class StateCollector(Collector):
    """Gauges that are read from the store on request, so that every process shows the same."""

    def __init__(self, store: Store, cache_size: Callable[[], int | None]) -> None:
        self._store = store
        self._cache_size = cache_size

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The gauges."""
        jobs = GaugeMetricFamily("backend_jobs", "Jobs by kind and status", labels=["kind", "status"])
        for key, count in sorted(self._store.job_counts().items()):
            jobs.add_metric(key, count)
        yield jobs
        yield GaugeMetricFamily("backend_queue_age_seconds", "Age of the oldest waiting job", self._queue_age())
        cache_size = self._cache_size()
        if cache_size is not None:
            yield GaugeMetricFamily("backend_cache_bytes", "Bytes in CACHE_DIR", cache_size)
        yield GaugeMetricFamily("backend_workers", "Live worker processes", len(self._store.live_workers()))
        annotated = GaugeMetricFamily("backend_annotated_tasks", "Annotated tasks", labels=["project"])
        behind = GaugeMetricFamily("backend_model_behind", "1 where the model is behind its data", labels=["project"])
        trainings = GaugeMetricFamily("backend_trainings", "Trainings by status", labels=["project", "status"])
        lagging = set(self._store.projects_behind())
        annotated_tasks = self._store.count_annotated_tasks()
        for project in self._store.projects():
            annotated.add_metric([project.id], annotated_tasks.get(project.id, 0))
            behind.add_metric([project.id], project.id in lagging)
        for key, count in sorted(self._store.count_trainings().items()):
            trainings.add_metric(key, count)
        yield from (annotated, behind, trainings)
        notes = GaugeMetricFamily(
            "backend_media_notes",
            "Videos with a note: another frame rate than the config's, damage",
            labels=["project"],
        )
        for project_id, count in sorted(self._store.count_notes().items()):
            notes.add_metric([project_id], count)
        yield notes
        scores = GaugeMetricFamily(
            "backend_prequential_f1",
            "Frame F1 of the latest test on new videos before they were learnt from",
            labels=["project", "label"],
        )
        for project_id, latest in sorted(self._store.latest_trainings().items()):
            for label, f1 in prequential_scores(latest[0]).items():
                scores.add_metric([project_id, label], f1)
        yield scores

    def _queue_age(self) -> float:
        oldest = self._store.oldest_queued_job()
        return (now() - oldest).total_seconds() if oldest else 0.0


class Metrics:
    """The metrics of one process.

    Args:
        store: the state.
        cache_size: returns the bytes in the cache, None while that isn't known.
        counters: the model's own collectors.
    """

    def __init__(self, store: Store, cache_size: Callable[[], int | None], counters: Sequence[Collector] = ()) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(StateCollector(store, cache_size))
        self._own: CollectorRegistry | None = self._registry
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            MultiProcessCollector(self._registry)
            self._own = None  # the files hold this process's counts too
        self.latency = Histogram(
            "backend_request_seconds",
            "Time to answer, by route and status",
            ["route", "status"],
            buckets=LATENCY_BUCKETS,
            registry=self._own,
        )
        self.errors = Counter("backend_errors", "Requests that failed, by kind of error", ["kind"], registry=self._own)
        if self._own is not None:
            for counter in counters:
                self._own.register(counter)

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self._registry)
