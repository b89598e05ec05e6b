"""Labels that exclude each other, at most one in a frame: what follows what, and the best course.

A frame is in one of several states: state 0 is "no label", state k + 1 is label k.
"""

import numpy as np

from learning.dataset import Dataset
from learning.events import segments

PSEUDO_COUNT = 0.5  # of each transition (Krichevsky and Trofimov 1981), so that unseen ones stay possible


def states_of(labels: np.ndarray) -> np.ndarray:
    """Each frame's state, [num_frames] int. Of several labels in a frame, it is the one that began last."""
    num_frames, num_labels = labels.shape
    states = np.zeros(num_frames, np.int64)
    runs = [(start, end, label) for label in range(num_labels) for start, end in segments(labels[:, label] > 0)]
    for start, end, label in sorted(runs):
        states[start:end] = label + 1
    return states


def learn_transitions(data: Dataset) -> np.ndarray:
    """The probability of each next state where a state ends, [num_states, num_states]; the diagonal is 0. Nothing is
    counted across frames that weren't annotated."""
    counts = np.full((data.num_labels + 1, data.num_labels + 1), PSEUDO_COUNT)
    for example in data.examples:
        for run in example.annotated(states_of(example.labels)):
            ends = np.flatnonzero(np.diff(run))
            np.add.at(counts, (run[ends], run[ends + 1]), example.weight)
    np.fill_diagonal(counts, 0)
    return counts / counts.sum(axis=1, keepdims=True)


def best_states(gains: np.ndarray, costs: np.ndarray) -> np.ndarray:
    """The states with the largest sum of gains less costs (Viterbi), of several chains, [num_frames, num_chains] int.

    Args:
        gains: [num_frames, num_chains, num_states], of each state in each frame.
        costs: [num_chains, num_states, num_states], of a change from one to the other; 0 on the diagonal.
    """
    num_frames, num_chains, _ = gains.shape
    best, came_from = np.zeros(costs.shape[:2]), np.empty(gains.shape, np.int16)
    for frame, gain in enumerate(gains):
        reached = best[:, :, None] - costs
        came_from[frame] = reached.argmax(axis=1)
        best = reached.max(axis=1) + gain
    chains, states = np.arange(num_chains), np.empty((num_frames, num_chains), np.int16)
    state = best.argmax(axis=1)
    for frame in reversed(range(num_frames)):
        states[frame] = state
        state = came_from[frame, chains, state]
    return states
