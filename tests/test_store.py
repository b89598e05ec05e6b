"""The state on both databases: migrations, late events, comparing with Label Studio, published versions."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from benchmarks.locked_database import locked
from errors import BackendError, DatabaseUnavailable, InvalidRequest
from ml_backend.dashboard.overview import prequential_scores, projects
from ml_backend.store import Store, database
from ml_backend.store.annotations import TASKS_PER_BATCH
from ml_backend.store.models import TRAININGS
from ml_backend.store.tables import Base, Job, JobKind, JobStatus, QueueName, TrainingStatus
from ml_backend.store.tasks import Claim
from tests.postgres import Postgres
from tests.processes import context, run_at_once

FIRST_RELEASE = Path(__file__).with_name("data") / "state_of_the_first_release.sql"
T1, T2, T3 = (f"2026-11-22T1{hour}:00:00Z" for hour in range(3))


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    store = Store(database_url)
    yield store
    store.close()


def task(number: int = 1, *annotations: dict[str, Any]) -> dict[str, Any]:
    return {"id": number, "data": {"video": f"/{number}.mp4"}, "annotations": list(annotations)}


def annotation(number: int, updated_at: str = T1, result: Any = "x", **keys: Any) -> dict[str, Any]:
    return {"id": number, "result": [{"value": result}], "updated_at": updated_at} | keys


# What migrations added and removed after the first two that tests go back to.
ADDED_LATER = {
    "0011": {"projects": ["title"], "annotations": ["lead_time", "origins"]},
    "0012": {"tasks": ["rank"]},
    "0013": {"confirmations": []},
    "0014": {"projects": ["wanted_revision"]},
    "0015": {"predictions": ["answered_at", "stored_at"]},
    "0016": {"predictions": ["job_id"]},
}
REMOVED_LATER = {"0012": {"predictions": ["data JSON"]}}


def go_back(store: Store, version: str) -> None:
    """Makes the database one of an earlier schema, without the columns and tables (an empty list) of later ones."""
    with store.engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE alembic_version SET version_num = '{version}'")
        for table, columns in ((table, columns) for added in ADDED_LATER.values() for table, columns in added.items()):
            for column in columns:
                connection.exec_driver_sql(f"ALTER TABLE {table} DROP COLUMN {column}")
            if not columns:
                connection.exec_driver_sql(f"DROP TABLE {table}")
        for table, columns in ((table, columns) for gone in REMOVED_LATER.values() for table, columns in gone.items()):
            for column in columns:
                connection.exec_driver_sql(f"ALTER TABLE {table} ADD COLUMN {column}")


def save(store: Store, annotation: dict[str, Any], number: int = 1) -> bool:
    return store.save_annotations("1", "<View/>", [(task(number), annotation)], "ANNOTATION_UPDATED")


def stored(store: Store) -> dict[int, Any]:
    """Annotation id -> its region's value."""
    found = [a for task in store.annotated_tasks("1") for a in task["annotations"]]
    return {a["id"]: a["result"][0]["value"] for a in found}


# Migrations


def test_a_process_of_an_earlier_release_says_what_keeps_it_from_storing(store: Store) -> None:
    """Another process migrates the database under it."""
    save(store, annotation(1))
    with store.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE annotations RENAME COLUMN updated_at TO changed_at")
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    for act in (lambda: save(store, annotation(2)), lambda: store.annotated_tasks("1")):
        with pytest.raises(DatabaseUnavailable, match=r"later release.*schema is 9999.*Nothing was stored"):
            act()
    store.update_project("1", "<View>2</View>")  # what both releases know goes on


def test_a_file_that_is_no_database_is_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "state.db").write_bytes(b"not a database" * 100)
    with pytest.raises(DatabaseUnavailable, match="file is not a database"):
        Store(f"sqlite:///{tmp_path / 'state.db'}")


def test_the_schema_is_that_of_the_tables(store: Store) -> None:
    """SQLite's types and the direction of its indexes can't be read back; PostgreSQL's can."""
    with store.engine.connect() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), Base.metadata)
    if store.is_sqlite:
        differences = [d for d in differences if not isinstance(d, list) and "ix_jobs_waiting" not in str(d)]
    assert differences == []


