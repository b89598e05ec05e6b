"""The loop that the backend exists for, through a real Label Studio: annotate, train, predict, correct."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from errors import MediaError
from features.cache_folder import CacheFolder
from ml_backend.label_studio.client import (
    Connection,
    LabelStudioError,
    annotated_tasks,
)
from ml_backend.label_studio.media import MediaFiles
from ml_backend.label_studio.predictions import create_prediction, stored_predictions
from progress import Progress
from tests.live.browser import Browser
from tests.live.label_studio import LEGACY_TOKEN, LabelStudio
from tests.live.timelines import Truth, agreement, frames, regions
from tests.servers import Backend, wait_until
from tests.videos import write_video

# The SDK's own.
pytestmark = pytest.mark.filterwarnings("ignore:The `parse_obj` method is deprecated")

NUM_FRAMES = 100
SIZE = (320, 240)
CONFIG = """<View>
  <TimelineLabels name="tl" toName="video" model_trainable="true">
    <Label value="Ball" background="red"/>
    <Label value="Box" background="blue"/>
  </TimelineLabels>
  <Video name="video" value="$video" height="300" frameRate="25" timelineHeight="150"/>
</View>"""
CONFIG_LABELS = {"Ball", "Box"}
FIRST: Truth = {"Ball": [(11, 45)], "Box": [(61, 85)]}
SECOND: Truth = {"Ball": [(41, 75)], "Box": [(6, 30)]}
THIRD: Truth = {"Ball": [(21, 50)], "Box": [(66, 95)]}
# A second or two, and several times as long on a busy machine, after the encoder is loaded for the first time.
TRAINING_SECONDS = 300


def draw(folder: Path, name: str, truth: Truth, num_frames: int = NUM_FRAMES) -> Path:
    """A video over a noisy background, with a red ball and a blue box in the frames that `truth` says."""
    noise = np.random.default_rng(len(name)).integers(90, 130, (SIZE[1], SIZE[0], 3), np.uint8)
    rows, columns = np.mgrid[: SIZE[1], : SIZE[0]]
    ball = (rows - 120) ** 2 + (columns - 90) ** 2 < 70**2

    def picture(index: int) -> np.ndarray:
        image = noise.copy()
        if any(start <= index + 1 <= end for start, end in truth.get("Ball", [])):
            image[ball] = (220, 30, 30)
        if any(start <= index + 1 <= end for start, end in truth.get("Box", [])):
            image[60:180, 190:300] = (30, 30, 220)
        return image

    return write_video(folder / f"{name}.mp4", picture, num_frames, size=SIZE)


def model_version(label_studio: LabelStudio, model: int) -> str:
    """The version that Label Studio reads from the backend's `/setup` when its model page is opened."""
    state = label_studio.get(f"/api/ml/{model}")
    assert state["state"] == "CO", state
    return state["model_version"]


def wait_for_new_version(label_studio: LabelStudio, model: int, old: str) -> str:
    wait_until(lambda: model_version(label_studio, model) != old, TRAINING_SECONDS, "a new model version")
    return model_version(label_studio, model)


def wait_until_learnt(backend: Backend, project: int, count: int) -> None:
    """Wait until the model has learnt a project's annotated videos, `count` of them."""

    def learnt() -> bool:
        state = backend.http.get("/dashboard/state", params={"project": project}).json()["projects"]
        return bool(state) and state[0]["annotated_tasks"] == count and state[0]["state"] == "is up to date"

    wait_until(learnt, TRAINING_SECONDS, f"{count} videos to be learnt, see {backend.log}")


def wait_for_prediction(label_studio: LabelStudio, project: int, task: int, version: str) -> dict[str, Any]:
    """Ask for predictions, and return the one that `version` made once it is there."""
    label_studio.retrieve_predictions(project)

    def made_by_version() -> list[dict[str, Any]]:
        return [made for made in label_studio.predictions(task) if made["model_version"] == version]

    wait_until(made_by_version, TRAINING_SECONDS, f"a prediction of {version}")
    assert len(made_by_version()) == 1
    return made_by_version()[0]


# The labeling page's own state: the predictions that it got, the annotation that it begins with, and its timeline.
PAGE = """
    const store = window.Htx?.annotationStore;
    return JSON.stringify({
        predictions: (store?.predictions ?? []).map(prediction => prediction.createdBy),
        annotation: (store?.selected?.serializeAnnotation() ?? []).map(region => ({value: region.value})),
        timelines: document.querySelectorAll(".lsf-timeline-frames__keypoints .lsf-keypoints").length,
    });
"""


