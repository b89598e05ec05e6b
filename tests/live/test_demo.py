"""The demo's own story, as README tells it: started with its command, and played in a browser."""

import io
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from demo import football
from demo.__main__ import PASSWORD, USER
from demo.label_studio import LabelStudio
from demo.own_videos import OwnVideos
from tests.live.browser import Browser
from tests.live.conftest import START_SECONDS, Screenshots, new_database
from tests.live.labeling_page import PICTURE_SIZE, LabelingPage
from tests.live.model_page import start_training
from tests.live.timelines import agreement
from tests.servers import NO_INTERNET, ROOT, clean_environment, free_port, wait_until
from tests.videos import write_video

TRAINING_SECONDS = 300
STOP_SECONDS = 40


class RunningDemo:
    """The demo, started as `make demo` starts it, but that Label Studio's database is laid out already.

    Args:
        folder: its data, made here.
        log: what it prints.
        variables: VIDEOS and LABELS.
    """

    def __init__(self, folder: Path, log: Path, **variables: str) -> None:
        self.folder, self.log = folder, log
        shutil.copytree(new_database(), folder / "label-studio")
        self._environment = clean_environment(
            DEMO_DATA=str(folder),
            LABEL_STUDIO_PORT=str(free_port()),
            PORT=str(free_port()),
            HTTPS_PROXY=NO_INTERNET,
            # Its own servers aren't asked for through the proxy of this machine.
            NO_PROXY="localhost",
            **variables,
        )
        self.url = f"http://localhost:{self._environment['LABEL_STUDIO_PORT']}"
        self.backend_url = f"http://localhost:{self._environment['PORT']}"

    def start(self) -> None:
        """Start it, and wait for the login that it prints."""
        with self.log.open("wb") as output:
            self._process = subprocess.Popen(self._command(), env=self._environment, cwd=ROOT, stdout=output)
        wait_until(self._is_up, START_SECONDS, f"the demo to start, see {self.log}")

    def submit(self) -> str:
        """`make demo-submit`. Returns what it prints."""
        ended = subprocess.run(
            self._command("submit"), env=self._environment, cwd=ROOT, check=True, capture_output=True, text=True
        )
        return ended.stdout

    def stop(self) -> int:
        """Ctrl-C. Returns the exit status."""
        self._process.send_signal(signal.SIGINT)
        return self._process.wait(STOP_SECONDS)

    def truth(self, number: int) -> football.Timeline:
        """The true timeline of a video, by its number from 1 on."""
        return football.timeline(number - 1)

    def _command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-u", "-m", "demo", *arguments]

    def _is_up(self) -> bool:
        assert self._process.poll() is None, self.log.read_text()
        return "Log in" in self.log.read_text()


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[RunningDemo]:
    demo = RunningDemo(tmp_path / "demo-data", tmp_path / "demo.log")
    demo.start()
    yield demo
    demo.stop()


def test_the_demos_story(demo: RunningDemo, new_browser: Browser, screenshots: Screenshots) -> None:
    browser = new_browser
    printed = demo.log.read_text()
    for part in (f"{demo.url}/projects/1/data", USER, PASSWORD, demo.backend_url, "make demo-submit"):
        assert part in printed
    api = LabelStudio(demo.url, (demo.folder / "token").read_text())
    project = api.project("Football demo")
    tasks = {name: task["id"] for name, task in api.tasks(project).items()}
    assert sorted(tasks) == [f"{number:02}.mp4" for number in range(1, 13)]
    model = api.connect(project, demo.backend_url)

    def version() -> str:
        state = api.model(model)
        assert state["state"] == "CO", state
        return state["model_version"]

    def wait_for_new_version(old: str) -> str:
        wait_until(lambda: version() != old, TRAINING_SECONDS, f"another version than {old}")
        return version()

    # Log in, as the demo says.
    browser.open(f"{demo.url}/projects/{project}/data")
    browser.log_in(USER, PASSWORD)
    browser.find("//*[normalize-space() = 'Label All Tasks']")
    screenshots.take(browser, "data-manager")

    # The first video: draw on its empty timeline, and submit.
    page = LabelingPage(browser, f"{demo.url}/projects/{project}/data")
    untrained = version()
    page.open(tasks["01.mp4"])
    assert page.result() == []
    truth = demo.truth(1)
    draw(page, truth)
    assert agreement(page.result(), truth) == 1.0
    page.send("Submit")
    once = wait_for_new_version(untrained)

    # Another: its timeline is filled in. Correct it, but for one kick that is overlooked, and submit.
    page.open_filled_in(tasks["04.mp4"])
    browser.resize(*PICTURE_SIZE)
    screenshots.take(browser, "filled-in-after-one")
    page.open(tasks["04.mp4"])
    page.clear()
    truth = demo.truth(4)
    *kicks, overlooked = truth[football.TOUCH]
    draw(page, {football.IN_FRAME: truth[football.IN_FRAME], football.TOUCH: kicks})
    page.send("Submit")
    twice = wait_for_new_version(once)

    # The kick is seen later: the same annotation is corrected and updated.
    page.open(tasks["04.mp4"])
    page.draw(football.TOUCH, *overlooked)
    page.send("Update")
    wait_for_new_version(twice)
    annotations = api.tasks(project)["04.mp4"]["annotations"]
    assert len(annotations) == 1
    assert agreement(annotations[0]["result"], truth) > 0.95  # clearing it may leave the timeline scrolled by a frame

    # The demo submits the rest of its six, and leaves alone what was annotated by hand.
    printed = demo.submit()
    assert printed.count("already annotated") == 2
    assert printed.count("submitted, learnt as") + printed.count("no better") == 4
    seventh = tasks["07.mp4"]
    assert f"{demo.url}/projects/{project}/data?task={seventh}" in printed

    # Videos that nobody has annotated open with a timeline that is right.
    scores = []
    for number in (10, 8, 7):
        page.open_filled_in(tasks[f"{number:02}.mp4"])
        scores.append(agreement(page.result(), demo.truth(number)))
    assert min(scores) >= 0.8, scores
    browser.resize(*PICTURE_SIZE)
    page.show(0.37)  # the seventh video's kick
    screenshots.take(browser, "filled-in")

    # Start Training, from the model's menu.
    before = version()
    start_training(browser, f"{demo.url}/projects/{project}")
    screenshots.take(browser, "model")
    wait_for_new_version(before)

    # Ctrl-C, and once more: quickly, with everything still there.
    assert demo.stop() == 0
    assert demo.log.read_text().rstrip().endswith("Stopped.")
    demo.start()
    again = api.tasks(api.project("Football demo"))
    assert {name: task["id"] for name, task in again.items()} == tasks
    assert sum(bool(task["annotations"]) for task in again.values()) == 6


