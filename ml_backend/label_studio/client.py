"""Calls of Label Studio's API, through label-studio-sdk.

The address and the key are passed as a `Connection`; this module reads no environment variables.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import httpx
from label_studio_sdk.core.api_error import ApiError

from errors import BackendError
from ml_backend import strict_json
from progress import UNTOLD, Progress

if TYPE_CHECKING:
    from label_studio_sdk import LabelStudio, Webhook

# A running server accepts a connection at once; it may pause between two packets of a page of tasks.
TIMEOUT = httpx.Timeout(60, connect=5)
TASKS_PER_PAGE = 100
SMALL_TASKS_PER_PAGE = 500  # without annotations

TASK_FIELDS = ("id", "project", "data", "annotations")
ANNOTATION_FIELDS = ("id", "result", "was_cancelled", "ground_truth", "completed_by", "created_at", "updated_at")
ANNOTATION_FIELDS += ("lead_time", "parent_prediction", "prediction")


def _where(column: str, operator: str, value: int) -> dict[str, Any]:
    """A filter of Label Studio's lists of tasks."""
    return {"filter": f"filter:tasks:{column}", "operator": operator, "type": "Number", "value": value}


HAS_ANNOTATIONS = _where("total_annotations", "greater", 0)
HAS_NONE = _where("total_annotations", "equal", 0)
LATEST_FIRST = {"ordering": ["-tasks:id"]}

TOKEN_ADVICE = (
    "Set LABEL_STUDIO_API_KEY to a personal access token (Label Studio: Account & Settings, Personal Access Token), "
    "copied from the dialog that makes it, and LABEL_STUDIO_URL to Label Studio's address. Label Studio passes "
    "legacy tokens on by itself, but switches them off by default."
)
CERTIFICATE_ADVICE = (
    "If your own organisation signed the certificate, set SSL_CERT_FILE to the file of its certificate authority "
    "(PEM), for the web process and the workers."
)
CONTAINER_ADVICE = (
    "Check that Label Studio runs. In a container, localhost is the container itself: use the other container's name, "
    "or http://host.docker.internal for the machine."
)
NOT_THE_API = "the answer isn't from Label Studio's API. Check LABEL_STUDIO_URL."
# What the SDK and its callers raise where an answer has another form than the API's, such as a proxy's.
MALFORMED = (AttributeError, KeyError, TypeError, ValueError, OverflowError, RecursionError)

# The body of an answer comes within this time, and has this size: a worker does nothing else meanwhile. A page of
# tasks that took longer couldn't be used in Label Studio either.
ANSWER_SECONDS = 300.0
MAX_ANSWER = 256 * 2**20  # bytes
MAX_ID = 2**63 - 1
MAX_DETAIL = 500  # characters of Label Studio's reason


class LabelStudioError(BackendError):
    """Label Studio's API can't be reached, or refuses."""

    status = 502


class KeyRefused(LabelStudioError):
    """Label Studio refuses the key."""


class RequestRefused(LabelStudioError):
    """Label Studio would refuse the request whenever it is sent: its task was deleted, or it is too large."""


@dataclass(frozen=True)
class Connection:
    """The address of a Label Studio, and the key for its API.

    Attributes:
        url: the address, such as `https://label-studio.example.com`, or None where it isn't known.
        api_key: a personal access token or a legacy token, or None.
        public_url: the hostname of `/setup`, which browsers use and media URLs may have; nothing is sent there.
    """

    url: str | None
    api_key: str | None
    public_url: str | None = field(default=None, compare=False)


def choose_connection(environment: Connection, setup: Connection) -> Connection:
    """Returns the environment's address and key where given, else those of `/setup`.

    A key from the environment is never sent to an address from `/setup`: whoever can call that route could name their
    own host there and receive the key.

    Args:
        environment: LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY.
        setup: `hostname` and `access_token` of the request.
    """
    if environment.url:
        return Connection(environment.url, environment.api_key or setup.api_key, setup.url)
    return setup


