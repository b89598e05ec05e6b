"""Decide what media may be fetched, from which address, and with which credentials.

A task's data names its video, and annotators, importers and storages may write tasks. The backend reaches networks
that they can't reach, and holds a key that they don't hold. So every request for media, and every redirect on its way,
passes `MediaGate.admit`:

- Label Studio's own address (LABEL_STUDIO_URL, else the hostname of `/setup`) is allowed wherever it is. The key is
  sent there only, and only with paths that serve media (`is_media_path`).
- Any other address must be public. The name is looked up once, every answer is checked, and the connection is made to a
  checked address, so that a second look-up can't lead elsewhere.
- A private address must be named by the operator in MEDIA_ALLOWED_HOSTS.

Behind a proxy (HTTP_PROXY, HTTPS_PROXY) the proxy looks names up and connects. There only literal addresses are checked
here, and the proxy decides where names may lead.
"""

from __future__ import annotations

import ipaddress
import posixpath
import re
import socket
from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote, urlencode
from urllib.request import getproxies_environment, proxy_bypass_environment

import httpx

from errors import MediaError
from ml_backend.label_studio.client import MALFORMED, NOT_THE_API, Connection, authorization

# Paths at which Label Studio serves media: uploads, local files, its storage proxy, and cloud URIs that it resolves.
MEDIA_PATH = re.compile(
    r"/data/upload/[^?]+(\?.*)?|/data/local-files/?\?.+|/storage-data/[^?]+(\?.*)?|"
    r"/(tasks|projects)/\d+/(resolve|presign)/?\?.+",
    re.DOTALL,
)
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")  # names of Label Studio's own machine, in its browser
NAT64 = ipaddress.ip_network("64:ff9b::/96")  # an IPv4 address in the last 32 bits (RFC 6052)
# Query parameters that sign a link for a limited time (S3, GCS, Azure; CloudFront, older S3 and GCS).
SIGNATURE = re.compile(r"(?i)x-(amz|goog)-.*|awsaccesskeyid|googleaccessid|signature|sig|expires|key-pair-id|policy")
AZURE_SIGNATURE = {
    "sv",
    "se",
    "sr",
    "sp",
    "st",
    "spr",
    "sip",
    "ss",
    "srt",
    "skoid",
    "sktid",
    "skt",
    "ske",
    "sks",
    "skv",
}


class Hop(NamedTuple):
    """An allowed request.

    Attributes:
        url: with the checked address as its host; behind a proxy, with the name.
        headers: `Host`, and Label Studio's key where it is sent.
        extensions: httpx's extensions, with the host name that the server's certificate must have.
        proxy: the proxy's URL, or None.
        is_label_studio: whether the request goes to Label Studio's own address.
    """

    url: httpx.URL
    headers: dict[str, str]
    extensions: dict[str, str]
    proxy: str | None
    is_label_studio: bool


