"""The routes, served for a tiny model written as a user of label-studio-ml 2.x would write it."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient
from pydantic import SecretStr

from errors import InvalidConfig, MediaError, NotReady
from ml_backend import LabelStudioMLBase, ModelResponse

CONFIG = """<View>
  <Image name="image" value="$image"/>
  <Choices name="choice" toName="image">
    <Choice value="Cat" predicted_values="tabby,tiger_cat"/><Choice value="dog"/><Choice value="Bird"/>
  </Choices>
</View>"""


class MajorityModel(LabelStudioMLBase):
    """Predicts the choice that was made most often."""

    def setup(self) -> None:
        self.from_name, self.to_name, self.value = self.get_first_tag_occurence("Choices", "Image")

    def predict(
        self, tasks: list[dict[str, Any]], context: dict[str, Any] | None = None, **kwargs: Any
    ) -> ModelResponse:
        choice = self.get("majority")
        if choice is None:
            raise NotReady("No annotation yet.")
        predictions = []
        for task in tasks:
            if task["data"].get("image") == "broken":
                raise MediaError("The image is broken.")
            value = {"choices": [choice]}
            region = {"from_name": self.from_name, "to_name": self.to_name, "type": "choices", "value": value}
            predictions.append({"result": [region], "score": 0.7})
        return ModelResponse(predictions=predictions, model_version=self.model_version)

    def fit(self, event: str, data: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        choices = [
            region["value"]["choices"][0]
            for task in kwargs["tasks"]
            for annotation in task["annotations"]
            for region in annotation["result"]
        ]
        self.set("majority", max(set(choices), key=choices.count))
        self.bump_model_version()
        return {"event": event, "choices": sorted(choices), "latest": data["annotation"]["id"]}


def annotated(annotation_id: int, choice: str, project: int = 7) -> dict[str, Any]:
    region = {"from_name": "choice", "to_name": "image", "type": "choices", "value": {"choices": [choice]}}
    return {
        "action": "ANNOTATION_CREATED",
        "project": {"id": project, "label_config": CONFIG},
        "task": {"id": annotation_id, "data": {"image": "a.png"}},
        "annotation": {"id": annotation_id, "result": [region]},
    }


@pytest.fixture
def app(make_app: Callable[..., Flask]) -> Flask:
    return make_app(MajorityModel)


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


def setup(client: FlaskClient, config: str = CONFIG, **more: Any) -> Any:
    return client.post("/setup", json={"project": "7.1795355528", "schema": config, **more})


def predict(client: FlaskClient, *images: str) -> Any:
    tasks = [{"id": number, "data": {"image": image}} for number, image in enumerate(images)]
    return client.post("/predict", json={"tasks": tasks, "project": "7.1795355528", "label_config": CONFIG})


@pytest.mark.parametrize("params", [None, {}, {"context": None}, {"context": {}}, {"context": {"result": None}}])
def test_a_context_of_any_kind_is_no_obstacle(make_app: Callable[..., Flask], params: Any) -> None:
    """Label Studio sends none at times: HumanSignal/label-studio#4493, HumanSignal/label-studio-ml-backend#764."""
    client = make_app(MajorityModel, train_in_request=True).test_client()
    client.post("/webhook", json=annotated(1, "dog"))
    body = {"tasks": [{"id": 1, "data": {"image": "a"}}], "project": "7", "label_config": CONFIG, "params": params}
    assert client.post("/predict", json=body).json["results"][0]["score"] == 0.7


def test_a_backend_written_for_2x_learns_and_predicts(client: FlaskClient) -> None:
    assert setup(client).json == {"model_version": "0.0.1"}
    assert predict(client, "a.png").status_code == 503
    for number, choice in enumerate(["dog", "Cat", "Cat"], start=1):
        answer = client.post("/webhook", json=annotated(number, choice))
        assert answer.status_code == 201
        job = client.post("/job_status", json={"job": answer.json["job"]}).json
        assert job["job_status"] == "finished"
        assert job["result"]["event"] == "ANNOTATION_CREATED"
        assert job["result"]["latest"] == number
    assert job["result"]["choices"] == ["Cat", "Cat", "dog"]
    answer = predict(client, "b.png", "c.png")
    assert [item["result"][0]["value"] for item in answer.json["results"]] == [{"choices": ["Cat"]}] * 2
    assert {item["model_version"] for item in answer.json["results"]} == {"0.0.4"}
    assert setup(client).json == {"model_version": "0.0.4"}
    assert client.post("/versions", json={"project": "7"}).json["versions"][0] == "0.0.4"
    assert client.get("/versions").json == client.post("/versions", json={"project": "7"}).json


