"""The programs that the demo starts: each with a log of its own, in a process group that ends with the demo."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import httpx

POLL_SECONDS = 0.3
LOG_LINES = 15  # of a log that say why a program ended


class DemoError(Exception):
    """What keeps the demo from going on, in a sentence for the one who runs it."""


def check_port(port: int, variable: str) -> None:
    """Make sure that a server can listen on the port.

    Raises:
        DemoError: naming the variable that chooses another.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise DemoError(
                f"Port {port} is taken ({error.strerror}). Choose another: make demo {variable}={port + 1}"
            ) from error


class Server:
    """A program that answers on an address.

    Args:
        name: for messages.
        command: what to run.
        url: what it answers when it is up.
        environment: its environment, whole.
        folder: its working folder.
        log: where its output goes.
        stop_signal: what ends it at once, and with it what it started.
        stop_seconds: how long that may take before it is killed.
    """

    def __init__(
        self,
        name: str,
        command: list[str],
        url: str,
        environment: dict[str, str],
        folder: Path,
        log: Path,
        stop_signal: signal.Signals,
        stop_seconds: float,
    ) -> None:
        self.name, self._url, self._log = name, url, log
        self._stop_signal, self._stop_seconds = stop_signal, stop_seconds
        with log.open("wb") as output:
            # A session of its own: Ctrl-C in the terminal reaches the demo alone, which ends its servers in order.
            self._process = subprocess.Popen(
                command,
                env=environment,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def __enter__(self) -> Server:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.stop()

    def wait_until_up(self, seconds: float, is_up: Callable[[httpx.Response], bool] = lambda _: True) -> None:
        """Return when the server answers, with success and what `is_up` asks for.

        Raises:
            DemoError: it ended, or doesn't answer in time.
        """
        deadline = time.monotonic() + seconds
        while not self._answers(is_up):
            self.check_running()
            if time.monotonic() > deadline:
                raise DemoError(f"{self.name} doesn't answer after {seconds:.0f} s. Its log: {self._log}")
            time.sleep(POLL_SECONDS)

    def check_running(self) -> None:
        """Return while the server runs.

        Raises:
            DemoError: it ended; with the end of its log.
        """
        if self._process.poll() is not None:
            lines = self._log.read_text(errors="replace").splitlines()[-LOG_LINES:]
            raise DemoError("\n".join([f"{self.name} ended. Its log, {self._log}, says at last:", *lines]))

    def stop(self) -> None:
        """End the server and all that it started."""
        if self._process.poll() is None:
            self._process.send_signal(self._stop_signal)
            try:
                self._process.wait(self._stop_seconds)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()

    def _answers(self, is_up: Callable[[httpx.Response], bool]) -> bool:
        try:
            response = httpx.get(self._url, timeout=5)
            return response.is_success and is_up(response)
        except httpx.HTTPError:
            return False
