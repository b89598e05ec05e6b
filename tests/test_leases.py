"""What happens to jobs when processes die, stop, or can't write, and who does what at once; on both databases."""

from __future__ import annotations

import re
import signal
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from errors import MediaError, NotReady
from ml_backend import LabelStudioMLBase, init_app
from ml_backend.jobs import leases
from ml_backend.jobs.leases import JobStopped, Stop
from ml_backend.jobs.queue import PRIORITY_WANTED, Jobs
from ml_backend.jobs.runner import Runner
from ml_backend.jobs.worker import WorkerProcess
from ml_backend.settings import Settings
from ml_backend.store import database
from ml_backend.store.jobs import PRIORITY_AHEAD
from ml_backend.store.tables import LIVE, Job, JobKind, JobStatus, QueueName, TrainingStatus
from tests.http_server import Server
from tests.servers import START_SECONDS, wait_until
from tests.stub import StubBackend
from tests.test_jobs import CONFIG, RecordingModel, annotate, recover, send
from tests.test_label_studio_api import pages
from tests.work import work_off


class HeldModel(RecordingModel):
    """Extracts a task until the test lets it go."""

    gates: dict[int, threading.Event]

    def extract(self, task: dict[str, Any], progress: Any = None) -> None:
        while not self.gates.setdefault(task["id"], threading.Event()).wait(0.05):
            if progress:
                progress(0.5)
        super().extract(task)

    def fit(self, event: str, data: dict[str, Any], tasks: Any = (), progress: Any = None, **kwargs: Any) -> dict:
        for task in tasks:
            if task["id"] in self.gates and not self.is_extracted(task):
                self.extract(task, progress)
        return super().fit(event, data, tasks, **kwargs)


@pytest.fixture
def model() -> type[HeldModel]:
    hold = threading.Event()
    hold.set()
    return type(
        "HeldModel",
        (HeldModel,),
        {"fitted": [], "extracted": [], "scratch": [], "begun": [], "hold": hold, "gates": {}},
    )


def new_jobs(model: type[LabelStudioMLBase], settings: Settings, url: str) -> Any:
    return init_app(model, settings=settings.model_copy(update={"database_url": url}))


@pytest.fixture
def app(settings: Settings, model: Any, database_url: str) -> Iterator[Any]:
    app = new_jobs(model, settings, database_url)
    yield app
    app.extensions["jobs"].store.close()


@pytest.fixture
def jobs(app: Any) -> Jobs:
    return app.extensions["jobs"]


@pytest.fixture
def runner(app: Any) -> Runner:
    return app.extensions["runner"]


@pytest.fixture
def working(jobs: Jobs, runner: Runner) -> Iterator[Jobs]:
    """Jobs that a worker does in threads."""
    thread = threading.Thread(target=WorkerProcess(runner).work)
    thread.start()
    yield jobs
    runner.leases.stop()
    thread.join()
    wait_until(lambda: not runner.leases.running(), 10, "the jobs to stop")


def task(number: int) -> dict[str, Any]:
    return {"id": number, "data": {"text": "a"}}


# Slots


def test_a_long_extraction_blocks_neither_trainings_nor_others(working: Jobs, app: Any, model: Any) -> None:
    client = app.test_client()
    client.post("/setup", json={"project": "1", "schema": CONFIG})
    working.add_extraction("1", task(1), PRIORITY_WANTED)
    wait_until(lambda: 1 in model.gates, 10, "the extraction")
    working.add_delivery("1", task(1))  # waits for the same extraction, and must not take a slot meanwhile
    for number in (2, 3):
        model.gates[number] = threading.Event()
        model.gates[number].set()
    other = working.add_extraction("1", task(2), PRIORITY_WANTED)
    wait_until(lambda: working.status(other.id).status == JobStatus.FINISHED, 10, "another extraction")
    model.extracted.append(3)
    training = annotate(client, 1, task=3).json["job"]
    wait_until(lambda: working.status(training).status == JobStatus.FINISHED, 10, "the training")
    assert 1 not in model.extracted
    model.gates[1].set()


