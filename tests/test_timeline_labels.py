"""`TimelineLabelsModel` on real videos and encoders: simple mode, training, and what resets a classifier."""

from __future__ import annotations

import json
import re
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
import torch

from control_models import timeline_tag
from control_models.examples import choose_tasks, read_examples, recalled
from control_models.timeline_labels import TimelineLabelsModel
from control_models.trained import LOADING_SHARE
from errors import (
    EncoderError,
    InvalidAnnotation,
    InvalidConfig,
    InvalidRequest,
    InvalidTask,
    MediaError,
    ModelsUnwritable,
    NotReady,
)
from features import cache as cache_module
from features.checkpoints import import_ultralytics
from learning.metrics import frame_metrics
from ml_backend.context import Services
from ml_backend.registry import ModelRegistry
from ml_backend.settings import Settings
from ml_backend.store import Store
from model import YOLO
from progress import Progress
from tests.checkpoints import write_timm_weights
from tests.http_server import Server, whole_file
from tests.servers import annotation, mount, region
from tests.videos import write_video
from utils.converter import convert_timelinelabels_to_probs
from utils.neural_nets import MultiLabelLSTM

RED, GREEN, BLUE, GREY = (220, 30, 30), (30, 200, 40), (40, 60, 220), (120, 120, 120)


def config(
    attributes: str = 'model_trainable="true"', labels: tuple[str, ...] = ("Red", "Blue"), rate: str = "25"
) -> str:
    tags = "".join(f'<Label value="{label}"/>' for label in labels)
    return (
        f'<View><TimelineLabels name="tl" toName="video" {attributes}>{tags}</TimelineLabels>'
        f'<Video name="video" value="$video" frameRate="{rate}"/></View>'
    )


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


def control(model: YOLO, index: int = 0) -> TimelineLabelsModel:
    return model.control_models[index]


def task(settings: Settings, task_id: int, colours: list[tuple[int, int, int]], rate: float = 25) -> dict[str, Any]:
    path = settings.local_files_document_root / f"{task_id}.mp4"
    write_video(path, colours, rate=rate, size=(64, 64))
    return {"id": task_id, "data": {"video": str(path)}}


def annotated(task: dict[str, Any], *annotations: dict[str, Any]) -> dict[str, Any]:
    return {**task, "annotations": list(annotations)}


def notes(model: YOLO) -> list[tuple[int, str]]:
    return [(note.task_id, note.text) for note in model.services.store.notes("1")]


def predicted(
    model: YOLO, task: dict[str, Any], labels: tuple[str, ...] = ("Red", "Blue"), frames: int = 100
) -> np.ndarray:
    regions = model.predict([task]).predictions[0]["result"]
    columns = {label: index for index, label in enumerate(labels)}
    return convert_timelinelabels_to_probs(regions, columns, frames)[0]


@pytest.fixture
def red_blue(settings: Settings) -> dict[str, Any]:
    """Grey; red in labeling frames 21 to 40; blue in 61 to 80."""
    return task(settings, 1, [GREY] * 20 + [RED] * 20 + [GREY] * 20 + [BLUE] * 20 + [GREY] * 20)


RED_BLUE = annotation(1, region(21, 40, "Red"), region(61, 80, "Blue"))


# -- simple mode


def save_classifier(path: Path, names: dict[int, str]) -> None:
    """A yolov8n-cls of those classes, with seeded weights that make it sure of itself."""
    import_ultralytics()
    import ultralytics
    from ultralytics.nn.tasks import ClassificationModel

    torch.manual_seed(0)
    yolo = ultralytics.YOLO("yolov8n-cls.yaml")
    network = ClassificationModel("yolov8n-cls.yaml", nc=len(names), verbose=False)
    network.names, network.task, network.args = names, "classify", {"imgsz": 224, "task": "classify"}
    with torch.no_grad():
        network.model[-1].linear.weight *= 2000
    yolo.model = network
    path.parent.mkdir(parents=True, exist_ok=True)
    yolo.save(path)


def test_simple_mode_scores_are_the_mean_of_ultralytics_own_probabilities(settings: Settings, make_model: Any) -> None:
    import_ultralytics()
    import ultralytics

    save_classifier(settings.model_root / "colours.pt", {0: "warm", 1: "cold", 2: "other"})
    video = task(settings, 1, [GREY] * 15 + [RED] * 15 + [GREEN] * 15 + [BLUE] * 15)
    text = config('model_path="colours.pt" model_score_threshold="0.3"', ("warm", "Cold"))
    model = make_model(text, precision="fp32")
    regions = model.predict([video]).predictions[0]["result"]

    results = ultralytics.YOLO(settings.model_root / "colours.pt").predict(
        video["data"]["video"], stream=True, verbose=False
    )
    probs = np.array([result.probs.data.cpu().numpy() for result in results])
    assert len(probs) == 60
    expected = set()
    for label, column in (("warm", 0), ("Cold", 1)):
        above = np.flatnonzero(probs[:, column] >= 0.3)
        for run in np.split(above, np.flatnonzero(np.diff(above) > 1) + 1):
            expected.add((label, run[0] + 1, run[-1] + 1, round(float(probs[run, column].mean()), 2)))
    assert len({label for label, *_ in expected}) == 2
    found = {
        (r["value"]["timelinelabels"][0], *r["value"]["ranges"][0].values(), round(r["score"], 2)) for r in regions
    }
    assert found == expected
    for r in regions:
        (label,), (frames,) = r["value"]["timelinelabels"], r["value"]["ranges"]
        own = probs[frames["start"] - 1 : frames["end"], {"warm": 0, "Cold": 1}[label]].mean()
        assert r["score"] == pytest.approx(own, abs=1e-3)