@lru_cache(maxsize=8)
def api(connection: Connection) -> LabelStudio:
    """The SDK's client, cached because it holds the short-lived token that it got for a personal access token."""
    if not connection.url:
        raise LabelStudioError("Label Studio's address isn't known. Set LABEL_STUDIO_URL.")
    if not connection.api_key:
        raise LabelStudioError(f"There is no key for Label Studio's API. {TOKEN_ADVICE}")
    if not (connection.api_key.isascii() and connection.api_key.isprintable()):
        raise LabelStudioError(f"The key for Label Studio's API has characters that no key has. {TOKEN_ADVICE}")
    # It imports pandas. Processes that never ask Label Studio start without: 1.4 of 5.9 seconds of processor time.
    from label_studio_sdk import LabelStudio

    # The slash at the end: without it the SDK asks for tokens beside a path prefix instead of below it.
    return LabelStudio(
        base_url=connection.url.rstrip("/") + "/",
        api_key=connection.api_key,
        httpx_client=httpx.Client(timeout=TIMEOUT, event_hooks={"response": [_refuse_redirect, _check_body]}),
    )


class _Bounded(httpx.SyncByteStream):
    """The body of an answer, which must not take longer or be larger than any answer of the API."""

    def __init__(self, response: httpx.Response) -> None:
        self._stream, self._request = response.stream, response.request

    def __iter__(self) -> Iterator[bytes]:
        size, end = 0, time.monotonic() + ANSWER_SECONDS
        for part in self._stream:
            size += len(part)
            if size > MAX_ANSWER:
                raise httpx.ReadError(f"the answer is larger than {MAX_ANSWER} bytes", request=self._request)
            if time.monotonic() > end:
                raise httpx.ReadTimeout("the answer doesn't end", request=self._request)
            yield part

    def close(self) -> None:
        self._stream.close()


def _check_body(response: httpx.Response) -> None:
    """Bounds the body, and makes its texts storable: Label Studio's database may hold half an emoji."""
    response.stream = _Bounded(response)
    response.json = lambda **_: json.loads(strict_json.storable(response.content))  # type: ignore[method-assign]


class _Redirected(httpx.HTTPError):
    """The API's address redirects. It isn't followed: a POST would become a GET, and lose the key."""


def _refuse_redirect(response: httpx.Response) -> None:
    if response.has_redirect_location:
        error = _Redirected(redirect_advice(str(response.url), str(response.url.join(response.headers["Location"]))))
        error.request = response.request
        raise error


def redirect_advice(asked: str, location: str) -> str:
    """Says what to set LABEL_STUDIO_URL to where an address of Label Studio redirects to another."""
    path = httpx.URL(asked).raw_path.decode().partition("?")[0]
    target = location.partition("?")[0]
    # The new address stands before the longest ending that both have in common.
    parts = path.split("/")
    ends = ["/" + "/".join(parts[number:]) for number in range(1, len(parts))]
    end = next((end for end in ends if len(end) > 1 and target.rstrip("/").endswith(end.rstrip("/"))), "")
    base = target.rstrip("/").removesuffix(end.rstrip("/")) if end else target
    return f"its address redirects to {base}: set LABEL_STUDIO_URL to that."


def authorization(connection: Connection) -> str:
    """The value of the header Authorization; a personal access token is exchanged for a short-lived one first."""
    # The SDK has no public method for this; its version is pinned.
    return api(connection)._client_wrapper.get_headers()["Authorization"]


def annotated_tasks(connection: Connection, project_id: int, progress: Progress = UNTOLD) -> Iterator[dict[str, Any]]:
    """Fetches the project's annotated tasks, page by page.

    Args:
        connection: Label Studio, with a key.
        project_id: the project's id there.
        progress: told the share that is fetched.

    Yields:
        {"id", "project", "data", "annotations"}, the annotations with ANNOTATION_FIELDS, also skipped ones
        (`was_cancelled`). Cloud URIs in the data are unresolved, as in a webhook.

    Raises:
        LabelStudioError: Label Studio can't be reached or refuses, or the tasks changed while they were fetched.
    """
    include = {*TASK_FIELDS, *ANNOTATION_FIELDS}
    subject = f"Annotations of project {project_id}"
    for task in listed(connection, project_id, subject, include, [HAS_ANNOTATIONS], progress):
        if task.project not in (None, project_id):
            raise LabelStudioError(f"{subject}: Label Studio sends task {task.id} of project {task.project}.")
        yield as_task(task) | {"project": task.project, "annotations": _annotations(task.annotations)}


