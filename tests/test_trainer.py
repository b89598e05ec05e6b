"""Training, scoring and cross-validation of a control tag's classifier, on features without videos."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from control_models.trainer import Trainer
from learning.dataset import Example
from learning.evaluation import Case, score_cases
from progress import Progress
from tests.colours import timeline_tag

FEATURES = 16


def example(task_id: int, seed: int, mask: np.ndarray | None = None, thing: float = 1.0) -> Example:
    """A scene of its own, to which the label adds one direction for a third of the time."""
    random = np.random.default_rng(seed)
    labels = np.zeros((90, 1), np.float32)
    start = random.integers(60)
    labels[start : start + 30] = 1
    features = random.normal(size=FEATURES) + thing * labels * np.random.default_rng(99).normal(size=FEATURES)
    features = features + 0.2 * random.normal(size=(90, FEATURES))
    return Example(task_id, features.astype(np.float32), labels, 1.0, mask)


def chance(task_id: int, seed: int) -> Example:
    """Noise, with labels that are noise."""
    random = np.random.default_rng(seed)
    labels = np.repeat(random.random(30) < 0.5, 10).astype(np.float32)[:, None]
    return Example(task_id, random.normal(size=(300, FEATURES)).astype(np.float32), labels)


@pytest.fixture
def trainer() -> Trainer:
    return Trainer(timeline_tag(labels=("On",)))


def test_partly_reviewed_videos_are_learnt_and_published(trainer: Trainer) -> None:
    """Also where whole windows of frames, and one of the videos, were left out."""
    half, nothing = np.arange(90) < 45, np.zeros(90, bool)
    examples = [example(1, 1, half), example(2, 2, half), example(3, 3, nothing)]
    classifier, metrics, reason = trainer.candidate(examples, None)
    assert reason is None
    assert np.isfinite(metrics["loss"])
    assert np.isfinite(classifier.predict(example(9, 50).features)).all()


def test_a_model_that_is_not_a_number_is_never_published(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    fit = type(trainer)._train

    def broken(self: Trainer, classifier: Any, *rest: Any) -> dict[str, Any]:
        metrics = fit(self, classifier, *rest)
        classifier.offset.fill_(float("nan"))
        return metrics | {"loss": float("nan")}

    monkeypatch.setattr(Trainer, "_train", broken)
    _, metrics, reason = trainer.candidate([example(1, 1), example(2, 2)], None)
    assert reason is not None
    assert metrics["loss"] is None


def test_chance_is_not_found_where_every_video_is_there_twice(trainer: Trainer) -> None:
    examples = [chance(task_id, seed=task_id % 4) for task_id in range(1, 9)]
    cases = trainer.held_out(examples, [{task_id} for task_id in range(1, 9)])
    assert len(cases) == 8
    assert score_cases(cases, ["On"])["frames"]["macro_f1"] < 0.75  # 0.67 is all frames with the label


def test_a_video_that_is_there_twice_leaves_nothing_to_train_on(trainer: Trainer) -> None:
    with pytest.raises(ValueError, match="no other annotated video is left"):
        trainer.held_out([chance(1, seed=0), chance(2, seed=0)], [{1}])


def test_what_was_not_reviewed_is_not_scored() -> None:
    truth = np.zeros((20, 1), bool)
    truth[:5] = True
    predicted = truth.copy()
    predicted[10:] = True  # where nobody looked
    reviewed = np.arange(20) < 10
    case = Case(Example(1, truth, truth, reviewed=reviewed), predicted.astype(np.float32), predicted)
    for kind in ("frames", "segments"):
        assert score_cases([case], ["On"])[kind]["macro_f1"] == 1.0


def test_progress_moves_through_scoring_the_rival_training_and_scoring(trainer: Trainer) -> None:
    examples = [example(task_id, task_id) for task_id in range(1, 5)]
    rival, _, _ = trainer.candidate(examples, None)
    shares: list[float] = []
    trainer.candidate(examples, rival, Progress(shares.append))
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert sum(share <= 0.1 for share in shares) >= len(examples)
    assert sum(share > 0.8 for share in shares) >= len(examples)
