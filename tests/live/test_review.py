"""A wrong annotation in a real Label Studio: found, opened by its link, corrected; and the study's totals beside it."""

from pathlib import Path

import httpx

from tests.live.browser import Browser
from tests.live.conftest import Screenshots
from tests.live.label_studio import LabelStudio
from tests.live.test_label_studio import CONFIG, FIRST, SECOND, THIRD, draw, model_version, wait_for_new_version
from tests.live.timelines import Truth, regions
from tests.servers import Backend, wait_until

SECONDS = 300
FOURTH: Truth = {"Ball": [(31, 60)], "Box": [(71, 90)]}
SWAPPED: Truth = {"Box": FOURTH["Ball"], "Ball": FOURTH["Box"]}
SELECTED = "return Number(window.Htx?.annotationStore?.selected?.pk ?? 0)"


def test_a_wrong_annotation_is_found_opened_and_corrected(
    label_studio: LabelStudio, backend: Backend, browser: Browser, screenshots: Screenshots, tmp_path: Path
) -> None:
    project = label_studio.create_project("Review", CONFIG)
    truths = {"first": FIRST, "second": SECOND, "third": THIRD, "fourth": FOURTH}
    tasks = [label_studio.upload(project, draw(tmp_path, name, truth)) for name, truth in truths.items()]
    model = label_studio.connect(project, backend.url)
    untrained = model_version(label_studio, model)
    for task, truth in zip(tasks, truths.values(), strict=True):
        if truth is not FOURTH:
            label_studio.submit(task, regions(truth))
    wrong = label_studio.submit(tasks[3], regions(SWAPPED))
    right = label_studio.submit(tasks[3], regions(FOURTH))
    wait_for_new_version(label_studio, model, untrained)
    page = f"{backend.url}/projects/{project}/review"

    def annotated() -> bool:
        found = httpx.get(f"{backend.url}/projects/{project}/summary.csv").text
        return f"annotation {right}" in found and f"annotation {wrong}" in found

    wait_until(annotated, SECONDS, "both annotations")
    browser.open(page)
    assert "Ball: of the time that either of two annotators marked, both marked 0 %" in browser.text()
    browser.run("document.querySelector('.action summary').click()")
    browser.run("document.querySelector('.action form button').click()")

    def compared() -> bool:
        browser.open(page)
        return "Compared on" in browser.text()

    wait_until(compared, SECONDS, "the comparison")
    screenshots.take(browser, "review")
    first = "document.querySelector('[data-finding]')"
    assert "annotated as" in browser.run(f"return {first}.innerText")
    link = browser.run(f"return [...{first}.querySelectorAll('a')].map(a => a.href).find(a => a.includes('/data?'))")
    assert link == f"{label_studio.url}/projects/{project}/data?task={tasks[3]}&annotation={wrong}"
    for annotation in (wrong, right):
        browser.open(f"{link.rpartition('=')[0]}={annotation}")
        wait_until(lambda annotation=annotation: browser.run(SELECTED) == annotation, SECONDS, "the annotation")

    label_studio.update(wrong, regions(FOURTH))

    def is_gone() -> bool:
        browser.open(page)
        return f"annotation={wrong}" not in browser.run("return document.body.innerHTML")

    wait_until(is_gone, SECONDS, "the correction")
    # Four videos of 4 s; the ball is there for 35, 35, 30 and 30 frames.
    browser.open(f"{backend.url}/projects/{project}/summary")
    row = browser.run("return [...document.querySelectorAll('table')[0].rows[1].cells].map(cell => cell.textContent)")
    assert row[:5] == ["Ball", "4", "16.00", "4", "5.20"]
    screenshots.take(browser, "summary")