def test_a_database_of_the_first_release_keeps_its_data(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    with sqlite3.connect(path) as connection:
        connection.executescript(FIRST_RELEASE.read_text())
    store = Store(f"sqlite:///{path}")
    project = store.project("7")
    assert (project.label_config, project.hostname, project.access_token) == ("<View/>", "http://ls", "token")
    assert store.projects_behind() == ["7"]
    assert [(t["id"], t["data"]) for t in store.annotated_tasks("7")] == [
        (3, {"video": "/a.mp4"}),
        (4, {"video": "/b.mp4"}),
    ]
    event, body = store.event("7")
    assert (event, body["annotation"]["id"], body["task"]["data"]) == ("ANNOTATION_CREATED", 13, {"video": "/b.mp4"})
    assert [t.status for t in store.trainings("7")] == [TrainingStatus.PUBLISHED, TrainingStatus.INTERRUPTED]
    assert prequential_scores(store.trainings("7")[0]) == {"Ball": 0.5}
    assert store.increment_value("7", "trainings") == 6
    assert [note.text for note in store.notes("7")] == ["a note"]
    # What ran waits again, once; what ended is still known.
    assert store.job_counts() == {
        (JobKind.TRAIN, JobStatus.QUEUED): 1,
        (JobKind.EXTRACT, JobStatus.QUEUED): 1,
        (JobKind.DELIVER, JobStatus.FINISHED): 1,
    }
    assert store.next_job([QueueName.TRAIN]).key == "train:7"
    assert store.next_job([QueueName.EXTRACT]).arguments == {"task": {"id": 3, "data": {}}}
    store.close()
    Store(f"sqlite:///{path}").close()  # the second time there is nothing to do


def test_a_database_of_a_later_release_is_left_alone(store: Store, database_url: str) -> None:
    with store.engine.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(BackendError, match="of a later release: its schema is 9999"):
        Store(database_url)


def test_a_database_with_huey_s_queue_keeps_its_jobs(store: Store, database_url: str) -> None:
    """Schema 0006: the same tables, and messages beside them."""
    job = store.add_job(JobKind.TRAIN, QueueName.TRAIN, "train:1", "project:1", "1", {}, priority=10)
    messages = Path(f"{store.engine.url.database}.queue")
    go_back(store, "0006")
    with store.engine.begin() as connection:
        if store.is_sqlite:
            messages.touch()
        else:
            connection.exec_driver_sql("CREATE TABLE huey_task (id serial)")
    opened = Store(database_url)
    assert opened.next_job([QueueName.TRAIN]).id == job.id
    assert not messages.exists()
    assert "huey_task" not in sa.inspect(opened.engine).get_table_names()
    opened.close()


def test_a_database_keeps_its_jobs_that_prepare(store: Store, database_url: str) -> None:
    """Schema 0007: jobs that extract features were of the kind "prepare"."""
    names = {"extract:1:7": JobKind.EXTRACT, "extract_many:1:0": JobKind.EXTRACT_MANY}
    for name, kind in names.items():
        store.add_job(kind, QueueName.EXTRACT, name, name, "1", {}, priority=0)
    go_back(store, "0007")
    with store.engine.begin() as connection:
        for column in ("kind", "key"):
            connection.exec_driver_sql(f"UPDATE jobs SET {column} = replace({column}, 'extract', 'prepare')")
    opened = Store(database_url)
    assert {job.key: job.kind for job in opened.jobs(JobStatus.QUEUED)} == names
    opened.close()


def test_a_database_knows_its_predicted_tasks(store: Store, database_url: str) -> None:
    """Schema 0008: the tasks that were predicted only stood with their predictions."""
    save(store, annotation(1), number=1)
    go_back(store, "0008")
    with store.engine.begin() as connection:
        for number in (1, 2):
            connection.execute(
                sa.text(
                    "INSERT INTO predictions (project_id, task_id, data, score, predicted_at) "
                    f"VALUES ('1', {number}, '{{\"video\": \"/{number}.mp4\"}}', 0.5, '2026-11-22 10:00:00')"
                )
            )
    opened = Store(database_url)
    assert [(row.id, row.data, row.annotations, row.score) for row in opened.known_tasks("1", 9)[0]] == [
        (2, {"video": "/2.mp4"}, 0, 0.5),
        (1, {"video": "/1.mp4"}, 1, 0.5),
    ]
    opened.close()


def start_once(database_url: str) -> None:
    Store(database_url).increment_value("1", "started")


def test_all_processes_may_start_at_once(database_url: str) -> None:
    run_at_once(4, start_once, database_url)
    store = Store(database_url)
    assert store.get_value("1", "started") == "4"
    store.close()


# Events


def test_a_late_event_brings_nothing_back(store: Store) -> None:
    save(store, annotation(1))
    save(store, annotation(2), number=2)
    assert store.delete_annotations("1", [1])
    assert store.delete_tasks("1", [2])
    revision = store.project("1").revision
    assert not save(store, annotation(1, T3))
    assert not save(store, annotation(2, T3), number=2)
    assert not save(store, annotation(3, T3), number=2)  # of a task that was deleted
    # A deletion that overtook the creation.
    assert not store.delete_annotations("1", [4])
    assert not save(store, annotation(4))
    # A skip that overtook the creation; taken back later, it is an example.
    assert not save(store, annotation(5, T2, was_cancelled=True))
    assert not save(store, annotation(5, T1))
    assert stored(store) == {}
    assert store.project("1").revision == revision
    assert save(store, annotation(5, T3))
    assert stored(store) == {5: "x"}


def test_a_large_body_is_not_kept_with_the_project(store: Store) -> None:
    regions = [{"value": number} for number in range(30_000)]
    store.save_annotations(
        "1", "<View/>", [(task(), {"id": 1, "result": regions, "updated_at": T1})], "ANNOTATION_CREATED"
    )
    with store.engine.connect() as connection:
        row = connection.execute(sa.text("SELECT * FROM projects")).one()
    assert sum(len(str(value)) for value in row) < 1000
    event, body = store.event("1")
    assert (event, body["annotation"]["result"], body["task"]["data"]) == (
        "ANNOTATION_CREATED",
        regions,
        {"video": "/1.mp4"},
    )


def test_no_change_of_several_processes_at_once_is_lost(database_url: str) -> None:
    stores = [Store(database_url) for _ in range(4)]

    def submit(number: int) -> None:
        for round_ in range(10):
            assert save(stores[number], annotation(100 * number + round_), number)
            stores[number].increment_value("1", "n")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(submit, range(4)))
    assert stores[0].project("1").revision == 40
    assert len(stored(stores[0])) == 40
    assert stores[0].get_value("1", "n") == "40"
    for store in stores:
        store.close()


