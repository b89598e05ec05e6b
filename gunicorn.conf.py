"""gunicorn's configuration: `gunicorn _wsgi:app` alone is a working backend.

gunicorn's first process starts the web processes and, beside them, the worker process that does the jobs:
`python _wsgi.py --worker`. Twice a second it looks whether the worker still runs, and starts another where it doesn't.
At SIGHUP it ends the worker, so that another one starts, and at the server's end it ends it for good. A worker whose
server is gone ends by itself. With RUN_WORKER=false the same command runs elsewhere, on as many machines as needed.
"""

import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

# Where all processes count for /metrics. Before prometheus_client is imported, which looks for it then; empty at each
# start, and the same folder after a reload.
if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp(prefix="timeline-backend-")

from prometheus_client.multiprocess import mark_process_dead

from errors import DatabaseUnavailable
from ml_backend.settings import PROJECT_ROOT, get_settings
from ml_backend.startup import server_lines

_settings = get_settings()
try:
    _settings.check_access()
except ValueError as error:
    sys.exit(str(error))

bind = f"{_settings.host}:{_settings.port}"
workers = _settings.workers
worker_class = "ml_backend.web.connections.PatientWorker"
threads = _settings.threads
# Fewer than the files that a process may open by default; where there are more, those that say nothing are closed.
worker_connections = 500
# A request may wait for features as long as Label Studio does; the threads' heartbeat is what this limit watches.
timeout = 120
# Requests that wait for features stop waiting at once (ml_backend/web/predictions.py); the others take less,
# but for one that loads an encoder, which can't be interrupted.
graceful_timeout = 4
keepalive = 75  # longer than clients keep an idle connection, else one is closed while a request is on its way
proc_name = "timeline-backend"
errorlog = "-"
loglevel = _settings.log_level.lower()
control_socket_disable = True  # it would write to the home folder

# Longer than a worker gives its running jobs to end; within the five seconds in which everything ends.
WORKER_STOP_SECONDS = 4.5
LOOK_SECONDS = 0.5
# A worker that dies as soon as it runs must not use a core for starting.
RESTART_SECONDS = 2.0
# At Ctrl-C, requests that wait for features get this long to be answered.
INTERRUPT_SECONDS = 0.5


def when_ready(server) -> None:
    for line in server_lines(_settings):
        server.log.info(line)
    server.jobs_worker = None
    if _settings.run_worker:
        _start_worker(server)
        # A timer's signal, not a thread: this process forks web processes at any time, and a fork during
        # `subprocess.Popen` in another thread leaves that thread hanging. Forks don't inherit the timer.
        signal.signal(signal.SIGALRM, lambda *_: _look_after_worker(server))
        signal.setitimer(signal.ITIMER_REAL, LOOK_SECONDS, LOOK_SECONDS)


def _start_worker(server) -> None:
    command = [sys.executable, str(PROJECT_ROOT / "_wsgi.py"), "--worker", "--parent", str(os.getpid())]
    server.jobs_worker = subprocess.Popen(command, cwd=PROJECT_ROOT)
    server.jobs_worker_started = time.monotonic()
    server.log.info("The jobs' worker runs (pid %d)", server.jobs_worker.pid)


def _look_after_worker(server) -> None:
    stopping = not server.LISTENERS
    if stopping:
        server.jobs_worker.terminate()  # while the web processes end
    elif server.jobs_worker.poll() is not None and time.monotonic() > server.jobs_worker_started + RESTART_SECONDS:
        server.log.warning("The jobs' worker has ended: it is started again")
        _start_worker(server)


def on_reload(server) -> None:
    if server.jobs_worker is not None:
        server.jobs_worker.terminate()  # the timer starts the next one


def on_exit(server) -> None:
    signal.setitimer(signal.ITIMER_REAL, 0)
    process = getattr(server, "jobs_worker", None)
    if process is not None:
        process.terminate()
        try:
            process.wait(WORKER_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
    shutil.rmtree(os.environ["PROMETHEUS_MULTIPROC_DIR"], ignore_errors=True)


def post_worker_init(worker) -> None:
    worker.log.info("Ready: it answers requests")
    worker.wsgi.extensions["predictions"].is_stopping = lambda: not worker.alive
    # gunicorn's handler shuts the thread pool down, and hangs where it interrupts the pool's own submit.
    signal.signal(signal.SIGALRM, lambda *_: os._exit(0))
    for number in (signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, lambda *_: _interrupt(worker))


def _interrupt(worker) -> None:
    worker.alive = False
    signal.setitimer(signal.ITIMER_REAL, INTERRUPT_SECONDS)


def worker_exit(server, worker) -> None:
    # A database that can't be reached now is tried by the next process; what else keeps the application from loading
    # stays as it is, and ends the server.
    error = sys.exc_info()[1]
    ends = isinstance(error, SystemExit) and not isinstance(error.__context__, DatabaseUnavailable)
    # Threads may be inside PyTorch or wait for a server; the interpreter would wait for them.
    logging.shutdown()
    os._exit(error.code if ends else 0)


def child_exit(server, worker) -> None:
    mark_process_dead(worker.pid)
