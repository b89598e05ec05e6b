"""Label Studio's labeling page as an annotator uses it: with the mouse and the keyboard."""

import json
import time
from typing import Any

from tests.live.browser import Browser
from tests.servers import wait_until

FRAME_PIXELS = 16  # of the timeline
BACKSPACE = "\ue003"
# So wide that the demo's short stories can be drawn without scrolling the timeline; and what a screenshot shows.
DRAWING_SIZE, PICTURE_SIZE = (2500, 1000), (1400, 1000)
BACKGROUND = "//*[contains(@class, 'lsf-timeline-frames__background')]"
SEEKER = "//*[contains(@class, 'lsf-seeker')]"
OUTLINER = "//*[contains(@class, 'lsf-tree__node_type_timelineregion')]"
ANNOTATION = """
    const annotation = window.Htx?.annotationStore?.selected;
    return JSON.stringify(annotation ? annotation.serializeAnnotation() : null);
"""
# Whether Label Studio has answered for the task, which it does when the backend has, and has taken off the grey veil.
IS_READY = """
    const timeline = document.querySelector(".lsf-timeline-frames__background");
    const answered = performance.getEntriesByType("resource").some(entry => entry.name.includes(arguments[0]));
    if (!timeline || !answered) return false;
    for (let element = timeline; element; element = element.parentElement)
        if (getComputedStyle(element).opacity < 1) return false;
    return true;
"""
READY_SECONDS = 120
READ_SECONDS = 240  # a video of ten seconds, on a busy machine


def _outlined(label: str | None) -> str:
    return OUTLINER if label is None else f"{OUTLINER}[contains(., '{label}')]"


class LabelingPage:
    """A task's labeling page, as it is opened from the Data Manager.

    Args:
        browser: logged in.
        url: of the project's Data Manager.
        size: of the window while it is drawn in.
    """

    def __init__(self, browser: Browser, url: str, size: tuple[int, int] = DRAWING_SIZE) -> None:
        self._browser, self._url, self._size = browser, url, size

    def open(self, task: int) -> None:
        """Open a task, and wait until its timeline can be drawn on."""
        self._browser.resize(*self._size)
        self._browser.open(f"{self._url}?task={task}")
        wait_until(lambda: self._browser.run(IS_READY, f"/api/tasks/{task}"), READY_SECONDS, "the labeling page")
        wait_until(lambda: self._state() is not None, 60, "the annotation")

    def open_filled_in(self, task: int) -> None:
        """Open a task again and again until its timeline is filled in: its video may still have to be read."""
        self.open(task)
        deadline = time.monotonic() + READ_SECONDS
        while not self.result():
            assert time.monotonic() < deadline, f"no prediction after {READ_SECONDS} s"
            time.sleep(2)
            self.open(task)

    def result(self) -> list[dict[str, Any]]:
        """The regions on the timeline, as they would be submitted."""
        return [region for region in self._state() if region["type"] == "timelinelabels"]

    def draw(self, label: str, start: int, end: int) -> None:
        """Choose a label, and drag over the timeline from one frame to another."""
        before = len(self.result())
        self._choose(label)
        box = self._browser.box(BACKGROUND)
        assert end * FRAME_PIXELS < box["width"], f"frame {end} isn't in sight"
        # Below the lanes of the regions that are there.
        height = box["y"] + box["height"] - 12
        first, last = (box["x"] + (frame - 0.5) * FRAME_PIXELS for frame in (start, end))
        self._browser.drag((first, height), (last, height))
        wait_until(lambda: len(self.result()) == before + 1, 20, "the region that was drawn")

    def clear(self, label: str | None = None) -> None:
        """Delete every region, or those of a label, one after another, and go back to the start."""
        while left := len(self.labelled(label)):
            self._browser.click(_outlined(label))
            self._browser.press(BACKSPACE)
            wait_until(lambda left=left: len(self.labelled(label)) < left, 20, "the region to be deleted")
        self.show(0)  # a region that was chosen has scrolled the timeline to its start

    def relabel(self, label: str, to: str) -> None:
        """Give the first region of a label another label."""
        before = len(self.labelled(to))
        self._browser.click(_outlined(label))
        self._choose(to)
        wait_until(lambda: len(self.labelled(to)) == before + 1, 20, "the region's new label")

    def labelled(self, label: str | None) -> list[dict[str, Any]]:
        """The regions on the timeline with a label, or all."""
        return [one for one in self.result() if label in (None, *one["value"]["timelinelabels"])]

    def show(self, share: float) -> None:
        """Go to a moment of the video, in [0, 1], by a click on the bar that shows all of it."""
        box = self._browser.box(SEEKER)
        point = box["x"] + box["width"] * share, box["y"] + box["height"] / 2
        self._browser.drag(point, point)

    def send(self, button: str) -> None:
        """Click "Submit" or "Update"."""
        self._browser.click(f"//button[normalize-space() = '{button}']")

    def _choose(self, label: str) -> None:
        self._browser.click(f"//*[contains(@class, 'lsf-label_clickable')][contains(., '{label}')]")

    def _state(self) -> list[dict[str, Any]] | None:
        return json.loads(self._browser.run(ANNOTATION))