# Comparing with Label Studio


def test_what_is_submitted_during_a_comparison_stays(store: Store) -> None:
    for number in range(1, 5):
        save(store, annotation(number))

    def fetched() -> Iterator[dict[str, Any]]:
        # Label Studio's state before the events below.
        yield task(1, annotation(1), annotation(2), annotation(3, T2, "changed there"), annotation(5, T1, "missed"))
        save(store, annotation(2, T3, "newer"))
        save(store, annotation(6, T3, "new"))
        store.delete_annotations("1", [3])
        yield task(2, annotation(7, T1, "missed"))

    assert store.replace_annotations("1", fetched())
    assert stored(store) == {1: "x", 2: "newer", 5: "missed", 6: "new", 7: "missed"}
    later = [
        task(1, annotation(1), annotation(2, T1, "older"), annotation(5, T1, "missed")),
        task(2, annotation(7, T1, "missed")),
    ]
    later[0]["annotations"].append(annotation(6, T3, "new"))
    assert not store.replace_annotations("1", later)
    assert stored(store)[2] == "newer"


def test_a_comparison_that_breaks_off_deletes_nothing(store: Store) -> None:
    save(store, annotation(1))

    def fetched() -> Iterator[dict[str, Any]]:
        yield task(2, annotation(2))
        raise ConnectionError

    with pytest.raises(ConnectionError):
        store.replace_annotations("1", fetched())
    assert stored(store)[1] == "x"


def test_what_was_deleted_here_and_is_there_is_stored_again(store: Store) -> None:
    save(store, annotation(1))
    store.delete_annotations("1", [1])
    assert store.replace_annotations("1", [task(1, annotation(1))])
    assert stored(store) == {1: "x"}


