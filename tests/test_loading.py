"""What takes long isn't done while somebody waits for an answer: fetching and loading an encoder, reading a video."""

from __future__ import annotations

import ctypes
import json
import os
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from werkzeug.test import TestResponse

from errors import EncoderError, NotReady
from features import checkpoints
from features.encoder import get_encoder
from ml_backend import init_app
from ml_backend.jobs import worker
from ml_backend.jobs.worker import WorkerProcess
from ml_backend.settings import Settings
from model import YOLO
from tests.checkpoints import save_classifier
from tests.colours import BLUE, GREY, RED, RED_BLUE, config
from tests.http_server import Server, as_json
from tests.servers import Backend, annotation, region, wait_until
from tests.videos import write_video
from tests.work import work_off


def test_requests_right_after_a_start_wait_for_no_download(
    tmp_path: Path, silent_server: tuple[str, list[socket.socket]]
) -> None:
    """The server of the default encoder takes connections and never answers."""
    proxy, connections = silent_server
    backend = Backend(tmp_path, HTTPS_PROXY=proxy, RUN_WORKER="false")
    trainable, simple = config(), config("", ("soccer_ball", "banana"))
    backend.start()
    try:
        for project, text in ((1, trainable), (2, simple)):
            answer = backend.setup(text, project)  # while the server never answers
            assert answer.status_code == 200, answer.text
            assert answer.json()["model_version"].startswith("efficientnet-lite0-")
        video = {"id": 1, "data": {"video": str(backend.videos / "none.mp4")}}
        assert backend.annotate(trainable, video, annotation(1, region(1, 9, "Red"))).status_code == 201
        wait_until(lambda: backend.health()["encoder"] == "efficientnet-lite0", 60, f"the encoder, see {backend.log}")
        assert connections
    finally:
        backend.stop()


