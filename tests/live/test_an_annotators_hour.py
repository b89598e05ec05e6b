"""One annotator's hour, played in a browser: annotations, all but the first begun from a prediction, a question
answered, and what the pages say in the end. `FOOTAGE=~/clips` plays it on real clips (`clips.py`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.live.browser import Browser
from tests.live.clips import Clip, clips, config
from tests.live.conftest import Screenshots
from tests.live.label_studio import LabelStudio
from tests.live.labeling_page import FRAME_PIXELS, PICTURE_SIZE, LabelingPage
from tests.live.test_label_studio import wait_until_learnt
from tests.live.timelines import Truth, frames
from tests.servers import Backend, wait_until

# The SDK's own.
pytestmark = pytest.mark.filterwarnings("ignore:The `parse_obj` method is deprecated")

TITLE = "An annotator's hour"
REVIEWED, CHECK = "Reviewed", "Check"
NUM_CLIPS = 4  # one of them is only asked about
LEARNING_SECONDS = 300
SHOWN_AT = 0.21  # of the video, in screenshots
PANELS_WIDTH, PAGE_HEIGHT = 900, 1200
# Two intervals that overlap so well are one event to an annotator, who then leaves the prediction as it is.
GOOD_OVERLAP = 0.85


def test_an_annotators_hour(
    label_studio: LabelStudio, backend: Backend, browser: Browser, screenshots: Screenshots, tmp_path: Path
) -> None:
    shown = clips(NUM_CLIPS, tmp_path)
    project = label_studio.create_project(TITLE, config(shown, REVIEWED, CHECK))
    tasks = [label_studio.upload(project, clip.path) for clip in shown]
    label_studio.connect(project, backend.url)
    width = max(clip.num_frames for clip in shown) * FRAME_PIXELS + PANELS_WIDTH
    page = LabelingPage(browser, f"{label_studio.url}/projects/{project}/data", (width, PAGE_HEIGHT))

    # The first is drawn on an empty timeline.
    page.open(tasks[0])
    assert page.result() == []
    draw(page, shown[0].truth)
    page.draw(REVIEWED, 1, shown[0].num_frames)
    page.send("Submit")
    wait_until_learnt(backend, project, 1)

    # The second opens filled in, and asks. Only that is answered: what is in a span that is marked with Check.
    page.open_filled_in(tasks[1])
    browser.resize(*PICTURE_SIZE)
    page.show(SHOWN_AT)
    screenshots.take(browser, "hour-question")
    page.open(tasks[1])
    asked = page.labelled(CHECK)[0]["value"]["ranges"][0]
    answer(page, shown[1], asked["start"], asked["end"])
    page.send("Submit")
    wait_until_learnt(backend, project, 2)

    # The others open filled in, and are corrected.
    for number in range(2, NUM_CLIPS):
        page.open_filled_in(tasks[number])
        browser.resize(*PICTURE_SIZE)
        page.show(SHOWN_AT)
        screenshots.take(browser, f"hour-filled-in-{number + 1}")
        page.open(tasks[number])
        correct(page, shown[number])
        assert marked(page.result()) >= {label for label, ranges in shown[number].truth.items() if ranges}
        page.send("Submit")
        wait_until_learnt(backend, project, number + 1)

    # What Label Studio stored says where each region came from, and how long each annotation took.
    stored = [label_studio.get(f"/api/tasks/{task}/annotations/")[0] for task in tasks]
    assert all(one["lead_time"] > 0 for one in stored)
    origins = {region["origin"] for one in stored for region in one["result"]}
    assert {"manual", "prediction", "prediction-changed"} <= origins
    reviewed = [region["value"] for region in stored[1]["result"] if REVIEWED in region["value"]["timelinelabels"]]
    assert reviewed == [{"ranges": [asked], "timelinelabels": [REVIEWED]}]

    # The project's page, in words; and the study's summary.
    browser.resize(1100, 2000)
    browser.open(f"{backend.url}/projects/{project}")
    screenshots.take(browser, "hour-project")
    text = browser.text()
    assert text.count(TITLE) >= 2
    for words in ("decided", "more test", "It was wrong for", "predicted event"):
        assert words in text, text
    browser.click("//a[contains(., 'Summary')]")
    browser.find("//h1[contains(., 'Summary')]")
    screenshots.take(browser, "hour-summary")
    for label in shown[0].truth:
        assert label in browser.text()
    browser.open(f"{backend.url}/projects/{project}/tasks/{tasks[-1]}")
    screenshots.take(browser, "hour-task")
    browser.resize(1100, 700)

    def is_known() -> bool:
        browser.open(backend.url)
        return "being asked" not in browser.text() and "being measured" not in browser.text()

    wait_until(is_known, LEARNING_SECONDS, "Label Studio's state and the cache's size")
    assert f"reached: {label_studio.url}" in browser.text()
    screenshots.take(browser, "hour-overview")


def draw(page: LabelingPage, truth: Truth) -> None:
    for label, ranges in truth.items():
        for start, end in ranges:
            page.draw(label, start, end)


def marked(result: list[dict[str, Any]]) -> set[str]:
    return {label for label, _ in frames(result)}


def correct(page: LabelingPage, clip: Clip) -> None:
    """Leave the labels that are well predicted, draw the others anew, and mark the whole clip as reviewed."""
    page.clear(CHECK)
    for label, ranges in clip.truth.items():
        found = sorted(
            (span["start"], span["end"]) for region in page.labelled(label) for span in region["value"]["ranges"]
        )
        fits = len(found) == len(ranges) and all(map(overlaps, found, sorted(ranges)))
        if not fits:
            page.clear(label)
            draw(page, {label: ranges})
    page.draw(REVIEWED, 1, clip.num_frames)


def answer(page: LabelingPage, clip: Clip, start: int, end: int) -> None:
    """Label what is in a span, and turn its question into the mark that it is reviewed."""
    for label in clip.truth:
        page.clear(label)
    for label, ranges in clip.truth.items():
        within = [(max(first, start), min(last, end)) for first, last in ranges if first <= end and last >= start]
        draw(page, {label: within})
    page.relabel(CHECK, REVIEWED)


def overlaps(one: tuple[int, int], other: tuple[int, int]) -> bool:
    common = min(one[1], other[1]) - max(one[0], other[0]) + 1
    return common >= GOOD_OVERLAP * (max(one[1], other[1]) - min(one[0], other[0]) + 1)