def test_jobs_that_nobody_waits_for_never_take_all_slots(working: Jobs, app: Any, model: Any) -> None:
    app.test_client().post("/setup", json={"project": "1", "schema": CONFIG})
    for number in (1, 2, 3):
        working.add_extraction("1", task(number), PRIORITY_AHEAD)
    wait_until(lambda: model.gates, 10, "an extraction")
    model.gates[4] = threading.Event()
    model.gates[4].set()
    wanted = working.add_extraction("1", task(4), PRIORITY_WANTED)
    wait_until(lambda: working.status(wanted.id).status == JobStatus.FINISHED, 10, "the wanted extraction")
    assert len(model.gates) == 2
    for gate in [*model.gates.values(), *(model.gates.setdefault(n, threading.Event()) for n in (1, 2, 3))]:
        gate.set()
    wait_until(lambda: sorted(model.extracted) == [1, 2, 3, 4], 10, "the others")


def test_a_training_that_must_extract_leaves_its_slot_to_others(working: Jobs, app: Any, model: Any) -> None:
    client = app.test_client()
    model.gates[1] = threading.Event()
    annotate(client, 1, task=1)  # its features aren't there
    job = working.store.live_training("1")
    wait_until(lambda: working.store.job(job.id).queue == QueueName.EXTRACT, 10, "the training to move")
    model.extracted.append(2)
    body = {"action": "ANNOTATION_CREATED", "project": {"id": 2, "label_config": CONFIG}, "task": task(2)}
    body["annotation"] = {"id": 9, "result": [], "updated_at": "2026-11-22T10:00:00Z"}
    other = client.post("/webhook", json=body).json["job"]
    wait_until(lambda: working.status(other).status == JobStatus.FINISHED, 10, "the other project's training")
    assert working.status(job.id).status in LIVE  # the first one still extracts
    model.gates[1].set()
    wait_until(lambda: working.status(job.id).status == JobStatus.FINISHED, 10, "the first training")
    first, second = working.status(job.id), working.status(other)
    assert (first.queue, second.queue) == (QueueName.EXTRACT, QueueName.TRAIN)
    assert second.ended_at < first.ended_at


# One of a key


def test_fifty_polls_are_one_job(jobs: Jobs) -> None:
    for _ in range(50):
        jobs.add_extraction("1", task(1), PRIORITY_WANTED)
    assert jobs.store.count_jobs(JobStatus.QUEUED) == 1


def test_a_waiting_job_that_is_asked_for_again_comes_sooner(jobs: Jobs, app: Any, model: Any) -> None:
    app.test_client().post("/setup", json={"project": "1", "schema": CONFIG})
    for number in (1, 2):
        model.gates[number] = threading.Event()
        model.gates[number].set()
        jobs.add_extraction("1", task(number), PRIORITY_AHEAD)
    jobs.add_extraction("1", task(2), PRIORITY_WANTED)
    work_off(jobs)
    assert model.extracted == [2, 1]


# Cancelling, trying again