def test_simple_mode_while_its_encoder_is_loaded(
    settings: Settings, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What can be said at once is; a prediction is waited for, and delivered where that takes too long."""
    stored: list[int] = []

    def predictions(handler: BaseHTTPRequestHandler) -> None:
        if handler.command == "GET":
            return as_json([])(handler)
        made = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        stored.append(made["task"])
        return as_json({"id": len(stored), "task": made["task"]})(handler)

    server.answers["/api/predictions/"] = predictions
    app = init_app(YOLO, settings=settings.model_copy(update={"predict_timeout": 1.0}))
    client, jobs = app.test_client(), app.extensions["jobs"]
    tasks = []
    for number in (1, 2):
        video = write_video(settings.local_files_document_root / f"{number}.mp4", [RED] * (9 + number), size=(64, 64))
        tasks.append({"id": number, "data": {"video": str(video)}})

    def setup(project: str, text: str) -> TestResponse:
        connection = {"hostname": server.url, "access_token": "legacy"}
        return client.post("/setup", json={"project": project, "schema": text} | connection)

    def predict(text: str) -> TestResponse:
        return client.post("/predict", json={"project": "1", "label_config": text, "tasks": tasks})

    encoders, texts = [], []
    for name in ("colours", "others"):
        save_classifier(settings.model_root / f"{name}.pt", {0: "warm", 1: "cold", 2: name})
        encoders.append(get_encoder(f"{name}.pt", model_root=settings.model_root))
        texts.append(config(f'model_path="{name}.pt"', ("warm", "cold")))
    bad = config('model_path="colours.pt"', ("Ball", "Box"))
    with encoders[0]._load_lock:  # as a thread holds it that loads the encoder
        versions = [setup(project, text).json["model_version"] for project, text in (("1", texts[0]), ("2", bad))]
        answer = predict(texts[0])
        assert answer.status_code == 503
        assert "colours is being loaded. Label Studio gets the prediction when it is ready." in answer.json["error"]
        assert int(answer.headers["Retry-After"]) > 0
    wait_until(encoders[0].is_loaded, 60, "the encoder")
    assert setup("1", texts[0]).json["model_version"] == versions[0]
    answer = setup("2", bad)
    assert answer.status_code == 400
    assert "warm, cold" in answer.json["error"]
    work_off(jobs)
    assert sorted(stored) == [1, 2]
    answer = predict(texts[0])
    assert all("result" in item for item in answer.json["results"])
    jobs.store.close()

    # In time: nothing is delivered.
    asked: list[str] = []
    check_ready = YOLO.check_ready
    monkeypatch.setattr(YOLO, "check_ready", lambda model: (asked.append("ready?"), check_ready(model)))
    app = init_app(YOLO, settings=settings)
    client, jobs = app.test_client(), app.extensions["jobs"]
    with ThreadPoolExecutor() as pool:
        with encoders[1]._load_lock:
            waiting = pool.submit(predict, texts[1])
            wait_until(lambda: len(asked) > 2, 60, "the request to wait")
            assert not waiting.done()
        wait_until(lambda: len(jobs.store.jobs("queued")) == 2, 60, "the extractions")
        work_off(jobs)
        assert all("result" in item for item in waiting.result().json["results"])
    assert len(stored) == 2
    jobs.store.close()


def test_a_download_in_the_background_is_said_and_its_failure_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, silent_server: tuple[str, list[socket.socket]]
) -> None:
    url, connections = silent_server
    monkeypatch.setattr(checkpoints, "DOWNLOAD_HOST", url)
    checkpoints.import_ultralytics()

    def ask() -> None:
        get_encoder("yolo11n-cls.pt", model_root=tmp_path, wait=False)

    with pytest.raises(NotReady, match="yolo11n-cls is being fetched"):
        ask()
    connections_closed = len(connections)
    wait_until(lambda: tmp_path / "yolo11n-cls.pt" in checkpoints._background_failures, 30, "the download to fail")
    for _ in range(2):
        with pytest.raises(EncoderError, match="could not be downloaded"):
            ask()
    assert len(connections) == max(1, connections_closed)
    monkeypatch.setattr(checkpoints, "DOWNLOAD_RETRY_AFTER", 0.0)
    with pytest.raises(EncoderError, match="could not be downloaded"):  # while it is tried again
        ask()
    wait_until(lambda: len(connections) == 2, 10, "the next try")


IN_OPEN = 0x20  # of inotify


@pytest.fixture
def opened(settings: Settings) -> Iterator[Callable[[], set[str]]]:
    """The names of the videos that anybody has opened since the last question, in whatever language."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.inotify_init1(os.O_NONBLOCK)
    assert libc.inotify_add_watch(descriptor, os.fsencode(settings.local_files_document_root), IN_OPEN) > 0

    def names() -> set[str]:
        found, events = set(), b""
        try:
            while part := os.read(descriptor, 1 << 16):
                events += part
        except BlockingIOError:
            pass
        while events:
            length = int.from_bytes(events[12:16], "little")
            found.add(os.fsdecode(events[16 : 16 + length].rstrip(b"\0")))
            events = events[16 + length :]
        return found

    yield names
    os.close(descriptor)


def test_a_request_reads_no_video(settings: Settings, opened: Callable[[], set[str]]) -> None:
    """Not even to hash it: a worker does. That a renamed one is known is found out by the worker, too."""
    save_classifier(settings.model_root / "colours.pt", {0: "warm", 1: "cold"})
    text = config('model_path="colours.pt"', ("warm", "cold"))
    app = init_app(YOLO, settings=settings.model_copy(update={"predict_timeout": 0.2}))
    client, jobs = app.test_client(), app.extensions["jobs"]
    client.post("/setup", json={"project": "1", "schema": text})
    wait_until(get_encoder("colours.pt", model_root=settings.model_root).is_loaded, 60, "the encoder")
    path = write_video(settings.local_files_document_root / "first.mp4", [RED, BLUE] * 10, size=(64, 64))

    def send(task_id: int) -> int:
        """The status of a prediction; its task is new and annotated as well."""
        task = {"id": task_id, "data": {"video": str(path)}}
        project = {"id": 1, "label_config": text}
        answer = client.post("/predict", json={"project": "1", "label_config": text, "tasks": [task]})
        for event in ({"action": "TASKS_CREATED", "tasks": [task]}, {"action": "ANNOTATION_CREATED", "task": task}):
            body = event | {"project": project, "annotation": annotation(task_id, region(1, 9, "warm"))}
            assert client.post("/webhook", json=body).status_code in (200, 201)
        return answer.status_code

    opened()
    assert send(1) == 503
    assert opened() == set()
    work_off(jobs)
    assert opened() == {"first.mp4"}
    assert send(1) == 200
    path = path.rename(path.with_name("second.mp4"))
    assert send(2) == 503
    assert opened() == set()
    work_off(jobs)
    assert send(2) == 200
    jobs.store.close()


def test_a_model_file_that_is_replaced_under_the_running_server_is_used(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker looks for it, and for a classifier's file that is damaged."""
    monkeypatch.setattr(worker, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(worker, "LOOK_SECONDS_PER_PROJECT", 0.0)
    app = init_app(YOLO, settings=settings)
    client, jobs = app.test_client(), app.extensions["jobs"]
    process = WorkerProcess(app.extensions["runner"])
    colours = [GREY] * 20 + [RED] * 20 + [GREY] * 20 + [BLUE] * 20
    video = write_video(settings.local_files_document_root / "1.mp4", colours, size=(64, 64))
    task = {"id": 1, "data": {"video": str(video)}}
    project = {"id": 1, "label_config": config()}
    body = {"action": "ANNOTATION_CREATED", "project": project, "task": task, "annotation": RED_BLUE}
    assert client.post("/webhook", json=body).status_code == 201

    def predicted_by() -> str:
        process.watch()
        work_off(jobs)
        answer = client.post("/predict", json={"project": "1", "label_config": config(), "tasks": [task]})
        assert answer.status_code == 200, answer.text
        return answer.json["results"][0]["model_version"]

    assert predicted_by() == "efficientnet-lite0-v1 (1 video)"
    (classifier,) = settings.model_root.glob("timelinelabels-1-*.safetensors")
    classifier.write_bytes(b"damaged")
    assert predicted_by() == "efficientnet-lite0-v2 (1 video)"
    for version, names in ((3, {0: "a", 1: "b"}), (4, {0: "a", 1: "b", 2: "c"})):
        save_classifier(settings.model_root / "yolov8n-cls.pt", names)
        for _ in range(2):  # once for each change
            assert predicted_by() == f"yolov8n-cls-v{version} (1 video)"
    jobs.store.close()
