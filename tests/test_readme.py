"""README and docs/: tables name every attribute and variable with its default, links lead somewhere, commands work."""

from __future__ import annotations

import os
import re
import shutil
import signal
import stat
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
import yaml
from pydantic import AliasChoices
from pydantic_core import PydanticUndefined

from control_models.choices import ChoicesParameters
from control_models.parameters import TimelineLabelsParameters
from errors import BackendError
from ml_backend.label_studio.client import LabelStudioError
from ml_backend.settings import Settings
from ml_backend.store import Store
from ml_backend.web.connections import REFUSALS
from ml_backend.web.predictions import AlreadyStored
from tests.servers import NO_INTERNET, ROOT, START_SECONDS, clean_environment, free_port, wait_until

README = ROOT / "README.md"
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [README, ROOT / "README_DEVELOP.md", ROOT / "SECURITY.md", *DOCS, *(ROOT / "benchmarks").glob("*.md")]
CONFIGURATION = ROOT / "docs" / "configuration.md"
COMMANDS = [
    line.partition("  #")[0].strip()
    for page in [README, *DOCS]
    for block in re.findall(r"```sh\n(.*?)```", page.read_text(), re.DOTALL)
    for line in block.splitlines()
    if line.strip()
]
# What a test elsewhere does: the command, and that test's module.
TESTED_ELSEWHERE = {
    "make test": ".ci/run",
    "make demo": "tests/live/test_demo.py",
    'make demo VIDEOS=~/clips LABELS="Walking,Standing"': "tests/live/test_demo.py",
    "make demo-submit": "tests/live/test_demo.py",
    "make demo LABEL_STUDIO_PORT=8081 PORT=9091": "tests/live/test_demo.py",
    "LABEL_STUDIO_URL=http://localhost:8080 LABEL_STUDIO_API_KEY=<token> make run": "tests/live/conftest.py",
    ".venv/bin/python cli.py evaluate --project 1": "tests/test_cli.py",
    ".venv/bin/python cli.py summary --project 1": "tests/test_cli.py",
    ".venv/bin/python cli.py summary --project 1 --by animal --table subjects --csv study.csv": "tests/test_cli.py",
    ".venv/bin/python cli.py review --project 1": "tests/test_cli.py",
    ".venv/bin/python cli.py label videos/ --project 1 --format events --output events.csv": "tests/test_cli.py",
    ".venv/bin/python cli.py label match.mp4 --config config.xml --format mp4 --output drawn/": "tests/test_cli.py",
    "HOST=0.0.0.0 BASIC_AUTH_USER=ann BASIC_AUTH_PASS=<password> make run": "tests/test_operation.py",
}
NEEDS_DOCKER = ("docker ", "digest() {", 'echo "')
SIDE_BY_SIDE = "PORT=9091 DATA_DIR=data2 MODEL_ROOT=models2 make run"


def table(heading: str) -> dict[str, str]:
    """The names and defaults in the table below a heading of docs/configuration.md; a row of several names is split."""
    rows: dict[str, str] = {}
    for line in CONFIGURATION.read_text().split(f"{heading}\n", 1)[1].split("\n#", 1)[0].splitlines():
        if not line.startswith("| `"):
            continue
        names, default = [cell.strip() for cell in line.split("|")[1:3]]
        aliases = re.findall(r"\(`(\w+)`\)", names)
        plain = re.findall(r"`(\w+)`", re.sub(r"\(.*?\)", "", names))
        defaults = [part.strip().strip("`") for part in default.split(",")]
        rows |= dict(zip(plain, defaults * len(plain) if len(defaults) == 1 else defaults, strict=False))
        rows |= dict.fromkeys(aliases, defaults[0])
    return rows


def names_and_defaults(model: type) -> dict[str, object]:
    found = {}
    for name, field in model.model_fields.items():
        choices = field.validation_alias
        names = choices.choices if isinstance(choices, AliasChoices) else [name]
        found |= dict.fromkeys(map(str, names), field.default)
    return found


def as_written(default: object) -> str:
    if default in (None, ()) or default is PydanticUndefined:
        return ""
    if isinstance(default, bool):
        return str(default).lower()
    return str(default)


def test_every_attribute_is_in_the_table_with_its_default() -> None:
    expected = {name: as_written(default) for name, default in names_and_defaults(TimelineLabelsParameters).items()}
    assert table("## Attributes of `<TimelineLabels>`") == expected


