"""Predictions that aren't there in time, or can't be had, as Label Studio asks for them and stores them."""

import signal
from pathlib import Path

from tests.live.conftest import OTHER_PASSWORD
from tests.live.label_studio import LabelStudio
from tests.live.test_label_studio import (
    CONFIG,
    FIRST,
    SECOND,
    THIRD,
    TRAINING_SECONDS,
    draw,
    model_version,
    wait_for_new_version,
)
from tests.live.timelines import agreement, regions
from tests.servers import Backend, wait_until

# Nothing is stored before somebody asks for it.
ASKED_CONFIG = CONFIG.replace("model_trainable", 'model_predict_ahead="0" model_trainable')
# The network's own classes: nothing has to be trained.
SIMPLE_CONFIG = CONFIG.replace('model_trainable="true"', 'model_predict_ahead="0"').replace("Ball", "soccer_ball")


def test_a_batch_of_ten_stores_eight_and_reports_two(
    label_studio: LabelStudio, backend: Backend, tmp_path: Path
) -> None:
    project = label_studio.create_project("One broken, one missing", SIMPLE_CONFIG)
    good = [label_studio.upload(project, draw(tmp_path, f"clip{number}", FIRST, 20 + number)) for number in range(8)]
    (tmp_path / "broken.mp4").write_bytes(b"This is no video. " * 1000)
    broken = label_studio.upload(project, tmp_path / "broken.mp4")
    missing_file = f"/data/upload/{project}/missing.mp4"
    label_studio.post(f"/api/projects/{project}/import", [{"data": {"video": missing_file}}])
    (missing,) = {task["id"] for task in label_studio.get("/api/tasks/", project=project)["tasks"]} - {*good, broken}
    version = model_version(label_studio, label_studio.connect(project, backend.url))
    backend.wait_for_encoder(SIMPLE_CONFIG, project)

    label_studio.retrieve_predictions(project)

    stored = {task: [made["model_version"] for made in label_studio.predictions(task)] for task in good}
    assert stored == {task: [version] for task in good}
    assert label_studio.predictions(broken) == label_studio.predictions(missing) == []
    (line,) = [line for line in backend.log.read_text().splitlines() if "2 of 10 tasks have no prediction" in line]
    for task, file in ((broken, "broken.mp4"), (missing, "missing.mp4")):
        reported = line.partition(f"task {task}: ")[2].partition(" task ")[0]
        assert file in reported, line


def test_a_late_prediction_is_stored_once_even_if_the_backend_was_killed(
    label_studio: LabelStudio, other_backend: Backend, tmp_path: Path
) -> None:
    backend = other_backend
    project = label_studio.create_project("Deliver late", ASKED_CONFIG)
    # Uploaded before the backend is connected, so that its features aren't there yet; long, so that they take a while.
    first = label_studio.upload(project, draw(tmp_path, "annotated", FIRST))
    late = label_studio.upload(project, draw(tmp_path, "long", THIRD, num_frames=500))

    def versions_of(task: int) -> list[str]:
        return [made["model_version"] for made in label_studio.predictions(task)]

    model = label_studio.connect(project, backend.url, OTHER_PASSWORD)
    untrained = model_version(label_studio, model)
    label_studio.submit(first, regions(FIRST))
    versions = [wait_for_new_version(label_studio, model, untrained)]

    label_studio.retrieve_predictions(project)
    backend.stop(signal.SIGKILL)
    assert label_studio.predictions(late) == []
    backend.start()  # nobody asks again
    wait_until(lambda: label_studio.predictions(late), TRAINING_SECONDS, "the delivery")
    label_studio.retrieve_predictions(project)
    (delivered,) = label_studio.predictions(late)
    assert delivered["model_version"] == versions[0]
    assert agreement(delivered["result"], THIRD) >= 0.8

    # Another version's takes its place.
    second = label_studio.upload(project, draw(tmp_path, "second", SECOND))
    label_studio.submit(second, regions(SECOND))
    versions.append(wait_for_new_version(label_studio, model, versions[0]))
    for _ in range(2):
        label_studio.retrieve_predictions(project)
        wait_until(lambda: versions_of(late) == versions[1:], TRAINING_SECONDS, "the next version's prediction")
