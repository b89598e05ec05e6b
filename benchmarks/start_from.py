"""What `model_start_from` brings: macro-F1 on never-seen clips, with and without another project's model.

    python -m benchmarks.start_from FOLDER …        # footage: clips, each with a .json of its labels

Data: real clips. Half of them are the other project; of the others the first one, two or three are annotated, and the
rest never seen.
Rule: the same training alone, started from the other project's model, and started from one that misleads: trained on
the same clips with their labels moved by half of the clip. Mean over shuffles.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.fewshot import SHUFFLES, pooled
from benchmarks.projects import FOOTAGE, Example, Project, project
from learning.metrics import count_frames, macro_f1
from utils.neural_nets import MultiLabelLSTM

COUNTS = (1, 2, 3)


def trained(
    data: Project, examples: list[Example], start_from: MultiLabelLSTM | None, moved: bool = False
) -> MultiLabelLSTM:
    """A classifier of some of a project's clips."""
    layout = examples[0].sequence.layout
    classifier = MultiLabelLSTM(sum(layout.values()), len(data.labels), layout=layout)
    classifier.set_label_map({label: column for column, label in enumerate(data.labels)})
    annotated = [example.annotated(number) for number, example in enumerate(examples)]
    if moved:
        annotated = [replace(one, labels=np.roll(one.labels, len(one.labels) // 2, axis=0)) for one in annotated]
    classifier.fit(annotated, start_from)
    return classifier


def score(data: Project, unseen: list[Example], classifier: MultiLabelLSTM) -> float:
    """Macro-F1 over the frames of the clips that weren't seen."""
    truth, probs = pooled(unseen, [classifier.predict(example.ours, example.frame_rate) for example in unseen])
    return macro_f1(count_frames(truth, probs >= classifier.decisions.thresholds.numpy()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("footage", type=Path, nargs="+")
    parser.add_argument("--shuffles", nargs="+", type=int, default=SHUFFLES)
    arguments = parser.parse_args()
    print("| | annotated | alone | started | started, misleading |\n| --- | --- | --- | --- | --- |")
    for folder in arguments.footage:
        scores: dict[int, list[tuple[float, float, float]]] = {count: [] for count in COUNTS}
        for shuffle in arguments.shuffles:
            data = project(FOOTAGE, shuffle, folder)
            half = len(data.examples) // 2
            theirs, own = data.examples[:half], data.examples[half:]
            starts = (None, trained(data, theirs, None), trained(data, theirs, None, moved=True))
            for count in COUNTS[: len(own) - 1]:
                found = [score(data, own[count:], trained(data, own[:count], start)) for start in starts]
                scores[count].append(tuple(found))
        for count, rows in scores.items():
            if rows:
                print(
                    f"| {folder.name} | {count} | " + " | ".join(f"{mean:.3f}" for mean in np.mean(rows, axis=0)) + " |"
                )


if __name__ == "__main__":
    main()
