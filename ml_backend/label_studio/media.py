"""Find the media files of Label Studio's tasks on disk, and download them where needed.

`media_gate.py` decides what may be fetched. The SDK's `get_local_path` isn't used, for four reasons: it opens its cache
file before the body arrives and trusts it the next time, so that a lost connection leaves a truncated video for good;
it sends a personal access token in a form that Label Studio refuses; it holds the whole video in memory; and it has no
timeout.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple
from urllib.parse import parse_qs, urlsplit

import httpx

from errors import MediaError, TransientMediaError
from features.cache_folder import CacheFolder
from ml_backend.label_studio.client import TOKEN_ADVICE, Connection, explained, redirect_advice
from ml_backend.label_studio.media_gate import Hop, MediaGate, identity, is_media_path, shown

# A running server accepts a connection at once; a storage may pause between two packets.
TIMEOUT = httpx.Timeout(30, connect=5)
MAX_REDIRECTS = 5
# The bounds of a download. One that is slower than this over half a minute would hold a worker slot for nothing.
LEAST_RATE, RATE_WINDOW = 10_000, 30.0  # bytes a second, seconds
MAX_SECONDS = 6 * 3600.0
FREE_DISK = 1 << 28  # bytes that stay free, for the database and the models
ROOM_STEP = 1 << 26  # bytes that are reserved at once where the length isn't known

CLOUD_SCHEMES = ("s3", "gs", "azure-blob")
# Media types of answers that hold no video: a login page, or an error with a success status.
NOT_MEDIA = ("text/html", "application/json")
TRY_AGAIN = (408, 425, 429)  # and every 5xx: the same request may succeed later

LOCAL_FILES_ADVICE = (
    "It serves local files only with LOCAL_FILES_SERVING_ENABLED=true and a local storage in the project. Or give "
    "this backend the same folder: LOCAL_FILES_DOCUMENT_ROOT."
)
# By status, for what servers other than Label Studio answer.
REFUSED = " The backend logs in to Label Studio alone: use a link that needs no login, or one with a valid signature."
MISSING = " Correct the address in the task's data."
ADVICE = {401: REFUSED, 403: REFUSED, 404: MISSING, 410: MISSING}


@dataclass(frozen=True)
class MediaFiles:
    """Finds the files of tasks.

    Attributes:
        document_root: the only folder from which paths are read (LOCAL_FILES_DOCUMENT_ROOT), or None.
        cache: keeps downloads in its folder `media`.
        allowed_hosts: MEDIA_ALLOWED_HOSTS.
    """

    document_root: Path | None
    cache: CacheFolder
    allowed_hosts: Collection[str] = ()

    def get(
        self,
        value: str,
        connection: Connection,
        task_id: int | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> Path:
        """Returns the file of a task's video, after a download where needed.

        A download's name is a hash of its URL, which is taken to mean the same video until `remove`. The file appears
        complete or not at all, also where several threads or processes download it at once.

        Args:
            value: a path inside the document root; `/data/upload/…`, `/data/local-files/?d=…` or another path that
                Label Studio serves, with or without one of its names before it; a cloud URI (`s3://`, `gs://`,
                `azure-blob://`); or an http(s) URL.
            connection: the Label Studio that the task belongs to.
            task_id: the task's id, by which Label Studio resolves a cloud URI.
            check: called regularly during a download; an exception that it raises ends the download.

        Raises:
            MediaError: the file can't be found or downloaded; the message says why, and what to do.
        """
        path, url = self._locate(value, connection, task_id)
        if url is not None:
            if not path.exists():
                with self.cache.writing():
                    self._download(url, path, MediaGate(connection, self.allowed_hosts), check)
            with suppress(OSError):  # The cache drops the least recently used files, by their access time.
                os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))
        return path

    def place(self, value: str, connection: Connection, task_id: int | None = None) -> Path:
        """Returns the path that `get` would return, without a download: the file may be missing."""
        return self._locate(value, connection, task_id)[0]

    def find(self, value: str, connection: Connection, task_id: int | None = None) -> Path | None:
        """Returns the file as `get` does, or None where a download would be needed."""
        path = self.place(value, connection, task_id)
        return path if path.exists() else None

    def remove(self, value: str, connection: Connection, task_id: int | None = None) -> None:
        """Remove the download of a task's video. A file that is read in place stays."""
        path, url = self._locate(value, connection, task_id)
        if url is not None:
            path.unlink(missing_ok=True)

    def _locate(self, value: str, connection: Connection, task_id: int | None) -> tuple[Path, str | None]:
        """Returns the file's path, and the URL to download it from, None where it is read in place."""
        if not isinstance(value, str) or not value:
            raise MediaError(f"The task's video must be a path or a URL, not {value!r}.")
        if any("\ud800" <= character <= "\udfff" for character in value):
            raise MediaError("The task's video has half of a surrogate pair, which is no character: correct it.")
        scheme, separator, _ = value.partition("://")
        scheme = scheme.lower() if separator else ""
        served = None if scheme in CLOUD_SCHEMES else MediaGate(connection).own_path(value)
        if served is not None:
            path = _inside(self.document_root, _local_files_path(served)) if self.document_root else None
            if path is not None:
                return path, None
            url = _label_studio_url(connection, served)
            return self._cache_path(url, served), url
        if scheme in ("http", "https"):
            return self._cache_path(identity(value), value), value
        if scheme in CLOUD_SCHEMES:
            url = _label_studio_url(connection, _presign_path(value, task_id))
            return self._cache_path(f"{connection.url} {value}", value), url
        if scheme:
            raise MediaError(f"{shown(value)}: use a path, an http(s) URL, s3://, gs:// or azure-blob://.")
        if self.document_root is None:
            raise MediaError(f"{value}: a path is read only inside LOCAL_FILES_DOCUMENT_ROOT, which isn't set.")
        path = _inside(self.document_root, value)
        if path is None:
            raise MediaError(f"{value}: no such file in LOCAL_FILES_DOCUMENT_ROOT.")
        return path, None

    def _cache_path(self, key: str, name: str) -> Path:
        """The path of the download of `key`, with the suffix of `name` for people who look into the folder."""
        suffix = re.search(r"\.\w{1,8}(?=[?&]|$)", name)
        return self.cache.media / (hashlib.sha256(key.encode()).hexdigest()[:32] + (suffix.group() if suffix else ""))

    def _download(self, url: str, target: Path, gate: MediaGate, check: Callable[[], None]) -> None:
        """Download into the folder of unfinished work, then rename the complete file to `target`."""
        self.cache.make()
        descriptor, name = tempfile.mkstemp(dir=self.cache.unfinished, suffix=".part")
        try:
            with os.fdopen(descriptor, "wb") as part, explained(shown(url), MediaError, TransientMediaError):
                _Download(url, part, gate, self.cache, check).run()
            os.replace(name, target)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def _presign_path(uri: str, task_id: int | None) -> str:
    """The path at which Label Studio answers with the bytes of a cloud URI, or redirects to a signed URL."""
    if task_id is None:
        raise MediaError(f"{uri}: Label Studio resolves a cloud URI by its task, and the task has no id.")
    return f"/tasks/{task_id}/presign/?fileuri={base64.urlsafe_b64encode(uri.encode()).decode()}"


