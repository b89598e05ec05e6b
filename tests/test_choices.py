"""`<Choices>` of a video: labels of the video as a whole, beside a timeline and alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from label_studio_sdk.label_interface import LabelInterface
from typer.testing import CliRunner

import cli
from control_models import trained
from control_models.choices import ChoicesModel, ChoicesTag
from control_models.examples import Chosen
from control_models.timeline_labels import TimelineLabelsModel
from errors import InvalidAnnotation, InvalidConfig, InvalidRequest, NotReady
from learning.dataset import MAX_VIDEOS, Example
from ml_backend import init_app
from ml_backend.context import Services
from ml_backend.settings import Settings, get_settings
from ml_backend.store import Store
from model import YOLO
from tests.servers import annotation, region
from tests.videos import write_video
from utils.neural_nets import MultiLabelLSTM

COLOURS = {"Red": (220, 30, 30), "Green": (30, 200, 40), "Blue": (40, 60, 220)}
VIDEO = '<Video name="video" value="$video" frameRate="25"/>'
TIMELINE = '<TimelineLabels name="tl" toName="video" model_trainable="true"><Label value="Disc"/></TimelineLabels>'


def choices(attributes: str = 'model_trainable="true"', labels: tuple[str, ...] = tuple(COLOURS)) -> str:
    tags = "".join(f'<Choice value="{label}"/>' for label in labels)
    return f'<Choices name="kind" toName="video" {attributes}>{tags}</Choices>'


def config(*tags: str) -> str:
    return f"<View>{''.join(tags)}{VIDEO}</View>"


def chosen(*labels: str) -> dict[str, Any]:
    """A choice as Label Studio sends it."""
    value = {"choices": list(labels)}
    return {"id": "c1", "type": "choices", "from_name": "kind", "to_name": "video", "value": value}


def draw(folder: Path, number: int, colour: str) -> dict[str, Any]:
    """The task of a video over noise of its own, with a disc of a colour in frames 11 to 30 of 40, somewhere."""
    random = np.random.default_rng(number)
    noise = np.clip(random.integers(60, 180) + random.integers(-30, 30, (120, 160, 3)), 0, 255).astype(np.uint8)
    x, y, radius = random.integers(45, 115), random.integers(45, 75), random.integers(25, 40)
    rows, columns = np.mgrid[:120, :160]
    disc = (columns - x) ** 2 + (rows - y) ** 2 < radius**2

    def picture(frame: int) -> np.ndarray:
        image = noise.copy()
        if 10 <= frame < 30:
            image[disc] = COLOURS[colour]
        return image

    path = write_video(folder / f"{number}.mp4", picture, 40, size=(160, 120))
    return {"id": number, "data": {"video": str(path)}}


def labels_of(prediction: dict[str, Any]) -> list[str]:
    """What a prediction chooses."""
    return [label for r in prediction["result"] if r["type"] == "choices" for label in r["value"]["choices"]]


@pytest.fixture
def make_model(settings: Settings) -> Iterator[Callable[..., YOLO]]:
    store = Store(settings.database)
    store.update_project("1")
    yield lambda text: YOLO.bind(Services(settings, store))("1", text)
    store.close()


@pytest.fixture
def videos(settings: Settings) -> list[tuple[dict[str, Any], str]]:
    """Tasks and the colours that their videos show."""
    names = [*COLOURS] * 3
    return [(draw(settings.local_files_document_root, number, name), name) for number, name in enumerate(names, 1)]


# -- which tags are served


def kinds(model: YOLO) -> list[type]:
    return [type(part) for part in model.control_models]


def test_a_choice_that_names_nothing_of_a_model_is_left_to_people(make_model: Callable[..., YOLO]) -> None:
    asked = choices('choice="multiple"', ("good", "bad"))
    assert kinds(make_model(config(TIMELINE, asked))) == [TimelineLabelsModel]
    for left in ('model_trainable="true" model_skip="true"', 'model_trainable="true" perRegion="true"'):
        assert kinds(make_model(config(TIMELINE, choices(left)))) == [TimelineLabelsModel]
    with pytest.raises(InvalidConfig, match=r'<Choices model_trainable="true">'):
        make_model(config(asked))
    text = '<Text name="video" value="$text"/>'
    with pytest.raises(InvalidConfig, match="no control tag"):
        make_model(f"<View>{choices()}{text}</View>")
    assert kinds(make_model(config(choices(), TIMELINE))) == [ChoicesModel, TimelineLabelsModel]


@pytest.mark.parametrize(("attribute", "allowed"), [("model_trainable", "true or false"), ("model_skip", "true or")])
def test_a_wrong_attribute_is_named(make_model: Callable[..., YOLO], attribute: str, allowed: str) -> None:
    with pytest.raises(InvalidConfig, match=f'<Choices name="kind">: {attribute}="maybe".*{allowed}'):
        make_model(config(choices(f'{attribute}="maybe"')))


def test_a_tag_may_have_labels_that_are_not_its_children() -> None:
    class Rating(ChoicesTag):
        control_type = "Rating"

        def named_labels(self) -> list[str]:
            return [str(number + 1) for number in range(int(self.control.attr["maxRating"]))]

    (control,) = LabelInterface(config('<Rating name="rating" toName="video" maxRating="3"/>')).controls
    tag = Rating(control, 0.5)
    assert tag.labels == ["1", "2", "3"]
    assert len({tag.colours[label] for label in tag.labels}) == 3


# -- simple mode


def test_simple_mode_takes_the_mean_of_the_frames(
    make_model: Callable[..., YOLO], videos: list[tuple[dict[str, Any], str]]
) -> None:
    task, _ = videos[0]
    model = make_model(config(choices('model_score_threshold="0"', ("soccer_ball", "Tabby"))))
    model.extract(task)
    (part,) = model.control_models
    features = part.videos.cached(task)
    columns = {name: index for index, name in part.encoder.class_names.items()}
    means = features.probs.mean(axis=0)
    expected = {"soccer_ball": means[columns["soccer_ball"]], "Tabby": means[columns["tabby"]]}
    prediction = model.predict([task]).predictions[0]
    assert labels_of(prediction) == [max(expected, key=expected.__getitem__)]
    assert prediction["result"][0]["score"] == pytest.approx(max(expected.values()), rel=1e-4)
    both = make_model(config(choices('model_score_threshold="0" choice="multiple"', ("soccer_ball", "Tabby"))))
    assert labels_of(both.predict([task]).predictions[0]) == ["soccer_ball", "Tabby"]
    sure = make_model(config(choices('model_score_threshold="0.99"', ("soccer_ball", "Tabby"))))
    assert sure.predict([task]).predictions[0]["result"] == []


# -- training


def test_it_learns_from_whole_videos(
    make_model: Callable[..., YOLO], videos: list[tuple[dict[str, Any], str]], settings: Settings
) -> None:
    model = make_model(config(choices()))
    with pytest.raises(NotReady, match="isn't trained yet"):
        model.predict([videos[0][0]])
    tasks = [{**task, "annotations": [annotation(task["id"], chosen(colour))]} for task, colour in videos]
    metrics = model.fit("ANNOTATION_CREATED", {}, tasks=tasks)["kind"]
    assert (metrics["published"], metrics["tasks"]) == (True, len(videos))
    (file,) = settings.model_root.glob("*.safetensors")
    assert file.name.startswith("choices-1-efficientnet-lite0-kind-")
    new = [(draw(settings.local_files_document_root, 100 + n, name), name) for n, name in enumerate([*COLOURS] * 3)]
    found = [model.predict([task]).predictions[0] for task, _ in new]
    right = [labels_of(prediction) == [name] for prediction, (_, name) in zip(found, new, strict=True)]
    assert sum(right) >= 8
    assert all(0 < prediction["score"] <= 1 for prediction in found)
    # Another set of choices, and another number of them, is another question.
    assert make_model(config(choices('model_trainable="true" choice="multiple"'))).needs_training()
    assert not make_model(config(choices('model_trainable="true" choice="single-radio"'))).needs_training()


def test_several_choices_and_none(make_model: Callable[..., YOLO], videos: list[tuple[dict[str, Any], str]]) -> None:
    """Discs that aren't green; green ones were given no choice, which says that neither holds."""
    model = make_model(config(choices('model_trainable="true" choice="multiple"', ("Warm", "Any"))))
    wanted = {"Red": ["Warm", "Any"], "Blue": ["Any"], "Green": []}
    tasks = [
        {**task, "annotations": [annotation(task["id"], *([chosen(*wanted[name])] if wanted[name] else []))]}
        for task, name in videos
    ]
    assert model.fit("ANNOTATION_CREATED", {}, tasks=tasks)["kind"]["tasks"] == len(videos)
    for task, name in videos:
        model.store.save_annotations("1", None, [(task, annotation(task["id"], chosen(*wanted[name])))], "X")
        assert labels_of(model.predict([task]).predictions[0]) == wanted[name]  # as it was annotated


