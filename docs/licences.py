"""Write docs/licences.md, the licences of what is installed: `make licences`.

    python docs/licences.py

The page lists every package that requirements.txt names and this environment has, with what its metadata says: the
License-Expression, the classifiers or the License.
"""

from __future__ import annotations

import re
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

`make licences` makes this page. Each package's licence is in the package's own words.
"""
ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "licences.md"
# Licences that ask for more than attribution, and what they ask. The first one that a licence's text contains counts.
NOTABLE = {
    "AGPL": "AGPL: whoever is served over a network may ask for the source of the whole; Ultralytics sells others",
    "LGPL": "LGPL: users may replace the library",
    "MPL": "MPL: changes of its own files must be published",
    "NVIDIA": "NVIDIA's own: proprietary, may be passed on as it is",
    "Proprietary": "proprietary",
}


def licence(package: Distribution) -> str:
    """The licence that a package's metadata names."""
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
    lines = [INTRODUCTION]
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
