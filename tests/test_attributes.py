"""The attributes of the tag: what is allowed, and what a wrong one is told."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from errors import EncoderError, InvalidConfig
from ml_backend.settings import Settings
from tests.checkpoints import save_classifier
from tests.colours import BLUE, GREY, RED, annotated, config, control, predicted, task
from tests.servers import annotation, region


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


def test_an_attribute_without_a_value_is_none(make_model: Any) -> None:
    assert control(make_model(config('model_trainable="true" model_score_threshold=""'))).tag.threshold is None
