"""Which requests get in: the gate before the routes, and what proves a webhook."""

from __future__ import annotations

import json
import logging
import re
import threading
from base64 import b64encode
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from ml_backend.label_studio.client import Connection
from ml_backend.label_studio.webhook_secret import HEADER, OWN_HOST, PROVED, CatchUp, WebhookSecrets
from ml_backend.settings import Settings
from ml_backend.store.tables import Project
from ml_backend.strict_json import MAX_CONTAINERS, loads
from ml_backend.web.gate import GUESSES, MAX_BODY_BYTES
from tests.http_server import Server, as_json, send
from tests.test_protocol import CONFIG, MajorityModel, annotated

PASSWORD = {"basic_auth_user": "anna", "basic_auth_pass": SecretStr("p:ss")}
LABEL_STUDIO = {"label_studio_url": "http://127.0.0.1:9", "label_studio_api_key": SecretStr("a" * 40)}
DELETE = {"action": "PROJECT_DELETED", "project": {"id": 7}}
PROJECT = Project(id="7")


@pytest.fixture
def client(make_app: Callable[..., Flask]) -> FlaskClient:
    return make_app(MajorityModel).test_client()


def basic(credentials: str) -> dict[str, str]:
    return {"Authorization": "Basic " + b64encode(credentials.encode()).decode()}


def knows(client: FlaskClient, project: str = "7") -> bool:
    return client.application.extensions["jobs"].store.project(project) is not None


# -- host


@pytest.mark.parametrize("path", ["/", "/health", "/projects/7", "/dashboard/state", "/openapi.json"])
def test_another_host_name_is_answered_nothing(client: FlaskClient, path: str) -> None:
    """As a page sends that was rebound to this address."""
    answer = client.get(path, headers={"Host": "rebind.test:9090"})
    assert answer.status_code == 403
    assert "ALLOWED_HOSTS" in answer.text


@pytest.mark.parametrize(
    ("host", "changes", "allowed"),
    [
        ("localhost:9090", {}, True),
        ("127.0.0.1", {}, True),
        ("[::1]:9090", {}, True),
        ("LOCALHOST.", {}, True),
        ("backend:9090", {}, False),  # nobody can call a server on loopback so
        ("10.0.0.5:9090", {}, False),
        ("backend:9090", {"host": "0.0.0.0"}, True),
        ("10.0.0.5:9090", {"host": "0.0.0.0"}, True),
        ("[fe80::1]", {"host": "::"}, True),
        ("host.docker.internal:9090", {"host": "0.0.0.0"}, True),
        ("backend.team.svc.cluster.local", {"host": "0.0.0.0"}, True),
        ("ml.example.com", {"host": "0.0.0.0"}, False),
        ("127.0.0.1.example.com", {"host": "0.0.0.0"}, False),
        ("ml.example.com", {"allowed_hosts": ("other.example.com", "ML.example.com")}, True),
        ("evil.ml.example.com", {"allowed_hosts": ("ml.example.com",)}, False),
        ("a b", {"host": "0.0.0.0"}, False),
        ("[::1", {}, False),
    ],
)
def test_host_names(make_app: Callable[..., Flask], host: str, changes: dict[str, str], allowed: bool) -> None:
    answer = make_app(MajorityModel, **changes).test_client().get("/health", headers={"Host": host})
    assert answer.status_code == (200 if allowed else 403)


# -- other sites


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://public.test"},
        {"Origin": "null"},
        {"Origin": "http://localhost:8080"},
        {"Origin": "http://["},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
@pytest.mark.parametrize("path", ["/webhook", "/setup", "/predict", "/versions", "/job_status", "/projects/7/train"])
def test_another_sites_page_changes_nothing(client: FlaskClient, path: str, headers: dict[str, str]) -> None:
    client.post("/webhook", json=annotated(1, "Cat"))
    answer = client.post(path, json=DELETE | {"project": "8", "schema": CONFIG}, headers=headers)
    assert answer.status_code == 403
    assert knows(client)
    assert not knows(client, "8")


@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", None])
def test_what_a_page_can_send_without_asking_is_no_json(client: FlaskClient, media_type: str | None) -> None:
    """A form or a simple fetch: browsers that say no origin exist."""
    client.post("/webhook", json=annotated(1, "Cat"))
    answer = client.post("/webhook", data=json.dumps(DELETE), content_type=media_type)
    assert answer.status_code == 415
    assert "application/json" in answer.json["error"]
    assert knows(client)
    assert client.post("/webhook", json=DELETE, headers={"Origin": "http://localhost"}).status_code == 200
    assert not knows(client)


