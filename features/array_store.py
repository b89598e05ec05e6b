"""A joblib store for arrays that needn't fit into memory.

joblib's own store pickles a result that is complete in memory. Here a cached function fills a folder of .npy files row
by row and returns it; the store moves it into place, and gives its arrays memory-mapped. Several processes may use a
store at once, and drop each other's items at any moment.
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

FACTS = CacheFolder.FACTS  # of an item: written last, touched on reading


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
        arrays = {name: map_array(_array_path(folder, name)) for name in item["arrays"]}
        return cls(folder, item["facts"] | arrays)


class DescriptorsExhausted(BaseException):
    """The process may open no more files. No Exception: joblib takes any for a damaged item, and computes it again."""


class MappedArray(np.ndarray):
    """A memory-mapped array; what is derived from it is one by type alone, and releases nothing."""

    _span: tuple[int, int] | None = None  # address and bytes of the mapping

    def release(self) -> None:
        """Unmap the pages that were read, which stay in the kernel's cache.

        Else a process that has read a long video once counts as holding all of it, where memory is limited too.
        """
        if self._span is not None and hasattr(mmap, "MADV_DONTNEED"):  # Linux and BSD
            address, size = self._span
            ctypes.CDLL(None).madvise(ctypes.c_void_p(address), ctypes.c_size_t(size), mmap.MADV_DONTNEED)


HEADER_BYTES = 128  # of the files that are written here, whatever their number of rows


@lru_cache(maxsize=10_000)
def _header(beginning: bytes) -> tuple[tuple[int, ...], np.dtype, int]:
    """Shape, type and first byte of the rows of a .npy file, remembered: files of videos of one length share it."""
    file = io.BytesIO(beginning)
    np.lib.format.read_magic(file)
    shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    return shape, dtype, file.tell()


def map_array(path: Path) -> MappedArray:
    """The array of a .npy file, memory-mapped and read-only. It holds no file descriptor, however long it lives.

    Raises:
        OSError, ValueError: there is no such file, or it is damaged.
    """
    with path.open("rb") as file:
        shape, dtype, start = _header(file.read(HEADER_BYTES))
        size = start + dtype.itemsize * int(np.prod(shape))
        if dtype.hasobject or os.fstat(file.fileno()).st_size < size:
            raise ValueError(f"{path} is cut off")
    # PyTorch closes the file once it is mapped, which Python's own mmap doesn't before 3.13.
    mapped = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8).numpy()
    array = mapped[start:].view(dtype).reshape(shape).view(MappedArray)
    array.flags.writeable = False
    array._span = (mapped.ctypes.data, size)
    return array


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
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        trash = CacheFolder(item.folder.parents[1], limit=0)
        trash.discard(target)
        try:
            item.folder.rename(target)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            trash.discard(item.folder)  # another process was faster just now

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
        try:
            with suppress(OSError):  # a read-only cache is read all the same
                os.utime(folder / FACTS)
            return Item.open(folder)
        except (OSError, RuntimeError) as error:  # PyTorch has its own for a file that can't be opened
            if getattr(error, "errno", None) in (errno.EMFILE, errno.ENFILE) or os.strerror(errno.EMFILE) in str(error):
                raise DescriptorsExhausted from error
            raise


class ArrayFolder:
    """A folder of .npy files that are written row by row. Removed unless finished.

    Args:
        parent: where the folder is made; on the store's file system.
        rows: an example of a row of each array, by name.

    Attributes:
        path: the folder.
        row_size: bytes of a row of all arrays.
        num_rows: rows so far.
        reserved_rows: rows that space is taken for, so that it counts before it is filled.
    """

    def __init__(self, parent: Path, rows: Mapping[str, np.ndarray]) -> None:
        self.path = parent / uuid4().hex
        self.path.mkdir(mode=0o700, parents=True)
        self.row_size = sum(row.nbytes for row in rows.values())
        self.num_rows = self.reserved_rows = 0
        self._files = {name: _ArrayFile(_array_path(self.path, name), row) for name, row in rows.items()}

    def reserve(self, num_rows: int) -> None:
        """Takes space for so many more rows."""
        self.reserved_rows += num_rows
        for file in self._files.values():
            file.reserve(self.reserved_rows)

    def append(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Adds rows to each array: [num_rows, ...]."""
        for name, file in self._files.items():
            file.append(arrays[name])
        self.num_rows += len(next(iter(arrays.values())))

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
            CacheFolder(self.path.parents[1], limit=0).discard(self.path)


class _ArrayFile:
    """A .npy file of as many rows as come."""

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
        # NumPy leaves space in it for the number of rows to grow.
        shape = (self._num_rows, *self._row.shape)
        header = {"descr": np.lib.format.dtype_to_descr(self._dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._file, header)


def _array_path(folder: Path, name: str) -> Path:
    return folder / f"{name}.npy"


def _flush_to_disk(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())
