"""A joblib store for arrays that needn't fit into memory.

joblib's own store pickles a result that is complete in memory. Here a cached function fills a folder of .npy files row
by row and returns it; the store moves it into place, and gives its arrays memory-mapped. Several processes may use a
store at once, and drop each other's items at any moment.
"""

import errno
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import joblib
import numpy as np
from joblib.memory import FileSystemStoreBackend

FACTS = "facts.json"  # of an item: written last, touched on reading
ITEM_OVERHEAD = 4096  # bytes of an item beside its rows, at most: headers and facts
STALE_AFTER = 3600.0  # seconds without a write after which whoever was filling a folder must have been killed


@dataclass(frozen=True)
class Item:
    """What a folder written by `ArrayFolder` holds.

    Attributes:
        folder: where it was when it was opened.
        contents: its facts and its arrays by name. The arrays are memory-mapped: they stay valid when the folder is
            moved or removed.
    """

    folder: Path
    contents: dict[str, Any]

    @classmethod
    def open(cls, folder: Path) -> "Item":
        """Reads the facts and maps the arrays.

        Raises:
            OSError, ValueError, KeyError: there is no such item, or it is damaged.
        """
        item = json.loads((folder / FACTS).read_text())
        arrays = {name: np.load(_array_path(folder, name), mmap_mode="r") for name in item["arrays"]}
        return cls(folder, item["facts"] | arrays)


class ArrayStore(FileSystemStoreBackend):
    """Store of `Item`s. For `joblib.Memory(backend=ArrayStore.register())`.

    Memory's own `mmap_mode` must stay unset: with it, joblib would load each new item again from where the store has
    put it, and another process may have dropped it from there by then.
    """

    @classmethod
    def register(cls) -> str:
        """Makes joblib know this store; returns the name to call it by."""
        joblib.register_store_backend("arrays", cls)
        return "arrays"

    def dump_item(self, call_id: list[str], item: Item, verbose: int = 1) -> None:
        """Moves an item into place, in place of one that is damaged or that another process just made."""
        target = Path(self.location, *call_id)
        target.parent.mkdir(parents=True, exist_ok=True)
        trash = item.folder.parent
        discard(target, trash)
        try:
            item.folder.rename(target)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            discard(item.folder, trash)  # another process was faster just now

    def store_metadata(self, call_id: list[str], metadata: Mapping[str, Any]) -> None:
        """Keeps nothing: nobody reads it, and it would make the folder of an item that was just dropped anew."""

    def contains_item(self, call_id: list[str]) -> bool:
        """Whether there is an item, intact or not."""
        return Path(self.location, *call_id, FACTS).is_file()

    def load_item(self, call_id: list[str], *_: Any, **__: Any) -> Item:
        """The item, marked as read just now.

        Raises:
            OSError, ValueError, KeyError: it is damaged, or was just dropped; joblib then computes it again.
        """
        folder = Path(self.location, *call_id)
        os.utime(folder / FACTS)
        return Item.open(folder)


class ArrayFolder:
    """A folder of .npy files that are written row by row. Removed unless finished.

    Args:
        parent: where the folder is made; on the store's file system.
        rows: an example of a row of each array, by name.
        expected_rows: space for them is taken at once, so that `usage` counts it before it is filled.
    """

    def __init__(self, parent: Path, rows: Mapping[str, np.ndarray], expected_rows: int) -> None:
        self.path = parent / uuid4().hex
        self.path.mkdir(parents=True)
        self._files = {name: _ArrayFile(_array_path(self.path, name), row, expected_rows) for name, row in rows.items()}

    def append(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Adds rows to each array: [num_rows, ...]."""
        for name, file in self._files.items():
            file.append(arrays[name])

    def finish(self, facts: Mapping[str, Any]) -> Item:
        """Completes the folder and opens it; `facts` must fit into JSON."""
        for file in self._files.values():
            file.finish()
        with open(self.path / FACTS, "w") as file:
            json.dump({"facts": facts, "arrays": list(self._files)}, file)
            _flush_to_disk(file)
        return Item.open(self.path)

    def __enter__(self) -> "ArrayFolder":
        return self

    def __exit__(self, error_type: type[BaseException] | None, *_: object) -> None:
        for file in self._files.values():
            file.close()
        if error_type is not None:
            discard(self.path, self.path.parent)


class _ArrayFile:
    """A .npy file of as many rows as come."""

    def __init__(self, path: Path, row: np.ndarray, expected_rows: int) -> None:
        self._dtype = row.dtype
        self._row_shape = row.shape
        self._num_rows = 0
        self._file = open(path, "wb")  # noqa: SIM115 (closed with the folder)
        self._write_header()
        self._file.truncate(self._file.tell() + expected_rows * row.nbytes)

    def append(self, rows: np.ndarray) -> None:
        self._file.write(np.ascontiguousarray(rows, self._dtype).data)
        self._num_rows += len(rows)

    def finish(self) -> None:
        self._file.truncate(self._file.tell())
        self._file.seek(0)
        self._write_header()
        _flush_to_disk(self._file)

    def close(self) -> None:
        self._file.close()

    def _write_header(self) -> None:
        # NumPy leaves space in it for the number of rows to grow.
        shape = (self._num_rows, *self._row_shape)
        header = {"descr": np.lib.format.dtype_to_descr(self._dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._file, header)


def make_room(items_root: Path, unfinished: Path, size: int, limit: int) -> int:
    """Drops the items that weren't read for longest until an item with `size` bytes of rows is within the limit, and
    returns how many.

    Unfinished folders count and stay, except those of processes that were killed.
    """
    unfinished.mkdir(parents=True, exist_ok=True)
    for folder in unfinished.iterdir():
        if time.time() - _last_write(folder) > STALE_AFTER:
            shutil.rmtree(folder, ignore_errors=True)
    items = [path.parent for path in _files(items_root) if path.name == FACTS]
    items.sort(key=lambda item: _mtime(item / FACTS))
    # Unfinished ones first: a folder that is just being moved counts twice at worst, but never not at all.
    excess = usage(unfinished) + usage(items_root) + size + ITEM_OVERHEAD - limit
    dropped = 0
    for item in items:
        if excess <= 0:
            break
        excess -= usage(item)
        discard(item, unfinished)
        dropped += 1
    return dropped


def usage(folder: Path) -> int:
    """Bytes of all files in a folder, taken or reserved."""
    return sum(map(_size, _files(folder)))


def discard(folder: Path, trash: Path) -> None:
    """Removes a folder, if it is there, so that others find it whole or not at all."""
    doomed = trash / uuid4().hex
    with suppress(FileNotFoundError):
        folder.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)


def _array_path(folder: Path, name: str) -> Path:
    return folder / f"{name}.npy"


def _flush_to_disk(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())


def _files(folder: Path) -> Iterator[Path]:
    """All files in a folder, whatever others remove meanwhile."""
    for parent, _, names in os.walk(folder):
        yield from (Path(parent, name) for name in names)


def _last_write(folder: Path) -> float:
    return max(map(_mtime, [folder, *_files(folder)]))


def _mtime(path: Path) -> float:
    """0 for a file that another process has just removed."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