def test_annotators_of_whom_no_half_agrees_choose_nothing(
    make_model: Callable[..., YOLO], videos: list[tuple[dict[str, Any], str]]
) -> None:
    model, (task, _) = make_model(config(choices())), videos[0]
    for number, name in enumerate(COLOURS, 1):
        model.store.save_annotations("1", None, [(task, annotation(number, chosen(name)))], "ANNOTATION_CREATED")
    model.fit("ANNOTATION_CREATED", {}, tasks=model.store.annotated_tasks("1"))
    assert labels_of(model.predict([task]).predictions[0]) == []


def test_what_is_not_answered_is_not_learnt_and_the_timeline_is(
    make_model: Callable[..., YOLO], videos: list[tuple[dict[str, Any], str]]
) -> None:
    model = make_model(config(TIMELINE, choices()))
    disc = region(11, 30, "Disc")
    (first, colour), (second, _) = videos[:2]
    only_timeline = [{**first, "annotations": [annotation(1, disc)]}]
    assert set(model.fit("ANNOTATION_CREATED", {}, tasks=only_timeline)) == {"tl"}
    model.store.save_annotations("1", None, [(first, annotation(1, disc))], "ANNOTATION_CREATED")
    assert not model.needs_training()  # else each start of a worker would train
    prediction = model.predict([second]).predictions[0]
    assert {r["type"] for r in prediction["result"]} <= {"timelinelabels"}
    assert prediction["model_version"].endswith("+efficientnet-lite0-untrained")

    broken = chosen("Red") | {"value": {"choices": [["nested"]]}}
    drawn = annotation(2, disc, chosen(colour), broken, chosen("Removed"), None)
    results = model.fit("ANNOTATION_CREATED", {}, tasks=[{**first, "annotations": [drawn]}])
    assert set(results) == {"tl", "kind"}
    notes = [note.text for note in model.store.notes("1")]
    assert any("'Removed': the labeling config has no such choice" in text for text in notes)
    assert any("nested" in text for text in notes)
    assert labels_of(model.predict([second]).predictions[0])

    model.roll_back(2)
    assert {part.mode.version.partition(" ")[0] for part in model.control_models} == {"v2"}
    with pytest.raises(InvalidRequest, match="no version 1"):  # of the choices: nothing is changed
        model.roll_back(1)
    assert {part.mode.version.partition(" ")[0] for part in model.control_models} == {"v2"}
    assert "-v1 (" in model.roll_back(1, "tl")
    model.forget()
    with pytest.raises(NotReady):
        model.predict([second])


