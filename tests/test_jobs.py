"""State and jobs: what webhooks change, how trainings coalesce, and what survives a dead worker or a lost message."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient

from control_models.parameters import UNLEARNT
from errors import MediaError, ModelsUnwritable, NotReady
from ml_backend import LabelStudioMLBase, init_app
from ml_backend.dashboard.overview import projects
from ml_backend.jobs import queue as jobs
from ml_backend.jobs.queue import PRIORITY_WANTED, Jobs
from ml_backend.jobs.runner import ALONE_SECONDS, MAX_ATTEMPTS, Runner
from ml_backend.jobs.worker import WorkerProcess
from ml_backend.settings import Settings
from ml_backend.store import Store
from ml_backend.store.jobs import PRIORITY_AHEAD
from ml_backend.store.tables import Job, now
from tests.servers import wait_until
from tests.work import work_off

CONFIG = '<View><Text name="text" value="$text"/><Choices name="c" toName="text"><Choice value="A"/></Choices></View>'


class RecordingModel(LabelStudioMLBase):
    """Records what it was asked to learn and to extract."""

    fitted: list[tuple[str, list[tuple[int, int]]]]
    extracted: list[int]
    begun: list[str]
    hold: threading.Event
    scratch: list[bool]
    unreachable = False

    def predict(self, tasks: list[dict[str, Any]], context: Any = None, **kwargs: Any) -> list[dict[str, Any]]:
        return [{"result": [], "score": 1.0}]

    def is_extracted(self, task: dict[str, Any]) -> bool:
        return task["id"] in self.extracted

    def extract(self, task: dict[str, Any], progress: Any = None) -> None:
        self.extracted.append(task["id"])

    def fit(self, event: str, data: dict[str, Any], tasks: Any = (), from_scratch: bool = False, **kwargs: Any) -> dict:
        self.begun.append(event)
        self.hold.wait()
        self.fitted.append((event, [(task["id"], a["id"]) for task in tasks for a in task["annotations"]]))
        self.scratch.append(from_scratch)
        if self.unreachable:
            raise MediaError("The video can't be reached.")
        if event == "ANNOTATION_UPDATED" and data["annotation"]["result"] == [{"explode": True}]:
            raise RuntimeError("exploded")
        self.bump_model_version()
        return {"tasks": len(tasks)}


@pytest.fixture
def settings(settings: Settings, database_url: str) -> Settings:
    return settings.model_copy(update={"database_url": database_url})


@pytest.fixture
def model() -> type[RecordingModel]:
    hold = threading.Event()
    hold.set()
    return type(
        "RecordingModel",
        (RecordingModel,),
        {"fitted": [], "extracted": [], "scratch": [], "begun": [], "hold": hold},
    )


@pytest.fixture
def queued(settings: Settings, model: type[RecordingModel]) -> Iterator[tuple[FlaskClient, Jobs]]:
    """An app whose jobs wait in a real queue until a test runs them."""
    app = init_app(model, settings=settings)
    yield app.test_client(), app.extensions["jobs"]
    app.extensions["jobs"].store.close()


def let_leases_run_out(store: Store) -> None:
    with store._transaction() as session:
        session.execute(sa.update(Job).values(lease_expires_at=now() - timedelta(seconds=1)))


def recover(jobs: Jobs) -> None:
    """One look of a worker for lost work."""
    WorkerProcess(Runner(jobs)).recover()


def send(client: FlaskClient, action: str, **keys: Any) -> Any:
    return client.post("/webhook", json={"action": action, "project": {"id": 1, "label_config": CONFIG}, **keys})


def annotate(client: FlaskClient, number: int, task: int = 1, action: str = "ANNOTATION_CREATED", **keys: Any) -> Any:
    annotation = {"id": number, "result": [{"value": number}], "updated_at": "2026-11-22T10:00:00Z"} | keys
    return send(client, action, annotation=annotation, task={"id": task, "data": {"text": "a"}})


def test_events_that_come_together_are_one_training(queued: tuple[FlaskClient, Jobs], model: Any) -> None:
    client, jobs = queued
    answers = [annotate(client, number, task=number) for number in range(1, 6)]
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json["job"] for answer in answers}) == 1
    work_off(jobs)
    assert model.fitted == [("ANNOTATION_CREATED", [(n, n) for n in range(1, 6)])]
    assert jobs.store.projects_behind() == []


@pytest.mark.parametrize(("every", "trained"), [(1, [1, 2, 3, 4, 5, 6, 7]), (3, [3, 6]), (0, [])])
def test_a_training_waits_for_so_many_submissions(
    queued: tuple[FlaskClient, Jobs], model: Any, every: int, trained: list[int]
) -> None:
    client, jobs = queued
    model.train_every = every
    found = []
    for number in range(1, 8):
        annotate(client, number, task=number)
        annotate(client, number, task=number)  # sent twice, as a webhook may be
        recover(jobs)
        if jobs.store.live_training("1"):
            found.append(number)
        work_off(jobs)
    assert found == trained
    assert [len(tasks) for _, tasks in model.fitted] == trained
    send(client, "START_TRAINING")
    work_off(jobs)
    assert len(model.fitted[-1][1]) == 7
    assert jobs.store.project("1").revision == jobs.store.project("1").trained_revision


def test_what_is_submitted_during_a_training_waits_for_as_many(queued: tuple[FlaskClient, Jobs], model: Any) -> None:
    client, jobs = queued
    model.train_every = 3
    for number in (1, 2, 3):
        model.extracted.append(number)
        annotate(client, number, task=number)
    model.hold.clear()
    with ThreadPoolExecutor() as pool:
        training = pool.submit(work_off, jobs)
        wait_until(lambda: model.begun, 10, "the training")
        annotate(client, 4, task=4)
        model.hold.set()
        training.result()
    for number in (5, 6):
        recover(jobs)
        work_off(jobs)
        assert [len(tasks) for _, tasks in model.fitted] == [3]
        model.extracted.append(number)
        annotate(client, number, task=number)
    work_off(jobs)
    assert [len(tasks) for _, tasks in model.fitted] == [3, 6]


def test_what_waits_to_be_learnt_is_said(queued: tuple[FlaskClient, Jobs], model: Any) -> None:
    client, jobs = queued
    model.train_every = 5
    annotate(client, 1)
    (entry,) = projects(jobs.store)
    assert entry["state"] == "has 1 change to learn, and waits for more submissions or Start Training"
    assert jobs.training_state("1").endswith("(model_train_every), or for Start Training.")
    # Many at once count as many; a config that needs another model doesn't wait.
    many = [{"id": number, "task": 1, "result": [{"value": number}]} for number in range(2, 6)]
    send(client, "ANNOTATIONS_CREATED", annotations=many)
    assert jobs.store.live_training("1")
    work_off(jobs)
    annotate(client, 9)
    changed = {"id": 1, "label_config": CONFIG.replace("A", "B")}
    client.post("/webhook", json={"action": "PROJECT_UPDATED", "project": changed})
    assert jobs.store.live_training("1")


def test_an_attribute_that_changes_no_model_trains_nothing(queued: tuple[FlaskClient, Jobs], model: Any) -> None:
    client, jobs = queued
    jobs.store.unlearnt = UNLEARNT
    annotate(client, 1)
    work_off(jobs)
    for name, is_trained in (*dict.fromkeys(UNLEARNT, False).items(), ("model_classifier_epochs", True)):
        project = {"id": 1, "label_config": CONFIG.replace("<Choices ", f'<Choices {name}="1" ')}
        client.post("/webhook", json={"action": "PROJECT_UPDATED", "project": project})
        assert bool(jobs.store.projects_behind()) == is_trained


def test_another_colour_trains_nothing_and_another_label_does(queued: tuple[FlaskClient, Jobs], model: Any) -> None:
    client, jobs = queued
    model.train_every = 0
    annotate(client, 1)
    looks = CONFIG.replace('"A"', '"A" hotkey="1" background="red"').replace("<Choices", "\n  <!-- new --><Choices")
    for label_config, is_trained in ((looks, False), (looks.replace('"A"', '"B"'), True), ("<View", True)):
        project = {"id": 1, "label_config": label_config}
        client.post("/webhook", json={"action": "PROJECT_UPDATED", "project": project})
        assert jobs.store.project("1").label_config == label_config
        assert bool(jobs.store.projects_behind()) == is_trained
        jobs.store.give_up_training("1")


def test_a_worker_s_look_leaves_the_first_training_to_its_submissions(
    queued: tuple[FlaskClient, Jobs], model: Any
) -> None:
    client, jobs = queued
    model.train_every = 0
    model.needs_training = lambda self: True  # as a tag says that has annotations and no model
    annotate(client, 1)
    WorkerProcess(Runner(jobs)).look_at_models()
    assert jobs.store.projects_behind() == []
    send(client, "START_TRAINING")
    work_off(jobs)
    WorkerProcess(Runner(jobs)).look_at_models()
    assert jobs.store.projects_behind() == ["1"]


def test_an_event_during_a_training_is_trained_on_afterwards(queued: tuple[FlaskClient, Jobs], model: Any) -> None:
    client, jobs = queued
    model.extracted.append(1)
    model.hold.clear()
    annotate(client, 1)
    with ThreadPoolExecutor() as pool:
        first = pool.submit(work_off, jobs)
        wait_until(lambda: model.begun, 10, "the training")
        second = annotate(client, 2).json["job"]
        assert client.post("/job_status", json={"job": second}).json["job_status"] == "queued"
        model.hold.set()
        first.result()
    work_off(jobs)
    assert [tasks for _, tasks in model.fitted] == [[(1, 1)], [(1, 1), (1, 2)]]
    assert client.post("/job_status", json={"job": second}).json["job_status"] == "finished"


def test_two_trainings_of_one_project_never_run_at_once(queued: tuple[FlaskClient, Jobs], model: Any) -> None:
    client, jobs = queued
    model.extracted.append(1)
    model.hold.clear()
    annotate(client, 1)
    with ThreadPoolExecutor() as pool:
        running = pool.submit(work_off, jobs)
        wait_until(lambda: jobs.store.jobs("started"), 10, "the training")
        job = annotate(client, 2).json["job"]
        assert jobs.store.claim_job("another worker", job) is None
        model.hold.set()
        running.result()


def test_what_each_action_does_to_the_data(queued: tuple[FlaskClient, Jobs], model: Any) -> None:
    client, jobs = queued

    def stored() -> list[tuple[int, int]]:
        return [(task["id"], a["id"]) for task in jobs.store.annotated_tasks("1") for a in task["annotations"]]

    def behind() -> bool:
        work = jobs.store.projects_behind() == ["1"]
        work_off(jobs)
        assert jobs.store.projects_behind() == []
        return work

    annotate(client, 1)
    annotate(client, 2)
    annotate(client, 3, task=2)
    assert behind()
    assert stored() == [(1, 1), (1, 2), (2, 3)]

    # The same again changes nothing, nor does one that was overtaken.
    assert annotate(client, 1, action="ANNOTATION_UPDATED").status_code == 200
    old = annotate(client, 1, action="ANNOTATION_UPDATED", updated_at="2026-11-22T09:00:00Z", result=[])
    assert old.json == {"status": "ok"}
    assert not behind()

    annotate(client, 1, action="ANNOTATION_UPDATED", updated_at="2026-11-22T11:00:00Z", result=[{"value": "new"}])
    assert behind()
    assert jobs.store.annotated_tasks("1")[0]["annotations"][0]["result"] == [{"value": "new"}]

    # A skipped task is no example.
    annotate(client, 4, task=3, was_cancelled=True)
    assert not behind()
    annotate(client, 3, task=2, action="ANNOTATION_UPDATED", updated_at="2026-11-22T12:00:00Z", was_cancelled=True)
    assert behind()
    assert stored() == [(1, 1), (1, 2)]

    send(
        client,
        "ANNOTATIONS_CREATED",
        annotations=[{"id": 5, "task": 1, "result": []}, {"id": 6, "task": 1, "result": []}],
    )
    assert behind()
    assert stored() == [(1, 1), (1, 2), (1, 5), (1, 6)]

    send(client, "ANNOTATIONS_DELETED", annotations=[{"id": 5}, {"id": 77}])
    assert behind()
    send(client, "ANNOTATIONS_DELETED", annotations=[{"id": 77}])
    assert not behind()
    assert stored() == [(1, 1), (1, 2), (1, 6)]

    send(client, "PROJECT_UPDATED")
    assert not behind()
    changed = CONFIG.replace('"A"', '"B"')
    client.post("/webhook", json={"action": "PROJECT_UPDATED", "project": {"id": 1, "label_config": changed}})
    assert behind()

    send(client, "TASKS_DELETED", tasks=[{"id": 1}])
    assert behind()
    assert stored() == []

    send(client, "PROJECT_DELETED")
    assert jobs.store.project("1") is None
    assert jobs.store.trainings("1") == []


@pytest.mark.parametrize(
    ("result", "kept"),
    [(None, []), ([None, "x", {"value": 1}], [None, "x", {"value": 1}]), ({"value": 1}, [{"value": 1}])],
)
def test_an_annotation_is_stored_whatever_its_result_is(
    queued: tuple[FlaskClient, Jobs], result: Any, kept: list[Any]
) -> None:
    client, jobs = queued
    assert annotate(client, 1, result=result).status_code == 201
    batch = [{"id": 2, "task": 1, "result": result}, {"id": 3, "task": 1, "result": [{"value": "good"}]}]
    send(client, "ANNOTATIONS_CREATED", annotations=batch)
    jobs.store.replace_annotations("1", [{"id": 4, "data": {}, "annotations": [{"id": 9, "result": result}]}])
    ids = {a["id"]: a["result"] for task in jobs.store.annotated_tasks("1") for a in task["annotations"]}
    assert ids == {9: kept if isinstance(result, list) else result or []}
    assert annotate(client, 1, result=result, updated_at="2026-11-22T11:00:00Z").status_code in (200, 201)


def test_a_bad_config_keeps_the_annotation(queued: tuple[FlaskClient, Jobs]) -> None:
    client, jobs = queued
    body = {"action": "ANNOTATION_CREATED", "project": {"id": 1, "label_config": "<View"}}
    body |= {"annotation": {"id": 2, "result": []}, "task": {"id": 2, "data": {"text": "a"}}}
    assert client.post("/webhook", json=body).status_code == 400
    assert [task["id"] for task in jobs.store.annotated_tasks("1")] == [2]
    # The config is mended: now it is trained on.
    assert client.post("/setup", json={"project": "1", "schema": CONFIG}).status_code == 200
    work_off(jobs)
    assert jobs.store.trainings("1")[-1].status == "published"


def test_new_tasks_are_extracted_ahead_of_need_and_after_what_is_wanted(
    queued: tuple[FlaskClient, Jobs], model: Any
) -> None:
    client, jobs = queued
    tasks = [{"id": number, "data": {"text": "a"}} for number in range(1, 5)]
    assert send(client, "TASKS_CREATED", tasks=tasks).status_code == 201
    runner = Runner(jobs)
    runner.run(runner.claim())
    jobs.add_extraction("1", tasks[2], PRIORITY_WANTED)
    work_off(jobs)
    assert model.extracted == [3, 1, 2, 4]


def test_the_video_of_a_deleted_task_is_not_read(queued: tuple[FlaskClient, Jobs], model: Any) -> None:
    client, jobs = queued
    tasks = [{"id": number, "data": {"text": "a"}} for number in (1, 2, 3)]
    send(client, "TASKS_CREATED", tasks=tasks)
    runner = Runner(jobs)
    runner.run(runner.claim())
    send(client, "TASKS_DELETED", tasks=[{"id": 2}])
    work_off(jobs)
    assert model.extracted == [1, 3]
    assert jobs.store.jobs("queued", "failed") == []


def test_a_thousand_new_tasks_are_one_job_in_a_request(queued: tuple[FlaskClient, Jobs]) -> None:
    client, jobs = queued
    tasks = [{"id": number, "data": {"text": "a"}} for number in range(1000)]
    assert send(client, "TASKS_CREATED", tasks=tasks).status_code == 201
    assert len(jobs.store.jobs("queued")) == 1  # the worker makes one of each


def test_a_full_queue_is_said_and_loses_nothing(
    queued: tuple[FlaskClient, Jobs], model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, queue = queued
    annotate(client, 1)
    work_off(queue)
    monkeypatch.setattr(jobs, "MAX_QUEUED_JOBS", 3)
    for number in range(10, 13):
        queue.add_extraction("1", {"id": number, "data": {}}, PRIORITY_AHEAD)
    with pytest.raises(NotReady, match="3 jobs are waiting"):
        queue.add_extraction("1", {"id": 13, "data": {}}, PRIORITY_WANTED)
    body = {"tasks": [{"id": 14, "data": {}}], "project": "1", "label_config": CONFIG}
    answer = client.post("/predict", json=body)
    assert answer.status_code == 503
    assert "Retry-After" in answer.headers
    # Trainings are not refused: they follow from the data.
    assert annotate(client, 2).status_code == 201
    work_off(queue)
    assert model.fitted[-1][1] == [(1, 1), (1, 2)]
    assert sorted(model.extracted) == [10, 11, 12]


def test_a_failing_training_is_recorded_and_not_repeated(queued: tuple[FlaskClient, Jobs], model: Any) -> None:
    client, jobs = queued
    annotate(client, 1)
    work_off(jobs)
    later = {"updated_at": "2026-11-22T11:00:00Z", "result": [{"explode": True}]}
    job = annotate(client, 1, action="ANNOTATION_UPDATED", **later).json["job"]
    work_off(jobs)
    status = client.post("/job_status", json={"job": job}).json
    assert status["job_status"] == "failed"
    assert "exploded" in status["error"]
    assert [t.status for t in jobs.store.trainings("1")] == ["published", "failed"]
    recover(jobs)
    assert work_off(jobs) == 0


def test_a_training_whose_videos_can_not_be_looked_at_is_recorded(queued: tuple[FlaskClient, Jobs], model: Any) -> None:
    """Whatever the reason, such as a folder that may not be read."""
    client, jobs = queued

    def fail(self: Any, *_: Any, **__: Any) -> bool:
        raise RuntimeError("unforeseen")

    model.is_extracted = model.fit = fail
    job = annotate(client, 1).json["job"]
    work_off(jobs)
    status = client.post("/job_status", json={"job": job}).json
    assert status["job_status"] == "failed"
    assert "unforeseen" in status["error"]
    assert jobs.store.trainings("1")[-1].status == "failed"
    recover(jobs)
    assert work_off(jobs) == 0


def test_a_training_that_could_not_reach_its_videos_is_tried_again(
    queued: tuple[FlaskClient, Jobs], model: Any
) -> None:
    client, queue = queued
    model.unreachable = True
    annotate(client, 1)
    work_off(queue)
    assert queue.store.trainings("1")[-1].error == "The video can't be reached."
    model.unreachable = False
    recover(queue)
    assert work_off(queue) == 0  # not at once
    queue.store.make_jobs_due()  # the delay is over
    recover(queue)
    work_off(queue)
    assert queue.store.trainings("1")[-1].status == "published"
    assert queue.store.projects_behind() == []


def test_a_training_whose_model_could_not_be_written_is_tried_again(
    queued: tuple[FlaskClient, Jobs], model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, queue = queued

    def fail(self: Any, *_: Any, **__: Any) -> None:
        raise ModelsUnwritable("The disk is full.")

    with monkeypatch.context() as full:
        full.setattr(model, "fit", fail)
        job = annotate(client, 1).json["job"]
        work_off(queue)
    status = client.post("/job_status", json={"job": job}).json
    assert (status["job_status"], status["error"]) == ("queued", "The disk is full.")
    queue.store.make_jobs_due()  # the delay is over
    work_off(queue)
    assert queue.store.trainings("1")[-1].status == "published"


def test_dead_workers_lose_nothing(queued: tuple[FlaskClient, Jobs], model: Any) -> None:
    client, jobs = queued
    annotate(client, 1)
    recover(jobs)
    work_off(jobs)
    assert model.fitted[-1][1] == [(1, 1)]

    job = annotate(client, 2).json["job"]
    assert jobs.store.claim_job("worker that died", job).status == "started"
    recover(jobs)
    work_off(jobs)
    assert len(model.fitted) == 1  # its lease holds
    let_leases_run_out(jobs.store)
    recover(jobs)
    work_off(jobs)
    assert model.fitted[-1][1] == [(1, 1), (1, 2)]
    assert jobs.store.projects_behind() == []


def test_a_job_that_kills_its_worker_is_given_up(queued: tuple[FlaskClient, Jobs], model: Any) -> None:
    client, queue = queued
    job = annotate(client, 1).json["job"]
    for attempt in range(MAX_ATTEMPTS):
        assert queue.store.claim_job(f"worker {attempt}", job) is not None
        let_leases_run_out(queue.store)
        recover(queue)
    work_off(queue)
    assert model.fitted == []
    status = client.post("/job_status", json={"job": job}).json
    assert status["job_status"] == "failed"
    assert f"died {MAX_ATTEMPTS} times" in status["error"]
    # The next annotation tries again.
    annotate(client, 2)
    work_off(queue)
    assert model.fitted[-1][1] == [(1, 1), (1, 2)]


def test_what_ran_when_a_worker_died_runs_alone(queued: tuple[FlaskClient, Jobs], model: Any) -> None:
    """Of two jobs one killed the worker: they are tried one at a time, and nothing beside them."""
    _, queue = queued
    suspects = [queue.add_extraction("1", {"id": number, "data": {}}, priority=20).id for number in (1, 2)]
    for job_id in suspects:
        assert queue.store.claim_job("worker that died", job_id) is not None
    other = queue.add_extraction("1", {"id": 3, "data": {}}, priority=30).id
    training = queue.add_training("1").id
    let_leases_run_out(queue.store)
    recover(queue)
    runner = Runner(queue)
    first = runner.claim()
    assert first.id in suspects
    assert runner.claim() is None
    runner.run(first)
    second = runner.claim()
    assert {first.id, second.id} == set(suspects)
    assert runner.claim() is None  # the slots stay free for it
    runner.run(second)
    assert {runner.claim().id, runner.claim().id} == {training, other}


def test_a_suspect_that_runs_for_long_lets_others_begin(
    queued: tuple[FlaskClient, Jobs], model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a video of hours would stop the trainings of all projects after one death."""
    _, queue = queued
    for number in (1, 2):
        job_id = queue.add_extraction("1", {"id": number, "data": {}}, priority=20).id
        assert queue.store.claim_job("worker that died", job_id) is not None
    let_leases_run_out(queue.store)
    recover(queue)
    training = queue.add_training("1").id
    runner = Runner(queue)
    start, long = time.monotonic(), runner.claim()
    monkeypatch.setattr(time, "monotonic", lambda: start + ALONE_SECONDS - 1)
    assert runner.claim() is None
    monkeypatch.setattr(time, "monotonic", lambda: start + ALONE_SECONDS + 60)
    assert runner.claim().id == training
    assert runner.claim() is None  # the other suspect runs alone too
    monkeypatch.undo()
    runner.run(long)
    assert runner.claim() is None  # the training runs
    assert long.attempts == 1


