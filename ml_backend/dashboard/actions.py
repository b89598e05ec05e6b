"""Protect the dashboard's forms against requests from other sites (CSRF).

A form carries the token that the browser also sends as a cookie. Another site can make a browser send the cookie, but
can't read it to fill in the form. Where the browser names another site as a request's origin, the gate refuses it
before.
"""

from __future__ import annotations

import hmac
import secrets

from flask import Response, g, request

from errors import Forbidden

COOKIE = "timeline_csrf"
FIELD = "csrf"


def csrf_token() -> str:
    """The token for the forms of the page that is being made."""
    if "csrf" not in g:
        g.csrf = request.cookies.get(COOKIE) or secrets.token_urlsafe(24)
    return g.csrf


def set_csrf_cookie(response: Response) -> Response:
    """Adds the token's cookie to the response where the page has a form."""
    if "csrf" in g and request.cookies.get(COOKIE) != g.csrf:
        response.set_cookie(COOKIE, g.csrf, httponly=True, samesite="Strict", secure=request.is_secure)
    return response


def check_csrf() -> None:
    """Raises Forbidden where the POST doesn't come from a page of this dashboard."""
    cookie, field = request.cookies.get(COOKIE, ""), request.form.get(FIELD, "")
    if not cookie or not hmac.compare_digest(cookie.encode("utf-8", "replace"), field.encode("utf-8", "replace")):
        raise Forbidden("This request doesn't come from a page of this backend. Open the page again and repeat it.")
