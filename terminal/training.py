"""`train`, `reset` and `rollback`: change which model a project has."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from errors import InvalidRequest
from ml_backend.store.tables import JobKind
from terminal.common import Backend, ExitCode, JsonOption, ProjectOption, console, only_control, print_json
from words import counted

YesOption = Annotated[bool, typer.Option("--yes", help="Don't ask.")]


def train(
    project: ProjectOption,
    from_scratch: Annotated[
        bool,
        typer.Option(
            "--from-scratch", help="Fetch all annotations from Label Studio first, and forget the present model."
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Train a project's model on its stored annotations, in this process."""
    backend = Backend()
    backend.model(project)
    backend.store.note_event(project, "START_TRAINING")
    if from_scratch:
        backend.runner.run_now(JobKind.RECONCILE, project)
    else:
        backend.store.request_training(project)
    _report(backend.runner.run_now(JobKind.RESET if from_scratch else JobKind.TRAIN, project), as_json)


def _report(results: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(results)
    for name, metrics in {} if as_json else results.items():
        state = f"published as v{metrics['version']}" if metrics.get("version") else metrics.get("reason", "no model")
        console.out(f"{name}: {counted(metrics['tasks'], 'video')}, {state}")
    if any(metrics.get("reason") for metrics in results.values()):
        raise typer.Exit(ExitCode.FAILED)


def reset(project: ProjectOption, yes: YesOption = False) -> None:
    """Forget a project's model. Its annotations stay; the next submitted annotation trains a new model."""
    backend = Backend()
    model = backend.model(project)
    if not yes:
        typer.confirm(f"Forget the model {model.model_version} of project {project}?", abort=True)
    model.forget()
    console.out(f"Project {project} has no model now. Train one: cli.py train --project {project}")


def rollback(
    project: ProjectOption,
    version: Annotated[
        int | None,
        typer.Option("--version", help="A number; by default the version before the present one."),
    ] = None,
    control: Annotated[
        str | None, typer.Option("--control", help="The control tag's name, where the config has several.")
    ] = None,
    yes: YesOption = False,
) -> None:
    """Make an earlier version of a project's model the present one. The next training makes a new version."""
    backend = Backend()
    model = backend.model(project)
    name = control or only_control(backend, project)
    version = version or _version_before(backend, project, name)
    if not yes:
        typer.confirm(f"Make v{version} the present model of {name!r} in project {project}?", abort=True)
    console.out(f"{model.roll_back(version, name)} predicts now")


def _version_before(backend: Backend, project: str, name: str) -> int:
    present = backend.store.present_version(project, name)
    earlier = [
        v.version for v in backend.store.versions(project, name) if present is None or v.version < present.version
    ]
    if not earlier:
        raise InvalidRequest(f"{name!r} of project {project} has no version before the present one.")
    return earlier[0]
