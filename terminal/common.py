"""Common parts of the commands: state and models, exit codes, progress, output."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import progress as bars
from rich.console import Console
from rich.text import Text

from errors import InvalidRequest
from ml_backend.context import Services
from ml_backend.settings import get_settings
from ml_backend.store import Store
from progress import Progress
from video.labeling_frames import own_rate
from video.reader import decode

if TYPE_CHECKING:
    from ml_backend.jobs.runner import Runner
    from ml_backend.registry import ModelRegistry
    from model import YOLO

# Labels and names of files may have brackets, which aren't marks of a style, and words between colons. Tables are
# printed; a sentence goes out, unbroken.
console = Console(markup=False, emoji=False, highlight=False)
errors = Console(stderr=True, markup=False, emoji=False, highlight=False)

ProjectOption = Annotated[str, typer.Option("--project", help="Label Studio's id of the project.")]


def can_be_written(path: Path | None) -> Path | None:
    """Checks, before the work begins, that an output file can be written. Returns it."""
    if path is None:
        return None
    if path.is_dir():
        raise typer.BadParameter(f"{path} is a folder. Name a file in it.")
    if not path.absolute().parent.is_dir():
        raise typer.BadParameter(f"There is no folder {path.absolute().parent}.")
    return path


OutputOption = Annotated[
    Path | None,
    typer.Option("--output", callback=can_be_written, help="A file; by default standard output."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]


class ExitCode(IntEnum):
    """The commands' exit codes. Typer uses 2 where a command was used wrongly."""

    DONE = 0
    FAILED = 1
    NOT_READY = 3  # the same command may succeed later
    PARTLY = 4  # some of several tasks failed


class Backend:
    """The state and the models that the server uses, opened for one command.

    Args:
        any_path: read paths outside LOCAL_FILES_DOCUMENT_ROOT too: whoever types a path may read it.
    """

    def __init__(self, any_path: bool = False) -> None:
        from ml_backend.registry import ModelRegistry  # PyTorch comes with the model: not for --help
        from model import YOLO

        settings = get_settings()
        self.settings = settings.model_copy(update={"local_files_document_root": Path("/")}) if any_path else settings
        self.store = Store(settings.database)
        self.registry: ModelRegistry = ModelRegistry(YOLO, Services(self.settings, self.store))

    @property
    def runner(self) -> Runner:
        """Does the server's jobs in this process."""
        from ml_backend.jobs.queue import Jobs
        from ml_backend.jobs.runner import Runner

        return Runner(Jobs(self.store, self.registry))

    def model(self, project: str) -> YOLO:
        """A project's model.

        Raises:
            InvalidRequest: there is no such project.
        """
        known_project(self.store, project)
        return self.registry.get(project)


def known_project(store: Store, project: str) -> str:
    """Returns the project's id.

    Raises:
        InvalidRequest: there is no such project; the message names the known ones.
    """
    if store.project(project) is not None:
        return project
    known = ", ".join(one.id for one in store.projects())
    raise InvalidRequest(
        f"Project {project} isn't known here. " + (f"Known: {known}." if known else "No project is connected yet.")
    )


def known_number(store: Store, project: str) -> int:
    """Returns a project's number in its Label Studio, also of a project that isn't known here.

    Raises:
        InvalidRequest: the id isn't known, and is no number.
    """
    known = store.project(project)
    number = known.number if known else project
    if not number.isdecimal():
        raise InvalidRequest(f"{project!r} isn't the id of a project. The id is the number in the project's address.")
    return int(number)


def only_control(backend: Backend, project: str) -> str:
    """The name of the only control tag of a project that has models. Raises InvalidRequest where there are several."""
    names = {version.from_name for version in backend.store.versions(project)}
    if len(names) != 1:
        raise InvalidRequest(
            f"Project {project} has several control tags: {', '.join(sorted(names))}. Name one with --control."
            if names
            else f"Project {project} has no model yet."
        )
    return names.pop()


def local_task(model: YOLO, path: Path) -> dict[str, Any]:
    """A task for a local file. A frame rate that the config takes from the task's data is the file's own.

    Raises:
        MediaError: the file can't be read, and its frame rate is asked for.
    """
    data: dict[str, Any] = {part.tag.object.value_name: str(path.resolve()) for part in model.control_models}
    if keys := {part.tag.frame_rate_key for part in model.control_models} - {None}:
        data |= dict.fromkeys(keys, own_rate(decode(path).average_rate))
    return {"id": None, "data": data}


def say_left_out(model: YOLO) -> None:
    """Says which control tags a file of timelines leaves out.

    Raises:
        InvalidRequest: no control tag has a timeline.
    """
    left_out = [
        f'<{part.tag.control_type} name="{part.from_name}">' for part in model.control_models if not part.has_timeline
    ]
    if len(left_out) == len(model.control_models):
        raise InvalidRequest(f"There is no timeline in the labeling config, only {', '.join(left_out)}.")
    if left_out:
        errors.out(f"Left out, because there is no timeline: {', '.join(left_out)}")


@contextmanager
def progress(description: str) -> Iterator[Progress]:
    """Shows a bar on standard error with the time left. Yields its `Progress`."""
    name, left = bars.TextColumn("{task.description}", markup=False), bars.TimeRemainingColumn()
    columns = (name, bars.BarColumn(), bars.TaskProgressColumn(), left)
    with bars.Progress(*columns, console=errors, disable=not errors.is_terminal) as bar:
        bar_id = bar.add_task(description, total=1.0)
        yield Progress(lambda share: bar.update(bar_id, completed=share))
        bar.update(bar_id, completed=1.0)


def read_video(model: YOLO, task: dict[str, Any], description: str) -> None:
    """Extracts the features of a task's video, unless they are cached, with a bar. Errors as of `model.extract`."""
    with progress(description) as share:
        model.extract(task, share)


def complain(subject: str, error: object) -> None:
    """Prints an error about a subject on standard error."""
    errors.print(Text.assemble((f"{subject}:", "red"), f" {error}"), soft_wrap=True)


def print_json(value: Any, output: Path | None = None) -> None:
    """Writes a value as JSON into a file, by default to standard output."""
    with output.open("w", encoding="utf-8") if output else nullcontext(sys.stdout) as file:
        json.dump(value, file, indent=1, ensure_ascii=False, default=str)
        file.write("\n")


def make_folder(path: Path) -> Path:
    """Makes a folder where it is missing. Returns it.

    Raises:
        InvalidRequest: the folder can't be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidRequest(f"The folder {path} can't be made: {error.strerror}.") from error
    return path


def end(done: int, failures: Sequence[object]) -> None:
    """Ends a command on several tasks with the exit code for how many of them failed."""
    if failures:
        raise typer.Exit(ExitCode.PARTLY if done else ExitCode.FAILED)
