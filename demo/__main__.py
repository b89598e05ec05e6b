"""The demo: Label Studio and the backend, with a project of sample videos. `make demo` installs both and runs this.

python -m demo           start everything, and say where to log in; VIDEOS and LABELS in the environment name own videos
python -m demo submit    submit six finished annotations to the running demo, one after another
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console
from rich.markup import escape

from demo.content import Content, Football
from demo.label_studio import LabelStudio
from demo.own_videos import EXAMPLE, OwnVideos
from demo.servers import DemoError, Server, check_port
from ml_backend.settings import PROJECT_ROOT, Settings

EXECUTABLE = PROJECT_ROOT / ".label-studio" / "bin" / "label-studio"
USER, PASSWORD = "demo@example.com", "kick-the-ball"
# Label Studio lays out its database at its first start; a slow disk takes minutes.
LABEL_STUDIO_SECONDS, BACKEND_SECONDS, TRAINING_SECONDS = 600, 180, 300
POLL_SECONDS = 0.5
console = Console(highlight=False, soft_wrap=True)


class Demo:
    """The demo's folder and addresses.

    Args:
        folder: where it keeps everything.
        label_studio_port: where Label Studio listens, on this machine alone.
        backend_port: where the backend listens, on this machine alone.
    """

    def __init__(self, folder: Path, label_studio_port: int, backend_port: int) -> None:
        self._folder = folder
        self._label_studio_port, self._backend_port = label_studio_port, backend_port
        self.label_studio_url = f"http://localhost:{label_studio_port}"
        self.backend_url = f"http://localhost:{backend_port}"

    def check(self) -> None:
        """Check that the ports are free, and Label Studio is installed. Raises DemoError."""
        check_port(self._label_studio_port, "LABEL_STUDIO_PORT")
        check_port(self._backend_port, "PORT")
        if not EXECUTABLE.exists():
            raise DemoError("Label Studio isn't installed. `make demo` installs and starts it.")

    def run(self, content: Content) -> None:
        """Start everything, say what to do, and run until a server ends or Ctrl-C is pressed."""
        self._make_folder(content.needed_bytes)
        with ExitStack() as stack:
            label_studio = stack.enter_context(self._start_label_studio(content.environment))
            backend = stack.enter_context(self._start_backend(content.environment))
            prepared = stack.enter_context(ThreadPoolExecutor(1)).submit(content.prepare)
            with console.status("Label Studio starts; the first time, it takes a minute to lay out its database"):
                label_studio.wait_until_up(LABEL_STUDIO_SECONDS)
            console.print("Label Studio is up")
            with console.status("The backend starts"):
                backend.wait_until_up(BACKEND_SECONDS, _has_encoder)
            console.print("The backend is up")
            with console.status("Sample videos are drawn"):
                prepared.result()
            project = self._set_up(content)
            self._say_what_to_do(project, content)
            while True:
                time.sleep(POLL_SECONDS)
                label_studio.check_running()
                backend.check_running()

    def submit(self) -> None:
        """Submit the finished annotations of the drawn videos, and say what the model learns from each."""
        football = Football(self._folder)
        try:
            api = LabelStudio(self.label_studio_url, self._token())
            annotations = football.annotations()
            project = api.project(football.title)
            model = api.connect(project, self.backend_url)
            tasks = api.tasks(project)
        except (httpx.TransportError, FileNotFoundError) as error:
            raise DemoError(
                f"The demo with the drawn videos, whose annotations these are, doesn't run at {self.label_studio_url}. "
                "Start it in another terminal: make demo"
            ) from error
        for name, result in annotations.items():
            task = tasks[name]
            if task["annotations"]:
                console.print(f"{name}: already annotated")
                continue
            started, before = time.monotonic(), api.model(model)["model_version"]
            api.submit(task["id"], result)
            with console.status(f"{name}: submitted; the model learns"):
                self._wait_for_training(project)
            version = api.model(model)["model_version"]
            learnt = f"learnt as {version}" if version != before else f"the new model was no better, {version} stays"
            console.print(f"{name}: submitted, {learnt} ({time.monotonic() - started:.1f} s)")
        new = [task["id"] for name, task in tasks.items() if name not in annotations and not task["annotations"]]
        if new:
            console.print("\nOpen a video that nobody has annotated; its timeline is filled in:")
            console.print(f"  {self.label_studio_url}/projects/{project}/data?task={min(new)}")

    def _make_folder(self, needed: int) -> None:
        elsewhere = "Free some, or name a folder on another disk: make demo DEMO_DATA=/path"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(self._folder).free
            if free < needed:
                raise DemoError(
                    f"The demo needs {needed / 1e6:.0f} MB for its data, and the disk of {self._folder} has "
                    f"{free / 1e6:.0f} MB left. {elsewhere}"
                )
            secret = self._folder / "token"
            if not (secret.exists() and secret.read_text()):  # a full disk may have left an empty file
                secret.touch(mode=0o600)
                secret.write_text(secrets.token_hex(20))
        except OSError as error:
            raise DemoError(f"The folder {self._folder} can't be made ({error.strerror}). {elsewhere}") from error

    def _token(self) -> str:
        return (self._folder / "token").read_text()

    def _start_label_studio(self, variables: dict[str, str]) -> Server:
        command = [str(EXECUTABLE), "start", "--no-browser", "--internal-host", "localhost"]
        command += ["--port", str(self._label_studio_port), "--username", USER, "--password", PASSWORD]
        environment = _environment(
            LABEL_STUDIO_BASE_DATA_DIR=str(self._folder / "label-studio"),
            LABEL_STUDIO_HOST=self.label_studio_url,
            # A legacy token, which this instance accepts, so that nobody must make a token by hand.
            LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN="true",
            LABEL_STUDIO_USER_TOKEN=self._token(),
            # The backend is on this machine, and so at an address that Label Studio refuses by default.
            ML_BLOCK_LOCAL_IP="false",
            SSRF_PROTECTION_ENABLED="false",
            COLLECT_ANALYTICS="false",
            **variables,
        )
        log = self._folder / "label-studio.log"
        url = f"{self.label_studio_url}/health"
        # Label Studio takes more than ten seconds to end, without anything left to do.
        return Server("Label Studio", command, url, environment, self._folder, log, signal.SIGTERM, stop_seconds=2)

    def _start_backend(self, variables: dict[str, str]) -> Server:
        command = [sys.executable, "-m", "gunicorn", "_wsgi:app"]
        environment = _environment(
            HOST="localhost",
            PORT=str(self._backend_port),
            LABEL_STUDIO_URL=self.label_studio_url,
            LABEL_STUDIO_API_KEY=self._token(),
            DATA_DIR=str(self._folder / "backend"),
            CACHE_DIR=str(self._folder / "cache"),
            MODEL_ROOT=str(self._folder / "models"),
            **variables,
        )
        log = self._folder / "backend.log"
        url = f"{self.backend_url}/health"
        return Server("The backend", command, url, environment, PROJECT_ROOT, log, signal.SIGINT, stop_seconds=20)

    def _set_up(self, content: Content) -> int:
        """Make the project, add the videos and connect the backend, unless done before. Returns the project's id."""
        api = LabelStudio(self.label_studio_url, self._token())
        project = api.project(content.title, label_config=content.label_config)
        with console.status("Videos are added") as status:
            content.add(api, project, lambda said: status.update(escape(said)))
        model = api.connect(project, self.backend_url)
        deadline = time.monotonic() + BACKEND_SECONDS
        # Label Studio waits 3 s for the backend, which may still be loading its image network.
        while (state := api.model(model))["state"] != "CO":
            if time.monotonic() > deadline:
                raise DemoError(f"Label Studio can't connect the backend: {state['error_message']}")
            time.sleep(POLL_SECONDS)
        return project

    def _wait_for_training(self, project: int) -> None:
        deadline = time.monotonic() + TRAINING_SECONDS
        while self._is_behind(project):
            if time.monotonic() > deadline:
                raise DemoError(f"There was no training in {TRAINING_SECONDS} s. See {self._folder / 'backend.log'}")
            time.sleep(POLL_SECONDS)

    def _is_behind(self, project: int) -> bool:
        """Whether the model hasn't learnt all of the project's annotations."""
        text = httpx.get(f"{self.backend_url}/metrics").raise_for_status().text
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        return any(
            sample.name == "backend_model_behind" and sample.labels["project"] == str(project) and sample.value
            for sample in samples
        )

    def _say_what_to_do(self, project: int, content: Content) -> None:
        ports = "".join(
            f" {variable}={port}"
            for variable, port, usual in (
                ("LABEL_STUDIO_PORT", self._label_studio_port, 8080),
                ("PORT", self._backend_port, 9090),
            )
            if port != usual
        )
        console.print(f"""
  Log in     {self.label_studio_url}/projects/{project}/data
  User       {USER}
  Password   {PASSWORD}
  Backend    {self.backend_url}

{content.steps(ports)}

Ctrl-C stops both; make demo{escape(content.arguments)}{ports} starts them again with all data,
and make demo-clean removes it.
""")