def test_second_annotation_makes_a_new_version_whose_predictions_replace_the_first(
    label_studio: LabelStudio, backend: Backend, browser: Browser, tmp_path: Path
) -> None:
    project = label_studio.create_project("Annotate, predict, correct", CONFIG)
    tasks = [
        label_studio.upload(project, draw(tmp_path, name, truth))
        for name, truth in [("first", FIRST), ("second", SECOND), ("third", THIRD)]
    ]
    model = label_studio.connect(project, backend.url)
    untrained = model_version(label_studio, model)

    label_studio.submit(tasks[0], regions(FIRST))
    once = wait_for_new_version(label_studio, model, untrained)
    first, second, third = (wait_for_prediction(label_studio, project, task, once) for task in tasks)
    assert agreement(first["result"], FIRST) >= 0.9

    label_studio.submit(tasks[1], regions(SECOND), prediction=second["id"])
    twice = wait_for_new_version(label_studio, model, once)
    first, second, third = (wait_for_prediction(label_studio, project, task, twice) for task in tasks)
    assert agreement(first["result"], FIRST) >= 0.9
    assert agreement(second["result"], SECOND) >= 0.9
    assert agreement(third["result"], THIRD) >= 0.8
    # Stored by the worker in place of the first, or by Label Studio beside it, whichever was faster.
    assert [made["model_version"] for made in label_studio.predictions(tasks[2])] in ([twice], [once, twice])

    # The label stream opens the third video, the only one without an annotation: it got the second set alone, and the
    # annotation begins with its regions, drawn on the timeline, one line a label.
    browser.open(f"{label_studio.url}/projects/{project}/data?labeling=1")
    wait_until(lambda: json.loads(browser.run(PAGE))["timelines"] == len(CONFIG_LABELS), 120, "the timeline")
    page = json.loads(browser.run(PAGE))
    assert page["predictions"] == [twice]
    assert frames(page["annotation"]) == frames(third["result"])


def test_corrected_annotation_replaces_what_it_was(label_studio: LabelStudio, backend: Backend, tmp_path: Path) -> None:
    project = label_studio.create_project("Correct an annotation", CONFIG)
    first, second = (
        label_studio.upload(project, draw(tmp_path, name, truth)) for name, truth in [("a", FIRST), ("b", SECOND)]
    )
    model = label_studio.connect(project, backend.url)
    untrained = model_version(label_studio, model)

    annotation = label_studio.submit(first, regions({"Ball": FIRST["Ball"]}))
    incomplete = wait_for_new_version(label_studio, model, untrained)
    predicted = wait_for_prediction(label_studio, project, second, incomplete)["result"]
    assert {label for label, _ in frames(predicted)} == {"Ball"}

    label_studio.update(annotation, regions(FIRST))
    complete = wait_for_new_version(label_studio, model, incomplete)
    predicted = wait_for_prediction(label_studio, project, second, complete)["result"]
    assert agreement(predicted, SECOND) >= 0.8


def test_start_training_learns_all_annotations(label_studio: LabelStudio, backend: Backend, tmp_path: Path) -> None:
    """Annotations from before the backend was connected: no webhook told it of them."""
    only_ball: Truth = {"Ball": [(21, 60)]}
    only_box: Truth = {"Box": [(41, 80)]}
    project = label_studio.create_project("Start training", CONFIG)
    tasks = []
    for name, truth in [("ball", only_ball), ("box", only_box)]:
        tasks.append(label_studio.upload(project, draw(tmp_path, name, truth)))
        label_studio.submit(tasks[-1], regions(truth))
    model = label_studio.connect(project, backend.url)
    untrained = model_version(label_studio, model)

    label_studio.post(f"/api/ml/{model}/train", {})
    job = backend.wait_for_job(label_studio.train_jobs(model)[-1])
    assert job["job_status"] == "finished", job

    version = model_version(label_studio, model)
    assert version != untrained
    for task, truth in zip(tasks, [only_ball, only_box], strict=True):
        assert agreement(wait_for_prediction(label_studio, project, task, version)["result"], truth) >= 0.9


@pytest.fixture
def annotated(label_studio: LabelStudio, tmp_path: Path) -> tuple[int, int, Path]:
    """A project with one annotated video: (project, task, the video's file)."""
    project = label_studio.create_project("Access", CONFIG)
    video = draw(tmp_path, "clip with spaces (1)", FIRST)
    task = label_studio.upload(project, video)
    label_studio.submit(task, regions(FIRST))
    return project, task, video


@pytest.fixture
def legacy_tokens(label_studio: LabelStudio) -> Iterator[None]:
    """Legacy tokens switched on for one test."""
    label_studio.allow_legacy_tokens(True)
    yield
    label_studio.allow_legacy_tokens(False)


def downloads(cache: Path) -> MediaFiles:
    return MediaFiles(None, CacheFolder(cache, 10**9))


