"""`TrainedMode`: predict by a classifier of the encoder's features that is trained on a project's annotations."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from control_models.examples import ERRORS_OF_DATA, choose_tasks, read_examples, recalled
from control_models.mode import Mode
from control_models.published import PublishedClassifiers
from control_models.ranking import ranked
from control_models.start import find_start
from control_models.tag import Tag
from control_models.trainer import Trainer
from control_models.videos import Videos
from errors import BackendError, InvalidAnnotation, InvalidConfig, InvalidRequest, NotReady
from features.cache import VideoFeatures
from learning.dataset import Example, num_videos
from learning.evaluation import Evaluation
from learning.events import segments
from ml_backend.base import Ranked
from ml_backend.context import Context
from progress import UNTOLD, Progress
from utils.neural_nets import MultiLabelLSTM, UnusableClassifier
from words import counted

logger = logging.getLogger(__name__)

# The shares of a training's progress in which features are read: where all are cached, and where none is. To extract
# them takes by far the longest.
LOADING_SHARE, EXTRACTING_SHARE = 0.3, 0.95
# Of the rest, the present classifier is tested on what is new in the first part.
TESTING_SHARE = 0.15
# What was reviewed since in a video that is annotated in part is a test too, from the length of a question on.
TESTED_SECONDS = 2.0


class TrainedMode(Mode):
    """Trains, publishes and finds the classifiers of a control tag.

    Args:
        context: the project's state and settings.
        tag: the control tag.
        videos: its videos.

    Raises:
        InvalidConfig: `model_start_from` names nothing to start from, and the classifier was never trained.
    """

    def __init__(self, context: Context, tag: Tag, videos: Videos) -> None:
        self._context = context
        self._tag = tag
        self._videos = videos
        self._published = self._published_of(context.project_id)
        self._lent: tuple[MultiLabelLSTM, MultiLabelLSTM] | None = None  # what a file holds, and for this tag's labels
        self._check_start()

    def _published_of(self, project_id: str) -> PublishedClassifiers:
        settings, store, tag = self._context.settings, self._context.store, self._tag
        encoder = self._videos.encoder.name
        return PublishedClassifiers(settings.model_root, store, project_id, tag.control_type, encoder, tag.from_name)

    # -- the present classifier

    def path(self, project_id: str) -> Path:
        """The file of a project's present classifier. Deleting it resets the model."""
        return self._published_of(project_id).path

    def ready(self) -> MultiLabelLSTM:
        name = self._tag.from_name
        try:
            classifier = self._published.present()
        except UnusableClassifier as error:
            logger.warning("%s", error)
            raise NotReady(
                f'The model of "{name}" was made by another release of this backend, or its file is damaged: it is '
                "being trained again."
            ) from error
        if classifier is None:
            classifier = self._borrowed()
        if classifier is None:
            raise NotReady(
                f'"{name}" isn\'t trained yet: annotate a video and submit it. The first prediction follows the first '
                "training."
            )
        if not self._fits(classifier):
            raise NotReady(f'The labeling config or the encoder changed: "{name}" is being trained again.')
        return classifier

    def probabilities(
        self,
        features: VideoFeatures,
        frame_rate: float,
        classifier: MultiLabelLSTM,
        task: dict[str, Any] | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        probs = classifier.predict(self._tag.sequence(features, frame_rate), frame_rate)
        store, task_id = self._context.store, (task or {}).get("id")
        if store is not None and task_id is not None:
            for annotated in store.annotated_tasks(self._context.project_id, task_id):
                return recalled(self._tag, annotated, probs)
        return probs, np.zeros(len(probs), bool)

    def doubted(self, probs: np.ndarray, annotated: np.ndarray) -> np.ndarray:
        """As `probabilities`, but a label that no annotation has shown yet is unknown, not absent: 0.5 in rows without
        annotation."""
        known = self.ready().label_has_example.numpy()
        return np.where(annotated[:, None] | known, probs, np.float32(0.5))

    @property
    def version(self) -> str:
        """`v7 (5 videos)` for the seventh training's classifier, learnt from five videos; `v7 (5 videos) of 12` where
        project 12's predicts until the first training; `untrained` without one."""
        try:
            classifier = self._published.present() or self._borrowed()
        except UnusableClassifier:
            return "unreadable"
        return "untrained" if classifier is None else self.version_of(classifier)

    def version_of(self, classifier: MultiLabelLSTM) -> str:
        """The version of a classifier of `ready`. It ends with a hash where the tag's decisions aren't those of the
        training any more, so that Label Studio's predictions are made anew."""
        header, videos, decisions = classifier.header, len(classifier.header["tasks"]), self._tag.decisions()
        version = f"v{header['version']} ({counted(videos, 'video')})"
        if "of" in header:
            return f"{version} of {header['of']}"
        if header.get("decisions", decisions) != decisions:
            version += " " + hashlib.sha256(json.dumps(decisions).encode()).hexdigest()[:4]
        return version

    def _requirements(self) -> dict[str, Any]:
        """What a classifier was made for. A change of any value starts a new one."""
        return self._tag.requirements() | {"encoder": self._videos.encoder.fingerprint}

    def _fits(self, classifier: MultiLabelLSTM) -> bool:
        return classifier.header.get("requirements") == self._requirements()

    def can_train_at_once(self, tasks: list[dict[str, Any]]) -> bool:
        """Whether the cache has all features that a training on these tasks would read, without opening them."""
        return all(self._videos.are_cached(task) for task in choose_tasks(self._tag, tasks).tasks)

    def needs_training(self) -> bool:
        """Whether the classifier is for other labels, another encoder or size, or was never trained although there are
        annotations. A classifier whose file was removed was reset, and stays missing."""
        try:
            classifier = self._published.present()
        except UnusableClassifier:
            return True
        if classifier is not None:
            return not self._fits(classifier)
        store = self._context.store
        if store is None or self._published.ever():
            return False
        return self._is_answered(store.annotated_tasks(self._context.project_id))

    def _is_answered(self, tasks: list[dict[str, Any]]) -> bool:
        return any(self._tag.is_answered(annotation["result"]) for task in tasks for annotation in task["annotations"])

    def forget(self) -> None:
        self._published.forget()

    def earlier(self, version: int) -> Callable[[], None]:
        classifier = self._published.at(version)
        if not self._fits(classifier):
            raise InvalidRequest(
                f'Version {classifier.header["version"]} of "{self._tag.from_name}" was made for another labeling '
                "config or encoder than the present one."
            )
        return lambda: self._published.go_back(classifier)

    # -- training

    def _check_start(self) -> None:
        """Raises InvalidConfig where the first training couldn't start from what the config names. A later one goes on
        without it."""
        name = self._tag.parameters.model_start_from
        if name is None or self._published.ever():
            return
        try:
            self._start()
        except (InvalidRequest, UnusableClassifier) as error:
            tag = f'<{self._tag.control_type} name="{self._tag.from_name}" model_start_from="{name}">'
            raise InvalidConfig(f"{tag}: {error}") from error

    def _start(self) -> MultiLabelLSTM | None:
        """The classifier to start from; None where the config names none, or the other project has none yet.

        Raises:
            InvalidRequest: nothing to start from has that name, or it reads other features or has other labels.
            UnusableClassifier: its file can't be read.
        """
        tag, context, name = self._tag, self._context, self._tag.parameters.model_start_from
        if name is None:
            return None
        if name == context.project_id:
            raise InvalidRequest("A project can't start from itself.")
        other = find_start(context.settings.model_root, context.store, name, tag.from_name)
        if other is None:
            return None
        if other.header["requirements"]["encoder"] != self._videos.encoder.fingerprint:
            raise InvalidRequest(
                f"Its model reads features of {other.header['encoder']}, of another file or another part or size of "
                "the picture than this tag's. Give both tags the same model_path, model_region and model_image_size."
            )
        if other.header["requirements"].keys() != self._requirements().keys():
            raise InvalidRequest(f"Its model isn't of a <{tag.control_type}>, as this tag is.")
        if not other.get_label_map().keys() & set(tag.labels):
            labels = ", ".join(map(repr, other.get_label_map()))
            raise InvalidRequest(f"Its model has none of this tag's labels; it has {labels}.")
        return other

    def _borrowed(self) -> MultiLabelLSTM | None:
        """The classifier to start from, for this tag's labels, which predicts until the first training; else None."""
        name = self._tag.parameters.model_start_from
        if name is None or self._published.ever():
            return None
        try:
            start = self._start()
        except (InvalidRequest, UnusableClassifier) as error:
            logger.warning("%s predicts nothing yet: %s", self._published.path.name, error)
            return None
        if start is None:
            return None
        if self._lent is None or self._lent[0] is not start:
            classifier = start.with_labels(self._tag.label_map)
            classifier.header = start.header | {"requirements": self._requirements(), "of": name}
            self._lent = (start, classifier)
        return self._lent[1]

    def _trainer(self) -> Trainer:
        start = None
        try:
            start = self._start()
        except (InvalidRequest, UnusableClassifier) as error:
            logger.warning("%s starts from nothing: %s", self._published.path.name, error)
        return Trainer(self._tag, start)

    def fit(
        self,
        event: str,
        data: dict[str, Any],
        tasks: list[dict[str, Any]] | None = None,
        from_scratch: bool = False,
        progress: Progress = UNTOLD,
        version: int = 1,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Tests the present classifier on the videos that are new to it, then trains a new one on all annotations.

        So the present classifier's score is what an annotator saw ("prequential" evaluation: Dawid, "The Prequential
        Approach", JRSS A 147, 1984).

        Args:
            event: the webhook's action.
            data: the webhook's body; where `tasks` is None, its `task` and `annotation` are learnt.
            tasks: every annotated task of the project: `{"id", "data", "annotations": [{"id", "result"}]}`.
            from_scratch: whether to forget the present classifier.
            progress: called with the share done, in [0, 1].
            version: the number of the new classifier.

        Returns:
            The candidate's metrics (`Trainer.candidate`); published, with version or reason; prequential, the present
            classifier's score on the videos and reviewed parts that were new to it, as of `Trainer.test` (None where
            none was); tasks, the number of videos that were learnt; unavailable, task id -> why its video was left out.

        Raises:
            InvalidAnnotation: there is no annotated video to train on. Where no task has one, the present classifier is
            forgotten.
            MediaError: no annotated video can be fetched.
        """
        if tasks is None:
            tasks = [{**data["task"], "annotations": [data["annotation"]]}]
        if not tasks:
            self.forget()
            return {"published": True, "tasks": 0}
        trainer = self._trainer()
        chosen = choose_tasks(self._tag, tasks)
        notes = self._context.notes
        loaded = self._loading_share(chosen.tasks)
        loading, rest = progress.part(0.0, loaded), progress.part(loaded, 1.0)
        try:
            read = read_examples(self._tag, self._videos, notes, chosen.tasks, loading, chosen.stands_for)
        except InvalidAnnotation:
            # A task that wasn't chosen may hold what it learnt.
            if len(chosen.tasks) == len(tasks) or not self._is_answered(tasks):
                self.forget()
            raise
        examples, unavailable = read
        present = None if from_scratch else self._usable()
        new = _new_to(present, examples) if present else []
        prequential = trainer.test(present, new, rest.part(0.0, TESTING_SHARE)) if present else None
        # A classifier that learnt a deleted annotation is replaced in any case.
        comparable = present is not None and set(present.header["annotations"]) <= set(_annotation_ids(tasks))
        candidate, metrics, reason = trainer.candidate(
            examples, present if comparable else None, rest.part(TESTING_SHARE, 1.0)
        )
        metrics |= {"prequential": prequential, "unavailable": unavailable, "tasks": num_videos(examples)}
        if reason:
            logger.warning("%s: the training isn't published: %s", self._published.path.name, reason)
            return metrics | {"published": False, "reason": reason}
        header = {
            "version": version,
            "requirements": self._requirements(),
            "decisions": self._tag.decisions(),
            "encoder": self._videos.encoder.name,
            "tasks": sorted({e.task_id for e in examples}),
            "reviewed": _reviewed(examples),
            "annotations": _annotation_ids(chosen.tasks),
            "metrics": metrics,
        }
        if not self._published.publish(candidate, header):
            return metrics | {"published": False, "reason": "a later training's model is the present one"}
        return metrics | {"published": True, "version": version}

    def _loading_share(self, tasks: list[dict[str, Any]]) -> float:
        """The share of a training's progress in which the features of its tasks are read."""
        missing = 0
        for task in tasks:
            try:
                missing += not self._videos.are_cached(task)
            except (BackendError, *ERRORS_OF_DATA):
                continue  # it is left out
        return LOADING_SHARE + (EXTRACTING_SHARE - LOADING_SHARE) * missing / len(tasks)

    def _usable(self) -> MultiLabelLSTM | None:
        """The present classifier where it was made for the present config and encoder, else None."""
        try:
            classifier = self._published.present()
        except UnusableClassifier as error:
            logger.warning("%s: a new classifier is started: %s", self._published.path.name, error)
            return None
        return classifier if classifier is not None and self._fits(classifier) else None

    def rank(self, tasks: list[dict[str, Any]], progress: Progress = UNTOLD) -> list[Ranked]:
        try:
            classifier = self.ready()
        except NotReady:
            return []
        store = self._context.store
        annotated = store.annotated_tasks(self._context.project_id) if store is not None else []
        compared = choose_tasks(self._tag, annotated).tasks if annotated else []
        return ranked(self._tag, self._videos, classifier, compared, tasks, progress)

    def held_out(self, tasks: list[dict[str, Any]], folds: list[set[int]], progress: Progress = UNTOLD) -> Evaluation:
        tag = self._tag
        examples = read_examples(tag, self._videos, self._context.notes, tasks).examples
        try:
            cases = self._trainer().held_out(examples, folds, progress)
        except ValueError as error:
            raise InvalidAnnotation(f"Annotate at least two different videos: {error}.") from error
        return Evaluation(tag.from_name, tuple(tag.labels), tag.colours, tuple(cases))


def _annotation_ids(tasks: list[dict[str, Any]]) -> list[int]:
    return sorted(annotation["id"] for task in tasks for annotation in task["annotations"])


def _reviewed(examples: list[Example]) -> dict[str, list[tuple[int, int]]]:
    """The runs of reviewed frames of each task that is annotated in part, by all of its annotations together."""
    reviewed: dict[str, np.ndarray] = {}
    for e in examples:
        task = str(e.task_id)
        reviewed[task] = reviewed[task] | e.reviewed if task in reviewed else e.reviewed
    return {task: segments(frames) for task, frames in reviewed.items() if not frames.all()}


def _new_to(present: MultiLabelLSTM, examples: list[Example]) -> list[Example]:
    """The examples of videos that a classifier didn't learn, and those of frames that were reviewed since."""
    new = []
    for e in examples:
        known = present.header.get("reviewed", {}).get(str(e.task_id))
        if e.task_id not in present.header["tasks"]:
            new.append(e)
        elif known is not None:
            since = e.reviewed.copy()
            for start, end in known:
                since[start:end] = False
            if since.sum() >= TESTED_SECONDS * e.frame_rate:
                new.append(replace(e, reviewed=since))
    return new