FIRST, SECOND = 1795355528, 1801234567
CREATED_AT = {None: None, FIRST: "2026-11-22T13:52:08.903112Z", SECOND: "2027-01-29T14:56:07.000001Z"}


@pytest.fixture
def as_label_studio(client: FlaskClient) -> Callable[[int], Callable[..., Any]]:
    """`as_label_studio(created)(route, body)`: posts as the Label Studio whose project 7 was created then."""

    def of(created: int) -> Callable[..., Any]:
        def post(route: str, **body: Any) -> Any:
            if route == "/webhook":
                body["project"] = {"id": 7, "label_config": CONFIG, "created_at": CREATED_AT[created]}
            else:
                body["project"] = f"7.{created}"
            return client.post(route, json=body)

        return post

    return of


def submit(post: Callable[..., Any], number: int, choice: str) -> None:
    body = annotated(number, choice)
    assert (
        post("/webhook", action="ANNOTATION_CREATED", task=body["task"], annotation=body["annotation"]).status_code
        == 201
    )


def test_two_label_studios_with_projects_of_one_number(
    app: Flask, client: FlaskClient, as_label_studio: Callable[[int], Callable[..., Any]]
) -> None:
    """Neither inherits nor overwrites the other's annotations, model or address."""
    first, second = as_label_studio(FIRST), as_label_studio(SECOND)
    store = app.extensions["jobs"].store
    tasks = [{"id": 9, "data": {"image": "z.png"}}]
    assert first("/setup", schema=CONFIG, hostname="http://first", access_token="a").json == {"model_version": "0.0.1"}
    submit(first, 1, "dog")
    # The second one finds neither a model nor annotations, and says its own.
    assert second("/setup", schema=CONFIG, hostname="http://second").json == {"model_version": "0.0.1"}
    assert second("/predict", tasks=tasks, label_config=CONFIG).status_code == 503
    submit(second, 1, "Cat")
    for post, choice in ((first, "dog"), (second, "Cat")):
        (prediction,) = post("/predict", tasks=tasks, label_config=CONFIG).json["results"]
        assert prediction["result"][0]["value"] == {"choices": [choice]}
    known = {project.id: (project.number, project.created, project.hostname) for project in store.projects()}
    assert known == {"7": ("7", FIRST, "http://first"), f"7-{SECOND}": ("7", SECOND, "http://second")}
    assert store.project("7").access_token == "a"
    assert store.project(f"7-{SECOND}").access_token is None
    # Label Studio says of a deleted project nothing but its number.
    client.post("/webhook", json={"action": "PROJECT_DELETED", "project": {"id": 7}})
    assert len(store.projects()) == 2
    second("/webhook", action="PROJECT_DELETED")
    assert [project.id for project in store.projects()] == ["7"]
    client.post("/webhook", json={"action": "PROJECT_DELETED", "project": {"id": 7}})
    assert store.projects() == []


def test_a_project_of_an_earlier_release_is_the_first_one_that_is_heard_of(
    app: Flask, client: FlaskClient, as_label_studio: Callable[[int], Callable[..., Any]]
) -> None:
    client.post("/webhook", json=annotated(1, "dog"))  # says no creation time
    store = app.extensions["jobs"].store
    assert store.project("7").created is None
    submit(as_label_studio(FIRST), 2, "dog")
    assert store.project("7").created == FIRST
    as_label_studio(SECOND)("/setup", schema=CONFIG)
    assert [project.id for project in store.projects()] == ["7", f"7-{SECOND}"]


def test_train_in_request_answers_with_the_metrics(make_app: Callable[..., Flask]) -> None:
    client = make_app(MajorityModel, train_in_request=True).test_client()
    answer = client.post("/webhook", json=annotated(1, "Bird"))
    assert answer.status_code == 201
    assert answer.json["status"] == "ok"
    assert answer.json["result"]["choices"] == ["Bird"]


def test_one_bad_task_leaves_the_others_their_predictions(client: FlaskClient) -> None:
    client.post("/webhook", json=annotated(1, "dog"))
    answer = predict(client, "a.png", "broken", "b.png")
    assert answer.status_code == 200
    assert [set(item) for item in answer.json["results"]] == [
        {"result", "score", "model_version"},
        {"error"},
        {"result", "score", "model_version"},
    ]
    answer = predict(client, "broken", "broken")
    assert (answer.status_code, answer.json) == (404, {"error": "The image is broken."})
    assert predict(client).json["results"] == []


