"""Fresh predictions in a real Label Studio; benchmarks/fresh.py has the numbers."""

from pathlib import Path

from benchmarks.fresh import Scene, state
from ml_backend.jobs.refresh import CHOSEN, MAX_REQUESTS_PER_SECOND, UNCERTAINTY
from tests.live.label_studio import LabelStudio
from tests.live.test_label_studio import CONFIG
from tests.live.timelines import regions
from tests.servers import Backend, wait_until


def test_the_next_tasks_carry_each_new_version_once(
    label_studio: LabelStudio, backend: Backend, tmp_path: Path
) -> None:
    scene = Scene(label_studio, backend, tmp_path, tasks=14, videos=3, next=9)
    last = max(scene.truth)
    page = f"/projects/{scene.project}/tasks/{last}"
    wait_until(lambda: backend.http.get(page).is_success, 60, "the page of a task that isn't annotated")
    scene.submit_next()
    scene.wait_until_idle()
    quiet = scene.submit_and_time()
    assert quiet["twice"] == 0
    assert quiet["the project's version"]
    assert quiet["requests a prediction"] <= 3
    assert quiet["most requests in a second"] <= MAX_REQUESTS_PER_SECOND + 3  # /setup's and the webhook's among them

    # An annotator who has a task open while its prediction changes can submit.
    task = scene.observed.next_tasks(5)[-1]
    (opened,) = label_studio.predictions(task)
    later = scene.submit_and_time()
    assert later["twice"] == 0
    (changed,) = label_studio.predictions(task)
    assert (changed["id"], changed["model_version"]) == (opened["id"], later["version"])
    assert opened["model_version"] == quiet["version"]
    label_studio.submit(task, regions(scene.truth[task]), prediction=opened["id"])


def test_label_all_tasks_brings_those_first_that_teach_most(
    label_studio: LabelStudio, backend: Backend, tmp_path: Path
) -> None:
    config = CONFIG.replace("model_trainable", 'model_choose_next="true" model_trainable')
    scene = Scene(label_studio, backend, tmp_path, tasks=24, videos=4, config=config)
    scene.submit_next()
    scene.wait_until_idle()
    assert label_studio.get(f"/api/projects/{scene.project}/")["sampling"] == UNCERTAINTY
    query = f"SELECT id FROM tasks WHERE project_id = '{scene.project}' AND rank < {CHOSEN}"
    order = {task for (task,) in state(backend, query)}
    assert len(order) == CHOSEN
    # Before all videos were read, others may have been chosen, too.
    assert {task for task, _ in scene.observed.predictions()} >= order
    brought = [label_studio.post("/api/dm/actions", {}, id="next_task", project=scene.project)]
    label_studio.submit(brought[0]["id"], regions(scene.truth[brought[0]["id"]]))
    brought.append(label_studio.post("/api/dm/actions", {}, id="next_task", project=scene.project))
    assert {task["queue"] for task in brought} == {"Active learning or random queue"}
    assert {task["id"] for task in brought} <= order
    assert all(task["predictions"] for task in brought)
