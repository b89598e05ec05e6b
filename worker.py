"""Keeps the jobs' worker running: starts it, starts it again when it dies or at SIGHUP, and ends it with the server.

A process of its own, and the standard library only: gunicorn's first process forks web workers at any time, and a fork
during `subprocess.Popen` in another of its threads would leave that thread hanging.
"""

import argparse
import logging
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

COMMAND = [sys.executable, str(Path(__file__).with_name("_wsgi.py")), "--worker", "--parent", str(os.getpid())]
# A worker that dies as soon as it runs must not use a core for starting.
RESTART_SECONDS = 2.0
# Longer than a worker gives its running jobs to end; within the five seconds in which everything ends.
STOP_SECONDS = 3.5
LOOK_SECONDS = 0.5

logger = logging.getLogger("worker")


def keep_running(parent: int) -> None:
    """Runs workers one after the other until SIGTERM or SIGINT comes or `parent` isn't the parent process any more."""
    stopping, reload = threading.Event(), threading.Event()
    signal.signal(signal.SIGHUP, lambda *_: reload.set())
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())

    def stopped(seconds: float) -> bool:
        return stopping.wait(seconds) or os.getppid() != parent

    while not stopped(0):
        process = subprocess.Popen(COMMAND)
        logger.info("The jobs' worker runs (pid %d)", process.pid)
        while process.poll() is None and not reload.is_set() and not stopped(LOOK_SECONDS):
            pass
        if process.poll() is None:
            end(process)
            if not reload.is_set():
                return
            reload.clear()
            logger.info("The jobs' worker is started again (SIGHUP)")
            continue
        if stopped(0):
            return  # Ctrl-C reaches all processes of a terminal
        logger.error("The jobs' worker ended (status %d): it is started again", process.returncode)
        stopped(RESTART_SECONDS)


def end(process: subprocess.Popen) -> None:
    """Ends a worker: asks, then kills."""
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parent", type=int, default=os.getppid(), help="stop when this process is gone")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s [%(process)d] %(name)s: %(message)s")
    keep_running(parser.parse_args().parent)


if __name__ == "__main__":
    main()
