"""The backend's commands: `python cli.py --help`."""

from __future__ import annotations

import signal

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C during the imports ends it without a traceback

import logging
import sys

import typer

from errors import BackendError, NotReady
from terminal.check import check
from terminal.common import ExitCode, complain
from terminal.evaluate import evaluate
from terminal.exchange import export, import_
from terminal.label import label
from terminal.models import export_model, import_model
from terminal.predict import extract, predict
from terminal.review import review
from terminal.status import status
from terminal.summary import summary
from terminal.training import reset, rollback, train

HELP = """Do the backend's work from a terminal, with the server's environment variables and state.

A command ends with 0 when it is done, 1 when it failed, 2 when it was used wrongly, 3 where it may succeed later (the
model isn't trained yet), and 4 where some of several tasks failed."""

app = typer.Typer(add_completion=False, no_args_is_help=True, help=HELP, pretty_exceptions_enable=False)
for command in (label, predict, extract, train, evaluate, summary, review, export, reset, rollback, status, check):
    app.command()(command)
app.command("import")(import_)
app.command("export-model")(export_model)
app.command("import-model")(import_model)


def main() -> None:
    """Runs a command. Errors that the user can do something about are printed as a sentence, not as a traceback."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        app()
    except BackendError as error:
        complain("Error", error)
        sys.exit(ExitCode.NOT_READY if isinstance(error, NotReady) else ExitCode.FAILED)
    except OSError as error:  # a full disk, a file without permission
        complain("Error", f"{error.filename or ''} {error.strerror}.")
        sys.exit(ExitCode.FAILED)


if __name__ == "__main__":
    main()
