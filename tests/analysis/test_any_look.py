"""Claims tested with e-values: which pairs count, which claims are open, what is forecast."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from analysis import AnalysisError, Conclusion, check_claims, load_trials
from analysis.claims.claim_file import read_claim
from analysis.claims.open_contrasts import open_contrasts
from analysis.reports.claim_texts import sentences
from benchmarks.anytime import wrong_at_any_look
from benchmarks.edges import EDGES, EVERY, SUPPORTED
from benchmarks.synthetic import SYMMETRIC

FALLING: Mapping[str, object] = {
    "claim": "a wide one is better",
    "factor": "width",
    "order": [16, 8],
}
Rows = Sequence[tuple[int, str, int, float | None]]  # width, kind, seed, val_loss


@pytest.fixture
def write(tmp_path: Path) -> Path:
    return tmp_path / "trials.csv"


def judge(path: Path, rows: Rows, claims: object = FALLING, **options: object) -> Conclusion:
    """The conclusion on one claim about trials, where a loss of None is a trial that failed."""
    lines = ["width,kind,seed,val_loss,status"]
    for width, kind, seed, loss in rows:
        shown = "" if loss is None else repr(loss)
        lines.append(f"{width},{kind},{seed},{shown},{'FAILED' if loss is None else 'FINISHED'}")
    path.write_text("\n".join(lines) + "\n")
    (found,) = check_claims(load_trials(str(path)), claims, anytime=True, **options)  # type: ignore
    return found


def pairs(
    kind: str, differences: Sequence[float | None]
) -> list[tuple[int, str, int, float | None]]:
    """Trials of two widths with these differences, one for each seed from 1 on."""
    rows: list[tuple[int, str, int, float | None]] = []
    for seed, difference in enumerate(differences, start=1):
        base = 2.4 + 0.001 * seed + 0.01 * math.sin(7 * seed)
        rows.append((8, kind, seed, base))
        rows.append((16, kind, seed, None if difference is None else base + difference))
    return rows


CLEAR = [-0.05, -0.06, -0.049, -0.051, -0.05]
UNCLEAR = [0.001, -0.002, 0.0015, -0.001, 0.0005]


def test_three_clear_pairs_decide_and_two_do_not(write: Path) -> None:
    assert judge(write, pairs("a", CLEAR[:3])).verdict == "SUPPORTED"
    assert judge(write, pairs("a", CLEAR[:2])).verdict == "UNDERPOWERED"
    other = judge(write, pairs("a", [-each for each in CLEAR[:3]]))
    assert other.verdict == "NOT SUPPORTED"


def test_two_pairs_decide_by_a_difference_of_twenty_standard_deviations(write: Path) -> None:
    assert judge(write, pairs("a", [-0.05, -0.053])).verdict == "SUPPORTED"
    assert judge(write, pairs("a", [-0.05, -0.054])).verdict == "UNDERPOWERED"


def test_pairs_count_in_the_order_of_their_seeds_up_to_the_first_missing_one(write: Path) -> None:
    found = judge(write, pairs("a", [*CLEAR[:2], None, *CLEAR[2:]]))
    assert (found.verdict, found.seeds) == ("UNDERPOWERED", 2)
    assert "Finished pairs that do not count: 3;" in " ".join(sentences(found))
    late = judge(write, [row for row in pairs("a", CLEAR) if row[:3] != (16, "a", 3)])
    assert (late.verdict, late.seeds) == ("UNDERPOWERED", 2), "one that is still to come"
    assert judge(write, pairs("a", [*CLEAR[:3], None])).verdict == "SUPPORTED", "no lost pair"


def test_evidence_that_was_enough_stays(write: Path) -> None:
    swings = [*CLEAR[:3], 0.3, -0.2, 0.3]
    assert judge(write, pairs("a", swings)).verdict == "SUPPORTED"
    assert judge(write, pairs("a", swings[::-1])).verdict == "UNDERPOWERED"


def test_the_weakest_cell_is_open_and_the_others_need_nothing(write: Path) -> None:
    rows = [*pairs("a", CLEAR), *pairs("b", UNCLEAR), *pairs("c", [-0.004, -0.003, -0.009])]
    found = judge(write, rows)
    assert [each.cell for each in open_contrasts(found)] == ["kind=b", "kind=c"]
    keys = {*open_contrasts(found)[0].run_ids}
    assert len(keys) == 10, "the runs of both sides"
    assert open_contrasts(judge(write, pairs("a", CLEAR))) == []


def test_a_claim_of_some_cell_looks_at_the_strongest_counterexample_first(write: Path) -> None:
    rising = [0.01, 0.004, 0.008]
    rows = [*pairs("a", CLEAR), *pairs("b", UNCLEAR), *pairs("c", rising)]
    found = judge(write, rows, {**FALLING, "holds": "not in every cell"})
    assert found.verdict == "UNDERPOWERED"
    assert [each.cell for each in open_contrasts(found)] == ["kind=c", "kind=b"]


def test_on_average_all_cells_need_the_next_seed(write: Path) -> None:
    rows = [*pairs("a", UNCLEAR), *pairs("b", UNCLEAR[:3])]
    found = judge(write, rows, {**FALLING, "holds": "on average"})
    (only,) = open_contrasts(found)
    assert found.effect.n == 3, "the seeds that all cells have"
    assert len({*only.run_ids}) == 16


def test_a_forecast_says_how_many_seeds_there_will_be(write: Path) -> None:
    found = judge(write, pairs("a", [-0.01, 0.004, -0.008, 0.003]))
    assert found.needed.to_show is not None
    assert 5 < found.needed.to_show < 200
    assert found.needed.to_refute is None
    refuted = judge(write, pairs("a", [0.002, -0.002, 0.001]))
    assert refuted.needed.to_show is None
    assert refuted.needed.to_refute is not None


def test_the_error_is_what_one_asks_for(write: Path) -> None:
    assert judge(write, pairs("a", CLEAR[:3]), error=0.01).verdict == "UNDERPOWERED"
    assert judge(write, pairs("a", CLEAR[:4]), error=0.01).verdict == "SUPPORTED"
    assert judge(write, pairs("a", CLEAR[:3]), error=0.01).confidence == 0.98


def test_the_interval_belongs_to_the_test_and_may_be_infinite(write: Path) -> None:
    found = judge(write, pairs("a", CLEAR[:3]))
    assert found.effect.low < -0.05 < found.effect.high < 0
    assert found.effect.high + found.effect.low == pytest.approx(2 * found.effect.mean)
    assert judge(write, pairs("a", CLEAR[:1])).effect.high == float("inf")


def test_claims_of_a_file_are_corrected_where_it_says_so(write: Path) -> None:
    rows = pairs("a", CLEAR[:3])
    judge(write, rows)
    twice = {"corrected": True, "claims": [FALLING, FALLING]}
    trials = load_trials(str(write))
    single = check_claims(trials, FALLING, anytime=True)[0].decision.supports
    for found in check_claims(trials, twice, anytime=True):
        assert found.decision.supports == pytest.approx(2 * single)
        assert found.corrected_for == 2
    rest = check_claims(trials, {**twice, "corrected": False}, anytime=True)
    assert {found.decision.supports for found in rest} == {single}


def test_a_bound_takes_more_seeds_and_refuses_pairs_beyond_it(write: Path) -> None:
    claims = {"claims": [FALLING], "bound": 0.2}
    assert judge(write, pairs("a", CLEAR), claims).verdict == "UNDERPOWERED"
    many = [-0.05 + 0.001 * (-1) ** seed for seed in range(25)]
    assert judge(write, pairs("a", many), claims).verdict == "SUPPORTED"
    with pytest.raises(AnalysisError, match=r"differs by 0\.3 nats, more than the bound 0\.2"):
        judge(write, pairs("a", [*CLEAR, 0.3]), claims)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("corrected", "yes", "line 1: `corrected` is true or false, not 'yes'"),
        ("bound", "0", "line 1: `bound` is a number of nats above 0, not 0"),
        ("bound", ".inf", "line 1: `bound` is a number of nats above 0, not inf"),
    ],
)
def test_a_wrong_key_of_a_file_is_named(tmp_path: Path, key: str, value: str, message: str) -> None:
    file = tmp_path / "claims.yaml"
    file.write_text(f"{key}: '{value}'\n" if value == "yes" else f"{key}: {value}\n")
    with file.open("a") as out:
        out.write("claims: [{claim: so, factor: width, order: [16, 8]}]\n")
    with pytest.raises(AnalysisError) as error:
        check_claims(load_trials("docs/results/replicated/trials.csv"), file)
    assert message in str(error.value)


@pytest.mark.parametrize("form", ["order", "best", "equal"])
def test_looking_after_each_seed_is_wrong_as_seldom_as_it_says(form: str) -> None:
    (edge,) = [e for e in EDGES if (e.form, e.holds, e.wrong) == (form, EVERY, SUPPORTED)]
    claim = read_claim({"claim": form, **edge.claim})
    chance = np.random.default_rng(9)
    noise = SYMMETRIC["normal"]
    (share,) = wrong_at_any_look(edge.truth, [(claim, SUPPORTED)], noise, 30, 300, chance)
    assert 0 < share < 0.05 + 3 * (0.05 * 0.95 / 300) ** 0.5
