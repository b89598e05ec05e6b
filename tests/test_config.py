"""Any labeling config is either served or refused with a sentence; it is bounded, and so is what is kept of many."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import pytest
from flask import Flask
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from control_models.parameters import TimelineLabelsParameters
from errors import EncoderError, InvalidConfig
from ml_backend.context import Services
from ml_backend.registry import MAX_CONFIG_CHARS, MAX_MODELS, ModelRegistry
from ml_backend.settings import Settings
from ml_backend.store import Store
from ml_backend.web.schemas import MAX_CONFIG_CHARS as MAX_SENT_CHARS
from model import YOLO
from tests.test_protocol import CONFIG, MajorityModel

EXAMPLES = 300
WITHOUT_DEADLINE = hypothesis_settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None
)
GOOD = (
    '<View><TimelineLabels name="tl" toName="video" model_trainable="true"><Label value="Ball" background="red"/>'
    '</TimelineLabels><Video name="video" value="$video" frameRate="25"/></View>'
)
ATTRIBUTES = [*TimelineLabelsParameters.model_fields, "score_threshold", "name", "toName", "x"]
xml_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
numbers = st.one_of(st.integers(), st.floats()).map(str)
values = st.one_of(xml_text, numbers, st.sampled_from(["true", "false", "", " ", "../x.pt", "timm/../x", "x" * 300]))
pieces = st.sampled_from(
    ["<", ">", "/>", '"', "&", "&x;", "<View>", "</View>", "\0", "]]>", "<!--", "<?", "$", "ü", " "]
)


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], None]]:
    """Makes the model of a config, without loading a network."""
    said: list[str] = []
    folder: Path = tmp_path_factory.mktemp("config")
    services = Services(Settings(data_dir=folder, cache_dir=folder, model_root=folder), None, lambda: True)

    def make(label_config: str) -> None:
        try:
            YOLO.bind(services)("1", label_config)
        except (InvalidConfig, EncoderError) as refusal:
            said.append(str(refusal))

    yield make
    assert 0 < min(map(len, said)) <= max(map(len, said)) < 2000


@WITHOUT_DEADLINE
@given(attributes=st.dictionaries(st.sampled_from(ATTRIBUTES), values, max_size=4), rate=values)
def test_any_attributes(serve: Callable[[str], None], attributes: dict[str, str], rate: str) -> None:
    merged = {"name": "tl", "toName": "video"} | attributes
    given_attributes = " ".join(f"{name}={quoteattr(value)}" for name, value in merged.items())
    serve(
        f'<View><TimelineLabels {given_attributes}><Label value="Ball"/></TimelineLabels>'
        f'<Video name="video" value="$video" frameRate={quoteattr(rate)}/></View>'
    )


@WITHOUT_DEADLINE
@given(
    changes=st.lists(st.tuples(st.integers(0, len(GOOD)), st.integers(0, 12), pieces), min_size=1, max_size=4),
)
def test_any_damage(serve: Callable[[str], None], changes: list[tuple[int, int, str]]) -> None:
    text = GOOD
    for place, cut, piece in changes:
        text = text[:place] + piece + text[place + cut :]
    serve(text)


def test_a_config_has_a_largest_size(make_app: Callable[..., Flask]) -> None:
    app = make_app(MajorityModel)
    client, store = app.test_client(), app.extensions["jobs"].store
    large = CONFIG.replace("<View>", f'<View><Header value="{"a" * MAX_SENT_CHARS}"/>')
    task = {"id": 1, "data": {"image": "a"}}
    for path, body in {
        "/setup": {"project": "7", "schema": large},
        "/predict": {"project": "7", "label_config": large, "tasks": [task]},
        "/webhook": {"action": "PROJECT_UPDATED", "project": {"id": 7, "label_config": large}},
    }.items():
        answer = client.post(path, json=body)
        assert answer.status_code == 400
        assert "1000000 characters" in answer.json["error"]
    assert store.project("7") is None


@pytest.mark.parametrize(("chars", "kept"), [(0, MAX_MODELS), (MAX_CONFIG_CHARS // 4, 3), (MAX_CONFIG_CHARS + 1, 1)])
def test_what_is_kept_of_many_projects_is_bounded(settings: Settings, chars: int, kept: int) -> None:
    registry = ModelRegistry(MajorityModel, Services(settings, Store(settings.database)))
    config = CONFIG.replace("<View>", f'<View><Header value="{"a" * chars}"/>')
    models: list[Any] = [registry.get(str(number), config) for number in range(kept + 3)]
    found = sum(registry.get(str(number), config) is model for number, model in reversed(list(enumerate(models))))
    assert found == kept
