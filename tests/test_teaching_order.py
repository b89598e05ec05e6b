"""The order in which a project's tasks are to be annotated."""

from __future__ import annotations

from typing import Any

from ml_backend.settings import Settings
from progress import Progress
from tests.colours import BLUE, GREEN, GREY, RED_BLUE, annotated, config, task
from tests.servers import annotation, region


def test_what_resembles_nothing_annotated_teaches_most(settings: Settings, make_model: Any) -> None:
    """Three greys, of which one is annotated, three greens and a blue: what is alike isn't asked for twice in a row."""
    colours = {1: GREY, 2: GREY, 3: GREEN, 4: GREEN, 5: GREEN, 6: BLUE, 7: GREY}
    tasks = {number: task(settings, number, [colour] * (20 + number)) for number, colour in colours.items()}
    model = make_model(config())
    for one in tasks.values():
        model.extract(one)
    assert model.rank(list(tasks.values())) == []  # nothing is learnt yet
    model.fit("ANNOTATION_CREATED", {}, tasks=[annotated(tasks[1], annotation(1, region(1, 10, "Red")))])
    model.services.store.save_annotations("1", None, [(tasks[1], annotation(1))], "ANNOTATION_CREATED")
    checks = []
    ranked = model.rank([tasks[number] for number in range(2, 8)], Progress(checks.append))
    order = [one.task_id for one in ranked]
    assert {colours[number] for number in order[:2]} == {GREEN, BLUE}
    assert sorted(order) == [2, 3, 4, 5, 6, 7]
    assert checks
    clusters = {one.task_id: one.cluster for one in ranked}
    assert clusters[6] == 6
    assert {colours[clusters[number]] for number in (3, 4, 5)} == {GREEN}
    assert {colours[clusters[number]] for number in (2, 7)} == {GREY}


def test_the_order_is_of_what_can_be_read(settings: Settings, make_model: Any, red_blue: dict[str, Any]) -> None:
    model = make_model(config())
    model.fit("ANNOTATION_CREATED", {}, tasks=[annotated(red_blue, RED_BLUE)])
    others = [{"id": 8, "data": {}}, {"id": 9, "data": {"video": "missing.mp4"}}]
    assert [one.task_id for one in model.rank([*others, red_blue])] == [1]
    assert model.rank(others) == []
    assert make_model(config("", ("soccer_ball",))).rank([red_blue]) == []
