"""Entry point: `gunicorn _wsgi:app` serves, `python _wsgi.py --worker` does the queued jobs, `python _wsgi.py` is for
development."""

from __future__ import annotations

import argparse
import os
import sys

from ml_backend import init_app
from ml_backend.jobs.worker import WorkerProcess
from ml_backend.logs import configure_logging
from ml_backend.settings import PROJECT_ROOT, get_settings
from model import YOLO

# Videos, features, models and the state are for this user alone, whatever the folders' own rights are.
os.umask(0o077)
configure_logging(get_settings().log_level, get_settings().log_format)
app = init_app(YOLO)


def main() -> None:
    """Runs the worker, or the development server with a worker in its process."""
    settings = get_settings()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worker", action="store_true", help="do queued jobs instead of serving")
    parser.add_argument("--parent", type=int, help="with --worker: stop when this process is gone")
    parser.add_argument("--host", default=settings.host)
    parser.add_argument("--port", type=int, default=settings.port)
    arguments = parser.parse_args()
    if arguments.worker:
        WorkerProcess(app.extensions["runner"], arguments.parent).run()
    else:
        # By path and module: the environment needn't be activated, nor the folder be the present one.
        os.chdir(PROJECT_ROOT)  # where gunicorn finds its configuration, and that the modules which it imports
        command = [sys.executable, "-m", "gunicorn", "--reload"]
        os.environ |= {"HOST": arguments.host, "PORT": str(arguments.port)}
        os.execv(sys.executable, [*command, "_wsgi:app"])


if __name__ == "__main__":
    main()
