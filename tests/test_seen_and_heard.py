"""What a config makes the backend see, hear, start from and ask, end to end over HTTP: region, image size, sound,
another project's model, questions inside a video."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from flask import Flask
from werkzeug.serving import make_server

from features.cache import extract
from features.encoder import get_encoder
from ml_backend.settings import Settings
from model import YOLO
from tests.servers import annotation, region
from tests.test_sound import write
from tests.videos import write_video
from video.preprocessing import View

SIZE = (320, 180)
EVENT = (31, 70)  # labeling frames of the lamp on the right


def lamps(left: Callable[[int], bool], right: Callable[[int], bool]) -> Callable[[int], np.ndarray]:
    """Two lamps side by side, on or off."""

    def draw(index: int) -> np.ndarray:
        picture = np.full((*SIZE[::-1], 3), 70, np.uint8)
        for on, x in ((left(index), 60), (right(index), 220)):
            picture[60:120, x : x + 40] = (250, 220, 60) if on else (30, 40, 90)
        return picture

    return draw


def in_event(index: int) -> bool:
    return EVENT[0] <= index + 1 <= EVENT[1]


def config(attributes: str, label: str = "On") -> str:
    return (
        f'<View><TimelineLabels name="tl" toName="video" {attributes}><Label value="{label}"/></TimelineLabels>'
        '<Video name="video" value="$video" frameRate="25"/></View>'
    )


@pytest.fixture
def client(make_app: Callable[..., Flask], settings: Settings) -> Iterator[httpx.Client]:
    """A real server whose jobs are done at once."""
    server = make_server("127.0.0.1", 0, make_app(YOLO), threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    with httpx.Client(base_url=f"http://127.0.0.1:{server.server_port}", timeout=120) as http:
        yield http
    server.shutdown()
    thread.join()


def task(settings: Settings, number: int, draw: Callable[[int], np.ndarray]) -> dict[str, Any]:
    path = settings.local_files_document_root / f"{number}.mp4"
    write_video(path, draw, 100, size=SIZE)
    return {"id": number, "data": {"video": f"/data/local-files/?d={path.name}"}}


def submit(
    client: httpx.Client, label_config: str, one: dict[str, Any], start: int, end: int, project: int = 1
) -> None:
    body = {"action": "ANNOTATION_CREATED", "task": one, "annotation": annotation(one["id"], region(start, end, "On"))}
    answer = client.post("/webhook", json=body | {"project": {"id": project, "label_config": label_config}})
    assert answer.status_code == 201, answer.text


def predict(client: httpx.Client, label_config: str, *tasks: dict[str, Any], project: int = 1) -> list[dict[str, Any]]:
    answer = client.post("/predict", json={"tasks": tasks, "project": f"{project}.1", "label_config": label_config})
    assert answer.status_code == 200, answer.text
    return answer.json()["results"]


def ranges(prediction: dict[str, Any]) -> list[tuple[int, int]]:
    found = [part["value"]["ranges"][0] for part in prediction["result"]]
    return [(one["start"], one["end"]) for one in found]


def test_what_is_outside_the_region_is_not_seen(client: httpx.Client, settings: Settings) -> None:
    """In the annotated video both lamps burn together. In the others the left one burns at other times."""
    label_config = config('model_trainable="true" model_region="50,0,50,100"')
    answer = client.post("/setup", json={"project": "1.1", "schema": label_config})
    assert answer.status_code == 200, answer.text
    annotated = task(settings, 1, lamps(in_event, in_event))
    submit(client, label_config, annotated, *EVENT)
    new = [
        task(settings, 2, lamps(lambda index: index < 20, in_event)),
        task(settings, 3, lamps(lambda index: index > 80, in_event)),
    ]
    first, second = predict(client, label_config, *new)
    for prediction in (first, second):
        assert len(prediction["result"]) == 1
        assert ranges(prediction)[0] == pytest.approx(EVENT, abs=3)


def test_another_look_is_trained_again_and_a_wrong_one_refused(client: httpx.Client, settings: Settings) -> None:
    annotated, new = task(settings, 1, lamps(in_event, in_event)), task(settings, 2, lamps(in_event, in_event))
    versions = set()
    for number, attributes in enumerate(('model_image_size="96"', 'model_region="0,0,50,100" model_image_size="96"')):
        label_config = config(f'model_trainable="true" {attributes}')
        client.post("/setup", json={"project": "1.1", "schema": label_config})
        if number == 0:
            submit(client, label_config, annotated, *EVENT)
        else:  # trained again by itself, from what is stored
            client.post(
                "/webhook", json={"action": "PROJECT_UPDATED", "project": {"id": 1, "label_config": label_config}}
            )
        (prediction,) = predict(client, label_config, new)
        assert ranges(prediction)[0] == pytest.approx(EVENT, abs=3)
        versions.add(prediction["model_version"])
    assert len(versions) == 2
    wrong = config('model_trainable="true" model_region="60,0,50,100"')
    answer = client.post("/setup", json={"project": "1.1", "schema": wrong})
    assert answer.status_code == 400
    assert 'model_region="60,0,50,100"' in answer.json()["error"]


def test_simple_mode_looks_at_the_region(client: httpx.Client, settings: Settings) -> None:
    """A flower on the left: the whole picture's probability isn't that of its parts."""
    from sklearn.datasets import load_sample_image

    flower = load_sample_image("flower.jpg")[:420, :640]
    path = settings.local_files_document_root / "flower.mp4"
    picture = np.zeros((420, 1280, 3), np.uint8)
    picture[:, :640] = flower
    write_video(path, lambda _: picture, 10, size=(1280, 420))
    one = {"id": 1, "data": {"video": "/data/local-files/?d=flower.mp4"}}
    encoder = get_encoder(None, model_root=settings.model_root)
    alone = write_video(settings.local_files_document_root / "alone.mp4", lambda _: flower, 10, size=(640, 420))
    column = int(extract(encoder, alone, View.CROP).probs.mean(axis=0).argmax())
    left, right = (
        predict(client, config(f'model_region="{part}" score_threshold="0"', encoder.class_names[column]), one)[0]
        for part in ("0,0,50,100", "50,0,50,100")
    )
    assert left["result"][0]["score"] == pytest.approx(
        float(extract(encoder, alone, View.CROP).probs[:, column].mean()), abs=0.02
    )
    assert right["result"][0]["score"] < left["result"][0]["score"] / 2


def test_what_is_heard_is_learnt(client: httpx.Client, settings: Settings) -> None:
    """All pictures are alike; a beep begins and ends at moments that differ from video to video."""
    label_config = config('model_trainable="true"')

    def beeping(number: int, start: float, end: float) -> dict[str, Any]:
        def signal(time: np.ndarray) -> np.ndarray:
            return 0.5 * np.sin(2 * np.pi * 1000 * time) * ((time >= start) & (time < end))

        path = write(settings.local_files_document_root / f"{number}.mp4", signal)
        return {"id": number, "data": {"video": f"/data/local-files/?d={path.name}"}}

    for number, (start, end) in enumerate([(0.4, 1.2), (2.0, 3.2), (1.2, 2.4)], start=1):
        submit(client, label_config, beeping(number, start, end), round(25 * start) + 1, round(25 * end))
    (prediction,) = predict(client, label_config, beeping(9, 2.4, 3.6))
    assert len(prediction["result"]) == 1
    assert ranges(prediction)[0] == pytest.approx((61, 90), abs=4)


def test_a_project_starts_from_what_another_has_learnt(client: httpx.Client, settings: Settings) -> None:
    """In the project's only annotated video both lamps burn together. The other project knows which one is meant."""
    other = config('model_trainable="true"')
    for number, start in enumerate((10, 30, 50, 60), start=1):
        one = task(settings, number, lamps(lambda i: 20 <= i < 45, lambda i, start=start: start <= i + 1 <= start + 29))
        submit(client, other, one, start, start + 29)
    annotated = task(settings, 5, lamps(in_event, in_event))
    new = task(settings, 6, lamps(lambda index: index < 20, in_event))
    found = []
    for project, start_from in ((2, ""), (3, 'model_start_from="1"')):
        label_config = config(f'model_trainable="true" {start_from}')
        answer = client.post("/setup", json={"project": f"{project}.1", "schema": label_config})
        assert answer.status_code == 200, answer.text
        if start_from:
            (prediction,) = predict(client, label_config, new, project=project)
            assert ranges(prediction)[0] == pytest.approx(EVENT, abs=3)
            assert prediction["model_version"].endswith("v4 (4 videos) of 1")
        submit(client, label_config, annotated, *EVENT, project=project)
        (prediction,) = predict(client, label_config, new, project=project)
        found.append(ranges(prediction))
    alone, started = found
    assert len(alone) == 2  # either lamp
    assert len(started) == 1
    assert started[0] == pytest.approx(EVENT, abs=3)


