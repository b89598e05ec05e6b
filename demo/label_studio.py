"""The demo's calls of Label Studio's API."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import httpx

# For an upload, or a connection to a starting backend, on a busy machine.
TIMEOUT_SECONDS = 120
PAGE_SIZE = 1000


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

    def label_config(self, project: int) -> str:
        """The project's labeling config."""
        return self._json("GET", f"/api/projects/{project}")["label_config"]

    def tasks(self, project: int) -> dict[str, dict[str, Any]]:
        """The project's tasks by the name of their video."""
        # Label Studio stores an upload as PREFIX-NAME.
        return {task["data"]["video"].rpartition("/")[2].partition("-")[2]: task for task in self._tasks(project)}

    def videos(self, project: int) -> list[str]:
        """The URLs of the videos of the project's tasks."""
        return [task["data"]["video"] for task in self._tasks(project)]

    def _tasks(self, project: int) -> Iterator[dict[str, Any]]:
        for page in count(1):
            query = {"project": project, "page_size": PAGE_SIZE, "page": page, "fields": "all"}
            answer = self._json("GET", "/api/tasks/", params=query)
            yield from answer["tasks"]
            if page * PAGE_SIZE >= answer["total"]:
                return

    def serve_folder(self, project: int, folder: Path) -> None:
        """Let the project's tasks show the files in a folder, which lies in LOCAL_FILES_DOCUMENT_ROOT."""
        storages = self._json("GET", "/api/storages/localfiles", params={"project": project})
        if not any(storage["path"] == str(folder) for storage in storages):
            storage = {"project": project, "path": str(folder), "title": "Videos", "use_blob_urls": True}
            self._json("POST", "/api/storages/localfiles", json=storage)

    def add_tasks(self, project: int, data: list[dict[str, Any]]) -> None:
        """Add tasks with the given data."""
        self._json("POST", f"/api/projects/{project}/import", json=[{"data": one} for one in data])

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
