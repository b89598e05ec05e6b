"""Decode exclusive labels, at most one in a frame, with durations and transitions learnt from annotations.

A hidden Markov model whose states are the labels and "none of them". Its emissions are the calibrated probabilities,
its transitions are counted in the annotated videos, and how long a state lasts is the mean of its annotated durations
(geometric durations). The best path is Viterbi's (Rabiner, "A Tutorial on Hidden Markov Models", Proc. IEEE 77, 1989).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from learning.events import segments

PSEUDO_COUNT = 0.5  # of each transition (Krichevsky and Trofimov 1981), so that unseen ones stay possible
LEAST_PROBABILITY = 1e-4  # bounds probabilities, so that one frame can't outweigh a minute of others
NO_DURATION = 5.0  # seconds of a state that no annotation shows from beginning to end


class StateModel(NamedTuple):
    """Durations and transitions of annotated states. State 0 is "no label", state k + 1 is label k.

    Attributes:
        transitions: [num_states, num_states], probability of the next state where a state ends; the diagonal is 0.
        durations: [num_states], mean seconds.
        shares: [num_states], of all annotated frames.
    """

    transitions: np.ndarray
    durations: np.ndarray
    shares: np.ndarray


def states_of(labels: np.ndarray) -> np.ndarray:
    """Each frame's state, [num_frames] int. Of several labels in a frame, it is the one that began last."""
    num_frames, num_labels = labels.shape
    states = np.zeros(num_frames, np.int64)
    runs = [(start, end, label) for label in range(num_labels) for start, end in segments(labels[:, label] > 0)]
    for start, end, label in sorted(runs):
        states[start:end] = label + 1
    return states


def learn_states(
    labels: Sequence[np.ndarray], masks: Sequence[np.ndarray], weights: Sequence[float], frame_rates: Sequence[float]
) -> StateModel:
    """Count states' durations, transitions and shares in annotations.

    Args:
        labels: {0, 1}, [num_frames, num_labels] of each annotation.
        masks: [num_frames] bool of each: the frames that were annotated. Nothing is counted across others.
        weights: a positive number for each.
        frame_rates: labeling frames a second, of each.
    """
    num_states = labels[0].shape[1] + 1
    counts = np.full((num_states, num_states), PSEUDO_COUNT)
    seconds, occurrences, frames = np.zeros(num_states), np.zeros(num_states), np.full(num_states, PSEUDO_COUNT)
    for target, mask, weight, frame_rate in zip(labels, masks, weights, frame_rates, strict=True):
        states = states_of(target)
        for first, last in segments(mask):
            runs = states[first:last]
            starts = np.concatenate([[0], np.flatnonzero(np.diff(runs)) + 1])
            lengths = np.diff(np.append(starts, len(runs)))
            of_run = runs[starts]
            np.add.at(seconds, of_run, weight * lengths / frame_rate)
            np.add.at(occurrences, of_run, weight)
            np.add.at(frames, of_run, weight * lengths)
            np.add.at(counts, (of_run[:-1], of_run[1:]), weight)
    np.fill_diagonal(counts, 0)
    durations = np.where(occurrences > 0, seconds / np.maximum(occurrences, PSEUDO_COUNT / 1e6), NO_DURATION)
    return StateModel(counts / counts.sum(axis=1, keepdims=True), durations, frames / frames.sum())


def decode(probs: np.ndarray, model: StateModel, frame_rate: float) -> np.ndarray:
    """Finds the most probable course of exclusive labels, [num_frames, num_labels] bool, at most one in a frame.

    Args:
        probs: [num_frames, num_labels], calibrated, each label's by itself.
        model: of `learn_states`.
        frame_rate: labeling frames a second.
    """
    num_frames, num_labels = probs.shape
    if not num_frames:
        return np.zeros((0, num_labels), bool)
    emissions = _emissions(probs, model)
    stay = 1 - 1 / np.maximum(model.durations * frame_rate, 2.0)
    log_transitions = np.log(np.maximum(model.transitions, 1e-12) * (1 - stay)[:, None])
    np.fill_diagonal(log_transitions, np.log(stay))
    incoming = log_transitions.T.copy()  # [to, from]
    came_from = np.empty((num_frames, num_labels + 1), np.int16)
    best = np.log(model.shares) + emissions[0]
    rows = np.arange(num_labels + 1)
    for frame in range(1, num_frames):
        scores = incoming + best
        previous = scores.argmax(axis=1)
        came_from[frame] = previous
        best = scores[rows, previous] + emissions[frame]
    path = np.empty(num_frames, np.int64)
    path[-1] = best.argmax()
    for frame in range(num_frames - 1, 0, -1):
        path[frame - 1] = came_from[frame, path[frame]]
    return path[:, None] == np.arange(1, num_labels + 1)


def _emissions(probs: np.ndarray, model: StateModel) -> np.ndarray:
    """The log likelihood of each state up to a constant of each frame, [num_frames, num_states].

    Labels that exclude each other have the odds of each against "no label"; divided by a state's share of the
    annotated frames, its posterior probability is its likelihood (Bourlard and Morgan 1994).
    """
    clipped = np.clip(probs.astype(np.float64), LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)
    odds = np.concatenate([np.ones((len(probs), 1)), clipped / (1 - clipped)], axis=1)
    return np.log(odds / odds.sum(axis=1, keepdims=True)) - np.log(model.shares)
