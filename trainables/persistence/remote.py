"""Storage below an fsspec URI: a trial works in a private folder, which is copied there.

The file system retries requests itself; a request that still fails raises `StorageError`.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import fsspec

from trainables.files import trial_folder
from trainables.persistence.scratch import ScratchFolder
from trainables.persistence.storage import CHECKPOINTS, Storage, StorageError, TrialFiles

Stamp = tuple[int, int, int]  # inode, bytes and time of a file: changes with its content


@dataclass(frozen=True)
class RemotePrefix(Storage):
    """The files below a URI. fsspec's packages find the credentials on each machine."""

    uri: str
    remedy = (
        "each machine needs the package of the protocol (s3fs for s3), and credentials and endpoint"
        " in its environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL) or in the"
        " files of its user"
    )

    def __str__(self) -> str:
        return self.uri

    def where(self, key: str) -> str:
        return f"{self.uri}/{_prefix(key)}"

    def assert_seen(self) -> None:
        self._names(_prefix("none"))

    def open_trial(self, key: str) -> TrialFiles:
        return PrivateFiles(self, key)

    @contextlib.contextmanager
    def artifacts(self, key: str) -> Iterator[Path]:
        scratch = ScratchFolder()
        try:
            self.fetch(f"{_prefix(key)}/artifacts", scratch.path)
            yield scratch.path
        finally:
            scratch.remove()

    def started(self, keys: Sequence[str]) -> set[str]:
        paths = (PurePosixPath(name) for name in self._names("trials"))  # all in one listing
        return {str(path.parent) for path in paths if path.name in CHECKPOINTS}.intersection(keys)

    def fetch(self, prefix: str, folder: Path) -> None:
        """Copy all files below a prefix into a folder."""
        for name in self._names(prefix):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.read(f"{prefix}/{name}"))

    def read(self, name: str) -> bytes:
        with self._file_system("read") as (file_system, root):
            content: bytes = file_system.cat_file(f"{root}/{name}")
            return content

    def write(self, name: str, content: bytes) -> None:
        with self._file_system("written") as (file_system, root):
            file_system.pipe_file(f"{root}/{name}", content)

    def remove(self, name: str) -> None:
        with (
            self._file_system("written") as (file_system, root),
            contextlib.suppress(FileNotFoundError),
        ):
            file_system.rm_file(f"{root}/{name}")

    def _names(self, prefix: str) -> list[str]:
        """Return the files below a prefix, by their paths after it."""
        with self._file_system("read") as (file_system, root):
            file_system.invalidate_cache()  # as other machines write there
            start = f"{root}/{prefix}/"
            paths = [path for path in file_system.find(start) if path.startswith(start)]
        names = [path.removeprefix(start) for path in paths]
        # A name from there must not lead out of a folder of this machine.
        return [name for name in names if ".." not in PurePosixPath(name).parts]

    @contextlib.contextmanager
    def _file_system(self, verb: str) -> Iterator[tuple[fsspec.AbstractFileSystem, str]]:
        """Context manager: the file system of this thread, and the path of the URI in it.

        Args:
            verb: what cannot be done, for messages: read or written.

        Raises:
            StorageError: any error of the file system inside of this context.
        """
        is_local = self.uri.startswith(("file:", "local:"))
        try:
            # Not for an object store, which has no folders, and may make a bucket instead.
            yield fsspec.url_to_fs(self.uri, **{"auto_mkdir": True} if is_local else {})
        except Exception as error:  # of its package, an OSError or not
            message = " ".join(str(error).split())
            raise StorageError(
                f"{self.uri} cannot be {verb}: {type(error).__name__}: {message}"
            ) from error


class PrivateFiles(TrialFiles):
    """A copy of all files of a trial, in a temporary folder that is removed with this object."""

    def __init__(self, storage: RemotePrefix, key: str) -> None:
        scratch = ScratchFolder()
        super().__init__(scratch.path)
        weakref.finalize(self, scratch.remove)
        self.where = storage.where(key)
        self._storage, self._prefix = storage, _prefix(key)
        storage.fetch(self._prefix, self.folder)
        self._stored = self._here()

    def push(self) -> None:
        """Copy changed files to the storage, which has a whole checkpoint at any moment.

        An object store replaces an object at once. Other file systems may leave half a file if
        this process dies: so the previous checkpoint is sent first, while the storage still has the
        same one as its newest, and files are removed last. It is sent and not copied within the
        storage, which not every file system can do; one request is also as quick as two.

        Raises:
            StorageError: a file cannot be written or removed.
        """
        here = self._here()
        for name in sorted(here, key=_turn):
            if here[name] != self._stored.get(name):
                self._storage.write(f"{self._prefix}/{name}", (self.folder / name).read_bytes())
                self._stored[name] = here[name]
        for name in self._stored.keys() - here.keys():
            self._storage.remove(f"{self._prefix}/{name}")
            del self._stored[name]

    def _here(self) -> dict[str, Stamp]:
        """Return the stamps of the files in the folder, by their paths in it."""
        found = {}
        for path in self.folder.rglob("*"):
            if path.is_file():
                about = path.stat()
                name = path.relative_to(self.folder).as_posix()
                found[name] = (about.st_ino, about.st_size, about.st_mtime_ns)
        return found


def _turn(name: str) -> tuple[bool, bool, str]:
    """Return a sort key: the previous checkpoint is sent first, then the newest, then the rest."""
    newest, previous = CHECKPOINTS
    return name != previous, name != newest, name


def _prefix(key: str) -> str:
    return trial_folder(Path(), key).as_posix()
