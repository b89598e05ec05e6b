"""Labels of whole videos, from a submitted choice to one that is ticked on the page of the next video."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.live.browser import Browser
from tests.live.conftest import Screenshots
from tests.live.label_studio import LabelStudio
from tests.live.test_label_studio import draw, model_version, wait_for_prediction, wait_until_learnt
from tests.servers import Backend, wait_until

# The SDK's own.
pytestmark = pytest.mark.filterwarnings("ignore:The `parse_obj` method is deprecated")

CONFIG = """<View>
  <Choices name="shows" toName="video" choice="single" model_trainable="true">
    <Choice value="Ball"/>
    <Choice value="Box"/>
  </Choices>
  <Video name="video" value="$video" height="300" frameRate="25"/>
</View>"""
NUM_FRAMES = 40
# What the annotation that the page begins with says, and the choices that are ticked, each with its key.
PAGE = """
    const annotation = window.Htx?.annotationStore?.selected;
    const inputs = [...document.querySelectorAll("input:checked")];
    const ticked = inputs.map(input => input.closest("label")?.innerText.trim());
    return JSON.stringify({
        result: annotation ? annotation.serializeAnnotation() : [],
        ticked: ticked.filter(Boolean),
    });
"""


def chosen(result: list[dict[str, Any]]) -> list[str]:
    return [label for part in result if part["type"] == "choices" for label in part["value"]["choices"]]


def test_a_choice_of_a_whole_video_is_learnt_and_ticked(
    label_studio: LabelStudio, backend: Backend, browser: Browser, screenshots: Screenshots, tmp_path: Path
) -> None:
    project = label_studio.create_project("Choose for a whole video", CONFIG)
    shown = ["Ball", "Box", "Ball", "Box", "Ball", "Box"]
    tasks = [
        label_studio.upload(project, draw(tmp_path, f"clip{'x' * number}", {label: [(1, NUM_FRAMES)]}, NUM_FRAMES))
        for number, label in enumerate(shown)
    ]
    model = label_studio.connect(project, backend.url)
    for task, label in zip(tasks[:4], shown, strict=False):
        value = {"from_name": "shows", "to_name": "video", "type": "choices", "value": {"choices": [label]}}
        label_studio.submit(task, [value])
    wait_until_learnt(backend, project, 4)
    version = model_version(label_studio, model)

    for task, label in zip(tasks[4:], shown[4:], strict=True):
        prediction = wait_for_prediction(label_studio, project, task, version)
        assert chosen(prediction["result"]) == [label]
        assert prediction["score"] > 0

        browser.open(f"{label_studio.url}/projects/{project}/data?task={task}")
        wait_until(lambda: chosen(json.loads(browser.run(PAGE))["result"]), 120, "the annotation")
        page = json.loads(browser.run(PAGE))
        assert chosen(page["result"]) == [label]
        assert page["ticked"] == [{"Ball": "Ball[1]", "Box": "Box[2]"}[label]]
        screenshots.take(browser, f"a-choice-{label.lower()}")
