"""The dashboard in a real browser, on a real server with a real database. Its model is light."""

from __future__ import annotations

import csv
import html
import io
import json
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from pydantic import SecretStr
from werkzeug.serving import make_server

from errors import InvalidRequest, NotReady
from learning.mistakes import Compared, mistakes
from ml_backend import LabelStudioMLBase, init_app
from ml_backend.dashboard import summary
from ml_backend.dashboard.learnt import sentences
from ml_backend.dashboard.overview import time_words
from ml_backend.jobs.review import RESULT
from ml_backend.jobs.runner import Runner
from ml_backend.settings import Settings
from ml_backend.store import Store
from ml_backend.store.models import TRAININGS
from ml_backend.store.tables import JobKind, JobStatus, QueueName, TrainingStatus
from study.review import Doubt, Part
from tests.live.browser import Browser
from tests.servers import annotation, free_port, region, wait_until
from tests.videos import write_video
from video.timeline import Clock, Observation, Recording, Timeline, Track, events_of_regions

CHROMEDRIVER = shutil.which("chromedriver")
AXE = Path(__file__).resolve().parents[1] / "node_modules" / "axe-core" / "axe.min.js"
needs_browser = pytest.mark.skipif(
    CHROMEDRIVER is None, reason="no chromedriver: apt-get install chromium chromium-driver (.ci/run does)"
)
CONFIG = (
    '<View><TimelineLabels name="tl" toName="video"><Label value="Close" background="#d9480f"/>'
    '<Label value="Wing extended" background="#1971c2"/></TimelineLabels>'
    '<Video name="video" value="$video" frameRate="25"/></View>'
)
NUM_FRAMES = 100
SECONDS = 20


class DrawnModel(LabelStudioMLBase):
    """Predicts "Close" on frames 11 to 40 of every video."""

    forgotten: list[str]
    dropped: list[int]
    rolled_back: list[tuple[int, str | None]]

    def predict(self, tasks: list[dict[str, Any]], context: Any = None, **kwargs: Any) -> list[dict[str, Any]]:
        return [{"result": [region(11, 40, "Close")], "score": 0.8} for _ in tasks]

    def is_extracted(self, task: dict[str, Any]) -> bool:
        return task["id"] != 99

    def evict(self, task: dict[str, Any]) -> None:
        self.dropped.append(task["id"])

    def forget(self) -> None:
        self.forgotten.append(self.project_id)

    def roll_back(self, version: int, from_name: str | None = None) -> str:
        if self.rolled_back:
            raise InvalidRequest("Its file is gone.")
        self.rolled_back.append((version, from_name))
        return f"drawn-v{version}"

    def media(self, task: dict[str, Any]) -> dict[str, str]:
        return {"tl": task["data"]["video"]}

    def recordings(self, task: dict[str, Any]) -> list[Recording]:
        seconds = None if task["id"] == 3 else NUM_FRAMES / 25
        return [Recording("tl", task["data"]["video"], 25.0, seconds, ("Close", "Wing extended"))]

    def tracks(self, task: dict[str, Any], recall: bool = True) -> list[Track]:
        colours = {"Close": "#d9480f", "Wing extended": "#1971c2"}
        clock = Clock(25.0, np.arange(NUM_FRAMES), 25.0, NUM_FRAMES / 25)
        probs = np.zeros((NUM_FRAMES, 2), np.float32)
        probs[10:40, 0] = 0.9
        media = task["data"]["video"]
        events = events_of_regions([region(11, 40, "Close")], 25)
        prediction = Timeline(Observation(media, "drawn-v1", events), clock, tuple(colours), probs)
        return [Track("tl", media, clock, colours, prediction)]


