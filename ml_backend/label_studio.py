"""Everything that calls Label Studio: the media of its tasks, its annotations, delivering predictions.

Built on label-studio-sdk, but for the download itself. The SDK's `get_local_path` opens its cache file before the body
arrives and trusts whatever is there the next time, so a connection lost half-way leaves a truncated video for good; it
sends a personal access token as it is, which Label Studio refuses; it holds the whole video in memory; and it waits for
ever.

This module reads no environment: the address and the key come in as a `Connection`.
"""

import base64
import hashlib
import json
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple
from urllib.parse import parse_qs, urlsplit

import httpx
from label_studio_sdk import LabelStudio
from label_studio_sdk.core.api_error import ApiError

from errors import BackendError, MediaError

# A server that is up answers the connection at once; a video or a page of tasks may take its time between two packets.
TIMEOUT = httpx.Timeout(60, connect=5)
CHUNK_BYTES = 1 << 20
# A running download writes at least once per read timeout; a partial file that rests for longer is a killed process's.
STALE_PART_SECONDS = 10 * TIMEOUT.read
TASKS_PER_PAGE = 100

CLOUD_SCHEMES = ("s3", "gs", "azure-blob")
# What Label Studio serves itself: uploads, local files, its storage proxy, and cloud URIs it has already resolved.
SERVED_BY_LABEL_STUDIO = re.compile(
    r"/data/upload/|/data/local-files/?\?|/storage-data/|/(tasks|projects)/\d+/(resolve|presign)/"
)
TASK_FIELDS = ("id", "project", "data", "annotations")
ANNOTATION_FIELDS = ("id", "result", "was_cancelled", "ground_truth", "completed_by", "created_at", "updated_at")
HAS_ANNOTATIONS = {
    "filters": {
        "conjunction": "and",
        "items": [{"filter": "filter:tasks:total_annotations", "operator": "greater", "type": "Number", "value": 0}],
    }
}

# What a server says instead of sending a video: a login page, an error in an answer that claims success.
NOT_MEDIA = ("text/html", "application/json")

TOKEN_ADVICE = (
    "Set LABEL_STUDIO_API_KEY to a personal access token (Label Studio: Account & Settings, Personal Access Token) and "
    "LABEL_STUDIO_URL to Label Studio's address. Legacy tokens, the kind that Label Studio passes on by itself, are "
    "switched off by default."
)
LOCAL_FILES_ADVICE = (
    "It serves local files only with LOCAL_FILES_SERVING_ENABLED=true and a local storage in the project. Or give "
    "this backend the same folder: LOCAL_FILES_DOCUMENT_ROOT."
)

NOT_THE_API = "the answer isn't one of Label Studio's API. Is LABEL_STUDIO_URL its address?"


class LabelStudioError(BackendError):
    """Label Studio's API can't be reached or refuses."""

    status = 502


@dataclass(frozen=True)
class Connection:
    """Where Label Studio is, and who is asking.

    Attributes:
        url: its address, such as `https://label-studio.example.com`, or None where it isn't known.
        api_key: a personal access token or a legacy token, or None.
    """

    url: str | None
    api_key: str | None


def choose_connection(environment: Connection, setup: Connection) -> Connection:
    """The environment's address and key where given, else those that `/setup` brought.

    A key from the environment never goes to an address from `/setup`: whoever can call that route could name their own
    host there and be sent the key.

    Args:
        environment: LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY.
        setup: `hostname` and `access_token` of the request.
    """
    if environment.url:
        return Connection(environment.url, environment.api_key or setup.api_key)
    return setup


# Media


def local_path(
    value: str, connection: Connection, *, document_root: Path | None, cache_dir: Path, task_id: int | None = None
) -> Path:
    """The file behind a task's video, downloaded first where needed.

    Downloads stay in `cache_dir` under a name made from their URL, which is taken to mean the same video for ever; a
    new signed link to a video that is already there is another URL and is downloaded again. A file appears there
    complete or not at all, also when several threads or processes download it at once.

    Args:
        value: a path inside `document_root`; `/data/upload/…`, `/data/local-files/?d=…` or another path that Label
            Studio serves; a cloud URI (`s3://`, `gs://`, `azure-blob://`); or an http(s) URL.
        connection: the Label Studio that the task belongs to. Its key goes to no other host.
        document_root: the only folder that paths are read from (LOCAL_FILES_DOCUMENT_ROOT), or None for none.
        cache_dir: the folder of downloads; made when missing.
        task_id: the task's id, by which Label Studio resolves a cloud URI.

    Raises:
        MediaError: it can't be had; the message says why and how to mend it.
    """
    path, url = _locate(value, connection, document_root, cache_dir, task_id)
    if url is not None and not path.exists():
        _download(url, path, connection)
    return path


