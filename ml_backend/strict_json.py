"""JSON as its standard has it: without NaN and infinity, which Python writes and browsers and PostgreSQL refuse."""

from __future__ import annotations

import json
import math
from typing import Any

from flask.json.provider import DefaultJSONProvider


def dumps(value: Any, **options: Any) -> str:
    """As `json.dumps`; a number that isn't finite becomes null."""
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
    """Flask's answers in strict JSON."""

    def dumps(self, obj: Any, **options: Any) -> str:
        """As Flask's own, but by `dumps` of this module."""
        options = {"default": self.default, "ensure_ascii": self.ensure_ascii, "sort_keys": self.sort_keys} | options
        return dumps(obj, **options)
