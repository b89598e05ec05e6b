"""Write the evaluation report: one HTML file that contains its plots."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from learning.evaluation import Case, Evaluation, score_cases
from learning.events import segments
from learning.metrics import reliability_curve
from ml_backend.dashboard.charts import Series, bar_chart, line_chart, probability_curve, spans
from ml_backend.dashboard.study_plots import plots
from ml_backend.dashboard.study_tables import shown
from study.budget import Observed
from study.tables import subjects
from words import counted

FILE_NAME = "index.html"
TABLES = {"frames": "By frame", "segments": "By segment (intersection over union of at least 0.5)"}
# Frames. The bar at each end of a boundary plot counts all larger errors too.
MAX_SHOWN_ERROR = 15


def write_report(
    folder: Path,
    project: str,
    model_version: str,
    evaluations: Sequence[Evaluation],
    observed: Sequence[Observed],
    colours: dict[str, dict[str, str]],
) -> Path:
    """Writes the report of held-out videos and returns its path.

    Args:
        folder: created where missing.
        project: the project's id.
        model_version: the project's present version, for the heading.
        evaluations: one for each control tag.
        observed: what was annotated.
        colours: control tag -> label -> CSS colour.
    """
    # The study's tables and plots are those of the dashboard's page.
    loader = ChoiceLoader([PackageLoader("terminal"), PackageLoader("ml_backend.dashboard")])
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    environment.filters["counted"] = counted
    page = environment.get_template("report.html").render(
        project=project,
        model_version=model_version,
        date=datetime.now().strftime("%Y-%m-%d %H:%M"),
        controls=[_control(evaluation) for evaluation in evaluations],
        budgets=shown(subjects(observed)),
        plots=plots(observed, colours),
    )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FILE_NAME
    path.write_text(page, encoding="utf-8")
    return path


def _control(evaluation: Evaluation) -> dict[str, Any]:
    score, intervals = score_cases(evaluation.cases, evaluation.labels), evaluation.intervals()
    return {
        "name": evaluation.name,
        "num_videos": score["videos"],
        "tables": [
            {
                "title": title,
                "macro_f1": score[kind]["macro_f1"],
                "rows": [
                    {"label": label, **row, "interval": intervals[kind][label]}
                    for label, row in score[kind]["per_label"].items()
                ],
            }
            for kind, title in TABLES.items()
        ],
        "agreement": evaluation.agreement(),
        "reliability": _reliability(evaluation),
        "boundaries": [_boundaries(evaluation, label) for label in evaluation.labels],
        "ethograms": [_ethogram(evaluation, case) for case in evaluation.cases],
    }


def _reliability(evaluation: Evaluation) -> dict[str, Any]:
    series, errors = [], []
    for column, label in enumerate(evaluation.labels):
        cases = [(one.labels[one.reviewed], probs[one.reviewed]) for one, probs, _ in evaluation.cases]
        truth, probabilities = (np.concatenate(side)[:, column] for side in zip(*cases, strict=True))
        curve = reliability_curve(truth, probabilities)
        filled = curve.count > 0
        points = (curve.mean_probability[filled].tolist(), curve.observed_frequency[filled].tolist())
        series.append(Series(label, evaluation.colours[label], *points))
        errors.append((label, evaluation.colours[label], curve.expected_calibration_error))
    title = "Observed frequency of a label over its predicted probability"
    return {"chart": line_chart(title, series, "predicted probability", diagonal=True), "errors": errors}


def _boundaries(evaluation: Evaluation, label: str) -> dict[str, Any]:
    bins = list(range(-MAX_SHOWN_ERROR, MAX_SHOWN_ERROR + 1))
    kinds = []
    for kind, errors in evaluation.boundary_errors(label).items():
        if not errors:
            kinds.append({"name": kind, "count": 0})
            continue
        counts = Counter(int(np.clip(error, -MAX_SHOWN_ERROR, MAX_SHOWN_ERROR)) for error in errors)
        title = f"{label}: {kind} errors in frames, early to the left, late to the right"
        chart = bar_chart(title, bins, [counts[one] for one in bins], evaluation.colours[label])
        kinds.append({"name": kind, "count": len(errors), "median": float(np.median(np.abs(errors))), "chart": chart})
    return {"label": label, "kinds": kinds}


def _ethogram(evaluation: Evaluation, case: Case) -> dict[str, Any]:
    rows = []
    for column, label in enumerate(evaluation.labels):
        colour = evaluation.colours[label]
        rows.append(
            {
                "label": label,
                "colour": colour,
                "truth": spans(segments(case.example.labels[:, column]), colour),
                "curve": probability_curve(case.probabilities[:, column], colour),
                "predicted": spans(segments(case.predicted[:, column]), colour),
            }
        )
    macro_f1 = score_cases([case], evaluation.labels)["frames"]["macro_f1"]
    return {"task": case.example.task_id, "num_frames": len(case.predicted), "macro_f1": macro_f1, "rows": rows}