def test_attributes_that_choices_do_not_take_are_named() -> None:
    (sentence,) = re.findall(r"except those of timelines: (.*?)\.$", CONFIGURATION.read_text(), re.M)
    assert set(re.findall(r"`(\w+)`", sentence)) == (
        set(TimelineLabelsParameters.model_fields) - set(ChoicesParameters.model_fields)
    )


def test_every_variable_is_in_the_table_with_its_default() -> None:
    written = table("## Environment variables")
    fields = names_and_defaults(Settings)
    assert set(written) == {name.upper() for name in fields}
    for name, default in fields.items():
        if name != "cache_size_limit":
            assert written[name.upper()] == as_written(default), name
    assert written["CACHE_SIZE_LIMIT"] == f"{int(fields['cache_size_limit']) // 10**9}GB"


def test_every_status_of_an_error_is_in_the_table() -> None:
    def statuses(error: type[BackendError]) -> set[int]:
        return {error.status}.union(*map(statuses, error.__subclasses__()))

    rows = re.findall(r"^\| (\d.*?) \|", (ROOT / "docs" / "troubleshooting.md").read_text(), re.M)
    written = {int(status) for row in rows for status in re.findall(r"\d+", row)}
    found = statuses(BackendError).union(*map(statuses, (LabelStudioError, AlreadyStored)))
    assert written == found | set(REFUSALS)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)", page.read_text(), re.M)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        if "://" not in target:
            name, _, anchor = target.partition("#")
            file = page.parent / name if name else page
            assert file.exists(), target
            assert not anchor or anchor in anchors(file), target


def test_every_page_is_one_click_from_the_readme() -> None:
    linked = {
        (ROOT / target.partition("#")[0]).resolve() for target in re.findall(r"\]\(([^)]+)\)", README.read_text())
    }
    assert set(DOCS) <= linked


def test_modules_that_developers_are_sent_to_exist() -> None:
    packages = [path.parent for path in ROOT.glob("*/__init__.py")]
    files = [*ROOT.glob("*.py"), *(path for package in packages for path in package.rglob("*.py"))]
    named = set(re.findall(r"`([\w/]+\.py)`", (ROOT / "README_DEVELOP.md").read_text())) - {"control_models/my_tag.py"}
    assert len(named) > 40
    for name in named:
        assert any(path.as_posix().endswith(f"/{name}") for path in files), name


def test_pictures_are_small() -> None:
    for picture in (ROOT / "docs").glob("*.png"):
        assert picture.stat().st_size < 300_000, picture


def test_every_command_is_run_by_a_test() -> None:
    here = {"make run", SIDE_BY_SIDE, "make demo-clean", *backup().splitlines()}
    for command in COMMANDS:
        if not command.startswith((*NEEDS_DOCKER, "curl ")):
            assert command in here | set(TESTED_ELSEWHERE), command
    for module in TESTED_ELSEWHERE.values():
        assert (ROOT / module).exists()


def backup() -> str:
    """The commands of a backup."""
    return re.search(r"```sh\n(copy=.*?)```", (ROOT / "docs" / "operations.md").read_text(), re.S)[1]


def test_a_backup_of_a_server_that_runs_is_whole(tmp_path: Path) -> None:
    for folder in ("data", "models"):
        (tmp_path / folder).mkdir()
    (tmp_path / "models" / "a.safetensors").write_bytes(b"weights")
    (tmp_path / ".venv").symlink_to(Path(sys.prefix))
    store = Store(f"sqlite:///{tmp_path}/data/state.db")
    store.update_project("7", "<View/>")  # it is in the write-ahead log, not in the file itself
    subprocess.run(["bash", "-e", "-c", backup()], cwd=tmp_path, env={**os.environ, "HOME": str(tmp_path)}, check=True)
    store.close()
    (copy,) = tmp_path.glob("timeline-*")
    assert stat.S_IMODE(copy.stat().st_mode) == 0o700  # there are tokens in it
    assert (copy / "models" / "a.safetensors").read_bytes() == b"weights"
    restored = Store(f"sqlite:///{copy}/state.db")
    assert restored.project("7").label_config == "<View/>"
    restored.close()