def _annotations(given: Any) -> list[dict[str, Any]]:
    """The annotations that have an id. Where Label Studio names no result, they have none."""
    found = given if isinstance(given, list) else []
    return [{"result": None} | one for one in found if isinstance(one, dict) and _is_id(one.get("id"))]


def as_task(task: Any) -> dict[str, Any]:
    """One of the SDK's tasks as `{"id", "data"}`."""
    return {"id": task.id, "data": task.data if isinstance(task.data, dict) else {}}


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= MAX_ID


def listed(
    connection: Connection,
    project_id: int,
    subject: str,
    include: Collection[str],
    filters: Sequence[dict[str, Any]] = (),
    progress: Progress = UNTOLD,
    page_size: int = TASKS_PER_PAGE,
) -> Iterator[Any]:
    """A project's tasks in the order of their ids, page by page, as the SDK's objects with the keys of `include`; cloud
    URIs unresolved.

    Each page is what follows the last id of the one before. Where Label Studio counts pages, each task that is deleted
    meanwhile moves another one to a page that was fetched already.
    """
    done, total, last = 0, 0, 0
    with asked(subject):
        while True:
            rest = {"conjunction": "and", "items": [*filters, _where("id", "greater", last)]}
            page = api(connection).tasks.list(
                project=project_id,
                fields="all",
                # One list for all levels: Label Studio filters the annotations' keys by the same names.
                include=",".join(sorted(include)),
                query=json.dumps({"filters": rest, "ordering": ["tasks:id"]}),
                resolve_uri=False,
                page_size=page_size,
            )
            tasks, left = page.items or (), int(page.response.total)
            total = max(total, done + left)
            if not last:
                progress(0.0)
            for task in tasks:
                if not _is_id(task.id):
                    raise TypeError(f"{task.id!r} is no task's id")
                if task.id <= last:
                    raise LabelStudioError(f"{subject}: Label Studio sends task {task.id} after task {last}.")
                last = task.id
                yield task
                done += 1
                progress(done / total)
            if len(tasks) >= left:
                return
            if not tasks:
                raise LabelStudioError(f"{subject}: {total} tasks announced, {done} received. Try again.")


def who_am_i(connection: Connection) -> str:
    """The e-mail address of the key's user.

    Raises:
        LabelStudioError: Label Studio can't be reached, or refuses.
    """
    with asked(f"The key for {connection.url}"):
        return api(connection).users.whoami().email or ""


def webhooks(connection: Connection, project_id: int) -> list[Webhook]:
    """A project's active webhooks, with their headers.

    Raises:
        LabelStudioError: Label Studio can't be reached, or refuses.
    """
    with asked(f"Webhooks of project {project_id}"):
        found = api(connection).webhooks.list(project=project_id)
        return [webhook for webhook in found if webhook.is_active is not False]


def set_webhook_headers(connection: Connection, webhook: Webhook, headers: dict[str, str]) -> None:
    """Makes a webhook send these headers, and leaves the rest of it as it is.

    Raises:
        LabelStudioError: Label Studio can't be reached, or refuses.
    """
    with asked(f"Webhook {webhook.id} of project {webhook.project}"):
        # Label Studio forgets the actions where they aren't named again.
        api(connection).webhooks.update(webhook.id, headers=headers, actions=webhook.actions or [])


def label_config(connection: Connection, project_id: int) -> str:
    """A project's labeling config, XML.

    Raises:
        LabelStudioError: it can't be reached or refuses, or there is no such project.
    """
    with asked(f"Project {project_id}"):
        return api(connection).projects.get(id=project_id).label_config or ""