def test_a_running_job_is_cancelled_and_can_be_tried_again(
    working: Jobs, app: Any, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ml_backend.jobs.leases.RENEW_SECONDS", 0.1)
    app.test_client().post("/setup", json={"project": "1", "schema": CONFIG})
    job = working.add_extraction("1", task(1), PRIORITY_WANTED)
    wait_until(lambda: 1 in model.gates, 10, "the extraction")
    working.cancel(job.id)
    wait_until(lambda: working.status(job.id).status == JobStatus.CANCELLED, 10, "the job to stop")
    assert model.extracted == []
    again = working.retry(job.id)
    model.gates[1].set()
    wait_until(lambda: working.status(again.id).status == JobStatus.FINISHED, 10, "the second try")
    assert model.extracted == [1]


def test_a_waiting_training_is_cancelled_until_the_next_change(jobs: Jobs, app: Any, model: Any) -> None:
    client = app.test_client()
    model.extracted += [1, 2]
    job = annotate(client, 1).json["job"]
    assert jobs.cancel(job).status == JobStatus.CANCELLED
    recover(jobs)
    work_off(jobs)
    assert model.fitted == []
    annotate(client, 2)
    work_off(jobs)
    assert model.fitted[-1][1] == [(1, 1), (1, 2)]


# Without a key, and what can't be reached


def test_start_training_without_a_key_trains_and_learning_goes_on(jobs: Jobs, app: Any, model: Any) -> None:
    client = app.test_client()
    model.extracted += [1, 2, 3]
    annotate(client, 1)
    work_off(jobs)
    assert send(client, "START_TRAINING").status_code == 201
    work_off(jobs)
    assert (len(model.fitted), model.scratch) == (2, [False, True])
    bulk = [{"id": 2, "task": 1, "result": []}, {"id": 3, "task": 999, "result": []}]
    assert send(client, "ANNOTATIONS_CREATED", annotations=bulk).status_code == 201
    work_off(jobs)
    annotate(client, 4, task=2)
    work_off(jobs)
    assert model.fitted[-1][1] == [(1, 1), (1, 2), (2, 4)]
    assert jobs.store.projects_behind() == []


def test_a_corrected_key_is_used_at_once_after_a_restart(
    settings: Settings, model: Any, database_url: str, app: Any, jobs: Jobs
) -> None:
    client = app.test_client()
    model.unreachable = True
    model.extracted.append(1)
    annotate(client, 1)
    work_off(jobs)
    model.check_ready = lambda self: (_ for _ in ()).throw(NotReady("annotate a video and submit it"))
    body = {"tasks": [task(1)], "project": "1", "label_config": CONFIG}
    error = client.post("/predict", json=body).json["error"]
    assert re.search(r"1 annotated task failed, and is tried again at \d\d:.*can't be reached", error)
    assert "annotate a video" not in error
    model.unreachable = False
    recover(jobs)
    assert work_off(jobs) == 0  # its time hasn't come
    restarted = new_jobs(model, settings, database_url).extensions["jobs"]
    WorkerProcess(Runner(restarted))._start()
    work_off(restarted)
    assert jobs.store.latest_training("1").status == TrainingStatus.PUBLISHED
    restarted.store.close()


def test_stored_annotations_that_no_job_is_about_are_not_asked_for(app: Any, model: Any, jobs: Jobs) -> None:
    """As after an update from a release whose classifiers can't be read, until a worker looks."""
    client = app.test_client()
    model.check_ready = lambda self: (_ for _ in ()).throw(NotReady("annotate a video and submit it"))
    body = {"tasks": [task(1)], "project": "1", "label_config": CONFIG}
    assert client.post("/predict", json=body).json["error"] == "annotate a video and submit it"
    model.needs_training = lambda self: True
    assert "A worker starts a training within a minute" in client.post("/predict", json=body).json["error"]


def test_a_video_that_was_left_out_is_tried_again(jobs: Jobs, app: Any, model: Any) -> None:
    """One of two videos can't be reached: it is left out, tried again later, and learnt from when it is there."""
    missing = {"2"}

    def fit(self: Any, event: str, data: Any, tasks: Any = (), **kwargs: Any) -> dict:
        model.fitted.append([t["id"] for t in tasks if str(t["id"]) not in missing])
        return {"tl": {"unavailable": dict.fromkeys(missing, "gone")}}

    def extract(self: Any, task: dict[str, Any], progress: Any = None) -> None:
        if str(task["id"]) in missing:
            raise MediaError("gone")

    model.fit, model.extract, model.is_extracted = fit, extract, lambda self, task: True
    client = app.test_client()
    annotate(client, 1, task=1)
    annotate(client, 2, task=2)
    work_off(jobs)

    def time_passes() -> None:
        jobs.store.make_jobs_due()
        recover(jobs)
        work_off(jobs)

    recover(jobs)
    assert work_off(jobs) == 0  # not at once
    time_passes()
    assert model.fitted == [[1]]  # nothing new to learn from
    missing.clear()
    time_passes()
    assert model.fitted == [[1], [1, 2]]
    time_passes()
    assert len(model.fitted) == 2


# Comparing with Label Studio


def test_annotations_that_were_there_are_taken_when_a_project_is_connected(
    jobs: Jobs, app: Any, model: Any, server: Server
) -> None:
    model.extracted.append(1)
    there = {"id": 5, "result": [{"value": 5}], "updated_at": "2026-11-22T10:00:00Z"}
    known = {"id": 1, "project": 1, "data": {"text": "a"}, "annotations": [there]}
    server.answers["/api/tasks/"] = pages([[known]], total=1)
    app.test_client().post(
        "/setup", json={"project": "1", "schema": CONFIG, "hostname": server.url, "access_token": "legacy"}
    )
    worker = WorkerProcess(Runner(jobs))
    worker.watch()
    work_off(jobs)
    assert model.fitted[-1][1] == [(1, 5)]
    worker.watch()
    assert work_off(jobs) == 0  # not again before its time


def test_a_comparison_that_fails_unforeseen_is_not_repeated_at_once(
    jobs: Jobs, app: Any, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def broken(*_: Any) -> None:
        calls.append(1)
        raise RuntimeError("unforeseen")

    monkeypatch.setattr("ml_backend.label_studio.client.annotated_tasks", broken)
    app.test_client().post(
        "/setup", json={"project": "1", "schema": CONFIG, "hostname": server.url, "access_token": "legacy"}
    )
    worker = WorkerProcess(Runner(jobs))
    for _ in range(5):
        worker.watch()
        work_off(jobs)
    assert len(calls) == 1
    (job,) = jobs.store.jobs(JobStatus.QUEUED)
    assert (job.kind, job.retries, job.error) == (JobKind.RECONCILE, 1, "unforeseen")
    assert job.due_at is not None


# Leases


def test_training_in_the_request_holds_a_lease(
    settings: Settings, database_url: str, app: Any, jobs: Jobs, runner: Runner, model: Any
) -> None:
    """Another process neither takes it over nor trains the same project meanwhile."""
    model.extracted.append(1)
    annotate(app.test_client(), 1)
    other = new_jobs(model, settings, database_url).extensions["jobs"]
    model.hold.clear()
    with ThreadPoolExecutor() as pool:
        now = pool.submit(runner.run_now, JobKind.TRAIN, "1")
        wait_until(lambda: jobs.store.jobs(JobStatus.STARTED), 10, "the training")
        recover(other)
        other.store.request_training("1")
        recover(other)
        assert work_off(other) == 0
        assert len(jobs.store.trainings("1")) == 1
        model.hold.set()
        now.result()
    other.store.close()


def test_a_lease_is_renewed_and_a_lost_one_stops_the_job(
    working: Jobs, runner: Runner, app: Any, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ml_backend.jobs.leases.RENEW_SECONDS", 0.2)
    monkeypatch.setattr("ml_backend.store.jobs.LEASE", timedelta(seconds=3))
    app.test_client().post("/setup", json={"project": "1", "schema": CONFIG})
    job = working.add_extraction("1", task(1), PRIORITY_WANTED)
    wait_until(lambda: 1 in model.gates, 10, "the extraction")
    first = working.store.job(job.id).lease_expires_at
    wait_until(lambda: working.store.job(job.id).lease_expires_at > first, 10, "a renewal")
    assert working.store.take_over_jobs([]) == []
    with working.store._transaction() as session:  # as if it had run out, and another worker had taken the job over
        session.execute(sa.update(Job).values(lease_owner="another worker"))
    wait_until(lambda: not runner.leases.running(), 10, "the job to stop")
    assert model.extracted == []
    assert working.status(job.id).lease_owner == "another worker"


def test_a_worker_that_was_suspended_goes_on_with_its_job(working: Jobs, runner: Runner, app: Any, model: Any) -> None:
    app.test_client().post("/setup", json={"project": "1", "schema": CONFIG})
    job = working.add_extraction("1", task(1), PRIORITY_WANTED)
    wait_until(lambda: 1 in model.gates, 10, "the extraction")
    with working.store._transaction() as session:  # as if nothing had been renewed for a while
        session.execute(sa.update(Job).values(lease_expires_at=datetime(2020, 1, 1)))
    WorkerProcess(runner).recover()
    model.gates[1].set()
    wait_until(lambda: working.status(job.id).status == JobStatus.FINISHED, 10, "the job's end")
    assert working.status(job.id).attempts == 0
    assert model.extracted == [1]


def test_a_job_that_comes_back_to_the_process_that_lost_it_runs_once(jobs: Jobs, runner: Runner) -> None:
    jobs.store.update_project("1", CONFIG)
    jobs.add_extraction("1", task(1), PRIORITY_WANTED)
    job = runner.claim()
    with runner.leases.run(job) as lost, runner.leases.run(job) as again:
        with pytest.raises(JobStopped) as stopped:
            lost.check()
        assert stopped.value.reason is Stop.LOST
        again.check()
    assert not runner.leases.running()


def test_an_end_that_cannot_be_written_is_written_later(
    settings: Settings, model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(database, "LOCK_SECONDS", 0.2)
    monkeypatch.setattr(leases, "WRITE_RETRY_SECONDS", 0.1)
    jobs = new_jobs(model, settings, f"sqlite:///{tmp_path / 'state.db'}").extensions["jobs"]
    jobs.store.update_project("1", CONFIG)
    job = jobs.add_extraction("1", task(1), PRIORITY_WANTED)
    with ThreadPoolExecutor() as pool:
        running = pool.submit(work_off, jobs)
        wait_until(lambda: 1 in model.gates, 10, "the extraction")
        other = sqlite3.connect(tmp_path / "state.db", isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        model.gates[1].set()
        wait_until(lambda: "waits to be written" in caplog.text, 30, "the first try")
        assert not running.done()
        assert jobs.status(job.id).status == JobStatus.STARTED
        other.execute("ROLLBACK")
        running.result()
    assert jobs.status(job.id).status == JobStatus.FINISHED
    jobs.store.close()


# Real processes


@pytest.fixture
def stub(tmp_path: Path, database_url: str) -> Iterator[StubBackend]:
    backend = StubBackend(tmp_path / "stub", database_url, STUB_FIT_SECONDS="30")
    yield backend
    backend.stop()


@pytest.mark.slow
def test_a_killed_training_is_taken_over_and_restarts_are_no_failures(stub: StubBackend) -> None:
    store = stub.store
    item = {"id": 1, "data": {"text": "a"}}
    annotation = {"id": 1, "result": [], "updated_at": "2026-11-22T10:00:00Z"}
    store.save_annotations("1", CONFIG, [(item, annotation)], "ANNOTATION_CREATED")
    worker = stub.start_worker()

    def running() -> bool:
        return any(t.status == TrainingStatus.RUNNING for t in store.trainings("1"))

    for _ in range(3):  # it was given up then
        wait_until(running, START_SECONDS, f"the training, see {stub.log}")
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(START_SECONDS) == 0
        assert [t.status for t in store.trainings("1")][-1] == TrainingStatus.INTERRUPTED
        (job,) = store.jobs(JobStatus.QUEUED)
        assert job.attempts == 0
        worker = stub.start_worker()
    wait_until(running, START_SECONDS, f"the training, see {stub.log}")
    stub.kill(worker)
    stub.environment["STUB_FIT_SECONDS"] = "0.1"
    worker = stub.start_worker()
    wait_until(lambda: store.projects_behind() == [], START_SECONDS, f"the training, see {stub.log}")
    statuses = [t.status for t in store.trainings("1")]
    assert statuses == [TrainingStatus.INTERRUPTED] * 4 + [TrainingStatus.PUBLISHED]
    log = stub.log.read_text()
    assert "(train, project 1) is taken over: its worker died" in log
    assert "(train, project 1) begins again: its worker died" in log
    # Its successor needn't wait for the lease to run out. A training counts a moment before its job has ended.
    wait_until(lambda: store.jobs(JobStatus.FINISHED), 10, "the job's end")
    (job,) = store.jobs(JobStatus.FINISHED)
    assert job.attempts == 1
