"""How often a learning curve's outlook is right: how many videos the first tests say that a score takes, and how many
it took.

    python -m benchmarks.outlook --footage CLIPS --orders 10
    python -m benchmarks.outlook --scenario motion

Each order of annotation is played as a project is: predict the next video, then learn it. The score that is asked for
is the mean one of all orders at the last test, so the true number of videos is known. Each order's first tests alone
say what they expect.
"""

import argparse
from pathlib import Path

import numpy as np

from benchmarks.learners import Ours
from benchmarks.projects import FOOTAGE, project
from benchmarks.videos.scenarios import SCENARIOS
from learning.forecast import MIN_TESTS, videos_for
from learning.metrics import count_frames, macro_f1


def curve(name: str, order: int, footage: Path | None) -> list[float]:
    """The macro-F1 by frame of each video from the second on, by a model of those before it; in a random order."""
    data = project(name, 0, footage)
    if data.num_annotated:
        data = data._replace(examples=data.examples[: data.num_annotated])
    shuffled = np.random.default_rng(order).permutation(len(data.examples))
    data = data._replace(examples=[data.examples[index] for index in shuffled])
    student, scores = Ours(data, order), []
    for count in range(1, len(data.examples)):
        student.annotate(count)
        tested = data.examples[count]
        found = student.rules["ours"](student.probabilities(tested))
        scores.append(macro_f1(count_frames(tested.labels, found)))
    return scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--footage", type=Path, help="folder of real clips, each with a .json of its labels")
    parser.add_argument("--scenario", choices=SCENARIOS, help="drawn videos")
    parser.add_argument("--orders", type=int, default=10)
    parser.add_argument("--tests", type=int, default=MIN_TESTS + 2, help="the first so many are known")
    arguments = parser.parse_args()
    name = arguments.scenario or FOOTAGE
    curves = []
    for order in range(arguments.orders):
        curves.append(curve(name, order, arguments.footage))
        print(f"{name} {order}:", " ".join(f"{score:.2f}" for score in curves[-1]), flush=True)
    # The mean curve, as a power law: single tests differ too much to read a score off.
    mean, counts = np.mean(curves, axis=0), np.arange(1, len(curves[0]) + 1)
    slope, height = np.polyfit(np.log(counts), np.log(np.maximum(1 - mean, 1e-3)), 1)
    goal = 1 - float(np.exp(height + slope * np.log(counts[-1])))
    found = [videos_for(goal, counts[: arguments.tests], scores[: arguments.tests]) for scores in curves]
    held = [one.low <= counts[-1] <= one.high for one in found]
    print("mean", " ".join(f"{score:.2f}" for score in mean))
    print(
        f"F1 {goal:.2f} takes {counts[-1]} videos; of the first {arguments.tests} tests' intervals "
        f"{sum(held)} of {len(held)} hold that; bounded: {sum(np.isfinite(one.high) for one in found)}"
    )
    print("estimates", " ".join(f"{one.videos:.0f} ({one.low:.0f} to {one.high:.0f})" for one in found))


if __name__ == "__main__":
    main()
