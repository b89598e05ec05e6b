"""The description at `/openapi.json`, and the running server against what Schemathesis generates from it.

SCHEMATHESIS_EXAMPLES raises the number of examples of each operation (by default few, so that the tests stay short).
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from ml_backend import LabelStudioMLBase, init_app
from ml_backend.settings import Settings
from ml_backend.web.openapi import OPERATIONS, describe
from tests.servers import Backend

CHECKS = [status_code_conformance, content_type_conformance, response_schema_conformance]
HEALTH = list(HealthCheck)
CONFIG = """<View><Video name="video" value="$video"/><TimelineLabels name="tl" toName="video" model_trainable="true">
<Label value="Ball"/></TimelineLabels></View>"""
ACTIONS = ("ANNOTATION_CREATED", "ANNOTATION_UPDATED", "ANNOTATIONS_DELETED", "START_TRAINING", "TASKS_CREATED", "X")
EXAMPLES = int(os.environ.get("SCHEMATHESIS_EXAMPLES", "15"))


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    backend = Backend(tmp_path_factory.mktemp("openapi"), PREDICT_TIMEOUT="0", RUN_WORKER="false").start()
    yield backend
    backend.stop()


@pytest.fixture(scope="module")
def description(backend: Backend) -> schemathesis.BaseSchema:
    return schemathesis.openapi.from_url(f"{backend.url}/openapi.json")


def test_every_answer_is_as_described(description: schemathesis.BaseSchema) -> None:
    counts: Counter[str] = Counter()
    for result in description.get_all_operations():
        operation = result.ok()
        cases = st.one_of(*(operation.as_strategy(generation_mode=mode) for mode in GenerationMode))

        @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, suppress_health_check=HEALTH)
        @given(cases, st.sampled_from(ACTIONS), st.booleans())
        def check(case: schemathesis.Case, action: str, plausible: bool) -> None:
            if plausible and isinstance(case.body, dict):  # else nothing gets past the first checks
                known = {"schema": CONFIG, "label_config": CONFIG, "action": action}
                case.body |= {name: value for name, value in known.items() if name in case.body}
                case.body |= {"project": {"id": 1, "label_config": CONFIG} if "action" in case.body else "1.1795355528"}
            response = case.call(timeout=60)
            assert response.status_code != 500, f"{case.method} {case.path}: {response.text[:300]}"
            try:
                case.validate_response(response, checks=CHECKS)
            except FailureGroup as failures:  # its own text holds the whole request
                pytest.fail(f"{case.method} {case.path}: {str(failures.exceptions)[:1000]}", pytrace=False)
            counts[f"{case.method} {case.path} {response.status_code}"] += 1

        check()
    assert len({count.rpartition(" ")[0] for count in counts}) == len(list(description.get_all_operations()))
    print(f"{counts.total()} requests:", *sorted(counts.items()), sep="\n")


def test_every_route_is_described(tmp_path: Path) -> None:
    app = init_app(LabelStudioMLBase, settings=Settings(data_dir=tmp_path, cache_dir=tmp_path, model_root=tmp_path))
    paths = describe(app)["paths"]
    assert {(method, path) for method, path in OPERATIONS} <= {
        (method.upper(), path) for path, methods in paths.items() for method in methods
    }
    assert len(paths) == len({rule.rule for rule in app.url_map.iter_rules()})
    app.extensions["jobs"].store.close()