def test_simple_mode_without_a_matching_label_says_what_to_do(make_model: Any) -> None:
    with pytest.raises(InvalidConfig, match="predicted_values"):
        make_model(config("", ("Ball touch", "No such class")))


def test_labels_may_share_a_class(make_model: Any) -> None:
    tags = '<Label value="Pet" predicted_values="tabby,beagle,tabby"/><Label value="Dog" predicted_values="beagle"/>'
    classes = control(
        make_model(config("").replace('<Label value="Red"/><Label value="Blue"/>', tags))
    ).mode.class_columns
    assert (len(classes["Pet"]), len(classes["Dog"])) == (2, 1)
    assert set(classes["Dog"]) < set(classes["Pet"])


def test_simple_mode_version_follows_what_predictions_depend_on(make_model: Any) -> None:
    labels = ("soccer_ball",)
    version = make_model(config("", labels)).model_version
    assert make_model(config("", labels), project="2").model_version == version
    assert make_model(config('score_threshold="0.2"', labels)).model_version != version
    assert "efficientnet-lite0" in version


# -- the labeling config


@pytest.mark.parametrize(
    ("attribute", "value", "allowed"),
    [
        ("model_trainable", "maybe", "true or false"),
        ("model_classifier_epochs", "0", "greater than or equal to 1"),
        ("model_classifier_epochs", "many", "a whole number"),
        ("model_classifier_sequence_size", "1", "greater than or equal to 2"),
        ("model_classifier_hidden_size", "1.5", "a whole number"),
        ("model_classifier_num_layers", "99", "less than or equal to 8"),
        ("model_classifier_f1_threshold", "95", "less than or equal to 1"),
        ("model_classifier_accuracy_threshold", "-1", "greater than or equal to 0"),
        ("model_score_threshold", "high", "a number"),
        ("score_threshold", "2", "less than or equal to 1"),
        ("model_frame_stride", "0", "greater than or equal to 1"),
        ("model_region", "60,0,50,100", "x,y,width,height in per cent of the picture"),
        ("model_region", "0,0,0.5,100", "at least 1"),
        ("model_region", "nan,0,50,50", "in per cent"),
        ("model_region", "1,2,3", "x,y,width,height"),
        ("model_image_size", "450", "a multiple of 32"),
        ("model_image_size", "2240", "less than or equal to 1280"),
    ],
)
def test_a_wrong_attribute_is_named_with_what_is_allowed(
    make_model: Any, attribute: str, value: str, allowed: str
) -> None:
    with pytest.raises(InvalidConfig) as error:
        make_model(config(f'{attribute}="{value}"', ("soccer_ball",)))
    for part in (f'{attribute}="{value}"', allowed, 'name="tl"'):
        assert part in str(error.value)


def test_labels_without_a_background_have_colours_of_their_own(make_model: Any) -> None:
    colours = control(make_model(config("", ("fox_squirrel", "wall_clock", "teddy")))).tag.colours
    assert len(set(colours.values())) == 3


def test_attributes_default_to_the_published_model(make_model: Any) -> None:
    parameters = control(make_model(config())).tag.parameters
    assert parameters.model_classifier_epochs == 1000
    assert parameters.model_classifier_sequence_size == 16
    assert parameters.model_classifier_hidden_size == 32
    assert parameters.model_classifier_num_layers == 1
    assert parameters.model_classifier_f1_threshold == 0.95
    assert parameters.model_classifier_accuracy_threshold == 1.0
    assert parameters.model_score_threshold == 0.5
    changed = control(make_model(config('model_trainable="true"'), model_score_threshold=0.25)).tag.parameters
    assert changed.model_score_threshold == 0.25


def test_an_attribute_without_a_value_is_none(make_model: Any) -> None:
    assert control(make_model(config('model_trainable="true" model_score_threshold=""'))).tag.threshold is None


def test_configs_that_can_not_work(make_model: Any, settings: Settings) -> None:
    for text, part in [
        ('<View><Video name="video" value="$video"/></View>', "TimelineLabels"),
        *((config(f'model_skip="{word}"'), "no control tag") for word in ("true", "True", "1", "yes", "on")),
        (config('model_skip="perhaps"'), 'model_skip="perhaps"'),
        (config(labels=()), "no <Label>"),
        (config().replace('toName="video"', 'toName="other"'), 'toName="other"'),
    ]:
        with pytest.raises(InvalidConfig, match=part.replace("(", r"\(")):
            make_model(text)
    for name in ("../secret.pt", "/etc/passwd", "http://example.com/a.pt", "no-such-model.pt"):
        with pytest.raises(EncoderError, match=r"model_path|MODEL_ROOT"):
            make_model(config(f'model_trainable="true" model_path="{name}"'))
    save_classifier(settings.model_root / "own.pt", {0: "a", 1: "b"})
    with pytest.raises(EncoderError, match="ALLOW_CUSTOM_MODEL_PATH"):
        make_model(config('model_trainable="true" model_path="own.pt"'), allow_custom_model_path=False)


# -- training


