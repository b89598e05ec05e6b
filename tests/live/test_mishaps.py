"""What an annotator meets where something is wrong: a stopped backend, a wrong token."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.browser import Browser
from tests.live.conftest import Screenshots, running_backend
from tests.live.label_studio import LabelStudio
from tests.live.labeling_page import LabelingPage
from tests.live.model_page import start_training
from tests.live.test_label_studio import CONFIG, FIRST, TRAINING_SECONDS, draw, model_version, wait_for_new_version
from tests.live.timelines import agreement, regions
from tests.servers import Backend, wait_until


@pytest.fixture
def own_backend(label_studio: LabelStudio, tmp_path: Path) -> Iterator[Backend]:
    """A backend of the test's own, which it may stop."""
    with running_backend(label_studio, tmp_path / "backend") as backend:
        yield backend


def test_a_stopped_backend_doesnt_keep_anyone_from_labeling(
    label_studio: LabelStudio, own_backend: Backend, browser: Browser, screenshots: Screenshots, tmp_path: Path
) -> None:
    project = label_studio.create_project("Stopped backend", CONFIG)
    task = label_studio.upload(project, draw(tmp_path, "clip", FIRST))
    model = label_studio.connect(project, own_backend.url)
    untrained = model_version(label_studio, model)

    own_backend.stop()
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
    own_backend.start().wait_for_worker()
    browser.open(f"{label_studio.url}/projects/{project}/settings/ml")
    browser.find("//*[normalize-space() = 'Connected']")
    start_training(browser, f"{label_studio.url}/projects/{project}")
    wait_for_new_version(label_studio, model, untrained)
    (annotation,) = label_studio.get(f"/api/tasks/{task}/")["annotations"]
    assert agreement(annotation["result"], FIRST) == 1.0


def test_a_refused_token_is_named_with_what_mends_it(label_studio: LabelStudio, tmp_path: Path) -> None:
    """The page that lists personal access tokens shows a shortened copy, which looks like one that can be used."""
    shortened = label_studio.personal_access_token[:40]
    project = label_studio.create_project("Refused token", CONFIG)
    task = label_studio.upload(project, draw(tmp_path, "clip", FIRST))
    with running_backend(label_studio, tmp_path / "backend", LABEL_STUDIO_API_KEY=shortened) as backend:
        wait_until(lambda: "was refused" in backend.log.read_text(), 60, "the token to be checked at start")
        label_studio.connect(project, backend.url)
        label_studio.submit(task, regions(FIRST))
        refused = f"Annotations of project {project}: Label Studio refuses the key"
        wait_until(lambda: refused in backend.log.read_text(), TRAINING_SECONDS, "Label Studio to be asked")
        (line,) = [line for line in backend.log.read_text().splitlines() if refused in line][:1]
        assert "LABEL_STUDIO_API_KEY" in line
