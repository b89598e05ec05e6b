"""What may be fetched, from which address, and with which credentials."""

from __future__ import annotations

import ipaddress
import socket
from urllib.parse import quote

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ml_backend.label_studio.media_gate
from errors import MediaError
from ml_backend.label_studio.client import Connection
from ml_backend.label_studio.media_gate import MediaGate, identity, is_media_path, shown

KEY = "0123456789abcdef0123456789abcdef01234567"
STUDIO = "http://127.0.0.1:8080"
PUBLIC = "93.184.215.14"  # example.com's


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Names that resolve, each to the addresses of each look-up in turn; addresses resolve to themselves."""
    known: dict[str, list[str]] = {}
    real = socket.getaddrinfo

    def look_up(host: str, port: int | None, *arguments: object, **options: object) -> list[tuple]:
        if host in known:
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (known[host].pop(0), port))]
        return real(host, port, *arguments, **options | {"flags": socket.AI_NUMERICHOST})

    monkeypatch.setattr(ml_backend.label_studio.media_gate.socket, "getaddrinfo", look_up)
    return known


def gate(*allowed: str, key: str | None = KEY, url: str | None = STUDIO, public: str | None = None) -> MediaGate:
    return MediaGate(Connection(url, key, public), allowed)


# Addresses


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0.0.0.0",
        "10.0.0.1",
        "172.16.5.4",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "[::1]",
        "[::]",
        "[fe80::1]",
        "[fd00::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:169.254.169.254]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "[2002:808:808::]",
        "[2001:0:808:808::]",
    ],
)
def test_a_private_address_in_any_notation_is_refused(host: str) -> None:
    with pytest.raises(MediaError, match="private network"):
        gate().admit(httpx.URL(f"http://{host}/x.mp4"))


@given(st.ip_addresses())
def test_an_address_is_admitted_only_if_it_is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    host = f"[{address}]" if address.version == 6 else str(address)
    try:
        hop = gate().admit(httpx.URL(f"http://{host}/x.mp4"))
    except MediaError:
        return
    public = getattr(address, "ipv4_mapped", None) or address
    assert public.is_global
    assert not public.is_multicast
    assert "Authorization" not in hop.headers


def test_the_connection_goes_to_the_address_that_was_checked(names: dict[str, list[str]]) -> None:
    names["rebinding.example"] = [PUBLIC, "127.0.0.1"]
    hop = gate().admit(httpx.URL("https://rebinding.example/x.mp4?a=1"))
    assert str(hop.url) == f"https://{PUBLIC}/x.mp4?a=1"
    assert hop.headers["Host"] == "rebinding.example"
    assert hop.extensions == {"sni_hostname": "rebinding.example"}
    assert names["rebinding.example"] == ["127.0.0.1"]  # looked up once
    with pytest.raises(MediaError, match="private network"):
        gate().admit(httpx.URL("https://rebinding.example/x.mp4"))


@pytest.mark.parametrize("entry", ["media.lan", "MEDIA.lan", "media.lan:9000", "10.0.0.0/8"])
def test_the_operator_may_name_private_hosts(entry: str, names: dict[str, list[str]]) -> None:
    names["media.lan"] = ["10.1.2.3"]
    assert gate(entry).admit(httpx.URL("http://media.lan:9000/x.mp4")).url.host == "10.1.2.3"


@pytest.mark.parametrize("entry", ["media.lan:9001", "other.lan", "192.168.0.0/16", "lan"])
def test_another_private_host_stays_closed(entry: str, names: dict[str, list[str]]) -> None:
    names["media.lan"] = ["10.1.2.3"]
    with pytest.raises(MediaError, match=r"MEDIA_ALLOWED_HOSTS=media\.lan:9000"):
        gate(entry).admit(httpx.URL("http://media.lan:9000/x.mp4"))


def test_a_name_with_a_private_address_among_others_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def look_up(host: str, port: int, **_: object) -> list[tuple]:
        return [(0, 0, 0, "", (address, port)) for address in (PUBLIC, "10.0.0.1")]

    monkeypatch.setattr(ml_backend.label_studio.media_gate.socket, "getaddrinfo", look_up)
    with pytest.raises(MediaError, match="private network"):
        gate().admit(httpx.URL("http://two.example/x.mp4"))


@pytest.mark.parametrize("url", ["ftp://host/x", "file:///etc/passwd", "http:///x", "gopher://host/"])
def test_other_schemes_are_refused(url: str) -> None:
    with pytest.raises(MediaError, match="http and https"):
        gate().admit(httpx.URL(url))


def test_behind_a_proxy_names_are_its_business_and_addresses_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy.lan:3128")
    hop = gate().admit(httpx.URL("https://anything.example/x.mp4"))
    assert (hop.proxy, hop.url.host) == ("http://proxy.lan:3128", "anything.example")
    with pytest.raises(MediaError, match="private network"):
        gate().admit(httpx.URL("https://169.254.169.254/x.mp4"))


# Label Studio's own address, and its key


@pytest.mark.parametrize(
    "path",
    [
        "/data/upload/1/3f2a-clip.mp4",
        "/data/upload/1/3f2a-%25%23%3F%20clip.mp4",
        "/data/local-files/?d=videos/clip.mp4",
        "/data/local-files?d=clip.mp4",
        "/storage-data/uploaded/?filepath=upload/1/x.mp4",
        "/tasks/7/presign/?fileuri=czM6Ly9i",
        "/projects/7/resolve/?fileuri=czM6Ly9i",
    ],
)
def test_the_key_goes_to_media_paths_of_label_studio(path: str) -> None:
    hop = gate().admit(httpx.URL(STUDIO + path))
    assert hop.headers["Authorization"] == f"Token {KEY}"
    assert hop.url.host == "127.0.0.1"


@pytest.mark.parametrize(
    "path",
    [
        "/api/projects/2/export?exportType=CSV",
        "/data/upload/../../api/projects/3/export",
        "/data/upload/%2e%2e/%2e%2e/api/x",
        "/data/upload/%252e%252e/api/x",
        "/data/upload/..%2f..%2fapi",
        "/data/upload/\\..\\..\\api",
        "/data/upload/..%5c..%5capi",
        "/data/upload//x.mp4",
        "/data/local-files/../../api/x?d=1",
        "/data/local-files/",
        "/tasks/x/resolve/?fileuri=x",
        "/tasks/1/resolve/../../api?fileuri=x",
        "/storage-data/../api/x",
        "/user/login/",
        "/data/uploads/x.mp4",
        "/",
    ],
)
def test_the_key_goes_to_no_other_path(path: str) -> None:
    assert not is_media_path(path)
    assert "Authorization" not in gate().admit(httpx.URL(STUDIO + path)).headers


@given(
    st.lists(st.sampled_from(["..", ".", "%2e%2e", "%2E.", "api", "x.mp4", "", "\\", "%5c", "%2f", "1"]), max_size=8),
    st.sampled_from(["/data/upload/", "/storage-data/", "/data/local-files/"]),
    st.integers(0, 2),
)
def test_a_path_that_any_server_may_take_out_of_the_media_is_none(parts: list[str], start: str, quoted: int) -> None:
    path = "/".join(parts)
    for _ in range(quoted):
        path = quote(path, safe="/")
    if is_media_path(start + path):
        plain = start + path
        for _ in range(4):
            plain = plain.replace("%5c", "\\").replace("%2f", "/").replace("%2e", ".").replace("%2E", ".")
            plain = plain.replace("%25", "%")
        assert ".." not in plain.replace("\\", "/").split("/")


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8081/data/upload/1/x.mp4",
        "https://127.0.0.1:8080/data/upload/1/x.mp4",
        "http://localhost:8080/data/upload/1/x.mp4",
        "http://127.0.0.1:8080@93.184.215.14/data/upload/1/x.mp4",
        "http://93.184.215.14/data/upload/1/x.mp4",
    ],
)
def test_the_key_goes_to_no_other_host(url: str) -> None:
    hop = gate("127.0.0.1", "localhost").admit(httpx.URL(url))
    assert KEY not in str(hop.headers)


@pytest.mark.parametrize(
    "value",
    [
        "/data/local-files/?d=a.mp4",
        "http://studio:8080/data/local-files/?d=a.mp4",
        "https://label.example.com/ls/data/local-files/?d=a.mp4",
        "HTTPS://label.example.com/ls/data/local-files/?d=a.mp4",
        "/ls/data/local-files/?d=a.mp4",
        "http://localhost:8080/data/local-files/?d=a.mp4",
        "http://127.0.0.1/data/local-files/?d=a.mp4",
    ],
)
def test_any_name_of_label_studio_before_a_media_path_is_that_path(value: str) -> None:
    own = gate(url="http://studio:8080", public="https://label.example.com/ls/").own_path(value)
    assert own == "/data/local-files/?d=a.mp4"


@pytest.mark.parametrize(
    "value",
    [
        "https://label.example.com.evil.example/ls/data/local-files/?d=a.mp4",
        "http://studio:80800/data/upload/x.mp4",
        "http://localhost.evil.example/data/upload/x.mp4",
        "http://studio:8080@evil.example/data/upload/x.mp4",
        "https://cdn.example.com/data/upload/x.mp4",
        "http://studio:8080/api/projects/1/export",
        "a.mp4",
    ],
)
def test_other_values_are_none_of_label_studios_paths(value: str) -> None:
    assert gate(url="http://studio:8080", public="https://label.example.com/ls/").own_path(value) is None


# What a URL leads to, and how messages show it


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("https://b.s3.amazonaws.com/v.mp4?X-Amz-Signature=1&X-Amz-Date=2", "https://b.s3.amazonaws.com/v.mp4"),
        ("https://storage.googleapis.com/b/v.mp4?X-Goog-Signature=1", "https://storage.googleapis.com/b/v.mp4"),
        (
            "https://a.blob.core.windows.net/c/v.mp4?sv=1&se=2&sig=3",
            "https://a.blob.core.windows.net/c/v.mp4?sig=4&sp=r",
        ),
        ("https://d.cloudfront.net/v.mp4?Expires=1&Signature=2&Key-Pair-Id=3", "https://d.cloudfront.net/v.mp4"),
        ("https://h/v.mp4?id=7&Signature=1&Expires=2", "https://h/v.mp4?Signature=3&id=7"),
    ],
)
def test_a_renewed_signature_leads_to_the_same_object(first: str, second: str) -> None:
    assert identity(first) == identity(second)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("https://h/v.mp4?id=7", "https://h/v.mp4?id=8"),
        ("https://h/v.mp4?versionId=7&X-Amz-Signature=1", "https://h/v.mp4?versionId=8&X-Amz-Signature=1"),
        ("https://h/v.mp4?st=1", "https://h/v.mp4?st=2"),
        ("https://h/a.mp4", "https://h/b.mp4"),
    ],
)
def test_other_objects_differ(first: str, second: str) -> None:
    assert identity(first) != identity(second)


@given(st.text("abc@:/?#&=%.", max_size=30))
def test_no_password_and_no_signature_is_shown(text: str) -> None:
    assert "sesame" not in shown(f"http://alice:sesame@host/{text}?{text}&X-Amz-Signature=sesame")
