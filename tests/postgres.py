"""A real PostgreSQL server for the tests: Debian's binaries, in a folder of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from tests.servers import free_port

# Where Debian puts the binaries of each version.
DEBIAN = Path("/usr/lib/postgresql")
START_SECONDS = 120


def binaries() -> Path | None:
    """The folder of the newest installed version's binaries, or None."""
    found = [path.parent for path in DEBIAN.glob("*/bin/initdb")]
    if not found and (initdb := shutil.which("initdb")):
        found = [Path(initdb).resolve().parent]
    return max(found, key=lambda path: path.parent.name, default=None)


class Postgres:
    """A running server.

    Attributes:
        port: of 127.0.0.1.
        folder: its data.
    """

    def __init__(self, folder: Path, bin_folder: Path) -> None:
        self.folder = folder
        self._bin = bin_folder
        self.port = free_port()
        # The server refuses to run as root.
        self._user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        self._count = 0

    def _run(self, command: str, *arguments: str) -> None:
        subprocess.run(
            [*self._user, str(self._bin / command), "-D", str(self.folder / "data"), *arguments],
            check=True,
            cwd="/",
            stdout=subprocess.DEVNULL,
        )

    def start(self) -> Postgres:
        """Makes the data where there are none, and starts the server."""
        if self._user:
            shutil.chown(self.folder, "postgres", "postgres")
        if not (self.folder / "data").exists():
            self._run("initdb", "-A", "trust", "-U", "postgres", "--no-sync")
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self.folder}"
        log = str(self.folder / "log")
        self._run("pg_ctl", "-o", options, "-l", log, "-w", "-t", str(START_SECONDS), "start")
        return self

    def stop(self) -> None:
        """Ends the server."""
        self._run("pg_ctl", "-m", "immediate", "-w", "stop")

    def new_database(self) -> str:
        """Makes an empty database and returns its URL."""
        self._count += 1
        name = f"test{self._count}"
        with psycopg.connect(self._url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return self._url(name)

    def _url(self, name: str) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{name}"


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    """A server in a new folder, ended and removed afterwards.

    Raises:
        FileNotFoundError: PostgreSQL isn't installed.
    """
    folder = binaries()
    if folder is None:
        raise FileNotFoundError("PostgreSQL isn't installed: apt-get install postgresql")
    # Not pytest's own folder, which only its user may enter.
    with tempfile.TemporaryDirectory(prefix="postgres-", ignore_cleanup_errors=True) as data:
        Path(data).chmod(0o755)
        server = Postgres(Path(data), folder).start()
        try:
            yield server
        finally:
            server.stop()
