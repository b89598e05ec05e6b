"""Check each request before any route handles it.

The checks, in this order: the request names this server as its host (against DNS rebinding); no other site's page sent
it; its body is JSON within the size limit; and it has the password, where one is set. Label Studio sends webhooks
without the password; a webhook has the secret of its project instead (`webhook_secret.py`).
"""

from __future__ import annotations

import hmac
import ipaddress
import logging
import threading
import time
from collections import OrderedDict
from contextlib import suppress
from urllib.parse import SplitResult, urlsplit

from flask import Flask, Response, g, request

from errors import Forbidden, TooLarge, TooManyGuesses, Unauthorized, UnsupportedType
from ml_backend.label_studio.webhook_secret import HEADER, WebhookSecrets
from ml_backend.settings import Settings

logger = logging.getLogger(__name__)

# A megabyte holds thousands of regions; a whole page of tasks from Label Studio is smaller than this.
MAX_BODY_BYTES = 10 * 10**6
# Suffixes that no public DNS server knows, so that no page from the internet can have such a host.
PRIVATE_SUFFIXES = (".localhost", ".local", ".internal")
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
# Paths without a password, for load balancers and container health checks.
OPEN_PATHS = ("/health",)
WEBHOOK_PATH = "/webhook"
# Wrong passwords that are checked from one address: so many at once, then one in so many seconds.
GUESSES = 10
SECONDS_PER_GUESS = 6.0
REMEMBERED_ADDRESSES = 1000

NO_PASSWORD = "User and password are needed: BASIC_AUTH_USER and BASIC_AUTH_PASS of the backend."
WEBHOOK_ADVICE = (
    "Label Studio sends webhooks without them. With LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY the backend puts a "
    "secret into its webhook by itself; without, add the header «Authorization: Basic …» to it in the project's "
    "Settings, Webhooks. Without either nothing is learnt from submitted annotations."
)


class RequestGate:
    """Checks requests.

    Args:
        settings: the environment.
        secrets: the webhooks' secrets.
    """

    def __init__(self, settings: Settings, secrets: WebhookSecrets) -> None:
        self._settings = settings
        self._secrets = secrets
        self._password = ":".join(settings.password).encode() if settings.password else None
        self._guesses = Guesses(settings.workers)

    def register(self, app: Flask) -> None:
        """Checks all requests of an application."""
        app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
        app.before_request(self.check)
        app.after_request(_keep_to_this_site)

    def check(self) -> None:
        """Raises a BackendError where the present request isn't allowed."""
        self._check_host()
        if request.method not in SAFE_METHODS:
            _check_site()
            _check_body()
        self._check_password()

    def _check_host(self) -> None:
        name = _split(f"//{request.host}").hostname or ""
        if not host_is_allowed(name, self._settings):
            raise Forbidden(
                f"Requests to the host {name[:100]!r} aren't answered. If it is this backend's name, add it to "
                "ALLOWED_HOSTS."
            )

    def _check_password(self) -> None:
        """Sets `g.is_authenticated`, whether the request has the password, and `g.webhook_project`, the project whose
        secret it has."""
        g.is_authenticated = False
        g.webhook_project = self._secrets.project_of(request.headers.get(HEADER)) if _is_webhook() else None
        if self._password is None or request.path in OPEN_PATHS or g.webhook_project is not None:
            return
        given = _credentials()
        if given is None:
            raise Unauthorized(f"{NO_PASSWORD} {WEBHOOK_ADVICE if _is_webhook() else ''}".strip())
        address = self._sender()
        self._guesses.check(address)
        if not hmac.compare_digest(given, self._password):
            self._guesses.note(address)
            raise Unauthorized(NO_PASSWORD)
        g.is_authenticated = True

    def _sender(self) -> str:
        """The address that sent the request; behind a proxy, the one that the proxy adds to what it was told."""
        address = request.remote_addr or ""
        if not any(_is_within(address, proxies) for proxies in self._settings.forwarded_allow_ips):
            return address
        return request.headers.get("X-Forwarded-For", "").rpartition(",")[2].strip()[:100] or address

    @property
    def trusts_sender(self) -> bool:
        """Whether addresses and tokens in the present request may be trusted: it has the password, or comes from this
        machine."""
        return g.is_authenticated or self._settings.is_local


