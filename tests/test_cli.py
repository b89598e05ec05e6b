"""The terminal commands, on the state and the models that a server left, and on files."""

from __future__ import annotations

import csv
import io
import json
import locale
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.torch import save_file
from typer.testing import CliRunner

import cli
from errors import BackendError, InvalidAnnotation, InvalidRequest, NotReady
from ml_backend.context import Services
from ml_backend.settings import Settings, get_settings
from ml_backend.store import Store
from ml_backend.store.tables import TrainingStatus
from model import YOLO
from terminal.common import Backend
from tests.servers import ROOT, annotation, region
from tests.stand_in import StandIn
from tests.videos import write_video

CONFIG = (
    '<View><TimelineLabels name="tl" toName="video" model_trainable="true"><Label value="Red" background="#ff0000"/>'
    '</TimelineLabels><Video name="video" value="$video" frameRate="25"/></View>'
)
SIMPLE = CONFIG.replace('model_trainable="true"', "").replace(
    'value="Red"', 'value="Red" predicted_values="wall_clock"'
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


def run(*arguments: str, code: int = 0, answer: str = "") -> Any:
    result = CliRunner().invoke(cli.app, arguments, catch_exceptions=False, input=answer)
    assert result.exit_code == code, result.output
    return result


def refused(error: type[BackendError], *arguments: str) -> str:
    with pytest.raises(error) as raised:
        run(*arguments)
    return str(raised.value)


def frames(result: list[dict[str, Any]]) -> tuple[int, int]:
    (found,) = result
    return found["value"]["ranges"][0]["start"], found["value"]["ranges"][0]["end"]


def test_tasks_are_predicted_and_stored_once_in_label_studio(project: Settings, tmp_path: Path) -> None:
    store = Store(project.database)
    store.update_project("1", label_config=SIMPLE)
    store.close()
    label_studio = StandIn(tasks=4)
    for number in (1, 2, 3):
        label_studio.tasks[number] = {"video": str(project.local_files_document_root / f"{number}.mp4")}
    label_studio.tasks[4] = {"video": str(project.local_files_document_root / "gone.mp4")}
    to_it = ("--project", "1", "--ls-url", label_studio.url, "--ls-api-key", "a" * 40)
    ids = tmp_path / "ids.json"
    ids.write_text('[2, {"id": 4}]')
    try:
        first = json.loads(run("predict", *to_it, "--tasks", str(ids), "--json", code=4).stdout)
        assert [(one["task"], "gone.mp4" in one.get("error", "")) for one in first] == [(2, False), (4, True)]
        printed = run("predict", *to_it, "--tasks", "1,2,3").output
        assert "Task 2 has a prediction of" in printed
        assert "Task 3: " in printed
        assert "stored" in printed
        assert {task: len(versions) for task, versions in label_studio.versions().items()} == {1: 1, 2: 1, 3: 1}
        assert "has no task 9" in refused(InvalidRequest, "predict", *to_it, "--tasks", "1,9")
        assert "--tasks takes ids" in refused(InvalidRequest, "predict", *to_it, "--tasks", "one")
        assert "There is no file" in refused(InvalidRequest, "predict", "gone.mp4", "--project", "1")
    finally:
        label_studio.http.shutdown()
        label_studio.http.server_close()


def test_a_project_from_training_to_rollback(project: Settings, tmp_path: Path) -> None:
    """One after the other, since a training takes its time: each command on what the one before left."""
    video = str(project.local_files_document_root / "1.mp4")
    refused(NotReady, "predict", video, "--project", "1")
    trained = json.loads(run("train", "--project", "1", "--json").stdout)
    assert trained["tl"]["tasks"] == 3
    assert trained["tl"]["version"] == 1

    prediction = json.loads(run("predict", video, "--project", "1").stdout)
    assert np.abs(np.subtract(frames(prediction["result"]), (11, 40))).max() <= 2
    assert prediction["model_version"].endswith("-v1 (3 videos)")

    label_studio = StandIn(tasks=4)
    for number, name in ((1, "1.mp4"), (4, "2.mp4")):  # task 4 isn't annotated
        label_studio.tasks[number] = {"video": str(project.local_files_document_root / name)}
    to_it = ("--project", "1", "--tasks", "1,4", "--ls-url", label_studio.url, "--ls-api-key", "a" * 40)
    run("predict", *to_it)

    # A path is a path, wherever it lies; a broken file doesn't stop the others.
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    write_video(elsewhere / "new.mp4", [GREY] * 25 + [RED] * 30 + [GREY] * 10, size=(64, 64))
    (elsewhere / "broken.mp4").write_bytes(b"no video")
    labelled = run("label", str(elsewhere), "--project", "1", code=4)
    assert "broken.mp4" in labelled.stderr
    (task,) = json.loads(labelled.stdout)
    assert task["data"]["video"] == f"/data/local-files/?d={str(elsewhere / 'new.mp4').lstrip('/')}"
    assert np.abs(np.subtract(frames(task["predictions"][0]["result"]), (26, 55))).max() <= 2
    events = run("label", str(elsewhere / "new.mp4"), "--project", "1", "--format", "events").stdout
    (event,) = csv.DictReader(io.StringIO(events))
    assert event["label"] == "Red"
    assert abs(float(event["start_seconds"]) - 1) < 0.1

    run("label", str(elsewhere / "new.mp4"), "--project", "1", "--format", "mp4", "--output", str(tmp_path / "drawn"))
    with av.open(str(tmp_path / "drawn" / "new.timeline.mp4")) as container:
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(pictures) == 65
    strip = pictures[40][64:]
    red = (strip[..., 0] > 180) & (strip[..., 1] < 80) & (strip[..., 2] < 80)
    assert red.any(axis=0).mean() > 0.3  # 30 of 65 frames
    assert not ((pictures[5][64:, :60, 0] > 180) & (pictures[5][64:, :60, 1] < 80)).any()  # its name isn't lit yet
    assert pictures[5][-2:, :60].max() < 90  # the time stands above the picture's edge

    exported = tmp_path / "events.csv"
    run("export", "--project", "1", "--what", "both", "--output", str(exported))
    rows = list(csv.DictReader(exported.open()))
    assert {row["source"] for row in rows if not row["score"]} == {"annotation 1", "annotation 2", "annotation 3"}
    assert sum(bool(row["score"]) for row in rows) >= 3
    imported = json.loads(run("import", str(exported), "--project", "1").stdout)
    assert imported[0]["data"] == {"video": "/data/local-files/?d=1.mp4"}
    assert frames(imported[0]["annotations"][0]["result"]) == (11, 40)
    boris = tmp_path / "project.boris"
    run("export", "--project", "1", "--format", "boris", "--output", str(boris))
    assert len(json.loads(run("import", str(boris), "--project", "1").stdout)) == 3

    rttm = tmp_path / "events.rttm"
    run("export", "--project", "1", "--format", "rttm", "--output", str(rttm))
    imported = json.loads(run("import", str(rttm), "--project", "1", "--suffix", ".mp4").stdout)
    assert [task["data"]["video"].rpartition("=")[2] for task in imported] == ["1.mp4", "2.mp4", "3.mp4"]
    assert [len(task["annotations"]) for task in imported] == [1, 1, 1]
    assert frames(imported[0]["annotations"][0]["result"]) == (11, 40)

    folder = tmp_path / "of ELAN"
    run("export", "--project", "1", "--what", "both", "--format", "elan", "--output", str(folder))
    assert sorted(path.name for path in folder.iterdir()) == ["1.eaf", "2.eaf", "3.eaf"]
    documents = [str(path) for path in sorted(folder.iterdir())]
    imported = json.loads(run("import", *documents, "--project", "1").stdout)
    assert [task["data"]["video"] for task in imported] == [f"/data/local-files/?d={n}.mp4" for n in (1, 2, 3)]
    assert [len(task["annotations"]) for task in imported] == [2, 2, 2]
    assert frames(imported[2]["annotations"][0]["result"]) == (31, 60)
    run("label", video, "--project", "1", "--format", "textgrid", "--output", str(folder))
    assert b'text = "Red"' in (folder / "1.TextGrid").read_bytes()

    result = run("evaluate", "--project", "1", "--leave-one-out", "--report", str(tmp_path / "report"))
    (row,) = [line.split() for line in result.stdout.splitlines() if line.split()[:1] == ["Red"]]
    precision, recall, f1, segment_f1 = map(float, row[1:])
    assert f1 == pytest.approx(2 * precision * recall / (precision + recall), abs=0.002)
    assert f1 > 0.8
    assert segment_f1 > 0.6
    page = (tmp_path / "report" / "index.html").read_text()
    assert "<svg" in page
    assert "What was annotated" in page
    assert "3.60" in page  # seconds of red in the three videos
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")
    held_out = json.loads(run("evaluate", "--project", "1", "--hold-out", "2", "--json").stdout)
    assert held_out["held_out"]["tl"]["videos"] == 1

    shown = json.loads(run("status", "--json").stdout)
    assert shown["projects"][0]["annotated_tasks"] == 3
    assert shown["projects"][0]["model_version"] == prediction["model_version"]
    assert "up to date" in run("status").stdout
    assert json.loads(run("train", "--project", "1", "--json").stdout)["tl"]["version"] == 2
    run("predict", *to_it)
    label_studio.http.shutdown()
    label_studio.http.server_close()
    versions = [version.partition("-v")[2][:1] for number in (1, 4) for version in label_studio.versions()[number]]
    assert versions == ["1", "2", "2"]  # of the annotated task both
    assert "-v1 (3 videos) predicts now" in run("rollback", "--project", "1", "--yes").stdout
    assert json.loads(run("status", "--json").stdout)["projects"][0]["model_version"] == "v1 (rolled back)"
    assert json.loads(run("predict", video, "--project", "1").stdout)["model_version"].endswith("-v1 (3 videos)")
    assert "no version before" in refused(InvalidRequest, "rollback", "--project", "1", "--yes")
    store = Store(project.database)
    (gone,) = [version.file for version in store.versions("1") if version.version == 2]
    store.close()
    (project.model_root / gone).unlink()
    assert "isn't in MODEL_ROOT" in refused(InvalidRequest, "rollback", "--project", "1", "--version", "2", "--yes")
    assert json.loads(run("status", "--json").stdout)["projects"][0]["model_version"] == "v1 (rolled back)"
    run("reset", "--project", "1", code=1, answer="n\n")
    run("predict", video, "--project", "1")
    run("reset", "--project", "1", "--yes")
    assert json.loads(run("status", "--json").stdout)["projects"][0]["model_version"] is None
    refused(NotReady, "predict", video, "--project", "1")


def test_a_summary_of_files_that_no_training_read(project: Settings, tmp_path: Path) -> None:
    """Lengths are read from the files; red stands in 30 frames of each, from frame 11, 21 and 31 on."""
    shown = json.loads(run("summary", "--project", "1", "--json").stdout)
    assert [row["observed_seconds"] for row in shown] == [pytest.approx(one) for one in (2.8, 3.2, 3.6)]
    assert [row["latency_seconds"] for row in shown] == [0.4, 0.8, 1.2]
    assert {row["total_seconds"] for row in shown} == {1.2}
    wrong = refused(InvalidRequest, "summary", "--project", "1", "--by", "animal")
    assert wrong == "No task of project 1 has 'animal' in its data. It has 'video'."
    store = Store(project.database)
    for number, animal in ((1, "=A"), (2, "=A"), (3, "B")):
        data = {"video": str(project.local_files_document_root / f"{number}.mp4"), "animal": animal}
        drawn = annotation(number, region(10 * number + 1, 10 * number + 30, "Red"))
        store.save_annotations("1", CONFIG, [({"id": number, "data": data}, drawn)], "ANNOTATION_UPDATED")
    store.close()
    table = tmp_path / "study.csv"
    written = run("summary", "--project", "1", "--by", "animal", "--table", "subjects", "--csv", str(table)).stdout
    assert str(table) in written.replace("\n", "")
    first, second = csv.DictReader(table.open())
    assert (first["subject"], first["videos"], first["count"], first["total_seconds"]) == ("'=A", "2", "2", "2.4")
    assert (second["subject"], second["latency_seconds"], second["share"]) == ("B", "1.2", "0.333333")
    assert "latency" in run("summary", "--project", "1").stdout
    refused(NotReady, "summary", "--project", "1", "--from", "predictions")
    run("summary", "--project", "1", "--csv", str(tmp_path / "nowhere" / "a.csv"), code=2)


def test_brackets_and_colons_of_labels_and_names_are_printed_as_they_are(
    project: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    label, animal = "Tail [left] :cat:", "[/Rex]"
    store = Store(project.database)
    data = {"video": str(project.local_files_document_root / "1.mp4"), "animal": animal}
    config = CONFIG.replace('value="Red"', f'value="{label}"')
    pair = ({"id": 1, "data": data}, annotation(1, region(11, 40, label)))
    store.save_annotations("2", config, [pair], "ANNOTATION_CREATED")
    training = store.start_training("2", 1, 1)
    store.end_training(training, TrainingStatus.FAILED, 1.0, error=f"{animal} can't be read.", up_to_date=False)
    store.give_up_training("2")
    store.close()
    shown = run("summary", "--project", "2", "--by", "animal").stdout
    assert label in shown
    assert animal in shown
    assert animal in run("status", "--project", "2").stdout.replace("\n", "")
    monkeypatch.setattr("sys.argv", ["cli.py", "summary", "--project", animal])
    with pytest.raises(SystemExit):
        cli.main()
    assert f"Project {animal} isn't known here." in capsys.readouterr().err


def test_a_wrong_interval_is_found_and_what_is_confirmed_is_not_asked_again(project: Settings) -> None:
    store = Store(project.database)
    path = project.local_files_document_root / "4.mp4"
    write_video(path, [GREY] * 20 + [RED] * 30 + [GREY] * 50, size=(64, 64))
    wrong = annotation(4, region(21, 50, "Red"), region(61, 90, "Red"))
    store.save_annotations("1", CONFIG, [({"id": 4, "data": {"video": str(path)}}, wrong)], "ANNOTATION_CREATED")

    def look(*options: str) -> dict[str, Any]:
        return json.loads(run("review", "--project", "1", "--json", *options).stdout)

    found = look()
    first = found["doubts"][0]
    assert found["videos"] == 4
    assert (first["task"], first["annotation"]) == (4, 4)
    assert first["seconds"] == pytest.approx(2.4, abs=0.2)
    assert "annotated as Red" in first["text"]
    assert look()["at"] == found["at"], "nothing changed since"
    assert first["name"] in run("review", "--project", "1").stdout

    assert "1 confirmed" in run("review", "--project", "1", "--confirm", first["name"]).stdout
    assert first["name"] not in [one["name"] for one in look()["doubts"]]
    runner = Backend().runner  # the same as a job, which the page's button adds
    job = runner.jobs.add_review("1")
    runner.run(runner.claim())
    assert runner.jobs.status(job.id).result["videos"] == 4
    again = look()
    assert all(one["task"] != 4 for one in again["doubts"] if abs(one["seconds"] - 2.4) < 0.2)
    assert "was confirmed" in refused(InvalidRequest, "review", "--project", "1", "--confirm", first["name"])

    store.delete_tasks("1", [2, 3, 4])
    assert "at least two different videos" in refused(InvalidAnnotation, "review", "--project", "1")
    one = {"id": 5, "data": {"video": "a.mp4"}}
    store.save_annotations("2", SIMPLE, [(one, annotation(5, region(21, 50, "Red")))], "ANNOTATION_CREATED")
    assert "no timeline that is trained" in refused(InvalidRequest, "review", "--project", "2")
    store.save_annotations("2", SIMPLE, [(one, annotation(6, region(21, 40, "Red")))], "ANNOTATION_CREATED")
    shown = run("review", "--project", "2")
    assert "no timeline that is trained" in shown.stderr
    assert "Agreement on Red: kappa" in shown.stdout
    assert "Red: of the time that either of two annotators marked, both marked 67 %" in shown.stdout
    store.close()


@pytest.mark.parametrize(
    "command",
    [
        ("train",),
        ("evaluate",),
        ("summary",),
        ("review",),
        ("export",),
        ("reset", "--yes"),
        ("rollback", "--yes"),
        ("status",),
        ("check",),
        ("label", str(Path(__file__).parent)),
        ("import", __file__),
    ],
)
def test_an_unknown_project_is_an_error_and_makes_none(project: Settings, command: tuple[str, ...]) -> None:
    assert "Project 77 isn't known here. Known: 1." in refused(InvalidRequest, *command, "--project", "77")
    store = Store(project.database)
    assert [one.id for one in store.projects()] == ["1"]
    store.close()


def test_an_error_is_a_sentence_and_a_code(
    project: Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def main(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["cli.py", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code, capsys.readouterr().err

    video = str(project.local_files_document_root / "1.mp4")
    code, text = main("predict", video, "--project", "1")
    assert (code, "isn't trained yet" in text) == (3, True)
    code, text = main("evaluate", "--project", "1")
    assert (code, "was never trained" in text) == (3, True)
    code, text = main("predict", "nowhere.mp4", "--project", "1")
    assert (code, "There is no file" in text) == (1, True)
    code, text = main("label", video)
    assert (code, "--project" in text) == (2, True)
    code, text = main("evaluate", "--project", "1", "--hold-out", "9")
    assert (code, "No annotated task 9" in text) == (1, True)


def test_labels_of_the_networks_own_classes(project: Settings, tmp_path: Path) -> None:
    config = tmp_path / "config.xml"
    config.write_text(SIMPLE)
    video = str(project.local_files_document_root / "1.mp4")
    table = run("label", video, "--config", str(config), "--format", "frames").stdout
    rows = list(csv.DictReader(io.StringIO(table)))
    assert len(rows) == 70
    assert all(0 <= float(row["probability of Red"]) <= 1 for row in rows)
    # Where the frame rate is to come from the task, it is the file's own.
    config.write_text(SIMPLE.replace('frameRate="25"', 'frameRate="$fps"'))
    slow = write_video(tmp_path / "50% & über.mp4", [GREY] * 24, rate=12.5, size=(64, 64))
    assert len(run("label", str(slow), "--config", str(config), "--format", "frames").stdout.splitlines()) == 1 + 24
    (task,) = json.loads(run("label", str(slow), "--config", str(config)).stdout)
    served = f"/data/local-files/?d={str(tmp_path).lstrip('/')}/50%25%20%26%20%C3%BCber.mp4"
    assert task["data"] == {"video": served, "fps": 12.5}
    # Videos of one name in two folders have a file each.
    again = tmp_path / "again" / slow.name
    again.parent.mkdir()
    again.write_bytes(slow.read_bytes())
    drawn = tmp_path / "drawn"
    run("label", str(slow), str(again), "--config", str(config), "--format", "mp4", "--output", str(drawn))
    assert len(list(drawn.iterdir())) == 2


@pytest.mark.skipif(bool(sys.flags.utf8_mode), reason="Python ignores the locale in its UTF-8 mode")
def test_files_are_utf_8_in_every_locale(project: Settings, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    store = Store(project.database)
    video = project.local_files_document_root / "1.mp4"
    config = SIMPLE.replace("Red", "Läuft").replace("toName", 'score_threshold="0" toName')
    task = {"id": 1, "data": {"video": str(video)}}
    store.save_annotations("2", config, [(task, annotation(1, region(11, 40, "Läuft")))], "ANNOTATION_CREATED")
    store.close()
    (tmp_path / "config.xml").write_text(config, encoding="utf-8")
    events = tmp_path / "events.csv"
    events.write_text("video,label,start_seconds,stop_seconds\nä.mp4,Läuft,0,1\n", encoding="utf-8")
    table, imported, labelled = (tmp_path / name for name in ("table.csv", "imported.json", "labelled.json"))
    named = video.rename(video.with_name("ü.mp4"))

    request.addfinalizer(partial(locale.setlocale, locale.LC_CTYPE, locale.setlocale(locale.LC_CTYPE)))
    locale.setlocale(locale.LC_CTYPE, "C")
    run("summary", "--project", "2", "--csv", str(table))
    run("import", str(events), "--project", "2", "--output", str(imported))
    run("label", str(named), "--config", str(tmp_path / "config.xml"), "--output", str(labelled))
    assert "Läuft" in table.read_text(encoding="utf-8")
    assert "Läuft" in imported.read_text(encoding="utf-8")
    assert "Läuft" in labelled.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "command", ["", *(command.name or command.callback.__name__ for command in cli.app.registered_commands)]
)
def test_help(command: str) -> None:
    assert "Usage" in run(*filter(None, [command]), "--help").stdout


def test_ctrl_c_during_the_imports_says_nothing() -> None:
    verbose = [sys.executable, "-v", "cli.py", "status", "--watch"]  # names every import
    with subprocess.Popen(verbose, cwd=ROOT, stderr=subprocess.PIPE, text=True) as command:
        assert any(line.startswith("import 'typer.") for line in command.stderr)
        command.send_signal(signal.SIGINT)
        said = command.stderr.read()
    assert command.returncode == -signal.SIGINT
    assert "KeyboardInterrupt" not in said


def test_import_refuses_what_the_project_does_not_know(project: Settings, tmp_path: Path) -> None:
    table = tmp_path / "events.csv"
    table.write_text("video,label,start_seconds,stop_seconds\na.mp4,Blue,0,1\n")
    assert "no label 'Blue'" in refused(InvalidRequest, "import", str(table), "--project", "1")
    (tmp_path / "events.txt").write_text("")
    run("import", str(tmp_path / "events.txt"), "--project", "1", code=2)
    (tmp_path / "events.rttm").write_text("SPEAKER kick 1 0.4 0.8 <NA> <NA> Red <NA> <NA>\nSPEAKER kick 1 x\n")
    said = run("import", str(tmp_path / "events.rttm"), "--project", "1", code=2).stderr
    assert "such as suffix mp4" in " ".join(re.findall(r"\w+", said))  # from a framed box
    told = refused(InvalidRequest, "import", str(tmp_path / "events.rttm"), "--suffix", ".mp4", "--project", "1")
    assert told.startswith(f"{tmp_path}/events.rttm: Line 2 has 4 fields")


def test_a_file_that_cant_be_read_or_written_is_a_sentence_before_the_work(project: Settings, tmp_path: Path) -> None:
    video = str(project.local_files_document_root / "1.mp4")
    binary = tmp_path / "binary.csv"
    binary.write_bytes(b"\x87\x00\xff")
    assert "UTF-8" in refused(InvalidRequest, "import", str(binary), "--project", "1")
    assert "UTF-8" in refused(InvalidRequest, "label", video, "--config", str(binary))
    for output, reason in ((tmp_path, "is a folder"), (tmp_path / "missing" / "x", "There is no folder")):
        for command in (("export", "--project", "1"), ("label", video, "--project", "1")):
            words = re.findall(r"\w+", run(*command, "--output", str(output), code=2).stderr)  # from a framed box
            assert reason in " ".join(words)
    for command in (
        ("evaluate", "--report"),
        ("label", video, "--format", "mp4", "--output"),
        ("export", "--format", "elan", "--output"),
    ):
        folder = Path("/proc/report") if command[0] == "evaluate" else binary
        assert "can't be made" in refused(InvalidRequest, *command, str(folder), "--project", "1")


def test_a_table_that_names_no_video_has_its_name(project: Settings, tmp_path: Path) -> None:
    table = tmp_path / "kick.csv"
    table.write_text("label,start_seconds,stop_seconds\nRed,0.4,1.2\n")
    assert "a row names no video" in refused(InvalidRequest, "import", str(table), "--project", "1")
    (task,) = json.loads(run("import", str(table), "--suffix", ".mp4", "--project", "1").stdout)
    assert task["data"] == {"video": "/data/local-files/?d=kick.mp4"}


def test_a_local_file_keeps_its_folder(project: Settings, tmp_path: Path) -> None:
    table = tmp_path / "events.csv"
    names = ("/data/local-files/?d=day%201/kick.mp4", "/elsewhere/day 1/kick.mp4")
    table.write_text("video,label,start_seconds,stop_seconds\n" + "".join(f"{name},Red,0.4,1.2\n" for name in names))
    tasks = json.loads(run("import", str(table), "--project", "1").stdout)
    assert [task["data"]["video"] for task in tasks] == [names[0], "/data/local-files/?d=kick.mp4"]


def test_several_timelines_are_told_apart(project: Settings, tmp_path: Path) -> None:
    first, second = (CONFIG[CONFIG.index("<Time") : CONFIG.index("<Video")].replace('"tl"', f'"{n}"') for n in "ab")
    store = Store(project.database)
    store.update_project("1", CONFIG[: CONFIG.index("<Time")] + first + second + CONFIG[CONFIG.index("<Video") :])
    for number, one in enumerate("ab", start=1):
        drawn = annotation(number, region(11, 30, "Red") | {"from_name": one})
        store.save_annotations("1", None, [(store.known_task("1", number), drawn)], "ANNOTATION_UPDATED")
    store.close()
    rows = list(csv.DictReader(run("export", "--project", "1").stdout.splitlines()))
    assert [row["source"] for row in rows] == ["annotation 1, a", "annotation 2, b"]


def test_a_table_of_a_spreadsheet_may_begin_with_a_byte_order_mark(project: Settings, tmp_path: Path) -> None:
    table = tmp_path / "events.csv"
    table.write_text("label,start_seconds,stop_seconds,video\nRed,0.4,1.6,a & b.mp4\n", encoding="utf-8-sig")
    (task,) = json.loads(run("import", str(table), "--project", "1").stdout)
    assert task["data"] == {"video": "/data/local-files/?d=a%20%26%20b.mp4"}
    assert frames(task["annotations"][0]["result"]) == (11, 40)


def test_check_says_what_is_wrong_and_how_to_mend_it(project: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "set LABEL_STUDIO_URL" in run("check", code=1).stdout
    monkeypatch.setenv("LABEL_STUDIO_URL", "http://127.0.0.1:9")
    get_settings.cache_clear()
    assert "There is no key for Label Studio's API" in run("check", code=1).stdout
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "a" * 40)
    get_settings.cache_clear()
    assert "no connection" in run("check", code=1).stdout


def test_a_model_goes_to_another_server_as_a_file(
    project: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "walking.safetensors"
    assert "has no model yet" in refused(InvalidRequest, "export-model", "--project", "1", "--control", "tl", str(file))
    run("train", "--project", "1")
    run("export-model", "--project", "1", str(file))
    monkeypatch.setenv("MODEL_ROOT", str(tmp_path / "other server"))
    get_settings.cache_clear()
    assert "a project" in refused(InvalidRequest, "import-model", str(file), "--name", "12")
    assert 'model_start_from="walking"' in run("import-model", str(file)).output
    started = YOLO.bind(Services(get_settings(), None))(
        "2", CONFIG.replace("<TimelineLabels ", '<TimelineLabels model_start_from="walking" ')
    )
    video = {"id": 1, "data": {"video": str(project.local_files_document_root / "1.mp4")}}
    result = started.fit("ANNOTATION_CREATED", {"task": video, "annotation": annotation(1, region(11, 40, "Red"))})
    assert result["tl"]["learnt"]["Red"]["started from"] > 0.1
    with safe_open(file, "pt") as model:
        metadata, tensors = model.metadata(), {name: model.get_tensor(name) for name in model.keys()}  # noqa: SIM118
    for name in ("num_layers", "output_size", "input_size", "hidden_size"):
        made_up = json.loads(metadata["classifier"])
        made_up["architecture"][name] = 10**7
        save_file(tensors, file, {"classifier": json.dumps(made_up)})
        assert "isn't a model" in refused(InvalidRequest, "import-model", str(file))
    file.write_bytes(b"no model")
    assert "isn't a model" in refused(InvalidRequest, "import-model", str(file))
