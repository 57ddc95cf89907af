"""Storage of the files of trials: a folder that all machines share, or a URI.

A trial works in a folder in both cases. For a URI it is a private folder of the machine that
trains, which `trainables.persistence.remote` copies to the storage at each save.
"""

from __future__ import annotations

import contextlib
import platform
import secrets
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from trainables.errors import UserError
from trainables.files import directory_at, trial_folder, write_atomically

CHECKPOINTS = ("checkpoint.safetensors", "previous.safetensors")  # the newest first
MARKER = ".marker"


class StorageError(OSError):
    """The state of a trial cannot be stored: no failure of the trial, but the sweep has to stop."""


class TrialFiles:
    """The files of a trial in a folder of this machine, which here is the storage itself."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder  # need not exist
        self.where = str(folder)  # the place in the storage, for messages

    def push(self) -> None:
        """Copy changes of the folder to the storage.

        Raises:
            StorageError: it cannot be written; its checkpoints stay good.
        """


class Storage(ABC):
    """Files of all trials of a sweep.

    It is pickled to every worker, so it is small and has no credentials: each machine has its own.
    The methods raise OSError, those of a URI always StorageError.
    """

    remedy: str  # for a problem that `problem_here` finds

    @property
    def disk(self) -> Path | None:
        """A folder on the disk that it fills, or None if the driver sees none."""
        return None

    @abstractmethod
    def where(self, key: str) -> str:
        """Return the place of a trial's files, for people."""

    @abstractmethod
    def assert_seen(self) -> None:
        """Raise StorageError if this machine does not see the storage."""

    @abstractmethod
    def open_trial(self, key: str) -> TrialFiles:
        """Return the files of a trial, to train it."""

    @abstractmethod
    def artifacts(self, key: str) -> contextlib.AbstractContextManager[Path]:
        """Context manager: a folder with the artifacts of a trial, which need not exist."""

    @abstractmethod
    def started(self, keys: Sequence[str]) -> set[str]:
        """Return the keys of those trials that have a checkpoint."""

    @abstractmethod
    def read(self, name: str) -> bytes:
        """Return the content of a file, by its path below the storage."""

    @abstractmethod
    def write(self, name: str, content: bytes) -> None:
        """Replace a file; its folder is made."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Remove a file, if it exists."""


@dataclass(frozen=True)
class SharedFolder(Storage):
    """A folder that is the same on every machine."""

    root: Path
    remedy = (
        "put it on storage that all of them share, at the same path, and name it with --state; or"
        " name a URI that all of them reach with --storage-uri"
    )

    def __str__(self) -> str:
        return str(self.root)

    @property
    def disk(self) -> Path:
        return self.root

    def where(self, key: str) -> str:
        return str(trial_folder(self.root, key))

    def assert_seen(self) -> None:
        if not self.root.is_dir():  # else trials would be stored where the driver does not see them
            raise StorageError(
                f"{platform.node()} does not see {self.root}; share the state directory"
            )

    def open_trial(self, key: str) -> TrialFiles:
        return TrialFiles(trial_folder(self.root, key))

    @contextlib.contextmanager
    def artifacts(self, key: str) -> Iterator[Path]:
        yield trial_folder(self.root, key) / "artifacts"

    def started(self, keys: Sequence[str]) -> set[str]:
        def has_checkpoint(folder: Path) -> bool:
            return any((folder / name).exists() for name in CHECKPOINTS)

        return {key for key in keys if has_checkpoint(trial_folder(self.root, key))}

    def read(self, name: str) -> bytes:
        return (self.root / name).read_bytes()

    def write(self, name: str, content: bytes) -> None:
        write_atomically(self.root / name, content)

    def remove(self, name: str) -> None:
        (self.root / name).unlink(missing_ok=True)


def open_storage(uri: str | None, folder: Path, sweep: str) -> Storage:
    """Return the storage of a sweep's trials.

    Args:
        uri: an fsspec URI, or a path that all machines share; None stands for ``folder``.
        folder: of the sweep in the state directory.
        sweep: its name, which is appended to the URI or path.

    Raises:
        UserError: as of `check_uri`, or the path cannot be a directory.
    """
    if not uri:
        return SharedFolder(folder)
    check_uri(uri)
    if "://" not in uri:
        try:
            return SharedFolder(directory_at(uri) / sweep)
        except OSError as error:
            raise UserError(
                f"the storage {uri!r} cannot be used ({error.strerror}); name another with"
                " --storage-uri or storage.uri"
            ) from None
    from trainables.persistence.remote import RemotePrefix  # fsspec is imported where it is needed

    return RemotePrefix(f"{uri.rstrip('/')}/{sweep}")


def check_uri(uri: str) -> None:
    """Refuse a URI that several processes cannot use, without connecting to it.

    Raises:
        UserError: saying what to name instead.
    """
    if "://" not in uri:
        return
    from fsspec import available_protocols

    protocol, _, place = uri.partition("://")
    user, at, _ = place.partition("/")[0].rpartition("@")
    remedy = "name a path that all machines share, or a URI such as s3://bucket/prefix"
    if at and ":" in user:
        raise UserError(
            f"a {protocol} storage URI may not hold a password, which would be shown and stored;"
            " give it to each machine by its environment"
        )
    if "::" in uri:
        raise UserError(f"storage {uri} is a chain of file systems; {remedy}")
    if protocol == "memory":
        raise UserError(f"storage {uri} lies in the memory of one process; {remedy}")
    if protocol not in available_protocols():
        raise UserError(f"storage {uri} has a protocol that fsspec does not know; {remedy}")
    if protocol in ("file", "local") and not place.startswith("/"):
        raise UserError(f"storage {uri} is not absolute; write {protocol}:///folder")
    if not place.strip("/"):
        raise UserError(f"storage {uri} names no place; {remedy}")


def check_from_here(storage: Storage) -> None:
    """Read and write the storage once, before it is needed.

    Raises:
        UserError: this machine cannot use it.
    """
    try:
        with marked(storage) as marker:
            problem = problem_here(storage, marker)
    except OSError as error:
        problem = str(error)
    if problem:
        raise UserError(f"{problem}; {storage.remedy}")


@contextlib.contextmanager
def marked(storage: Storage) -> Iterator[str]:
    """Context manager: write a marker file to the storage.

    Yields:
        Its name, by which other machines look for it.
    """
    marker = f"{MARKER}.{secrets.token_hex(8)}"
    storage.write(marker, b"")
    try:
        yield marker
    finally:
        storage.remove(marker)


def problem_here(storage: Storage, marker: str) -> str:
    """Return why this machine cannot use the storage that has the marker, or an empty text."""
    own = f"{MARKER}.{secrets.token_hex(8)}"
    try:
        storage.assert_seen()
        storage.read(marker)
        storage.write(own, b"")
        storage.remove(own)
    except FileNotFoundError:
        return "another directory lies there"
    except OSError as error:
        return str(error)
    return ""