def test_a_suspect_waits_until_the_others_have_ended(queued: tuple[FlaskClient, Jobs], model: Any) -> None:
    _, queue = queued
    runner = Runner(queue)
    queue.add_extraction("1", {"id": 1, "data": {}}, priority=20)
    running = runner.claim()
    suspect = queue.add_extraction("1", {"id": 2, "data": {}}, priority=20).id
    assert queue.store.claim_job("worker that died", suspect) is not None
    with queue.store._transaction() as session:
        session.execute(sa.update(Job).where(Job.id == suspect).values(lease_expires_at=now() - timedelta(seconds=1)))
    recover(queue)
    queue.add_extraction("1", {"id": 3, "data": {}}, priority=20)
    assert runner.claim() is None
    runner.run(running)
    assert runner.claim().id == suspect


def test_a_prediction_waits_for_its_extraction(settings: Settings, model: Any) -> None:
    app = init_app(model, settings=settings.model_copy(update={"predict_timeout": 20.0}))
    jobs = app.extensions["jobs"]
    body = {"tasks": [{"id": 1, "data": {}}, {"id": 2, "data": {}}], "project": "1", "label_config": CONFIG}
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(app.test_client().post, "/predict", json=body)
        wait_until(lambda: jobs.store.count_jobs("queued") == 2, 10, "two jobs")
        work_off(jobs)
        assert answer.result().status_code == 200
        assert [set(item) for item in answer.result().json["results"]] == [{"result", "score", "model_version"}] * 2
    assert model.extracted == [1, 2]


