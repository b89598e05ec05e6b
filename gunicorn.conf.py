"""gunicorn's configuration: `gunicorn _wsgi:app` alone is a working backend.

The arbiter starts the jobs' worker beside the web processes, starts it again when it dies, and stops it on exit. With
RUN_WORKER=false the workers are started elsewhere: `python _wsgi.py --worker`.
"""

import os
import subprocess
import sys
import threading
import time

from ml_backend.settings import PROJECT_ROOT, get_settings

_settings = get_settings()

bind = f"{_settings.host}:{_settings.port}"
workers = _settings.workers
worker_class = "gthread"
threads = _settings.threads
# A request may wait for features as long as Label Studio does; the threads' heartbeat is what this limit watches.
timeout = 120
graceful_timeout = 10
keepalive = 75  # longer than clients keep an idle connection, else one is closed while a request is on its way
proc_name = "timeline-backend"
errorlog = "-"
loglevel = _settings.log_level.lower()
control_socket_disable = True  # it would write to the home folder

# A worker that dies at once, over and over, must not use a core for starting.
RESTART_SECONDS = 2.0
STOP_SECONDS = 10.0


class _WorkerProcess:
    """The jobs' worker as a child of the arbiter."""

    def __init__(self, log) -> None:
        self._log = log
        self._stopping = threading.Event()
        self._process = None
        self._thread = threading.Thread(target=self._keep_running, name="worker-keeper", daemon=True)
        self._thread.start()

    def _keep_running(self) -> None:
        command = [sys.executable, str(PROJECT_ROOT / "_wsgi.py"), "--worker", "--parent", str(os.getpid())]
        while not self._stopping.is_set():
            self._process = subprocess.Popen(command, cwd=PROJECT_ROOT)
            self._log.info("The jobs' worker runs (pid %d)", self._process.pid)
            status = self._process.wait()
            if not self._stopping.is_set():
                self._log.error("The jobs' worker ended (status %d): it is started again", status)
                time.sleep(RESTART_SECONDS)

    def stop(self) -> None:
        self._stopping.set()
        if self._process and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()


_worker_process = None


def when_ready(server) -> None:
    global _worker_process
    if _settings.run_worker:
        _worker_process = _WorkerProcess(server.log)


def on_exit(server) -> None:
    if _worker_process:
        _worker_process.stop()
