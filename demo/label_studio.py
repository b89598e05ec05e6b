"""The demo's calls of Label Studio's API."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx

# For an upload, or a connection to a starting backend, on a busy machine.
TIMEOUT_SECONDS = 120


class LabelStudio:
    """A running Label Studio.

    Args:
        url: its address.
        token: a legacy token, as given to `label-studio start --user-token`.

    Raises:
        httpx.HTTPError: in every method, where Label Studio can't be reached or refuses.
    """

    def __init__(self, url: str, token: str) -> None:
        headers = {"Authorization": f"Token {token}"}
        self._http = httpx.Client(base_url=url, timeout=TIMEOUT_SECONDS, headers=headers, follow_redirects=True)

    def project(self, title: str, **settings: Any) -> int:
        """Returns the id of the project of that title. A missing one is made with `settings`."""
        for project in self._json("GET", "/api/projects/", params={"page_size": 1000})["results"]:
            if project["title"] == title:
                return project["id"]
        return self._json("POST", "/api/projects/", json={"title": title, **settings})["id"]

    def tasks(self, project: int) -> dict[str, dict[str, Any]]:
        """The project's tasks by the name of their video."""
        query = {"project": project, "page_size": 1000, "fields": "all"}
        tasks = self._json("GET", "/api/tasks/", params=query)["tasks"]
        # Label Studio stores an upload as PREFIX-NAME.
        return {task["data"]["video"].rpartition("/")[2].partition("-")[2]: task for task in tasks}

    def upload(self, project: int, video: Path) -> None:
        """Add a video to the project."""
        with video.open("rb") as file:
            files = {"file": (video.name, file, "video/mp4")}
            self._json("POST", f"/api/projects/{project}/import", files=files)

    def connect(self, project: int, backend: str) -> int:
        """Connect the backend to the project, also where it had another address before. Returns the model's id."""
        models = self._json("GET", "/api/ml", params={"project": project})
        if not models:
            return self._json("POST", "/api/ml", json={"project": project, "url": backend, "title": "Timeline"})["id"]
        model = models[0]
        if model["url"] != backend:
            self._json("PATCH", f"/api/ml/{model['id']}", json={"url": backend, "project": project})
            for webhook in self._json("GET", "/api/webhooks/", params={"project": project}):
                self._json("PATCH", f"/api/webhooks/{webhook['id']}/", json={"url": f"{backend}/webhook"})
        return model["id"]

    def model(self, model: int) -> dict[str, Any]:
        """The model's present state and version."""
        return self._json("GET", f"/api/ml/{model}")

    def submit(self, task: int, result: list[dict[str, Any]]) -> None:
        """Submit an annotation."""
        self._json("POST", f"/api/tasks/{task}/annotations/", json={"result": result, "lead_time": 1.0})

    def _json(self, method: str, path: str, **content: Any) -> Any:
        response = self._http.request(method, path, **content)
        response.raise_for_status()
        return response.json() if response.content else None
