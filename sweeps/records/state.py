"""Where a local run writes: one directory."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from trainables.errors import UserError
from trainables.files import directory_at

PROBE_BYTES = 1 << 20  # less free space than this is none


@dataclass(frozen=True)
class State:
    """The state directory: runs, artifacts, checkpoints, corpora and reports lie under it."""

    root: Path

    @property
    def tracking_uri(self) -> str:
        """The MLflow store of this directory.

        Raises:
            UserError: MLflow cannot keep a store at this path.
        """
        # Imported late: what plans a sweep has no use for the libraries of `analysis`.
        from analysis import AnalysisError
        from analysis.trials.sqlite_store import STORE, store_uri

        try:
            return store_uri(self.root / STORE)
        except AnalysisError as error:
            raise UserError(str(error)) from None

    @property
    def corpora(self) -> Path:
        """The cache of downloaded corpora; SWEEPS_CORPORA names another one."""
        return Path(os.environ.get("SWEEPS_CORPORA") or self.root / "corpora")

    @property
    def sweeps(self) -> Path:
        return self.root / "sweeps"

    def sweep(self, name: str) -> Path:
        """The outbox and the lock of a sweep, checkpoints and what trials leave behind."""
        return self.sweeps / name

    def reports(self, sweep: str) -> Path:
        return self.root / "reports" / sweep


def state_at(root: Path) -> State:
    """The state of a directory, which need not exist.

    Raises:
        UserError: there can be none: it is a file, say, or lies in a folder that is not readable.
    """
    try:
        return State(directory_at(root))
    except OSError as error:
        raise UserError(
            f"the state directory {str(root)!r} cannot be used ({error.strerror}); choose another"
            " with --state or SWEEPS_STATE"
        ) from None


def make_writable(state: State) -> None:
    """Make the directory and try it.

    Raises:
        UserError: it cannot be made or written to.
    """
    try:
        state.root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=state.root) as file:
            file.write(bytes(PROBE_BYTES))
    except OSError as error:
        raise UserError(
            f"the state directory {state.root} is not writable ({error.strerror}); choose another"
            " with --state or SWEEPS_STATE"
        ) from None


def check_disk(folder: Path, needed_bytes: int) -> None:
    """Refuse a sweep that will not fit on the disk of a folder.

    Raises:
        UserError: less is free.
    """
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < needed_bytes:
        raise UserError(
            f"the sweep needs about {needed_bytes / 2**20:,.0f} MiB below {folder}, where"
            f" {free_bytes / 2**20:,.0f} MiB are free; free some, or choose another directory with"
            " --state"
        )
