"""A state directory and an MLflow store that an earlier version wrote can be used.

`state_before.tar.gz` is the state of a sweep of ten trials whose driver was killed: seven were
done, two were being trained, one was still to confirm the winner. In the version that wrote it
`sweeps` had no packages, evaluations had ``val_nats`` in the place of ``val_loss``, and the result
version was 2: its trials are not those of today.
"""

from __future__ import annotations

import contextlib
import sqlite3
import tarfile
from pathlib import Path

import pytest

from analysis import load_trials
from tests.sweeps.running import SweepFolder

ARCHIVE = Path(__file__).parent / "state_before.tar.gz"
WRITTEN_IN = "/home/user/sweep"  # where the state directory was
REFUSED = "the sweep 'before' has other trials, and 7 that go have results"
LOSSES = {  # of finished trials, as that version trained them
    (0.01, 1337): 2.7838695117519117,
    (0.01, 1338): 2.778818364936639,
    (0.03, 1337): 2.651704405520304,
    (0.03, 1338): 2.647138068874408,
}
VERSION = "result_version"
SHORTER = ("training.max_steps=300", "training.eval_every=100")  # of the search; its study is new


@pytest.fixture
def folder(tmp_path: Path) -> SweepFolder:
    """The sweep with its state, in whose store the artifacts lie where they are now."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    with contextlib.closing(sqlite3.connect(tmp_path / "state" / "mlflow.db")) as store, store:
        for table, column in (("experiments", "artifact_location"), ("runs", "artifact_uri")):
            store.execute(
                f"UPDATE {table} SET {column} = replace({column}, ?, ?)",
                (WRITTEN_IN, str(tmp_path)),
            )
    return SweepFolder(tmp_path, (tmp_path / "before.yaml").read_text(encoding="utf-8"))


def test_its_results_stay_until_they_may_go(folder: SweepFolder) -> None:
    before = times_of_finished(folder)
    assert len(before) == 7
    refused = folder.run()
    assert refused.returncode == 2
    assert REFUSED in refused.stderr
    assert "result_version 2, now 3" in refused.stderr
    assert times_of_finished(folder) == before
    found = losses(folder)
    assert LOSSES.items() <= found.items()


def test_with_retire_its_trials_are_trained_anew(folder: SweepFolder) -> None:
    before, old = times_of_finished(folder), losses(folder)
    done = folder.run("run", "sweep.yaml", "--retire", *SHORTER)
    assert done.returncode == 0, done.stdout + done.stderr
    assert times_of_finished(folder, "removed") == before  # the runs are still there
    new = losses(folder)
    assert len(new) >= 5
    assert all(abs(new[trial] - old[trial]) > 1e-7 for trial in LOSSES)  # of other batches
    assert all(abs(new[trial] - old[trial]) < 0.05 for trial in LOSSES)
    assert set(load_trials("before", folder.client.tracking_uri).table[VERSION]) == {"3"}


def losses(folder: SweepFolder) -> dict[tuple[float, int], float]:
    """The val_loss of each trial that was trained to its end, by learning rate and seed."""
    trials = load_trials("before", folder.client.tracking_uri).table
    whole = trials[trials["stopped"] == ""]
    found: dict[tuple[float, int], float] = whole.set_index(["learning_rate", "seed"])[
        "val_loss"
    ].to_dict()
    return found


def times_of_finished(folder: SweepFolder, role: str = "trial") -> dict[str, tuple[int, int]]:
    """Start and end of the finished runs of trials, in ms, by their keys."""
    return {
        key: (run.info.start_time, run.info.end_time)
        for key, run in folder.by_key(role).items()
        if run.info.status == "FINISHED"
    }
