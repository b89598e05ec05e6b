"""`label`: predict the timelines of local videos, without Label Studio."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from errors import BackendError, InvalidRequest
from ml_backend.jobs.deliveries import predict_task
from terminal.common import (
    Backend,
    can_be_written,
    complain,
    end,
    errors,
    local_task,
    make_folder,
    print_json,
    progress,
    read_video,
    say_left_out,
)
from terminal.formats.files import check_output, write_files
from terminal.formats.names import stems
from terminal.formats.registry import FORMATS
from video.reader import VIDEO_SUFFIXES
from video.timeline import Track

if TYPE_CHECKING:
    from model import YOLO

LabelFormat = Enum("LabelFormat", {name: name for name in ("json", *FORMATS, "mp4")}, type=str)


def label(
    files: Annotated[list[Path], typer.Argument(help="Videos, and folders of videos.", exists=True)],
    project: Annotated[str | None, typer.Option("--project", help="Use this project's model.")] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config", exists=True, dir_okay=False, help="Use the network's own classes, with this labeling config."
        ),
    ] = None,
    form: Annotated[
        LabelFormat,
        typer.Option("--format", help="json is for Label Studio's Import; mp4 is the video with its timeline drawn."),
    ] = LabelFormat.json,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            help="A file; by default standard output. A folder for mp4, and where a file holds one video; by default "
            "this folder.",
        ),
    ] = None,
) -> None:
    """Label local videos, without Label Studio."""
    if (project is None) == (config is None):
        raise typer.BadParameter("Give --project (a trained model) or --config (a labeling config), not both.")
    if form is LabelFormat.mp4:
        output = make_folder(output or Path())
    elif form is LabelFormat.json:
        can_be_written(output)
    else:
        output = check_output(FORMATS[form.value], output)
    backend = Backend(any_path=True)
    model = backend.model(project) if project else backend.registry.get("", _labeling_config(config))
    if form is not LabelFormat.json:
        say_left_out(model)
    model.check_ready()
    videos = _videos(files)
    names = stems(map(str, videos))
    done: list[tuple[dict[str, Any], list[Track]]] = []
    failures: list[str] = []
    for number, video in enumerate(videos, start=1):
        try:
            task = local_task(model, video)
            read_video(model, task, f"{number}/{len(videos)} {video.name}")
            tracks = [track for track in model.tracks(task) if track.prediction is not None]
            if form is LabelFormat.mp4:
                _draw(video, tracks, output / f"{names[str(video)]}.timeline.mp4")
            done.append((task, tracks))
        except BackendError as error:
            complain(str(video), error)
            failures.append(str(video))
    if form is not LabelFormat.mp4 and done:
        _write(form, done, model, output)
    end(len(done), failures)


def _labeling_config(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"{path} isn't a labeling config, because it isn't text in UTF-8.") from error


def _videos(files: list[Path]) -> list[Path]:
    videos: list[Path] = []
    for path in files:
        inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES) if path.is_dir() else [path]
        if not inside:
            raise InvalidRequest(f"{path} holds no videos ({', '.join(sorted(VIDEO_SUFFIXES))}).")
        videos += inside
    return list(dict.fromkeys(videos))


def _draw(video: Path, tracks: list[Track], target: Path) -> None:
    from terminal.formats.drawn_video import draw_timelines

    with progress(f"Drawing {target.name}") as report:
        draw_timelines(video, tracks, target, report)
    errors.out(f"{target}")


def _write(form: LabelFormat, done: list[tuple[dict[str, Any], list[Track]]], model: YOLO, output: Path | None) -> None:
    if form is not LabelFormat.json:
        write_files(FORMATS[form.value], [track.prediction for _, tracks in done for track in tracks], output)
        return
    print_json([_label_studio_task(model, task) for task, _ in done], output)


def _label_studio_task(model: YOLO, task: dict[str, Any]) -> dict[str, Any]:
    paths = {part.tag.object.value_name for part in model.control_models}
    data = {key: local_file_url(Path(value)) if key in paths else value for key, value in task["data"].items()}
    return {"data": data, "predictions": [predict_task(model, task)]}


def local_file_url(path: Path) -> str:
    """The URL of a local file in Label Studio's tasks, relative to LOCAL_FILES_DOCUMENT_ROOT, which Label Studio must
    have too."""
    from ml_backend.settings import get_settings

    root = get_settings().local_files_document_root or Path("/")
    absolute = path.resolve()
    inside = absolute.relative_to(root if absolute.is_relative_to(root) else "/")
    return f"/data/local-files/?d={quote(str(inside))}"
