"""Tables and a plot of the few-shot benchmark's rows (one for each scenario, seed, learner and step)."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.projects import FOOTAGE
from benchmarks.videos.scenarios import SCENARIOS, Group

Row = dict[str, Any]
MEAN = "**mean**"
OURS, BASELINES = "ours", ("published, all", "window head")
TUNED = {"window head": "window head, tuned"}  # of the two the better one counts
COLOURS = {OURS: "tab:blue", "published, all": "tab:orange", "window head": "tab:green", "before": "tab:grey"}


def report(rows: list[Row]) -> str:
    """Everything as markdown."""
    lines = []
    for title, group in groups(rows).items():
        lines += [f"## {title}", ""]
        lines += curves(group, "f1", "Macro-F1 on never-seen videos")
        lines += margins(group)
        lines += curves(group, "segment_f1", "Segment F1 (IoU 0.5) on never-seen videos")
        lines += annotated(group)
        lines += reliability_table(group)
    counted = (Group.TUNING, Group.KEPT_ASIDE)
    drawn = [row for row in rows if row["scenario"] != FOOTAGE and SCENARIOS[row["scenario"]].group in counted]
    if drawn:
        lines += ["## All scenarios of the tuning and kept aside", "", *margins(drawn)]
    return "\n".join(lines)


def groups(rows: list[Row]) -> dict[str, list[Row]]:
    """The rows by what their scenarios are for."""
    found: dict[str, list[Row]] = {title: [] for title in (*(group.value for group in Group), "Real footage")}
    for row in rows:
        title = "Real footage" if row["scenario"] == FOOTAGE else SCENARIOS[row["scenario"]].group.value
        found[title].append(row)
    return {title: group for title, group in found.items() if group}


def curves(rows: list[Row], key: str, title: str) -> list[str]:
    """Mean over seeds at each step, for ours with the standard deviation over seeds, and the curve's worst step."""
    steps = _steps(rows)
    lines = [f"### {title}", "", f"| scenario | learner | {' | '.join(map(str, steps))} | worst step |"]
    lines.append("|" + " --- |" * (len(steps) + 3))
    for name, group in _by_scenario(rows):
        for learner in _learners(group):
            means = np.array([_mean(group, learner, step, key) for step in steps])
            noise = [_deviation(group, step, key) if learner == OURS and name != MEAN else "" for step in steps]
            cells = " | ".join(f"{value:.3f}{spread}" for value, spread in zip(means, noise, strict=True))
            lines.append(f"| {name} | {learner} | {cells} | {np.diff(means).min(initial=np.inf):+.3f} |")
    return [*lines, ""]


def margins(rows: list[Row]) -> list[str]:
    """How far ours is above each baseline, and the standard error of that over seeds."""
    steps, present = _steps(rows), _learners(rows)
    baselines = [baseline for baseline in BASELINES if baseline in present]
    if OURS not in present or not baselines:
        return []
    lines = ["### Ours above the baselines", "", f"| scenario | baseline | {' | '.join(map(str, steps))} |"]
    lines.append("|" + " --- |" * (len(steps) + 2))
    for name, group in _by_scenario(rows):
        for baseline in baselines:
            cells = []
            for step in steps:
                # The stronger of the baseline's versions, in the mean over the seeds.
                versions = [_margins(group, version, step) for version in (baseline, TUNED.get(baseline, baseline))]
                margin = min(versions, key=np.mean)
                error = f" ± {margin.std(ddof=1) / len(margin) ** 0.5:.3f}" if len(margin) > 1 else ""
                cells.append(f"{margin.mean():+.3f}{error}")
            lines.append(f"| {name} | {baseline} | {' | '.join(cells)} |")
    return [*lines, ""]