def test_a_form_token_of_any_letters_is_answered(client: FlaskClient) -> None:
    client.set_cookie("timeline_csrf", "ä")
    assert client.post("/projects/7/train", data={"csrf": "ü"}).status_code == 403


# -- the password


@pytest.mark.parametrize(("workers", "guesses"), [(1, GUESSES), (5, GUESSES // 5), (2 * GUESSES, 1)])
def test_wrong_passwords_are_logged_and_then_not_looked_at(
    workers: int, guesses: int, make_app: Callable[..., Flask], caplog: pytest.LogCaptureFixture
) -> None:
    """Several web processes look at as many together as one alone."""
    client = make_app(MajorityModel, **PASSWORD, workers=workers).test_client()
    statuses = [client.get("/versions", headers=basic(f"anna:{number}")).status_code for number in range(guesses + 5)]
    assert statuses == [401] * guesses + [429] * 5
    answer = client.get("/versions", headers=basic("anna:p:ss"))
    assert answer.status_code == 429, "the right one too: its answer would tell it from a wrong one"
    assert int(answer.headers["Retry-After"]) > 0
    elsewhere = {"REMOTE_ADDR": "10.0.0.9"}
    assert client.get("/versions", headers=basic("anna:p:ss"), environ_overrides=elsewhere).status_code == 200
    assert client.get("/health").status_code == 200
    assert caplog.text.count("A wrong password was refused: from 127.0.0.1") == guesses


def test_behind_a_proxy_wrong_passwords_count_for_its_client(make_app: Callable[..., Flask]) -> None:
    client = make_app(MajorityModel, **PASSWORD, forwarded_allow_ips=("*", "10.0.0.0/30")).test_client()

    def ask(credentials: str, forwarded: str, peer: str = "10.0.0.2") -> int:
        headers = basic(credentials) | {"X-Forwarded-For": forwarded}
        return client.get("/versions", headers=headers, environ_overrides={"REMOTE_ADDR": peer}).status_code

    # What stands before the last address was told by the client itself.
    assert [ask("anna:x", f"203.0.113.{number}, 198.51.100.7") for number in range(GUESSES)] == [401] * GUESSES
    assert ask("anna:x", "198.51.100.7") == 429
    assert ask("anna:p:ss", "198.51.100.8") == 200
    for number in range(GUESSES):
        assert ask("anna:x", f"203.0.113.{number}", peer="10.0.0.9") == 401
    assert ask("anna:x", "203.0.113.99", peer="10.0.0.9") == 429, "no proxy that is trusted"


@pytest.mark.parametrize(
    "value", ["Basic", "Basic /w==", "Basic \xff", "Basic YQ==", "Bearer anna:p:ss", "Basic ====", "x"]
)
def test_any_authorization_header_is_answered(make_app: Callable[..., Flask], value: str) -> None:
    client = make_app(MajorityModel, **PASSWORD).test_client()
    answer = client.get("/versions", headers={"Authorization": value})
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith("Basic")


@pytest.mark.parametrize("missing", PASSWORD)
def test_half_a_password_is_refused(settings: Settings, make_app: Callable[..., Flask], missing: str) -> None:
    half = {name: value for name, value in PASSWORD.items() if name != missing}
    with pytest.raises(ValueError, match=missing.upper()):
        settings.model_copy(update=half).check_access()
    with pytest.raises(ValueError, match=missing.upper()):
        make_app(MajorityModel, **half)


@pytest.mark.parametrize(
    ("changes", "refused"),
    [
        ({}, False),
        ({"host": "localhost"}, False),
        ({"host": "::1"}, False),
        ({"host": "127.0.0.2"}, False),
        ({"host": "0.0.0.0"}, True),
        ({"host": "::"}, True),
        ({"host": ""}, True),
        ({"host": "192.168.1.5"}, True),
        ({"host": "ml.example.com"}, True),
        ({"host": "0.0.0.0"} | PASSWORD, False),
        ({"host": "0.0.0.0", "allow_no_password": True}, False),
    ],
)
def test_without_a_password_it_listens_on_loopback(settings: Settings, changes: dict[str, Any], refused: bool) -> None:
    assert settings.host == "127.0.0.1"
    settings = settings.model_copy(update=changes)
    if not refused:
        settings.check_access()
        return
    with pytest.raises(ValueError, match=r"BASIC_AUTH_USER.*ALLOW_NO_PASSWORD=true"):
        settings.check_access()


# -- what /setup says


@pytest.mark.parametrize("hostname", ["javascript:alert(1)//", "file:///etc", "http://u:p@host", "http://", "ls.test"])
def test_a_hostname_that_is_no_address_is_refused(client: FlaskClient, hostname: str) -> None:
    answer = client.post("/setup", json={"project": "7", "schema": CONFIG, "hostname": hostname})
    assert answer.status_code == 400
    assert "hostname" in answer.json["error"]


@pytest.mark.parametrize(
    ("changes", "believed"),
    [({}, True), ({"host": "0.0.0.0", "allow_no_password": True}, False), ({"host": "0.0.0.0"} | PASSWORD, True)],
)
def test_an_address_is_taken_from_whom_it_can_be_taken(
    make_app: Callable[..., Flask], changes: dict[str, Any], believed: bool
) -> None:
    """Annotations and videos are fetched from there."""
    client = make_app(MajorityModel, **changes).test_client()
    body = {"project": "7", "schema": CONFIG, "hostname": "http://ls.test:8080", "access_token": "t"}
    assert client.post("/setup", json=body, headers=basic("anna:p:ss")).status_code == 200
    project = client.application.extensions["jobs"].store.project("7")
    assert (project.hostname, project.access_token) == (("http://ls.test:8080", "t") if believed else (None, None))


# -- webhooks


def test_with_a_key_a_webhook_must_prove_itself(make_app: Callable[..., Flask]) -> None:
    app = make_app(MajorityModel, **LABEL_STUDIO)
    client, jobs = app.test_client(), app.extensions["jobs"]
    jobs.on_added = lambda: None  # no Label Studio is there to be asked
    secrets = WebhookSecrets(jobs.store)
    jobs.store.set_value("7", PROVED, "true")
    for value in (None, "", "7.x", secrets.of("8"), secrets.of("7") + "0", "ÿ", "7"):
        headers = {} if value is None else {HEADER: value}
        answer = client.post("/webhook", json=annotated(1, "Cat"), headers=headers)
        assert answer.status_code == 403
        assert HEADER in answer.json["error"]
        assert not knows(client)
    proof = {HEADER: secrets.of("7")}
    assert client.post("/webhook", json=annotated(1, "Cat"), headers=proof).status_code == 201
    jobs.store.set_value("7", PROVED, "true")
    assert client.post("/webhook", json=DELETE).status_code == 403
    assert knows(client)
    # Label Studio sends this one by the connection, without the webhook's headers.
    training = {"action": "START_TRAINING", "project": {"id": 7, "label_config": CONFIG}}
    assert client.post("/webhook", json=training).status_code == 201
    assert client.post("/webhook", json=DELETE, headers=proof).status_code == 200


@pytest.mark.parametrize(
    ("changes", "headers", "status"),
    [
        ({}, {}, 201),
        ({}, {HEADER: "7.x"}, 403),
        ({"host": "0.0.0.0", "allow_no_password": True}, {}, 403),
    ],
)
def test_before_the_secret_is_in_place_this_machine_is_believed(
    make_app: Callable[..., Flask], changes: dict[str, Any], headers: dict[str, str], status: int
) -> None:
    client = make_app(MajorityModel, **LABEL_STUDIO, **changes).test_client()
    assert client.post("/webhook", json=annotated(1, "Cat"), headers=headers).status_code == status


def test_with_a_password_and_a_key_either_proves_a_webhook(make_app: Callable[..., Flask]) -> None:
    app = make_app(MajorityModel, **LABEL_STUDIO, **PASSWORD)
    client = app.test_client()
    proof = {HEADER: WebhookSecrets(app.extensions["jobs"].store).of("7")}
    assert client.post("/webhook", json=annotated(1, "Cat")).status_code == 401
    assert client.post("/webhook", json=annotated(1, "Cat"), headers={HEADER: "7.x"}).status_code == 401
    assert client.post("/webhook", json=annotated(1, "Cat"), headers=proof).status_code == 201
    assert client.post("/webhook", json=annotated(2, "Cat"), headers=basic("anna:p:ss")).status_code == 201
    assert client.get("/versions", headers=proof).status_code == 401, "it opens the webhook's route alone"


def test_processes_of_one_database_share_the_secret(make_app: Callable[..., Flask]) -> None:
    first, second = (WebhookSecrets(make_app(MajorityModel).extensions["jobs"].store) for _ in range(2))
    assert first.of("7") == second.of("7") != first.of("8")
    assert second.project_of(first.of("7")) == "7"


def test_what_was_not_believed_is_asked_once_and_not_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    planned: list[threading.Timer] = []
    monkeypatch.setattr("ml_backend.label_studio.webhook_secret.CATCH_UP_SECONDS", 3600.0)
    monkeypatch.setattr(threading.Timer, "start", lambda timer: planned.append(timer))
    catch_up = CatchUp(asked.append)
    for _ in range(5):
        catch_up("7")
    catch_up("8")
    assert asked == ["7", "8"]
    (timer,) = planned
    assert 0 < timer.interval <= 3600
    timer.function(*timer.args)
    assert asked == ["7", "8", "7"]


class FakeWebhooks:
    """The webhooks of Label Studio's project 7, as its API lists and changes them."""

    def __init__(self, server: Server, *webhooks: dict[str, Any]) -> None:
        self.webhooks = list(webhooks)
        self.changes: list[dict[str, Any]] = []
        server.answers["/api/webhooks/"] = lambda handler: as_json(self.webhooks)(handler)
        for webhook in webhooks:
            server.answers[f"/api/webhooks/{webhook['id']}/"] = self._change

    def _change(self, handler: Any) -> None:
        change = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        self.changes.append(change)
        (webhook,) = [one for one in self.webhooks if handler.path == f"/api/webhooks/{one['id']}/"]
        webhook |= change
        send(handler, 200, {"Content-Type": "application/json"}, json.dumps(webhook).encode())


def webhook(number: int, url: str, **more: Any) -> dict[str, Any]:
    return {"id": number, "url": url, "project": 7, "headers": {}, "actions": [], "is_active": True} | more


def test_the_secret_is_put_into_label_studio_and_repaired(server: Server, make_app: Callable[..., Flask]) -> None:
    secrets = WebhookSecrets(make_app(MajorityModel).extensions["jobs"].store)
    connection = Connection(server.url, "a" * 40)
    theirs = {"X-Theirs": "1"}
    label_studio = FakeWebhooks(
        server,
        webhook(1, "http://other:9090/webhook"),
        webhook(2, "http://backend:9090/webhook", headers=theirs, actions=["ANNOTATION_CREATED"]),
        webhook(4, "http://backend:9090/webhook", is_active=False),
    )
    assert not secrets.put_in_place(connection, PROJECT), "which of two is ours isn't known yet"
    assert label_studio.changes == []
    secrets._store.set_value("7", OWN_HOST, "backend:9090")
    for _ in range(2):
        assert secrets.put_in_place(connection, PROJECT)
    assert label_studio.changes == [
        {"headers": theirs | {HEADER: secrets.of("7")}, "actions": ["ANNOTATION_CREATED"]}
    ], "once, and nothing else of it"
    label_studio.webhooks[1]["headers"] = {HEADER: "forged"}
    assert secrets.put_in_place(connection, PROJECT)
    assert secrets.project_of(label_studio.webhooks[1]["headers"][HEADER]) == "7"
    del label_studio.webhooks[:]
    assert not secrets.put_in_place(connection, PROJECT)


def test_comparing_with_label_studio_puts_the_secret_in_place(
    server: Server, make_app: Callable[..., Flask], caplog: pytest.LogCaptureFixture
) -> None:
    label_studio = FakeWebhooks(server, webhook(1, "http://localhost/webhook"))
    server.answers["/api/tasks/"] = as_json({"total": 0, "tasks": []})
    server.answers["/api/projects/7/"] = as_json({"id": 7, "created_at": "1970-01-01T00:00:01Z"})
    app = make_app(MajorityModel, label_studio_url=server.url, label_studio_api_key=SecretStr("a" * 40))
    with caplog.at_level(logging.INFO):
        assert app.test_client().post("/setup", json={"project": "7.1", "schema": CONFIG}).status_code == 200
    secret = label_studio.webhooks[0]["headers"][HEADER]
    assert secret not in caplog.text
    answer = app.test_client().post("/webhook", json=annotated(1, "Cat"), headers={HEADER: secret})
    assert answer.status_code == 201


# -- bodies


def test_a_body_is_bounded(client: FlaskClient) -> None:
    large = b'{"action": "' + b"x" * MAX_BODY_BYTES + b'"}'
    answer = client.post("/webhook", data=large, content_type="application/json")
    assert answer.status_code == 413
    assert "10 MB" in answer.json["error"]


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"[" * 100_000 + b"]" * 100_000, 400, "recursion"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, 400, "recursion"),
        (b'{"action":"X","a":[' + b"[]," * MAX_CONTAINERS + b"[]]}", 400, "lists"),
        (b'{"tasks":[' + b"0," * 400_000 + b"0]}", 400, "tasks.0"),
        (b'{"tasks":[' + b"{}," * 150_000 + b"{}]}", 400, "tasks"),
        (b'{"action":"\xff\xfe"}', 400, "JSON"),
        ('{"action":"X"}'.encode("utf-16"), 400, "JSON"),
        (b"", 400, "JSON"),
        (b'{"action":"ANNOTATION_CREATED","project":{"id":"1"},"task":{"id":' + b"9" * 5000 + b"}}", 400, ""),
        (json.dumps(annotated(2**63, "Cat")).encode(), 400, "less than"),
        (json.dumps(annotated(-(2**63) - 1, "Cat")).encode(), 400, "greater"),
    ],
)
def test_any_body_is_answered(client: FlaskClient, body: bytes, status: int, words: str) -> None:
    path = "/predict" if b"tasks" in body[:10] else "/webhook"
    answer = client.post(path, data=body, content_type="application/json")
    assert answer.status_code == status, answer.text[:300]
    assert words in answer.json["error"]
    assert len(answer.json["error"]) < 2000