def test_what_was_confirmed_is_kept_once_and_goes_with_its_task_and_project(store: Store) -> None:
    def kept(project: str = "1") -> list[tuple[int, str, float, Any]]:
        return [(one.task_id, one.label, one.start, one.drawn) for one in store.confirmations(project)]

    store.confirm("1", 1, "tl", "Rest", 0.5, 2.0, [])
    store.confirm("1", 1, "tl", "Rest", 0.5, 2.0, [[0.5, 2.0]])
    store.confirm("1", 1, "tl", "Run", 0.5, 2.0, [])
    store.confirm("1", 2, "tl", "Rest", 0.5, 2.0, [])
    store.confirm("2", 2, "tl", "Rest", 0.5, 2.0, [])
    assert kept() == [(1, "Rest", 0.5, [[0.5, 2.0]]), (1, "Run", 0.5, []), (2, "Rest", 0.5, [])]
    store.delete_tasks("1", [1])
    assert kept() == [(2, "Rest", 0.5, [])]
    store.delete_project("1")
    assert (kept(), len(kept("2"))) == ([], 1)


def test_a_large_comparison_leaves_webhooks_their_turn(store: Store) -> None:
    """Between its batches others write; before, 2,000 annotations held the lock for 1.7 s."""
    tasks = [task(number, annotation(number)) for number in range(1, 4 * TASKS_PER_BATCH + 1)]
    others: list[int] = []

    def fetched() -> Iterator[dict[str, Any]]:
        for number, item in enumerate(tasks):
            if number % TASKS_PER_BATCH == TASKS_PER_BATCH // 2:
                others.append(store.increment_value("1", "others"))  # would wait for itself inside a transaction
            yield item

    assert store.replace_annotations("1", fetched())
    assert len(others) == 4
    assert len(stored(store)) == len(tasks)


# Ground truth


def test_a_tasks_ground_truth_counts_alone(store: Store) -> None:
    assert save(store, annotation(1, result="a"))
    assert save(store, annotation(2, result="b"))
    assert save(store, annotation(3, result="c"), number=2)
    assert stored(store) == {1: "a", 2: "b", 3: "c"}
    assert save(store, annotation(2, T2, result="b", ground_truth=True))  # the same result: the model is behind it
    assert stored(store) == {2: "b", 3: "c"}
    assert not save(store, annotation(2, T2, result="b", ground_truth=True))
    assert save(store, annotation(2, T3, result="b", ground_truth=False))
    assert stored(store) == {1: "a", 2: "b", 3: "c"}


def test_ground_truth_is_taken_over_from_label_studio(store: Store) -> None:
    assert store.replace_annotations("1", [task(1, annotation(1, result="a"), annotation(2, result="b"))])
    theirs = [task(1, annotation(1, result="a", ground_truth=True), annotation(2, result="b"))]
    assert store.replace_annotations("1", theirs)
    assert stored(store) == {1: "a"}
    assert not store.replace_annotations("1", theirs)
    assert store.delete_annotations("1", [1])
    assert stored(store) == {2: "b"}


# Published versions


def test_publish_and_roll_back(store: Store) -> None:
    store.update_project("1", "<View/>")
    assert store.present_version("1", "tl") is None
    for version in (1, 2, 3):
        assert store.increment_value("1", TRAININGS) == version
        assert store.publish_version("1", "tl", version, f"{version}.safetensors", {"f1": version / 10})
    store.publish_version("1", "other", 1, "other.safetensors", {})
    present = store.present_version("1", "tl")
    assert (present.version, present.file, present.metrics) == (3, "3.safetensors", {"f1": 0.3})
    store.make_present("1", "tl", 1)
    assert store.present_version("1", "tl").file == "1.safetensors"
    assert store.present_version("1", "tl").version == 1
    assert [v.version for v in store.versions("1", "tl")] == [3, 2, 1]
    with pytest.raises(InvalidRequest, match="no version 7"):
        store.make_present("1", "tl", 7)
    store.increment_value("1", TRAININGS)
    assert store.publish_version("1", "tl", 4, "4.safetensors", {})
    # A training that was believed dead ends after the one that took its place.
    assert not store.publish_version("1", "tl", 3, "late.safetensors", {})
    assert store.present_version("1", "tl").version == 4
    store.forget_present_version("1", "tl")
    assert store.present_version("1", "tl") is None
    assert store.present_version("1", "other").version == 1


def test_a_version_whose_training_ends_just_now_isn_t_rolled_back(store: Store) -> None:
    store.update_project("1", "<View/>")
    for version in (1, 2):
        store.increment_value("1", TRAININGS)
        store.publish_version("1", "tl", version, f"{version}.safetensors", {})
        if version == 1:
            training = store.start_training("1", 0, 1)
            metrics = {"tl": {"version": version}}
            store.end_training(training, TrainingStatus.PUBLISHED, 1.0, "net-v1", metrics)
    assert projects(store)[0]["model_version"] == "v2"
    store.make_present("1", "tl", 1)
    assert projects(store)[0]["model_version"] == "net-v1"