def find_local_path(
    value: str, connection: Connection, *, document_root: Path | None, cache_dir: Path, task_id: int | None = None
) -> Path | None:
    """As `local_path`, but None where a download would be needed: never waits for the network."""
    path, _ = _locate(value, connection, document_root, cache_dir, task_id)
    return path if path.exists() else None


def _locate(
    value: str, connection: Connection, document_root: Path | None, cache_dir: Path, task_id: int | None
) -> tuple[Path, str | None]:
    """The file's place on disk, and the URL to fill it from, or None where it must be there already."""
    if not isinstance(value, str) or not value:
        raise MediaError(f"The task's video must be a path or a URL, not {value!r}.")
    scheme, separator, _ = value.partition("://")
    scheme = scheme.lower() if separator else ""
    if scheme in ("http", "https"):
        return _cache_path(cache_dir, value, value), value
    if scheme in CLOUD_SCHEMES:
        url = _label_studio_url(connection, _presign_path(value, task_id))
        return _cache_path(cache_dir, f"{connection.url} {value}", value), url
    if scheme:
        raise MediaError(f"{value}: use a path, an http(s) URL, s3://, gs:// or azure-blob://.")

    served = value.removeprefix(_path_prefix(connection))
    if SERVED_BY_LABEL_STUDIO.match(served):
        path = _inside(document_root, _local_files_path(served)) if document_root else None
        if path is not None:
            return path, None
        url = _label_studio_url(connection, served)
        return _cache_path(cache_dir, url, served), url

    if document_root is None:
        raise MediaError(f"{value}: a path is read only inside LOCAL_FILES_DOCUMENT_ROOT, which isn't set.")
    path = _inside(document_root, value)
    if path is None:
        raise MediaError(f"{value}: no such file in LOCAL_FILES_DOCUMENT_ROOT.")
    return path, None


def _presign_path(uri: str, task_id: int | None) -> str:
    """Where Label Studio answers with the bytes of a cloud URI, or with a redirect to a signed URL."""
    if task_id is None:
        raise MediaError(f"{uri}: Label Studio resolves a cloud URI by its task, and the task has no id.")
    return f"/tasks/{task_id}/presign/?fileuri={base64.urlsafe_b64encode(uri.encode()).decode()}"


def _path_prefix(connection: Connection) -> str:
    """`/sub` of a Label Studio at `https://example.com/sub`: its tasks name their uploads `/sub/data/upload/…`."""
    path = (connection.url or "").partition("://")[2].partition("/")[2]
    return f"/{path}".rstrip("/")


def _label_studio_url(connection: Connection, path: str) -> str:
    if not connection.url:
        raise MediaError(f"{path}: Label Studio's address isn't known. Set LABEL_STUDIO_URL.")
    return connection.url.rstrip("/") + path


def _local_files_path(served: str) -> str:
    """The path in `/data/local-files/?d=…`, relative to the document root, as Label Studio reads it; "" for none."""
    return parse_qs(urlsplit(served).query).get("d", [""])[-1].lstrip("/")


def _inside(root: Path, path: str) -> Path | None:
    """The file at `path`, absolute or relative to `root`; None where it is missing or, links followed, outside."""
    try:
        resolved = (root / path).resolve()
        return resolved if resolved.is_relative_to(root.resolve()) and resolved.is_file() else None
    except (OSError, RuntimeError, ValueError):  # a name too long, a loop of links, a null character
        return None


def _cache_path(cache_dir: Path, key: str, name: str) -> Path:
    """Where the download of `key` is kept; the suffix in `name` stays, for those who look into the folder."""
    suffix = re.search(r"\.\w{1,8}(?=[?&]|$)", name)
    return cache_dir / (hashlib.sha256(key.encode()).hexdigest()[:32] + (suffix.group() if suffix else ""))


# Downloading


