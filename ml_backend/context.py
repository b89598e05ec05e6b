"""What the backend gives to a model (`Services`), and to those of a project's control tags (`Context`)."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from features.cache_folder import CacheFolder
from ml_backend.label_studio import client as label_studio
from ml_backend.label_studio.media import MediaFiles
from ml_backend.settings import Settings
from ml_backend.store import Store

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Services:
    """What the backend gives to its models.

    Attributes:
        settings: the environment.
        store: the state; without one a model's values are kept in memory.
        in_request: whether the caller's thread answers a request now.
    """

    settings: Settings
    store: Store | None = None
    in_request: Callable[[], bool] = lambda: False


class ProjectMedia:
    """The files of a project's tasks, and the Label Studio that they come from.

    Args:
        settings: the environment.
        store: the state; None where a model is used without a backend.
        project_id: the project.
    """

    def __init__(self, settings: Settings, store: Store | None, project_id: str) -> None:
        self._settings = settings
        self._store = store
        self._project_id = project_id
        cache = CacheFolder(settings.cache_dir, int(settings.cache_size_limit))
        self.files = MediaFiles(settings.local_files_document_root, cache, settings.media_allowed_hosts)
        self._held = threading.local()

    @property
    def connection(self) -> label_studio.Connection:
        """Label Studio's address and key: the environment's, else those of `/setup`."""
        held = getattr(self._held, "connection", None)
        if held is not None:
            return held
        project = self._store.project(self._project_id) if self._store else None
        settings = self._settings
        return label_studio.choose_connection(
            environment=label_studio.Connection(settings.label_studio_url, settings.secret("label_studio_api_key")),
            setup=label_studio.Connection(*((project.hostname, project.access_token) if project else (None, None))),
        )

    @contextmanager
    def holding_connection(self) -> Iterator[None]:
        """Looks `connection` up only once for this thread inside the block, which may ask about thousands of tasks."""
        self._held.connection = self.connection
        try:
            yield
        finally:
            self._held.connection = None

    def place(self, url: str, task_id: int | None = None) -> Path:
        """The path of a task's file, or of its download where that is still missing; its features are cached by it.

        Raises:
            MediaError: the file can't be fetched in any case.
        """
        return self.files.place(url, self.connection, task_id)

    def get(self, url: str, task_id: int | None = None, check: Callable[[], None] = lambda: None) -> Path:
        """Returns the path of a task's file, after a download where needed. Arguments and errors are those of
        `LabelStudioMLBase.get_local_path`."""
        return self.files.get(url, self.connection, task_id, check)

    def find(self, url: str, task_id: int | None = None) -> Path | None:
        """The path of a task's file, None where a download would be needed."""
        return self.files.find(url, self.connection, task_id)

    def remove(self, url: str, task_id: int | None = None) -> None:
        """Removes the download of a task's file. A file that is read in place stays."""
        self.files.remove(url, self.connection, task_id)


class Notes:
    """Notes for the user on a project's tasks.

    Args:
        store: keeps the notes; without one they are logged.
        project_id: the project.
    """

    def __init__(self, store: Store | None, project_id: str) -> None:
        self._store = store
        self._project_id = project_id
        self._said: dict[int, list[str]] | None = None  # of the tasks of which all was said since `anew` began

    @contextmanager
    def anew(self) -> Iterator[None]:
        """Drops at the end, unless it fails, what isn't said any more of the tasks of which all was said within."""
        said = self._said = {}
        try:
            yield
        finally:
            self._said = None
        if self._store and said:
            self._store.drop_notes(self._project_id, said, [(task, text) for task in said for text in said[task]])

    def say_all(self, task_ids: Iterable[int], notes: Iterable[tuple[int | None, str]]) -> None:
        """Adds notes, which are all that there is to say of some tasks now."""
        notes = list(notes)
        if self._said is not None:
            for task_id in task_ids:
                self._said.setdefault(task_id, []).extend(text for about, text in notes if about == task_id)
        self.add(notes)

    def add(self, notes: Iterable[tuple[int | None, str]]) -> None:
        """Adds notes, (task id, text), each once."""
        notes = list(notes)
        if self._store:
            self._store.add_notes(self._project_id, [(task_id, text) for task_id, text in notes if task_id is not None])
        for task_id, text in notes:
            if task_id is None or not self._store:
                logger.warning("Task %s: %s", task_id, text)


@dataclass(frozen=True)
class Context:
    """What the models of a project's control tags get from the backend.

    Attributes:
        project_id: the project.
        settings: the environment.
        store: the state; None where a model is used without a backend.
        media: the tasks' files.
        notes: the notes on tasks.
        in_request: whether the caller's thread answers a request now; then slow work, such as loading a network, is
            left to other threads.
    """

    project_id: str
    settings: Settings
    store: Store | None
    media: ProjectMedia
    notes: Notes
    in_request: Callable[[], bool]

    @classmethod
    def of(
        cls, project_id: str, settings: Settings, store: Store | None, in_request: Callable[[], bool] = lambda: False
    ) -> Context:
        """The context of a project."""
        media, notes = ProjectMedia(settings, store, project_id), Notes(store, project_id)
        return cls(project_id, settings, store, media, notes, in_request)