def created(connection: Connection, project_id: int) -> int:
    """When a project was made, in seconds of Unix time. It tells the project from another Label Studio's of that
    number.

    Raises:
        LabelStudioError: it can't be reached or refuses, or there is no such project.
    """
    with asked(f"Project {project_id}"):
        return int(api(connection).projects.get(id=project_id).created_at.timestamp())


def title(connection: Connection, project_id: int) -> str | None:
    """A project's title.

    Raises:
        LabelStudioError: it can't be reached or refuses, or there is no such project.
    """
    with asked(f"Project {project_id}"):
        return api(connection).projects.get(id=project_id).title


def tasks(connection: Connection, project_id: int, progress: Progress = UNTOLD) -> Iterator[dict[str, Any]]:
    """Fetches all tasks of the project, as `annotated_tasks`, but only their `{"id", "data"}`."""
    subject = f"Tasks of project {project_id}"
    for task in listed(connection, project_id, subject, ("id", "data"), (), progress, SMALL_TASKS_PER_PAGE):
        yield as_task(task)


def extent(connection: Connection, project_id: int) -> tuple[int, int | None]:
    """The number of a project's tasks, and the largest of their ids, None where it has none.

    Raises:
        LabelStudioError: Label Studio can't be reached, or refuses.
    """
    with asked(f"Tasks of project {project_id}"):
        pages = api(connection).tasks.list(
            project=project_id, fields="all", include="id", query=json.dumps(LATEST_FIRST), page_size=1
        )
        return int(pages.response.total), next((task.id for task in pages.items or ()), None)


@contextmanager
def asked(subject: str) -> Iterator[None]:
    """Turn the errors of a call of the API into LabelStudioError with a sentence about `subject`."""
    try:
        with explained(subject, LabelStudioError):
            yield
    except MALFORMED as error:
        raise LabelStudioError(f"{subject}: {NOT_THE_API}") from error


@contextmanager
def explained(
    subject: str, error_type: type[BackendError], transient_type: type[BackendError] | None = None
) -> Iterator[None]:
    """Turn the errors of the SDK and of the network into `error_type` with a sentence about `subject`; those that may
    be over in a moment into `transient_type`, where it is given."""
    transient_type = transient_type or error_type
    try:
        yield
    except _Redirected as error:
        raise error_type(f"{subject}: {error}") from error
    except ApiError as error:
        kind = _kind(error) if error_type is LabelStudioError else error_type
        raise kind(f"{subject}: {_api_sentence(error)}") from error
    except httpx.InvalidURL as error:
        raise error_type(f"{subject}: not a URL ({error}).") from error
    except httpx.TimeoutException as error:
        host = error.request.headers.get("Host", error.request.url.host)
        raise transient_type(f"{subject}: no answer in time from {host}.") from error
    except httpx.HTTPError as error:
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            raise error_type(f"{subject}: {error}. {CERTIFICATE_ADVICE}") from error
        local = error.request.url.host in ("localhost", "127.0.0.1", "::1")
        advice = CONTAINER_ADVICE if local else "Check that this machine can reach the address."
        raise transient_type(f"{subject}: no connection ({error}). {advice}") from error
    except json.JSONDecodeError as error:
        raise error_type(f"{subject}: {NOT_THE_API}") from error


def _kind(error: ApiError) -> type[LabelStudioError]:
    if error.status_code in (401, 403):
        return KeyRefused
    # A proxy without its Label Studio answers 404 too, but in HTML.
    from_the_api = error.status_code in (400, 404) and isinstance(error.body, dict)
    return RequestRefused if from_the_api or error.status_code == 413 else LabelStudioError


def _api_sentence(error: ApiError) -> str:
    if error.status_code in (401, 403):
        return f"Label Studio refuses the key ({error.status_code}). {TOKEN_ADVICE}"
    detail = str(error.body.get("detail") or "")[:MAX_DETAIL] if isinstance(error.body, dict) else ""
    if error.status_code == 404:
        return f"Label Studio doesn't have it (404{', ' + detail if detail else ''})."
    if error.status_code and error.status_code < 400:
        return NOT_THE_API
    return f"Label Studio answers {error.status_code}{': ' + detail if detail else ''}."
