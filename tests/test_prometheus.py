"""`/metrics`, read by the client library's own parser. That processes count together is tested in test_operation.py."""

from __future__ import annotations

import json
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from ml_backend import LabelStudioMLBase, init_app
from ml_backend.settings import Settings
from ml_backend.store.tables import TrainingStatus
from tests.servers import wait_until

BOARD = Path(__file__).resolve().parents[1] / "docs" / "grafana.json"


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_what_is_shown(settings: Settings) -> None:
    app = init_app(LabelStudioMLBase, settings=settings)
    store, client = app.extensions["jobs"].store, app.test_client()
    store.update_project("7", "<View/>")
    training = store.start_training("7", 1, 1)
    prequential = {"frames": {"per_label": {"Ball": {"f1": 0.62, "support": 3}}}}
    store.end_training(training, TrainingStatus.PUBLISHED, 1.0, "v1", {"tl": {"prequential": prequential}})
    client.post("/predict", data="no JSON", content_type="application/json")
    app.extensions["jobs"].add_training("7")
    shown = samples(client.get("/metrics").text)
    assert shown["backend_prequential_f1", (("label", "Ball"), ("project", "7"))] == 0.62
    assert shown["backend_trainings", (("project", "7"), ("status", "published"))] == 1
    assert shown["backend_errors_total", (("kind", "InvalidRequest"),)] == 1
    assert shown["backend_jobs", (("kind", "train"), ("status", "queued"))] == 1
    assert 0 <= shown["backend_queue_age_seconds", ()] < 60
    store.close()


def test_the_board_asks_for_what_there_is(settings: Settings) -> None:
    app = init_app(LabelStudioMLBase, settings=settings)
    client = app.test_client()
    wait_until(lambda: "backend_cache_bytes" in client.get("/metrics").text, 10, "the cache to be measured")
    text = client.get("/metrics").text
    app.extensions["jobs"].store.close()
    from features.counters import COUNTERS

    known = {line.split()[2].removesuffix("_total") for line in text.splitlines() if line.startswith("# HELP")}
    known |= {family.name for counter in COUNTERS for family in counter.collect()}
    board = json.loads(BOARD.read_text())
    for panel in board["panels"]:
        for target in panel["targets"]:
            assert any(name in target["expr"] for name in known), target["expr"]