class Server:
    """A running backend.

    Attributes:
        url: its address.
        store: its state.
    """

    def __init__(self, settings: Settings, model: type[DrawnModel], video: Path) -> None:
        app = init_app(model, settings=settings)
        self.jobs = app.extensions["jobs"]
        self.store: Store = self.jobs.store
        self.settings = settings
        self.model = model
        self.video = video
        self._server = make_server("127.0.0.1", 0, app, threaded=True)
        self.url = f"http://127.0.0.1:{self._server.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self.store.close()

    def annotate(self, count: int, project: str = "1") -> None:
        """Annotated tasks 1 to count, each followed by a training with a test before it."""
        self.store.update_project(project, CONFIG)
        for number in range(1, count + 1):
            path = self.settings.local_files_document_root / f"{number}.webm"
            if number == 1:
                shutil.copy(self.video, path)
            task = {"id": number, "data": {"video": str(path)}}
            drawn = annotation(number, region(21, 50, "Close"), region(80, 90, "Wing extended"))
            drawn |= {"lead_time": 120.0 if number < 4 else 40.0, "parent_prediction": None if number < 4 else number}
            drawn["result"] = [one | {"origin": "manual" if number < 4 else "prediction"} for one in drawn["result"]]
            self.store.save_annotations(project, CONFIG, [(task, drawn)], "ANNOTATION_CREATED")
            f1 = {"Close": {"f1": min(0.9, 0.1 * number), "support": 30}, "Wing extended": {"f1": 0.5, "support": 11}}
            frames = {"per_label": f1, "macro_f1": f1["Close"]["f1"]}
            test = {"videos": 1, "frames": frames, "segments": {"per_label": f1}, "mistakes": self.mistakes()}
            prequential = test if number > 1 else None
            segments = {"segments": {"per_label": {label: {"support": number} for label in f1}}}
            training = self.store.start_training(project, number, number)
            learnt = {
                "Close": {"motion": 0.4, "motion, mean subtracted": 0.2, "place": 0.3, "change": 1.9e-25},
                "Wing extended": {"appearance": 0.9, "sound": 0.1, "shortest": 0.4},
            }
            metrics = {"tl": {"prequential": prequential, "score": segments, "tasks": number, "learnt": learnt}}
            self.store.end_training(training, TrainingStatus.PUBLISHED, 1.5, f"drawn-v{number}", metrics)

    @staticmethod
    def mistakes() -> dict[str, Any]:
        """What is counted where "Close" is predicted in frames 11 to 40 and nothing else, on the annotation above."""
        truth, predicted = np.zeros((2, NUM_FRAMES, 2), bool)
        truth[20:50, 0] = truth[79:90, 1] = predicted[10:40, 0] = True
        return mistakes([Compared(truth, predicted, 25.0)], ["Close", "Wing extended"])

    def review(self) -> list[Doubt]:
        """A review that doubts the first label of task 1, and misses one in task 2, where a second person drew less."""
        less = annotation(200, region(21, 35, "Close"))
        self.store.save_annotations("1", CONFIG, [({"id": 2, "data": {"video": "2.webm"}}, less)], "ANNOTATION_CREATED")
        found = [
            Doubt(1, 1, "tl", [Part("Close", 0.8, 2.0, [[0.8, 2.0]], 0.04, 3.0)]),
            Doubt(2, 2, "tl", [Part("Close", 2.4, 3.0, [], 0.97, 2.0)]),
        ]
        result = {"at": "2026-11-27T12:00:00", "revision": 1, "videos": 2, "left_out": 0}
        stored = result | {"doubts": [doubt.json() for doubt in found]}
        self.store.set_value("1", RESULT, json.dumps(stored))
        return found

    def trainings(self) -> int:
        """How many trainings wait."""
        return [job.kind for job in self.store.jobs(JobStatus.QUEUED)].count(JobKind.TRAIN)

    def job(self, kind: JobKind, name: str, project: str = "1", task: dict[str, Any] | None = None) -> str:
        """A waiting job."""
        arguments = {"task": task} if task else {}
        job = self.store.add_job(
            kind,
            queue=QueueName.EXTRACT,
            key=f"{kind}:{name}",
            resource=name,
            project_id=project,
            arguments=arguments,
            priority=0,
        )
        return job.id


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Red, then blue, in a format that Chromium plays."""
    colours = [(200, 40, 40) if i < 50 else (40, 40, 200) for i in range(NUM_FRAMES)]
    options = {"deadline": "realtime", "cpu-used": "8"}
    path = tmp_path_factory.mktemp("videos") / "1.webm"
    return write_video(path, colours, codec="libvpx", size=(160, 120), options=options)


@pytest.fixture
def server(settings: Settings, video: Path) -> Iterator[Server]:
    model = type("DrawnModel", (DrawnModel,), {"forgotten": [], "dropped": [], "rolled_back": []})
    running = Server(settings, model, video)
    yield running
    running.stop()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    port = free_port()
    driver = subprocess.Popen([CHROMEDRIVER, f"--port={port}"], stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: _answers(f"http://127.0.0.1:{port}/status"), SECONDS, "chromedriver")
        with Browser(f"http://127.0.0.1:{port}", tmp_path_factory.mktemp("chromium")) as opened:
            yield opened
    finally:
        driver.terminate()
        driver.wait()


def _answers(url: str) -> bool:
    with suppress(httpx.HTTPError):
        return httpx.get(url).is_success
    return False


def text(browser: Browser) -> str:
    return browser.run("return document.body.innerText")


def press(browser: Browser, keys: str) -> None:
    """Types keys as a keyboard does."""
    actions = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
    browser.http.post(
        f"{browser.session}/actions", json={"actions": [{"type": "key", "id": "keyboard", "actions": actions}]}
    ).raise_for_status()


TAB, ENTER = "\ue004", "\ue007"
# Each page that there is. A new one belongs here.
PAGES = ["/", "/queue", "/projects/1", "/projects/1/tasks/1", "/projects/1/summary", "/projects/1/summary?from=both"]
PAGES += ["/projects/1/review", "/projects/7"]
NARROW = 360  # CSS pixels, a small telephone


def focus_on(browser: Browser, words: str) -> None:
    """Tabs until the element with these words has the focus."""
    for _ in range(60):
        if browser.run("return (document.activeElement.textContent || '').trim()") == words:
            return
        press(browser, TAB)
    pytest.fail(f"{words!r} can't be reached with the keyboard")


@needs_browser
def test_without_projects(server: Server, browser: Browser) -> None:
    browser.open(server.url)
    assert "No project is connected yet" in text(browser)
    assert server.url in text(browser)
    assert "no worker" in text(browser) or "0 workers" in text(browser)


def test_programs_still_get_json(server: Server) -> None:
    for headers in ({}, {"Accept": "*/*"}, {"Accept": "application/json"}):
        answer = httpx.get(server.url, headers=headers)
        assert answer.json()["status"] == "UP"
    page = httpx.get(server.url, headers={"Accept": "text/html,*/*;q=0.8"})
    assert page.text.startswith("<!doctype html>")
    assert "script-src 'self'" in page.headers["Content-Security-Policy"]


def test_a_project_is_called_by_its_title(server: Server) -> None:
    server.annotate(1)
    event = {"action": "PROJECT_UPDATED", "project": {"id": 1, "title": "Kiosk & table", "label_config": CONFIG}}
    assert httpx.post(f"{server.url}/webhook", json=event).is_success
    server.job(JobKind.EXTRACT, "a", task={"id": 1, "data": {}})
    for path in ("/", "/queue", "/projects/1", "/projects/1/tasks/1"):
        page = httpx.get(server.url + path, headers={"Accept": "text/html"}).text
        assert "Kiosk &amp; table" in page
        assert "roject 1<" not in page, path


def test_beyond_the_last_task_is_the_last_page(server: Server) -> None:
    """Where tasks were deleted since: it was "No task is known yet"."""
    server.annotate(1)
    page = httpx.get(f"{server.url}/projects/1?offset=5000").text
    assert "No task is known yet" not in page
    assert "1 to " in page


def test_a_projects_page_gathers_the_notes_on_its_tasks(server: Server) -> None:
    """A label that was renamed in the config is said there, and not only on the pages of fifty tasks."""
    server.annotate(1)
    unknown = "is used without 'Ball': the labeling config has no such label."
    server.store.add_notes("1", [(task, f"Annotation {task + 100} {unknown}") for task in range(1, 8)])
    server.store.add_notes("1", [(3, "file 30 fps, config 25: mapped by time")])
    page = httpx.get(f"{server.url}/projects/1").text
    words = " ".join(re.sub("<[^>]*>", " ", html.unescape(page)).split())
    assert f"An annotation {unknown.rstrip('.')} (tasks 1 , 2 , 3 , 4 , 5 and 2 more)." in words
    assert "file 30 fps, config 25: mapped by time (task 3 )." in words


@pytest.mark.parametrize(
    ("seconds", "words"), [(None, None), (40, "40 s"), (99, "99 s"), (3301, "55 min"), (12600, "3.5 h")]
)
def test_the_time_left_is_as_exact_as_an_estimate_is(seconds: int | None, words: str | None) -> None:
    assert time_words(seconds) == words


@needs_browser
def test_a_running_jobs_bar_moves_without_reload(server: Server, browser: Browser) -> None:
    server.annotate(1)
    job = server.job(JobKind.EXTRACT, "a", task={"id": 5, "data": {}})
    assert server.store.claim_job("tester", job) is not None
    browser.open(f"{server.url}/queue")
    browser.run("window.sameDocument = true")
    for share in (0.25, 0.75):
        server.store.set_progress(job, "tester", share)
        shown = f"return document.querySelector('[data-job=\"{job}\"] progress')?.value"
        wait_until(lambda share=share, shown=shown: browser.run(shown) == share, SECONDS, "the bar")
    assert "reading a video" in text(browser)
    assert "75 %" in text(browser)
    server.store.end_job(job, "tester", JobStatus.FINISHED)
    wait_until(lambda: "finished" in text(browser), SECONDS, "the end of the job")
    assert browser.run("return window.sameDocument")


@needs_browser
def test_a_failed_job_says_why_and_is_tried_again(server: Server, browser: Browser) -> None:
    server.annotate(1)
    job = server.job(JobKind.EXTRACT, "a", task={"id": 5, "data": {}})
    server.store.claim_job("tester", job)
    server.store.end_job(job, "tester", JobStatus.FAILED, error="kick.mp4 is empty (0 bytes). Upload it again.")
    browser.open(server.url)
    assert "kick.mp4 is empty (0 bytes). Upload it again." in text(browser)
    browser.open(f"{server.url}/queue")
    browser.run("document.querySelector('[data-ended] summary').click()")
    browser.run("document.querySelector('[data-ended] form button').click()")
    wait_until(lambda: "The job is queued again." in text(browser), SECONDS, "the answer")
    assert server.store.count_jobs(JobStatus.QUEUED) == 1
    browser.run("document.querySelector('[data-job] summary').click()")
    browser.run("document.querySelector('[data-job] form button').click()")
    wait_until(lambda: "The job is being cancelled." in text(browser), SECONDS, "the answer")
    assert server.store.count_jobs(JobStatus.QUEUED) == 0


@needs_browser
def test_a_project_of_ten_annotations(server: Server, browser: Browser) -> None:
    server.annotate(10)
    server.store.save_predictions(
        "1",
        [({"id": 20, "data": {"video": "sure.mp4"}}, 0.9, "v1"), ({"id": 21, "data": {"video": "un.mp4"}}, 0.2, "v1")],
    )
    browser.open(f"{server.url}/projects/1")
    shown = text(browser)
    # Nine tests of 0.2 to 0.9: the mean of the last five is that of 0.6, 0.7, 0.8, 0.9, 0.9.
    assert "Close: 0.78, still rising; 10 annotated events." in shown
    assert "Wing extended: 0.50, level; 10 annotated events." in shown
    assert browser.run("return document.querySelectorAll('.chart polyline').length") == 2
    assert "Close: decided mostly by motion; place counts too." in shown
    assert "Wing extended: decided by almost nothing but looks. Events of less than 0.4 s are ignored." in shown
    # Each test of the nine has 0.8 s at the edges, and an event of 0.44 s that was missed.
    assert "It was wrong for 11 s in all: 65 % at the edges of events, of which nine in ten are right" in shown
    assert "35 % in events that it missed (9 of 18)." in shown
    assert "Wing extended is overlooked: 4.0 s of 4.0 s." in shown
    assert "An F1 of 0.8 needs" in shown
    assert "An hour of corrections does the work of 3.0 hours of drawing (3.0 to 3.0)." in shown
    assert "Of 14 predicted events, 14 were kept as predicted, 0 changed and 0 removed; 0 were added by hand." in shown
    order = browser.run(
        "return [...document.querySelectorAll('[aria-label=Tasks] tbody th')].map(e => e.textContent.trim())"
    )
    assert order[:2] == ["21", "20"]
    assert len(order) == 12


@needs_browser
def test_a_tasks_page_seeks_its_video(server: Server, browser: Browser) -> None:
    server.annotate(1)
    browser.open(f"{server.url}/projects/1/tasks/1")
    wait_until(lambda: browser.run("return document.querySelector('video').readyState") >= 2, SECONDS, "the video")
    # Annotated on 21 to 50 and predicted on 11 to 40: two disagreements, and the wing's.
    jumps = browser.run("return [...document.querySelectorAll('[data-jump]')].map(e => e.textContent)")
    assert jumps == [
        "0:00.40 to 0:00.80 Close: predicted, not annotated",
        "0:01.60 to 0:02.00 Close: annotated, not predicted",
        "0:03.16 to 0:03.60 Wing extended: annotated, not predicted",
    ]
    assert "annotated in frames 21 to 50; predicted in frames 11 to 40" in browser.run(
        "return document.querySelector('.lane').getAttribute('aria-label')"
    )
    assert browser.run("return document.querySelectorAll('.lane polygon').length") == 2

    def time_is(seconds: float) -> Callable[[], bool]:
        return lambda: abs(browser.run("return document.querySelector('video').currentTime") - seconds) < 0.05

    browser.run("document.querySelectorAll('[data-jump]')[1].click()")
    wait_until(time_is(1.6), SECONDS, "the jump")
    press(browser, "n")
    wait_until(time_is(3.16), SECONDS, "the next disagreement")
    press(browser, "p")
    wait_until(time_is(1.6), SECONDS, "the previous one")
    browser.run(
        "const lanes = document.querySelector('[data-lanes]'), box = lanes.getBoundingClientRect();"
        "lanes.dispatchEvent(new MouseEvent('click', {clientX: box.left + box.width / 2, bubbles: true}))"
    )
    wait_until(time_is(2.0), SECONDS, "the click on the timeline")
    thumbnails = "return document.querySelectorAll('[data-thumbnails] canvas').length"
    wait_until(lambda: browser.run(thumbnails) == 12, SECONDS, "the thumbnails")
    colours = browser.run(
        "return [...document.querySelectorAll('[data-thumbnails] canvas')].map("
        "c => [...c.getContext('2d').getImageData(c.width / 2, c.height / 2, 1, 1).data])"
    )
    assert [red > blue for red, _, blue, _ in colours] == [True] * 6 + [False] * 6


@needs_browser
def test_the_summary_counts_what_was_annotated(server: Server, browser: Browser) -> None:
    """Each of three videos of 4 s has frames 21 to 50 and 80 to 90; the length of the third isn't known."""
    server.annotate(3)
    browser.open(f"{server.url}/projects/1")
    focus_on(browser, "Summary of the study")
    press(browser, ENTER)
    wait_until(lambda: browser.run("return document.title").startswith("Summary"), SECONDS, "the summary")
    rows = browser.run(
        "return [...document.querySelectorAll('table')[0].rows].map(r => [...r.cells].map(c => c.textContent))"
    )
    close, wing = (dict(zip(rows[0], row, strict=True)) for row in rows[1:])
    assert (close["Videos"], close["Bouts"], close["Total s"], close["Mean s"]) == ("3", "3", "3.60", "1.20")
    assert (close["Share"], close["Latency s"], close["A minute"]) == ("0.30", "0.80", "15.00")
    assert (wing["Total s"], wing["Share"], wing["Latency s"]) == ("1.32", "0.11", "3.16")
    assert "The length of 1 video isn't known" in text(browser)
    said = browser.run("return document.querySelector('.plot svg').getAttribute('aria-label')")
    assert said == "1.webm: Close 1 times, 1.2 s, from 0:00.80 on; Wing extended 1 times, 0.4 s, from 0:03.16 on"
    # Close begins once and Wing extended after it, in each of three videos.
    cells = "return [...document.querySelectorAll('.transitions td')].map(e => e.textContent.trim())"
    assert browser.run(cells) == ["", "0", "3 (100 %)", "0", "0"]
    focus_on(browser, "Download subjects as CSV")


