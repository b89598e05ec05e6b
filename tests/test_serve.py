"""The backend as users run it: gunicorn, a worker process, real videos, HTTP."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest

from learning import metrics
from tests.checkpoints import write_timm_weights
from tests.servers import Backend, annotation, processes, region, wait_until
from tests.test_choices import COLOURS, TIMELINE, choices, chosen, config, draw
from tests.videos import write_video
from utils.converter import convert_timelinelabels_to_probs

CONFIG = """<View>
<TimelineLabels name="tl" toName="video" model_trainable="true">
  <Label value="Ball touch"/><Label value="Ball in frame"/>
</TimelineLabels>
<Video name="video" value="$video" frameRate="25.0"/></View>"""
LABELS = {"Ball touch": 0, "Ball in frame": 1}


def picture(frame: int) -> np.ndarray:
    """A panning scene; an orange ball in labeling frames 51 to 150, a blue flash in 101 to 130; `frame` is from 0."""
    noise = np.random.default_rng(0).integers(0, 255, (15, 20, 3), dtype=np.uint8)
    image = np.roll(noise.repeat(16, 0).repeat(16, 1), frame, axis=1)
    if 50 <= frame < 150:
        y, x = np.ogrid[:240, :320]
        image[(x - 60 - frame) ** 2 + (y - 120) ** 2 < 40**2] = (255, 120, 0)
    if 100 <= frame < 130:
        image[20:90, 20:120] = (0, 0, 255)
    return image


REGIONS = [region(51, 150, "Ball in frame"), region(101, 130, "Ball touch")]


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    backend = Backend(tmp_path_factory.mktemp("backend")).start()
    backend.wait_for_worker()
    write_video(backend.videos / "ball.mp4", picture, 250)
    yield backend
    backend.stop()


def ball_task(backend: Backend, task_id: int = 1) -> dict:
    return {"id": task_id, "data": {"video": str(backend.videos / "ball.mp4")}}


def macro_f1(response: httpx.Response) -> float:
    regions = response.json()["results"][0]["result"]
    truth, _ = convert_timelinelabels_to_probs(REGIONS, LABELS, 250)
    predicted, _ = convert_timelinelabels_to_probs(regions, LABELS, 250)
    return metrics.macro_f1(metrics.count_frames(truth, predicted))


def test_annotate_train_predict_restart_reset(backend: Backend) -> None:
    task = ball_task(backend)
    untrained = backend.setup(CONFIG).json()["model_version"]
    answer = backend.predict(CONFIG, task)
    assert answer.status_code == 503
    assert "annotate a video" in answer.json()["error"]
    assert int(answer.headers["Retry-After"]) > 0

    answer = backend.annotate(CONFIG, task, annotation(1, *REGIONS))
    assert answer.status_code == 201
    assert answer.json()["status"] == "queued"
    status = backend.wait_for_job(answer.json()["job"])
    assert status["job_status"] == "finished", status

    version = backend.setup(CONFIG).json()["model_version"]
    assert version != untrained
    answer = backend.predict(CONFIG, task)
    assert answer.status_code == 200
    assert answer.json()["results"][0]["model_version"] == version
    assert macro_f1(answer) >= 0.9

    backend.stop()
    backend.start()
    answer = backend.predict(CONFIG, task)
    assert answer.json()["results"][0]["model_version"] == version
    assert macro_f1(answer) >= 0.9

    (classifier,) = (backend.folder / "models").glob("timelinelabels-1-*-tl-*.safetensors")
    classifier.unlink()
    assert backend.predict(CONFIG, task).status_code == 503
    assert backend.setup(CONFIG).json()["model_version"] == untrained


def test_a_partly_annotated_video_and_an_encoder_of_timms(backend: Backend) -> None:
    """The second half was not reviewed: the ball that it shows too is no counterexample."""
    write_timm_weights(backend.folder / "models", "resnet10t.c3_in1k")
    config = CONFIG.replace(
        'model_trainable="true"',
        'model_trainable="true" model_path="timm/resnet10t.c3_in1k" model_reviewed_label="Reviewed"',
    ).replace("</TimelineLabels>", '<Label value="Reviewed"/></TimelineLabels>')
    regions = [region(51, 100, "Ball in frame"), region(1, 100, "Reviewed")]
    video = write_video(backend.videos / "reviewed.mp4", picture, 250)
    task = {"id": 1, "data": {"video": str(video)}}
    backend.setup(config, project=4)
    job = backend.annotate(config, task, annotation(1, *regions), project=4).json()["job"]
    result = backend.wait_for_job(job)
    assert result["job_status"] == "finished", result
    assert result["result"]["tl"]["score"]["frames"]["per_label"]["Ball in frame"]["support"] == 50
    answer = backend.predict(config, task, project=4).json()["results"][0]
    assert answer["model_version"].startswith("resnet10t.c3_in1k-v1")
    assert {label for r in answer["result"] for label in r["value"]["timelinelabels"]} == {"Ball in frame"}
    found, _ = convert_timelinelabels_to_probs(answer["result"], {"Ball in frame": 0}, 250)
    truth = np.zeros((250, 1), bool)
    truth[50:150] = True
    assert metrics.macro_f1(metrics.count_frames(truth, found)) > 0.9


def test_a_killed_worker_loses_no_training(backend: Backend) -> None:
    backend.wait_for_worker()
    backend.setup(CONFIG, project=2)
    write_video(backend.videos / "long.mp4", picture, 1000)
    task = {"id": 1, "data": {"video": str(backend.videos / "long.mp4")}}
    job = backend.annotate(CONFIG, task, annotation(1, *REGIONS), project=2).json()["job"]
    wait_until(
        lambda: backend.post("/job_status", {"job": job}).json()["job_status"] == "started", 60, "the job to start"
    )
    os.kill(backend.worker_pid(), signal.SIGKILL)
    assert backend.wait_for_job(job)["job_status"] == "finished"
    assert backend.predict(CONFIG, task, project=2).status_code == 200


def test_twenty_webhooks_at_once_are_few_trainings(backend: Backend) -> None:
    backend.setup(CONFIG, project=3)

    def submit(number: int) -> str:
        answer = backend.annotate(CONFIG, ball_task(backend, number), annotation(number, *REGIONS), project=3)
        assert answer.status_code == 201
        return answer.json()["job"]

    with ThreadPoolExecutor(20) as pool:
        jobs = set(pool.map(submit, range(1, 21)))
    assert len(jobs) <= 6
    results = [backend.wait_for_job(job) for job in jobs]
    assert {result["job_status"] for result in results} == {"finished"}
    assert max(result["result"]["tl"]["tasks"] for result in results) == 20
    assert 'backend_model_behind{project="3"} 0.0' in backend.http.get("/metrics").text


def test_bad_input_is_answered_and_survived(backend: Backend, tmp_path: Path) -> None:
    post = backend.post
    for body in (b"{no json", b""):
        answer = backend.http.post("/predict", content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == 400
        assert "JSON" in answer.json()["error"]
    assert post("/predict", [1, 2]).status_code == 400
    answer = post("/predict", {"project": "1.1", "label_config": CONFIG})
    assert answer.status_code == 400
    assert "tasks" in answer.json()["error"]
    answer = post("/predict", {"tasks": "all", "project": 7.5, "label_config": CONFIG})
    assert answer.status_code == 400
    assert post("/webhook", {"action": "ANNOTATION_CREATED"}).status_code == 400
    # Labels that the config hasn't are left out, and the task's page names them.
    task = ball_task(backend)
    answer = backend.annotate(CONFIG, task, annotation(99, region(1, 5, "Goal", "Foul")), project=4)
    assert answer.status_code == 201
    backend.wait_for_job(answer.json()["job"])
    page = backend.http.get(f"/projects/4/tasks/{task['id']}", headers={"Accept": "text/html"}).text
    assert "Goal" in page
    assert "Foul" in page
    answer = post("/webhook", {"action": "LABEL_LINK_CREATED", "project": {"id": 1}})
    assert (answer.status_code, answer.json()) == (200, {"status": "Unknown event"})
    assert post("/job_status", {"job": "nonsense"}).status_code == 410
    assert backend.http.get("/nowhere").status_code == 404
    assert backend.http.get("/predict").status_code == 405
    answer = backend.setup('<View><TimelineLabels name="tl" toName="video"')
    assert answer.status_code == 400
    answer = backend.setup(CONFIG.replace("model_trainable", 'model_classifier_epochs="many" model_trainable'))
    assert answer.status_code == 400
    for part in ("model_classifier_epochs", "many", "whole number"):
        assert part in answer.json()["error"]
    assert backend.health()["status"] == "UP"


SIMPLE_CONFIG = """<View>
<TimelineLabels name="tl" toName="video"><Label value="Ball" predicted_values="soccer_ball"/></TimelineLabels>
<Video name="video" value="$video" frameRate="25"/></View>"""


def test_bad_media_is_answered_and_survived(backend: Backend) -> None:
    videos = backend.videos
    (videos / "text.mp4").write_text("This is no video.\n" * 1000)
    (videos / "empty.mp4").touch()
    whole = (videos / "ball.mp4").read_bytes()
    # The index of this MP4 stands at its end: without it no frame can be found.
    (videos / "truncated.mp4").write_bytes(whole[: len(whole) // 2])
    outside = videos.parent / "outside.mp4"
    outside.write_bytes(whole)
    backend.wait_for_encoder(SIMPLE_CONFIG, project=5)
    errors = {}
    for value in [
        str(videos / "text.mp4"),
        str(videos / "empty.mp4"),
        str(videos / "truncated.mp4"),
        str(videos / "missing.mp4"),
        str(outside),
        f"{videos}/../outside.mp4",
        "http://127.0.0.1:9/refused.mp4",
        {"not": "a path"},
        "",
    ]:
        answer = backend.predict(SIMPLE_CONFIG, {"id": 1, "data": {"video": value}}, project=5)
        assert answer.status_code == 404, (value, answer.text)
        errors[str(value)] = answer.json()["error"]
        assert "Traceback" not in answer.text
    assert "No frame" in errors[str(videos / "text.mp4")] or "not a" in errors[str(videos / "text.mp4")]
    good = ball_task(backend, 2)
    answer = backend.predict(SIMPLE_CONFIG, {"id": 1, "data": {"video": str(videos / "text.mp4")}}, good, project=5)
    assert answer.status_code == 200
    first, second = answer.json()["results"]
    assert set(first) == {"error"}
    assert "result" in second
    assert backend.health()["worker_alive"]


def test_choices_beside_a_timeline(backend: Backend) -> None:
    text = config(TIMELINE, choices())
    untrained = backend.setup(text, project=6).json()["model_version"]
    for number, colour in enumerate(COLOURS, 1):
        drawn = annotation(number, region(11, 30, "Disc"), chosen(colour))
        answer = backend.annotate(text, draw(backend.videos, number, colour), drawn, project=6)
        assert answer.status_code == 201, answer.text
    status = backend.wait_for_job(answer.json()["job"])
    assert status["job_status"] == "finished", status
    version = backend.setup(text, project=6).json()["model_version"]
    assert version != untrained
    task = draw(backend.videos, 9, "Green")
    answers: list[httpx.Response] = []

    def predicted() -> bool:
        """A video that isn't read yet is waited for 4 s; a busy machine may need more."""
        answers.append(backend.predict(text, task, project=6))
        return answers[-1].is_success

    wait_until(predicted, 240, "the prediction")
    (result,) = answers[-1].json()["results"]
    assert result["model_version"] == version
    (choice,) = [r for r in result["result"] if r["type"] == "choices"]
    assert (choice["from_name"], choice["to_name"]) == ("kind", "video")
    assert len(choice["value"]["choices"]) == 1
    assert any(r["type"] == "timelinelabels" for r in result["result"])


def test_a_killed_server_leaves_no_process_behind(backend: Backend) -> None:
    """SIGKILL ends the first process alone: the web processes and the worker notice, and stop."""
    session = backend.process.pid
    assert len(processes(session)) >= 3
    os.kill(session, signal.SIGKILL)
    backend.process.wait()
    wait_until(lambda: not processes(session), 60, "the other processes to stop")
    backend.process = None