def _has_encoder(health: httpx.Response) -> bool:
    """Whether the backend has loaded its image network; before that, it answers Label Studio too late."""
    return health.json()["encoder"] != "loading"


def _environment(**variables: str) -> dict[str, str]:
    """This process's environment with `variables`, and without settings that aren't meant for the demo's servers."""
    names = {name.upper() for name in Settings.model_fields}
    foreign = ("LABEL_STUDIO_", "DJANGO_", "POSTGRE_")
    kept = {name: value for name, value in os.environ.items() if name not in names and not name.startswith(foreign)}
    return kept | variables


def _leave_out_proxies() -> None:
    """Keeps a proxy of this machine's user from requests to this machine: the demo's own, and between its servers."""
    named = os.environ.get("no_proxy") or os.environ.get("NO_PROXY")
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join(filter(None, [named, "localhost", "127.0.0.1"]))


def _content(folder: Path) -> Content:
    """The videos in VIDEOS with the labels in LABELS, else the drawn ones."""
    videos, labels = os.environ.get("VIDEOS"), os.environ.get("LABELS")
    return OwnVideos(videos, labels, folder, console) if videos else Football(folder)


def _check_names() -> None:
    if os.environ.get("LABELS") and not os.environ.get("VIDEOS"):
        raise DemoError(f"LABELS are those of your own videos, whose folder VIDEOS names: {EXAMPLE}")


