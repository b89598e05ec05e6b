"""The media of Label Studio's tasks: finding a file on disk, downloading it where that is needed.

The download is our own. The SDK's `get_local_path` opens its cache file before the body arrives and trusts whatever is
there the next time, so a connection lost half-way leaves a truncated video for good; it sends a personal access token
as it is, which Label Studio refuses; it holds the whole video in memory; and it waits for ever.
"""

import base64
import hashlib
import os
import re
import tempfile
import time
from pathlib import Path
from typing import BinaryIO, NamedTuple
from urllib.parse import parse_qs, urlsplit

import httpx

from errors import MediaError
from ml_backend.label_studio import TIMEOUT, TOKEN_ADVICE, Connection, authorization, explained

CHUNK_BYTES = 1 << 20
# A running download writes at least once per read timeout; a partial file that rests for longer is a killed process's.
STALE_PART_SECONDS = 10 * TIMEOUT.read

CLOUD_SCHEMES = ("s3", "gs", "azure-blob")
# What Label Studio serves itself: uploads, local files, its storage proxy, and cloud URIs it has already resolved.
SERVED_BY_LABEL_STUDIO = re.compile(
    r"/data/upload/|/data/local-files/?\?|/storage-data/|/(tasks|projects)/\d+/(resolve|presign)/"
)
# What a server says instead of sending a video: a login page, an error in an answer that claims success.
NOT_MEDIA = ("text/html", "application/json")

LOCAL_FILES_ADVICE = (
    "It serves local files only with LOCAL_FILES_SERVING_ENABLED=true and a local storage in the project. Or give "
    "this backend the same folder: LOCAL_FILES_DOCUMENT_ROOT."
)


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
    with explained(_shown(url), MediaError):
        if connection.api_key and _origin(url) == _origin(connection.url):
            headers["Authorization"] = authorization(connection)
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