def test_health(client: FlaskClient) -> None:
    for path in ("/", "/health"):
        answer = client.get(path).json
        assert answer["status"] == "UP"
        assert answer["model_class"] == "MajorityModel"
        assert answer["queue_length"] == 0
        assert answer["worker_alive"] is False


@pytest.mark.parametrize(
    ("path", "body", "named"),
    [
        ("/setup", {"schema": CONFIG}, "project"),
        ("/setup", {"project": "7"}, "schema"),
        ("/setup", {"project": "../7", "schema": CONFIG}, "project"),
        ("/setup", {"project": "7", "schema": 12}, "schema"),
        ("/setup", {"project": "7", "schema": "<View>"}, "labeling config"),
        ("/setup", {"project": "7", "schema": CONFIG, "extra_params": "{"}, "extra_params"),
        ("/predict", {"project": "7"}, "tasks"),
        ("/predict", {"tasks": [{"id": "one", "data": {}}], "project": "7", "label_config": CONFIG}, "tasks.0.id"),
        ("/predict", {"tasks": [{"data": []}], "project": "7", "label_config": CONFIG}, "tasks.0.data"),
        ("/predict", {"tasks": [{"data": {}}], "project": "unknown"}, "label_config"),
        ("/webhook", {}, "action"),
        ("/webhook", {"action": "ANNOTATION_CREATED"}, "project"),
        ("/webhook", {"action": "ANNOTATION_CREATED", "project": {"id": 7, "label_config": CONFIG}}, "annotation"),
        ("/webhook", {"action": "TASKS_DELETED", "project": {"id": 7}, "tasks": [{"id": None}]}, "task.id"),
        ("/webhook", {"action": "START_TRAINING", "project": {"label_config": CONFIG}}, "project.id"),
        ("/job_status", {"job": 5}, "job"),
        ("/job_status", "text", "object"),
    ],
)
def test_a_wrong_request_is_told_what_is_wrong(client: FlaskClient, path: str, body: Any, named: str) -> None:
    answer = client.post(path, json=body)
    assert answer.status_code == 400
    assert named in answer.json["error"]


@pytest.mark.parametrize("task", [[1], {"id": 1}, "1", None])
def test_an_annotation_of_no_task_is_left_to_a_comparison(client: FlaskClient, task: Any) -> None:
    project = {"id": 7, "label_config": CONFIG}
    body = {"action": "ANNOTATIONS_CREATED", "project": project, "annotations": [{"id": 5, "task": task}]}
    assert client.post("/webhook", json=body).status_code == 200


def test_other_http_errors_are_json(client: FlaskClient, app: Flask) -> None:
    assert client.get("/nowhere").json.keys() == {"error"}
    assert client.get("/predict").status_code == 405
    assert client.post("/job_status", json={"job": "unknown"}).status_code == 410
    app.config["MAX_CONTENT_LENGTH"] = 1000
    answer = client.post("/predict", data=b"x" * 1001, content_type="application/json")
    assert answer.status_code == 413
    assert answer.json.keys() == {"error"}


def test_a_bug_is_answered_with_a_reference_and_no_traceback(
    make_app: Callable[..., Flask], caplog: pytest.LogCaptureFixture
) -> None:
    class BrokenModel(LabelStudioMLBase):
        def predict(self, tasks: list[dict[str, Any]], **kwargs: Any) -> list[dict[str, Any]]:
            raise KeyError("secret detail")

    answer = predict(make_app(BrokenModel).test_client(), "a.png")
    assert answer.status_code == 500
    assert "secret detail" not in answer.text
    reference = answer.json["error"].split("Reference ")[1].split()[0]
    assert reference in caplog.text
    assert "secret detail" in caplog.text