def annotated(rows: list[Row]) -> list[str]:
    """F1 on the videos that were trained on, after the last step."""
    last = _steps(rows)[-1]
    lines = [f"### On the annotated videos, after {last}", ""]
    lines += ["| scenario | learner | mean of the videos | all their frames | the first video |", "|" + " --- |" * 5]
    for name, group in _by_scenario(rows):
        for learner in _learners(group):
            keys = ("annotated_f1", "annotated_pooled_f1", "first_f1")
            values = " | ".join(f"{_mean(group, learner, last, key):.3f}" for key in keys)
            lines.append(f"| {name} | {learner} | {values} |")
    return [*lines, ""]


def reliability_table(rows: list[Row]) -> list[str]:
    """Predicted probability against observed frequency on never-seen videos, after the last step."""
    last = _steps(rows)[-1]
    lines = [
        f"### Reliability after {last}",
        "",
        "| learner | | " + " | ".join(f"{b / 10:.1f}-" for b in range(10)) + " |",
    ]
    lines.append("|" + " --- |" * 12)
    for learner in _learners(rows):
        sums = [row["reliability"] for row in rows if row["learner"] == learner and row["step"] == last]
        if learner in TUNED.values():
            continue  # the same probabilities
        count, probability, true = (np.sum([s[key] for s in sums], axis=0) for key in ("count", "probability", "true"))
        for name, total in (("predicted", probability), ("observed", true)):
            shares = total / np.maximum(count, 1)
            cells = (f"{share:.2f}" if cases else "" for share, cases in zip(shares, count, strict=True))
            lines.append(f"| {learner} | {name} | {' | '.join(cells)} |")
        lines.append(f"| {learner} | frames | {' | '.join(map(str, count))} |")
    return [*lines, ""]


def plot(rows: list[Row], path: Path) -> None:
    """The curves, one panel a group: the mean, and each scenario's."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels = groups(rows)
    figure, axes = pyplot.subplots(1, len(panels), figsize=(6 * len(panels), 4.2), sharey=True, squeeze=False)
    for axis, (title, group) in zip(axes[0], panels.items(), strict=True):
        steps = _steps(group)
        for learner in [name for name in _learners(group) if name in COLOURS]:
            for name, part in _by_scenario(group):
                style = {"marker": "o", "label": learner} if name == MEAN else {"alpha": 0.25, "linewidth": 1}
                means = [_mean(part, learner, step, "f1") for step in steps]
                axis.plot(steps, means, color=COLOURS[learner], **style)
        axis.set(title=title, xscale="log", xlabel="annotated videos", ylim=(0, 1))
        axis.set_xticks(steps, steps)
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("macro-F1 on never-seen videos")
    axes[0][0].legend()
    figure.savefig(path, dpi=120, bbox_inches="tight")


def _by_scenario(rows: list[Row]) -> Iterable[tuple[str, list[Row]]]:
    names = list(dict.fromkeys(row["scenario"] for row in rows))
    return [(name, [row for row in rows if row["scenario"] == name]) for name in names] + [(MEAN, rows)]


def _steps(rows: list[Row]) -> list[int]:
    return sorted({row["step"] for row in rows})


def _learners(rows: list[Row]) -> list[str]:
    return list(dict.fromkeys(row["learner"] for row in rows))


def _values(rows: list[Row], learner: str, step: int, key: str) -> dict[tuple[str, int], float]:
    """(scenario, seed) -> value."""
    found = (row for row in rows if row["learner"] == learner and row["step"] == step)
    return {(row["scenario"], row["seed"]): row[key] for row in found}


def _mean(rows: list[Row], learner: str, step: int, key: str) -> float:
    return float(np.mean(list(_values(rows, learner, step, key).values())))


def _deviation(rows: list[Row], step: int, key: str) -> str:
    values = list(_values(rows, OURS, step, key).values())
    return f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""


def _margins(rows: list[Row], baseline: str, step: int) -> np.ndarray:
    ours, other = _values(rows, OURS, step, "f1"), _values(rows, baseline, step, "f1")
    return np.array([ours[key] - other[key] for key in ours if key in other])
