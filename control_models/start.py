"""Find the model that a classifier starts from (`model_start_from`): another project's, or an imported file."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from errors import InvalidRequest
from ml_backend.store import Store
from utils.neural_nets import MultiLabelLSTM, UnusableClassifier

FOLDER = "imported"  # in MODEL_ROOT
NAME = re.compile(r"(?!\d+(-\d+)?$)\w[\w.-]{0,99}")  # no project's id, and no path


def import_model(model_root: Path, file: Path, name: str) -> list[str]:
    """Copies a model's file to a name, in place of one of the same name. Returns the model's labels.

    Raises:
        InvalidRequest: the name can't be used, or the file isn't a model of this release.
    """
    if not NAME.fullmatch(name):
        raise InvalidRequest(
            f"{name!r} can't be a model's name. A name has at most 100 letters, digits, '.', '-' and '_', and isn't "
            "a number, which would be a project. Give another one with --name."
        )
    try:
        labels = list(MultiLabelLSTM.load(file).get_label_map())
    except UnusableClassifier as error:
        raise InvalidRequest(f"{file} can't be imported: it isn't a model that this release exported.") from error
    path = _imported(model_root, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    shutil.copyfile(file, unfinished)
    unfinished.replace(path)
    return labels


def present_file(model_root: Path, store: Store, project_id: str, from_name: str) -> Path | None:
    """The file of a control tag's present classifier, None where there is none."""
    row = store.present_version(project_id, from_name)
    path = model_root / row.file if row else None
    return path if path and path.exists() else None


def find_start(model_root: Path, store: Store | None, name: str, from_name: str) -> MultiLabelLSTM | None:
    """The classifier that `model_start_from` names; None where the project isn't trained yet.

    Args:
        model_root: the folder of models.
        store: the state; without one only imported models are known.
        name: the name of an imported model, or a project's id.
        from_name: the control tag that starts. Where the other project has several tags, the one of this name is taken.

    Raises:
        InvalidRequest: there is no such model or project, or the project has several tags and none of this name.
        UnusableClassifier: the file can't be read.
    """
    if NAME.fullmatch(name):
        path = _imported(model_root, name)
        if not path.exists():
            raise InvalidRequest(f"No model was imported under this name: cli.py import-model FILE --name {name}")
        return MultiLabelLSTM.load_cached_model(path)
    if store is None or store.project(name) is None:
        raise InvalidRequest("This backend knows no project of this number.")
    names = {version.from_name for version in store.versions(name)}
    if len(names) > 1 and from_name not in names:
        tags = ", ".join(sorted(names))
        raise InvalidRequest(f"Project {name} has several control tags ({tags}), none of which is {from_name!r}.")
    if not names:
        return None
    path = present_file(model_root, store, name, from_name if from_name in names else names.pop())
    return MultiLabelLSTM.load_cached_model(path) if path else None


def _imported(model_root: Path, name: str) -> Path:
    return model_root / FOLDER / f"{name}.safetensors"