def test_another_video_that_a_prediction_is_asked_for_is_learnt(queued: tuple[FlaskClient, Jobs], model: Any) -> None:
    client, jobs = queued
    annotate(client, 1)
    work_off(jobs)
    model.extracted.append(1)
    for text, trainings in (("a", 1), ("other", 2)):
        body = {"tasks": [{"id": 1, "data": {"text": text}}], "project": "1", "label_config": CONFIG}
        assert client.post("/predict", json=body).status_code == 200
        recover(jobs)
        work_off(jobs)
        assert len(model.fitted) == trainings


def test_a_prediction_whose_features_take_too_long_says_so(settings: Settings, model: Any) -> None:
    model.extracted.append(1)
    app = init_app(model, settings=settings.model_copy(update={"predict_timeout": 0.2}))
    client = app.test_client()
    tasks = [{"id": 1, "data": {}}, {"id": 2, "data": {}}]
    answer = client.post("/predict", json={"tasks": tasks, "project": "1", "label_config": CONFIG})
    assert answer.status_code == 200
    assert "result" in answer.json["results"][0]
    assert "no" in answer.json["results"][1]["error"]
    answer = client.post("/predict", json={"tasks": tasks[1:], "project": "1", "label_config": CONFIG})
    assert answer.status_code == 503
    assert "Retry-After" in answer.headers