def _label_studio_url(connection: Connection, path: str) -> str:
    if not connection.url:
        raise MediaError(f"{path}: Label Studio's address isn't known. Set LABEL_STUDIO_URL.")
    return connection.url.rstrip("/") + path


def _local_files_path(served: str) -> str:
    """The path in `/data/local-files/?d=…`, relative to the document root; "" where there is none."""
    return parse_qs(urlsplit(served).query).get("d", [""])[-1].lstrip("/")


def _inside(root: Path, path: str) -> Path | None:
    """The file at `path`, absolute or relative to `root`; None where it is missing or, links followed, outside."""
    try:
        resolved = (root / path).resolve()
        return resolved if resolved.is_relative_to(root.resolve()) and resolved.is_file() else None
    except (OSError, RuntimeError, ValueError):  # a name too long, a loop of links, a null character
        return None


class _Extent(NamedTuple):
    """The part of a file that an answer holds, and the file's identity."""

    start: int
    total: int | None
    etag: str | None


class _Download:
    """Downloads one file within bounds of time, rate, size and disk.

    It asks for ranges, for two reasons. Label Studio's built-in server names the length of an upload only in answer to
    a range, and without a length a lost connection looks like the end of the file. And Label Studio cuts off after 20
    seconds what it passes on from a cloud.
    """

    def __init__(
        self, url: str, part: BinaryIO, gate: MediaGate, cache: CacheFolder, check: Callable[[], None]
    ) -> None:
        self._url = httpx.URL(url)
        self._shown = shown(url)
        self._part, self._gate, self._cache, self._check = part, gate, cache, check
        self._started = self._window_start = time.monotonic()
        self._window_bytes = 0  # received when the window began
        self._reserved = 0

    def run(self) -> None:
        """Write the whole file, and continue where a lost connection ended."""
        first: _Extent | None = None
        while first is None or self._part.tell() != first.total:
            start = self._part.tell()
            with self._answer(start) as response:
                extent = _extent(response)
                first = first or extent
                if extent != first._replace(start=start):
                    raise TransientMediaError(f"{self._shown} broke off after {start} bytes and can't be continued.")
                self._make_room(extent.total or 0)
                lost = self._copy(response)
            if first.total is None and not lost:
                break
            if self._part.tell() == start and start != first.total:
                raise TransientMediaError(f"{self._shown} broke off after {start} bytes{lost}.")
        if self._part.tell() == 0:
            raise MediaError(f"{self._shown} is empty.")

    @contextmanager
    def _answer(self, start: int) -> Iterator[httpx.Response]:
        """Opens the answer that holds the file from `start` on, after all redirects."""
        url = self._url
        for _ in range(MAX_REDIRECTS + 1):
            self._check()
            hop = self._gate.admit(url)
            headers = hop.headers | {"Accept-Encoding": "identity", "Range": f"bytes={start}-"}
            with (
                httpx.Client(timeout=TIMEOUT, trust_env=False, proxy=hop.proxy, verify=_certificates(url)) as client,
                client.stream("GET", hop.url, headers=headers, extensions=hop.extensions) as response,
            ):
                if not response.has_redirect_location:
                    _check_media(response, url, hop)
                    yield response
                    return
                url = self._next(url, response.headers["Location"], hop)
        raise MediaError(f"{self._shown} leads through more than {MAX_REDIRECTS} redirects.")

    @staticmethod
    def _next(url: httpx.URL, location: str, hop: Hop) -> httpx.URL:
        following = url.join(location)
        served = following.raw_path.decode()
        if hop.is_label_studio and "Authorization" in hop.headers and served.endswith(url.raw_path.decode()):
            raise MediaError(f"{shown(url)}: {redirect_advice(str(url), str(following))}")
        return following

    def _copy(self, response: httpx.Response) -> str:
        """Write the answer's body. Returns why the connection was lost, "" where it wasn't."""
        try:
            for chunk in response.iter_raw():
                self._check()
                self._keep_to_time()
                self._make_room(self._part.tell() + len(chunk))
                self._part.write(chunk)
        except (httpx.RemoteProtocolError, httpx.ReadError, httpx.ReadTimeout) as error:
            return f" ({error})"
        return ""

    def _keep_to_time(self) -> None:
        now, done = time.monotonic(), self._part.tell()
        if now - self._started > MAX_SECONDS:
            raise MediaError(
                f"{self._shown}: the download was given up after {done} bytes and {MAX_SECONDS / 3600:.0f} hours."
            )
        if now - self._window_start > RATE_WINDOW:
            if (done - self._window_bytes) / (now - self._window_start) < LEAST_RATE:
                raise MediaError(
                    f"{self._shown} comes slower than {LEAST_RATE // 1000} kB a second. It was given up after {done} "
                    "bytes."
                )
            self._window_start, self._window_bytes = now, done

    def _make_room(self, size: int) -> None:
        """Make room for the file's first `size` bytes, unless it was made before."""
        if size > self._cache.limit:
            raise MediaError(
                f"{self._shown} is larger than {self._cache.limit} bytes, the limit of the cache. Raise "
                "CACHE_SIZE_LIMIT, or give the backend the folder of the videos: LOCAL_FILES_DOCUMENT_ROOT."
            )
        if size <= self._reserved:
            return
        # A declared length isn't believed beyond one step, so that nothing is dropped for bytes that never come.
        step = min(max(size - self._reserved, 0), ROOM_STEP)
        free = self._cache.free_disk()
        if free < step + FREE_DISK:
            raise TransientMediaError(f"{self._shown}: the disk of the cache has only {free} bytes left. Free some.")
        self._cache.make_room(step)
        self._reserved += step


