"""`check`: find out whether Label Studio, its webhook and its media can be reached, and say what to do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer
from rich.text import Text

from errors import BackendError
from ml_backend.label_studio import client as label_studio
from ml_backend.label_studio.webhook_secret import HEADER
from terminal.common import Backend, ExitCode, JsonOption, console, known_number, known_project, print_json

if TYPE_CHECKING:
    from label_studio_sdk import Webhook


class Finding(NamedTuple):
    """The result of one check.

    Attributes:
        what: what was checked.
        ok: whether it works.
        text: what was found, or what is wrong and what to do.
    """

    what: str
    ok: bool
    text: str


def check(
    project: Annotated[
        str | None, typer.Option("--project", help="Check this project's webhook and videos too.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check the connection to Label Studio: address, token, webhook, media."""
    backend = Backend()
    if project is not None:
        known_project(backend.store, project)
    findings = list(_findings(backend, project))
    if as_json:
        print_json([finding._asdict() for finding in findings])
    else:
        for finding in findings:
            mark = ("ok  ", "green") if finding.ok else ("fail", "red")
            line = Text.assemble(mark, f" {finding.what}: {finding.text}")
            console.print(line, soft_wrap=True)
    if not all(finding.ok for finding in findings):
        raise typer.Exit(ExitCode.FAILED)


def _findings(backend: Backend, project: str | None) -> Iterator[Finding]:
    connection = _connection(backend, project)
    yield Finding("Label Studio's address", bool(connection.url), connection.url or "unknown: set LABEL_STUDIO_URL.")
    if not connection.url:
        return
    try:
        who = label_studio.who_am_i(connection)
        yield Finding("token", True, f"belongs to {who}")
    except BackendError as error:
        yield Finding("token", False, str(error))
        return
    for project_id in [project] if project else [one.id for one in backend.store.projects() if one.number.isdecimal()]:
        yield from _project_findings(backend, connection, project_id)


def _connection(backend: Backend, project: str | None) -> label_studio.Connection:
    if project is not None:
        return backend.model(project).connection
    settings = backend.settings
    return label_studio.Connection(settings.label_studio_url, settings.secret("label_studio_api_key"))


def _project_findings(backend: Backend, connection: label_studio.Connection, project_id: str) -> Iterator[Finding]:
    what = f"project {project_id}, webhook"
    number = known_number(backend.store, project_id)
    try:
        webhooks = label_studio.webhooks(connection, number)
        webhook = next((one for one in webhooks if one.url.rstrip("/").endswith("/webhook")), None)
        yield Finding(what, *_webhook_text(webhook, backend.settings.proves_webhooks))
        task = next(iter(label_studio.tasks(connection, number)), None)
    except BackendError as error:
        yield Finding(what, False, str(error))
        return
    yield _media_finding(backend, project_id, task)


def _webhook_text(webhook: Webhook | None, needs_secret: bool) -> tuple[bool, str]:
    """Whether a webhook works, and a sentence about it."""
    if webhook is None:
        return False, (
            "there is none, so nothing is learnt from submitted annotations. Connect this backend in the project's "
            "Settings, Model."
        )
    if needs_secret and HEADER not in (webhook.headers or {}):
        return False, (
            f"{webhook.url} lacks the header {HEADER}, which proves that Label Studio sends it. A running worker adds "
            "it, where LABEL_STUDIO_API_KEY belongs to somebody who may change the project's webhooks."
        )
    return True, webhook.url


def _media_finding(backend: Backend, project_id: str, task: dict[str, Any] | None) -> Finding:
    what = f"project {project_id}, media"
    if task is None:
        return Finding(what, True, "the project has no tasks yet")
    try:
        media = set()
        model = backend.model(project_id)
        for address in model.media(task).values():
            model.get_local_path(address, task_id=task["id"])
            media.add(address)
    except BackendError as error:
        return Finding(what, False, f"task {task['id']}: {error}")
    return Finding(what, True, f"task {task['id']}: {', '.join(sorted(media))} can be read")
