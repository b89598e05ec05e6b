"""How good a control tag's model is: its learning curve, what it goes by, and where it is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

from ml_backend.dashboard import learnt, mistakes
from ml_backend.dashboard.charts import line_chart
from ml_backend.dashboard.curves import Lesson, learning_curve, outlook
from ml_backend.dashboard.mistakes import Mistakes
from ml_backend.store.tables import Training


class Quality(NamedTuple):
    """What a project's page shows of a control tag.

    Attributes:
        name: the tag's.
        lessons: the learning curve of each label.
        chart: all of them, None where no label was tested.
        outlook: how many more videos the curve asks for, a sentence.
        learnt: label -> what decides it, in words; meanings says what these mean.
        mistakes: of the latest tests, None where nothing is known of them.
    """

    name: str
    lessons: list[Lesson]
    chart: Markup | None
    outlook: str
    learnt: dict[str, str]
    meanings: list[str]
    mistakes: Mistakes | None


def quality(trainings: Sequence[Training], name: str, colours: dict[str, str], has_timeline: bool) -> Quality:
    """What a project's trainings say of a control tag.

    Args:
        trainings: oldest first.
        name: the tag's.
        colours: label -> CSS colour.
        has_timeline: whether it labels frames, and not whole videos.
    """
    lessons = learning_curve(trainings, name, colours)
    title = "F1 on each new video before it was learnt from. " + " ".join(one.sentence for one in lessons)
    curves, axis = [one.series for one in lessons], "annotated videos"
    if 2 * len({x for one in curves for x in one.x}) <= max((len(one.x) for one in curves), default=0):
        # Of a few long videos, more and more was reviewed.
        curves, axis = [one._replace(x=range(1, len(one.x) + 1)) for one in curves], "tests"
    latest = next((one.metrics[name] for one in reversed(trainings) if (one.metrics or {}).get(name)), {})
    sentences = learnt.sentences(latest)
    return Quality(
        name=name,
        lessons=lessons,
        chart=line_chart(title, curves, axis) if any(one.y for one in curves) else None,
        outlook=outlook(trainings, name),
        learnt=sentences,
        meanings=learnt.meanings(sentences),
        mistakes=mistakes.latest(trainings, name, list(colours), has_timeline),
    )