def _stop(*_: object) -> None:
    raise KeyboardInterrupt


def main() -> int:
    """Run a command. An error is printed as a sentence, without a traceback."""
    for name in (signal.SIGTERM, signal.SIGINT):  # a script's background ignores SIGINT
        signal.signal(name, _stop)
    _leave_out_proxies()
    folder = PROJECT_ROOT / os.environ.get("DEMO_DATA", "demo-data")
    demo = Demo(folder, int(os.environ.get("LABEL_STUDIO_PORT", "8080")), int(os.environ.get("PORT", "9090")))
    try:
        if sys.argv[1:] == ["submit"]:
            demo.submit()
        else:
            _check_names()
            demo.check()
            demo.run(_content(folder))
    except KeyboardInterrupt:
        console.print("Stopped.")
    except DemoError as error:
        return _fail(str(error))
    except OSError as error:
        return _fail(f"{error.filename or folder}: {error.strerror}. {_free(folder)}")
    except httpx.HTTPError as error:
        return _fail(f"{error}. {_free(folder)} The servers' logs are {folder}/*.log.")
    return 0


def _fail(reason: str) -> int:
    console.print(f"[red]The demo stops:[/red] {escape(reason)}")
    return 1


def _free(folder: Path) -> str:
    return f"The disk of {folder} has {shutil.disk_usage(folder).free / 1e6:.0f} MB left."


if __name__ == "__main__":
    sys.exit(main())