@pytest.mark.parametrize("tags", [(TIMELINE, choices()), (choices(),)])
def test_an_answer_that_was_deleted_leaves_no_trace_beside_other_annotations(
    make_model: Callable[..., YOLO], videos: list[tuple[dict[str, Any], str]], tags: tuple[str, ...]
) -> None:
    model = make_model(config(*tags))
    (first, colour), (second, _) = videos[:2]
    disc = region(11, 30, "Disc")
    model.fit("ANNOTATION_CREATED", {}, tasks=[{**first, "annotations": [annotation(1, disc, chosen(colour))]}])
    assert labels_of(model.predict([second]).predictions[0])

    with suppress(InvalidAnnotation):  # where there is no other tag to train
        model.fit("ANNOTATION_UPDATED", {}, tasks=[{**first, "annotations": [annotation(1, disc)]}])
    assert model.control_models[-1].mode.version == "untrained"
    assert model.store.present_version("1", "kind") is None
    with pytest.raises(NotReady, match="isn't trained yet"):
        model.control_models[-1].predict(second)


def test_a_model_stays_while_one_of_many_tasks_holds_an_answer(
    make_model: Callable[..., YOLO], videos: list[tuple[dict[str, Any], str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model(config(choices()))
    first, colour = videos[0]
    model.fit("ANNOTATION_CREATED", {}, tasks=[{**first, "annotations": [annotation(1, chosen(colour))]}])
    many = [{**first, "id": 100 + n, "annotations": [annotation(100 + n)]} for n in range(2 * MAX_VIDEOS)]
    answered = {**first, "id": 1, "annotations": [annotation(1, chosen(colour))]}
    with monkeypatch.context() as patched:
        patched.setattr(trained, "choose_tasks", lambda tag, tasks: Chosen(tasks[1:], [1.0] * len(many)))
        with pytest.raises(InvalidAnnotation):
            model.fit("ANNOTATION_UPDATED", {}, tasks=[answered, *many])
    assert model.control_models[-1].mode.version.startswith("v1")
    with pytest.raises(InvalidAnnotation):
        model.fit("ANNOTATION_UPDATED", {}, tasks=many)
    assert model.control_models[-1].mode.version == "untrained"


def test_blocks_that_are_equal_in_all_rows_tell_nothing() -> None:
    """A video of one row doesn't change: of what describes change only rounding is left."""
    random = np.random.default_rng(0)
    centres = 0.3 * random.normal(size=(3, 320))

    def rows(count: int) -> list[np.ndarray]:
        return [np.abs(3 + centres[n % 3] + random.normal(size=320)).astype(np.float32)[None] for n in range(count)]

    classifier = MultiLabelLSTM(input_size=320, output_size=3)
    classifier.fit([Example(n, row, np.eye(3)[[n % 3]], frame_rate=1.0) for n, row in enumerate(rows(12))])
    found = [classifier.predict(row, 1.0)[0].argmax() for row in rows(60)]
    assert np.mean(np.array(found) == np.arange(60) % 3) > 0.75


# -- the terminal and the pages


def test_commands_and_pages_with_and_without_a_timeline(
    settings: Settings,
    videos: list[tuple[dict[str, Any], str]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    for name in ("data_dir", "cache_dir", "model_root", "local_files_document_root"):
        monkeypatch.setenv(name.upper(), str(getattr(settings, name)))
    get_settings.cache_clear()
    store = Store(settings.database)
    for project, text in {"1": config(TIMELINE, choices()), "2": config(choices())}.items():
        drawn = [(task, annotation(task["id"], region(11, 30, "Disc"), chosen(colour))) for task, colour in videos[:4]]
        store.save_annotations(project, text, drawn, "ANNOTATION_CREATED")
    store.close()

    def run(*arguments: str, code: int = 0) -> Any:
        result = CliRunner().invoke(cli.app, arguments, catch_exceptions=False)
        assert result.exit_code == code, result.output
        return result

    try:
        for project, tags in {"1": {"tl", "kind"}, "2": {"kind"}}.items():
            assert set(json.loads(run("train", "--project", project, "--json").stdout)) == tags
            scores = json.loads(run("evaluate", "--project", project, "--report", str(tmp_path), "--json").stdout)
            assert set(scores["held_out"]) == tags
            answer = json.loads(run("predict", videos[8][0]["data"]["video"], "--project", project).stdout)
            assert len(labels_of(answer)) == 1
        exported = run("export", "--project", "1")
        assert 'Left out, because there is no timeline: <Choices name="kind">' in exported.stderr
        assert "Disc" in exported.stdout
        assert not set(COLOURS) & set(exported.stdout.replace(",", " ").split())
        with pytest.raises(InvalidRequest, match="no timeline"):
            run("export", "--project", "2")
        (task,) = json.loads(run("label", videos[8][0]["data"]["video"], "--project", "2").stdout)
        assert len(labels_of(task["predictions"][0])) == 1
        run("rollback", "--project", "1", "--control", "kind", "--version", "1", "--yes")

        app = init_app(YOLO, settings=settings)
        # A page says what the model says itself, also where somebody has chosen something else since.
        other = (videos[0][0], annotation(1, chosen("Blue")))
        app.extensions["jobs"].store.save_annotations("2", None, [other], "ANNOTATION_UPDATED")
        client = app.test_client()
        for project in ("1", "2"):
            for path in (f"/projects/{project}", f"/projects/{project}/tasks/1"):
                page = client.get(path, headers={"Accept": "text/html"}, base_url="http://localhost")
                assert page.status_code == 200, page.text[:500]
                assert "kind" in page.text
            assert "<dd>Red, score 0." in page.text
    finally:
        get_settings.cache_clear()