@needs_browser
@pytest.mark.parametrize("path", ["summary?from=both", "review"])
def test_a_studys_pages_fit_a_narrow_screen(server: Server, browser: Browser, path: str) -> None:
    server.annotate(3)
    server.review()
    browser.http.post(f"{browser.session}/window/rect", json={"width": 500, "height": 800}).raise_for_status()
    try:
        browser.open(f"{server.url}/projects/1/{path}")
        sizes = browser.run(
            "return [document.documentElement.scrollWidth, document.documentElement.clientWidth,"
            "...[...document.querySelectorAll('.plot svg')].map(one => one.getBoundingClientRect().width)]"
        )
        assert sizes[0] <= sizes[1], "the page itself doesn't scroll sideways; its tables do"
        assert all(width > sizes[1] / 2 for width in sizes[2:])
    finally:
        browser.http.post(f"{browser.session}/window/rect", json={"width": 1280, "height": 900}).raise_for_status()


def test_the_summary_as_csv_and_its_errors(server: Server) -> None:
    server.annotate(2)
    server.store.save_predictions(
        "1", [({"id": 20, "data": {"video": "b.mp4", "fly": "F7", "fly line": "wild"}}, 0.9, "v1")]
    )

    def get(query: str, status: int = 200) -> httpx.Response:
        answer = httpx.get(f"{server.url}/projects/1/summary{query}")
        assert answer.status_code == status, answer.text
        return answer

    table = get(".csv?from=both&by=fly&table=subjects")
    assert "project-1-subjects.csv" in table.headers["Content-Disposition"]
    rows = {(row["subject"], row["from"], row["label"]): row for row in csv.DictReader(io.StringIO(table.text))}
    predicted = rows["F7", "predictions", "Close"]
    assert (predicted["count"], predicted["total_seconds"], predicted["share"]) == ("1", "1.2", "0.3")
    assert float(predicted["expected_seconds"]) == pytest.approx(0.9 * 30 / 25, abs=1e-4)
    assert 0 < float(predicted["expected_sd_seconds"]) < 1.2
    assert rows["", "annotations", "Close"]["expected_seconds"] == ""
    assert "isn&#39;t" not in get("?by=fly&from=predictions").text
    lines = csv.DictReader(io.StringIO(get(".csv?from=predictions&by=fly line&table=subjects").text))
    assert {row["subject"] for row in lines} == {"", "wild"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(summary, "MAX_PREDICTED", 1)
        assert "This is the first task; 2 more are left out." in get("?from=predictions").text
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(summary, "MAX_PREDICTED_SECONDS", 1.0)  # less than a video has
        assert "This is the first task; 2 more are left out." in get("?from=predictions").text
    assert "No task of project 1 has &#39;flea&#39; in its data. It has &#39;video&#39;." in get("?by=flea").text
    assert "has &#39;flea&#39;" in get(".csv?by=flea", 400).text
    assert "t one of annotations, predictions, both" in get("?from=dreams", 400).text
    assert "There is no table" in get(".csv?table=dreams", 404).text
    server.model.check_ready = lambda self: (_ for _ in ()).throw(NotReady("It isn't trained yet."))
    assert "It isn&#39;t trained yet." in get("?from=predictions").text
    del server.model.check_ready
    server.store.delete_tasks("1", [1, 2, 20])
    assert "Project 1 has no annotation to summarise yet." in get("").text
    assert "is known here yet" in get("?from=both").text


@needs_browser
def test_a_doubt_is_looked_at_and_confirmed_with_the_keyboard(server: Server, browser: Browser) -> None:
    server.annotate(3)
    browser.open(f"{server.url}/projects/1")
    focus_on(browser, "Review of the annotations")
    press(browser, ENTER)
    wait_until(lambda: "The annotations haven't been compared yet." in text(browser), SECONDS, "the page")
    assert "No task has several annotations." in text(browser)
    focus_on(browser, "Compare now …")
    press(browser, ENTER)
    focus_on(browser, "Yes, compare")
    press(browser, ENTER)
    wait_until(lambda: "The comparison is queued." in text(browser), SECONDS, "the answer")
    assert [job.kind for job in server.store.jobs(JobStatus.QUEUED)] == [JobKind.REVIEW]
    assert browser.run("return document.querySelectorAll('[data-job] progress').length") == 1

    doubted, missed = server.review()
    browser.open(f"{server.url}/projects/1/review")
    shown = browser.run("return [...document.querySelectorAll('[data-finding]')].map(e => e.dataset.finding)")
    assert shown[:2] == [doubted.key, missed.key]
    assert "0:00.80 to 0:02.00: annotated as Close, to which a model of other videos gives 4 %" in text(browser)
    assert "0:02.40 to 0:03.00: not annotated as Close" in text(browser)
    # 30 frames and 15 of these in a video of 100: they agree on 85, and by chance on 64.
    assert "Close\t0.58\tunknown of one task\t1" in text(browser)
    assert "Close: of the time that either of two annotators marked, both marked 50 %" in text(browser)
    focus_on(browser, "It is right")
    press(browser, ENTER)
    wait_until(lambda: "The place is confirmed" in text(browser), SECONDS, "the answer")
    left = browser.run("return [...document.querySelectorAll('[data-finding]')].map(e => e.dataset.finding)")
    assert left == shown[1:]
    assert "1 place was found right" in text(browser)


def test_a_place_is_shown_until_its_annotation_changes(server: Server) -> None:
    server.annotate(3)
    doubted, missed = server.review()

    def page() -> str:
        return httpx.get(f"{server.url}/projects/1/review").text

    assert doubted.key in page()
    assert "in Label Studio" not in page(), "its address isn't known"
    server.store.update_project("1", hostname="http://studio.example/")
    assert 'href="http://studio.example/projects/1/data?task=1&amp;annotation=1"' in page()
    task = {"id": 1, "data": {"video": "1.webm"}}
    for elsewhere in (region(61, 70, "Close"), region(80, 90, "Close")):
        moved = annotation(1, region(21, 50, "Close"), elsewhere, updated_at="2026-11-28T00:00:00Z")
        server.store.save_annotations("1", CONFIG, [(task, moved)], "ANNOTATION_UPDATED")
        assert doubted.key in page()
    shorter = annotation(1, region(21, 45, "Close"), updated_at="2026-11-29T00:00:00Z")
    server.store.save_annotations("1", CONFIG, [(task, shorter)], "ANNOTATION_UPDATED")
    assert doubted.key not in page()
    assert missed.key in page()
    server.store.delete_annotations("1", [2])
    assert missed.key not in page()
    with httpx.Client(base_url=server.url) as client:
        token = client.get("/projects/1/review").cookies["timeline_csrf"]
        assert client.post("/projects/1/review/confirm", data={"key": missed.key}).status_code == 403
        gone = client.post("/projects/1/review/confirm", data={"key": missed.key, "csrf": token})
        assert gone.status_code == 400
        assert "There is nothing to confirm" in gone.text


def test_places_at_the_end_of_a_video_are_the_same_when_its_length_becomes_known(server: Server) -> None:
    """The last frame ends at 4 s, and the video 0.01 s before, as where its own frame rate is another."""
    server.store.update_project("1", CONFIG)
    task = {"id": 1, "data": {"video": "1.webm"}}
    for number, drawn in ((1, region(21, 100, "Close")), (2, region(21, 60, "Close"))):
        server.store.save_annotations("1", CONFIG, [(task, annotation(number, drawn))], "ANNOTATION_CREATED")
    doubt = Doubt(1, 1, "tl", [Part("Close", 2.0, 4.0, [[2.0, 4.0]], 0.04, 3.0)])
    result = {"at": "2026-11-27T12:00:00", "revision": 2, "videos": 2, "left_out": 0, "doubts": [doubt.json()]}
    server.store.set_value("1", RESULT, json.dumps(result))

    def page(seconds: float | None) -> str:
        recording = Recording("tl", "1.webm", 25.0, seconds, ("Close", "Wing extended"))
        server.model.recordings = lambda self, task: [recording]
        return httpx.get(f"{server.url}/projects/1/review").text

    disagreement = "Close: of the time that either of two annotators marked, both marked 50 %"
    assert doubt.key in page(3.99)
    assert disagreement in page(None)
    assert ">Wing extended</th><td>–</td><td>–</td>" in page(None), "nobody marked it, so kappa is undefined"
    (key,) = set(re.findall(r'data-finding="(\w+)"', page(None))) - {doubt.key}
    with httpx.Client(base_url=server.url) as client:
        token = client.get("/projects/1/review").cookies["timeline_csrf"]
        client.post("/projects/1/review/confirm", data={"key": key, "csrf": token})
    assert disagreement not in page(None)
    assert disagreement not in page(3.99)


def test_a_review_of_a_model_that_is_not_trained_fails_with_a_sentence(server: Server) -> None:
    server.annotate(2)
    with pytest.raises(InvalidRequest, match="no timeline that is trained"):
        Runner(server.jobs).run_now(JobKind.REVIEW, "1")


@needs_browser
def test_each_action_asks_first_and_does_what_it_says(server: Server, browser: Browser) -> None:
    server.annotate(2)
    for version in (1, 2):
        server.store.increment_value("1", TRAININGS)
        server.store.publish_version("1", "tl", version, f"{version}.safetensors", {})

    def act(path: str, name: str, answer: str) -> None:
        browser.open(server.url + path)
        named = "e => e.querySelector('summary').textContent === arguments[0]"
        found = f"[...document.querySelectorAll('.action')].find({named})"
        assert not browser.run(f"return {found}.open", name)
        browser.run(f"{found}.querySelector('summary').click()", name)
        browser.run(f"const s = {found}.querySelector('select'); if (s) s.value = 'tl 1';", name)
        browser.run(f"{found}.querySelector('button').click()", name)
        wait_until(lambda: answer in text(browser), SECONDS, answer)

    act("/projects/1", "Train now …", "A training is queued.")
    assert server.trainings() == 1
    act("/projects/1", "Roll back …", "The earlier version predicts now.")
    assert server.model.rolled_back == [(1, "tl")]
    act("/projects/1", "Roll back …", "Its file is gone.")
    act("/projects/1", "Reset …", "The model was forgotten.")
    assert server.model.forgotten == ["1"]
    act("/projects/1/tasks/1", "Clear its cache …", "dropped from the cache")
    assert server.model.dropped == [1]
    server.store.save_predictions("1", [({"id": 99, "data": {"video": "x"}}, None, None)])
    act(
        "/projects/1/tasks/99", "Clear its cache …", "dropped from the cache"
    )  # so that one that is given up is tried again
    assert server.model.dropped == [1, 99]
    act("/projects/1/tasks/99", "Read it now …", "queued to be read")
    assert [job.kind for job in server.store.jobs(JobStatus.QUEUED)].count(JobKind.EXTRACT) == 1


@needs_browser
def test_keyboard_only(server: Server, browser: Browser) -> None:
    server.annotate(2)
    browser.open(server.url)
    focus_on(browser, "Project 1")
    press(browser, ENTER)
    wait_until(lambda: "How good is it?" in text(browser), SECONDS, "the project's page")
    focus_on(browser, "Train now …")
    press(browser, ENTER)
    assert server.trainings() == 0  # it was only asked
    focus_on(browser, "Yes, train")
    outline = browser.run("return getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"  # where the focus is can be seen
    press(browser, ENTER)
    wait_until(lambda: "A training is queued." in text(browser), SECONDS, "the answer")
    assert server.trainings() == 1
    focus_on(browser, "2")  # in the list of tasks
    press(browser, ENTER)
    wait_until(lambda: browser.run("return document.title").startswith("Task 2,"), SECONDS, "the task's page")
    assert browser.run("return location.pathname") == "/projects/1/tasks/2"


def test_posts_from_elsewhere_are_refused(server: Server) -> None:
    server.annotate(1)
    with httpx.Client(base_url=server.url) as client:
        token = client.get("/projects/1").cookies["timeline_csrf"]
        good = {"csrf": token}
        assert client.post("/projects/1/train", data={}).status_code == 403
        assert client.post("/projects/1/train", data={"csrf": "x"}).status_code == 403
        for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
            assert client.post("/projects/1/train", data=good, headers=headers).status_code == 403
        assert server.trainings() == 0
        answer = client.post("/projects/1/train", data=good, headers={"Origin": server.url})
        assert answer.status_code == 303
    assert httpx.post(f"{server.url}/projects/1/reset", data=good).status_code == 403
    assert server.model.forgotten == []


def test_pages_and_actions_need_the_password(settings: Settings, video: Path) -> None:
    protected = settings.model_copy(update={"basic_auth_user": "ann", "basic_auth_pass": SecretStr("p")})
    model = type("DrawnModel", (DrawnModel,), {"forgotten": [], "dropped": [], "rolled_back": []})
    running = Server(protected, model, video)
    try:
        running.annotate(1)
        html = {"Accept": "text/html"}
        for path in ("/", "/queue", "/projects/1", "/projects/1/tasks/1", "/projects/1/tasks/1/video/tl"):
            assert httpx.get(running.url + path, headers=html).status_code == 401
        assert httpx.get(f"{running.url}/dashboard/state").status_code == 401
        assert httpx.post(f"{running.url}/projects/1/train").status_code == 401
        assert httpx.get(f"{running.url}/projects/1", auth=("ann", "p")).status_code == 200
    finally:
        running.stop()


def test_what_is_not_there_is_a_page(server: Server) -> None:
    server.annotate(1)
    for path, words in {
        "/projects/7": "Project 7 isn&#39;t known here",
        "/projects/1/tasks/7": "Task 7 of project 1",
    }.items():
        answer = httpx.get(server.url + path)
        assert answer.status_code == 404
        assert words in answer.text


def test_an_unchanged_state_is_not_sent_again(server: Server) -> None:
    server.annotate(3)
    first = httpx.get(f"{server.url}/dashboard/state")
    assert first.json()["projects"][0]["annotated_tasks"] == 3
    again = {"If-None-Match": first.headers["ETag"]}
    assert httpx.get(f"{server.url}/dashboard/state", headers=again).status_code == 304
    server.job(JobKind.EXTRACT, "a")
    assert httpx.get(f"{server.url}/dashboard/state", headers=again).status_code == 200


def test_names_are_shown_as_text(server: Server) -> None:
    """A label, a file's name and an error can be anything; none of them is markup."""
    evil = "<script>alert(1)</script>"
    server.store.update_project("1", CONFIG.replace("Close", "&lt;script&gt;alert(1)&lt;/script&gt;"))
    server.store.save_predictions("1", [({"id": 1, "data": {"video": evil}}, 0.5, evil)])
    for path in ("/projects/1", "/projects/1/tasks/1"):
        page = httpx.get(server.url + path).text
        assert evil not in page
    assert "&lt;script&gt;" in httpx.get(f"{server.url}/projects/1").text


@needs_browser
@pytest.mark.skipif(not AXE.exists(), reason="axe-core isn't installed: npm install axe-core (.ci/run does)")
def test_accessibility_and_narrow_screens(server: Server, browser: Browser) -> None:
    server.annotate(10)
    server.review()
    server.job(JobKind.EXTRACT, "a", task={"id": 1, "data": {}})
    found, axe = [], AXE.read_text()
    try:
        for path, (scheme, width) in product(PAGES, [("light", None), ("dark", None), ("light", NARROW)]):
            browser.prefer(scheme)
            browser.narrow(width)
            browser.open(server.url + path)
            still = "return document.getAnimations().length"
            wait_until(lambda still=still: browser.run(still) == 0, SECONDS, "the page to stand still")
            browser.run(axe)
            violations = browser.http.post(
                f"{browser.session}/execute/async",
                json={"script": "axe.run().then(arguments[arguments.length - 1])", "args": []},
            ).json()["value"]["violations"]
            found += [
                (path, scheme, width, one["id"], [node["target"] for node in one["nodes"]][:3])
                for one in violations
                if one["impact"] in ("serious", "critical")
            ]
            if width:  # wide things scroll within the page, and not the page
                beyond = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
                assert browser.run("return innerWidth") == width
                found += [(path, "is too wide")] * (browser.run(beyond) > 0)
    finally:
        browser.narrow(None)
    assert found == []


@needs_browser
def test_a_label_without_spaces_makes_no_page_wide(server: Server, browser: Browser) -> None:
    server.annotate(1)
    server.store.update_project("1", CONFIG.replace("Wing extended", "L" * 200))
    browser.open(f"{server.url}/projects/1")
    assert "L" * 200 in text(browser)
    assert browser.run("return document.documentElement.scrollWidth <= document.documentElement.clientWidth")


@needs_browser
def test_every_control_of_every_page_is_reached_by_the_keyboard(server: Server, browser: Browser) -> None:
    """And it is seen where the focus is."""
    server.annotate(2)
    server.review()
    server.job(JobKind.EXTRACT, "a", task={"id": 1, "data": {}})
    for path in PAGES:
        browser.open(server.url + path)
        expected = browser.run("""
            const all = "a[href], button, summary, input:not([type=hidden]), select, video, [tabindex='0']";
            window.controls = [...document.querySelectorAll(all)].filter(e => e.checkVisibility());
            return controls.length;
        """)
        reached, unseen = set(), []
        for _ in range(expected + 20):  # a video has controls of its own, which show where the focus is
            press(browser, TAB)
            number, outline, what = browser.run("""
                const now = document.activeElement, style = getComputedStyle(now);
                return [controls.indexOf(now), style.outlineStyle, now.outerHTML.slice(0, 80)];
            """)
            reached.add(number)
            if number >= 0 and outline == "none" and not what.startswith("<video"):
                unseen.append(what)
        missing = [number for number in range(expected) if number not in reached]
        assert not missing, (path, browser.run("return arguments[0].map(n => controls[n].outerHTML)", missing))
        assert unseen == [], path


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_labels_of_any_colour_can_be_seen(server: Server, browser: Browser, scheme: str) -> None:
    """Their curves against the page: with half of the contrast of 3 that WCAG asks of graphics, since an annotator
    is to know the colours again."""
    browser.prefer(scheme)
    server.annotate(3)
    for first, second in (("blue", "yellow"), ("black", "white")):
        server.store.update_project("1", CONFIG.replace("#d9480f", first).replace("#1971c2", second))
        browser.open(f"{server.url}/projects/1")
        page, *lines = browser.run("""
            // A canvas gives the bytes of any colour, however CSS writes it.
            const bytes = colour => {
                const canvas = document.createElement("canvas").getContext("2d");
                canvas.fillStyle = colour;
                canvas.fillRect(0, 0, 1, 1);
                return [...canvas.getImageData(0, 0, 1, 1).data];
            };
            const lines = [...document.querySelectorAll(".chart polyline")].map(line => getComputedStyle(line).stroke);
            return [getComputedStyle(document.body).backgroundColor, ...lines].map(bytes);
        """)
        assert len(lines) == 2
        for line in lines:
            dark, light = sorted((luminance(line), luminance(page)))
            assert (light + 0.05) / (dark + 0.05) > 1.5, (first, second)


def luminance(colour: list[int]) -> float:
    """WCAG's relative luminance of [red, green, blue, alpha] in bytes."""
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in (byte / 255 for byte in colour)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_what_several_senses_decide_together_counts_for_each() -> None:
    together = {"motion, change and appearance, mean subtracted": 0.6, "appearance": 0.4}
    found = sentences({"learnt": {"Walking": together}})
    assert found == {"Walking": "decided mostly by looks; change and motion count too"}
