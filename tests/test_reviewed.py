"""The labels that say what was reviewed and what is asked."""

from __future__ import annotations

from typing import Any

import pytest

from control_models.examples import read_examples
from errors import InvalidAnnotation, InvalidConfig
from ml_backend.dashboard import timelines
from ml_backend.settings import Settings
from tests.colours import BLUE, GREY, RED_BLUE, annotated, config, control, notes, predicted, task
from tests.servers import annotation, region

REVIEWED = 'model_trainable="true" model_reviewed_label="Reviewed"'
QUERY = f'{REVIEWED} model_query_label="Check"'


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


def test_what_was_reviewed_since_is_a_test(make_model: Any, red_blue: dict[str, Any]) -> None:
    """A project may have one long video, of which more and more is annotated."""
    model = make_model(config(REVIEWED, ("Red", "Blue", "Reviewed")))

    def tested(last: int) -> Any:
        drawn = [r for r in RED_BLUE["result"] if r["value"]["ranges"][0]["end"] <= last]
        task = annotated(red_blue, annotation(1, *drawn, region(1, last, "Reviewed")))
        return model.fit("ANNOTATION_UPDATED", {}, tasks=[task])["tl"]["prequential"]

    assert tested(45) is None
    assert tested(50) is None  # too little to count
    test = tested(100)
    assert test["videos"] == 1
    supports = {label: score["support"] for label, score in test["frames"]["per_label"].items()}
    assert supports == {"Red": 0, "Blue": 20}
    assert tested(100) is None


def test_a_page_compares_the_reviewed_frames_with_what_the_model_says_itself(
    make_model: Any, red_blue: dict[str, Any]
) -> None:
    """The blue event wasn't reviewed: its prediction is no error. The annotator forgot the red one: that is."""
    model = make_model(config(REVIEWED, ("Red", "Blue", "Reviewed")))
    everything = annotation(1, *RED_BLUE["result"], region(1, 100, "Reviewed"))
    model.fit("ANNOTATION_CREATED", {}, tasks=[annotated(red_blue, everything)])
    forgotten = annotation(1, region(1, 50, "Reviewed"))
    model.services.store.save_annotations("1", None, [(red_blue, forgotten)], "ANNOTATION_UPDATED")
    (recalled,) = model.tracks(red_blue)
    drawn = recalled.annotated(forgotten["result"], "annotation 1", 1)
    assert timelines.agreement(recalled, drawn) == 1
    (track,) = model.tracks(red_blue, recall=False)
    (found,) = timelines.disagreements(track, drawn)
    assert "Red: predicted, not annotated" in found.text
    assert timelines.agreement(track, drawn) == pytest.approx(1 - 20 / 100, abs=0.06)
    assert timelines.agreement(track, track.annotated([], "annotation 2", 1)) is None


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


def test_an_annotation_that_is_not_used_takes_no_weight_from_the_others(
    make_model: Any, red_blue: dict[str, Any]
) -> None:
    part = control(make_model(config(REVIEWED, ("Red", "Reviewed"))))
    part.extract(red_blue)
    red, seen = region(21, 40, "Red"), region(1, 100, "Reviewed")
    both = annotated(red_blue, annotation(1, red, seen), annotation(2, red))
    examples = read_examples(part.tag, part.videos, part.context.notes, [both]).examples
    assert [(example.annotation, example.weight) for example in examples] == [(1, 1.0)]
