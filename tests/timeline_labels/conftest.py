"""Fixtures of the tests of `<TimelineLabels>`."""

from __future__ import annotations

from typing import Any

import pytest

from ml_backend.context import Services
from ml_backend.settings import Settings
from ml_backend.store import Store
from model import YOLO
from tests.servers import annotation
from tests.timeline_labels.colours import BLUE, GREY, RED, RED_BLUE, annotated, config, task


@pytest.fixture
def make_model(settings: Settings) -> Any:
    store = Store(settings.database)

    store.update_project("1")
    store.update_project("2")

    def make(label_config: str, project: str = "1", in_request: bool = False, **changes: Any) -> YOLO:
        services = Services(settings.model_copy(update=changes), store, lambda: in_request)
        return YOLO.bind(services)(project, label_config)

    yield make
    store.close()


@pytest.fixture
def red_blue(settings: Settings) -> dict[str, Any]:
    """Grey; red in labeling frames 21 to 40; blue in 61 to 80."""
    return task(settings, 1, [GREY] * 20 + [RED] * 20 + [GREY] * 20 + [BLUE] * 20 + [GREY] * 20)


@pytest.fixture
def lesson(make_model: Any, red_blue: dict[str, Any]) -> Any:
    """`lesson(labels)` trains project 1 on red_blue with the regions of some labels."""

    def lesson(*labels: str) -> YOLO:
        model = make_model(config())
        regions = [r for r in RED_BLUE["result"] if set(r["value"]["timelinelabels"]) <= set(labels)]
        drawn = annotation(len(labels), *regions)
        assert model.fit("ANNOTATION_UPDATED", {}, tasks=[annotated(red_blue, drawn)])["tl"]["published"]
        return model

    return lesson
