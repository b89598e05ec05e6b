"""Train the classifier of whichever tree of this project is first on PYTHONPATH, and write what it gives.

    python other_tree.py predict DATA.npz PREDICTIONS.npz --counts 1 3 5 --seed 0
    python other_tree.py time DATA.npz

The benchmarks run it in a process of its own, once for this tree and once for an earlier one. Nothing but
`MultiLabelLSTM(input_size, output_size)`, `partial_fit` and `predict` is expected of the tree. DATA.npz holds
features-0, features-1 … [num_frames, input_size] and labels-0, labels-1 … [num_frames, num_labels].
"""

import argparse
import inspect
import json
import time
from pathlib import Path

import numpy as np
import torch

from utils.neural_nets import MultiLabelLSTM


def new_classifier(input_size: int, output_size: int, layout: dict[str, int], seed: int) -> MultiLabelLSTM:
    """A classifier that is told what it can be told: earlier trees know motion behind features, or not even that."""
    wanted = {"layout": layout, "motion_size": layout.get("motion", 0), "seed": seed}
    known = inspect.signature(MultiLabelLSTM).parameters
    return MultiLabelLSTM(input_size, output_size, **{name: wanted[name] for name in wanted if name in known})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("predict", "time"))
    parser.add_argument("data", type=Path)
    parser.add_argument("predictions", type=Path, nargs="?")
    parser.add_argument("--counts", type=int, nargs="+", help="train on the first so many videos, predict all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--layout", type=json.loads, default={}, help="JSON: a row's blocks and their widths")
    arguments = parser.parse_args()
    with np.load(arguments.data) as data:
        videos = [data[f"features-{number}"] for number in range(len(data.files) // 2)]
        labels = [data[f"labels-{number}"] for number in range(len(videos))]

    def trained(count: int) -> MultiLabelLSTM:
        model = new_classifier(videos[0].shape[1], labels[0].shape[1], arguments.layout, arguments.seed)
        model.partial_fit(videos[:count], labels[:count])
        return model

    if arguments.action == "time":
        started = time.monotonic()
        trained(len(videos))
        print(json.dumps({"seconds": time.monotonic() - started}))
        return
    torch.set_num_threads(1)  # the processes beside this one have the other cores
    predictions = {}
    for count in arguments.counts:
        model = trained(count)
        predictions |= {f"{count}-{number}": model.predict(video) for number, video in enumerate(videos)}
    np.savez(arguments.predictions, **predictions)


if __name__ == "__main__":
    main()
