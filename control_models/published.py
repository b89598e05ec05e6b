"""`PublishedClassifiers`: the versions of a control tag's classifier, as files in MODEL_ROOT and rows in the store."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

from errors import InvalidRequest, ModelsUnwritable
from features.checkpoints import file_hash
from ml_backend.store import Store
from utils.neural_nets import MultiLabelLSTM

HASH_DIGITS = 16  # of a file's name; enough for all files of a folder to differ
MAX_STEM_LENGTH = 150  # a file's name may have 255 bytes, and a temporary one is longer than the final one
VERSIONS_KEPT = 20  # to go back to; each is a file of some hundred kilobytes


class PublishedClassifiers:
    """Publishes, finds and removes the versions of a control tag's classifier.

    A version is a file that is named by its content and never changes. A row of the store points at the one that
    predicts, so that publishing and going back are one update, and a reader sees the old version or the new one.
    Without a store there is one version, the file with a plain name.

    Args:
        model_root: the folder of the files.
        store: the state, or None.
        project_id: the project.
        control_type: the control tag's name in the labeling config; part of the files' names.
        encoder_name: the name of the encoder of new versions; part of their files' names.
        from_name: the control tag.
    """

    def __init__(
        self,
        model_root: Path,
        store: Store | None,
        project_id: str,
        control_type: str,
        encoder_name: str,
        from_name: str,
    ) -> None:
        self._root = model_root
        self._store = store
        self._project_id = project_id
        self._from_name = from_name
        self._stem = _stem(f"{control_type.lower()}-{project_id}-{encoder_name}-{from_name}")

    @property
    def path(self) -> Path:
        """The present version's file; where there is none, the path of a file that doesn't exist."""
        row = self._store.present_version(self._project_id, self._from_name) if self._store else None
        if row is not None:
            return self._root / row.file
        return self._root / (f"{self._stem}-none.safetensors" if self._store else f"{self._stem}.safetensors")

    def present(self) -> MultiLabelLSTM | None:
        """Returns the present version, None where there is none or its file was removed. All callers share it, so don't
        train it.

        Raises:
            UnusableClassifier: the file can't be read.
        """
        return MultiLabelLSTM.load_cached_model(self.path)

    def ever(self) -> bool:
        """Whether a version was published and not forgotten, even if its file was removed since."""
        return bool(self._store and self._store.versions(self._project_id, self._from_name))

    def publish(self, classifier: MultiLabelLSTM, header: dict[str, Any]) -> bool:
        """Stores a classifier and makes it the present version.

        Args:
            classifier: the trained classifier.
            header: JSON that is stored with it; it has "version" and "metrics".

        Returns:
            False where a later version is the present one already.

        Raises:
            InvalidRequest: the project was deleted meanwhile.
            ModelsUnwritable: MODEL_ROOT is full or read-only; nothing has changed.
        """
        if self._store is None:
            self._write(classifier, self.path, header)
            return True
        written = self._root / f".{self._stem}-{uuid4().hex}.safetensors"
        self._write(classifier, written, header)
        file = written.replace(self._root / f"{self._stem}-{file_hash(written)[:HASH_DIGITS]}.safetensors")
        try:
            published = self._store.publish_version(
                self._project_id, self._from_name, header["version"], file.name, header["metrics"]
            )
        except InvalidRequest:
            file.unlink()
            raise
        (self._root / f"{self._stem}.safetensors").unlink(missing_ok=True)  # of a release that had no versions
        self._drop_old()
        return published

    @staticmethod
    def _write(classifier: MultiLabelLSTM, path: Path, header: dict[str, Any]) -> None:
        try:
            classifier.save(path, header)
        except OSError as error:
            raise ModelsUnwritable(
                f"The new model can't be written to MODEL_ROOT, {path.parent} ({error.strerror}). Free space there, or "
                "make the folder writable. The present model predicts meanwhile."
            ) from error

    def _drop_old(self) -> None:
        present = self._store.present_version(self._project_id, self._from_name)
        for row in self._store.versions(self._project_id, self._from_name)[VERSIONS_KEPT:]:
            if row.version != present.version:
                self._store.delete_version(self._project_id, self._from_name, row.version)
                (self._root / row.file).unlink(missing_ok=True)

    def at(self, version: int) -> MultiLabelLSTM:
        """Returns the classifier that was the present one after a training.

        Raises:
            InvalidRequest: there is none any more.
        """
        known = self._store.versions(self._project_id, self._from_name) if self._store else []
        earlier = [row for row in known if row.version <= version]  # newest first
        if not earlier:
            numbers = ", ".join(str(row.version) for row in reversed(known)) or "none"
            raise InvalidRequest(f'"{self._from_name}" has no version {version} to go back to. It has {numbers}.')
        try:
            return MultiLabelLSTM.load(self._root / earlier[0].file)
        except FileNotFoundError as error:
            raise InvalidRequest(
                f'Version {earlier[0].version} of "{self._from_name}" can\'t be restored, because its file '
                f"{earlier[0].file} isn't in MODEL_ROOT any more."
            ) from error

    def go_back(self, classifier: MultiLabelLSTM) -> None:
        """Makes a classifier of `at` the present version again."""
        self._store.make_present(self._project_id, self._from_name, classifier.header["version"])

    def forget(self) -> None:
        """Removes all versions."""
        if self._store is None:
            self.path.unlink(missing_ok=True)
            return
        self._store.forget_present_version(self._project_id, self._from_name)
        for row in self._store.versions(self._project_id, self._from_name):
            self._store.delete_version(self._project_id, self._from_name, row.version)
            (self._root / row.file).unlink(missing_ok=True)


def _stem(name: str) -> str:
    """The beginning of a control tag's file names, in characters that any file may have, cut where it is long."""
    quoted = quote(name, safe="")
    if len(quoted) <= MAX_STEM_LENGTH:
        return quoted
    return f"{quoted[: MAX_STEM_LENGTH - HASH_DIGITS]}{hashlib.sha256(quoted.encode()).hexdigest()[:HASH_DIGITS]}"