class LabelStudioPredictions(BaseHTTPRequestHandler):
    """The part of Label Studio's API that lists and creates predictions."""

    stored: list[dict[str, Any]]

    def do_GET(self) -> None:
        self._answer(200, self.stored)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.stored.append(body | {"id": len(self.stored) + 1})
        self._answer(201, self.stored[-1])

    def _answer(self, status: int, body: Any) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: Any) -> None:
        pass


def test_a_late_prediction_is_delivered_once(settings: Settings, model: Any) -> None:
    handler = type("Handler", (LabelStudioPredictions,), {"stored": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    app = init_app(model, settings=settings.model_copy(update={"predict_timeout": 0.1}))
    client, jobs = app.test_client(), app.extensions["jobs"]
    client.post("/setup", json={"project": "1", "schema": CONFIG, "hostname": url, "access_token": "legacy"})
    body = {"tasks": [{"id": 8, "data": {}}], "project": "1", "label_config": CONFIG}
    assert client.post("/predict", json=body).status_code == 503
    assert client.post("/predict", json=body).status_code == 503
    work_off(jobs)
    assert [(p["task"], p["model_version"]) for p in handler.stored] == [(8, "0.0.1")]
    jobs.add_delivery("1", body["tasks"][0])
    work_off(jobs)
    assert len(handler.stored) == 1
    assert client.post("/predict", json=body).status_code == 200
    server.shutdown()


def test_two_processes_share_one_store(settings: Settings) -> None:
    """Writers in several connections at once: none fails, and no count is lost."""
    stores = [Store(settings.database) for _ in range(4)]

    def count(store: Store) -> None:
        for _ in range(25):
            store.increment_value("1", "n")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(count, stores))
    assert stores[0].get_value("1", "n") == "100"
    for store in stores:
        store.close()


def test_another_database_is_refused_with_a_reason() -> None:
    with pytest.raises(ValueError, match="sqlite:///FILE"):
        Store("mysql://somewhere")
