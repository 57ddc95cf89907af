"""How many trials fit on the machines of a cluster."""

from __future__ import annotations

import pytest

from sweeps.resources.nodes import Node, check_address, concurrency
from sweeps.spec.sweep_file import Resources
from trainables.errors import UserError


@pytest.mark.parametrize(
    ("cpus", "gpus", "nodes", "places"),
    [
        (1, 0, [Node(2, 0)], 2),
        (0.5, 0, [Node(2, 0)], 4),
        (0.1, 0, [Node(1, 0)], 10),  # 1 / 0.1 is not cut to 9
        (2, 0, [Node(3, 0), Node(4, 0)], 3),  # a trial does not span machines
        (1, 0.25, [Node(16, 1)], 4),
        (1, 0.4, [Node(16, 2)], 4),  # nor does a fraction span GPUs
        (1, 0.25, [Node(2, 4)], 2),
        (1, 2, [Node(16, 5)], 2),
        (1, 1, [Node(8, 0), Node(8, 3)], 3),
    ],
)
def test_places(cpus: float, gpus: float, nodes: list[Node], places: int) -> None:
    resources = Resources(cpus_per_trial=cpus, gpus_per_trial=gpus)
    assert concurrency(resources, nodes) == places


def test_a_limit_lowers_the_number() -> None:
    few, many = (Resources(gpus_per_trial=0, max_concurrent=limit) for limit in (3, 30))
    assert concurrency(few, [Node(8, 0)]) == 3
    assert concurrency(many, [Node(8, 0)]) == 8


@pytest.mark.parametrize("nodes", [[], [Node(2, 0)], [Node(0, 8), Node(8, 0)]])
def test_what_can_never_be_placed_is_refused(nodes: list[Node]) -> None:
    with pytest.raises(UserError, match="no machine has them"):
        concurrency(Resources(cpus_per_trial=1, gpus_per_trial=0.5), nodes)


@pytest.mark.parametrize("address", ["127.0.0.1:9", "ray://127.0.0.1:9", "localhost:port"])
def test_an_address_where_nothing_listens_is_refused(address: str) -> None:
    with pytest.raises(UserError, match="no Ray cluster answers at"):
        check_address(address)
    check_address("auto")
