"""The state directory, below which a local run writes all its files."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from sweeps.records.outbox_file import OUTBOX
from trainables.errors import UserError
from trainables.files import directory_at

PROBE_BYTES = 1 << 20  # of free space, at least


@dataclass(frozen=True)
class State:
    """The state directory, with runs, artifacts, checkpoints, corpora and reports."""

    root: Path

    @property
    def tracking_uri(self) -> str:
        """The URI of the MLflow store in this directory.

        Raises:
            UserError: MLflow cannot keep a store at this path.
        """
        # Imported late: planning a sweep does not need the libraries of `analysis`.
        from analysis import AnalysisError
        from analysis.trials.sqlite_store import STORE, store_uri

        try:
            return store_uri(self.root / STORE)
        except AnalysisError as error:
            raise UserError(str(error)) from None

    @property
    def corpora(self) -> Path:
        """The folder of downloaded corpora, which SWEEPS_CORPORA may name."""
        return Path(os.environ.get("SWEEPS_CORPORA") or self.root / "corpora")

    @property
    def sweeps(self) -> Path:
        """The folder that has a folder for each sweep."""
        return self.root / "sweeps"

    def sweep(self, name: str) -> Path:
        """Return the folder of a sweep: its outbox, lock, checkpoints and other files of trials."""
        return self.sweeps / name

    @property
    def outboxes(self) -> dict[str, Path]:
        """The outboxes of the sweeps that were run here, by the names of the sweeps, in order."""
        return {path.parent.name: path for path in sorted(self.sweeps.glob(f"*/{OUTBOX}"))}

    def reports(self, sweep: str) -> Path:
        """Return the folder for the reports of a sweep."""
        return self.root / "reports" / sweep


def state_at(root: Path) -> State:
    """Return the state directory at a path, which need not exist.

    Raises:
        UserError: it cannot be made there: the path is a file, say, or its folder is not readable.
    """
    try:
        return State(directory_at(root))
    except OSError as error:
        raise UserError(
            f"the state directory {str(root)!r} cannot be used ({error.strerror}); choose another"
            " with --state or SWEEPS_STATE"
        ) from None


def make_writable(state: State) -> None:
    """Make the directory, and check that files can be written there.

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
    """Check that a sweep fits on the disk of a folder.

    Raises:
        UserError: fewer bytes are free than it needs.
    """
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < needed_bytes:
        raise UserError(
            f"the sweep needs about {needed_bytes / 2**20:,.0f} MiB below {folder}, where"
            f" {free_bytes / 2**20:,.0f} MiB are free; free some, or choose another directory with"
            " --state"
        )
