"""Fresh predictions: which tasks get one, once, at what cost, and when the worker stops."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from flask.testing import FlaskClient
from pydantic import SecretStr

from benchmarks.stub_backend import CONFIG as STUB_CONFIG
from errors import NotReady
from ml_backend import LabelStudioMLBase
from ml_backend.base import Ranked
from ml_backend.jobs import deliveries, handlers, refresh
from ml_backend.jobs.queue import Jobs
from ml_backend.jobs.runner import Runner
from ml_backend.jobs.worker import WorkerProcess
from ml_backend.store.tables import JobKind, JobStatus
from ml_backend.web import predictions
from progress import UNTOLD, Progress
from tests import stand_in
from tests.http_server import status
from tests.servers import wait_until
from tests.stand_in import StandIn, now
from tests.stub import StubBackend
from tests.work import work_off

# The SDK's own.
pytestmark = pytest.mark.filterwarnings("ignore:The `parse_obj` method is deprecated")

KEY = "0123456789abcdef0123456789abcdef01234567"
CONFIG = '<View><Text name="t" value="$t"/><Choices name="c" toName="t"><Choice value="A"/></Choices></View>'


class Learner(LabelStudioMLBase):
    """Predicts extracted tasks, by a version that each training raises."""

    predict_ahead = 10
    chooses_next = False
    missing: tuple[int, ...] = ()
    ranked: tuple[Ranked, ...] = ()

    @property
    def model_version(self) -> str:
        return f"v{self.get('trainings') or 0}"

    def is_extracted(self, task: dict[str, Any]) -> bool:
        return task["id"] not in self.missing

    def rank(self, tasks: list[dict[str, Any]], progress: Progress = UNTOLD) -> list[Ranked]:
        progress(1.0)
        return list(self.ranked)

    def predict(self, tasks: list[dict[str, Any]], context: Any = None, **kwargs: Any) -> list[dict[str, Any]]:
        return [{"result": [], "score": task["id"] / 1000, "model_version": self.model_version} for task in tasks]

    def fit(self, event: str, data: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        self.next_version()
        return {}


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refresh, "MAX_REQUESTS_PER_SECOND", 1e6)
    monkeypatch.setattr(predictions, "ASKED", timedelta(minutes=1))  # this machine may be busy


@pytest.fixture
def label_studio() -> Iterator[StandIn]:
    label_studio = StandIn(tasks=30)
    yield label_studio
    label_studio.http.shutdown()


@pytest.fixture
def clients() -> list[FlaskClient]:
    """Of the started apps."""
    return []


@pytest.fixture
def start(
    make_app: Callable[..., Any], database_url: str, label_studio: StandIn, clients: list[FlaskClient]
) -> Callable[..., Jobs]:
    """Connects project 1, and does its jobs."""

    def start(model: type[Learner] = Learner, key: str | None = KEY, **settings: Any) -> Jobs:
        settings |= {"database_url": database_url, "label_studio_url": label_studio.url}
        app = make_app(model, label_studio_api_key=key and SecretStr(key), **settings)
        jobs = app.extensions["jobs"]
        clients.append(app.test_client())
        jobs.on_added = lambda: None
        jobs.store.update_project("1", CONFIG)
        if key:
            jobs.add_reconciliation("1")
        train(jobs)
        return jobs

    return start


def train(jobs: Jobs) -> None:
    jobs.store.request_training("1")
    jobs.add_training("1")
    work_off(jobs)


def results(jobs: Jobs) -> list[dict[str, Any]]:
    """The results of the refreshes, oldest first."""
    done = [job for job in jobs.store.jobs(JobStatus.FINISHED) if job.kind == JobKind.REFRESH]
    return [job.result for job in done]


def test_the_next_tasks_have_the_new_version_once(start: Callable[..., Jobs], label_studio: StandIn) -> None:
    label_studio.annotated = {2}
    jobs = start()
    nexts = [1, *range(3, 12)]
    assert label_studio.versions() == {task: ["v1"] for task in nexts}
    assert label_studio.settings["model_version"] == "v1"
    ids = sorted(label_studio.predictions)
    asked = len(label_studio.requests)
    train(jobs)
    # In place of the old ones: whoever has such a task open can still submit.
    assert label_studio.versions() == {task: ["v2"] for task in nexts}
    assert sorted(label_studio.predictions) == ids
    assert label_studio.settings["model_version"] == "v2"
    (first, second) = results(jobs)
    assert [first["stored"], second["stored"], second["already"]] == [10, 10, 0]
    assert len(label_studio.requests) - asked <= second["requests"] <= 2 * 10 + 5
    jobs.add_refresh("1")
    work_off(jobs)
    assert label_studio.versions() == {task: ["v2"] for task in nexts}
    assert results(jobs)[-1]["already"] == 10
    assert results(jobs)[-1]["requests"] <= 5


def test_other_predictions_stay(start: Callable[..., Jobs], label_studio: StandIn) -> None:
    with label_studio.lock:
        label_studio.predictions[900] = {"id": 900, "task": 1, "model_version": "theirs", "updated_at": now()}
    jobs = start(keep_predictions=2)
    train(jobs)
    assert label_studio.versions()[1] == ["theirs", "v1", "v2"]
    train(jobs)
    assert label_studio.versions()[1] == ["theirs", "v3", "v2"]
    # What is too many goes, unless somebody may have it open.
    for number, updated in ((901, "2026-11-22T12:00:00Z"), (902, "2026-11-21T12:00:00Z")):
        label_studio.predictions[number] = {"id": number, "task": 1, "model_version": "v1", "updated_at": updated}
    train(jobs)
    left = {number: one["model_version"] for number, one in label_studio.predictions.items() if one["task"] == 1}
    assert left.pop(902) == "v4"  # the oldest became the new one
    assert sorted(left.values()) == ["theirs", "v2", "v3"]


def test_what_label_studio_stored_beside_the_old_one_leaves_one(
    start: Callable[..., Jobs], label_studio: StandIn
) -> None:
    jobs = start()
    jobs.registry.get("1").next_version()
    for number, task, updated in ((901, 1, "2026-11-22T12:00:00Z"), (902, 2, now())):
        label_studio.predictions[number] = {"id": number, "task": task, "model_version": "v2", "updated_at": now()}
        first = next(one for one in label_studio.predictions.values() if one["task"] == task)
        first["updated_at"] = updated
    jobs.add_refresh("1")
    work_off(jobs)
    versions = label_studio.versions()
    assert versions[1] == ["v2"]
    assert versions[2] == ["v1", "v2"]  # somebody may have the first open


def test_what_somebody_may_have_open_stays_whatever_the_clocks_say(
    start: Callable[..., Jobs], label_studio: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This machine's is two hours ahead of Label Studio's."""
    earlier = (datetime.now(timezone.utc) - timedelta(hours=2)).isoformat()
    monkeypatch.setattr(stand_in, "now", lambda: earlier)
    jobs = start()
    label_studio.predictions[901] = {"id": 901, "task": 1, "model_version": "v1", "updated_at": earlier}
    train(jobs)
    assert sorted(label_studio.versions()[1]) == ["v1", "v2"]


