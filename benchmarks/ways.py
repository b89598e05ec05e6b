"""How many modules a webhook, a fit and a /predict pass, and which calls lead to a room above.

    python -m benchmarks.ways

A project of one drawn video is annotated, learnt and predicted, in one process. Every call of a function of the product
is traced. A call climbs where README_DEVELOP's picture has the called module in a line above the caller's.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from ml_backend import init_app
from ml_backend.settings import Settings
from model import YOLO
from tests.servers import ROOT, annotation, region
from tests.test_rooms import MODULES, line_of
from tests.videos import write_video
from tests.work import work_off

CONFIG = (
    '<View><TimelineLabels name="tl" toName="video" model_trainable="true"><Label value="Red"/></TimelineLabels>'
    '<Video name="video" value="$video" frameRate="25"/></View>'
)
NAMES = {str(ROOT / path): name for name, path in MODULES.items()}


def module_of(frame: FrameType | None) -> str | None:
    """The product's module that a frame, or the nearest one that called it, belongs to."""
    while frame is not None and frame.f_code.co_filename not in NAMES:
        frame = frame.f_back
    return NAMES[frame.f_code.co_filename] if frame is not None else None


@contextmanager
def traced(name: str) -> Iterator[None]:
    """Traces this thread's calls inside the block, and prints the modules and the calls that climb."""
    calls: set[tuple[str | None, str]] = set()

    def on_event(frame: FrameType, event: str, _argument: object) -> None:
        if event == "call" and frame.f_code.co_filename in NAMES:
            calls.add((module_of(frame.f_back), NAMES[frame.f_code.co_filename]))

    sys.setprofile(on_event)
    try:
        yield
    finally:
        sys.setprofile(None)
    lines = {module: line_of(module) for _, module in calls}
    climbs = [
        f"{caller} → {called}" for caller, called in sorted(calls, key=str) if lines.get(caller, 0) > lines[called]
    ]
    print(f"{name}: {len(lines)} modules, {len(climbs)} climbs {climbs}\n    {' '.join(sorted(lines))}")


def main() -> None:
    """Prints the three ways."""
    folder = Path(tempfile.mkdtemp(prefix="ways-"))
    (folder / "videos").mkdir()
    names = {"data_dir": "data", "cache_dir": "cache", "model_root": "models", "local_files_document_root": "videos"}
    app = init_app(YOLO, settings=Settings(**{key: folder / name for key, name in names.items()}))
    client = app.test_client()
    video = write_video(folder / "videos" / "1.mp4", [(120, 120, 120)] * 30 + [(220, 30, 30)] * 30, size=(64, 64))
    task = {"id": 1, "data": {"video": str(video)}}
    client.post("/setup", json={"project": "1", "schema": CONFIG})
    drawn = annotation(1, region(31, 60, "Red"))
    project = {"id": 1, "label_config": CONFIG}
    event = {"action": "ANNOTATION_CREATED", "project": project, "task": task, "annotation": drawn}
    with traced("webhook"):
        assert client.post("/webhook", json=event).status_code == 201
    with traced("fit, and the fresh predictions after it"):
        work_off(app.extensions["jobs"])
    with traced("/predict"):
        answer = client.post("/predict", json={"project": "1", "label_config": CONFIG, "tasks": [task]})
    assert answer.json["results"][0]["result"]


if __name__ == "__main__":
    main()
