"""Headless Chromium through chromedriver's HTTP interface (W3C WebDriver)."""

import base64
from pathlib import Path
from typing import Any

import httpx

# Quiet: Chromium otherwise calls home at every start.
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1400,1000",
]


class Browser:
    """One session.

    Args:
        driver_url: where chromedriver listens.
        profile: an empty folder for the browser's own files.
    """

    def __init__(self, driver_url: str, profile: Path) -> None:
        self.http = httpx.Client(base_url=driver_url, timeout=120)
        options = {"args": [*ARGUMENTS, f"--user-data-dir={profile}"]}
        capabilities = {"capabilities": {"alwaysMatch": {"browserName": "chrome", "goog:chromeOptions": options}}}
        self.session = f"/session/{self._post('/session', capabilities)['sessionId']}"

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *_: object) -> None:
        self.http.delete(self.session)
        self.http.close()

    def open(self, url: str) -> None:
        """Load a page, and wait until it is loaded."""
        self._post(f"{self.session}/url", {"url": url})

    def run(self, script: str, *arguments: object) -> Any:
        """What the body of a JavaScript function returns in the page."""
        return self._post(f"{self.session}/execute/sync", {"script": script, "args": list(arguments)})

    def screenshot(self, path: Path) -> None:
        """Save a picture of the window as PNG."""
        path.write_bytes(base64.b64decode(self.http.get(f"{self.session}/screenshot").json()["value"]))

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        response = self.http.post(path, json=body)
        assert response.is_success, response.text
        return response.json()["value"]
