"""README_DEVELOP's picture is true: a room imports only from those below it, and no imports form a circle."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter

from tests.servers import ROOT

PAGE = (ROOT / "README_DEVELOP.md").read_text()
PICTURE = PAGE.split("## The rooms", 1)[1].split("```", 2)[1]


def modules() -> dict[str, str]:
    """Name of each module of the product -> its path in the repository."""
    folders = [path.parent for path in ROOT.glob("*/__init__.py") if path.parent.name not in ("tests", "benchmarks")]
    files = [*ROOT.glob("*.py"), *(file for folder in folders for file in folder.rglob("*.py"))]
    paths = [file.relative_to(ROOT).as_posix() for file in files]
    return {re.sub("/__init__$", "", path.removesuffix(".py")).replace("/", "."): path for path in paths}


MODULES = modules()


def imported(tree: ast.AST) -> Iterator[str]:
    """The modules of the product that a module needs; not those that only type checkers import."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module:
            named = [f"{node.module}.{alias.name}" for alias in node.names]
            inner = [name for name in named if name in MODULES]
            yield from inner or [node.module] * (node.module in MODULES)
        yield from imported(node)


IMPORTS = {name: set(imported(ast.parse((ROOT / path).read_text()))) for name, path in MODULES.items()}


def rooms() -> list[tuple[int, str]]:
    """(line of the picture, path of a room or of a module beside none), the longest paths first."""
    found = []
    for number, line in enumerate(PICTURE.splitlines()):
        folder = ""
        for word in line.split("  "):
            match = re.fullmatch(r"[│ ]*([\w/.]+(?:/|\.py))", word)
            if match:
                path = match[1] if "/" in match[1] else folder + match[1]
                folder = path.rpartition("/")[0] + "/" if "/" in path and path.endswith(".py") else folder
                found.append((number, path))
    return sorted(found, key=lambda room: -len(room[1]))


ROOMS = rooms()


def line_of(module: str) -> int | None:
    """The picture's line that a module stands in."""
    path = MODULES[module]
    return next((line for line, room in ROOMS if path == room or (room.endswith("/") and path.startswith(room))), None)


def test_every_module_stands_in_a_room() -> None:
    assert [name for name in MODULES if line_of(name) is None] == [
        "ml_backend"
    ]  # its `__init__`, which names the contract


def test_rooms_import_downwards() -> None:
    upwards = [
        (name, other)
        for name, others in IMPORTS.items()
        for other in others
        if "ml_backend" not in (name, other) and line_of(other) < line_of(name)
    ]
    assert upwards == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert list(TopologicalSorter(IMPORTS).static_order())
