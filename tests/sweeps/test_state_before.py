"""A state directory and an MLflow store that an earlier version wrote are continued.

`state_before.tar.gz` is the state of a sweep of ten trials whose driver was killed: seven were
done, two were being trained, one was still to confirm the winner. In the version that wrote it
`sweeps` had no packages, and evaluations had ``val_nats`` in the place of ``val_loss``.
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
DONE = "before: 7 done, 2 to continue, then 1 trial to confirm the winners"
SEARCHED = 0.005888544547677032  # the learning rate of the winner
LOSSES = {  # of the trials that were not stopped early, as that version trained them, uninterrupted
    (0.01, 1337): 2.7838695117519117,
    (0.01, 1338): 2.778818364936639,
    (0.03, 1337): 2.651704405520304,
    (0.03, 1338): 2.647138068874408,
    (SEARCHED, 1337): 2.410069456699103,
    (SEARCHED, 1338): 2.400342514872469,
}


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


def test_it_is_continued_and_nothing_is_trained_twice(folder: SweepFolder) -> None:
    before = times_of_finished(folder)
    done = folder.run()
    assert done.returncode == 0, done.stdout + done.stderr
    assert DONE in done.stdout
    after = times_of_finished(folder)
    assert (len(before), len(after)) == (7, 10)
    assert before.items() <= after.items()
    trials = load_trials("before", folder.client.tracking_uri).table
    whole = trials[trials["stopped"] == ""]
    found = whole.set_index(["learning_rate", "seed"])["val_loss"].to_dict()
    assert found == pytest.approx(LOSSES, abs=1e-5)


def times_of_finished(folder: SweepFolder) -> dict[str, tuple[int, int]]:
    """Start and end of the finished runs of trials, in ms, by their keys."""
    return {
        key: (run.info.start_time, run.info.end_time)
        for key, run in folder.by_key().items()
        if run.info.status == "FINISHED"
    }
