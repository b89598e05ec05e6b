"""`TimelineLabelsModel` on real videos and encoders: simple mode, and what is learnt from annotations and predicted."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from control_models import timeline_tag
from control_models.examples import choose_tasks, recalled
from control_models.timeline_labels import TimelineLabelsModel
from control_models.trained import EXTRACTING_SHARE, LOADING_SHARE, TESTING_SHARE
from errors import InvalidConfig, InvalidTask, MediaError, NotReady
from features import cache as cache_module
from features.checkpoints import import_ultralytics
from learning import probe
from learning.metrics import count_frames, macro_f1
from ml_backend.settings import Settings
from model import YOLO
from progress import Progress
from tests.checkpoints import save_classifier, write_timm_weights
from tests.colours import BLUE, GREEN, GREY, RED, RED_BLUE, annotated, config, control, notes, predicted, task
from tests.http_server import Server, whole_file
from tests.servers import annotation, region
from tests.videos import write_video
from utils.converter import convert_timelinelabels_to_probs
from utils.neural_nets import MultiLabelLSTM


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


def test_simple_mode_version_follows_what_predictions_depend_on(make_model: Any) -> None:
    labels = ("soccer_ball",)
    version = make_model(config("", labels)).model_version
    assert make_model(config("", labels), project="2").model_version == version
    assert make_model(config('score_threshold="0.2"', labels)).model_version != version
    assert "efficientnet-lite0" in version


def test_both_modes_of_one_encoder_read_a_video_once(
    settings: Settings, make_model: Any, red_blue: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    open_video = cache_module.open_video
    monkeypatch.setattr(cache_module, "open_video", lambda path, device: (opened.append(path), open_video(path))[1])
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


def test_labels_may_share_a_class(make_model: Any) -> None:
    tags = '<Label value="Pet" predicted_values="tabby,beagle,tabby"/><Label value="Dog" predicted_values="beagle"/>'
    classes = control(
        make_model(config("").replace('<Label value="Red"/><Label value="Blue"/>', tags))
    ).mode.class_columns
    assert (len(classes["Pet"]), len(classes["Dog"])) == (2, 1)
    assert set(classes["Dog"]) < set(classes["Pet"])


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


def test_a_training_can_be_ended_while_it_extracts_features(make_model: Any, red_blue: dict[str, Any]) -> None:
    def stop(share: float) -> None:
        if 0 < share < EXTRACTING_SHARE:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        make_model(config()).fit("", {}, tasks=[annotated(red_blue, RED_BLUE)], progress=Progress(stop))


def test_a_training_can_be_ended_while_the_present_model_is_tested(
    lesson: Any, red_blue: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new video may last for days: to predict it takes minutes."""
    model = lesson("Red", "Blue")

    def stop(share: float) -> None:
        if LOADING_SHARE < share < LOADING_SHARE + (1 - LOADING_SHARE) * TESTING_SHARE:
            raise InterruptedError

    new = annotated({"id": 2, "data": red_blue["data"] | {"copy": 2}}, RED_BLUE)
    monkeypatch.setattr(probe, "READ", 10)  # frames of a piece
    with pytest.raises(InterruptedError):
        model.fit("", {}, tasks=[annotated(red_blue, RED_BLUE), new], progress=Progress(stop))