RED, GREY = (220, 30, 30), (120, 120, 120)
# Name -> frame rate, and the seconds from which to which it is red.
CLIPS = {"a b & 50%.mp4": (25, 1.2, 2.4), "sub/über.webm": (29.97, 0.8, 1.8), "zeitlupe.mp4": (12.5, 1.6, 2.8)}


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    folder = tmp_path / "my clips"
    (folder / "sub").mkdir(parents=True)
    for name, (rate, start, stop) in CLIPS.items():
        pictures = [RED if start <= index / rate < stop else GREY for index in range(round(4 * rate))]
        codec = "libvpx-vp9" if name.endswith(".webm") else "libx264"
        write_video(folder / name, pictures, rate=rate, codec=codec)
    (folder / "broken.mp4").write_bytes(b"no video")
    return folder


def test_the_demo_with_own_videos(clips: Path, tmp_path: Path, new_browser: Browser, screenshots: Screenshots) -> None:
    demo = RunningDemo(tmp_path / "demo-data", tmp_path / "demo.log", VIDEOS=str(clips), LABELS="Red,Never")
    demo.start()
    try:
        printed = demo.log.read_text()
        assert "Left out: broken.mp4 is not a video file" in printed
        assert f"make demo VIDEOS='{clips}'" in printed
        api = LabelStudio(demo.url, (demo.folder / "token").read_text())
        assert len(api.videos(1)) == len(CLIPS)
        model = api.connect(1, demo.backend_url)
        untrained = api.model(model)["model_version"]

        new_browser.open(f"{demo.url}/projects/1/data")
        new_browser.log_in(USER, PASSWORD)
        new_browser.find("//*[normalize-space() = 'sub/über.webm']")
        screenshots.take(new_browser, "own-videos")

        page = LabelingPage(new_browser, f"{demo.url}/projects/1/data")
        page.open(1)
        assert new_browser.run("return document.querySelector('video').videoWidth") == 320
        page.draw("Red", 31, 60)
        page.send("Submit")
        wait_until(lambda: api.model(model)["model_version"] != untrained, TRAINING_SECONDS, "the training")
        # The tasks are in the order of the names. Each timeline counts its own video's frames.
        for task, (rate, start, stop) in enumerate(CLIPS.values(), start=1):
            if task > 1:
                page.open_filled_in(task)
                truth = {"Red": [(round(start * rate) + 1, round(stop * rate))]}
                assert agreement(page.result(), truth) > 0.9
        screenshots.take(new_browser, "own-videos-filled-in")

        # What a second start does, without labels: they are known, and nothing is added twice.
        again = OwnVideos(str(clips), None, demo.folder, Console(file=io.StringIO()))
        again.add(api, api.project(again.title), lambda said: None)
        assert len(api.videos(1)) == len(CLIPS)
        assert "Red, Never" in again.steps("")
    finally:
        demo.stop()


def draw(page: LabelingPage, truth: football.Timeline) -> None:
    for label, ranges in truth.items():
        for start, end in ranges:
            page.draw(label, start, end)