def test_a_training_publishes_for_no_project_that_was_deleted(store: Store) -> None:
    store.update_project("1", "<View/>")
    training = store.start_training("1", 0, 1)
    version = [store.increment_value("1", TRAININGS) for _ in range(3)][-1]
    store.delete_project("1")
    for connected_again in (False, True):
        if connected_again:
            store.update_project("1", "<View/>")
            store.increment_value("1", TRAININGS)
        with pytest.raises(InvalidRequest, match="deleted while its model was trained"):
            store.publish_version("1", "tl", version, "late.safetensors", {})
        assert store.versions("1") == []
        assert store.present_version("1", "tl") is None
    store.end_training(training, TrainingStatus.FAILED, 1.0)
    assert store.trainings("1") == []


def test_what_a_job_of_a_deleted_project_writes_late_is_no_new_project_s(store: Store) -> None:
    store.update_project("1", "<View/>")
    store.delete_project("1")
    store.add_notes("1", [(1, "late")])
    store.save_predictions("1", [(task(), 0.5, "v1")])
    store.save_tasks("1", [task(2)])
    store.save_ranks("1", [1])
    store.update_project("1", "<View/>")
    assert store.notes("1") == []
    assert store.known_tasks("1", 10) == ([], 0)


# Tasks


def test_a_project_s_tasks_are_listed_with_those_first_that_teach_most(store: Store) -> None:
    save(store, annotation(1), number=1)
    store.save_tasks("1", [task(number) for number in range(1, 251)])
    store.save_predictions("1", [(task(number), score, "v1") for number, score in ((3, 0.9), (2, 0.4), (5, 0.1))])
    page, total = store.known_tasks("1", 4)
    assert total == 250
    assert [row.id for row in page] == [5, 2, 3, 4]
    assert page[0] == (5, {"video": "/5.mp4"}, 0, 0.1, "v1")
    assert [row.id for row in store.known_tasks("1", 10, 248)[0]] == [250, 1]
    assert [one["id"] for one in store.unannotated_tasks("1", 3)] == [2, 3, 4]
    store.save_ranks("1", [200, 3])
    assert [row.id for row in store.known_tasks("1", 4)[0]] == [200, 3, 5, 2]
    store.save_ranks("1", [4])
    assert [row.id for row in store.known_tasks("1", 4)[0]] == [4, 5, 2, 3]


def test_a_prediction_reaches_label_studio_by_one_way(store: Store) -> None:
    store.update_project("1", "<View/>")
    minute, given = timedelta(minutes=1), (task(1), 0.5, "v1")
    assert store.answer_predictions("1", [given], minute) == set()
    assert store.claim_prediction("1", given, minute, "a") is Claim.ANSWERED
    store.save_predictions("1", [given])
    assert store.claim_prediction("1", given, minute, "a") is Claim.ANSWERED
    assert store.claim_prediction("1", given, timedelta(0), "a") is Claim.CLAIMED  # an answer of long ago
    newer = (task(1), 0.6, "v2")
    assert store.claim_prediction("1", newer, minute, "a") is Claim.CLAIMED
    store.release_prediction("1", 1, "a")
    assert store.answer_predictions("1", [newer, (task(2), 0.1, "v2")], minute) == {1}
    assert store.answer_predictions("1", [newer], timedelta(0)) == set()
    store.save_predictions("1", [(task(1), 0.7, "v3")])
    assert store.answer_predictions("1", [(task(1), 0.7, "v3")], minute) == set()
    assert store.known_tasks("1", 1)[0][0].score == 0.1


def claim_at_once(database_url: str, job_ids: list[str], taken: Any) -> Claim:
    store = Store(database_url)
    with taken.get_lock():
        job_id = job_ids[taken.value]
        taken.value += 1
    try:
        return store.claim_prediction("1", (task(1), 0.5, "v1"), timedelta(minutes=1), job_id)
    finally:
        store.close()


