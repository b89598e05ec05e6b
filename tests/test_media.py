"""Media, downloaded from real small HTTP servers. The real Label Studio is in tests/live/."""

import base64
import contextlib
import gzip
import os
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import jwt
import pytest

import ml_backend.label_studio.media
from errors import MediaError, TransientMediaError
from features.cache_folder import CacheFolder
from ml_backend.label_studio.client import Connection
from ml_backend.label_studio.media import MediaFiles
from tests.http_server import (
    CONTENT,
    Answer,
    Server,
    as_json,
    guarded,
    ranges,
    redirect,
    send,
    status,
    whole_file,
)

# The SDK's own.
pytestmark = pytest.mark.filterwarnings("ignore:The `parse_obj` method is deprecated")

KEY = "0123456789abcdef0123456789abcdef01234567"
UPLOAD = "/data/upload/1/3f2a-clip.mp4"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A document root with `videos/clip.mp4`, a secret beside it, and links inside and outside."""
    root = tmp_path / "root"
    (root / "videos").mkdir(parents=True)
    (root / "videos" / "clip.mp4").write_bytes(CONTENT)
    (tmp_path / "secret.mp4").write_bytes(b"secret")
    (root / "link.mp4").symlink_to(root / "videos" / "clip.mp4")
    (root / "escape.mp4").symlink_to(tmp_path / "secret.mp4")
    (root / "loop.mp4").symlink_to(root / "loop.mp4")
    return root


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def unused_port() -> int:
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as closed:
        return closed.server_port


def fetch(value: str, server: Server, cache: Path, *, key: str | None = KEY, root: Path | None = None) -> Path:
    return files(cache, root).get(value, Connection(server.url, key), task_id=7)


def files(
    cache: Path, root: Path | None = None, *, limit: int = 10**9, allowed: tuple[str, ...] = ("127.0.0.1",)
) -> MediaFiles:
    """Media below a folder. The tests' servers are on this machine, which is a private address."""
    return MediaFiles(root, CacheFolder(cache, limit), allowed)


def kept(cache: Path) -> list[Path]:
    """What is left of downloads, unfinished ones too."""
    return [path for path in cache.rglob("*") if path.is_file()]


# Paths


@pytest.mark.parametrize("name", ["videos/clip.mp4", "videos/../videos/clip.mp4", "link.mp4", "{root}/videos/clip.mp4"])
def test_path_inside_the_document_root_is_read_in_place(name: str, server: Server, root: Path, cache: Path) -> None:
    path = fetch(name.format(root=root), server, cache, root=root)
    assert path == root / "videos" / "clip.mp4"
    assert not cache.exists()


@pytest.mark.parametrize(
    "name",
    [
        "../secret.mp4",
        "videos/../../secret.mp4",
        "{root}/../secret.mp4",
        "{outside}/secret.mp4",
        "escape.mp4",
        "/etc/passwd",
        "videos",
        "loop.mp4",
        "clip\0.mp4",
        "x" * 5000,
        ".",
    ],
)
def test_path_outside_is_refused_as_if_it_were_missing(name: str, server: Server, root: Path, cache: Path) -> None:
    value = name.format(root=root, outside=root.parent)
    with pytest.raises(MediaError) as refused:
        fetch(value, server, cache, root=root)
    with pytest.raises(MediaError) as missing:
        fetch("videos/missing.mp4", server, cache, root=root)
    assert str(refused.value).replace(value, "…", 1) == str(missing.value).replace("videos/missing.mp4", "…")
    assert refused.value.status == 404


def test_path_without_a_document_root_names_the_setting(server: Server, root: Path, cache: Path) -> None:
    with pytest.raises(MediaError, match="LOCAL_FILES_DOCUMENT_ROOT"):
        fetch(str(root / "videos" / "clip.mp4"), server, cache, root=None)


@pytest.mark.parametrize("value", ["", None, 7, ["a.mp4"], "ftp://host/a.mp4", "file:///etc/passwd"])
def test_value_of_another_kind_is_refused(value: object, server: Server, root: Path, cache: Path) -> None:
    with pytest.raises(MediaError):
        fetch(value, server, cache, root=root)  # type: ignore[arg-type]


def test_local_files_are_read_from_the_document_root(server: Server, root: Path, cache: Path) -> None:
    assert fetch("/data/local-files/?d=videos%2Fclip.mp4", server, cache, root=root) == root / "videos" / "clip.mp4"
    assert server.requests == []


