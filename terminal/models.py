"""`export-model` and `import-model`: a project's model as a file, for a project to start from."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from errors import InvalidRequest
from ml_backend.settings import get_settings
from terminal.common import Backend, ProjectOption, can_be_written, console, only_control


def export_model(
    project: ProjectOption,
    file: Annotated[Path, typer.Argument(callback=can_be_written, help="The file to write, .safetensors.")],
    control: Annotated[
        str | None, typer.Option("--control", help="Name of the control tag, where the config has several.")
    ] = None,
) -> None:
    """Write a project's present model to a file, which another backend can import."""
    from control_models.start import present_file  # PyTorch comes with it: not for --help

    backend = Backend()
    backend.model(project)
    name = control or only_control(backend, project)
    found = present_file(backend.settings.model_root, backend.store, project, name)
    if found is None:
        raise InvalidRequest(f'"{name}" of project {project} has no model yet: annotate a video and submit it.')
    shutil.copyfile(found, file)
    console.out(f"{file} holds the model. On another server: cli.py import-model {file.name}")


def import_model(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A file that export-model wrote.")],
    name: Annotated[
        str | None, typer.Option("--name", help="What labeling configs call it; by default the file's name.")
    ] = None,
) -> None:
    """Keep a model's file in MODEL_ROOT, so that labeling configs can name it in model_start_from."""
    from control_models import start

    name = name or file.stem
    labels = start.import_model(get_settings().model_root, file, name)
    console.out(f'Add model_start_from="{name}" to a control tag with some of the labels {", ".join(labels)}.')
