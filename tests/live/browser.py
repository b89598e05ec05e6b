"""Headless Chromium through chromedriver's HTTP interface (W3C WebDriver)."""

import base64
import time
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

# What a web element is called in WebDriver's answers.
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
# A page of Label Studio takes seconds to draw itself, and several times as long on a busy machine.
PATIENCE_SECONDS = 90
DRAG_STEPS = 12


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

    def resize(self, width: int, height: int) -> None:
        """Give the window a size."""
        self._post(f"{self.session}/window/rect", {"width": width, "height": height})

    def prefer(self, scheme: str) -> None:
        """Show pages as where the operating system is set to `light` or `dark`."""
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        self._post(f"{self.session}/goog/cdp/execute", {"cmd": "Emulation.setEmulatedMedia", "params": media})

    def narrow(self, width: int | None) -> None:
        """Show pages as on a screen of that width in CSS pixels, less than a window can have; None for the window's."""
        screen = {"width": width or 0, "height": 0, "deviceScaleFactor": 0, "mobile": False}
        command = {"cmd": "Emulation.setDeviceMetricsOverride", "params": screen}
        self._post(f"{self.session}/goog/cdp/execute", command)

    def find(self, xpath: str) -> str:
        """The first element of that XPath, once it is displayed."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            found = self._post(f"{self.session}/elements", {"using": "xpath", "value": xpath})
            for element in (item[ELEMENT] for item in found):
                if self.http.get(f"{self.session}/element/{element}/displayed").json()["value"] is True:
                    return element
            assert time.monotonic() < deadline, f"nothing at {xpath} after {PATIENCE_SECONDS} s: {self.text()[:2000]}"
            time.sleep(0.2)

    def click(self, xpath: str) -> None:
        """Click the element with the mouse, once it is there and nothing covers it."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            response = self.http.post(f"{self.session}/element/{self.find(xpath)}/click", json={})
            if response.is_success:
                return
            assert time.monotonic() < deadline, response.text
            time.sleep(0.2)

    def type(self, xpath: str, text: str) -> None:
        """Type into a field."""
        self._post(f"{self.session}/element/{self.find(xpath)}/value", {"text": text})

    def log_in(self, email: str, password: str) -> None:
        """Logs in to Label Studio, whose login page is shown."""
        self.type("//input[@id='email']", email)
        self.type("//input[@id='password']", password)
        self.click("//button[@type='submit']")

    def press(self, key: str) -> None:
        """Press and release a key."""
        strokes = [{"type": "keyDown", "value": key}, {"type": "keyUp", "value": key}]
        self._act({"type": "key", "id": "keyboard", "actions": strokes})

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Press the mouse button at a point of the window, move to another, and let go."""
        steps = [
            tuple(round(a + (b - a) * step / DRAG_STEPS) for a, b in zip(start, end, strict=True))
            for step in range(DRAG_STEPS + 1)
        ]
        moves = [{"type": "pointerMove", "x": x, "y": y, "duration": 30} for x, y in steps]
        down, up = {"type": "pointerDown", "button": 0}, {"type": "pointerUp", "button": 0}
        mouse = {"pointerType": "mouse"}
        self._act({"type": "pointer", "id": "mouse", "parameters": mouse, "actions": [moves[0], down, *moves[1:], up]})

    def box(self, xpath: str) -> dict[str, float]:
        """The element's place in the window: x, y, width, height."""
        script = "const box = arguments[0].getBoundingClientRect(); return {...box.toJSON()}"
        return self.run(script, {ELEMENT: self.find(xpath)})

    def text(self) -> str:
        """All text that the page shows."""
        return self.run("return document.body.innerText")

    def screenshot(self, path: Path) -> None:
        """Save a picture of the window as PNG."""
        path.write_bytes(base64.b64decode(self.http.get(f"{self.session}/screenshot").json()["value"]))

    def _act(self, source: dict[str, Any]) -> None:
        self._post(f"{self.session}/actions", {"actions": [source]})

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        response = self.http.post(path, json=body)
        assert response.is_success, response.text
        return response.json()["value"]
