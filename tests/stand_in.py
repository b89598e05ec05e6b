"""A stand-in for the part of Label Studio's API that jobs use, as a real one was seen to answer."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.http_server import Server, as_json, status

CREATED = "2026-11-22T13:52:08Z"


def now() -> str:
    """The time, as Label Studio writes it."""
    return datetime.now(timezone.utc).isoformat().replace("+00:00", "Z")


class StandIn(Server):
    """Project 1 with tasks.

    Args:
        tasks: the number of its tasks; the ids begin at 1.

    Attributes:
        predictions: what is stored, by id: `id`, `task`, `model_version`, `score`, `cluster`, `result`.
        annotated: the tasks with an annotation.
        settings: the project's `model_version` and `sampling`.
        refused: the tasks whose predictions it doesn't store; with "settings", it doesn't change the project's.
        after_saving: called with the number of predictions, between storing one and answering.
        after_listing: called with a task, between listing its predictions and answering.
    """

    def __init__(self, tasks: int) -> None:
        super().__init__()
        self.tasks = {number: {"text": str(number)} for number in range(1, tasks + 1)}
        self.predictions: dict[int, dict[str, Any]] = {}
        self.annotated: set[int] = set()
        self.settings = {"model_version": "Timeline", "sampling": "Sequential sampling"}
        self.refused: set[int | str] = set()
        self.lock = threading.Lock()
        self.after_saving: Callable[[int], None] = lambda count: None
        self.after_listing: Callable[[int], None] = lambda task: None
        self._last = 0
        self.answers = _Answers(self)  # type: ignore[assignment]

    def versions(self) -> dict[int, list[str]]:
        """Task -> the versions of its predictions, in the order in which they were stored."""
        found: dict[int, list[str]] = {}
        for prediction in self.predictions.values():
            found.setdefault(prediction["task"], []).append(prediction["model_version"])
        return found

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        """Answers a request."""
        split = urlsplit(handler.path)
        query = {name: values[0] for name, values in parse_qs(split.query).items()}
        body = json.loads(handler.rfile.read(int(handler.headers.get("Content-Length") or 0)) or b"{}")
        subject = body.get("task", "settings") if handler.command in ("POST", "PATCH") else None
        if subject in self.refused:
            return status(400)(handler)
        with self.lock:
            found = self._of(handler.command, split.path, query, body)
            count = len(self.predictions)
        if handler.command == "POST":
            self.after_saving(count)
        elif split.path == "/api/predictions/":
            self.after_listing(int(query["task"]))
        (status(404) if found is None else as_json(found))(handler)

    def _of(self, method: str, path: str, query: dict[str, str], body: dict[str, Any]) -> Any:
        if path == "/api/projects/1/":
            if method == "PATCH":
                known = {"Timeline"} | {one["model_version"] for one in self.predictions.values()}
                assert body.get("model_version", "Timeline") in known, body
                self.settings |= body
            return {"id": 1, "created_at": CREATED, "title": "Test"} | self.settings
        if path == "/api/ml/":
            return [{"id": 1, "title": "Timeline", "project": 1, "url": "http://backend"}]
        if path == "/api/webhooks/":
            return []
        if path == "/api/tasks/":
            return self._page(query)
        if path == "/api/predictions/":
            if method == "POST":
                return self.save(body)
            return [one for one in self.predictions.values() if one["task"] == int(query["task"])]
        if match := re.fullmatch(r"/api/predictions/(\d+)/", path):
            if method == "DELETE":
                return self.predictions.pop(int(match[1]), None)
            return self._save(int(match[1]), self.predictions[int(match[1])] | body)
        return None

    def save(self, prediction: dict[str, Any]) -> dict[str, Any]:
        """Stores a prediction; the caller holds the lock."""
        self._last += 1
        return self._save(self._last, prediction)

    def _save(self, number: int, body: dict[str, Any]) -> dict[str, Any]:
        self.predictions[number] = body | {"id": number, "project": 1, "updated_at": now(), "created_at": CREATED}
        return self.predictions[number]

    def _page(self, query: dict[str, str]) -> dict[str, Any] | None:
        asked = json.loads(query.get("query", "{}"))
        ids = sorted(self.tasks, reverse=asked.get("ordering") == ["-tasks:id"])
        for item in asked.get("filters", {}).get("items", ()):
            if item["filter"] == "filter:tasks:id":
                assert item["operator"] == "greater"
                ids = [number for number in ids if number > item["value"]]
                continue
            assert item["filter"] == "filter:tasks:total_annotations"
            ids = [number for number in ids if (number in self.annotated) == (item["operator"] == "greater")]
        size, page = int(query.get("page_size", 100)), int(query.get("page", 1))
        shown = ids[(page - 1) * size : page * size]
        if not shown and page > 1:
            return None
        tasks = [
            {
                "id": number,
                "project": 1,
                "data": self.tasks[number],
                "annotations": [],
                "predictions": [one for one in self.predictions.values() if one["task"] == number],
            }
            for number in shown
        ]
        return {"total": len(ids), "total_annotations": 0, "total_predictions": 0, "tasks": tasks}


class _Answers(dict):
    """Every path is answered by the stand-in."""

    def __init__(self, stand_in: StandIn) -> None:
        super().__init__()
        self._stand_in = stand_in

    def get(self, path: str, default: Any = None) -> Any:
        return super().get(path) or self._stand_in.answer
