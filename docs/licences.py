"""Write docs/licences.md, the licences of what is installed: `make licences`.

    python docs/licences.py

The page lists every package that requirements.txt names and this environment has, with what its metadata says (the
License-Expression, the classifiers or the License), or else the title of its licence file. It names those that other
versions of Python need.
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

INTRODUCTION = """\
# Licences

This backend's code is under the Apache License 2.0. What it runs and contains has licences of its own:

- **Ultralytics** YOLO and its helper packages (`ultralytics-platform`, `ultralytics-thop`) are under the
  **AGPL-3.0**. Whoever serves a backend that uses them to others over a network must offer them the complete source
  code of the whole service under the AGPL, or hold an [Ultralytics Enterprise
  licence](https://www.ultralytics.com/license). That concerns you when you change this backend or build it into a
  product.
- **Without Ultralytics.** A backend that uses the bundled weights or `timm/` models alone runs no code of
  Ultralytics', and works without its packages: `pip uninstall ultralytics-opencv-headless`.
- **Weights.** The bundled EfficientNet-Lite0 weights are under Apache-2.0. The weights of a model of timm have the
  licence that its page on the hub names (DINOv2: Apache-2.0; DINOv3: Meta's own; several others: non-commercial).
- **FFmpeg.** PyAV's wheels contain FFmpeg with x264 and x265 (LGPL and GPL).
- **Formats.** What reads and writes the files of SLEAP and NWB (sleap-io, PyNWB: BSD) is installed only when wanted.
  Praat (praat-parselmouth: GPL-3.0), pympi-ling and pyannote (MIT) read files in tests alone.
- **Other packages.** psycopg is under the LGPL-3.0; certifi, tqdm and pathspec are under the MPL-2.0; CUDA's
  libraries are under NVIDIA's own, proprietary licence; the rest are under permissive ones (BSD, MIT, Apache-2.0).

## What is installed

`make licences` makes this page from the packages that `requirements.txt` locks. Each package's licence is in the
package's own words.
"""
ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "licences.md"
# Licences that ask for more than attribution, and what they ask. The first one that a licence's text contains counts.
NOTABLE = {
    "AGPL": "AGPL: whoever is served over a network may ask for the service's source; Ultralytics sells other licences",
    "LGPL": "LGPL: users may replace the library",
    "MPL": "MPL: changes of its own files must be published",
    "NVIDIA": "NVIDIA's own: proprietary, may be passed on as it is",
    "Proprietary": "proprietary, of NVIDIA too",
}


def licence(package: Distribution) -> str:
    """The licence that a package's metadata names."""
    metadata = package.metadata
    classifiers = [line.rpartition(" :: ")[2] for line in metadata.get_all("Classifier") or [] if "License" in line]
    said = metadata.get("License-Expression") or "; ".join(classifiers) or metadata.get("License", "UNKNOWN")
    return " ".join((_title(package) if said == "UNKNOWN" else said).split())[:80]


def _title(package: Distribution) -> str:
    """The first two lines of a package's licence file."""
    for file in package.files or ():
        if file.name == "LICENSE":
            return " ".join([line for line in file.read_text().splitlines() if line.strip()][:2])
    return "not said"


def locked() -> tuple[list[tuple[str, str, str]], list[str]]:
    """(name, version, licence) of each locked package that is installed, by name; and the names of the others."""
    names = re.findall(r"^([A-Za-z0-9_.-]+)==", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    found, others = {}, set()
    for name in names:
        try:
            package = distribution(name)
        except PackageNotFoundError:
            others.add(name)
            continue
        found[name] = (name, package.version, licence(package))
    return sorted(found.values()), sorted(others)


def page(packages: list[tuple[str, str, str]], others: list[str]) -> str:
    """The page's Markdown."""
    notable = {kind: [name for name, _, said in packages if kind.lower() in said.lower()] for kind in NOTABLE}
    taken: set[str] = set()
    lines = [INTRODUCTION]
    for kind, names in notable.items():
        names = [name for name in names if name not in taken]
        taken |= set(names)
        if names:
            lines.append(f"- {NOTABLE[kind]}: {', '.join(names)}")
    if others:
        python = ".".join(map(str, sys.version_info[:2]))
        lines.append(
            f"- locked for other versions of Python than {python}, and so not in the table: {', '.join(others)}"
        )
    lines += ["", "| package | version | licence |", "| --- | --- | --- |"]
    lines += [f"| {name} | {version} | {said} |" for name, version, said in packages]
    return "\n".join(lines) + "\n"


def main() -> None:
    PAGE.write_text(page(*locked()))
    print(PAGE.relative_to(ROOT))


if __name__ == "__main__":
    main()
