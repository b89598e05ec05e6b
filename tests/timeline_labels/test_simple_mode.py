"""Simple mode on real videos: predictions by the encoder's own classes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from errors import InvalidConfig
from features import cache as cache_module
from features.checkpoints import import_ultralytics
from ml_backend.settings import Settings
from tests.checkpoints import save_classifier
from tests.timeline_labels.colours import BLUE, GREEN, GREY, RED, config, control, task


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


def test_labels_may_share_a_class(make_model: Any) -> None:
    tags = '<Label value="Pet" predicted_values="tabby,beagle,tabby"/><Label value="Dog" predicted_values="beagle"/>'
    classes = control(
        make_model(config("").replace('<Label value="Red"/><Label value="Blue"/>', tags))
    ).mode.class_columns
    assert (len(classes["Pet"]), len(classes["Dog"])) == (2, 1)
    assert set(classes["Dog"]) < set(classes["Pet"])
