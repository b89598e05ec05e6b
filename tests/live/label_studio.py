"""Label Studio as an annotator uses it: through the requests that its interface makes, with the interface's session."""

import sqlite3
from pathlib import Path
from typing import Any

import httpx

USER = "annotator@example.com"
PASSWORD = "correct horse battery"
LEGACY_TOKEN = "0123456789abcdef0123456789abcdef01234567"


class LabelStudio:
    """A running Label Studio, logged in.

    Args:
        url: its address.
        folder: where it keeps its data, in `data/`, and serves local files from, in `files/`.
    """

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.files = folder / "files"
        self.database = folder / "data" / "label_studio.sqlite3"
        self.log = folder / "label-studio.log"
        self.http = httpx.Client(base_url=url, timeout=120, follow_redirects=True, headers={"Referer": url})
        self.http.get("/user/login/")
        form = {"email": USER, "password": PASSWORD, "csrfmiddlewaretoken": self.http.cookies["csrftoken"]}
        self.http.post("/user/login/", data=form)
        # Label Studio gives out one token per user, and shows it once.
        self.personal_access_token: str = self.post("/api/token/", {})["token"]

    def __enter__(self) -> "LabelStudio":
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def get(self, path: str, **query: Any) -> Any:
        """The JSON that a GET answers."""
        return _answer(self.http.get(path, params=query))

    def post(self, path: str, body: dict[str, Any], **query: Any) -> Any:
        """The JSON that a POST answers, None where it answers nothing."""
        return self._send("POST", path, params=query, json=body)

    def patch(self, path: str, body: dict[str, Any]) -> Any:
        """The JSON that a PATCH answers."""
        return self._send("PATCH", path, json=body)

    def _send(self, method: str, path: str, **content: Any) -> Any:
        headers = {"X-CSRFToken": self.http.cookies["csrftoken"]}
        return _answer(self.http.request(method, path, headers=headers, **content))

    def create_project(self, title: str, label_config: str) -> int:
        """The new project's id."""
        return self.post("/api/projects/", {"title": title, "label_config": label_config})["id"]

    def upload(self, project: int, video: Path) -> int:
        """Add a video to the project. Returns the id of its task."""
        with video.open("rb") as file:
            self._send("POST", f"/api/projects/{project}/import", files={"file": (video.name, file, "video/mp4")})
        return max(task["id"] for task in self.get("/api/tasks/", project=project)["tasks"])

    def serve_folder(self, project: int, folder: Path) -> None:
        """Add a local storage to the project, so that Label Studio serves the files in it."""
        self.post("/api/storages/localfiles", {"project": project, "path": str(folder)})

    def allow_legacy_tokens(self, allowed: bool) -> None:
        """The organization's switch for legacy tokens."""
        self.post("/api/jwt/settings", {"api_tokens_enabled": True, "legacy_api_tokens_enabled": allowed})

    def connect(self, project: int, backend_url: str, password: tuple[str, str] | None = None) -> int:
        """Add a model, as on the project's model page, with user and password where it needs them. Returns its id."""
        body = {"project": project, "url": backend_url, "title": "Timeline"}
        if password:
            body |= {"auth_method": "BASIC_AUTH", "basic_auth_user": password[0], "basic_auth_pass": password[1]}
        return self.post("/api/ml", body)["id"]

    def webhook(self, project: int) -> dict[str, Any]:
        """The project's only webhook."""
        (webhook,) = self.get("/api/webhooks/", project=project)
        return webhook

    def submit(self, task: int, result: list[dict[str, Any]], prediction: int | None = None) -> int:
        """Submit a new annotation, begun from a prediction or from nothing. Returns its id."""
        body = {"result": result, "lead_time": 1.0, "parent_prediction": prediction}
        return self.post(f"/api/tasks/{task}/annotations/", body)["id"]

    def update(self, annotation: int, result: list[dict[str, Any]]) -> None:
        """Correct a submitted annotation."""
        self.patch(f"/api/annotations/{annotation}/", {"result": result})

    def retrieve_predictions(self, project: int) -> None:
        """The Data Manager's "Retrieve Predictions" for all tasks."""
        everything = {"selectedItems": {"all": True, "excluded": []}}
        self.post("/api/dm/actions", everything, id="retrieve_tasks_predictions", project=project)

    def predictions(self, task: int) -> list[dict[str, Any]]:
        """The task's stored predictions, oldest first."""
        return sorted(self.get("/api/predictions/", task=task), key=lambda prediction: prediction["id"])

    def train_jobs(self, model: int) -> list[str]:
        """The jobs that the model's "Start Training" answered; Label Studio keeps them, but no API shows them."""
        with sqlite3.connect(f"file:{self.database}?mode=ro", uri=True) as database:
            query = "SELECT job_id FROM ml_mlbackendtrainjob WHERE ml_backend_id = ? ORDER BY id"
            return [job for (job,) in database.execute(query, (model,))]


def _answer(response: httpx.Response) -> Any:
    assert response.is_success, f"{response.request.url} answers {response.status_code}: {response.text[:500]}"
    return response.json() if response.content else None