def test_it_learns_a_video_and_forgets_nothing_of_its_state(
    settings: Settings, make_model: Any, red_blue: dict[str, Any]
) -> None:
    model = make_model(config())
    with pytest.raises(NotReady, match="isn't trained yet"):
        model.predict([red_blue])
    # The published call: an event and its data.
    result = model.fit("ANNOTATION_CREATED", {"task": red_blue, "annotation": RED_BLUE})
    assert result["tl"]["published"]
    assert result["tl"]["prequential"] is None
    expected = np.zeros((100, 2))
    expected[20:40, 0] = expected[60:80, 1] = 1
    assert np.abs(predicted(make_model(config()), red_blue) - expected).sum() <= 8
    path = control(model).get_classifier_path("1")
    assert re.fullmatch(r"timelinelabels-1-efficientnet-lite0-tl-[0-9a-f]{16}\.safetensors", path.name)
    assert path.exists()


def test_a_new_video_is_predicted_before_it_is_learnt(
    settings: Settings, make_model: Any, red_blue: dict[str, Any]
) -> None:
    model = make_model(config())
    first = annotated(red_blue, RED_BLUE)
    model.fit("ANNOTATION_CREATED", {}, tasks=[first])
    easy = task(settings, 2, [GREY] * 30 + [BLUE] * 30 + [GREY] * 30)
    mirror = annotated(easy, annotation(2, region(31, 60, "Blue")))
    prequential = model.fit("ANNOTATION_CREATED", {}, tasks=[first, mirror])["tl"]["prequential"]
    assert prequential["videos"] == 1
    assert prequential["frames"]["per_label"]["Blue"]["support"] == 30
    assert 0 <= prequential["segments"]["macro_f1"] <= 1
    blue = prequential["mistakes"]["labels"]["Blue"]
    assert (blue["events"], blue["missed_events"]) == (1, 0)
    taken = sum(seconds for label, _, seconds in prequential["mistakes"]["confusion"] if label == "Blue")
    assert taken == pytest.approx(30 / 25)
    # Nothing is new the third time.
    assert model.fit("ANNOTATION_UPDATED", {}, tasks=[first, mirror])["tl"]["prequential"] is None


def test_a_deleted_annotation_has_no_influence(settings: Settings, make_model: Any, red_blue: dict[str, Any]) -> None:
    model = make_model(config())
    blue = annotated(task(settings, 2, [GREY] * 30 + [BLUE] * 30 + [GREY] * 30), annotation(2, region(31, 60, "Blue")))
    red = annotated(red_blue, annotation(1, region(21, 40, "Red")))
    model.fit("ANNOTATION_CREATED", {}, tasks=[red, blue])
    assert predicted(model, red_blue)[:, 0].any()
    model.fit("ANNOTATIONS_DELETED", {}, tasks=[blue])
    assert not predicted(model, red_blue)[:, 0].any()
    # The same as a model that never saw the deleted one.
    other = make_model(config(), project="2")
    other.fit("ANNOTATION_CREATED", {}, tasks=[blue])
    np.testing.assert_array_equal(
        control(model).create_timelines_trainable(red_blue["data"]["video"], 25),
        control(other).create_timelines_trainable(red_blue["data"]["video"], 25),
    )
    # Without any annotation the model is untrained again.
    model.fit("ANNOTATIONS_DELETED", {}, tasks=[])
    with pytest.raises(NotReady):
        model.predict([red_blue])


def test_an_updated_annotation_replaces_the_old_one(
    settings: Settings, make_model: Any, red_blue: dict[str, Any]
) -> None:
    model = make_model(config())
    model.fit("ANNOTATION_CREATED", {}, tasks=[annotated(red_blue, annotation(1, region(21, 40, "Red")))])
    assert predicted(model, red_blue)[25:35, 0].all()
    corrected = annotation(1, region(61, 80, "Red"))
    model.fit("ANNOTATION_UPDATED", {}, tasks=[annotated(red_blue, corrected)])
    labels = predicted(model, red_blue)
    assert labels[65:75, 0].all()
    assert not labels[25:35, 0].any()


