"""Webhooks prove where they come from, without anybody's doing: the backend puts a secret into Label Studio's."""

from pathlib import Path

import httpx

from ml_backend.label_studio.webhook_secret import HEADER
from tests.live.conftest import OTHER_PASSWORD
from tests.live.label_studio import LabelStudio
from tests.live.test_label_studio import CONFIG, FIRST, draw, model_version, wait_for_new_version
from tests.live.timelines import regions
from tests.servers import Backend, wait_until

SECONDS = 120


def has_secret(label_studio: LabelStudio, project: int) -> bool:
    return bool(label_studio.webhook(project)["headers"].get(HEADER))


def test_a_removed_secret_is_put_back_and_what_came_without_it_is_learnt(
    label_studio: LabelStudio, backend: Backend, tmp_path: Path
) -> None:
    project = label_studio.create_project("Webhook secret", CONFIG)
    task = label_studio.upload(project, draw(tmp_path, "clip", FIRST))
    model = label_studio.connect(project, backend.url)
    wait_until(lambda: has_secret(label_studio, project), SECONDS, "the secret")
    webhook = label_studio.webhook(project)
    assert webhook["send_for_all_actions"]

    forged = {"action": "PROJECT_DELETED", "project": {"id": project}}
    for headers in ({}, {HEADER: f"{project}.forged"}):
        answer = httpx.post(f"{backend.url}/webhook", json=forged, headers=headers)
        assert answer.status_code == 403
    untrained = model_version(label_studio, model)

    label_studio.patch(f"/api/webhooks/{webhook['id']}/", {"headers": {}})
    annotation = label_studio.submit(task, regions(FIRST))
    first = wait_for_new_version(label_studio, model, untrained)
    assert label_studio.webhook(project)["headers"] == webhook["headers"]

    label_studio.update(annotation, regions({"Ball": FIRST["Ball"]}))  # by the webhook now
    wait_for_new_version(label_studio, model, first)


def test_with_a_password_nothing_is_done_by_hand(
    label_studio: LabelStudio, other_backend: Backend, tmp_path: Path
) -> None:
    project = label_studio.create_project("Password", CONFIG)
    task = label_studio.upload(project, draw(tmp_path, "clip", FIRST))
    model = label_studio.connect(project, other_backend.url, OTHER_PASSWORD)
    wait_until(lambda: has_secret(label_studio, project), SECONDS, "the secret")
    untrained = model_version(label_studio, model)
    assert httpx.post(f"{other_backend.url}/webhook", json={"action": "START_TRAINING"}).status_code == 401
    label_studio.submit(task, regions(FIRST))
    wait_for_new_version(label_studio, model, untrained)