def test_a_prediction_comes_by_one_way(
    start: Callable[..., Jobs], label_studio: StandIn, clients: list[FlaskClient]
) -> None:
    """Label Studio asks for one while the worker stores it, or the worker comes while Label Studio stores an answer."""
    jobs = start()
    (client,) = clients

    def predict(task: int, **params: Any) -> Any:
        tasks = [{"id": task, "data": {"text": str(task)}}, {"id": 30, "data": {"text": "30"}}]
        answer = client.post("/predict", json={"tasks": tasks, "project": "1", "params": params})
        return answer.json["results"][0]

    asked = {"login": None, "password": None, "context": None}
    assert predict(1, **asked) == {"error": "The worker has just stored this prediction in Label Studio."}
    assert predict(1)["model_version"] == "v1"  # a program
    assert predict(1, **asked | {"context": {"event": "open"}})["model_version"] == "v1"  # isn't stored
    jobs.registry.get("1").next_version()
    assert predict(2, **asked)["model_version"] == "v2"
    jobs.add_refresh("1")
    work_off(jobs)
    versions = label_studio.versions()
    assert [versions[task] for task in (1, 2, 3)] == [["v2"], ["v1"], ["v2"]]


def test_a_refresh_and_a_delivery_of_a_task_store_one_prediction(
    start: Callable[..., Jobs], label_studio: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The delivery begins when the refresh has seen that the task has no prediction yet."""
    seconds: list[threading.Thread] = []
    met = threading.Event()  # the delivery has listed them too, or waits

    def deliver(task: int) -> None:
        if seconds:
            met.set()
        elif task == 5:
            jobs.add_delivery("1", {"id": 5, "data": {"text": "5"}})
            worker = Runner(jobs)
            seconds.append(threading.Thread(target=lambda: worker.run(worker.claim())))
            seconds[0].start()
            assert met.wait(60)

    jobs = start(Off)
    monkeypatch.setattr(Off, "predict_ahead", 10)
    monkeypatch.setattr(deliveries, "time", SimpleNamespace(sleep=lambda seconds: met.set()))
    label_studio.after_listing = deliver
    jobs.add_refresh("1")
    work_off(jobs)
    seconds[0].join()
    assert jobs.store.count_jobs(JobStatus.FINISHED) == len(jobs.store.jobs(*JobStatus))
    assert label_studio.versions() == {task: ["v1"] for task in range(1, 11)}


def test_a_delivery_waits_for_the_answer_that_label_studio_stores(
    start: Callable[..., Jobs], label_studio: StandIn, clients: list[FlaskClient]
) -> None:
    """Where Label Studio gave up that request, the prediction comes later."""
    jobs = start(Off)
    task = {"id": 1, "data": {"text": "1"}}
    asked = {"login": None, "password": None, "context": None}
    clients[0].post("/predict", json={"tasks": [task], "project": "1", "params": asked})
    jobs.add_delivery("1", task)
    assert work_off(jobs) == 1
    assert label_studio.predictions == {}
    (waiting,) = jobs.store.jobs(JobStatus.QUEUED)
    assert waiting.due_at is not None
    with jobs.store.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE predictions SET answered_at = '2026-11-01 12:00:00'")
    jobs.store.make_jobs_due()
    work_off(jobs)
    assert label_studio.versions() == {1: ["v1"]}


class Telling(Learner):
    """Predicts what the task's text is."""

    predict_ahead = 0
    ready = False

    def is_extracted(self, task: dict[str, Any]) -> bool:
        return self.ready

    def predict(self, tasks: list[dict[str, Any]], context: Any = None, **kwargs: Any) -> list[dict[str, Any]]:
        return [one | {"result": [task["data"]]} for one, task in zip(super().predict(tasks), tasks, strict=True)]


def test_jobs_with_old_data_leave_the_new_ones(
    start: Callable[..., Jobs], label_studio: StandIn, clients: list[FlaskClient]
) -> None:
    jobs = start(Telling, predict_timeout=0.0)
    old, new = ({"id": 1, "data": {"text": text}} for text in ("old", "new"))
    jobs.add_delivery("1", old)
    jobs.add_extraction("1", old, 0)
    jobs.add_extractions("1", [old])
    # The request itself is late: the job has its data.
    clients[0].post("/predict", json={"tasks": [new], "project": "1"})
    assert jobs.store.known_task("1", 1) == new
    jobs.add_extraction("1", old, 0)
    work_off(jobs)
    assert jobs.store.known_task("1", 1) == new
    assert [one["result"] for one in label_studio.predictions.values()] == [[new["data"]]]


class Overtaken(Learner):
    """While its first delivery is predicted, a newer version is published."""

    predict_ahead = 0

    def predict(self, tasks: list[dict[str, Any]], context: Any = None, **kwargs: Any) -> list[dict[str, Any]]:
        predictions = super().predict(tasks)
        if self.model_version == "v1":
            self.next_version()
        return predictions


def test_a_late_delivery_stores_no_earlier_version(start: Callable[..., Jobs], label_studio: StandIn) -> None:
    jobs = start(Overtaken)
    jobs.add_delivery("1", {"id": 1, "data": {"text": "1"}})
    work_off(jobs)
    assert label_studio.versions() == {1: ["v2"]}


def test_what_is_annotated_meanwhile_stays(start: Callable[..., Jobs], label_studio: StandIn) -> None:
    jobs = start()
    annotation = {"id": 5, "result": [], "updated_at": "2026-11-27T12:00:00Z"}
    jobs.store.save_annotations("1", None, [({"id": 3, "data": {"t": "3"}}, annotation)], "ANNOTATION_CREATED")
    train(jobs)  # Label Studio still lists it
    assert label_studio.versions()[3] == ["v1"]
    assert label_studio.versions()[4] == ["v2"]


class Uncached(Learner):
    missing = (2, 3, 4)


def test_videos_that_come_next_are_read(start: Callable[..., Jobs], label_studio: StandIn) -> None:
    jobs = start(Uncached)
    assert sorted(label_studio.versions()) == [1, *range(5, 11)]
    extracted = [job for job in jobs.store.jobs(JobStatus.FINISHED) if job.kind == JobKind.EXTRACT]
    assert [(job.task_id, job.priority) for job in extracted] == [(2, 0), (3, 0), (4, 0)]
    assert results(jobs)[0]["uncached"] == 3


def test_videos_that_are_read_one_after_the_other_are_ranked_in_a_tenth_of_the_time(
    start: Callable[..., Jobs], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was ranked without a pause where that took longer than the half minute between two times."""
    clock = [0.0]
    monkeypatch.setattr(handlers, "time", SimpleNamespace(monotonic=lambda: clock[0]))

    class Slow(Uncached):
        def rank(self, tasks: list[dict[str, Any]], progress: Progress = UNTOLD) -> list[Ranked]:
            clock[0] += 40
            return super().rank(tasks, progress)

    (waiting,) = start(Slow).store.jobs(JobStatus.QUEUED)
    assert waiting.kind == JobKind.REFRESH
    assert waiting.due_at - waiting.created_at > timedelta(seconds=9 * 40 - 1)


def test_a_task_that_label_studio_refuses_leaves_the_others(
    start: Callable[..., Jobs], label_studio: StandIn, caplog: pytest.LogCaptureFixture
) -> None:
    label_studio.refused = {3}
    jobs = start()
    assert label_studio.versions() == {task: ["v1"] for task in range(1, 11) if task != 3}
    assert [result["stored"] for result in results(jobs)] == [9]
    assert "Project 1, task 3: its prediction isn't stored" in caplog.text
    delivery = jobs.add_delivery("1", {"id": 3, "data": {"text": "3"}})
    work_off(jobs)
    ended = jobs.status(delivery.id)
    assert ended.status == JobStatus.FAILED  # it would be refused again
    assert "400" in ended.error


def test_predictions_are_stored_where_a_setting_stays(start: Callable[..., Jobs], label_studio: StandIn) -> None:
    label_studio.refused = {"settings"}
    jobs = start(Choosing)
    assert sorted(label_studio.versions()) == [1, 2, 3]
    assert label_studio.settings == {"model_version": "Timeline", "sampling": "Sequential sampling"}
    assert [result["stored"] for result in results(jobs)] == [3]


class Interrupted(Learner):
    """While its first predictions are stored, a newer version is published."""

    def predict(self, tasks: list[dict[str, Any]], context: Any = None, **kwargs: Any) -> list[dict[str, Any]]:
        predictions = super().predict(tasks)
        if tasks[0]["id"] == 4 and self.model_version == "v1":
            self.next_version()
        return predictions


def test_a_newer_version_ends_it(start: Callable[..., Jobs], label_studio: StandIn) -> None:
    jobs = start(Interrupted)
    assert label_studio.versions() == {task: ["v1"] for task in range(1, 5)}
    jobs.add_refresh("1")
    work_off(jobs)
    assert label_studio.versions() == {task: ["v2"] for task in range(1, 11)}


class Choosing(Learner):
    predict_ahead = 3
    chooses_next = True
    ranked = (Ranked(20, cluster=1, score=0.1), Ranked(7, cluster=2), Ranked(9), Ranked(1))


def test_what_teaches_most_comes_first(start: Callable[..., Jobs], label_studio: StandIn) -> None:
    jobs = start(Choosing)
    assert label_studio.settings == {"model_version": "v1", "sampling": "Uncertainty sampling"}
    stored = [(one["task"], one["cluster"], one["score"]) for one in label_studio.predictions.values()]
    assert stored == [(20, 1, 0.1), (7, 2, 0.007), (9, None, 0.009)]
    assert [row.id for row in jobs.store.known_tasks("1", 5)[0]] == [20, 7, 9, 1, 2]


class Many(Choosing):
    predict_ahead = 100
    ranked = tuple(Ranked(number) for number in range(30, 0, -1))


def test_the_stream_has_the_first_of_the_order_alone(start: Callable[..., Jobs], label_studio: StandIn) -> None:
    start(Many)
    assert list(label_studio.versions()) == list(range(30, 20, -1))


class Untrained(Choosing):
    def check_ready(self) -> None:
        raise NotReady("Not trained yet.")


def test_the_first_video_to_annotate_is_ranked_too(start: Callable[..., Jobs], label_studio: StandIn) -> None:
    jobs = start(Untrained)
    assert [row.id for row in jobs.store.known_tasks("1", 5)[0]] == [20, 7, 9, 1, 2]
    assert label_studio.predictions == {}
    assert label_studio.settings["model_version"] == "Timeline"


def test_several_changes_are_one_refresh(start: Callable[..., Jobs], label_studio: StandIn) -> None:
    jobs = start()
    waiting = [jobs.add_refresh("1", after=timedelta(hours=1)).id for _ in range(3)]
    assert len(set(waiting)) == 1
    assert work_off(jobs) == 0
    assert jobs.add_refresh("1").id == waiting[0]  # a new version doesn't wait
    assert jobs.add_refresh("1", after=timedelta(hours=1)).due_at is None
    assert work_off(jobs) == 1


class Off(Learner):
    predict_ahead = 0


def test_off_means_off(start: Callable[..., Jobs], label_studio: StandIn) -> None:
    jobs = start(Off)
    assert label_studio.predictions == {}
    assert label_studio.settings["model_version"] == "Timeline"
    assert results(jobs) == []


class Ranking(Choosing):
    predict_ahead, ranks = 0, True


def test_a_project_without_predictions_ahead_is_ranked_all_the_same(
    start: Callable[..., Jobs], label_studio: StandIn
) -> None:
    jobs = start(Ranking)
    jobs.store.save_tasks("1", [{"id": 7, "data": {}}, {"id": 20, "data": {}}])
    train(jobs)
    assert [row.id for row in jobs.store.known_tasks("1", 2)[0]] == [20, 7]
    assert label_studio.predictions == {}
    assert label_studio.settings == {"model_version": "Timeline", "sampling": "Sequential sampling"}


def test_more_predictions_are_stored_once_the_config_says_so(
    start: Callable[..., Jobs], label_studio: StandIn, clients: list[FlaskClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = start(Off)
    jobs.store.unlearnt = ("model_predict_ahead",)
    monkeypatch.setattr(Off, "predict_ahead", 3)
    label_config = CONFIG.replace("<Choices ", '<Choices model_predict_ahead="3" ')
    project = {"id": 1, "label_config": label_config}
    clients[0].post("/webhook", json={"action": "PROJECT_UPDATED", "project": project})
    jobs.store.make_jobs_due()
    work_off(jobs)
    assert label_studio.versions() == {task: ["v1"] for task in (1, 2, 3)}


def test_a_version_that_somebody_chose_stays(start: Callable[..., Jobs], label_studio: StandIn) -> None:
    label_studio.settings["model_version"] = "theirs"
    start()
    assert label_studio.settings["model_version"] == "theirs"
    assert label_studio.versions()[1] == ["v1"]


def test_without_a_key_it_says_so_once(
    start: Callable[..., Jobs], label_studio: StandIn, caplog: pytest.LogCaptureFixture
) -> None:
    jobs = start(Choosing, key=None)
    jobs.store.save_tasks("1", [{"id": 7, "data": {}}, {"id": 20, "data": {}}])
    train(jobs)
    train(jobs)
    assert caplog.text.count("fresh predictions aren't stored in Label Studio. There is no key") == 1
    assert label_studio.requests == []
    assert [row.id for row in jobs.store.known_tasks("1", 5)[0]] == [20, 7]  # the dashboard's order needs none


def test_a_refused_key_is_said_once(
    start: Callable[..., Jobs], label_studio: StandIn, caplog: pytest.LogCaptureFixture
) -> None:
    label_studio.answers["/api/projects/1/"] = status(401)
    jobs = start()
    train(jobs)
    assert caplog.text.count("fresh predictions aren't stored in Label Studio. Project 1: Label Studio refuses") == 1
    assert label_studio.predictions == {}
    assert [job.kind for job in jobs.store.jobs(JobStatus.FAILED, JobStatus.QUEUED)] == []
    del label_studio.answers["/api/projects/1/"]
    train(jobs)
    assert label_studio.versions()[1] == ["v3"]


def test_an_earlier_version_is_refreshed_after_a_roll_back(start: Callable[..., Jobs], label_studio: StandIn) -> None:
    jobs = start()
    train(jobs)
    jobs.registry.get("1").set("trainings", "1")
    WorkerProcess(Runner(jobs)).look_at_models()
    work_off(jobs)
    assert label_studio.versions()[1] == ["v1"]
    assert label_studio.settings["model_version"] == "v1"


@pytest.mark.slow
def test_a_killed_worker_stores_nothing_twice(database_url: str, label_studio: StandIn, tmp_path: Path) -> None:
    """It is killed after Label Studio has stored a prediction, and before it has the answer."""
    killed, answer = threading.Event(), threading.Event()

    def hold(count: int) -> None:
        if count == 7 and not killed.is_set():
            killed.set()
            answer.wait(60)

    label_studio.after_saving = hold
    stub = StubBackend(
        tmp_path,
        database_url,
        LABEL_STUDIO_URL=label_studio.url,
        LABEL_STUDIO_API_KEY=KEY,
        STUB_PREDICT_AHEAD="20",
    )
    try:
        stub.store.update_project("1", STUB_CONFIG)
        stub.store.save_annotations(
            "1", STUB_CONFIG, [({"id": 1, "data": {"text": "1"}}, {"id": 1, "result": []})], "ANNOTATION_CREATED"
        )
        label_studio.annotated = {1}
        worker = stub.start_worker()
        assert killed.wait(60)
        stub.kill(worker)
        answer.set()
        stub.start_worker()
        wait_until(lambda: len(label_studio.versions()) == 20, 60, f"the predictions, see {stub.log}")
        wait_until(lambda: stub.store.count_jobs(JobStatus.STARTED) == 0, 60, f"the end, see {stub.log}")
        assert label_studio.versions() == {task: ["stub-v1"] for task in range(2, 22)}
    finally:
        stub.stop()
