"""`sweeps run` whose trials keep their files at a URI."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.sweeps.running import undisturbed
from tests.sweeps.waiting import SWEEP, WaitingFolder

STORED = (
    SWEEP
    + """
storage: {uri: "file:///dev/null/nowhere"}
"""
)


@pytest.mark.faults
def test_a_sweep_goes_on_from_the_files_at_its_uri(tmp_path: Path) -> None:
    folder = WaitingFolder(tmp_path, STORED)
    bucket = tmp_path / "bucket"
    folder.environment["SWEEPS_STORAGE_URI"] = f"file://{bucket}"  # not the one in the file
    driver = folder.start()
    driver.wait_for(lambda: len(list(bucket.glob("long/trials/*/previous.safetensors"))) == 2)
    driver.kill()
    second = folder.start()
    second.wait_for(lambda: "2 to continue" in second.output)
    second.kill_worker()
    folder.go_on()
    assert second.end() == 0, second.output
    assert "long: 0 done, 2 to continue\n" in second.output

    folder.assert_all_finished_as_if_undisturbed(undisturbed(folder.plan))
    for key, run in folder.by_key().items():
        kept = {path.name for path in (bucket / "long" / "trials" / key).iterdir()}
        assert kept == {"checkpoint.safetensors", "artifacts"}
        sent = {each.path for each in folder.client.list_artifacts(run.info.run_id)}
        assert sent == {"weights.safetensors", "model.json", "sample.txt", "blocks.csv", "log.txt"}
        assert "Text that it writes" in run.data.tags["mlflow.note.content"]
    assert not (folder.folder / "trials").exists()
    assert not list(bucket.rglob(".marker*"))
