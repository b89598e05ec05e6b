"""Load the libraries that some formats need, and give them paths in place of open files."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import BinaryIO, NamedTuple

from errors import InvalidRequest


class Library(NamedTuple):
    """A library that isn't installed with the backend.

    Attributes:
        module: the name that it is imported by.
        requirement: what pip is asked for; pyproject.toml has the same.
    """

    module: str
    requirement: str

    def load(self) -> ModuleType:
        """Imports the library.

        Raises:
            InvalidRequest: it isn't installed; the message says how to.
        """
        try:
            return import_module(self.module)
        except ModuleNotFoundError as error:
            if error.name != self.module:
                raise
            raise InvalidRequest(
                f"This format needs {self.module}, which isn't installed: "
                f"{sys.executable} -m pip install '{self.requirement}'"
            ) from error


@contextmanager
def path_to_write(file: BinaryIO, suffix: str) -> Iterator[Path]:
    """Yields a path. What is written there goes into the open file at the end."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"timelines{suffix}"
        yield path
        with path.open("rb") as written:
            shutil.copyfileobj(written, file)


@contextmanager
def path_to_read(file: BinaryIO, suffix: str) -> Iterator[Path]:
    """Yields a path where the open file's content is."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"timelines{suffix}"
        with path.open("wb") as copy:
            shutil.copyfileobj(file, copy)
        yield path
