"""The terminal commands, on the state and the models that a server left."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from typer.testing import CliRunner

import cli
from errors import NotReady
from ml_backend.settings import Settings, get_settings
from ml_backend.store import Store
from tests.servers import annotation, region
from tests.videos import write_video

CONFIG = (
    '<View><TimelineLabels name="tl" toName="video" model_trainable="true"><Label value="Red"/></TimelineLabels>'
    '<Video name="video" value="$video" frameRate="25"/></View>'
)
RED, GREY = (220, 30, 30), (120, 120, 120)


@pytest.fixture
def project(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """Project 1 with three annotated videos; the commands read these settings from the environment."""
    for name in ("data_dir", "cache_dir", "model_root", "local_files_document_root"):
        monkeypatch.setenv(name.upper(), str(getattr(settings, name)))
    get_settings.cache_clear()
    store = Store(settings.database)
    for number in (1, 2, 3):
        path = settings.local_files_document_root / f"{number}.mp4"
        write_video(path, [GREY] * 10 * number + [RED] * 30 + [GREY] * 30, size=(64, 64))
        task = {"id": number, "data": {"video": str(path)}}
        drawn = annotation(number, region(10 * number + 1, 10 * number + 30, "Red"))
        store.save_annotations("1", CONFIG, [(task, drawn)], "ANNOTATION_CREATED")
    store.close()
    yield settings
    get_settings.cache_clear()


def run(*arguments: str) -> Any:
    return CliRunner().invoke(cli.app, arguments, catch_exceptions=False)


def test_train_predict_and_evaluate(project: Settings) -> None:
    video = str(project.local_files_document_root / "1.mp4")
    with pytest.raises(NotReady):
        run("predict", video, "--project", "1")
    result = run("train", "--project", "1")
    assert "3 videos, published as v1" in result.stdout
    prediction = json.loads(run("predict", video, "--project", "1").stdout)
    (found,) = prediction["result"]
    assert abs(found["value"]["ranges"][0]["start"] - 11) <= 2
    assert abs(found["value"]["ranges"][0]["end"] - 40) <= 2
    assert prediction["model_version"].endswith("-v1")
    result = run("evaluate", "--project", "1", "--leave-one-out")
    assert "published" in result.stdout
    (row,) = [line.split() for line in result.stdout.splitlines() if line.split()[:1] == ["Red"]]
    precision, recall, f1, segment_f1 = map(float, row[1:])
    assert f1 == pytest.approx(2 * precision * recall / (precision + recall), abs=0.002)
    assert f1 > 0.8
    assert segment_f1 > 0.6


def test_an_unknown_project_is_a_sentence(
    project: Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["cli.py", "evaluate", "--project", "77", "--leave-one-out"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    assert "Project 77 isn't known" in capsys.readouterr().err
