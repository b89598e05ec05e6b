"""Fresh predictions in a real Label Studio; benchmarks/fresh.py has the numbers."""

from pathlib import Path

from benchmarks.fresh import Scene
from ml_backend.jobs.refresh import MAX_REQUESTS_PER_SECOND
from tests.live.label_studio import LabelStudio
from tests.live.timelines import regions
from tests.servers import Backend, wait_until


def test_the_next_tasks_carry_each_new_version_once(
    label_studio: LabelStudio, backend: Backend, tmp_path: Path
) -> None:
    scene = Scene(label_studio, backend, tmp_path, tasks=30, videos=3, next=20)
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
    killed = scene.submit_and_time(lambda: scene.kill_the_worker(after=3))
    assert killed["twice"] == 0
    (changed,) = label_studio.predictions(task)
    assert (changed["id"], changed["model_version"]) == (opened["id"], killed["version"])
    assert opened["model_version"] == quiet["version"]
    label_studio.submit(task, regions(scene.truth[task]), prediction=opened["id"])
