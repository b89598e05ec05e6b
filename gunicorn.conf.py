"""gunicorn's configuration: `gunicorn _wsgi:app` alone is a working backend.

Its first process starts the jobs' worker beside the web processes (worker.py keeps it running) and ends it on exit.
With RUN_WORKER=false the workers are started elsewhere: `python worker.py`.
"""

import os
import shutil
import subprocess
import sys
import tempfile

# Where all processes count for /metrics. Before prometheus_client is imported, which looks for it then; empty at each
# start, and the same folder after a reload.
if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp(prefix="timeline-backend-")

from prometheus_client.multiprocess import mark_process_dead

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

# Longer than worker.py takes to end its worker.
WORKER_STOP_SECONDS = 12.0

_worker = None


def when_ready(server) -> None:
    global _worker
    if _settings.run_worker:
        # Before the first web process is forked, in the only thread: see worker.py.
        command = [sys.executable, str(PROJECT_ROOT / "worker.py"), "--parent", str(os.getpid())]
        _worker = subprocess.Popen(command, cwd=PROJECT_ROOT)


def child_exit(server, worker) -> None:
    mark_process_dead(worker.pid)


def on_exit(server) -> None:
    if _worker is not None:
        _worker.terminate()
        try:
            _worker.wait(WORKER_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            _worker.kill()
    shutil.rmtree(os.environ["PROMETHEUS_MULTIPROC_DIR"], ignore_errors=True)
