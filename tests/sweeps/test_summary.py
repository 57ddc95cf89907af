"""The line of a sweep's progress is read back as it was written."""

from __future__ import annotations

import pytest

from sweeps.process.summary import Summary, last_summary

SUMMARIES = [
    Summary(0, 38, 0, 0, 0, None, "", "?"),
    Summary(12, None, 5, 3, 1, 2.3456, "attention rope 64 16", "1 h 05 min"),
    Summary(7, 9, 0, 2, 0, 1.5, "my_model:TinyGRU (large) 32", "3 min 20 s"),
    Summary(7, 9, 1, 2, 0, 1.5, "TinyGRU (large)", "1 s", elapsed="1 h 05 min"),
]


@pytest.mark.parametrize("summary", SUMMARIES)
def test_a_summary_is_read_back(summary: Summary) -> None:
    assert last_summary(f"{summary} | a trial finished\n") == summary
    assert last_summary(f"{summary}\n") == summary


def test_the_newest_counts() -> None:
    log = "\n".join(["sweep: 2 done", *map(str, SUMMARIES), "tables  state/reports", ""])
    assert last_summary(log) == SUMMARIES[-1]


def test_other_output_has_none() -> None:
    assert last_summary("sweep: 2 done, 3 to run\nsome 3/4 done of it\n") is None