def _certificates(url: httpx.URL) -> object:
    """The trusted certificates: the machine's, or those of SSL_CERT_FILE and SSL_CERT_DIR."""
    return httpx.create_ssl_context(trust_env=True) if url.scheme == "https" else False


def _extent(response: httpx.Response) -> _Extent:
    etag = response.headers.get("ETag")
    content_range = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
    if response.status_code == httpx.codes.PARTIAL_CONTENT and content_range:
        start, total = content_range.groups()
        return _Extent(int(start), None if total == "*" else int(total), etag)
    length = response.headers.get("Content-Length", "")
    return _Extent(0, int(length) if length.isdecimal() else None, etag)


def _check_media(response: httpx.Response, url: httpx.URL, hop: Hop) -> None:
    """Raise MediaError unless the answer holds a media file."""
    name, status = shown(url), response.status_code
    if status in (401, 403) and hop.is_label_studio:
        local_files = is_media_path(url.raw_path.decode()) and "/data/local-files" in name
        hint = LOCAL_FILES_ADVICE if status == 403 and local_files else TOKEN_ADVICE
        raise MediaError(f"{name}: Label Studio refuses access ({status}). {hint}")
    if status == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
        raise MediaError(f"{name} is empty.")
    if not response.is_success:
        kind = TransientMediaError if status >= 500 or status in TRY_AGAIN else MediaError
        advice = "" if hop.is_label_studio else ADVICE.get(status, "")
        raise kind(f"{name} can't be downloaded: the server answers {status} {response.reason_phrase}.{advice}")
    if response.headers.get("Content-Encoding", "identity").lower() not in ("", "identity"):
        raise MediaError(f"{name} comes compressed, though the plain file was asked for: change the server's settings.")
    media_type = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if media_type in NOT_MEDIA:
        raise MediaError(f"{name} is no video: the server answers with {media_type}, perhaps a login page.")
