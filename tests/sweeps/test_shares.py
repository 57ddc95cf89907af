"""Sharing a cluster, against shares worked out by hand."""

from __future__ import annotations

import pytest

from sweeps.resources.fair_share import ShareRequest, fair_shares


def claim(sweep: str, wanted: int = 100, priority: float = 1, **shape: float) -> ShareRequest:
    return ShareRequest(sweep, wanted, shape.get("cpus", 1), shape.get("gpus", 0), priority)


def test_a_sweep_alone_gets_what_it_wants_even_beyond_the_cluster() -> None:
    assert fair_shares([claim("a", 7)], 4, 0) == {"a": 7}


@pytest.mark.parametrize(
    ("claims", "cpus", "gpus", "expected"),
    [
        ([claim("a"), claim("b")], 8, 0, {"a": 4, "b": 4}),
        ([claim("a"), claim("b")], 5, 0, {"a": 3, "b": 2}),  # the odd one goes to the first
        ([claim("a", 1), claim("b")], 8, 0, {"a": 1, "b": 7}),  # what one leaves the other takes
        ([claim("a"), claim("b", priority=3)], 8, 0, {"a": 2, "b": 6}),
        ([claim("a"), claim("b"), claim("c")], 2, 0, {"a": 1, "b": 1, "c": 0}),  # c waits
        ([claim("a", cpus=2), claim("b")], 8, 0, {"a": 2, "b": 4}),  # equal CPUs, not equal trials
        # The example of the paper: 9 CPUs and 18 GB, A <1, 4>, B <3, 1>: A gets 3 and B 2.
        ([claim("a", gpus=4), claim("b", cpus=3, gpus=1)], 9, 18, {"a": 3, "b": 2}),
        # One needs GPUs, one does not: they hardly meet.
        ([claim("a", gpus=0.5), claim("b")], 16, 2, {"a": 4, "b": 12}),
        ([claim("a", 0), claim("b", 0)], 8, 0, {"a": 0, "b": 0}),
    ],
)
def test_shares(
    claims: list[ShareRequest], cpus: float, gpus: float, expected: dict[str, int]
) -> None:
    assert fair_shares(claims, cpus, gpus) == expected
