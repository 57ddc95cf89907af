"""Where the studies of a sweep are kept: Optuna's journal file beside the outbox, or a database."""

from __future__ import annotations

import contextlib
from pathlib import Path

from optuna.exceptions import OptunaError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from analysis.messages import first_line
from trainables.errors import UserError
from trainables.files import set_aside, write_atomically

JOURNAL = "studies.journal"


def open_storage(url: str | None, folder: Path) -> tuple[BaseStorage, str]:
    """Open the storage, made if need be.

    Args:
        url: of a database, as SQLAlchemy writes it; None for a file.
        folder: of the sweep, for the file.

    Returns:
        The storage, and what was lost, if the file was damaged: it is kept under another name.

    Raises:
        UserError: the database does not answer, or there is no such kind.
    """
    if url is None:
        return _journal(folder / JOURNAL)
    try:
        return RDBStorage(url, engine_kwargs={"pool_pre_ping": True}), ""
    except (ArgumentError, ImportError, SQLAlchemyError, ValueError, RuntimeError) as error:
        raise UserError(
            f"search.storage: the database does not answer or cannot be used: {first_line(error)}"
        ) from None


def _journal(path: Path) -> tuple[BaseStorage, str]:
    """The file, in a state in which Optuna can read it: nobody else writes to it."""
    for leftover in path.parent.glob(f"{path.name}.lock*"):  # of a process that was killed
        leftover.unlink(missing_ok=True)
    with contextlib.suppress(FileNotFoundError):
        content = path.read_bytes()
        if not content.endswith(b"\n"):  # a line that was cut would spoil the next one
            write_atomically(path, content[: content.rfind(b"\n") + 1])
    try:
        return JournalStorage(JournalFileBackend(str(path))), ""
    except (ValueError, LookupError, TypeError, AssertionError, OptunaError) as error:
        kept = set_aside(path).name
        storage = JournalStorage(JournalFileBackend(str(path)))
        return storage, f"{path} cannot be used ({type(error).__name__}); kept as {kept}"
