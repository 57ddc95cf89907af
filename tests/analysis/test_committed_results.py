"""The verdicts of the committed reports, worked out again from the losses beside them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from analysis import check_claims, load_trials
from analysis.claims.tables import write_conclusions

RESULTS = Path(__file__).parents[2] / "docs" / "results"
LOOKS = "looks.csv"
FOLDERS = sorted(path.parent for path in RESULTS.glob("*/trials.csv"))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_committed_report_follows_from_its_losses(folder: Path, tmp_path: Path) -> None:
    trials = load_trials(str(folder / "trials.csv"))
    anytime = (folder / LOOKS).exists()  # it stopped by its verdicts
    write_conclusions(check_claims(trials, anytime=anytime), tmp_path)
    for name in ("conclusions.csv", "contrasts.csv"):
        found, committed = pd.read_csv(tmp_path / name), pd.read_csv(folder / name)
        pd.testing.assert_frame_equal(found, committed, check_exact=False, rtol=1e-6, atol=1e-9)


def test_there_are_committed_reports_with_their_losses() -> None:
    assert {"replicated", "tuned", "decided"} <= {folder.name for folder in FOLDERS}