def test_one_job_at_a_time_stores_a_task_s_prediction(store: Store, database_url: str) -> None:
    store.update_project("1", "<View/>")
    refresh = store.add_job(JobKind.REFRESH, QueueName.REFRESH, "refresh:1", "refresh", "1", {}, 0)
    delivery = store.add_job(JobKind.DELIVER, QueueName.EXTRACT, "deliver:1:1", "task:1:1", "1", {}, 0)
    ids = [store.claim_job(f"worker {number}", job.id).id for number, job in enumerate((refresh, delivery))]
    found = run_at_once(2, claim_at_once, database_url, ids, context().Value("i", 0))
    assert sorted(one.name for one in found) == ["CLAIMED", "HELD"]
    given, minute = (task(1), 0.5, "v1"), timedelta(minutes=1)
    (first,) = (id_ for id_ in ids if store.claim_prediction("1", given, minute, id_) is Claim.CLAIMED)
    (second,) = set(ids) - {first}
    assert store.answer_predictions("1", [given], timedelta(0)) == {1}  # Label Studio would store it, too
    store.release_jobs(f"worker {ids.index(first)}")  # also where its worker died
    assert store.claim_prediction("1", given, timedelta(0), second) is Claim.CLAIMED
    assert store.claim_prediction("1", given, timedelta(0), second) is Claim.CLAIMED
    store.release_prediction("1", 1, first)  # it isn't the first one's any more
    assert store.answer_predictions("1", [given], timedelta(0)) == {1}
    store.release_prediction("1", 1, second)
    assert store.answer_predictions("1", [given], timedelta(0)) == set()


def test_a_deleted_task_stays_deleted(store: Store) -> None:
    store.update_project("1", "<View/>")
    store.save_tasks("1", [task(1), task(2)])
    store.delete_tasks("1", [1])
    store.save_tasks("1", [task(1), task(2) | {"data": {"video": "/moved.mp4"}}])
    store.save_predictions("1", [(task(1), 0.5, "v1")])
    assert store.known_task("1", 1) is None
    assert store.known_task("1", 2) == {"id": 2, "data": {"video": "/moved.mp4"}}
    assert store.task_ids("1") == {2}


def test_another_video_of_an_annotated_task_is_learnt_wherever_it_is_seen_first(store: Store) -> None:
    save(store, annotation(1))
    store.give_up_training("1")
    learnt, other = store.project("1").revision, timedelta(0)
    store.save_tasks("1", [task(1), task(2)])
    store.save_predictions("1", [(task(1), 0.5, "v1"), (task(2) | {"data": {"video": "/moved.mp4"}}, 0.5, "v1")])
    assert store.project("1").revision == learnt

    def moved(number: int) -> dict[str, Any]:
        return task(1) | {"data": {"video": f"/moved{number}.mp4"}}

    store.save_predictions("1", [(moved(1), 0.5, "v1")], train_every=0)
    assert store.project("1").revision == learnt + 1
    assert store.projects_behind() == []
    for number, see in enumerate(
        (
            lambda: store.save_tasks("1", [moved(2)]),
            lambda: store.save_predictions("1", [(moved(3), 0.5, "v1")]),
            lambda: store.answer_predictions("1", [(moved(4), 0.5, "v1")], other),
        ),
        2,
    ):
        see()
        assert store.projects_behind() == ["1"]
        assert store.annotated_tasks("1")[0]["data"] == moved(number)["data"]
        store.give_up_training("1")


def test_known_tasks_aren_t_written_again(store: Store) -> None:
    store.update_project("1", "<View/>")
    store.save_tasks("1", [task(number) for number in range(300)])
    written: list[str] = []
    sa.event.listen(store.engine, "before_cursor_execute", lambda *event: written.append(event[2]))
    store.save_tasks("1", [task(number) for number in range(300)])
    assert len(written) == 3  # a look at each hundred
    assert not any(statement.startswith(("INSERT", "UPDATE")) for statement in written)


# Jobs


def test_a_job_that_waits_has_the_latest_data(store: Store) -> None:
    def add(video: str) -> Job:
        kind, queue = JobKind.EXTRACT, QueueName.EXTRACT
        return store.add_job(
            kind, queue, "extract:1:1", "task:1:1", "1", {"task": {"id": 1, "data": {"video": video}}}, 5
        )

    first, second = add("old.mp4"), add("new.mp4")
    assert second.id == first.id
    assert store.next_job([QueueName.EXTRACT]).arguments["task"]["data"] == {"video": "new.mp4"}


# Trouble


def test_a_locked_database_is_said_and_nothing_is_acknowledged(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "LOCK_SECONDS", 0.2)
    store = Store(database_url)
    with locked(database_url):
        with pytest.raises(DatabaseUnavailable, match="lock"):
            save(store, annotation(1))
        assert store.live_workers() == []  # reading goes on
    assert save(store, annotation(1))
    store.close()