def test_a_trainings_progress_goes_by_what_must_be_extracted_and_by_all_tags(
    make_model: Any, red_blue: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An hour's video takes minutes to extract, and a second to learn: the time left is told from the progress."""
    shares: list[float] = []
    begun: list[float] = []
    learn = MultiLabelLSTM.fit

    def note(*args: Any, **options: Any) -> Any:
        begun.append(shares[-1])
        return learn(*args, **options)

    monkeypatch.setattr(MultiLabelLSTM, "fit", note)
    tag = '<TimelineLabels name="tl" toName="video" model_trainable="true"><Label value="Red"/></TimelineLabels>'
    two = f'<View>{tag}{tag.replace("tl", "other")}<Video name="video" value="$video" frameRate="25"/></View>'
    tasks = [annotated(red_blue, annotation(1, region(21, 40, "Red"), region(21, 40, "Red", from_name="other")))]
    make_model(two).fit("", {}, tasks=tasks, progress=Progress(shares.append))
    assert begun == pytest.approx([EXTRACTING_SHARE / 2, (1 + LOADING_SHARE) / 2])
    assert shares == sorted(shares)
    assert shares[-1] == 1


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


def test_what_a_training_no_longer_says_is_gone(make_model: Any, red_blue: dict[str, Any]) -> None:
    """The label came back into the config, and the file into its folder; what another tag's model says stays."""
    path = Path(red_blue["data"]["video"])
    absent = annotated({"id": 2, "data": {"video": str(path.with_name("absent.mp4"))}}, RED_BLUE)
    wrong = annotation(1, *RED_BLUE["result"], region(1, 5, "Gone", from_name="other"))
    tag = '<TimelineLabels name="tl" toName="video" model_trainable="true"><Label value="Red"/>%s</TimelineLabels>'
    both = f'<View>{tag}{tag.replace("tl", "other")}<Video name="video" value="$video" frameRate="25"/></View>'
    tasks = [annotated(red_blue, wrong), absent]
    model = make_model(both % ("", ""))
    model.fit("", {}, tasks=tasks)
    assert {(task, text.partition(":")[0]) for task, text in notes(model)} == {
        (1, "Annotation 1 is used without 'Blue'"),
        (1, "Annotation 1 is used without 'Gone'"),
        (2, "Left out of the training"),
    }
    shutil.copy(path, path.with_name("absent.mp4"))
    model = make_model(both % ('<Label value="Blue"/>', ""))
    model.fit("", {}, tasks=tasks)
    assert notes(model) == [(1, "Annotation 1 is used without 'Gone': the labeling config has no such label.")]
    store = model.services.store
    store.save_annotations("1", None, [(red_blue, wrong)], "ANNOTATION_CREATED")
    model.fit("", {}, tasks=tasks)
    store.delete_annotations("1", [1])
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


@pytest.mark.parametrize("name", ["タイムラインラベルの名前はとても長い", "x" * 230])
def test_a_tag_of_a_long_name_is_trained(make_model: Any, red_blue: dict[str, Any], name: str) -> None:
    model = make_model(config().replace('name="tl"', f'name="{name}"'))
    drawn = annotation(1, region(21, 40, "Red", from_name=name))
    assert model.fit("ANNOTATION_CREATED", {}, tasks=[annotated(red_blue, drawn)])[name]["published"]
    assert model.predict([red_blue]).predictions[0]["result"]


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


@pytest.mark.parametrize("video", ["/data/upload/1/clip.mp4", "/data/local-files/?d=a/clip.mp4"])
def test_a_downloaded_video_that_can_not_be_read_is_named_as_in_the_task(
    settings: Settings, make_model: Any, server: Server, video: str
) -> None:
    server.answers[video.partition("?")[0]] = whole_file(b"no video" * 1000)
    model = make_model(config(), label_studio_url=server.url)
    with pytest.raises(MediaError, match=r"clip\.mp4") as error:
        model.extract({"id": 3, "data": {"video": video}})
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
    cases = control(make_model(config(rate="$fps"))).mode.held_out(tasks, [{25}, {50}]).cases
    assert [(one.task_id, one.frame_rate, len(one.labels)) for one, *_ in cases] == [(25, 25, 55), (50, 50, 110)]


def test_a_timm_model_of_own_weights_learns_and_predicts(settings: Settings, make_model: Any) -> None:
    write_timm_weights(settings.model_root, "resnet10t.c3_in1k")
    model = make_model(config('model_trainable="true" model_path="timm/resnet10t.c3_in1k"'))
    video = task(settings, 1, [GREY] * 20 + [RED] * 20 + [GREY] * 20 + [BLUE] * 20 + [GREY] * 20)
    other = task(settings, 2, [RED] * 30 + [GREY] * 40 + [BLUE] * 30)
    model.fit("ANNOTATION_CREATED", {}, tasks=[annotated(video, RED_BLUE)])
    assert model.model_version.startswith("resnet10t.c3_in1k-v1")
    truth = np.zeros((100, 2))
    truth[:30, 0] = truth[70:, 1] = 1
    assert macro_f1(count_frames(truth > 0, predicted(model, other) > 0)) > 0.8


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


def test_create_and_predict_regions_of_a_file(settings: Settings, make_model: Any, red_blue: dict[str, Any]) -> None:
    model = make_model(config())
    model.fit("ANNOTATION_CREATED", {}, tasks=[annotated(red_blue, RED_BLUE)])
    created = TimelineLabelsModel.create(model, control(model).tag.control)
    regions = created.predict_regions(red_blue["data"]["video"])
    assert regions == model.predict([red_blue]).predictions[0]["result"]
    assert regions


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
