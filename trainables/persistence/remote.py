"""Trials below an fsspec URI: a machine trains in a private folder and brings it there.

Retries of a request are the file system's own; what fails all the same is a `StorageError`.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec

from trainables.files import trial_folder
from trainables.persistence.scratch import ScratchFolder
from trainables.persistence.storage import CHECKPOINTS, Storage, StorageError, TrialFiles

Stamp = tuple[int, int, int]  # of a file: changes with it


@dataclass(frozen=True)
class RemotePrefix(Storage):
    """What lies below a URI. Each machine finds its credentials itself, as fsspec's packages do."""

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
        """Copy all that lies below a prefix into a folder."""
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
        """The files below a prefix, by what follows it."""
        with self._file_system("read") as (file_system, root):
            file_system.invalidate_cache()  # where others write; S3's listings are new ones anyway
            start = f"{root}/{prefix}/"
            paths = [path for path in file_system.find(start) if path.startswith(start)]
        names = [path.removeprefix(start) for path in paths]
        # Whoever may write there may not choose where files of this machine lie.
        return [name for name in names if ".." not in PurePosixPath(name).parts]

    @contextlib.contextmanager
    def _file_system(self, verb: str) -> Iterator[tuple[Any, str]]:
        """The file system of this thread, and the path of the URI in it."""
        is_local = self.uri.startswith(("file:", "local:"))
        try:
            # An object store has no folders to make, and may take their name for a new bucket's.
            yield fsspec.url_to_fs(self.uri, **{"auto_mkdir": True} if is_local else {})
        except Exception as error:  # what its package raises, an OSError or not
            said = " ".join(str(error).split())
            raise StorageError(
                f"{self.uri} cannot be {verb}: {type(error).__name__}: {said}"
            ) from error


class PrivateFiles(TrialFiles):
    """A copy of all files of a trial, in a temporary folder that goes with this object."""

    def __init__(self, storage: RemotePrefix, key: str) -> None:
        scratch = ScratchFolder()
        super().__init__(scratch.path)
        weakref.finalize(self, scratch.remove)
        self.where = storage.where(key)
        self._storage, self._prefix = storage, _prefix(key)
        storage.fetch(self._prefix, self.folder)
        self._there = self._here()

    def push(self) -> None:
        """Make the storage agree with the folder, so that it has a whole checkpoint at any moment.

        An object is replaced at once. Other file systems may leave half a file if this process
        dies: so the previous checkpoint goes first, while the newest that is there is still the
        same one, and files are removed last. It is sent again and not copied over there, because
        not every file system can, and one request is as quick as two for models of this size.
        """
        here = self._here()
        for name in sorted(here, key=_turn):
            if here[name] != self._there.get(name):
                self._storage.write(f"{self._prefix}/{name}", (self.folder / name).read_bytes())
                self._there[name] = here[name]
        for name in self._there.keys() - here.keys():
            self._storage.remove(f"{self._prefix}/{name}")
            del self._there[name]

    def _here(self) -> dict[str, Stamp]:
        found = {}
        for path in self.folder.rglob("*"):
            if path.is_file():
                about = path.stat()
                name = path.relative_to(self.folder).as_posix()
                found[name] = (about.st_ino, about.st_size, about.st_mtime_ns)
        return found


def _turn(name: str) -> tuple[bool, bool, str]:
    """Sorts what is sent: the previous checkpoint, the newest, the others."""
    newest, previous = CHECKPOINTS
    return name != previous, name != newest, name


def _prefix(key: str) -> str:
    return trial_folder(Path(), key).as_posix()