def test_a_server_that_was_gone_is_found_again(postgres: Postgres) -> None:
    store = Store(postgres.new_database())
    save(store, annotation(1))
    with store.engine.connect() as connection:
        connection.execute(
            sa.text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
                "AND pid <> pg_backend_pid()"
            )
        )
    assert save(store, annotation(2))
    assert stored(store) == {1: "x", 2: "x"}
    store.close()


def test_jobs_are_counted_from_an_index_alone(tmp_path: Path) -> None:
    """Their rows are large, and /metrics counts them often."""
    store = Store(f"sqlite:///{tmp_path / 'state.db'}")
    asked: list[str] = []
    sa.event.listen(store.engine, "before_cursor_execute", lambda *event: asked.append(event[2]))
    store.job_counts()
    (query,) = [statement for statement in asked if "count(" in statement]
    with store.engine.connect() as connection:
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}").all()
    assert ["USING COVERING INDEX" in row.detail for row in plan] == [True], plan
    store.close()


# Titles, and what an annotation took


def test_a_title_follows_label_studio_s(store: Store) -> None:
    store.adopt("1", 5, "Unknown project")
    assert store.project("1") is None
    store.update_project("1", "<View/>")
    assert store.project("1").name == "Project 1"
    for title in ("Flies", "Flies\0and mice"):
        store.adopt("1", 5, title)
        store.adopt("1", None, None)  # a request that doesn't say it
    assert store.project("1").name == "Flies\\0and mice"
    assert store.project("1").created == 5


def region(name: str, origin: str | None = None) -> dict[str, Any]:
    value = {"ranges": [{"start": 1, "end": 2}], "timelinelabels": [name.upper()]}
    return {"id": name, "type": "timelinelabels", "value": value} | ({"origin": origin} if origin else {})


def test_what_came_of_a_prediction_is_counted(store: Store) -> None:
    """The marks that Label Studio's page puts on regions, and the copy of the prediction that it stores."""
    predicted = {"result": [region("a"), region("b"), region("c")]}
    result = [region("a", "prediction"), region("b", "prediction-changed"), region("d", "manual")]
    corrected = {"id": 1, "result": result, "parent_prediction": 9, "prediction": predicted, "lead_time": 30.5}
    drawn = {"id": 2, "result": [region("e", "manual")], "prediction": {}, "lead_time": 120}
    imported = {"id": 3, "result": [region("f")], "lead_time": "soon"}
    # Another prediction was stored in its place while it was corrected.
    overtaken = {"id": 4, "result": [region("g", "prediction")], "parent_prediction": 9, "prediction": predicted}
    for number, one in enumerate((corrected, drawn, imported, overtaken), start=1):
        assert save(store, {"updated_at": T1} | one, number)
    found = {task: store.annotations_of("1", task)[0] for task in (1, 2, 3, 4)}
    assert found[1].lead_time == 30.5
    none = {"kept": {}, "changed": {}, "drawn": {}, "removed": {}}
    counts = {"kept": {"A": 1}, "changed": {"B": 1}, "drawn": {"D": 1}, "removed": {"C": 1}}
    assert found[1].origins == {"from_prediction": True} | counts
    assert found[2].origins == {"from_prediction": False} | none | {"drawn": {"E": 1}}
    assert (found[3].lead_time, found[3].origins) == (None, None)
    assert found[4].origins == {"from_prediction": True} | none | {"kept": {"G": 1}}


def test_what_label_studio_measures_may_be_anything(store: Store) -> None:
    odd = region("a", "prediction") | {"id": ["a"]}
    assert save(store, {"id": 1, "updated_at": T1, "result": [odd], "lead_time": 10**400}, 1)
    (found,) = store.annotations_of("1", 1)
    assert found.lead_time is None
    assert found.origins["kept"] == {"A": 1}


def test_a_lead_time_that_comes_later_is_stored_and_trains_nothing(store: Store) -> None:
    """The state of an earlier release, and an annotation that was opened again without a change."""
    save(store, annotation(1))
    revision = store.project("1").revision
    assert not store.replace_annotations("1", [task(1, annotation(1, lead_time=12.0))])
    assert store.annotations_of("1", 1)[0].lead_time == 12.0
    assert store.project("1").revision == revision