def test_numbers_that_json_has_not_are_null(make_app: Callable[..., Flask]) -> None:
    class Diverging(MajorityModel):
        def fit(self, event: str, data: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
            return super().fit(event, data, **kwargs) | {"loss": float("nan"), "of": [float("inf"), {"f1": 0.5}]}

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    app = make_app(Diverging)
    client = app.test_client()
    job = client.post("/webhook", json=annotated(1, "Cat")).json["job"]
    result = json.loads(client.post("/job_status", json={"job": job}).text, parse_constant=refuse)["result"]
    assert (result["loss"], result["of"]) == (None, [None, {"f1": 0.5}])
    with app.extensions["jobs"].store.engine.connect() as connection:
        rows = connection.execute(sa.text("SELECT result FROM jobs UNION ALL SELECT metrics FROM trainings")).all()
    assert [json.loads(text, parse_constant=refuse)["loss"] for (text,) in rows] == [None, None]


def test_one_unusable_project_leaves_the_others_their_versions(app: Flask, client: FlaskClient) -> None:
    client.post("/webhook", json=annotated(1, "Cat"))
    body = annotated(2, "Cat", project=8)
    for config in ("", "<View"):
        body["project"]["label_config"] = config
        client.post("/webhook", json=body)
        assert app.extensions["jobs"].store.project("8").label_config == config
        assert client.get("/versions").json["versions"][0] == "0.0.2"
        assert client.get("/versions?project=8").status_code == 400


def test_basic_authentication(make_app: Callable[..., Flask]) -> None:
    client = make_app(MajorityModel, basic_auth_user="anna", basic_auth_pass=SecretStr("p:ss")).test_client()

    def ask(credentials: str | None, path: str = "/versions") -> int:
        headers = {"Authorization": "Basic " + b64encode(credentials.encode()).decode()} if credentials else {}
        return client.get(path, headers=headers).status_code

    assert ask("anna:p:ss") == 200
    assert ask(None) == 401
    assert ask("anna:p") == 401
    assert ask("anna:") == 401
    assert ask(":") == 401
    assert ask("änna:p:ss") == 401
    assert ask(None, "/health") == 200
    assert client.get("/versions").headers["WWW-Authenticate"].startswith("Basic")
    assert client.get("/versions", headers={"Authorization": "Bearer p:ss"}).status_code == 401


# -- the base class


def test_label_map_by_predicted_values_exact_name_then_case() -> None:
    model = MajorityModel("7.123", CONFIG)
    assert model.project_id == "7"
    names = ["tabby", "tiger_cat", "Dog", "bird", "Bird", "Cat"]
    assert model.build_label_map("choice", names) == {"tabby": "Cat", "tiger_cat": "Cat", "Dog": "dog", "Bird": "Bird"}


def test_first_tag_occurence() -> None:
    model = MajorityModel("7", CONFIG)
    assert model.get_first_tag_occurence("Choices", ("Video", "Image")) == ("choice", "image", "image")
    with pytest.raises(InvalidConfig, match="Video"):
        model.get_first_tag_occurence("Choices", "Video")
    with pytest.raises(InvalidConfig):
        model.get_first_tag_occurence("Choices", "Image", name_filter=lambda name: name == "other")


def test_values_versions_and_parameters_without_a_store() -> None:
    model = MajorityModel("7", CONFIG)
    assert not model.has("key")
    model.set("key", "value")
    assert (model.has("key"), model.get("key")) == (True, "value")
    assert model.model_version == "0.0.1"
    assert model.bump_model_version() == model.model_version == "0.0.2"
    model.set_extra_params('{"a": 1}')
    assert model.extra_params == {"a": 1}
    assert model.parsed_label_config["choice"]["labels"] == ["Cat", "dog", "Bird"]
    assert model.label_config == CONFIG


def test_values_are_shared_between_processes_of_one_store(app: Flask, make_app: Callable[..., Flask]) -> None:
    app.test_client().post("/setup", json={"project": "7", "schema": CONFIG, "extra_params": {"a": [1]}})
    app.test_client().post("/webhook", json=annotated(1, "Bird"))
    other = make_app(MajorityModel)
    assert predict(other.test_client(), "a.png").json["results"][0]["result"][0]["value"] == {"choices": ["Bird"]}
    assert other.extensions["jobs"].registry.get("7").extra_params == {"a": [1]}


def test_task_data_is_preloaded(settings: Any, tmp_path: Any) -> None:
    from ml_backend.context import Services

    image = tmp_path / "videos" / "a.png"
    image.write_bytes(b"png")
    model = MajorityModel.bind(Services(settings))("7", CONFIG)
    task = {"id": 1, "data": {"image": "/data/local-files/?d=a.png", "more": [{"text": "not a file"}]}}
    assert model.preload_task_data(task) == {"id": 1, "data": {"image": str(image), "more": [{"text": "not a file"}]}}
