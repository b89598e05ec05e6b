"""A joblib store for arrays that needn't fit into memory.

joblib's own store pickles results that are complete in memory. Here a cached function fills a folder of .npy files row
by row and returns it; the store moves the folder into place, and returns its arrays memory-mapped. Several processes
may use a store at once, and drop each other's items at any time.
"""

import ctypes
import errno
import io
import json
import mmap
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from uuid import uuid4

import joblib
import numpy as np
import torch
from joblib.memory import FileSystemStoreBackend

from features.cache_folder import CacheFolder

FACTS = CacheFolder.FACTS  # an item's file that is written last, and touched on reading


@dataclass(frozen=True)
class Item:
    """The contents of a folder that `ArrayFolder` wrote.

    Attributes:
        folder: the folder's path when it was opened.
        contents: the facts, and the arrays by name. The arrays are memory-mapped, and stay valid when the folder is
            moved or removed.
    """

    folder: Path
    contents: dict[str, Any]

    @classmethod
    def open(cls, folder: Path) -> "Item":
        """Reads the facts and maps the arrays.

        Raises:
            OSError, ValueError, KeyError: the item doesn't exist or is damaged.
        """
        item = json.loads((folder / FACTS).read_text())
        arrays = {name: map_array(_array_path(folder, name)) for name in item["arrays"]}
        return cls(folder, item["facts"] | arrays)


class MappedArray(np.ndarray):
    """A memory-mapped array. Arrays that are derived from it have its type, but release nothing."""

    _span: tuple[int, int] | None = None  # address and bytes of the mapping

    def release(self) -> None:
        """Unmaps the pages that were read; they stay in the kernel's cache.

        Otherwise the process would be counted as holding all of a long video, also by a memory limit.
        """
        if self._span is not None and hasattr(mmap, "MADV_DONTNEED"):  # Linux and BSD
            address, size = self._span
            ctypes.CDLL(None).madvise(ctypes.c_void_p(address), ctypes.c_size_t(size), mmap.MADV_DONTNEED)


HEADER_BYTES = 128  # of the files that are written here, for any number of rows


@lru_cache(maxsize=10_000)
def _header(beginning: bytes) -> tuple[tuple[int, ...], np.dtype, int]:
    """Shape, type and first byte of the rows of a .npy file, by its header. Videos of one length share a header."""
    file = io.BytesIO(beginning)
    np.lib.format.read_magic(file)
    shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    return shape, dtype, file.tell()


def map_array(path: Path) -> MappedArray:
    """Maps the array of a .npy file into memory, read-only. It keeps no file descriptor open.

    Raises:
        OSError, ValueError: the file doesn't exist or is damaged.
    """
    with path.open("rb") as file:
        shape, dtype, start = _header(file.read(HEADER_BYTES))
        size = start + dtype.itemsize * int(np.prod(shape))
        if dtype.hasobject or os.fstat(file.fileno()).st_size < size:
            raise ValueError(f"{path} is cut off")
    # PyTorch closes the file after mapping it, which Python's own mmap doesn't before 3.13.
    try:
        mapped = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8).numpy()
    except RuntimeError as error:  # the file can't be opened
        raise OSError(errno.EMFILE if os.strerror(errno.EMFILE) in str(error) else errno.EIO, str(error)) from error
    array = mapped[start:].view(dtype).reshape(shape).view(MappedArray)
    array.flags.writeable = False
    array._span = (mapped.ctypes.data, size)
    return array


class ArrayStore(FileSystemStoreBackend):
    """Stores `Item`s, for `joblib.Memory(backend=ArrayStore.register())`.

    Memory's own `mmap_mode` must stay unset. With it joblib would load each new item again from the store, where
    another process may have dropped it by then.
    """

    @classmethod
    def register(cls) -> str:
        """Registers this store with joblib. Returns its name there."""
        joblib.register_store_backend("arrays", cls)
        return "arrays"

    def dump_item(self, call_id: list[str], item: Item | None, verbose: int = 1) -> None:
        """Moves an item into place, and replaces one that is damaged or that another process has just made."""
        if item is None:
            return
        target = Path(self.location, *call_id)
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        trash = CacheFolder(item.folder.parents[1], limit=0)
        trash.discard(target)
        try:
            item.folder.rename(target)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            trash.discard(item.folder)  # another process was faster

    def store_metadata(self, call_id: list[str], metadata: Mapping[str, Any]) -> None:
        """Stores nothing: the metadata isn't used, and would create the folder of a dropped item anew."""

    def contains_item(self, call_id: list[str]) -> bool:
        """Whether the item exists, intact or not."""
        return Path(self.location, *call_id, FACTS).is_file()

    def load_item(self, call_id: list[str], *_: Any, **__: Any) -> Item:
        """Opens an item, and marks it as read now.

        Raises:
            OSError, ValueError, KeyError: the item is damaged or was dropped.
        """
        folder = Path(self.location, *call_id)
        with suppress(OSError):  # a read-only cache can be read all the same
            os.utime(folder / FACTS)
        return Item.open(folder)

    def get_metadata(self, call_id: list[str]) -> dict[str, Any]:
        """There is none; to look for it would cost each look-up a file."""
        return {}


class ArrayFolder:
    """A folder of .npy files that are written row by row. It is removed after an error.

    Args:
        parent: the folder in which it is created, on the store's file system.
        rows: an example of a row of each array, by name.

    Attributes:
        path: the folder.
        row_size: bytes of a row of all arrays.
        num_rows: rows that were written.
        reserved_rows: rows for which space is reserved, so that the cache's limit counts it before it is filled.
    """

    def __init__(self, parent: Path, rows: Mapping[str, np.ndarray]) -> None:
        self.path = parent / uuid4().hex
        self.path.mkdir(mode=0o700, parents=True)
        self.row_size = sum(row.nbytes for row in rows.values())
        self.num_rows = self.reserved_rows = 0
        self._files = {name: _ArrayFile(_array_path(self.path, name), row) for name, row in rows.items()}

    def reserve(self, num_rows: int) -> None:
        """Reserves space for more rows."""
        self.reserved_rows += num_rows
        for file in self._files.values():
            file.reserve(self.reserved_rows)

    def append(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Appends rows [num_rows, …] to each array."""
        for name, file in self._files.items():
            file.append(arrays[name])
        self.num_rows += len(next(iter(arrays.values())))

    def finish(self, facts: Mapping[str, Any]) -> Item:
        """Completes the folder and opens it. `facts` must be JSON."""
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
            CacheFolder(self.path.parents[1], limit=0).discard(self.path)


class _ArrayFile:
    """A .npy file with a growing number of rows."""

    def __init__(self, path: Path, row: np.ndarray) -> None:
        self._dtype = row.dtype
        self._row = row
        self._num_rows = 0
        self._file = open(path, "wb")  # noqa: SIM115 (closed with the folder)
        self._write_header()
        self._file.flush()
        self._start = self._file.tell()

    def reserve(self, num_rows: int) -> None:
        self._file.flush()
        self._file.truncate(self._start + num_rows * self._row.nbytes)

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
        # NumPy leaves space in the header for a larger number of rows.
        shape = (self._num_rows, *self._row.shape)
        header = {"descr": np.lib.format.dtype_to_descr(self._dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._file, header)


def _array_path(folder: Path, name: str) -> Path:
    return folder / f"{name}.npy"


def _flush_to_disk(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())
