"""Versions of a classifier: which one predicts, going back, and what makes a new one."""

from __future__ import annotations

import json
import re
import subprocess
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from errors import InvalidRequest, ModelsUnwritable, NotReady
from ml_backend.context import Services
from ml_backend.registry import ModelRegistry
from ml_backend.settings import Settings
from model import YOLO
from progress import Progress
from tests.checkpoints import save_classifier
from tests.colours import RED_BLUE, annotated, config, control
from tests.servers import annotation, mount, region
from utils.neural_nets import MultiLabelLSTM


@pytest.fixture
def spoil(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`spoil(loss)` makes trainings come out useless, with this loss."""

    def spoil(loss: float) -> None:
        learn = MultiLabelLSTM.fit

        def learn_badly(network: MultiLabelLSTM, *args: Any, **kwargs: Any) -> dict[str, Any]:
            metrics = learn(network, *args, **kwargs)
            network.offset.fill_(-200.0)
            return metrics | {"loss": loss}

        monkeypatch.setattr(MultiLabelLSTM, "fit", learn_badly)

    return spoil


@pytest.mark.parametrize(
    ("loss", "reason"), [(0.1, "macro-F1 0.000 .* below the present model's"), (float("nan"), "diverged")]
)
def test_a_worse_classifier_is_not_published(
    make_model: Any, red_blue: dict[str, Any], spoil: Any, loss: float, reason: str
) -> None:
    model = make_model(config())
    model.fit("ANNOTATION_CREATED", {}, tasks=[annotated(red_blue, RED_BLUE)])
    version, before = model.model_version, model.predict([red_blue]).predictions[0]["result"]
    spoil(loss)
    result = model.fit("ANNOTATION_UPDATED", {}, tasks=[annotated(red_blue, RED_BLUE)])["tl"]
    assert not result["published"]
    assert re.search(reason, result["reason"])
    json.dumps(result, allow_nan=False)
    assert model.model_version == version
    assert model.predict([red_blue]).predictions[0]["result"] == before
    # What learnt from a deleted annotation is replaced in any case, but not by nonsense.
    other = annotation(2, region(21, 40, "Red"))
    result = model.fit("ANNOTATIONS_DELETED", {}, tasks=[annotated(red_blue, other)])["tl"]
    assert result["published"] == np.isfinite(loss)


@pytest.mark.parametrize(
    ("attributes", "labels", "keeps"),
    [
        ('model_classifier_epochs="7" model_score_threshold="0.4"', ("Red", "Blue"), True),
        ('model_classifier_hidden_size="16"', ("Red", "Blue"), False),
        ('model_classifier_sequence_size="20"', ("Red", "Blue"), False),
        ('model_classifier_num_layers="2"', ("Red", "Blue"), False),
        ('model_frame_stride="2"', ("Red", "Blue"), False),
        ('model_region="0,0,100,50"', ("Red", "Blue"), False),
        ('model_image_size="96"', ("Red", "Blue"), False),
        ("", ("Red", "Blue", "Green"), False),
    ],
)
def test_what_resets_a_classifier(
    make_model: Any, red_blue: dict[str, Any], attributes: str, labels: tuple[str, ...], keeps: bool
) -> None:
    make_model(config()).fit("ANNOTATION_CREATED", {}, tasks=[annotated(red_blue, RED_BLUE)])
    changed = make_model(config('model_trainable="true" ' + attributes, labels))
    assert changed.needs_training() is not keeps
    if not keeps:
        with pytest.raises(NotReady, match="being trained again"):
            changed.predict([red_blue])
        changed.fit("PROJECT_UPDATED", {}, tasks=[annotated(red_blue, RED_BLUE)])
        assert not changed.needs_training()
    assert changed.predict([red_blue]).predictions[0]["result"]


def test_a_corrupt_classifier_is_replaced_by_the_next_training(make_model: Any, red_blue: dict[str, Any]) -> None:
    model = make_model(config())
    model.fit("ANNOTATION_CREATED", {}, tasks=[annotated(red_blue, RED_BLUE)])
    path = control(model).get_classifier_path("1")
    path.write_bytes(path.read_bytes()[:1000])
    assert "unreadable" in model.model_version
    with pytest.raises(NotReady, match="another release of this backend, or its file is damaged"):
        model.predict([red_blue])
    assert model.needs_training()
    assert model.fit("ANNOTATION_CREATED", {}, tasks=[annotated(red_blue, RED_BLUE)])["tl"]["published"]
    assert model.predict([red_blue]).predictions[0]["result"]


def test_going_back_is_one_update_and_keeps_every_file(
    lesson: Any, red_blue: dict[str, Any], settings: Settings, make_model: Any
) -> None:
    model = lesson("Red")
    first_answer = model.predict([red_blue]).predictions[0]
    first_file = control(model).get_classifier_path("1")
    first_bytes = first_file.read_bytes()
    second = lesson("Red", "Blue").model_version
    assert second != first_answer["model_version"]
    assert first_file.read_bytes() == first_bytes
    assert [row.version for row in model.store.versions("1")] == [2, 1]

    assert model.roll_back(1) == first_answer["model_version"]
    other_process = make_model(config())
    assert other_process.model_version == first_answer["model_version"]
    assert other_process.predict([red_blue]).predictions[0] == first_answer
    assert not model.needs_training()
    assert model.roll_back(2) == second
    with pytest.raises(InvalidRequest, match="It has 1, 2"):
        model.roll_back(0)
    with pytest.raises(InvalidRequest, match="another labeling config"):
        make_model(config(labels=("Red", "Green"))).roll_back(1, "tl")
    with pytest.raises(InvalidRequest, match='no control tag "other"'):
        model.roll_back(1, "other")
    first_file.unlink()
    with pytest.raises(InvalidRequest, match="isn't in MODEL_ROOT"):
        model.roll_back(1)
    assert model.model_version == second
    first_file.write_bytes(first_bytes)
    # The next training's version follows the largest, also after going back.
    model.roll_back(1)
    assert "-v3 (" in lesson("Blue").model_version


def test_a_project_that_is_deleted_while_it_is_trained_gets_no_model(
    make_model: Any, red_blue: dict[str, Any], settings: Settings
) -> None:
    model = make_model(config())

    def delete(share: float) -> None:
        model.store.delete_project("1")

    with pytest.raises(InvalidRequest, match="deleted while"):
        model.fit("ANNOTATION_CREATED", {}, tasks=[annotated(red_blue, RED_BLUE)], progress=Progress(delete))
    assert list(settings.model_root.glob("*.safetensors")) == []
    assert model.store.versions("1") == []


@pytest.mark.parametrize("attribute", ['model_merge_gap="1"', 'score_threshold="0.9"', 'model_exclusive="true"'])
def test_other_decisions_are_another_version(
    lesson: Any, make_model: Any, red_blue: dict[str, Any], attribute: str
) -> None:
    """So Label Studio asks for predictions again."""
    trained = lesson("Red").model_version
    changed = make_model(config(f'model_trainable="true" {attribute}'))
    assert changed.model_version.startswith(f"{trained} ")
    assert changed.predict([red_blue]).predictions[0]["model_version"] == changed.model_version
    assert not changed.needs_training()
    assert make_model(config()).model_version == trained


def test_a_prediction_carries_the_version_that_made_it(
    lesson: Any, red_blue: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where another version is published while it is made."""
    model = lesson("Red")
    first = model.model_version
    predict = MultiLabelLSTM.predict

    def predict_slowly(network: MultiLabelLSTM, *arguments: Any) -> np.ndarray:
        monkeypatch.undo()
        lesson("Red", "Blue")
        return predict(network, *arguments)

    monkeypatch.setattr(MultiLabelLSTM, "predict", predict_slowly)
    answer = model.predict([red_blue]).predictions[0]
    assert model.model_version != first
    assert answer["model_version"] == first
    assert {r["value"]["timelinelabels"][0] for r in answer["result"]} == {"Red"}


def test_a_full_disk_is_a_sentence_and_leaves_the_present_model(
    lesson: Any, red_blue: dict[str, Any], settings: Settings
) -> None:
    settings.model_root.mkdir(exist_ok=True)
    mount("-t", "tmpfs", "-o", "size=8m", "tmpfs", str(settings.model_root))
    try:
        model = lesson("Red")
        version, files = model.model_version, sorted(settings.model_root.iterdir())
        filler = settings.model_root / "filler"
        with suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        with pytest.raises(ModelsUnwritable, match=r"can't be written to MODEL_ROOT.*No space left on device"):
            lesson("Red", "Blue")
        filler.unlink()
        assert sorted(settings.model_root.iterdir()) == files
        assert model.predict([red_blue]).predictions[0]["model_version"] == version
        lesson("Red", "Blue")
        assert model.model_version != version
    finally:
        subprocess.run(["umount", "--lazy", settings.model_root], check=True)


def test_a_borrowed_classifier_is_made_once_for_each_of_its_versions(lesson: Any, make_model: Any) -> None:
    def predicting() -> Any:
        return control(borrower).mode.ready()

    lesson("Red")
    borrower = make_model(config('model_trainable="true" model_start_from="1"'), "2")
    first = predicting()
    assert predicting() is first
    assert borrower.model_version.endswith("v1 (1 video) of 1")
    lesson("Blue")
    assert predicting() is not first
    assert borrower.model_version.endswith("v2 (1 video) of 1")


def test_a_file_that_is_removed_is_a_reset(lesson: Any, red_blue: dict[str, Any]) -> None:
    model = lesson("Red")
    control(model).get_classifier_path("1").unlink()
    assert model.model_version.endswith("-untrained")
    assert not model.needs_training()
    with pytest.raises(NotReady):
        model.predict([red_blue])
    assert "-v2 (" in lesson("Red").model_version


def test_a_file_of_a_release_without_versions_is_trained_again(
    lesson: Any, red_blue: dict[str, Any], make_model: Any, settings: Settings
) -> None:
    model = lesson("Red")
    path = control(model).get_classifier_path("1")
    old = path.rename(path.with_name("timelinelabels-1-efficientnet-lite0-tl.safetensors"))
    with model.store.engine.begin() as connection:
        for table in ("model_versions", "present_versions"):
            connection.execute(sa.text(f"DELETE FROM {table}"))
    assert not model.needs_training()  # nothing to learn from is stored
    model.store.save_annotations("1", config(), [(red_blue, RED_BLUE)], "ANNOTATION_CREATED")
    assert model.needs_training()
    with pytest.raises(NotReady, match="isn't trained yet"):
        model.predict([red_blue])
    assert "-v2 (" in lesson("Red").model_version
    assert not old.exists()


def test_without_a_store_there_is_one_file(settings: Settings, red_blue: dict[str, Any]) -> None:
    model = YOLO.bind(Services(settings))("1", config())
    assert model.fit("ANNOTATION_CREATED", {}, tasks=[annotated(red_blue, RED_BLUE)])["tl"]["published"]
    assert [path.name for path in settings.model_root.glob("*.safetensors")] == [
        "timelinelabels-1-efficientnet-lite0-tl.safetensors"
    ]
    assert model.predict([red_blue]).predictions[0]["result"]


def test_another_default_encoder_is_seen_and_asks_for_a_training(
    lesson: Any, red_blue: dict[str, Any], settings: Settings
) -> None:
    """The bundled one at first; then yolov8n-cls.pt is put into MODEL_ROOT, and later replaced."""
    store = lesson("Red").store
    registry = ModelRegistry(YOLO, Services(settings, store))
    bundled = registry.get("1", config())
    assert registry.get("1", config()) is bundled
    assert not bundled.needs_training()
    seen = {bundled.fingerprint()}
    for names in ({0: "a", 1: "b"}, {0: "a", 1: "b", 2: "c"}):
        save_classifier(settings.model_root / "yolov8n-cls.pt", names)
        model = registry.get("1", config())
        assert registry.get("1", config()) is model
        assert model.fingerprint() not in seen
        seen.add(model.fingerprint())
        assert model.needs_training()
        with pytest.raises(NotReady, match="trained again"):
            model.predict([red_blue])
        model.fit("START_TRAINING", {}, tasks=[annotated(red_blue, RED_BLUE)])
        assert not model.needs_training()
        assert model.predict([red_blue]).predictions[0]["model_version"].startswith("yolov8n-cls-v")
