"""From probabilities to labels, as the attributes of a tag want them; and a classifier that learnt exclusive labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from errors import InvalidConfig
from tests.colours import timeline_tag
from utils.neural_nets import MultiLabelLSTM


def decide(probs: np.ndarray, frame_rate: float, classifier: MultiLabelLSTM | None = None, **attributes: str) -> Any:
    attributes["model_trainable"] = "false" if classifier is None else "true"
    return timeline_tag(" ".join(f'{name}="{value}"' for name, value in attributes.items())).decide(
        probs, frame_rate, classifier
    )


def column(text: str) -> np.ndarray:
    """[num_frames, 1] probabilities: 0.9 for "x", 0.1 for "."."""
    return np.array([[0.9 if letter == "x" else 0.1] for letter in text])


def shown(labels: np.ndarray) -> str:
    return "".join(".x"[int(row[0])] for row in labels)


@pytest.mark.parametrize("frame_rate", [10, 20])
def test_gaps_and_durations_are_seconds(frame_rate: int) -> None:
    probs = column("..xx..xx...x......xxx..").repeat(frame_rate // 10, axis=0)
    found = decide(probs, frame_rate, model_merge_gap="0.2", model_min_duration="0.3")
    assert shown(found[:: frame_rate // 10]) == "..xxxxxx..........xxx.."


@pytest.mark.parametrize(("seconds", "frame_rate", "frames"), [("0.28", 25, 7), ("2.28", 25, 57), ("1.1", 10, 11)])
def test_an_event_or_a_gap_of_exactly_that_length_counts(seconds: str, frame_rate: int, frames: int) -> None:
    """Their products in floating point lie a little above or below the whole number."""
    event = f".{'x' * frames}."
    assert shown(decide(column(event), frame_rate, model_min_duration=seconds)) == event
    gap = f"x{'.' * frames}x"
    assert shown(decide(column(gap), frame_rate, model_merge_gap=seconds)) == "x" * (frames + 2)


def test_exclusive_labels_stay_exclusive_where_gaps_are_merged() -> None:
    probs = np.hstack([column("x.x...x....."), column("....x.....x.")])
    found = decide(probs, 10, model_exclusive="true", model_merge_gap="0.5")
    assert [shown(found), shown(found[:, 1:])] == ["xxx...x.....", "....x.....x."]


def test_in_simple_mode_the_most_probable_label_wins() -> None:
    probs = np.array([[0.9, 0.8], [0.6, 0.7], [0.3, 0.4], [0.0, 0.9]])
    found = decide(probs, 25, model_exclusive="true")
    assert found.astype(int).tolist() == [[1, 0], [0, 1], [0, 0], [0, 1]]
    assert decide(probs, 25)[0].tolist() == [True, True]


def test_a_classifier_decodes_what_follows_what(tmp_path: Path) -> None:
    """Three steps that follow each other, of features that say the first and the last, and the middle one faintly."""
    rng = np.random.default_rng(0)
    labels = np.zeros((240, 3), np.float32)
    for step in range(3):
        labels[40 + 50 * step : 90 + 50 * step, step] = 1
    sequences = [np.where(labels > 0, 1, -1) @ rng.normal(size=(3, 16)) for _ in range(1)] * 4
    sequences = [sequence + rng.normal(scale=1.5, size=sequence.shape) for sequence in sequences]
    classifier = MultiLabelLSTM(input_size=16, output_size=3)
    classifier.partial_fit(sequences, [labels] * 4)
    classifier.save(tmp_path / "c.safetensors")
    loaded = MultiLabelLSTM.load(tmp_path / "c.safetensors")
    assert loaded.decisions.transitions[1, 2] > 0.7
    probs = loaded.predict(sequences[0])
    found = decide(probs, 25, loaded, model_exclusive="true")
    assert found.sum(axis=1).max() == 1
    assert np.abs(np.diff(found.astype(int), axis=0)).sum() == 6  # three events, one after the other
    assert (found == (labels > 0)).all(axis=1).mean() > 0.9


@pytest.mark.parametrize("attribute", ["model_min_duration", "model_merge_gap"])
@pytest.mark.parametrize("value", ["-1", "inf", "nan", "soon"])
def test_durations_that_are_none_are_refused(attribute: str, value: str) -> None:
    with pytest.raises(InvalidConfig, match=attribute):
        timeline_tag(f'{attribute}="{value}"')
