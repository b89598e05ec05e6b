"""Label Studio's API: which one is asked, with which key, and what its errors say; on small real HTTP servers."""

import json
import os
import re
import socket
import stat
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import jwt
import pytest
from flask import Flask
from label_studio_sdk.core import http_client
from pydantic import SecretStr

from ml_backend import LabelStudioMLBase
from ml_backend.label_studio import client, predictions
from ml_backend.label_studio.client import (
    Connection,
    LabelStudioError,
    annotated_tasks,
    choose_connection,
    explained,
    who_am_i,
)
from ml_backend.label_studio.predictions import create_prediction
from ml_backend.settings import Settings
from ml_backend.store import Store
from ml_backend.store.tables import JobKind, JobStatus
from progress import Progress
from tests.http_server import Answer, Server, as_json, guarded, redirect, send, status
from tests.stand_in import StandIn

# The SDK's own.
pytestmark = pytest.mark.filterwarnings("ignore:The `parse_obj` method is deprecated")

KEY = "0123456789abcdef0123456789abcdef01234567"


# Which Label Studio


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        (Connection("http://ours", "our-key"), Connection("http://ours", "our-key")),
        (Connection("http://ours", None), Connection("http://ours", "their-key")),
        (Connection(None, None), Connection("http://theirs", "their-key")),
        # Our key goes to no address that came with a request.
        (Connection(None, "our-key"), Connection("http://theirs", "their-key")),
    ],
)
def test_environment_wins_over_setup(environment: Connection, expected: Connection) -> None:
    assert choose_connection(environment, Connection("http://theirs", "their-key")) == expected


CONFIG = '<View><Text name="t" value="$t"/><Choices name="c" toName="t"><Choice value="A"/></Choices></View>'