def test_make_run_and_what_is_asked_of_it(tmp_path: Path) -> None:
    assert {"make run", SIDE_BY_SIDE} <= set(COMMANDS)
    port = str(free_port())
    values = {"DATA_DIR": str(tmp_path / "data2"), "MODEL_ROOT": str(tmp_path / "models2"), "PORT": port}
    environment = clean_environment(
        **values, HOST="127.0.0.1", CACHE_DIR=str(tmp_path / "cache"), HTTPS_PROXY=NO_INTERNET
    )
    assert all(f"{name}=" in SIDE_BY_SIDE for name in values)
    log = tmp_path / "log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            ["make", "run"], cwd=ROOT, env=environment, stdout=output, stderr=output, start_new_session=True
        )

    def curl(command: str) -> str:
        address = command.split()[1].replace("localhost:9090", f"127.0.0.1:{port}")
        with suppress(httpx.HTTPError):
            return httpx.get(f"http://{address}").raise_for_status().text
        return ""

    asked = [command for command in COMMANDS if command.startswith("curl ")]
    assert len(asked) == 2
    try:
        wait_until(lambda: curl(asked[0]), START_SECONDS, f"the server, see {log}")
        assert '"status":"UP"' in curl(asked[0]).replace(" ", "")
        assert "backend_workers" in curl(asked[1])
        assert (tmp_path / "data2").is_dir()
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(60)


def test_demo_clean_removes_the_demos_data(tmp_path: Path) -> None:
    folder = tmp_path / "demo-data"
    (folder / "videos").mkdir(parents=True)
    subprocess.run(["make", "demo-clean"], cwd=ROOT, env=dict(os.environ) | {"DEMO_DATA": str(folder)}, check=True)
    assert not folder.exists()


@pytest.mark.skipif(not shutil.which("docker-compose"), reason="docker-compose isn't installed")
def test_the_compose_file_is_accepted_with_every_profile() -> None:
    for profile in ([], ["--profile", "gpu"], ["--profile", "scale"]):
        ended = subprocess.run(
            ["docker-compose", *profile, "config", "--services"], cwd=ROOT, capture_output=True, text=True
        )
        assert ended.returncode == 0, ended.stderr
        assert {"label-studio", "backend"} <= set(ended.stdout.split())


def test_the_image_is_given_all_that_its_programs_import(tmp_path: Path) -> None:
    image = tmp_path / "app"
    image.mkdir()
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        for path in ROOT.glob(line[1:]) if line.startswith("!") else ():
            (shutil.copytree if path.is_dir() else shutil.copy)(path, image / path.name)
    folders = {name: str(tmp_path / name) for name in ("DATA_DIR", "CACHE_DIR", "MODEL_ROOT")}
    environment = clean_environment(**folders, HTTPS_PROXY=NO_INTERNET)
    for program in (["-m", "gunicorn", "--check-config", "_wsgi:app"], ["cli.py", "--help"]):
        ended = subprocess.run([sys.executable, *program], cwd=image, env=environment, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr


KNOWN_TOKEN = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("environment", "refused"),
    [
        ({}, False),
        ({"LABEL_STUDIO_PASSWORD": "label-timelines", "BASIC_AUTH_PASS": ""}, False),
        ({"BIND": "127.0.0.1", "LABEL_STUDIO_API_KEY": KNOWN_TOKEN}, False),
        ({"BIND": "0.0.0.0", "LABEL_STUDIO_API_KEY": "mine", "BASIC_AUTH_PASS": "mine"}, False),
        ({"BIND": "0.0.0.0", "LABEL_STUDIO_API_KEY": KNOWN_TOKEN, "BASIC_AUTH_PASS": "mine"}, True),
        ({"BIND": "192.168.1.5", "LABEL_STUDIO_USER_TOKEN": KNOWN_TOKEN}, True),
        ({"BIND": "0.0.0.0", "LABEL_STUDIO_PASSWORD": "label-timelines"}, True),
        ({"BIND": "::", "BASIC_AUTH_PASS": ""}, True),
    ],
)
def test_compose_publishes_nothing_with_secrets_that_everybody_knows(
    environment: dict[str, str], refused: bool
) -> None:
    guard = ["sh", "compose-guard.sh", "echo", "started"]
    ended = subprocess.run(guard, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert ended.returncode == refused
    assert ended.stdout == ("" if refused else "started\n")
    assert ("in .env" in ended.stderr) == refused


@pytest.mark.skipif(not shutil.which("docker-compose"), reason="docker-compose isn't installed")
def test_the_containers_are_confined() -> None:
    command = ["docker-compose", "--profile", "gpu", "--profile", "scale", "config"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    services = yaml.safe_load(ended.stdout)["services"]
    assert {"label-studio", "backend", "backend-gpu", "web", "worker", "database"} == set(services)
    for name, service in services.items():
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service.get("read_only", False) == (name not in ("label-studio", "database"))
        assert all("127.0.0.1" in str(port) for port in service.get("ports", ()))
