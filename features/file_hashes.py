"""`FileHashes`: the hashes of files' contents, kept so that a file is read once."""

import hashlib
import os
import re
import stat
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from errors import MediaError
from features.checkpoints import file_hash

MAX_KNOWN_FILES = 10_000  # files whose content's hash is stored


class FileHashes:
    """Stores the hashes of files' contents, each by path, size and modification time in a small text file.

    A process keeps those that it has looked up: looking up again costs one stat of the file. A dropped download keeps
    its hash, so that its features are found without the file.

    Args:
        folder: for the text files; created where missing.
        downloads: the folder of downloads.
    """

    HASH = re.compile(r"[0-9a-f]{32,128}")

    def __init__(self, folder: Path, downloads: Path) -> None:
        self._folder, self._downloads = folder, downloads
        self._looked_up: dict[tuple[str, int, int], str] = {}  # by path, size and modification time
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def of(self, path: str | Path) -> str:
        """Returns a file's hash. It reads the file where that is new or has changed.

        Raises:
            MediaError: the file doesn't exist.
        """
        places = self._places(Path(os.path.realpath(path)))
        known = self._read(places[0])
        if known is None:
            known = file_hash(path)
            with suppress(OSError):  # in a full or read-only cache the hash isn't stored
                for remembered in places:
                    temporary = remembered.with_name(uuid4().hex)
                    temporary.write_text(known)
                    temporary.replace(remembered)
                self._forget_oldest()
        return known

    def known(self, path: str | Path) -> str | None:
        """A file's stored hash, or None, without reading the file. Raises MediaError as `of`, except for downloads."""
        try:
            status = os.stat(path)
        except OSError:
            return self._read(self._places(Path(os.path.realpath(path)))[0])
        state = (str(path), status.st_size, status.st_mtime_ns)
        if state not in self._looked_up:
            known = self._read(self._places(Path(os.path.realpath(path)))[0])
            if known is None:
                return None
            self._looked_up[state] = known
        return self._looked_up[state]

    def forget(self, path: str | Path) -> None:
        """Forgets a file's hash. Other processes may know it still."""
        self._looked_up = {state: known for state, known in self._looked_up.items() if state[0] != str(path)}
        for place in self._places(Path(os.path.realpath(path))):
            place.unlink(missing_ok=True)

    def _places(self, path: Path) -> list[Path]:
        """The paths of a file's stored hash: for its present state, and for a download also for when it is dropped."""
        is_download = path.is_relative_to(self._downloads)
        try:
            status = path.stat()
        except OSError:
            status = None
        if status is None or not stat.S_ISREG(status.st_mode):
            if not is_download:
                raise MediaError(f"{path.name} does not exist.")
            return [self._place(str(path))]
        here = self._place(f"{path} {status.st_size} {status.st_mtime_ns}")
        return [here, self._place(str(path))] if is_download else [here]

    def _place(self, identity: str) -> Path:
        return self._folder / hashlib.blake2b(os.fsencode(identity), digest_size=16).hexdigest()

    def _read(self, remembered: Path) -> str | None:
        try:
            text = remembered.read_text()
        except FileNotFoundError:
            return None
        return text if self.HASH.fullmatch(text) else None

    def _forget_oldest(self) -> None:
        names = os.listdir(self._folder)
        if len(names) > 1.1 * MAX_KNOWN_FILES:
            paths = sorted((self._folder / name for name in names), key=lambda path: path.stat().st_mtime)
            for path in paths[: len(names) - MAX_KNOWN_FILES]:
                path.unlink(missing_ok=True)