class Learner(LabelStudioMLBase):
    """A model that learns nothing."""

    def fit(self, event: str, data: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        return {}


@pytest.mark.parametrize(
    "environment",
    [{}, {"label_studio_api_key": SecretStr("OUR-KEY")}, {"label_studio_url": "http://127.0.0.1:9"}],
    ids=["nothing set", "only the key set", "only the address set"],
)
def test_a_stored_token_never_goes_to_another_address(
    environment: dict[str, Any], make_app: Callable[..., Flask], server: Server, elsewhere: Server
) -> None:
    """Whoever reaches `/setup` may name a server of their own, with and without a token, in any order."""
    client = make_app(Learner, **environment).test_client()
    elsewhere.answers["/api/tasks/"] = pages([[task(1)]], total=1)
    start = {"action": "START_TRAINING", "project": {"id": 3, "label_config": CONFIG}}
    victim = {"hostname": server.url, "access_token": KEY}
    attacks = [
        [{"hostname": elsewhere.url}],
        [{"hostname": elsewhere.url, "access_token": ""}],
        [{"hostname": elsewhere.url, "access_token": "made up"}, {"hostname": elsewhere.url}],
        [{"access_token": None}, {"hostname": elsewhere.url + "/", "access_token": None}],
    ]
    for attack in attacks:
        for body in [victim, *attack]:
            assert client.post("/setup", json={"project": "3", "schema": CONFIG, **body}).status_code == 200
        client.post("/webhook", json=start)
    sent = " ".join(str(headers) + path for path, headers in elsewhere.requests)
    assert KEY not in sent
    assert "OUR-KEY" not in sent
    if not environment:
        assert "made up" in sent  # the attacker's server was really asked


def test_a_token_is_kept_with_its_own_address(make_app: Callable[..., Flask]) -> None:
    app = make_app(Learner)

    def connection(**body: Any) -> Connection:
        app.test_client().post("/setup", json={"project": "3", "schema": CONFIG, **body})
        return app.extensions["jobs"].registry.get("3").connection

    assert connection(hostname="http://a", access_token="k") == Connection("http://a", "k")
    assert connection() == Connection("http://a", "k")
    assert connection(hostname="http://a/") == Connection("http://a", "k")
    assert connection(access_token="l") == Connection("http://a", "l")
    assert connection(hostname="http://b") == Connection("http://b", None)


def test_files_that_hold_tokens_are_private(settings: Settings) -> None:
    """Also one that an earlier version made readable."""
    settings.data_dir.mkdir(mode=0o755)
    (settings.data_dir / "state.db").touch(mode=0o644)
    fresh = settings.model_copy(update={"data_dir": settings.data_dir.parent / "fresh"})
    elsewhere = settings.model_copy(update={"database_url": f"sqlite:///{settings.data_dir.parent}/own.db"})
    old_umask = os.umask(0o022)
    try:
        stores = [Store(each.database) for each in (settings, fresh, elsewhere)]
        for store in stores:
            store.update_project("1", CONFIG, "http://a", KEY)
    finally:
        os.umask(old_umask)
    assert stat.S_IMODE(fresh.data_dir.stat().st_mode) == 0o700
    holding = [path for path in settings.data_dir.parent.rglob("*.db*") if KEY.encode() in path.read_bytes()]
    assert len(holding) >= 3
    assert {stat.S_IMODE(path.stat().st_mode) for path in holding} == {0o600}
    for store in stores:
        store.close()


def task(number: int) -> dict:
    annotation = {"id": number * 10, "result": [], "was_cancelled": number == 2}
    return {"id": number, "project": 3, "data": {"video": f"s3://b/{number}.mp4"}, "annotations": [annotation]}


def pages(pages: list[list[dict]], total: int) -> Answer:
    """`/api/tasks/` as Label Studio answers for what follows an id: a page, and the number of all that follow."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        query = json.loads(parse_qs(urlsplit(handler.path).query)["query"][0])
        filters = query.get("filters", {}).get("items", ())
        last = max((one["value"] for one in filters if one["filter"] == "filter:tasks:id"), default=0)
        before = [page for page in pages if last and page[-1]["id"] <= last]
        page = next((page for page in pages[len(before) :]), [])
        left = total - sum(map(len, before))
        as_json({"total": left, "total_annotations": 0, "total_predictions": 0, "tasks": page})(handler)

    return answer


def test_annotated_tasks_of_all_pages(server: Server) -> None:
    server.answers["/api/tasks/"] = guarded(f"Token {KEY}", pages([[task(1), task(2)], [task(3)]], total=3))
    seen: list[float] = []
    tasks = list(annotated_tasks(Connection(server.url, KEY), 3, Progress(seen.append)))
    assert tasks == [task(1), task(2), task(3)]
    assert seen == [0, 1 / 3, 2 / 3, 1]
    asked = parse_qs(urlsplit(server.requests[0][0]).query)
    assert asked["project"] == ["3"]
    assert asked["resolve_uri"] == ["false"]


def test_a_task_deleted_and_one_added_between_pages_hide_none() -> None:
    label_studio = StandIn(tasks=1200)
    label_studio.annotated = set(label_studio.tasks)
    try:
        for fetch in (client.tasks, annotated_tasks):
            fetched = fetch(Connection(label_studio.url, KEY), 1)
            first, newest = next(fetched)["id"], max(label_studio.tasks) + 1
            label_studio.tasks.pop(first)
            label_studio.tasks[newest] = {"text": "new"}
            label_studio.annotated.add(newest)
            assert [task["id"] for task in fetched] == list(range(first + 1, newest + 1))
    finally:
        label_studio.http.shutdown()


def test_tasks_that_go_missing_between_pages_are_noticed(server: Server) -> None:
    server.answers["/api/tasks/"] = pages([[task(1), task(2)]], total=3)
    with pytest.raises(LabelStudioError, match="3 tasks announced, 2 received"):
        list(annotated_tasks(Connection(server.url, KEY), 3))


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (status(401), "LABEL_STUDIO_API_KEY"),
        (status(404, body=b'{"detail": "No Project matches"}'), "No Project matches"),
        (status(400, body=b'{"detail": "Validation error"}'), "Validation error"),
        (status(400, body=b'["odd"]'), "400"),
        (status(200, "text/html", b"<html>some other site</html>"), "LABEL_STUDIO_URL"),
    ],
)
def test_errors_of_the_api_become_sentences(answer: Answer, sentence: str, server: Server) -> None:
    server.answers["/api/tasks/"] = answer
    server.answers["/api/predictions/"] = answer
    connection = Connection(server.url, KEY)
    with pytest.raises(LabelStudioError, match=sentence):
        list(annotated_tasks(connection, 3))
    with pytest.raises(LabelStudioError, match=sentence):
        create_prediction(connection, 1, [], 0.5, "v1")


CALLS: dict[str, Callable[[Connection], Any]] = {
    "who_am_i": client.who_am_i,
    "annotated_tasks": lambda connection: list(annotated_tasks(connection, 3)),
    "tasks": lambda connection: list(client.tasks(connection, 3)),
    "extent": lambda connection: client.extent(connection, 3),
    "webhooks": lambda connection: client.webhooks(connection, 3),
    "created": lambda connection: client.created(connection, 3),
    "upcoming_tasks": lambda connection: list(predictions.upcoming_tasks(connection, 3, 10)),
    "stored_predictions": lambda connection: predictions.stored_predictions(connection, 1),
    "create_prediction": lambda connection: create_prediction(connection, 1, [], 0.5, "v1"),
    "settings": lambda connection: predictions.settings(connection, 3),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    "answer",
    [
        as_json(None),
        as_json("x"),
        as_json(7),
        status(200, body=b'{"title": "\xff"}'),
        status(200, body=b"[" * 100_000),
        status(404, body=b'{"detail": {"odd": ["reason"]}}'),
        lambda handler: send(handler, 200, {"Content-Length": "1000"}, b'{"id": 1, "ta'),
    ],
    ids=["null", "text", "number", "not UTF-8", "deep", "a reason that isn't text", "half"],
)
def test_answers_of_another_form_become_sentences(
    call: str, answer: Answer, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as a proxy's; also what the SDK doesn't check."""
    monkeypatch.setattr(http_client, "MAX_RETRY_DELAY_SECONDS", 0.0)
    server.answers = dict.fromkeys(
        ["/api/current-user/whoami", "/api/tasks/", "/api/webhooks/", "/api/projects/3/", "/api/predictions/"], answer
    )
    with pytest.raises(LabelStudioError):
        CALLS[call](Connection(server.url, KEY))
    assert server.requests


@pytest.mark.parametrize("body", [{}, {"tasks": []}, {"total": None, "tasks": None}])
def test_an_answer_without_a_number_of_tasks_empties_no_project(body: dict[str, Any], server: Server) -> None:
    server.answers["/api/tasks/"] = as_json(body)
    for call in ("annotated_tasks", "tasks", "extent"):
        with pytest.raises(LabelStudioError, match="isn't from Label Studio's API"):
            CALLS[call](Connection(server.url, KEY))


def test_pages_without_end_end(server: Server) -> None:
    page = {"total": 3, "total_annotations": 0, "total_predictions": 0, "tasks": [task(1), task(2)]}
    server.answers["/api/tasks/"] = as_json(page)
    for call in ("annotated_tasks", "tasks"):
        with pytest.raises(LabelStudioError, match="sends task 1 after task 2"):
            CALLS[call](Connection(server.url, KEY))


def test_tasks_of_another_project_are_refused(server: Server) -> None:
    server.answers["/api/tasks/"] = pages([[task(1) | {"project": 4}]], total=1)
    with pytest.raises(LabelStudioError, match="task 1 of project 4"):
        list(annotated_tasks(Connection(server.url, KEY), 3))


def test_one_odd_task_or_annotation_leaves_the_others(server: Server) -> None:
    good = {"id": 7, "result": []}
    odd: list[Any] = [None, 5, {"result": []}, good | {"id": "x"}, good | {"id": 2**63}, good | {"id": True}, {"id": 8}]
    listed = [
        task(1) | {"annotations": [*odd, good]},
        task(2) | {"annotations": None},
        task(3) | {"annotations": "abc", "data": None},
        task(4) | {"data": {"video": "half an emoji \ud83d", "title": "nul \0", "whole": "\U0001f600"}},
    ]
    server.answers["/api/tasks/"] = pages([listed], total=4)
    found = list(annotated_tasks(Connection(server.url, KEY), 3))
    assert [one["id"] for one in found] == [1, 2, 3, 4]
    assert [one["annotations"] for one in found[:3]] == [[{"id": 8, "result": None}, good], [], []]
    assert found[2]["data"] == {}
    storable = {"video": "half an emoji \ufffd", "title": "nul \ufffd", "whole": "\U0001f600"}
    assert found[3]["data"] == storable
    assert list(client.tasks(Connection(server.url, KEY), 3))[2:] == [
        {"id": 3, "data": {}},
        {"id": 4, "data": storable},
    ]


@pytest.mark.parametrize("number", [None, -1, 2**63])
def test_a_task_without_an_id_is_an_answer_of_another_form(number: Any, server: Server) -> None:
    server.answers["/api/tasks/"] = pages([[task(1) | {"id": number}]], total=1)
    for call in ("annotated_tasks", "tasks", "upcoming_tasks"):
        with pytest.raises(LabelStudioError, match="isn't from Label Studio's API"):
            CALLS[call](Connection(server.url, KEY))


def test_another_tasks_predictions_stay(server: Server) -> None:
    """Also where Label Studio's list isn't the asked task's alone."""
    times = {"created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z"}
    stored = [{"id": 7, "task": 2, "project": 3, "model_version": "v1", "result": []} | times]
    server.answers["/api/predictions/"] = as_json(stored)
    assert predictions.stored_predictions(Connection(server.url, KEY), 1) == []
    assert [one.id for one in predictions.stored_predictions(Connection(server.url, KEY), 2)] == [7]


@pytest.mark.parametrize(
    ("name", "value", "reason"), [("ANSWER_SECONDS", 0.0, "in time"), ("MAX_ANSWER", 1000, "1000 bytes")]
)
def test_an_answer_without_end_is_given_up(
    name: str, value: float, reason: str, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, name, value)
    ended = threading.Event()

    def endless(handler: BaseHTTPRequestHandler) -> None:
        send(handler, 200, {"Content-Type": "application/json"})
        with suppress(OSError):
            while True:
                handler.wfile.write(b" " * 100)
        ended.set()

    server.answers["/api/current-user/whoami"] = endless
    monkeypatch.setattr(http_client, "MAX_RETRY_DELAY_SECONDS", 0.0)
    with pytest.raises(LabelStudioError, match=reason):
        client.who_am_i(Connection(server.url, KEY))
    assert ended.wait(30)  # its connection is closed


@pytest.mark.parametrize("key", ["secret\nsecret", "secret\0", "sécret"])
def test_a_key_with_odd_characters_is_not_shown(key: str, server: Server) -> None:
    with pytest.raises(LabelStudioError, match="characters that no key has") as raised:
        client.who_am_i(Connection(server.url, key))
    assert key not in str(raised.value)


@pytest.mark.parametrize(
    ("connection", "sentence"),
    [
        (Connection(None, KEY), "LABEL_STUDIO_URL"),
        (Connection("http://127.0.0.1:1", None), "LABEL_STUDIO_API_KEY"),
        (Connection("localhost:8080", KEY), "http://"),
        (Connection("http://127.0.0.1:1", jwt.encode({"exp": 1}, "a secret of at least thirty-two bytes")), "personal"),
    ],
)
def test_incomplete_connections_are_explained(connection: Connection, sentence: str) -> None:
    with pytest.raises(LabelStudioError, match=sentence):
        create_prediction(connection, 1, [], 0.5, "v1")


def test_prediction_is_sent_once_even_where_the_answer_is_lost(server: Server) -> None:
    server.answers["/api/predictions/"] = lambda handler: handler.connection.close()
    with pytest.raises(LabelStudioError, match="no connection"):
        create_prediction(Connection(server.url, KEY), 1, [], 0.5, "v1")
    assert len(server.requests) == 1


# An address that leads elsewhere


@pytest.mark.parametrize("key", [KEY, "personal access token"])
@pytest.mark.parametrize("to", ["/ls{path}", "https://label.example.com{path}"])
def test_a_redirected_address_is_named(key: str, to: str, server: Server) -> None:
    if key != KEY:
        claims = {"token_type": "refresh", "exp": int(time.time()) + 300}
        key = jwt.encode(claims, "a secret of at least thirty-two bytes")
    for path in ("/api/current-user/whoami", "/api/predictions/", "/api/token/refresh/"):
        server.answers[path] = redirect(to.format(path=path))
    base = to.format(path="") if to.startswith("https") else f"{server.url}/ls"
    connection = Connection(server.url, key)
    for ask in (lambda: who_am_i(connection), lambda: create_prediction(connection, 7, [], 0.5, "v1")):
        with pytest.raises(LabelStudioError, match=re.escape(f"redirects to {base}: set LABEL_STUDIO_URL to that.")):
            ask()


def test_a_certificate_of_ones_own_is_named() -> None:
    with pytest.raises(LabelStudioError, match="SSL_CERT_FILE"), explained("Label Studio", LabelStudioError):
        raise httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed certificate")


# Whose project


@pytest.mark.parametrize(
    ("created", "is_theirs"), [("2026-11-22T13:52:08.9Z", True), ("2027-01-29T14:56:07.1Z", False)]
)
def test_annotations_are_fetched_from_the_project_s_own_label_studio_alone(
    make_app: Callable[..., Flask], server: Server, created: str, is_theirs: bool
) -> None:
    """A Label Studio that was made anew at the same address has another project of the same number."""
    server.answers["/api/projects/7/"] = as_json({"id": 7, "created_at": created})
    theirs = task(5) | {"project": 7, "annotations": [{"id": 6, "result": []}]}
    server.answers["/api/tasks/"] = pages([[theirs]], total=1)
    app = make_app(Learner, label_studio_url=server.url, label_studio_api_key=SecretStr(KEY))
    store: Store = app.extensions["jobs"].store
    client = app.test_client()
    assert client.post("/setup", json={"project": "7.1795355528", "schema": CONFIG}).status_code == 200
    store.save_annotations("7", None, [({"id": 1, "data": {"t": "a"}}, {"id": 2, "result": []})], "ANNOTATION_CREATED")
    client.post("/webhook", json={"action": "START_TRAINING", "project": {"id": 7, "label_config": CONFIG}})
    assert [task["id"] for task in store.annotated_tasks("7")] == ([5] if is_theirs else [1])
    comparisons = [job for job in store.ended_jobs("7", 100) if job.kind == JobKind.RECONCILE]
    assert {job.status for job in comparisons} == {JobStatus.FINISHED if is_theirs else JobStatus.FAILED}
    assert is_theirs or "another project 7" in comparisons[0].error


def test_localhost_in_a_container_is_explained() -> None:
    """As in HumanSignal/label-studio-ml-backend#384 and HumanSignal/label-studio#7092."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
        with pytest.raises(LabelStudioError, match=r"refused.*host\.docker\.internal"):
            who_am_i(Connection(url, KEY))