@pytest.mark.parametrize("name", ["elsewhere/clip.mp4", "../secret.mp4", "escape.mp4"])
def test_local_files_not_in_the_document_root_are_downloaded(
    name: str, server: Server, root: Path, cache: Path
) -> None:
    server.answers["/data/local-files/"] = guarded(f"Token {KEY}", ranges())
    path = fetch(f"/data/local-files/?d={name}", server, cache, root=root)
    assert path.read_bytes() == CONTENT
    assert parse_qs(urlsplit(server.requests[0][0]).query) == {"d": [name]}


def test_local_files_that_label_studio_does_not_serve(server: Server, cache: Path) -> None:
    server.answers["/data/local-files/"] = status(403, "text/html")
    with pytest.raises(MediaError, match="LOCAL_FILES_SERVING_ENABLED"):
        fetch("/data/local-files/?d=a.mp4", server, cache)


# Downloads from Label Studio


def test_upload_is_downloaded_once_with_a_legacy_token(server: Server, cache: Path) -> None:
    server.answers[UPLOAD] = guarded(f"Token {KEY}", ranges())
    connection = Connection(server.url, KEY)
    assert files(cache).find(UPLOAD, connection) is None
    path = fetch(UPLOAD, server, cache)
    assert path.read_bytes() == CONTENT
    assert path.suffix == ".mp4"
    assert fetch(UPLOAD, server, cache) == path
    assert files(cache).find(UPLOAD, connection) == path
    assert len(server.requests) == 1


def token(kind: str) -> str:
    """A JWT as Label Studio's; a personal access token is of the kind "refresh"."""
    return jwt.encode({"token_type": kind, "exp": int(time.time()) + 300}, "a secret of at least thirty-two bytes")


def test_personal_access_token_is_exchanged_and_never_sent_itself(server: Server, cache: Path) -> None:
    refresh, access = token("refresh"), token("access")
    server.answers["/api/token/refresh/"] = as_json({"access": access})
    server.answers[UPLOAD] = guarded(f"Bearer {access}", ranges())
    assert fetch(UPLOAD, server, cache, key=refresh).read_bytes() == CONTENT
    assert all(refresh not in (header or "") for header in server.headers("Authorization"))


def test_revoked_personal_access_token_is_explained(server: Server, cache: Path) -> None:
    server.answers["/api/token/refresh/"] = status(401)
    with pytest.raises(MediaError, match=r"LABEL_STUDIO_API_KEY.*personal access token"):
        fetch(UPLOAD, server, cache, key=token("refresh"))


@pytest.mark.parametrize("code", [401, 403])
@pytest.mark.parametrize("key", [KEY, None])
def test_refused_access_names_the_setting_and_the_kind_of_token(
    code: int, key: str | None, server: Server, cache: Path
) -> None:
    server.answers[UPLOAD] = status(code)
    with pytest.raises(MediaError, match=r"LABEL_STUDIO_API_KEY.*personal access token"):
        fetch(UPLOAD, server, cache, key=key)
    assert kept(cache) == []


def test_label_studio_below_a_path(server: Server, cache: Path) -> None:
    access = token("access")
    server.answers["/sub/api/token/refresh/"] = as_json({"access": access})
    server.answers[f"/sub{UPLOAD}"] = guarded(f"Bearer {access}", ranges())
    connection = Connection(f"{server.url}/sub", token("refresh"))
    for value in (UPLOAD, f"/sub{UPLOAD}"):
        path = files(cache).get(value, connection)
        assert path.read_bytes() == CONTENT


def test_upload_without_a_known_address(cache: Path) -> None:
    with pytest.raises(MediaError, match="LABEL_STUDIO_URL"):
        files(cache).get(UPLOAD, Connection(None, None))


def test_login_page_is_no_video(server: Server, cache: Path) -> None:
    server.answers[UPLOAD] = redirect("/user/login/")
    server.answers["/user/login/"] = status(200, "text/html; charset=utf-8", b"<html>Log in</html>")
    with pytest.raises(MediaError, match="login page"):
        fetch(UPLOAD, server, cache)
    assert kept(cache) == []