def host_is_allowed(name: str, settings: Settings) -> bool:
    """Whether requests may name this host.

    A page from the internet that DNS rebinding leads to this server has a host name of its own: never an IP address,
    and never a name that only this network knows. A server on loopback is called by loopback's names only.
    """
    name = name.rstrip(".").lower()
    if name in {allowed.lower() for allowed in settings.allowed_hosts}:
        return True
    with suppress(ValueError):
        return ipaddress.ip_address(name).is_loopback or not settings.is_local
    if name == "localhost" or name.endswith(".localhost"):
        return True
    return bool(name) and not settings.is_local and ("." not in name or name.endswith(PRIVATE_SUFFIXES))


def is_from_another_site() -> bool:
    """Whether the browser's headers name another site as the sender of this request."""
    origin = request.headers.get("Origin")
    if origin is not None and _split(origin).netloc.lower() != request.host.lower():
        return True
    return request.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none")


def _split(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError:  # half an IPv6 address
        return urlsplit("")


def _check_site() -> None:
    if is_from_another_site():
        raise Forbidden("This request comes from another site's page. Only this backend's own pages may send it.")


def _check_body() -> None:
    if (request.content_length or 0) > MAX_BODY_BYTES:
        raise TooLarge(f"The body is larger than {MAX_BODY_BYTES // 10**6} MB: send fewer tasks at once.")
    # Another site's page can send a form without a preflight. The dashboard's forms carry a token (its actions.py).
    if request.blueprint != "dashboard" and request.url_rule is not None and request.mimetype != "application/json":
        raise UnsupportedType("The body must be JSON, with the header Content-Type: application/json.")


def _is_within(address: str, network: str) -> bool:
    """Whether an address is a network's, or the one that is given; a network of another form has none."""
    with suppress(ValueError):
        return ipaddress.ip_address(address) in ipaddress.ip_network(network, strict=False)
    return False


def _is_webhook() -> bool:
    return request.path == WEBHOOK_PATH


def _credentials() -> bytes | None:
    """User and password of HTTP Basic authentication, None where there are none."""
    try:
        given = request.authorization
    except ValueError:  # not ASCII
        return None
    if given is None or given.type != "basic":
        return None
    return f"{given.username}:{given.password}".encode("utf-8", "surrogatepass")


def _keep_to_this_site(response: Response) -> Response:
    """Keeps other sites' pages from showing or reading the response, and browsers from guessing its type."""
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    response.headers.setdefault("Cross-Origin-Resource-Policy", "same-origin")
    if response.status_code == 401:
        response.headers["WWW-Authenticate"] = 'Basic realm="ml-backend"'
    return response


class Guesses:
    """Counts wrong passwords by address, and limits how many are checked.

    Args:
        processes: the web processes. Each counts for itself, and checks its share: to count together, each wrong
            password would have to be written to the database.
    """

    def __init__(self, processes: int) -> None:
        self._most, self._pause = max(1.0, GUESSES / processes), SECONDS_PER_GUESS * processes
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()  # address -> guesses left, at that time
        self._lock = threading.Lock()

    def check(self, address: str) -> None:
        """Raises TooManyGuesses where no password of the address may be checked now."""
        with self._lock:
            if self._now_left(address) < 1:
                raise TooManyGuesses("Too many wrong passwords from this address: wait a moment.")

    def note(self, address: str) -> None:
        """Counts a wrong password."""
        with self._lock:
            left = self._now_left(address) - 1
            self._left[address] = (left, time.monotonic())
            self._left.move_to_end(address)
            while len(self._left) > REMEMBERED_ADDRESSES:
                self._left.popitem(last=False)
        pause = "" if left >= 1 else f"; from now on one each {self._pause:.0f} s is looked at"
        logger.warning("A wrong password was refused: from %s, for %s%s", address, request.path[:100], pause)

    def _now_left(self, address: str) -> float:
        left, at = self._left.get(address, (self._most, 0.0))
        return min(self._most, left + (time.monotonic() - at) / self._pause)
