"""`export` and `import`: write timelines to files of other programs, and read them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from errors import BackendError, InvalidRequest
from terminal.common import Backend, OutputOption, ProjectOption, complain, end, print_json, read_video, say_left_out
from terminal.formats.files import check_output, read_file, write_files
from terminal.formats.label_studio import tasks_with_annotations
from terminal.formats.registry import FORMATS, Format
from video.task_data import LOCAL_FILE, file_name, file_path
from video.timeline import Timeline

if TYPE_CHECKING:
    from model import YOLO

ExportFormat = Enum("ExportFormat", {name: name for name in FORMATS}, type=str)
ImportFormat = Enum("ImportFormat", {name: name for name, one in FORMATS.items() if one.read}, type=str)
What = Enum("What", {name: name for name in ("annotations", "predictions", "both")}, type=str)


def export(
    project: ProjectOption,
    form: Annotated[
        ExportFormat,
        typer.Option("--format", help="; ".join(f"{name}: {one.description}" for name, one in FORMATS.items()) + "."),
    ] = ExportFormat.events,
    what: Annotated[What, typer.Option("--what", help="Which timelines to export.")] = What.annotations,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            help="A file; by default standard output. A folder where a file holds one video; by default this folder.",
        ),
    ] = None,
) -> None:
    """Export the timelines of a project's annotated tasks: annotations, and the present model's predictions."""
    output = check_output(FORMATS[form.value], output)
    backend = Backend()
    model = backend.model(project)
    say_left_out(model)
    tasks = backend.store.annotated_tasks(project)
    timelines: list[Timeline] = []
    failures: list[int] = []
    for number, task in enumerate(tasks, start=1):
        try:
            read_video(model, task, f"{number}/{len(tasks)} task {task['id']}")
            timelines += _timelines(model, task, what)
        except BackendError as error:
            complain(f"Task {task['id']}", error)
            failures.append(task["id"])
    write_files(FORMATS[form.value], timelines, output)
    end(len(tasks) - len(failures), failures)


def _timelines(model: YOLO, task: dict[str, Any], what: What) -> Iterator[Timeline]:
    """Yields a task's timelines. Where there are several control tags, the source names the timeline's."""
    tracks = model.tracks(task)
    for track in tracks:
        of_tag = f", {track.name}" if len(tracks) > 1 else ""
        if what is not What.predictions:
            for annotation in task["annotations"]:
                yield track.annotated(annotation["result"], f"annotation {annotation['id']}{of_tag}", task["id"])
        if what is not What.annotations:
            if track.prediction is None:
                raise InvalidRequest(track.reason)
            observation = track.prediction.observation
            named = replace(observation, source=f"{observation.source}{of_tag}")
            yield replace(track.prediction, observation=named)


def import_(
    files: Annotated[list[Path], typer.Argument(help="Files of another program.", exists=True, dir_okay=False)],
    project: ProjectOption,
    form: Annotated[
        ImportFormat | None, typer.Option("--format", help="The files' format; by default it follows from the suffix.")
    ] = None,
    media: Annotated[
        str,
        typer.Option("--media", help="The URL in Label Studio's tasks before each video's name."),
    ] = "/data/local-files/?d=",
    suffix: Annotated[
        str | None,
        typer.Option("--suffix", help="The videos' suffix, such as .mp4, for formats that name videos without it."),
    ] = None,
    output: OutputOption = None,
) -> None:
    """Convert events of other programs to annotations, as JSON for Label Studio's Import."""
    model = Backend().model(project)
    tag = next((part.tag for part in model.control_models if part.has_timeline), None)
    if tag is None:
        raise InvalidRequest(f"The labeling config of project {project} has no timeline, so no events can be imported.")
    observations = [one for file in files for one in read_file(_format(file, form, suffix), file, suffix)]
    unknown = {event.label for observation in observations for event in observation.events} - set(tag.labels)
    if unknown:
        raise InvalidRequest(
            f"The labeling config of project {project} has no label {', '.join(sorted(map(repr, unknown)))}: add it "
            "there, or rename it in the file."
        )
    tasks = tasks_with_annotations(
        observations,
        tag.frame_rate({}),
        data_key=tag.object.value_name,
        from_name=tag.from_name,
        to_name=tag.to_name,
        url=lambda video: f"{media}{quote(_served(video))}",
    )
    print_json(tasks, output)


def _served(video: str) -> str:
    """A video's name as Label Studio serves it: with its folder where a URL of Label Studio names that."""
    return file_path(video).as_posix() if LOCAL_FILE in video else file_name(video)


def _format(file: Path, form: ImportFormat | None, suffix: str | None) -> Format:
    """The format of a file to import.

    Raises:
        typer.BadParameter: it doesn't follow from the file's suffix, or the format needs the videos' suffix.
    """
    known = {FORMATS[name].suffix.lower(): name for name in reversed(ImportFormat.__members__)}
    name = form.value if form else known.get(file.suffix.lower())
    if name is None:
        raise typer.BadParameter(f"{file.suffix or file.name} is no known suffix: name the format with --format.")
    if FORMATS[name].without_suffix and not suffix:
        raise typer.BadParameter(f"{file.name} names videos without their suffix: name it, such as --suffix .mp4.")
    return FORMATS[name]
