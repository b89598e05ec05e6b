"""Start and stop the demo's programs. Each has a log and a process group of its own."""

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
LOG_LINES = 15  # of a log, in the error where a program ended


class DemoError(Exception):
    """The demo can't go on; the message is a sentence for the user."""


def check_port(port: int, variable: str) -> None:
    """Make sure that a server can listen on the port.

    Raises:
        DemoError: the port is taken; the message names the variable that chooses another.
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
        name: the program's name in messages.
        command: the command that starts it.
        url: the address that it answers when it is up.
        environment: its whole environment.
        folder: its working folder.
        log: the file of its output.
        stop_signal: the signal that ends it and its child processes.
        stop_seconds: the time to end in before it is killed.
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
            # In a session of its own: Ctrl-C in the terminal reaches only the demo, which ends its servers in order.
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
        """Return when the server answers with success and `is_up` accepts the answer.

        Raises:
            DemoError: the server ended, or doesn't answer in time.
        """
        deadline = time.monotonic() + seconds
        while not self._answers(is_up):
            self.check_running()
            if time.monotonic() > deadline:
                raise DemoError(f"{self.name} doesn't answer after {seconds:.0f} s. Its log: {self._log}")
            time.sleep(POLL_SECONDS)

    def check_running(self) -> None:
        """Check that the server runs.

        Raises:
            DemoError: the server ended; the message has the end of its log.
        """
        if self._process.poll() is not None:
            lines = self._log.read_text(errors="replace").splitlines()[-LOG_LINES:]
            raise DemoError("\n".join([f"{self.name} ended. The end of its log, {self._log}:", *lines]))

    def stop(self) -> None:
        """End the server and its child processes."""
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
