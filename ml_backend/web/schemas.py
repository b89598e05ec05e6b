"""Label Studio's requests as pydantic models. Keys that the backend doesn't use are kept."""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import datetime
from typing import Annotated, Any, NamedTuple, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError

from errors import InvalidRequest


def _project_id(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, str | int):
        return value
    number, _, created = str(value).partition(".")
    return f"{number}.{created}" if re.fullmatch("[0-9]{1,12}", created) else number


# Label Studio writes a project as `7` (webhooks) or as `"7.1795355528"`, its id and creation time (setup, predict).
# The id becomes part of a file name, so it is restricted to characters that can't leave a folder.
ProjectId = Annotated[
    str, BeforeValidator(_project_id), StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}(\.[0-9]{1,12})?$")
]


class Identity(NamedTuple):
    """The project that a request names.

    Attributes:
        number: the project's id in its Label Studio.
        created: when Label Studio created it, in seconds of Unix time; None where the request doesn't say so.
    """

    number: str
    created: int | None


def identity(project: str) -> Identity:
    """The number and creation time in a `ProjectId`."""
    number, _, created = project.partition(".")
    return Identity(number, int(created) if created.isdecimal() else None)


# Label Studio's ids of tasks and annotations; a database column holds 64 bits.
Id = Annotated[int, Field(ge=-(2**63), lt=2**63)]


def _list(value: Any) -> Any:
    """Makes a list of null (empty) and of any other value (its only item): Label Studio keeps whatever was imported."""
    return [] if value is None else value if isinstance(value, list) else [value]


# An annotation's regions as they are. Malformed ones are noted when the others are learnt.
Regions = Annotated[list[Any], BeforeValidator(_list)]


MAX_FAULTS = 10  # that are named in one answer
MAX_TITLE_CHARS = 200  # Label Studio allows 50
# Of tasks or annotations in one request; Label Studio sends a page of tasks.
MAX_ITEMS = 20_000
# A config of a thousand labels has some 50 kB.
MAX_CONFIG_CHARS = 1_000_000
LabelConfig = Annotated[str, StringConstraints(max_length=MAX_CONFIG_CHARS)]


def _address(value: Any) -> Any:
    """Checks Label Studio's own address: empty where it doesn't know it, else http or https."""
    if isinstance(value, str) and value and not re.match(r"https?://[^/\s@]+(/\S*)?$", value):
        raise ValueError("must be the http or https address of Label Studio")
    return value


Address = Annotated[str, BeforeValidator(_address)]


def _title(value: Any) -> str | None:
    """Shortens a title to what pages show; None of what isn't text, so that no event is refused for it."""
    return value[:MAX_TITLE_CHARS] if isinstance(value, str) else None


class _Sent(BaseModel):
    model_config = ConfigDict(extra="allow", protected_namespaces=())


class Annotation(_Sent):
    """One annotator's result on a task. `ANNOTATIONS_DELETED` sends only the id."""

    id: Id
    result: Regions = []
    was_cancelled: bool | None = False
    ground_truth: bool | None = False
    completed_by: Any = None
    updated_at: str | None = None


class Task(_Sent):
    """A task. `TASKS_DELETED` sends only the id; `/predict` takes tasks without an id."""

    id: Id | None = None
    data: dict[str, Any] = {}
    annotations: list[Any] | None = None


Tasks = Annotated[list[Task], Field(max_length=MAX_ITEMS, fail_fast=True)]


class Project(_Sent):
    """The project of a webhook."""

    id: ProjectId
    label_config: LabelConfig | None = None
    created_at: Any = None
    title: Annotated[str | None, BeforeValidator(_title)] = None

    @property
    def identity(self) -> Identity:
        """The project's number and creation time, which a webhook writes in ISO 8601."""
        number, created = identity(self.id)
        with suppress(AttributeError, ValueError, OverflowError):
            created = int(datetime.fromisoformat(self.created_at.replace("Z", "+00:00")).timestamp())
        return Identity(number, created)


class SetupRequest(_Sent):
    """`POST /setup`."""

    project: ProjectId
    # The protocol's name is `schema`, which pydantic's BaseModel already uses.
    label_config: LabelConfig = Field(alias="schema")
    hostname: Address | None = None
    access_token: str | None = None
    extra_params: Any = None


class PredictRequest(_Sent):
    """`POST /predict`. Without `label_config` the project's stored one is used."""

    tasks: Tasks
    project: ProjectId | None = None
    label_config: LabelConfig | None = None
    params: dict[str, Any] | None = None


class WebhookRequest(_Sent):
    """`POST /webhook`: an action with the objects it concerns."""

    action: str
    project: Project | None = None
    annotation: Annotation | None = None
    annotations: Annotated[list[Annotation], Field(max_length=MAX_ITEMS, fail_fast=True)] = []
    task: Task | None = None
    tasks: Tasks = []


class VersionsRequest(_Sent):
    """`POST /versions`. Without `project` it answers with the versions of all projects."""

    project: ProjectId | None = None


class JobStatusRequest(_Sent):
    """`POST /job_status`."""

    job: str


RequestModel = TypeVar("RequestModel", bound=_Sent)


def parse(model: type[RequestModel], body: Any) -> RequestModel:
    """Validates a request's JSON body.

    Raises:
        InvalidRequest: the message names each wrong key and what is wrong with it.
    """
    if not isinstance(body, dict):
        raise InvalidRequest(f"The body must be a JSON object, not {type(body).__name__}.")
    try:
        return model.model_validate(body)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        faults = [f"{'.'.join(map(str, fault['loc'])) or 'body'}: {fault['msg']}" for fault in found[:MAX_FAULTS]]
        raise InvalidRequest("The request can't be read: " + "; ".join(faults)) from error
