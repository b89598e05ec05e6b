"""The entry point of the server, and with `--worker` of the worker.

`gunicorn _wsgi:app` serves, `python _wsgi.py --worker` does jobs, and `python _wsgi.py` serves with reloading.
"""

from __future__ import annotations

import argparse
import os
import sys

from ml_backend import init_app
from ml_backend.jobs.worker import WorkerProcess
from ml_backend.logs import configure_logging
from ml_backend.settings import PROJECT_ROOT, get_settings
from model import YOLO

# Videos, features, models and the database are readable by this user only, whatever the folders' rights are.
os.umask(0o077)
configure_logging(get_settings().log_level, get_settings().log_format)
app = init_app(YOLO)


def main() -> None:
    """Runs the worker, or the server with reloading."""
    settings = get_settings()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worker", action="store_true", help="do jobs instead of serving")
    parser.add_argument("--parent", type=int, help="with --worker: stop when this process is gone")
    parser.add_argument("--host", default=settings.host)
    parser.add_argument("--port", type=int, default=settings.port)
    arguments = parser.parse_args()
    if arguments.worker:
        WorkerProcess(app.extensions["runner"], arguments.parent).run()
    else:
        # By paths, so that no environment must be activated and no folder entered.
        os.chdir(PROJECT_ROOT)  # gunicorn's configuration and modules are here
        command = [sys.executable, "-m", "gunicorn", "--reload"]
        os.environ |= {"HOST": arguments.host, "PORT": str(arguments.port)}
        os.execv(sys.executable, [*command, "_wsgi:app"])


if __name__ == "__main__":
    main()