def test_texts_that_no_database_takes_are_changed(database_url: str, make_app: Callable[..., Flask]) -> None:
    app = make_app(MajorityModel, database_url=database_url)
    client, store = app.test_client(), app.extensions["jobs"].store
    body = annotated(2**63 - 1, "Cat")
    body["task"]["data"] = {"image": "a\ud800\0b\\ud800😀.png"}
    assert client.post("/webhook", json=body).status_code == 201
    assert store.task_data("7", 2**63 - 1)["image"] == "a\ufffd\ufffdb\\ud800😀.png"
    for path in ("/projects/7", f"/projects/7/tasks/{2**63 - 1}", "/dashboard/state"):
        assert client.get(path).status_code == 200, path


@pytest.mark.parametrize(
    "path",
    [
        "/projects/7/tasks/99999999999999999999999999",
        "/projects/7?offset=99999999999999999999999",
        "/projects/7?offset=-5",
        "/projects/7/tasks/1?annotation=99999999999999999999999999",
        "/projects/%00/tasks/1",
        "/projects/%ed%a0%80",
        "/dashboard/state?project=%00",
        "/versions?project=%00",
        "/versions?project=%ed%a0%80",
        "/?done=%00",
    ],
)
def test_any_address_is_answered(database_url: str, make_app: Callable[..., Flask], path: str) -> None:
    client = make_app(MajorityModel, database_url=database_url).test_client()
    client.post("/webhook", json=annotated(1, "Cat"))
    assert client.get(path).status_code in (200, 400, 404)


json_texts = st.text(st.characters(), max_size=8) | st.sampled_from(["\\u0000", "\\", "\\ud800", "\0", "\ud800", "😀"])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | json_texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(json_texts, inner, max_size=4),
    max_leaves=12,
)


def storable(value: Any) -> Any:
    if isinstance(value, str):
        return re.sub("[\0\ud800-\udfff]", "\ufffd", value)
    if isinstance(value, list):
        return [storable(item) for item in value]
    if isinstance(value, dict):
        return {storable(key): storable(item) for key, item in value.items()}
    return value


@given(json_values, st.booleans())
def test_json_is_read_as_written(value: Any, escaped: bool) -> None:
    value = storable(value) if not escaped else value
    assert loads(json.dumps(value, ensure_ascii=escaped)) == storable(value)