@pytest.mark.parametrize("scheme", ["s3", "gs", "azure-blob"])
def test_cloud_uri_is_resolved_by_label_studio_and_the_key_stays_there(
    scheme: str, server: Server, elsewhere: Server, cache: Path
) -> None:
    uri = f"{scheme}://bucket/folder/clip.mp4"
    server.answers["/tasks/7/presign/"] = guarded(f"Token {KEY}", redirect(f"{elsewhere.url}/bucket/x?signature=abc"))
    elsewhere.answers["/bucket/x"] = ranges(bytes_per_answer=100_000)
    path = fetch(uri, server, cache)
    assert path.read_bytes() == CONTENT
    assert path.suffix == ".mp4"
    asked = parse_qs(urlsplit(server.requests[0][0]).query)["fileuri"][0]
    assert base64.urlsafe_b64decode(asked).decode() == uri
    assert elsewhere.headers("Authorization") == [None, None, None]


def test_cloud_uri_needs_a_task(server: Server, cache: Path) -> None:
    with pytest.raises(MediaError, match="task"):
        files(cache).get("s3://bucket/a.mp4", Connection(server.url, KEY))


# Downloads from anywhere


def test_url_of_another_host_gets_no_key(server: Server, elsewhere: Server, cache: Path) -> None:
    elsewhere.answers["/clip.mp4"] = whole_file()
    assert fetch(f"{elsewhere.url}/clip.mp4", server, cache).read_bytes() == CONTENT
    assert elsewhere.headers("Authorization") == [None]


def test_url_of_label_studio_itself_gets_the_key(server: Server, cache: Path) -> None:
    server.answers[UPLOAD] = guarded(f"Token {KEY}", ranges())
    assert fetch(server.url + UPLOAD, server, cache).read_bytes() == CONTENT


def test_refusal_of_another_host_is_not_blamed_on_the_key(server: Server, elsewhere: Server, cache: Path) -> None:
    elsewhere.answers["/clip.mp4"] = status(403)
    with pytest.raises(MediaError) as error:
        fetch(f"{elsewhere.url}/clip.mp4?signature=secret", server, cache)
    assert "403" in str(error.value)
    assert "use a link that needs no login" in str(error.value)
    assert "LABEL_STUDIO_API_KEY" not in str(error.value)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("code", [404, 410, 500])
def test_error_of_a_server_leaves_nothing(code: int, server: Server, cache: Path) -> None:
    server.answers["/clip.mp4"] = status(code)
    with pytest.raises(MediaError, match=str(code)):
        fetch(f"{server.url}/clip.mp4", server, cache)
    assert kept(cache) == []


def test_refused_connection(server: Server, cache: Path) -> None:
    with pytest.raises(MediaError, match=r"no connection .*refused"):
        fetch(f"http://127.0.0.1:{unused_port()}/clip.mp4", server, cache)


@pytest.mark.parametrize("url", ["http://", "http://[::1/clip.mp4", "http://host:port/clip.mp4", "https:///clip.mp4"])
def test_malformed_url(url: str, server: Server, cache: Path) -> None:
    with pytest.raises(MediaError):
        fetch(url, server, cache)


def test_empty_file_is_refused(server: Server, cache: Path) -> None:
    server.answers["/clip.mp4"] = whole_file(b"")
    with pytest.raises(MediaError, match="empty"):
        fetch(f"{server.url}/clip.mp4", server, cache)
    assert kept(cache) == []


# Downloads that break off