@pytest.mark.parametrize(
    ("name", "attributes", "reason"),
    [
        ("7", "", "knows no project"),
        ("2", "", "can't start from itself"),
        ("walking", "", "import-model FILE --name walking"),
        ("../models", "", "knows no project"),
        ("1", 'model_image_size="96"', "Give both tags the same model_path, model_region and model_image_size"),
        ("1", "", "none of this tag's labels; it has 'On'"),
    ],
)
def test_what_can_not_be_started_from_is_said_with_the_config(
    client: httpx.Client, settings: Settings, name: str, attributes: str, reason: str
) -> None:
    if name == "1":
        submit(client, config('model_trainable="true"'), task(settings, 1, lamps(in_event, in_event)), *EVENT)
    label = "Off" if "labels" in reason else "On"
    label_config = config(f'model_trainable="true" model_start_from="{name}" {attributes}', label)
    answer = client.post("/setup", json={"project": "2.1", "schema": label_config})
    assert answer.status_code == 400
    assert f'model_start_from="{name}"' in answer.json()["error"]
    assert reason in answer.json()["error"]


def test_a_question_is_answered_and_only_the_answer_is_learnt(client: httpx.Client, settings: Settings) -> None:
    """The lamp of the second video is half as bright for a while, of which the first one says nothing."""
    attributes = 'model_trainable="true" model_reviewed_label="Reviewed" model_query_label="Check"'
    label_config = config(attributes).replace("</Time", '<Label value="Reviewed"/><Label value="Check"/></Time')
    first = task(settings, 1, lamps(in_event, in_event))
    body = {"action": "ANNOTATION_CREATED", "project": {"id": 1, "label_config": label_config}}
    drawn = annotation(1, region(*EVENT, "On"), region(1, 100, "Reviewed"))
    assert client.post("/webhook", json=body | {"task": first, "annotation": drawn}).status_code == 201

    def dim(index: int) -> np.ndarray:
        picture = lamps(lambda _: False, in_event)(index)
        if 150 <= index < 180:
            picture[60:120, 220:260] = (140, 135, 75)
        return picture

    path = settings.local_files_document_root / "2.mp4"
    write_video(path, dim, 250, size=SIZE)
    second = {"id": 2, "data": {"video": str(path)}}

    def asked() -> np.ndarray:
        (prediction,) = predict(client, label_config, second)
        marks = np.zeros(250, bool)
        for part in prediction["result"]:
            (label,) = part["value"]["timelinelabels"]
            assert label in ("On", "Check")
            if label == "Check":
                assert 0 < part["score"] <= 1
                marks[part["value"]["ranges"][0]["start"] - 1 : part["value"]["ranges"][0]["end"]] = True
        return marks

    question = asked()
    assert 0 < question.mean() <= 0.5
    start, end = np.flatnonzero(question)[[0, -1]] + 1
    answer = annotation(2, region(int(start), int(end), "Reviewed"), region(1, 20, "On"), region(240, 250, "Check"))
    answer = client.post("/webhook", json=body | {"task": second, "annotation": answer})
    status = client.post("/job_status", json={"job": answer.json()["job"]}).json()
    assert status["result"]["tl"]["num_frames"] == 100 + end - start + 1
    assert not asked()[start - 1 : end].any()


def test_the_page_begins_with_what_resembles_many_and_nothing_annotated(
    client: httpx.Client, settings: Settings
) -> None:
    """Three videos of the left lamp, two of both lamps: by their scores those that are alike would stand together."""
    label_config = config('model_trainable="true"')
    annotated = task(settings, 1, lamps(lambda _: False, in_event))
    left = [task(settings, number, lamps(lambda _: True, lambda _: False)) for number in (2, 3, 4)]
    both = [task(settings, number, lamps(lambda _: True, lambda _: True)) for number in (5, 6)]
    submit(client, label_config, annotated, *EVENT)
    predict(client, label_config, *left, *both)  # so their features are here
    submit(client, label_config, annotated | {"id": 7}, *EVENT)
    page = client.get("/projects/1", headers={"Accept": "text/html"}).text
    listed = [int(number) for number in re.findall(r'/tasks/(\d+)"', page)]
    assert listed[0] in (2, 3, 4)
    assert listed[1] in (5, 6)
    assert sorted(listed) == [1, 2, 3, 4, 5, 6, 7]
