"""The gate for requests: what each must be before any route sees it.

In this order: it names this server (against DNS rebinding), it isn't sent by another site's page, its body is JSON of a
bearable size, and it brings the password where one is set. A webhook, which Label Studio sends without the password,
brings the secret of its project instead (`webhook_secret.py`).
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
from ml_backend.settings import Settings
from ml_backend.webhook_secret import HEADER, WebhookSecrets

logger = logging.getLogger(__name__)

# A megabyte holds thousands of regions; what Label Studio sends of a whole page of tasks is less.
MAX_BODY_BYTES = 10 * 10**6
# Names that no public DNS server answers: a page from the internet can't come from under one of them.
PRIVATE_SUFFIXES = (".localhost", ".local", ".internal")
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
# Reachable without password, so that load balancers and container health checks can use it.
OPEN_PATHS = ("/health",)
WEBHOOK_PATH = "/webhook"
# Wrong passwords from one address: so many at once, then one each so many seconds.
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
    """Lets requests in.

    Args:
        settings: the environment.
        secrets: of the webhooks.
    """

    def __init__(self, settings: Settings, secrets: WebhookSecrets) -> None:
        self._settings = settings
        self._secrets = secrets
        self._password = ":".join(settings.password).encode() if settings.password else None
        self._guesses = Guesses()

    def register(self, app: Flask) -> None:
        """Puts the gate before all routes of an application."""
        app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
        app.before_request(self.check)
        app.after_request(_keep_to_this_site)

    def check(self) -> None:
        """Raises a BackendError where the request may not pass."""
        self._check_host()
        if request.method not in SAFE_METHODS:
            _check_site()
            _check_body()
        self._check_password()

    def _check_host(self) -> None:
        name = _split(f"//{request.host}").hostname or ""
        if not host_is_allowed(name, self._settings):
            raise Forbidden(
                f"Requests to the host {name[:100]!r} aren't answered. Is it this backend's? Name it in ALLOWED_HOSTS."
            )

    def _check_password(self) -> None:
        """Sets `g.is_authenticated`, whether the request brought the password, and `g.webhook_project`, the project
        whose secret it brought."""
        g.is_authenticated = False
        g.webhook_project = self._secrets.project_of(request.headers.get(HEADER)) if _is_webhook() else None
        if self._password is None or request.path in OPEN_PATHS or g.webhook_project is not None:
            return
        given = _credentials()
        if given is None:
            raise Unauthorized(f"{NO_PASSWORD} {WEBHOOK_ADVICE if _is_webhook() else ''}".strip())
        self._guesses.check(request.remote_addr or "")
        if not hmac.compare_digest(given, self._password):
            self._guesses.note(request.remote_addr or "")
            raise Unauthorized(NO_PASSWORD)
        g.is_authenticated = True

    @property
    def trusts_sender(self) -> bool:
        """Whether what the present request says of addresses and tokens may be believed: it brought the password, or
        comes from a program of this machine."""
        return g.is_authenticated or self._settings.is_local


def host_is_allowed(name: str, settings: Settings) -> bool:
    """Whether requests may name this host.

    A page from the internet that was rebound to this server names a host of its own there: never an IP address, and
    never a name that only this network knows. A server on loopback is reached by loopback's names alone.
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
    """Whether a browser says that another site's page sent this request."""
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
        raise Forbidden("This request comes from another site's page: only this backend's own may send it.")


def _check_body() -> None:
    if (request.content_length or 0) > MAX_BODY_BYTES:
        raise TooLarge(f"The body is larger than {MAX_BODY_BYTES // 10**6} MB: send fewer tasks at once.")
    # A form can be sent from another site's page without asking; the dashboard's own carry a token (its actions.py).
    if request.blueprint != "dashboard" and request.url_rule is not None and request.mimetype != "application/json":
        raise UnsupportedType("The body must be JSON, with the header Content-Type: application/json.")


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
    """No other site's page may show or read what is served here, and no browser may take it for what it isn't."""
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    response.headers.setdefault("Cross-Origin-Resource-Policy", "same-origin")
    if response.status_code == 401:
        response.headers["WWW-Authenticate"] = 'Basic realm="ml-backend"'
    return response


class Guesses:
    """Counts wrong passwords by address, and stops looking at what comes from an address that sent many."""

    def __init__(self) -> None:
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()  # address -> guesses left, at that time
        self._lock = threading.Lock()

    def check(self, address: str) -> None:
        """Raises TooManyGuesses where the address must wait."""
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
        pause = "" if left >= 1 else f"; from now on one each {SECONDS_PER_GUESS:.0f} s is looked at"
        logger.warning("A wrong password was refused: from %s, for %s%s", address, request.path[:100], pause)

    def _now_left(self, address: str) -> float:
        left, at = self._left.get(address, (float(GUESSES), 0.0))
        return min(float(GUESSES), left + (time.monotonic() - at) / SECONDS_PER_GUESS)
