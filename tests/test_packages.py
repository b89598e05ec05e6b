"""What is imported is declared, what is declared is imported, and what is locked has hashes."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from terminal.formats.registry import FORMATS
from tests.servers import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomllib", reason="needs Python 3.11")

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Run by a name of their own, or needed by another package.
COMMANDS = {"gunicorn", "pytest-xdist", "ruff"}
# A package that is one compiled module, which its metadata doesn't name.
COMPILED = {"parselmouth": ["praat-parselmouth"]}
EXTRAS = ("nwb", "sleap")  # libraries of formats
DEVELOPMENT = ("tests/", "benchmarks/", "docs/")


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(requirements: list[str]) -> set[str]:
    return {canonical(re.match(r"[\w.-]+", text).group()) for text in requirements}


def imported(files: list[str]) -> set[str]:
    """The packages that Python files import by name, those of the standard library and of this repository left out."""
    modules = set()
    for file in files:
        for node in ast.walk(ast.parse((ROOT / file).read_text())):
            if isinstance(node, ast.Import):
                modules |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                modules.add(node.module.partition(".")[0])
    installed = COMPILED | packages_distributions()
    return {canonical(name) for module in modules for name in installed.get(module, ())}


@pytest.fixture(scope="module")
def files() -> list[str]:
    listed = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not in a git repository")
    return [file for file in listed.stdout.splitlines() if (ROOT / file).exists()]


def test_imports_are_declared_and_what_is_declared_is_imported(files: list[str]) -> None:
    needed = declared(PROJECT["dependencies"])
    development = declared(PROJECT["optional-dependencies"]["dev"])
    optional = {name for extra in EXTRAS for name in declared(PROJECT["optional-dependencies"][extra])}
    program = imported([file for file in files if not file.startswith(DEVELOPMENT)])
    assert program - needed - optional == set()
    assert needed - program - COMMANDS == set()
    others = imported([file for file in files if file.startswith(DEVELOPMENT)])
    assert others - needed - development - optional == set()
    assert development - others - COMMANDS == set()


def test_what_is_said_to_install_for_a_format_is_what_is_declared() -> None:
    said = {form.needs.requirement for form in FORMATS.values() if form.needs}
    assert said == {text for extra in EXTRAS for text in PROJECT["optional-dependencies"][extra]}


def test_every_file_that_the_project_file_names_exists() -> None:
    for path in re.findall(r"[\w/-]+\.(?:py|txt)\b", (ROOT / "pyproject.toml").read_text()):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("path", sorted(ROOT.glob("requirements*.txt")), ids=lambda path: path.name)
def test_every_locked_package_has_hashes(path: Path) -> None:
    text = path.read_text()
    packages = [line for line in text.replace("\\\n", " ").splitlines() if line and not line.lstrip().startswith("#")]
    assert packages
    assert all("==" in line and "--hash=sha256:" in line for line in packages)


def test_the_licence_of_every_locked_package_is_listed() -> None:
    page = (ROOT / "docs" / "licences.md").read_text()
    listed = dict(re.findall(r"^\| ([\w.-]+) \| ([\w.]+) \|", page, re.MULTILINE))
    others = re.findall(r"[\w.-]+", page.partition("not in the table: ")[2].partition("\n")[0])
    locked: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE):
        locked.setdefault(name, set()).add(version)
    assert set(locked) == {*listed, *others} - {"package"}
    assert [name for name, version in listed.items() if version not in locked.get(name, version)] == []


def test_the_small_cudnn_is_of_the_large_ones_version() -> None:
    (version,) = re.findall(r"^nvidia-cudnn-cu13==(\S+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    assert f"nvidia-cudnn-jit-cu13=={version} " in (ROOT / "requirements-no-gpu.txt").read_text()


@pytest.mark.parametrize("torch", ["cuda", "no-gpu"])
def test_a_package_of_another_hash_is_not_installed(tmp_path: Path, torch: str) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    (tmp_path / "requirements.txt").write_text(f"typer==0.19.2 --hash=sha256:{'0' * 64}\n")
    install = ["sh", "install.sh", f"{sys.prefix}/bin/uv", tmp_path / "venv/bin/python", tmp_path / "requirements.txt"]
    ended = subprocess.run([*install, torch], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 1
    assert not list((tmp_path / "venv").rglob("typer"))


def test_where_wheels_for_cpus_come_from_is_said_where_they_cant_be_had(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    install = ["sh", "install.sh", f"{sys.prefix}/bin/uv", tmp_path / "venv/bin/python", "requirements.txt", "cpu"]
    ended = subprocess.run(
        install, cwd=ROOT, env=os.environ | {"TORCH_INDEX": "http://127.0.0.1:9/cpu"}, capture_output=True, text=True
    )
    assert ended.returncode == 1
    assert "wheels for CPUs come from http://127.0.0.1:9/cpu; TORCH_INDEX names another place" in ended.stderr


@pytest.mark.parametrize(
    ("installed", "gpu", "kind"),
    [
        ("", False, "no-gpu"),
        ("", True, "cuda"),
        ("no-gpu", True, "cuda"),
        ("cpu", True, "cpu"),
        ("cuda", False, "cuda"),
    ],
)
def test_a_machine_with_a_gpu_gets_all_of_cuda(tmp_path: Path, installed: str, gpu: bool, kind: str) -> None:
    if not gpu and (shutil.which("nvidia-smi") or list(Path("/dev").glob("nvidia*"))):
        pytest.skip("there is a GPU")
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "bin").mkdir()
    (tmp_path / ".venv").mkdir()
    if gpu:
        (tmp_path / "bin" / "nvidia-smi").write_text("#!/bin/sh\n")
        (tmp_path / "bin" / "nvidia-smi").chmod(0o755)
    if installed:
        (tmp_path / ".venv" / "torch").write_text(installed)
    (tmp_path / "requirements-dev.txt").touch()  # newer than what is installed
    environment = os.environ | {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    environment.pop("TORCH", None)
    command = ["make", "--dry-run", "--always-make", ".venv"]
    printed = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout
    assert f"requirements-dev.txt {kind} " in printed
