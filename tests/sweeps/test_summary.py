"""The progress of a sweep is read back from its log, and people do not see the JSON."""

from __future__ import annotations

import pytest

from sweeps.process.summary import Summary, last_summary, without_json

SUMMARIES = [
    Summary(0, 38, 0, 0, 0, None, "", "?"),
    Summary(12, None, 5, 3, 1, 2.3456, "attention rope 64 16", "1 h 05 min"),
    Summary(7, 9, 0, 2, 0, 1.5, "my_model:TinyGRU (large) 32", "3 min 20 s"),
    Summary(7, 9, 1, 2, 0, 1.5, "TinyGRU (large)", "1 s", elapsed="1 h 05 min"),
]


@pytest.mark.parametrize("summary", SUMMARIES)
def test_a_summary_is_read_back(summary: Summary) -> None:
    assert last_summary(f"{summary} | a trial finished\n{summary.to_json()}\n") == summary
    assert last_summary(summary.to_json()) == summary


def test_the_newest_counts() -> None:
    written = [summary.to_json() for summary in SUMMARIES]
    log = "\n".join(["sweep: 2 done", *written, "tables  state/reports", ""])
    assert last_summary(log) == SUMMARIES[-1]


def test_other_output_has_none() -> None:
    assert last_summary("sweep: 2 done, 3 to run\nsome 3/4 done of it\n") is None


def test_the_log_of_an_earlier_version_has_none() -> None:
    assert last_summary("\n".join(f"{summary} | training" for summary in SUMMARIES)) is None


@pytest.mark.parametrize(
    "other",
    [
        '{"sweep_status": {"done": 3}}',
        '{"sweep_status": {"done"',
        '{"sweep_status": ' + "[" * 99_999,
    ],
    ids=["of another version", "cut", "too deep"],
)
def test_a_line_that_is_cut_or_of_another_version_does_not_count(other: str) -> None:
    assert last_summary(other) is None
    assert last_summary(f"{SUMMARIES[1].to_json()}\n{other}") == SUMMARIES[1]


def test_other_output_may_be_on_the_same_line() -> None:
    log = f"{SUMMARIES[0].to_json()}\nwaits...{SUMMARIES[1].to_json()}(pid=7) a warning\n"
    assert last_summary(log) == SUMMARIES[1]


def test_fields_of_a_later_version_are_ignored() -> None:
    line = SUMMARIES[1].to_json().replace('"done"', '"later": [1], "done"')
    assert last_summary(line) == SUMMARIES[1]


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_people_see_no_json(size: int) -> None:
    shown = "sweep: 2 done\n1/2 done | training\n\nan end without a line break"
    log = shown.replace("training\n", f"training\n{SUMMARIES[2].to_json()}\n")
    chunks = [log[start : start + size] for start in range(0, len(log), size)]
    assert "".join(without_json(chunks)) == shown
    assert "".join(without_json([SUMMARIES[2].to_json()])) == ""


def test_a_line_for_people_is_shown_before_it_ends() -> None:
    line = SUMMARIES[1].to_json()
    chunks = ["waits", ".", f".\n{line[:9]}", f"{line[9:]}\n{line[:3]}", "x", line, "\n"]
    shown = ["waits", ".", ".\n", "", f"{line[:3]}x", line, "\n"]
    assert list(without_json(chunks)) == [*shown, ""]
