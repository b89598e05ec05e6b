"""A model's own values, and notes on its media."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator

import sqlalchemy as sa

from ml_backend.logs import about
from ml_backend.store.projects import Projects
from ml_backend.store.tables import Note, Value, storable

logger = logging.getLogger(__name__)

MAX_NOTE_LENGTH = 300
NO_PROJECT = ""  # the project id of values that belong to the whole backend
NOTES_PER_STATEMENT = 100


class Values(Projects):
    """The rows of values and notes."""

    def get_value(self, project_id: str, key: str) -> str | None:
        """The value of a key in a project, or None."""
        with self._reading() as session:
            value = session.get(Value, (project_id, key))
            return value.value if value else None

    def set_value(self, project_id: str, key: str, value: str) -> None:
        """Stores the value of a key in a project."""
        if self.get_value(project_id, key) == value:
            return  # without a write there is no wait for a lock
        with self._transaction() as session:
            insert = self._insert(Value).values(project_id=project_id, key=key, value=value)
            session.execute(
                insert.on_conflict_do_update(index_elements=[Value.project_id, Value.key], set_={"value": value})
            )

    def set_value_once(self, project_id: str, key: str, value: str) -> str:
        """Stores a value unless there is one. Returns the stored value."""
        with self._transaction() as session:
            insert = self._insert(Value).values(project_id=project_id, key=key, value=value)
            session.execute(insert.on_conflict_do_nothing())
            return session.get_one(Value, (project_id, key)).value

    def increment_value(self, project_id: str, key: str) -> int:
        """Raises a counter by one and returns it. A new counter starts at 1."""
        raised = sa.cast(sa.cast(Value.value, sa.BigInteger) + 1, sa.Text)
        with self._transaction() as session:
            insert = self._insert(Value).values(project_id=project_id, key=key, value="1")
            statement = insert.on_conflict_do_update(
                index_elements=[Value.project_id, Value.key], set_={"value": raised}
            )
            return int(session.scalar(statement.returning(Value.value)))

    def add_notes(self, project_id: str, notes: Iterable[tuple[int, str]]) -> None:
        """Stores notes on tasks, (task id, text), and logs each new one."""
        kept = dict.fromkeys(_kept(notes))
        if not kept:
            return
        known = {(note.task_id, note.text) for note in self.notes(project_id)}
        new = [note for note in kept if note not in known]
        if not new:
            return  # without a write there is no wait for a lock
        with self._transaction() as session:
            for start in range(0, len(new), NOTES_PER_STATEMENT):
                rows = [
                    {"project_id": project_id, "task_id": task_id, "text": text}
                    for task_id, text in new[start : start + NOTES_PER_STATEMENT]
                ]
                session.execute(self._insert(Note).values(rows).on_conflict_do_nothing())
        for task_id, text in new:
            with about(project=project_id, task=task_id):
                logger.warning("Project %s, task %s: %s", project_id, task_id, text)

    def drop_notes(self, project_id: str, task_ids: Collection[int], but: Iterable[tuple[int, str]]) -> None:
        """Drops all notes on some tasks but those, (task id, text), that are still to be said."""
        stored = {(note.task_id, note.text) for note in self.notes(project_id) if note.task_id in task_ids}
        dropped = stored - set(_kept(but))
        if not dropped:
            return  # without a write there is no wait for a lock
        with self._transaction() as session:
            for task_id, text in dropped:
                which = (Note.project_id == project_id, Note.task_id == task_id, Note.text == text)
                session.execute(sa.delete(Note).where(*which))

    def notes(self, project_id: str | None = None) -> list[Note]:
        """The notes of a project, or of all projects."""
        with self._reading() as session:
            query = sa.select(Note).order_by(Note.project_id, Note.task_id)
            return list(session.scalars(query if project_id is None else query.where(Note.project_id == project_id)))

    def count_notes(self) -> dict[str, int]:
        """The number of notes by project."""
        with self._reading() as session:
            rows = session.execute(sa.select(Note.project_id, sa.func.count()).group_by(Note.project_id))
            return dict(rows.all())


def _kept(notes: Iterable[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    """Notes in the form in which they are stored."""
    return ((task_id, storable(text)[:MAX_NOTE_LENGTH]) for task_id, text in notes)
