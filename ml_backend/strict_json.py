"""JSON as its standard defines it, so that every database and browser accepts it.

NaN and infinity are written as null. What is read must be UTF-8 of limited depth; NUL and halves of surrogate pairs in
texts, which can't be stored or encoded, become U+FFFD.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

from flask.json.provider import DefaultJSONProvider
from pydantic_core import from_json

from errors import InvalidRequest

# Ten megabytes of empty lists would take hundreds of megabytes of memory; Label Studio's ten hold some 200,000.
MAX_CONTAINERS = 500_000
# An escape sequence: a whole surrogate pair; a half, or NUL (the group); or any other.
ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2}|u0000)|.)",
    re.DOTALL,
)
REPLACEMENT = rb"\ufffd"


def loads(body: str | bytes) -> Any:
    """Parses a JSON text.

    Raises:
        InvalidRequest: the text isn't JSON, isn't UTF-8, or is nested more than 200 deep; the message says where.
    """
    raw = body.encode("utf-8", "surrogatepass") if isinstance(body, str) else body
    if raw.count(b"[") + raw.count(b"{") > MAX_CONTAINERS:
        raise InvalidRequest(f"The body has more than {MAX_CONTAINERS:,} lists and objects: send less at once.")
    try:
        return from_json(storable(raw))
    except ValueError as error:
        raise InvalidRequest(f"The body isn't JSON: {error}.") from error


def storable(raw: bytes) -> bytes:
    """A JSON text with U+FFFD in place of NUL and of halves of surrogate pairs."""
    if b"\\u0000" in raw or b"\\ud" in raw or b"\\uD" in raw:
        return ESCAPE.sub(lambda found: REPLACEMENT if found[1] else found[0], raw)
    return raw


def dumps(value: Any, **options: Any) -> str:
    """Writes JSON as `json.dumps` does, with null for NaN and infinity."""
    try:
        return json.dumps(value, allow_nan=False, **options)
    except ValueError:
        return json.dumps(_finite(value), allow_nan=False, **options)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


class StrictJSONProvider(DefaultJSONProvider):
    """Makes Flask read and write strict JSON."""

    def loads(self, s: str | bytes, **_options: Any) -> Any:
        """Parses JSON by this module's `loads`."""
        return loads(s)

    def dumps(self, obj: Any, **options: Any) -> str:
        """Writes JSON with Flask's options, by this module's `dumps`."""
        options = {"default": self.default, "ensure_ascii": self.ensure_ascii, "sort_keys": self.sort_keys} | options
        return dumps(obj, **options)