def _download(url: str, target: Path, connection: Connection) -> None:
    """Download into a temporary file, and rename it to `target` when it is complete."""
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale_parts(target.parent)
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=target.stem, suffix=".part")
    try:
        with os.fdopen(descriptor, "wb") as part:
            _fetch(url, part, connection)
        os.replace(name, target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _remove_stale_parts(folder: Path) -> None:
    for part in folder.glob("*.part"):
        try:
            if time.time() - part.stat().st_mtime > STALE_PART_SECONDS:
                part.unlink()
        except FileNotFoundError:  # its own process was quicker
            pass


class _Extent(NamedTuple):
    """Which part of a file an answer holds, and what identifies that file."""

    start: int
    total: int | None
    etag: str | None


def _fetch(url: str, part: BinaryIO, connection: Connection) -> None:
    """Write all that `url` holds to `part`, going on where a lost connection left off.

    Asks for ranges: Label Studio's built-in server names the length of an upload only in answer to one, and without a
    length a lost connection looks like the end of the file. Label Studio also cuts off after 20 seconds what it passes
    on from a cloud.
    """
    headers = {"Accept-Encoding": "identity"}
    with _explained(_shown(url), MediaError):
        if connection.api_key and _origin(url) == _origin(connection.url):
            headers["Authorization"] = _authorization(connection)
        # httpx takes the Authorization header off where a redirect leads to another host.
        with httpx.Client(timeout=TIMEOUT, follow_redirects=True, headers=headers) as client:
            first: _Extent | None = None
            while first is None or part.tell() != first.total:
                start = part.tell()
                with client.stream("GET", url, headers={"Range": f"bytes={start}-"}) as response:
                    _check_media(response, connection)
                    extent = _extent(response)
                    first = first or extent
                    if extent != first._replace(start=start):
                        raise MediaError(f"{_shown(url)} broke off after {start} bytes and can't be continued.")
                    lost = _copy(response, part)
                if first.total is None and not lost:
                    break
                if part.tell() == start and start != first.total:
                    raise MediaError(f"{_shown(url)} broke off after {start} bytes{lost}.")
    if part.tell() == 0:
        raise MediaError(f"{_shown(url)} is empty.")


def _copy(response: httpx.Response, part: BinaryIO) -> str:
    """Write the answer's body to `part`. Returns how the connection was lost, "" where it wasn't."""
    try:
        for chunk in response.iter_bytes(CHUNK_BYTES):
            part.write(chunk)
    except (httpx.RemoteProtocolError, httpx.ReadError, httpx.ReadTimeout) as error:
        return f" ({error})"
    return ""


def _extent(response: httpx.Response) -> _Extent:
    etag = response.headers.get("ETag")
    content_range = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
    if response.status_code == httpx.codes.PARTIAL_CONTENT and content_range:
        start, total = content_range.groups()
        return _Extent(int(start), None if total == "*" else int(total), etag)
    length = response.headers.get("Content-Length")
    return _Extent(0, int(length) if length else None, etag)


def _check_media(response: httpx.Response, connection: Connection) -> None:
    """Raise MediaError unless the answer holds a file."""
    shown = _shown(str(response.url))
    status = response.status_code
    if status in (401, 403) and connection.url and _origin(str(response.url)) == _origin(connection.url):
        hint = LOCAL_FILES_ADVICE if status == 403 and "/data/local-files" in shown else TOKEN_ADVICE
        raise MediaError(f"{shown}: Label Studio refuses access ({status}). {hint}")
    if status == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
        raise MediaError(f"{shown} is empty.")
    if not response.is_success:
        raise MediaError(f"{shown} can't be downloaded: the server answers {status} {response.reason_phrase}.")
    media_type = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if media_type in NOT_MEDIA:
        raise MediaError(f"{shown} is no video: the server answers {media_type}, perhaps a login page.")


def _origin(url: str) -> tuple[str, str, int | None]:
    """Scheme, host and port: what must agree for a key to be sent."""
    parsed = httpx.URL(url)
    return parsed.scheme, parsed.host, parsed.port


def _shown(url: str) -> str:
    """The URL as messages show it: the query of a signed link is a secret; a local file's path isn't, and names it."""
    return url if "/data/local-files" in url else url.partition("?")[0]


# The API


@lru_cache(maxsize=8)
def _client(connection: Connection) -> LabelStudio:
    """The SDK's client, kept because it holds the short-lived token that it got for a personal access token."""
    if not connection.url:
        raise LabelStudioError("Label Studio's address isn't known. Set LABEL_STUDIO_URL.")
    if not connection.api_key:
        raise LabelStudioError(f"No key for Label Studio's API. {TOKEN_ADVICE}")
    # The slash at the end: without it the SDK asks for tokens beside a path prefix instead of below it.
    return LabelStudio(
        base_url=connection.url.rstrip("/") + "/",
        api_key=connection.api_key,
        httpx_client=httpx.Client(timeout=TIMEOUT, follow_redirects=True),
    )


def _authorization(connection: Connection) -> str:
    """The header's value for this key; a personal access token is exchanged first."""
    # The SDK has no public way to ask for it; its version is pinned.
    return _client(connection)._client_wrapper.get_headers()["Authorization"]


def annotated_tasks(
    connection: Connection, project_id: int, progress: Callable[[int, int], None] | None = None
) -> Iterator[dict[str, Any]]:
    """The project's tasks that have annotations, page by page.

    Args:
        connection: Label Studio, with a key.
        project_id: the project's id there.
        progress: called with the number of tasks so far and the number of all, first with (0, all).

    Yields:
        {"id", "project", "data", "annotations"}, the annotations with ANNOTATION_FIELDS, skipped ones (`was_cancelled`)
        among them; cloud URIs in the data unresolved, as in a webhook.

    Raises:
        LabelStudioError: it can't be reached or refuses, or the tasks changed while they were read.
    """
    with _explained(f"Annotations of project {project_id}", LabelStudioError):
        pages = _client(connection).tasks.list(
            project=project_id,
            fields="all",
            # One list for both levels: Label Studio thins out the annotations by the same names.
            include=",".join({*TASK_FIELDS, *ANNOTATION_FIELDS}),
            query=json.dumps(HAS_ANNOTATIONS),
            resolve_uri=False,
            page_size=TASKS_PER_PAGE,
        )
        done, total = 0, pages.response.total
        if progress:
            progress(done, total)
        for task in pages:
            yield {field: getattr(task, field) for field in TASK_FIELDS}
            done += 1
            if progress:
                progress(done, total)
    # The SDK takes an error on a later page for the end.
    if done < total:
        raise LabelStudioError(
            f"Annotations of project {project_id}: {total} tasks announced, {done} received. Try again."
        )


def prediction_versions(connection: Connection, task_id: int) -> set[str]:
    """The model versions of the predictions that Label Studio has for a task.

    Raises:
        LabelStudioError: it can't be reached or refuses.
    """
    with _explained(f"Predictions of task {task_id}", LabelStudioError):
        return {str(prediction.model_version) for prediction in _client(connection).predictions.list(task=task_id)}


def create_prediction(
    connection: Connection, task_id: int, result: list[dict[str, Any]], score: float, model_version: str
) -> int:
    """Store a prediction in Label Studio, as if it had asked for it.

    Returns:
        its id there.

    Raises:
        LabelStudioError: it can't be reached or refuses.
    """
    with _explained(f"Prediction for task {task_id}", LabelStudioError):
        prediction = _client(connection).predictions.create(
            task=task_id,
            result=result,
            score=score,
            model_version=model_version,
            # Not repeated: after a lost answer that would store it twice.
            request_options={"max_retries": 0},
        )
    return prediction.id


@contextmanager
def _explained(subject: str, error_type: type[BackendError]) -> Iterator[None]:
    """Turn the errors of the SDK and of the network into `error_type` with a sentence about `subject`."""
    try:
        yield
    except ApiError as error:
        raise error_type(f"{subject}: {_api_sentence(error)}") from error
    except httpx.InvalidURL as error:
        raise error_type(f"{subject}: not a URL ({error}).") from error
    except httpx.TimeoutException as error:
        raise error_type(f"{subject}: no answer in time from {error.request.url.host}.") from error
    except httpx.HTTPError as error:
        raise error_type(
            f"{subject}: no connection ({error}). Check that this machine can reach the address."
        ) from error
    except json.JSONDecodeError as error:
        raise error_type(f"{subject}: {NOT_THE_API}") from error


def _api_sentence(error: ApiError) -> str:
    if error.status_code in (401, 403):
        return f"Label Studio refuses the key ({error.status_code}). {TOKEN_ADVICE}"
    detail = error.body.get("detail") if isinstance(error.body, dict) else None
    if error.status_code == 404:
        return f"Label Studio knows no such thing (404{', ' + detail if detail else ''})."
    if error.status_code and error.status_code < 400:
        return NOT_THE_API
    return f"Label Studio answers {error.status_code}{': ' + detail if detail else ''}."
