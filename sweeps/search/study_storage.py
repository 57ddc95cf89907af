"""Where the studies of a sweep are stored: Optuna's journal file beside the outbox, or a database.

Each line that we write into the journal has a checksum over itself and its number, which shows
altered, lost and doubled lines. Optuna's own tools can read the file nevertheless.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TypeVar

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
Log = dict[str, object]  # a line of the journal: an operation of Optuna and its arguments


class DamagedError(OptunaError):
    """A storage has something that a study cannot have written."""


def open_study_storage(
    url: str | None, folder: Path, use: Callable[[BaseStorage], Use]
) -> tuple[Use, str]:
    """Open the storage, or create it, and read the studies in it.

    Args:
        url: of a database, as SQLAlchemy writes it; None for a file.
        folder: of the sweep, for the file.
        use: reads the studies; raises `DamagedError` if they make no sense.

    Returns:
        What `use` returns, and in words what was lost if the file was damaged: it is kept under
        another name.

    Raises:
        UserError: the database does not answer, or SQLAlchemy knows no such kind; the file cannot
            be read or written.
    """
    if url is None:
        path = folder / JOURNAL
        try:
            return _open_journal(path, use)
        except OSError as error:
            raise UserError(
                f"{path} cannot be read or written: {error.strerror or error}"
            ) from None
    return _open_database(url, use), ""


def _open_database(url: str, use: Callable[[BaseStorage], Use]) -> Use:
    try:
        storage = RDBStorage(url, engine_kwargs={"pool_pre_ping": True})
    except (ArgumentError, ImportError, SQLAlchemyError, ValueError, RuntimeError) as error:
        raise UserError(
            f"search.storage: the database does not answer or cannot be used: {first_line(error)}"
        ) from None
    try:
        return use(storage)
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
    """Remove a last line that was not written to its end: the next one would be appended to it.

    Nobody else writes to the file.

    Raises:
        DamagedError: the rest is not the beginning of a line, or the path is not of a file.
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
    """A journal whose lines have checksums; lines that other tools added have none."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._own = {0: 0}  # how many lines with a checksum come before a line, by its number

    @property
    def lines_read(self) -> int:
        """How many lines of the file were read and checked."""
        return len(self._own) - 1

    def read_logs(self, log_number_from: int) -> Generator[Log, None, None]:
        """Yield the lines from a number on, without their checksums.

        Raises:
            DamagedError: the checksum of a line is wrong.
        """
        for number, log in enumerate(super().read_logs(log_number_from), log_number_from):
            own, check = self._own[number], log.pop(CHECK, None)
            if check not in (None, _checksum(own, log)):
                raise DamagedError(f"line {number + 1} is damaged")
            self._own[number + 1] = own + (check is not None)
            yield log

    def append_logs(self, logs: list[Log]) -> None:
        """Append lines, with their checksums."""
        for _ in self.read_logs(self.lines_read):  # lines that other tools have added since
            pass
        own = self._own[self.lines_read]
        super().append_logs([{**log, CHECK: _checksum(n, log)} for n, log in enumerate(logs, own)])


def _checksum(number: int, log: Log) -> int:
    plain = json.loads(json.dumps(log))  # as it will be read
    return zlib.crc32(json.dumps([number, plain], sort_keys=True).encode())
