"""What an annotator meets where the backend is stopped."""

from pathlib import Path

from tests.live.browser import Browser
from tests.live.conftest import OTHER_PASSWORD, Screenshots
from tests.live.label_studio import LabelStudio
from tests.live.labeling_page import LabelingPage
from tests.live.model_page import start_training
from tests.live.test_label_studio import CONFIG, FIRST, draw, model_version, wait_for_new_version
from tests.live.timelines import agreement
from tests.servers import Backend, wait_until


def test_a_stopped_backend_doesnt_keep_anyone_from_labeling(
    label_studio: LabelStudio, other_backend: Backend, browser: Browser, screenshots: Screenshots, tmp_path: Path
) -> None:
    project = label_studio.create_project("Stopped backend", CONFIG)
    task = label_studio.upload(project, draw(tmp_path, "clip", FIRST))
    model = label_studio.connect(project, other_backend.url, OTHER_PASSWORD)
    untrained = model_version(label_studio, model)

    other_backend.stop()
    page = LabelingPage(browser, f"{label_studio.url}/projects/{project}/data")
    page.open(task)
    assert page.result() == []
    for label, ranges in FIRST.items():
        for start, end in ranges:
            page.draw(label, start, end)
    page.send("Submit")
    wait_until(lambda: label_studio.get(f"/api/tasks/{task}/")["annotations"], 60, "the annotation")
    browser.open(f"{label_studio.url}/projects/{project}/settings/ml")
    browser.find("//*[normalize-space() = 'Disconnected']")
    screenshots.take(browser, "stopped-backend")

    # Label Studio doesn't repeat what it couldn't deliver; "Start Training" fetches all annotations.
    other_backend.start().wait_for_worker()
    browser.open(f"{label_studio.url}/projects/{project}/settings/ml")
    browser.find("//*[normalize-space() = 'Connected']")
    start_training(browser, f"{label_studio.url}/projects/{project}")
    wait_for_new_version(label_studio, model, untrained)
    (annotation,) = label_studio.get(f"/api/tasks/{task}/")["annotations"]
    assert agreement(annotation["result"], FIRST) == 1.0
