"""The licences of what is installed, as a page: `make licences` writes docs/licences.md.

    python docs/licences.py

What a package says of itself (its metadata's License-Expression, classifiers or License), for every package that
requirements.txt names and this environment has.
"""

from __future__ import annotations

import re
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "licences.md"
# Those that ask for more than to be named, and what they ask; the first one that a licence's text has counts.
NOTABLE = {
    "AGPL": "AGPL: whoever is served over a network may ask for the source of the whole; Ultralytics sells others",
    "LGPL": "LGPL: the library may be replaced by its user",
    "MPL": "MPL: changes of its own files are published",
    "NVIDIA": "NVIDIA's own: proprietary, may be passed on as it is",
    "Proprietary": "proprietary",
}


def licence(package: Distribution) -> str:
    """What a package's metadata says."""
    metadata = package.metadata
    classifiers = [line.rpartition(" :: ")[2] for line in metadata.get_all("Classifier") or [] if "License" in line]
    said = metadata.get("License-Expression") or "; ".join(classifiers) or metadata.get("License") or "not said"
    return " ".join(said.split())[:80]


def installed() -> list[tuple[str, str, str]]:
    """(name, version, licence) of each locked package that is installed, by name."""
    names = re.findall(r"^([A-Za-z0-9_.-]+)==", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    found = {}
    for name in names:
        try:
            package = distribution(name)
        except PackageNotFoundError:  # for another Python version
            continue
        found[name] = (name, package.version, licence(package))
    return sorted(found.values())


def page(packages: list[tuple[str, str, str]]) -> str:
    """The page's Markdown."""
    notable = {kind: [name for name, _, said in packages if kind.lower() in said.lower()] for kind in NOTABLE}
    taken: set[str] = set()
    lines = ["# Licences of what is installed", "", "Made by `make licences`; each package's own words.", ""]
    for kind, names in notable.items():
        names = [name for name in names if name not in taken]
        taken |= set(names)
        if names:
            lines.append(f"- {NOTABLE[kind]}: {', '.join(names)}")
    lines += ["", "| package | version | licence |", "| --- | --- | --- |"]
    lines += [f"| {name} | {version} | {said} |" for name, version, said in packages]
    return "\n".join(lines) + "\n"


def main() -> None:
    PAGE.write_text(page(installed()))
    print(PAGE.relative_to(ROOT))


if __name__ == "__main__":
    main()