def test_truncated_download_is_not_trusted_by_the_next_request(server: Server, cache: Path) -> None:
    server.answers["/clip.mp4"] = whole_file(cut_after=len(CONTENT) // 2)
    with pytest.raises(MediaError, match="broke off"):
        fetch(f"{server.url}/clip.mp4", server, cache)
    assert kept(cache) == []
    server.answers["/clip.mp4"] = whole_file()
    assert fetch(f"{server.url}/clip.mp4", server, cache).read_bytes() == CONTENT


def test_download_goes_on_where_it_broke_off(server: Server, cache: Path) -> None:
    server.answers[UPLOAD] = ranges(bytes_per_answer=100_000)
    assert fetch(UPLOAD, server, cache).read_bytes() == CONTENT
    assert server.headers("Range") == ["bytes=0-", "bytes=100000-", "bytes=200000-"]


def test_download_that_makes_no_progress_ends(server: Server, cache: Path) -> None:
    server.answers[UPLOAD] = ranges(bytes_per_answer=0)
    with pytest.raises(MediaError, match="broke off after 0 bytes"):
        fetch(UPLOAD, server, cache)
    assert kept(cache) == []


@pytest.mark.parametrize("changed", [ranges(etag="two"), ranges(CONTENT + b"more"), whole_file()])
def test_parts_of_different_files_are_not_joined(changed: Answer, server: Server, cache: Path) -> None:
    def then_changed(handler: BaseHTTPRequestHandler) -> None:
        ranges(bytes_per_answer=100_000)(handler)
        server.answers[UPLOAD] = changed

    server.answers[UPLOAD] = then_changed
    with pytest.raises(MediaError, match="broke off after 100000 bytes"):
        fetch(UPLOAD, server, cache)
    assert kept(cache) == []


def test_silent_server_is_given_up(server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()
    server.answers["/clip.mp4"] = lambda handler: released.wait()
    monkeypatch.setattr(ml_backend.label_studio.media, "TIMEOUT", httpx.Timeout(0.2))
    with pytest.raises(MediaError, match="no answer in time"):
        fetch(f"{server.url}/clip.mp4", server, cache)
    released.set()


def test_threads_that_download_the_same_url_at_once(server: Server, cache: Path) -> None:
    together = threading.Barrier(8)

    def slow(handler: BaseHTTPRequestHandler) -> None:
        together.wait()
        send(handler, 200, {"Content-Length": str(len(CONTENT))}, CONTENT[:100_000])
        time.sleep(0.05)
        handler.wfile.write(CONTENT[100_000:])

    server.answers["/clip.mp4"] = slow
    with ThreadPoolExecutor(8) as threads:
        paths = list(threads.map(lambda _: fetch(f"{server.url}/clip.mp4", server, cache), range(8)))
    assert len(set(paths)) == 1
    assert paths[0].read_bytes() == CONTENT
    assert kept(cache) == [paths[0]]


def test_parts_of_killed_processes_are_removed_but_not_running_ones(server: Server, cache: Path) -> None:
    unfinished = cache / "unfinished"
    unfinished.mkdir(parents=True)
    abandoned, running = unfinished / "a.part", unfinished / "b.part"
    abandoned.write_bytes(b"x")
    running.write_bytes(b"x")
    yesterday = time.time() - 86400
    os.utime(abandoned, (yesterday, yesterday))
    server.answers["/clip.mp4"] = whole_file()
    fetch(f"{server.url}/clip.mp4", server, cache)
    assert not abandoned.exists()
    assert running.exists()


# Bounds


def chunks(*parts: bytes, pause: float = 0.0, headers: dict[str, str] | None = None) -> Answer:
    """An answer of unknown length, part by part."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.protocol_version = "HTTP/1.1"
        send(handler, 200, {"Transfer-Encoding": "chunked", "Content-Type": "video/mp4", **(headers or {})})
        with contextlib.suppress(OSError):  # the download is given up
            for part in parts:
                handler.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
                time.sleep(pause)
            handler.wfile.write(b"0\r\n\r\n")

    return answer


def test_what_is_larger_than_the_cache_is_given_up(server: Server, cache: Path) -> None:
    server.answers["/endless.mp4"] = chunks(*[bytes(65536)] * 100)
    with pytest.raises(MediaError, match="CACHE_SIZE_LIMIT"):
        files(cache, limit=1_000_000).get(f"{server.url}/endless.mp4", Connection(None, None))
    server.answers["/declared.mp4"] = lambda handler: send(handler, 200, {"Content-Length": "99999999999999"}, b"x")
    with pytest.raises(MediaError, match="CACHE_SIZE_LIMIT"):
        files(cache, limit=1_000_000).get(f"{server.url}/declared.mp4", Connection(None, None))
    assert kept(cache) == []


def test_a_compressed_answer_is_refused(server: Server, cache: Path) -> None:
    packed = gzip.compress(bytes(10_000_000))
    server.answers["/bomb.mp4"] = chunks(packed, headers={"Content-Encoding": "gzip"})
    with pytest.raises(MediaError, match="compressed"):
        fetch(f"{server.url}/bomb.mp4", server, cache)
    assert server.headers("Accept-Encoding") == ["identity"]


def test_what_comes_too_slowly_is_given_up(server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ml_backend.label_studio.media, "RATE_WINDOW", 0.2)
    server.answers["/slow.mp4"] = chunks(*[b"x"] * 1000, pause=0.02)
    with pytest.raises(MediaError, match="slower than 10 kB a second"):
        fetch(f"{server.url}/slow.mp4", server, cache)
    monkeypatch.setattr(ml_backend.label_studio.media, "MAX_SECONDS", 0.1)
    with pytest.raises(MediaError, match="given up"):
        fetch(f"{server.url}/slow.mp4", server, cache)


def test_a_download_ends_where_it_is_cancelled(server: Server, cache: Path) -> None:
    class Cancelled(Exception):
        pass

    came = []

    def check() -> None:
        came.append(1)
        if len(came) > 5:
            raise Cancelled

    server.answers["/slow.mp4"] = chunks(*[b"x"] * 1000, pause=0.02)
    with pytest.raises(Cancelled):
        files(cache).get(f"{server.url}/slow.mp4", Connection(None, None), check=check)
    assert kept(cache) == []


def test_a_full_disk_is_a_sentence(server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ml_backend.label_studio.media, "FREE_DISK", 1 << 62)
    server.answers["/clip.mp4"] = whole_file()
    with pytest.raises(TransientMediaError, match="bytes left"):
        fetch(f"{server.url}/clip.mp4", server, cache)


def test_downloads_count_in_the_cache_and_the_one_unused_for_longest_goes(server: Server, cache: Path) -> None:
    media = files(cache, limit=600_000)  # two of 256,000 bytes
    paths = []
    for name in "abc":
        server.answers[f"/{name}.mp4"] = whole_file()
        paths.append(media.get(f"{server.url}/{name}.mp4", Connection(None, None)))
        an_hour_ago = time.time() - 3600 + len(paths)
        os.utime(paths[-1], (an_hour_ago, an_hour_ago))
        media.get(f"{server.url}/a.mp4", Connection(None, None))  # used again and again
    assert [path.exists() for path in paths] == [True, False, True]


def test_a_renewed_signature_is_no_other_copy(server: Server, cache: Path) -> None:
    server.answers["/clip.mp4"] = whole_file()
    paths = {fetch(f"{server.url}/clip.mp4?X-Amz-Signature={number}", server, cache) for number in range(3)}
    assert len(paths) == len(server.requests) == 1


@pytest.mark.parametrize("code", [429, 500, 503])
def test_what_may_be_over_in_a_moment_is_told_apart(code: int, server: Server, cache: Path) -> None:
    server.answers["/clip.mp4"] = status(code)
    with pytest.raises(TransientMediaError, match=str(code)):
        fetch(f"{server.url}/clip.mp4", server, cache)


# The gate


def test_a_private_server_is_not_asked_also_not_by_a_redirect(server: Server, elsewhere: Server, cache: Path) -> None:
    closed = files(cache, allowed=())
    for url in (f"{elsewhere.url}/secret", f"http://127.0.0.1:{unused_port()}/closed"):
        with pytest.raises(MediaError, match="private network"):
            closed.get(url, Connection(server.url, KEY))
    server.answers["/redirect"] = redirect(f"{elsewhere.url}/secret")
    with pytest.raises(MediaError, match="private network"):
        closed.get(f"{server.url}/redirect", Connection(server.url, KEY))
    assert elsewhere.requests == []
    assert kept(cache) == []


def test_redirects_that_never_end(server: Server, cache: Path) -> None:
    server.answers["/round.mp4"] = redirect("/round.mp4")
    with pytest.raises(MediaError, match="redirects"):
        fetch(f"{server.url}/round.mp4", server, cache)


def test_the_public_name_of_label_studio_is_read_in_place_or_asked_of_its_address(
    server: Server, root: Path, cache: Path
) -> None:
    connection = Connection(server.url, KEY, "https://label.example.com")
    value = "https://label.example.com/data/local-files/?d=videos/clip.mp4"
    assert files(cache, root).get(value, connection) == root / "videos" / "clip.mp4"
    server.answers["/data/local-files/"] = guarded(f"Token {KEY}", ranges())
    assert files(cache).get(value, connection).read_bytes() == CONTENT


def test_a_moved_label_studio_is_named(server: Server, elsewhere: Server, cache: Path) -> None:
    server.answers[UPLOAD] = redirect(f"{elsewhere.url}/sub{UPLOAD}")
    with pytest.raises(MediaError, match=re.escape(f"redirects to {elsewhere.url}/sub: set LABEL_STUDIO_URL")):
        fetch(UPLOAD, server, cache)
    assert elsewhere.requests == []


def test_user_and_password_of_a_url_are_not_in_its_errors(server: Server, cache: Path) -> None:
    url = server.url.replace("//", "//alice:sesame@") + "/none.mp4?sig=sesame"
    with pytest.raises(MediaError) as error:
        fetch(url, server, cache)
    assert "sesame" not in str(error.value)


def test_half_a_surrogate_pair_is_a_sentence(server: Server, cache: Path) -> None:
    with pytest.raises(MediaError, match="surrogate"):
        fetch("http://host/\ud800.mp4", server, cache)