@dataclass(frozen=True)
class MediaGate:
    """Decides what may be fetched for a project's tasks.

    Attributes:
        connection: the project's Label Studio.
        allowed_hosts: MEDIA_ALLOWED_HOSTS; each is `host`, `host:port`, or a network such as `10.1.0.0/16`.
    """

    connection: Connection
    allowed_hosts: Collection[str] = ()

    def admit(self, url: httpx.URL) -> Hop:
        """Returns the request to make for a URL.

        Raises:
            MediaError: the request isn't allowed, or its host is unknown.
            LabelStudioError: Label Studio gives no short-lived token for the key.
        """
        if url.scheme not in ("http", "https") or not url.host:
            raise MediaError(f"{shown(url)}: only http and https addresses are fetched.")
        headers, is_own = {"Host": url.netloc.decode()}, origin(url) == origin(self.connection.url)
        if is_own and self.connection.api_key and self.own_path(str(url)) is not None:
            try:
                headers["Authorization"] = authorization(self.connection)
            except MALFORMED as error:
                raise MediaError(f"{shown(url)}: {NOT_THE_API}") from error
        proxy = _proxy(url)
        if is_own or (proxy and not _is_address(url.host)):
            return Hop(url, headers, {}, proxy, is_own)
        address = self._checked_address(url)
        return Hop(url.copy_with(host=address), headers, {"sni_hostname": url.host}, proxy, is_own)

    def own_path(self, value: str) -> str | None:
        """The path and query of media that Label Studio serves, None where the value names no such media.

        The value may begin with any name of Label Studio: LABEL_STUDIO_URL; the hostname of `/setup`, which Label
        Studio's local storage writes into tasks; or a loopback name, which means Label Studio's own machine.
        """
        own_urls = [url.rstrip("/") for url in (self.connection.url, self.connection.public_url) if url]
        path = value
        if "://" in value:
            named = next((url for url in own_urls if value.lower().startswith(url.lower() + "/")), None)
            named = named or next((url for url in _loopback_urls(value)), None)
            if named is None:
                return None
            path = value[len(named) :]
        for prefix in {httpx.URL(url).path.rstrip("/") for url in own_urls if _is_url(url)} - {""}:
            path = path.removeprefix(prefix)
        return path if is_media_path(path) else None

    def _checked_address(self, url: httpx.URL) -> str:
        port = url.port or {"http": 80, "https": 443}[url.scheme]
        try:
            answers = socket.getaddrinfo(url.host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise MediaError(f"{shown(url)}: the host is unknown. Check the task's URL.") from error
        addresses = [str(answer[4][0]).partition("%")[0] for answer in answers]
        if not all(_is_public(address) or self._is_allowed(url.host, port, address) for address in addresses):
            name = f"[{url.host}]" if ":" in url.host else url.host
            raise MediaError(
                f"{shown(url)} leads into a private network, which tasks may not read. If it should, set "
                f"MEDIA_ALLOWED_HOSTS={name}:{port}; if it is Label Studio, set LABEL_STUDIO_URL to its address."
            )
        return addresses[0]

    def _is_allowed(self, host: str, port: int, address: str) -> bool:
        for entry in self.allowed_hosts:
            if "/" in entry:
                if ipaddress.ip_address(address) in ipaddress.ip_network(entry, strict=False):
                    return True
            elif entry.lower() in {name.lower() for name in (host, f"{host}:{port}", f"[{host}]:{port}")}:
                return True
        return False


def is_media_path(path: str) -> bool:
    """Whether Label Studio serves media at a path with its query.

    Servers may take `%2e%2e`, `..` and backslashes as steps to other routes, so a path with such steps isn't accepted.
    """
    if not MEDIA_PATH.fullmatch(path) or not path.isprintable():
        return False
    bare = path.partition("?")[0]
    while (decoded := unquote(bare)) != bare:
        bare = decoded
    bare = bare.replace("\\", "/")
    return posixpath.normpath(bare) == bare.rstrip("/") and not bare.startswith("//")


def identity(url: str) -> str:
    """The URL without its signature, so that a renewed link to the same object has the same identity."""
    bare, _, query = url.partition("?")
    pairs = parse_qsl(query, keep_blank_values=True)
    names = {name.lower() for name, _ in pairs}
    signs = AZURE_SIGNATURE if "sig" in names else set()
    kept = [(name, value) for name, value in pairs if name.lower() not in signs and not SIGNATURE.fullmatch(name)]
    return bare if not kept else f"{bare}?{urlencode(kept)}"


def origin(url: str | httpx.URL | None) -> tuple[str, str, int | None] | None:
    """Scheme, host and port of a URL, None where it is no URL. A key is sent only where they agree."""
    try:
        parsed = httpx.URL(url or "")
    except httpx.InvalidURL:
        return None
    return (parsed.scheme, parsed.host, parsed.port) if parsed.host else None


def shown(url: str | httpx.URL) -> str:
    """A URL for messages: without user and password, and without its query, except for local files, which the query
    names."""
    text = re.sub(r"(?<=://)[^/?#]*@", "", str(url))
    return text if "/data/local-files" in text else text.partition("?")[0]


def _proxy(url: httpx.URL) -> str | None:
    """The proxy for a URL by the environment, or None."""
    if proxy_bypass_environment(url.netloc.decode()):
        return None
    proxies = getproxies_environment()
    found = proxies.get(url.scheme) or proxies.get("all")
    return found if not found or "://" in found else f"http://{found}"


def _is_public(address: str) -> bool:
    parsed = ipaddress.ip_address(address)
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.sixtofour or parsed.teredo:  # tunnels; Python's releases disagree on whether they are public
            return False
        inner = ipaddress.IPv4Address(int(parsed) & 0xFFFFFFFF) if parsed in NAT64 else parsed.ipv4_mapped
        parsed = inner or parsed
    return parsed.is_global and not parsed.is_multicast


def _is_address(host: str) -> bool:
    """Whether a host is a literal address, in any notation that a resolver accepts."""
    try:
        socket.getaddrinfo(host, None, flags=socket.AI_NUMERICHOST)
    except OSError:
        return False
    return True


def _is_url(url: str) -> bool:
    return origin(url) is not None


def _loopback_urls(value: str) -> list[str]:
    """The loopback origin that a value begins with, such as `http://localhost:8080`, in a list; else an empty list."""
    found = re.match(r"(?i)https?://(" + "|".join(map(re.escape, LOOPBACK_NAMES)) + r")(:\d{1,5})?(?=/)", value)
    return [found.group()] if found else []
