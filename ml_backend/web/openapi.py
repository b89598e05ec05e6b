"""The HTTP interface as an OpenAPI 3.1 description, made from the pydantic models of its requests and answers."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from flask import Flask
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from werkzeug.routing import Rule

from ml_backend.web import answers, schemas

PATH = "/openapi.json"
JSON, HTML, TEXT = "application/json", "text/html", "text/plain"
REF = "#/components/schemas/{model}"
VARIABLE = re.compile(r"<(?:(\w+):)?(\w+)>")  # of a Flask rule: its converter and its name
PARAMETERS = {"": {"type": "string"}, "path": {"type": "string"}, "int": {"type": "integer", "minimum": 0}}
# The errors that any route can answer with.
ERRORS = {
    400: "The request or the labeling config can't be used.",
    401: "User and password are needed.",
    403: "The request isn't allowed.",
    404: "There is no such page, project or task, or its media can't be fetched.",
    408: "The request didn't arrive in time.",
    411: "The body has no Content-Length.",
    413: "The body is too large.",
    415: "The body must be JSON.",
    429: "Too many wrong passwords.",
    431: "The head is too large.",
    502: "Label Studio can't be reached, or refuses.",
    503: "The model isn't trained or loaded, features are being extracted, or the database is busy: ask again after "
    "Retry-After.",
}


@dataclass(frozen=True)
class Operation:
    """A route of the protocol.

    Attributes:
        summary: what the route does.
        answers: status of a success -> its model, or the media type of a text.
        request: the model of the JSON body.
        errors: status -> description of further errors, besides `ERRORS`.
        query: name of a query parameter -> schema.
    """

    summary: str
    answers: dict[int, type[BaseModel] | str]
    request: type[BaseModel] | None = None
    errors: dict[int, str] = field(default_factory=dict)
    query: dict[str, dict[str, Any]] = field(default_factory=dict)


OPERATIONS: dict[tuple[str, str], Operation] = {
    ("GET", "/"): Operation("The dashboard for browsers, `/health` for programs", {200: answers.HealthAnswer}),
    ("GET", "/health"): Operation("Whether the backend is up, and what it runs on", {200: answers.HealthAnswer}),
    ("POST", "/setup"): Operation(
        "Connect a project: check its labeling config, report the model version",
        {200: answers.SetupAnswer},
        schemas.SetupRequest,
    ),
    ("POST", "/predict"): Operation(
        "Predict tasks, in their order",
        {200: answers.PredictAnswer},
        schemas.PredictRequest,
        {409: "The worker has just stored the prediction in Label Studio."},
    ),
    ("POST", "/webhook"): Operation(
        "Store an event of Label Studio, and queue the work that follows",
        {200: answers.WebhookAnswer, 201: answers.WebhookAnswer},
        schemas.WebhookRequest,
    ),
    ("GET", "/versions"): Operation(
        "The published versions of a project, or of all",
        {200: answers.VersionsAnswer},
        query={"project": {"type": "string"}},
    ),
    ("POST", "/versions"): Operation(
        "The published versions of a project, or of all", {200: answers.VersionsAnswer}, schemas.VersionsRequest
    ),
    ("POST", "/job_status"): Operation(
        "The progress of a job",
        {200: answers.JobStatusAnswer},
        schemas.JobStatusRequest,
        {410: "No job has that id."},
    ),
    ("GET", "/metrics"): Operation("Prometheus' text format", {200: TEXT}),
    ("GET", PATH): Operation("This description", {200: JSON}),
}


def describe(app: Flask) -> dict[str, Any]:
    """Describes an application's routes in OpenAPI.

    `OPERATIONS` describes the protocol's routes; the dashboard's pages and buttons are described by their Flask rules.
    """
    models = {model for operation in OPERATIONS.values() for model in _models(operation)} | {answers.ErrorAnswer}
    ordered = sorted(models, key=lambda model: model.__name__)
    mode = {True: "validation", False: "serialization"}
    inputs = [(model, mode[model.__module__ == schemas.__name__]) for model in ordered]
    _, definitions = models_json_schema(inputs, by_alias=True, ref_template=REF)
    paths: dict[str, dict[str, Any]] = {}
    for rule in app.url_map.iter_rules():
        for method in sorted(rule.methods - {"HEAD", "OPTIONS"}):
            operation = OPERATIONS.get((method, rule.rule))
            described = _operation(operation) if operation else _page(rule, method)
            paths.setdefault(VARIABLE.sub(r"{\2}", rule.rule), {})[method.lower()] = described
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Label Studio ML backend for video timelines",
            "version": "1",
            "description": "Label Studio's ML-backend protocol, and the dashboard.",
        },
        "paths": paths,
        "components": {
            "schemas": definitions["$defs"],
            "securitySchemes": {"password": {"type": "http", "scheme": "basic"}},
        },
        "security": [{}, {"password": []}],
    }


def _models(operation: Operation) -> list[type[BaseModel]]:
    said = [operation.request, *operation.answers.values()]
    return [model for model in said if isinstance(model, type)]


def _operation(operation: Operation) -> dict[str, Any]:
    described: dict[str, Any] = {
        "summary": operation.summary,
        "responses": {
            str(status): {"description": "Success", "content": _content(answer)}
            for status, answer in operation.answers.items()
        }
        | _errors(ERRORS | operation.errors, JSON),
    }
    if operation.request:
        described["requestBody"] = {"required": True, "content": _content(operation.request)}
    if operation.query:
        described["parameters"] = [
            {"name": name, "in": "query", "required": False, "schema": schema}
            for name, schema in operation.query.items()
        ]
    return described


def _content(answer: type[BaseModel] | str) -> dict[str, Any]:
    if isinstance(answer, str):
        return {answer: {"schema": {"type": "object"} if answer == JSON else {"type": "string"}}}
    return {JSON: {"schema": {"$ref": REF.format(model=answer.__name__)}}}


def _page(rule: Rule, method: str) -> dict[str, Any]:
    """Describes a page of the dashboard, or a button, which redirects to a page."""
    success = {"303": {"description": "The page that shows what was done"}}
    if method == "GET":
        success = {"200": {"description": "A page, its state or its files", "content": {"*/*": {}}}}
        success |= {"206": {"description": "A part", "content": {"*/*": {}}}, "304": {"description": "Unchanged"}}
        success |= {"308": {"description": "The same with its slashes in order"}}
    return {
        "summary": rule.endpoint,
        "tags": ["dashboard"],
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": PARAMETERS[converter]}
            for converter, name in VARIABLE.findall(rule.rule)
        ],
        "responses": success | _errors(ERRORS | {410: "No job has that id."}, HTML, JSON),
    }


def _errors(errors: dict[int, str], *types: str) -> dict[str, Any]:
    schema = {JSON: {"schema": {"$ref": REF.format(model="ErrorAnswer")}}, HTML: {"schema": {"type": "string"}}}
    content = {kind: schema[kind] for kind in types}
    return {str(status): {"description": text, "content": content} for status, text in errors.items()}
