"""`review`: show which annotations to look at again."""

from __future__ import annotations

from typing import Annotated

import typer

from errors import InvalidAnnotation, InvalidRequest
from ml_backend.dashboard.findings import Finding, confirm, findings
from ml_backend.jobs.review import review as compare
from terminal.common import Backend, JsonOption, ProjectOption, console, errors, print_json, progress
from words import counted

SHOWN = 10


def review(
    project: ProjectOption,
    confirmed: Annotated[
        str | None,
        typer.Option(
            "--confirm", help="Places that are right, by name, such as 1f0c77aa,9be2d410. They aren't listed again."
        ),
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Compare also where no annotation changed since the last review.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show which annotations are contradicted by models of other videos, and on which tasks annotators disagree.

    Where annotations changed since the last review, up to ten models are trained first, each without a part of the
    videos. The project's model stays as it is.
    """
    backend = Backend()
    model = backend.model(project)
    if confirmed:
        places = confirm(model, backend.store, [key.strip() for key in confirmed.split(",")])
        console.out(f"{len(places)} confirmed: not listed again unless the annotation changes.")
        return
    found = findings(model, backend.store)
    if again or found.is_old or found.at is None:
        try:
            with progress("Comparing annotations") as share:
                compare(model, backend.store, share)
        except (InvalidRequest, InvalidAnnotation) as error:
            if not found.agreements:
                raise
            errors.out(str(error))  # annotators may disagree all the same
        found = findings(model, backend.store)
    if as_json:
        print_json(
            {
                "at": found.at,
                "videos": found.videos,
                "doubts": [_entry(one) for one in found.doubts],
                "agreement": [one._asdict() for one in found.agreements],
                "disagreements": [_entry(one) for one in found.disagreements],
            }
        )
        return
    if found.at:
        console.out(f"{found.videos} videos, each compared with a model of the others on {found.at} UTC")
        _print(found.doubts, "Nothing is left to look at.")
    for one in found.agreements:
        kappa = "–" if one.kappa is None else f"{one.kappa:.2f}"
        interval = f" ({one.low:.2f} to {one.high:.2f})" if one.tasks > 1 and one.low is not None else ""
        console.out(f"Agreement on {one.label}: kappa {kappa}{interval}, {counted(one.tasks, 'task')}")
    if found.agreements:
        _print(found.disagreements, "The annotators agree.")


def _entry(one: Finding) -> dict[str, object]:
    return {"name": one.key, "task": one.task, "annotation": one.annotation, "seconds": one.seconds, "text": one.text}


def _print(places: list[Finding], nothing: str) -> None:
    for one in places[:SHOWN]:
        console.out(f"{one.key}  task {one.task}  {one.text}")
    if not places:
        console.out(nothing)
    elif len(places) > SHOWN:
        console.out(f"{len(places) - SHOWN} more: --json lists them.")
