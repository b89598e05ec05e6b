"""What a project's page says of the tasks that can't be used in whole."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable

from ml_backend.store.tables import Note


def grouped(notes: Iterable[Note]) -> list[tuple[str, list[int]]]:
    """Notes that say the same, whichever annotation they are about, with the ids of their tasks; most tasks first."""
    tasks: dict[str, list[int]] = defaultdict(list)
    for note in notes:
        text = re.sub(r"^Annotation \d+ ", "An annotation ", note.text)
        if note.task_id not in tasks[text]:
            tasks[text].append(note.task_id)
    return sorted(tasks.items(), key=lambda one: -len(one[1]))