def assert_api_serves(label_studio: LabelStudio, key: str, annotated: tuple[int, int, Path], cache: Path) -> None:
    """Everything that the backend asks of Label Studio's API, each answer checked."""
    project, task, video = annotated
    connection = Connection(label_studio.url, key)
    (found,) = annotated_tasks(connection, project)
    assert found["id"] == task
    assert found["data"]["video"].startswith("/data/upload/")
    (annotation,) = found["annotations"]
    assert annotation["result"] == regions(FIRST)
    assert annotation["was_cancelled"] is False

    path = downloads(cache).get(found["data"]["video"], connection)
    assert path.read_bytes() == video.read_bytes()

    assert stored_predictions(connection, task) == []
    prediction = create_prediction(connection, task, regions(SECOND), 0.75, "by hand")
    assert [stored.model_version for stored in stored_predictions(connection, task)] == ["by hand"]
    (stored,) = label_studio.predictions(task)
    assert (stored["id"], stored["score"], stored["model_version"]) == (prediction, 0.75, "by hand")
    assert stored["result"] == regions(SECOND)


def test_personal_access_token(label_studio: LabelStudio, annotated: tuple[int, int, Path], tmp_path: Path) -> None:
    assert_api_serves(label_studio, label_studio.personal_access_token, annotated, tmp_path / "cache")


@pytest.mark.usefixtures("legacy_tokens")
def test_legacy_token_where_it_is_allowed(
    label_studio: LabelStudio, annotated: tuple[int, int, Path], tmp_path: Path
) -> None:
    assert_api_serves(label_studio, LEGACY_TOKEN, annotated, tmp_path / "cache")


@pytest.mark.parametrize("kind", ["legacy", "shortened"])
def test_a_refused_token_is_told_with_advice(
    label_studio: LabelStudio, annotated: tuple[int, int, Path], tmp_path: Path, kind: str
) -> None:
    """The page that lists personal access tokens shows a shortened copy, which looks like one that can be used."""
    project, task, _ = annotated
    key = LEGACY_TOKEN if kind == "legacy" else label_studio.personal_access_token[:40]
    connection = Connection(label_studio.url, key)
    upload = label_studio.get(f"/api/tasks/{task}/")["data"]["video"]
    with pytest.raises(MediaError, match=r"LABEL_STUDIO_API_KEY.*personal access token"):
        downloads(tmp_path).get(upload, connection)
    with pytest.raises(LabelStudioError, match=r"LABEL_STUDIO_API_KEY.*personal access token"):
        list(annotated_tasks(connection, project))


def test_local_files_over_http(label_studio: LabelStudio, tmp_path: Path) -> None:
    project = label_studio.create_project("Local files", CONFIG)
    folder = label_studio.files / "videos"
    folder.mkdir()
    video = draw(folder, "clip", FIRST)
    label_studio.serve_folder(project, folder)
    connection = Connection(label_studio.url, label_studio.personal_access_token)
    path = downloads(tmp_path).get("/data/local-files/?d=videos/clip.mp4", connection)
    assert path.read_bytes() == video.read_bytes()
    with pytest.raises(MediaError, match="404"):
        downloads(tmp_path).get("/data/local-files/?d=videos/none.mp4", connection)


def test_annotated_tasks_over_several_pages(label_studio: LabelStudio) -> None:
    project = label_studio.create_project("Pages", CONFIG)
    done, skipped = {"result": regions(FIRST)}, {"result": [], "was_cancelled": True}
    annotated = [{"data": {"video": f"s3://bucket/{index}.mp4"}, "annotations": [done]} for index in range(205)]
    annotated[0]["annotations"] = [done, skipped]
    label_studio.post(f"/api/projects/{project}/import", [*annotated, {"data": {"video": "s3://bucket/new.mp4"}}])
    connection = Connection(label_studio.url, label_studio.personal_access_token)
    shares: list[float] = []
    found = list(annotated_tasks(connection, project, Progress(shares.append)))
    assert [task["data"] for task in found] == [task["data"] for task in annotated]
    assert sorted(annotation["was_cancelled"] for annotation in found[0]["annotations"]) == [False, True]
    assert (shares[0], shares[-1]) == (0.0, 1.0)
    fetching = annotated_tasks(connection, project)
    first = next(fetching)
    chosen = {"selectedItems": {"all": False, "included": [first["id"]]}}
    label_studio.post("/api/dm/actions", chosen, id="delete_tasks", project=project)
    later = {"data": {"video": "s3://bucket/later.mp4"}, "annotations": [done]}
    label_studio.post(f"/api/projects/{project}/import", [later])
    assert [task["data"] for task in fetching] == [task["data"] for task in [*annotated[1:], later]]
