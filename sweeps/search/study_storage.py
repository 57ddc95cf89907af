"""Where the studies of a sweep are kept: Optuna's journal file beside the outbox, or a database.

Each line that we write into the journal has a checksum over itself and its number, so that no
altered, lost or doubled line goes unseen; Optuna's own tools read the file all the same.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from optuna.exceptions import OptunaError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from analysis.text.messages import first_line
from trainables.errors import UserError
from trainables.files import set_aside, write_atomically

JOURNAL = "studies.journal"
CHECK = "crc32"  # in a line of the journal; earlier versions wrote none
UNREADABLE = (
    *(ArithmeticError, AssertionError, AttributeError, LookupError, RecursionError),
    *(TypeError, ValueError, OptunaError),
)
Use = TypeVar("Use")


class DamagedError(OptunaError):
    """What a storage has of a study cannot be."""


def open_storage(
    url: str | None, folder: Path, use: Callable[[BaseStorage], Use]
) -> tuple[Use, str]:
    """Open the storage, made if need be.

    Args:
        url: of a database, as SQLAlchemy writes it; None for a file.
        folder: of the sweep, for the file.
        use: reads the studies; raises `DamagedError` where they cannot be.

    Returns:
        What `use` returns, and what was lost, if the file was damaged: it is kept under another
        name.

    Raises:
        UserError: the database does not answer, or there is no such kind; the file cannot be read
            or written.
    """
    if url is None:
        path = folder / JOURNAL
        try:
            return _open_journal(path, use)
        except OSError as error:
            raise UserError(
                f"{path} cannot be read or written: {error.strerror or error}"
            ) from None
    try:
        storage = RDBStorage(url, engine_kwargs={"pool_pre_ping": True})
    except (ArgumentError, ImportError, SQLAlchemyError, ValueError, RuntimeError) as error:
        raise UserError(
            f"search.storage: the database does not answer or cannot be used: {first_line(error)}"
        ) from None
    try:
        return use(storage), ""
    except (SQLAlchemyError, OptunaError) as error:
        raise UserError(
            "search.storage: the database has studies that cannot be read or written:"
            f" {first_line(error)}"
        ) from None


def _open_journal(path: Path, use: Callable[[BaseStorage], Use]) -> tuple[Use, str]:
    for leftover in path.parent.glob(f"{path.name}.lock*"):  # of a process that was killed
        leftover.unlink(missing_ok=True)
    try:
        _remove_cut_line(path)
        return use(_read(path)), ""
    except DamagedError as error:
        kept = set_aside(path).name
        return use(_read(path)), f"{path} cannot be used ({error}); kept as {kept}"


def _remove_cut_line(path: Path) -> None:
    """Remove a last line that was not written to its end: it would spoil the next one.

    Nobody else writes to the file.

    Raises:
        DamagedError: it is no line, or what is there is no file.
    """
    if not path.exists():
        return
    if not path.is_file():
        raise DamagedError("it is no file")
    content = path.read_bytes()
    whole, newline, rest = content.rpartition(b"\n")
    if rest and (not rest.startswith(b"{") or b"\0" in rest):
        raise DamagedError("it does not end with a line")
    if rest:
        write_atomically(path, whole + newline)


def _read(path: Path) -> BaseStorage:
    journal = _CheckedJournal(str(path))
    try:
        storage = JournalStorage(journal)
    except DamagedError:
        raise
    except UNREADABLE as error:
        raise DamagedError(type(error).__name__) from None
    if journal.lines_read < path.read_bytes().count(b"\n"):  # Optuna takes it for half written
        raise DamagedError("the last line is damaged")
    return storage


class _CheckedJournal(JournalFileBackend):
    """A journal whose lines have checksums; other tools may add lines without."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._own = {0: 0}  # how many of the lines before a line have a checksum

    @property
    def lines_read(self) -> int:
        return len(self._own) - 1

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:  # type: ignore[override]
        for number, log in enumerate(super().read_logs(log_number_from), log_number_from):
            own, check = self._own[number], log.pop(CHECK, None)
            if check not in (None, _checksum(own, log)):
                raise DamagedError(f"line {number + 1} is damaged")
            self._own[number + 1] = own + (check is not None)
            yield log

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        for _ in self.read_logs(self.lines_read):  # whatever came meanwhile
            pass
        own = self._own[self.lines_read]
        super().append_logs([{**log, CHECK: _checksum(n, log)} for n, log in enumerate(logs, own)])


def _checksum(number: int, log: dict[str, Any]) -> int:
    plain = json.loads(json.dumps(log))  # as it is read again
    return zlib.crc32(json.dumps([number, plain], sort_keys=True).encode())