@pytest.fixture
def spoil(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`spoil(loss)` makes trainings come out useless, with this loss."""

    def spoil(loss: float) -> None:
        learn = MultiLabelLSTM.partial_fit

        def learn_badly(network: MultiLabelLSTM, *args: Any, **kwargs: Any) -> dict[str, Any]:
            metrics = learn(network, *args, **kwargs)
            network.offset.fill_(-200.0)
            return metrics | {"loss": loss}

        monkeypatch.setattr(MultiLabelLSTM, "partial_fit", learn_badly)

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


def test_a_training_can_be_ended_while_it_extracts_features(make_model: Any, red_blue: dict[str, Any]) -> None:
    def stop(share: float) -> None:
        if 0 < share < LOADING_SHARE:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        make_model(config()).fit("", {}, tasks=[annotated(red_blue, RED_BLUE)], progress=Progress(stop))


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


def test_a_track_predicts_once(lesson: Any, red_blue: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its curve and its regions are of one prediction: the same version, and half of the time."""
    model = lesson("Red", "Blue")
    predict, calls = MultiLabelLSTM.predict, []

    def predict_counted(network: MultiLabelLSTM, *arguments: Any) -> np.ndarray:
        calls.append(network)
        return predict(network, *arguments)

    monkeypatch.setattr(MultiLabelLSTM, "predict", predict_counted)
    (track,) = model.tracks(red_blue)
    assert len(calls) == 1
    assert track.prediction.observation.source == model.model_version
    frames = [(event.label, event.start, event.stop) for event in track.prediction.observation.events]
    assert len(frames) == len(model.predict([red_blue]).predictions[0]["result"])


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


def test_several_controls_have_classifiers_of_their_own(
    make_model: Any, red_blue: dict[str, Any], settings: Settings
) -> None:
    text = (
        '<View><TimelineLabels name="warm" toName="video" model_trainable="true"><Label value="Red"/></TimelineLabels>'
        '<TimelineLabels name="cold" toName="video" model_trainable="true"><Label value="Blue"/></TimelineLabels>'
        '<TimelineLabels name="mine" toName="video" model_skip="true"><Label value="Note"/></TimelineLabels>'
        '<Video name="video" value="$video" frameRate="25"/></View>'
    )
    model = make_model(text)
    drawn = annotation(1, region(21, 40, "Red", from_name="warm"), region(61, 80, "Blue", from_name="cold"))
    drawn["result"].append(region(1, 100, "Note", from_name="mine"))
    result = model.fit("ANNOTATION_CREATED", {}, tasks=[annotated(red_blue, drawn)])
    assert set(result) == {"warm", "cold"}
    names = [path.name for path in settings.model_root.glob("*.safetensors")]
    assert sorted(re.sub("[0-9a-f]{16}", "#", name) for name in names) == [
        f"timelinelabels-1-efficientnet-lite0-{tag}-#.safetensors" for tag in ("cold", "warm")
    ]
    regions = model.predict([red_blue]).predictions[0]["result"]
    assert {(r["from_name"], *r["value"]["timelinelabels"]) for r in regions} == {("warm", "Red"), ("cold", "Blue")}


def test_annotations_that_do_not_fit(make_model: Any, red_blue: dict[str, Any], settings: Settings) -> None:
    model = make_model(config())
    # A label that was removed from the config after it was drawn is left out, and the note says so.
    drawn = annotation(1, region(21, 40, "Red"), region(1, 5, "Removed"), region(1, 5, "Green", from_name="other"))
    assert model.fit("START_TRAINING", {}, tasks=[annotated(red_blue, drawn)])["tl"]["published"]
    assert notes(model) == [(1, "Annotation 1 is used without 'Removed': the labeling config has no such label.")]
    gone = {"id": 2, "data": {"video": str(settings.local_files_document_root / "gone.mp4")}}
    result = model.fit("START_TRAINING", {}, tasks=[annotated(red_blue, drawn), annotated(gone, annotation(2))])["tl"]
    assert list(result["unavailable"]) == ["2"]
    with pytest.raises(MediaError, match="No annotated video can be fetched"):
        model.fit("START_TRAINING", {}, tasks=[annotated(gone, annotation(2))])
    with pytest.raises(MediaError, match='no "video"'):
        model.predict([{"id": 3, "data": {}}])


def test_a_malformed_region_leaves_the_training_the_others(make_model: Any, red_blue: dict[str, Any]) -> None:
    """It can be stored while the config can't work."""
    model = make_model(config())
    drawn = annotation(7, *RED_BLUE["result"], region(50, 40, "Red"), region(1, 5, "Red"), region(1, 5, "Red"))
    drawn["result"][-2]["value"] = None
    drawn["result"][-1]["value"]["timelinelabels"] = "Red"
    drawn["result"][-1]["id"] = "r9"
    drawn["result"].append(None)
    assert model.fit("START_TRAINING", {}, tasks=[annotated(red_blue, drawn)])["tl"]["published"]
    assert predicted(model, red_blue)[25:35, 0].all()
    assert {task_id for task_id, _ in notes(model)} == {1}
    assert len(notes(model)) == 4
    assert all("Annotation 7 is used without a region" in text for _, text in notes(model))
    assert any("'r9'" in text for _, text in notes(model))
    # The annotator mends it: what was said of it is said no more.
    store = model.services.store
    store.save_annotations("1", None, [(red_blue, RED_BLUE)], "ANNOTATION_UPDATED")
    assert notes(model) == []


@pytest.mark.parametrize(
    "bad",
    [
        {"video": "a.mp4", "fps": 5000},
        {"video": "\ud800.mp4"},
        {"video": "http://127.0.0.1:9/\ud800.mp4"},
        {"video": "a" * 100_000},
        {"video": ["a.mp4"]},
        {"video": None},
        {},
    ],
)
def test_one_task_that_can_not_be_used_leaves_the_others_learnt(
    make_model: Any, red_blue: dict[str, Any], settings: Settings, bad: dict[str, Any]
) -> None:
    model = make_model(config(rate="$fps"))
    red_blue["data"]["fps"] = 25
    write_video(settings.local_files_document_root / "a.mp4", [RED] * 5, rate=25, size=(64, 64))
    tasks = [annotated(red_blue, RED_BLUE), annotated({"id": 2, "data": bad}, annotation(2, region(1, 3, "Red")))]
    metrics = model.fit("START_TRAINING", {}, tasks=tasks)["tl"]
    assert (metrics["published"], metrics["tasks"], list(metrics["unavailable"])) == (True, 1, ["2"])
    (text,) = [text for task_id, text in notes(model) if task_id == 2]
    assert text.startswith("Left out of the training: ")


def test_a_video_of_more_labeling_frames_than_can_be_held_is_refused(
    make_model: Any, red_blue: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timeline_tag, "MAX_LABELED_VALUES", 100 * 2 - 1)
    with pytest.raises(InvalidTask, match="2 labels"):
        make_model(config("", ("soccer_ball", "tabby"))).predict([red_blue])


def test_a_request_never_decodes_a_video(
    make_model: Any, red_blue: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even where the features that a worker had made are gone again."""
    model = make_model(config("", ("soccer_ball",)))
    model.extract(red_blue)
    in_request = make_model(config("", ("soccer_ball",)), in_request=True)
    monkeypatch.setattr(cache_module, "open_video", lambda path: pytest.fail("a video is decoded"))
    assert in_request.predict([red_blue]).predictions
    model.evict(red_blue)
    with pytest.raises(NotReady, match="Ask again"):
        in_request.predict([red_blue])


def test_clearing_a_video_drops_the_features_of_all_tags(make_model: Any, red_blue: dict[str, Any]) -> None:
    """Also in a process that hasn't looked at them yet."""
    simple = '<TimelineLabels name="s" toName="video"><Label value="fox_squirrel"/></TimelineLabels><Video'
    text = config().replace("<Video", simple)
    model = make_model(text)
    model.extract(red_blue)
    folder = control(model).videos.cache.folder.features
    assert len(list(folder.rglob("facts.json"))) == 2
    make_model(text).evict(red_blue)
    assert list(folder.rglob("facts.json")) == []


def test_what_was_drawn_beyond_the_end_marks_nothing(make_model: Any, red_blue: dict[str, Any]) -> None:
    """In a training and on pages, as where a longer video was annotated."""
    model = make_model(config())
    model.extract(red_blue)
    (track,) = model.tracks(red_blue)
    drawn = [region(91, 130, "Red"), region(120, 130, "Blue")]
    marks = track.annotated(drawn, "annotation 1", 1).marks()
    assert marks.sum(axis=0).tolist() == [10, 0]
    np.testing.assert_array_equal(marks, control(model).tag.drawn(drawn, 100).labels)


@pytest.mark.parametrize("tag", ["TimelineLabels", "Label", "Video"])
def test_a_tag_in_lower_case_is_told_its_spelling(make_model: Any, tag: str) -> None:
    text = re.sub(f"(</?){tag}\\b", rf"\1{tag.lower()}", config())
    with pytest.raises(InvalidConfig, match=f"<{tag.lower()}> as <{tag}>"):
        make_model(text)


@pytest.mark.parametrize("rate", ["2000", "0", "fast"])
def test_a_frame_rate_that_can_not_be_meant_is_refused_with_the_config(make_model: Any, rate: str) -> None:
    with pytest.raises(InvalidConfig, match=f'^<Video name="video" frameRate="{rate}">'):
        make_model(config(rate=rate))


@pytest.mark.parametrize(
    ("frames", "units", "layers"), [(16, 1024, 8), (4096, 1024, 8), (4096, 64, 1), (16, 512, 4), (2, 1024, 8)]
)
def test_a_classifier_that_is_too_large_is_refused_in_the_attributes_words(
    make_model: Any, frames: int, units: int, layers: int
) -> None:
    with pytest.raises(InvalidConfig) as error:
        make_model(sized(frames, units, layers))
    for name, value in (("sequence_size", frames), ("hidden_size", units), ("num_layers", layers)):
        assert f'model_classifier_{name}="{value}"' in str(error.value)


@pytest.mark.parametrize(("frames", "units", "layers"), [(16, 1024, 1), (16, 512, 2), (64, 256, 2), (4096, 32, 1)])
def test_a_large_classifier_is_taken(make_model: Any, frames: int, units: int, layers: int) -> None:
    taken = control(make_model(sized(frames, units, layers))).tag.parameters
    assert taken.model_classifier_sequence_size == frames
    assert taken.model_classifier_hidden_size == units
    assert taken.model_classifier_num_layers == layers


def sized(frames: int, units: int, layers: int) -> str:
    return config(
        f'model_trainable="true" model_classifier_sequence_size="{frames}" model_classifier_hidden_size="{units}" '
        f'model_classifier_num_layers="{layers}"'
    )


@pytest.mark.parametrize("name", ["タイムラインラベルの名前はとても長い", "x" * 230])
def test_a_tag_of_a_long_name_is_trained(make_model: Any, red_blue: dict[str, Any], name: str) -> None:
    model = make_model(config().replace('name="tl"', f'name="{name}"'))
    drawn = annotation(1, region(21, 40, "Red", from_name=name))
    assert model.fit("ANNOTATION_CREATED", {}, tasks=[annotated(red_blue, drawn)])[name]["published"]
    assert model.predict([red_blue]).predictions[0]["result"]


RED_REGION = region(31, 40, "Red")


def test_features_beyond_the_cache_limit_are_not_all_extracted_again(settings: Settings, make_model: Any) -> None:
    """Five videos, room for four: a training extracts the one that isn't there."""
    tasks = [
        annotated(
            task(settings, number, [GREY] * (20 + number) + [RED] * 20), annotation(number, region(31, 40, "Red"))
        )
        for number in range(1, 6)
    ]
    make_model(config()).extract(tasks[0])
    (item,) = list((settings.cache_dir / "features").rglob("facts.json"))
    size = sum(path.stat().st_size for path in item.parent.iterdir())
    model = make_model(config(), cache_size_limit=int(4.8 * size))

    def cached() -> set[int]:
        """When each item was written: reading leaves that alone."""
        return {path.stat().st_mtime_ns for path in (settings.cache_dir / "features").rglob("features.npy")}

    assert len(cached()) == 1
    model.fit("START_TRAINING", {}, tasks=tasks)
    for _ in range(3):
        before = cached()
        assert len(before) == 4
        model.fit("START_TRAINING", {}, tasks=tasks)
        assert len(before & cached()) == 3


def test_a_downloaded_video_that_can_not_be_read_is_named_as_in_the_task(
    settings: Settings, make_model: Any, server: Server
) -> None:
    server.answers["/data/upload/1/clip.mp4"] = whole_file(b"no video" * 1000)
    model = make_model(config(), label_studio_url=server.url)
    with pytest.raises(MediaError, match=r"clip\.mp4") as error:
        model.extract({"id": 3, "data": {"video": "/data/upload/1/clip.mp4"}})
    assert "No picture" in str(error.value) or "is not a video file" in str(error.value)
    assert list((settings.cache_dir / "media").iterdir()) == []  # what no decoder can read isn't kept


def test_labels_meet_the_true_moments_of_a_file_of_another_rate(settings: Settings, make_model: Any) -> None:
    """30 fps under frameRate="25": red is on the screen from 1.0 s to 2.0 s, which are the labeling frames 26 to 50."""
    video = task(settings, 1, [GREY] * 30 + [RED] * 30 + [GREY] * 30, rate=30)
    model = make_model(config())
    model.extract(video)
    assert [note.text for note in model.services.store.notes("1")] == ["file 30 fps, config 25: mapped by time"]
    model.fit("ANNOTATION_CREATED", {}, tasks=[annotated(video, annotation(1, region(26, 50, "Red")))])
    on = np.flatnonzero(predicted(model, video, frames=75)[:, 0]) + 1
    assert abs(on[0] - 26) <= 1
    assert abs(on[-1] - 50) <= 1


def test_held_out_videos_keep_their_own_frame_rate(settings: Settings, make_model: Any) -> None:
    """Also where the first task can't be used."""
    slow, fast = (task(settings, rate, [GREY] * rate + [RED] * rate + [BLUE] * (rate // 5), rate) for rate in (25, 50))
    tasks = [annotated({"id": 1, "data": {**slow["data"], "fps": 5000}}, annotation(1))]
    for one in (slow, fast):
        rate = one["data"]["fps"] = one["id"]
        tasks.append(annotated(one, annotation(rate, region(rate + 1, 2 * rate, "Red"))))
    cases = control(make_model(config(rate="$fps"))).held_out(tasks, [{25}, {50}]).cases
    assert [(case.task_id, case.frame_rate, len(case.truth)) for case in cases] == [(25, 25, 55), (50, 50, 110)]


# -- encoders beyond YOLO


def test_a_timm_model_of_own_weights_learns_and_predicts(settings: Settings, make_model: Any) -> None:
    write_timm_weights(settings.model_root, "resnet10t.c3_in1k")
    model = make_model(config('model_trainable="true" model_path="timm/resnet10t.c3_in1k"'))
    video = task(settings, 1, [GREY] * 20 + [RED] * 20 + [GREY] * 20 + [BLUE] * 20 + [GREY] * 20)
    other = task(settings, 2, [RED] * 30 + [GREY] * 40 + [BLUE] * 30)
    model.fit("ANNOTATION_CREATED", {}, tasks=[annotated(video, RED_BLUE)])
    assert model.model_version.startswith("resnet10t.c3_in1k-v1")
    truth = np.zeros((100, 2))
    truth[:30, 0] = truth[70:, 1] = 1
    assert frame_metrics(truth > 0, predicted(model, other) > 0, ["Red", "Blue"])["macro_f1"] > 0.8


# -- what was drawn


def stored_annotation(model: YOLO, video: dict[str, Any], made: dict[str, Any]) -> None:
    pairs = [(video, made | {"updated_at": "2026-01-01T00:00:00Z"})]
    model.services.store.save_annotations("1", config(), pairs, "ANNOTATION_CREATED")


@pytest.mark.parametrize(
    "attributes",
    [
        *(f'model_score_threshold="{number}"' for number in ("0", "0.01", "0.15", "0.9", "1.0")),
        'model_min_duration="1"',
        'model_merge_gap="1"',
        'model_exclusive="true" model_min_duration="1"',
    ],
)
def test_on_an_annotated_video_a_prediction_says_what_was_drawn(
    settings: Settings, make_model: Any, red_blue: dict[str, Any], attributes: str
) -> None:
    """Labels that nothing in the picture tells, so that no model has learnt them."""
    model = make_model(config(f'model_trainable="true" {attributes}'))
    noise = annotation(1, *(region(start, start + 2, "Red") for start in range(3, 90, 9)))
    model.fit("ANNOTATION_CREATED", {}, tasks=[annotated(red_blue, noise)])
    stored_annotation(model, red_blue, noise)
    expected = convert_timelinelabels_to_probs(noise["result"], {"Red": 0, "Blue": 1}, 100)[0]
    np.testing.assert_array_equal(predicted(model, red_blue), expected)
    same_video = red_blue | {"id": 2}  # another task's annotations are its own
    assert (predicted(model, same_video) != expected).any()


def test_of_several_annotators_the_half_decides_where_they_looked(make_model: Any) -> None:
    model = make_model(config('model_trainable="true" model_reviewed_label="Seen"', ("Red", "Seen")))
    tag = control(model).tag
    first = annotation(1, region(1, 4, "Red"), region(1, 8, "Seen"))
    second = annotation(2, region(1, 2, "Red"), region(1, 6, "Seen"))
    probs, rows = recalled(tag, {"annotations": [first, second]}, np.full((10, 1), 0.3, np.float32))
    np.testing.assert_allclose(probs[:, 0], [1] * 4 + [0] * 4 + [0.3] * 2)
    assert rows.tolist() == [True] * 8 + [False] * 2


def test_a_training_of_many_reads_those_annotated_last_and_some_of_all(make_model: Any) -> None:
    model = control(make_model(config()))
    tasks = []
    for number, moment in enumerate(np.random.default_rng(0).permutation(2000)):
        made = annotation(number, region(1, 2, "Blue" if number == 7 else "Red")) | {"updated_at": f"{moment:05}"}
        tasks.append({"id": number, "annotations": [made]})
    chosen = choose_tasks(model.tag, tasks)
    assert len(chosen.tasks) <= 305
    newest = {task["id"] for task in tasks if task["annotations"][0]["updated_at"] >= "01925"}
    assert newest | {7} <= {task["id"] for task in chosen.tasks}
    assert sum(chosen.stands_for) == pytest.approx(2000, rel=0.1)


# -- the order of tasks


def test_what_resembles_nothing_annotated_teaches_most(settings: Settings, make_model: Any) -> None:
    """Three greys, of which one is annotated, three greens and a blue: what is alike isn't asked for twice in a row."""
    colours = {1: GREY, 2: GREY, 3: GREEN, 4: GREEN, 5: GREEN, 6: BLUE, 7: GREY}
    tasks = {number: task(settings, number, [colour] * (20 + number)) for number, colour in colours.items()}
    model = make_model(config())
    for one in tasks.values():
        model.extract(one)
    assert model.rank(list(tasks.values())) == []  # nothing is learnt yet
    model.fit("ANNOTATION_CREATED", {}, tasks=[annotated(tasks[1], annotation(1, region(1, 10, "Red")))])
    model.services.store.save_annotations("1", None, [(tasks[1], annotation(1))], "ANNOTATION_CREATED")
    checks = []
    ranked = model.rank([tasks[number] for number in range(2, 8)], Progress(checks.append))
    order = [one.task_id for one in ranked]
    assert {colours[number] for number in order[:2]} == {GREEN, BLUE}
    assert sorted(order) == [2, 3, 4, 5, 6, 7]
    assert checks
    clusters = {one.task_id: one.cluster for one in ranked}
    assert clusters[6] == 6
    assert {colours[clusters[number]] for number in (3, 4, 5)} == {GREEN}
    assert {colours[clusters[number]] for number in (2, 7)} == {GREY}


def test_the_order_is_of_what_can_be_read(settings: Settings, make_model: Any, red_blue: dict[str, Any]) -> None:
    model = make_model(config())
    model.fit("ANNOTATION_CREATED", {}, tasks=[annotated(red_blue, RED_BLUE)])
    others = [{"id": 8, "data": {}}, {"id": 9, "data": {"video": "missing.mp4"}}]
    assert [one.task_id for one in model.rank([*others, red_blue])] == [1]
    assert model.rank(others) == []
    assert make_model(config("", ("soccer_ball",))).rank([red_blue]) == []


# -- partly annotated videos

REVIEWED = 'model_trainable="true" model_reviewed_label="Reviewed"'


def test_frames_that_were_not_reviewed_count_for_nothing(settings: Settings, make_model: Any) -> None:
    # Blue is annotated where it was reviewed; the second half shows blue too, unannotated.
    colours = [GREY] * 20 + [BLUE] * 20 + [GREY] * 20 + [BLUE] * 30 + [GREY] * 10
    video = task(settings, 1, colours)
    regions = [region(21, 40, "Blue"), region(1, 60, "Reviewed")]
    text = config(REVIEWED, ("Blue", "Reviewed"))
    partly = make_model(text)
    metrics = partly.fit("ANNOTATION_CREATED", {}, tasks=[annotated(video, annotation(1, *regions))])["tl"]
    assert metrics["published"]
    score = metrics["score"]["frames"]
    assert set(score["per_label"]) == {"Blue"}
    assert score["per_label"]["Blue"]["support"] == 20
    assert score["macro_f1"] > 0.8  # of the reviewed half alone: on the whole video it would be at most 0.6
    found = predicted(partly, video, ("Blue",))[:, 0]
    assert found[62:88].mean() > 0.9
    assert found[:18].mean() < 0.1


def test_an_annotation_that_is_not_used_takes_no_weight_from_the_others(
    make_model: Any, red_blue: dict[str, Any]
) -> None:
    part = control(make_model(config(REVIEWED, ("Red", "Reviewed"))))
    part.extract(red_blue)
    red, seen = region(21, 40, "Red"), region(1, 100, "Reviewed")
    both = annotated(red_blue, annotation(1, red, seen), annotation(2, red))
    examples = read_examples(part.tag, part.videos, part.context.notes, [both]).examples
    assert [(example.annotation, example.weight) for example in examples] == [(1, 1.0)]


def test_the_reviewed_label_is_accepted_and_never_predicted(
    settings: Settings, make_model: Any, red_blue: dict[str, Any]
) -> None:
    text = config(REVIEWED, ("Red", "Reviewed", "Blue"))
    model = make_model(text)
    everything = annotation(1, *RED_BLUE["result"], region(1, 100, "Reviewed"))
    model.fit("ANNOTATION_CREATED", {}, tasks=[annotated(red_blue, everything)])
    regions = model.predict([red_blue]).predictions[0]["result"]
    assert {label for r in regions for label in r["value"]["timelinelabels"]} == {"Red", "Blue"}
    unreviewed = annotation(2, *RED_BLUE["result"])
    with pytest.raises(InvalidAnnotation, match="no annotation to train on"):
        make_model(text, project="2").fit("ANNOTATION_CREATED", {}, tasks=[annotated(red_blue, unreviewed)])


@pytest.mark.parametrize("labels", [("Red", "Blue"), ("Reviewed",)])
def test_a_reviewed_label_that_the_tag_does_not_have(make_model: Any, labels: tuple[str, ...]) -> None:
    with pytest.raises(InvalidConfig, match="model_reviewed_label"):
        make_model(config(REVIEWED, labels))


QUERY = 'model_trainable="true" model_reviewed_label="Reviewed" model_query_label="Check"'


def test_the_query_label_is_neither_learnt_nor_predicted(
    settings: Settings, make_model: Any, red_blue: dict[str, Any]
) -> None:
    """A question that was left where it stood counts for nothing, and what was answered isn't asked again."""
    text = config(QUERY, ("Red", "Blue", "Reviewed", "Check"))
    model = make_model(text)
    assert control(model).tag.labels == ["Red", "Blue"]
    regions = [*RED_BLUE["result"], region(1, 60, "Reviewed"), region(70, 90, "Check")]
    metrics = model.fit("ANNOTATION_CREATED", {}, tasks=[annotated(red_blue, annotation(1, *regions))])["tl"]
    assert metrics["num_frames"] == 60
    assert set(metrics["learnt"]) == {"Red", "Blue"}
    assert notes(model) == []
    other = make_model(config(QUERY.replace("Check", "Ask"), ("Red", "Blue", "Reviewed", "Ask")))
    assert not other.needs_training()  # the query label's name changes nothing of the model


def test_a_label_that_was_never_drawn_is_asked_for(settings: Settings, make_model: Any) -> None:
    """The first annotation shows nothing: of another video nothing is predicted, and nothing is certain."""
    videos = [task(settings, number, [GREY] * 100) for number in (1, 2)]
    model = make_model(config(QUERY, ("Red", "Reviewed", "Check")))
    nothing = annotation(1, region(1, 50, "Reviewed"))
    model.fit("ANNOTATION_CREATED", {}, tasks=[annotated(videos[0], nothing)])
    model.services.store.save_annotations("1", None, [(videos[0], nothing)], "ANNOTATION_CREATED")
    model.extract(videos[1])
    first, second = ([r["value"]["ranges"][0] for r in one["result"]] for one in model.predict(videos).predictions)
    assert len(second) == 1
    assert [one["start"] > 25 for one in first] == [True]  # most of it where it wasn't reviewed


@pytest.mark.parametrize(
    ("attributes", "labels", "fault"),
    [
        (QUERY, ("Red", "Reviewed"), '<Label value="Check"/>'),
        (QUERY, ("Reviewed", "Check"), "at least one to learn"),
        (QUERY.replace("Check", "Reviewed"), ("Red", "Reviewed"), "another label"),
        (QUERY.replace('model_reviewed_label="Reviewed"', ""), ("Red", "Check"), "model_reviewed_label"),
    ],
)
def test_a_query_label_that_can_not_work(make_model: Any, attributes: str, labels: tuple[str, ...], fault: str) -> None:
    with pytest.raises(InvalidConfig, match=f"model_query_label=.*{fault}|model_reviewed_label=.*{fault}"):
        make_model(config(attributes, labels))


# -- the documented interface


def test_create_and_predict_regions_of_a_file(settings: Settings, make_model: Any, red_blue: dict[str, Any]) -> None:
    model = make_model(config())
    model.fit("ANNOTATION_CREATED", {}, tasks=[annotated(red_blue, RED_BLUE)])
    created = TimelineLabelsModel.create(model, control(model).tag.control)
    regions = created.predict_regions(red_blue["data"]["video"])
    assert regions == model.predict([red_blue]).predictions[0]["result"]
    assert regions


def test_both_modes_of_one_encoder_read_a_video_once(
    settings: Settings, make_model: Any, red_blue: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    open_video = cache_module.open_video
    monkeypatch.setattr(cache_module, "open_video", lambda path: (opened.append(path), open_video(path))[1])
    text = (
        '<View><TimelineLabels name="a" toName="video" model_trainable="true"><Label value="Red"/></TimelineLabels>'
        '<TimelineLabels name="b" toName="video"><Label value="soccer_ball"/></TimelineLabels>'
        '<Video name="video" value="$video" frameRate="25"/></View>'
    )
    model = make_model(text)
    model.extract(red_blue)
    assert model.is_extracted(red_blue)
    assert len(opened) == 1
    trainable, simple = (control_model.videos.of_file(*opened) for control_model in model.control_models)
    assert (trainable.probs, simple.features, simple.motion) == (None, None, None)


def test_exclusive_labels_never_overlap_and_short_ones_are_dropped(settings: Settings, make_model: Any) -> None:
    attributes = 'model_trainable="true" model_exclusive="true" model_min_duration="0.4"'
    model = make_model(config(attributes))
    colours = [GREY] * 20 + [RED] * 30 + [BLUE] * 30 + [GREY] * 20
    first = annotated(task(settings, 1, colours), annotation(1, region(21, 50, "Red"), region(51, 80, "Blue")))
    model.fit("ANNOTATION_CREATED", {}, tasks=[first])
    flicker = [GREY] * 20 + [BLUE] * 30 + [RED] * 30 + [GREY] * 10 + [RED] * 4 + [GREY] * 6
    found = predicted(model, task(settings, 2, flicker))
    assert found.sum(axis=1).max() == 1
    runs = np.abs(np.diff(found > 0, axis=0, prepend=0)).sum(axis=0)
    assert runs.max() <= 2  # one event of each, the one of 4 frames is none
    assert found[25:45, 1].all()
    assert found[55:75, 0].all()
