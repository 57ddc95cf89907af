"""Verdicts on claims: against counts by hand, the published table, and simulated sweeps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis import AnalysisError, check_claims, conclusions_table, contrasts_table, load_trials
from analysis.claims.claim import Claim
from analysis.claims.claim_file import read_claim
from analysis.claims.conclusions import conclude
from analysis.claims.contrast import Contrast
from analysis.claims.contrasts import contrasts_of
from analysis.claims.decisions import averages, decide
from analysis.claims.forecast import chances
from analysis.claims.one_sided import ALPHA
from analysis.results.published import PUBLISHED
from analysis.trials.table import Trials

ORDER = {"claim": "a < b < c", "factor": "kind", "order": ["a", "b", "c"]}
SWEEPS = 1_000
MINUS = np.array([1.0, -1.0])


def trials_with(
    losses: Mapping[tuple[str, int], list[float]], lost: Mapping[tuple[str, int], int] | None = None
) -> Trials:
    """Trials with a ``kind`` and a ``width``; ``lost`` says which seed of which failed."""
    rows = [
        {
            "run_id": f"{kind}{width}-{seed}",
            "key": f"{kind}{width}-{seed}",
            "name": "",
            "status": "FAILED" if (lost or {}).get((kind, width)) == seed else "FINISHED",
            "failure": "diverged",
            "stage": "",
            "stopped": "",
            "kind": kind,
            "width": width,
            "seed": seed,
            "val_loss": loss,
        }
        for (kind, width), several in losses.items()
        for seed, loss in enumerate(several)
    ]
    return Trials("study", pd.DataFrame(rows), ("kind", "width", "seed"))


def claim(**fields: Any) -> Claim:
    return read_claim({"claim": "something", **fields})


def one(text: Mapping[str, Any], trials: Trials) -> Any:
    made = claim(**text)
    return conclude(made, contrasts_of(made, trials))


CLEAR = {
    ("a", 8): [1.00, 1.01, 0.99],
    ("b", 8): [1.50, 1.52, 1.48],
    ("c", 8): [2.00, 2.03, 1.97],
    ("a", 16): [1.10, 1.12, 1.11],
    ("b", 16): [1.20, 1.21, 1.23],
    ("c", 16): [1.80, 1.83, 1.82],
}


def test_an_order_is_compared_step_by_step_in_each_cell_by_seed() -> None:
    found = one(ORDER, trials_with(CLEAR))
    assert [(c.cell, c.what, c.seeds) for c in found.contrasts] == [
        ("width=8", "a - b", (0, 1, 2)),
        ("width=8", "b - c", (0, 1, 2)),
        ("width=16", "a - b", (0, 1, 2)),
        ("width=16", "b - c", (0, 1, 2)),
    ]
    assert found.contrasts[0].differences == pytest.approx([-0.50, -0.51, -0.49])
    assert found.contrasts[2].differences == pytest.approx([-0.10, -0.09, -0.12])
    assert (found.verdict, found.cells, found.cells_hold, found.seeds) == ("SUPPORTED", 2, 2, 3)
    assert (found.weakest.cell, found.weakest.what) == ("width=16", "a - b")
    assert found.effect.mean == pytest.approx(-0.31 / 3)
    assert found.weakest.run_ids[:2] == ("a16-0", "b16-0")
    # By hand: t = mean / (sd / sqrt 3) for each, the largest p-value decides. The losses are
    # rounded to 0.01, so their differences may be off by as much.
    differences = np.array([-0.10, -0.09, -0.12])
    t = (differences.mean() + 0.01) / (differences.std(ddof=1) / 3**0.5)
    assert found.decision.supports == pytest.approx(0.5 + t / (2 * (2 + t**2) ** 0.5))  # 2 d.f.


def test_one_cell_the_other_way_contradicts_every_cell_and_supports_not_every_cell() -> None:
    losses = CLEAR | {("b", 16): [1.00, 1.03, 1.01]}
    found = one(ORDER, trials_with(losses))
    assert (found.verdict, found.cells_hold) == ("NOT SUPPORTED", 1)
    assert found.effect.mean == pytest.approx(0.29 / 3)
    assert found.needed.to_show is None
    negated = one({**ORDER, "holds": "not in every cell"}, trials_with(losses))
    assert (negated.verdict, negated.effect.mean) == ("SUPPORTED", found.effect.mean)
    assert one({**ORDER, "holds": "not in every cell"}, trials_with(CLEAR)).verdict == (
        "NOT SUPPORTED"
    )


def test_a_difference_that_does_not_matter_is_no_support_but_no_counterexample() -> None:
    chance = np.random.default_rng(1)
    losses = {
        (kind, width): list(mean + chance.normal(0, 1e-4, 5))
        for kind, mean in {"a": 1.1, "b": 1.5, "c": 2.0}.items()
        for width in (8, 16)
    } | {("b", 16): list(1.1 + chance.normal(0, 1e-4, 5))}
    found = one({**ORDER, "margin": 0.01}, trials_with(losses))
    assert found.verdict == "NOT SUPPORTED"
    assert one({**ORDER, "holds": "not in every cell"}, trials_with(losses)).verdict == (
        "UNDERPOWERED"
    )


def test_noise_is_underpowered_and_says_how_many_seeds_would_do() -> None:
    losses = {("a", 8): [1.00003, 1.20001, 1.30002], ("b", 8): [1.10001, 1.22002, 1.29003]}
    found = one({"factor": "kind", "order": ["a", "b"]}, trials_with(losses))
    assert (found.verdict, found.cells_hold) == ("UNDERPOWERED", 1)
    assert found.needed.to_show == 17  # d = 0.0367 / 0.0569 = 0.645, one-sided 5 %, power 0.8


def test_on_average_a_cell_may_differ() -> None:
    losses = CLEAR | {("b", 16): [1.05, 1.06, 1.11]}
    made = claim(**ORDER, holds="on average")
    found = conclude(made, contrasts_of(made, trials_with(losses)))
    assert (found.verdict, found.cells_hold, found.cells) == ("SUPPORTED", 1, 2)
    by_hand = [((1.00 - 1.50) + (1.10 - 1.05)) / 2, ((1.01 - 1.52) + (1.12 - 1.06)) / 2,
               ((0.99 - 1.48) + (1.11 - 1.11)) / 2]  # fmt: skip
    first, second = averages(found.contrasts)
    assert (first.what, second.what) == ("a - b", "b - c")
    assert first.differences == pytest.approx(by_hand)


def test_a_trial_that_failed_is_counted_and_decides_nothing() -> None:
    found = one(ORDER, trials_with(CLEAR, lost={("a", 8): 1}))
    assert (found.verdict, found.lost) == ("UNDERPOWERED", 1)
    assert found.contrasts[0].seeds == (0, 2)
    other_way = CLEAR | {("b", 16): [1.00, 1.03, 1.01]}
    found = one(ORDER, trials_with(other_way, lost={("a", 16): 1}))
    assert found.verdict == "UNDERPOWERED"
    found = one(ORDER, trials_with(other_way, lost={("a", 8): 1}))
    assert found.verdict == "NOT SUPPORTED"  # by the other cell, which is whole


def test_what_was_stopped_early_is_a_lost_pair_and_what_a_search_picked_none() -> None:
    trials = trials_with(CLEAR)
    trials.table["stopped"] = "at step 500"
    found = one(ORDER, trials)
    assert (found.verdict, found.seeds, found.lost) == ("UNDERPOWERED", 0, 12)
    trials = trials_with(CLEAR)
    trials.table["stage"] = "search"
    assert contrasts_of(claim(**ORDER), trials) == []
    both = pd.concat([trials.table, trials_with(CLEAR).table], ignore_index=True)
    found = one(ORDER, Trials("study", both, trials.params))
    assert (found.verdict, found.seeds, found.lost) == ("SUPPORTED", 3, 0)


def test_a_trial_that_is_not_there_is_a_lost_pair() -> None:
    fewer = CLEAR | {("b", 16): [1.20, 1.21]}
    found = one(ORDER, trials_with(fewer))
    assert (found.verdict, found.lost) == ("UNDERPOWERED", 2)  # of a - b and of b - c
    for form, missing in ((ORDER, "b"), ({"factor": "kind", "best": "a"}, "a")):
        without = {key: losses for key, losses in CLEAR.items() if key != (missing, 16)}
        found = one(form, trials_with(without))
        assert (found.verdict, found.cells, found.cells_hold) == ("UNDERPOWERED", 2, 1)
        assert found.lost == 6
    table = trials_with(CLEAR).table
    table.loc[table["kind"] == "b", "seed"] += 10
    found = one(ORDER, Trials("study", table, ("kind", "width", "seed")))
    assert (found.verdict, found.seeds, found.lost) == ("UNDERPOWERED", 0, 24)


def test_a_clear_difference_that_does_not_matter_is_not_support() -> None:
    small = {
        ("a", 8): [1.0, 1.1, 1.2, 1.05, 1.15123],
        ("b", 8): [1.000512, 1.100604, 1.200405, 1.050541, 1.151799],
    }
    order = {"factor": "kind", "order": ["a", "b"], "margin": 0.002}
    assert one(order, trials_with(small)).verdict == "NOT SUPPORTED"
    assert one({**order, "margin": 0.0002}, trials_with(small)).verdict == "SUPPORTED"
    equal = {"factor": "kind", "equal": ["a", "b"], "margin": 0.002}
    assert one(equal, trials_with(small)).verdict == "SUPPORTED"
    negated = {**equal, "holds": "not in every cell"}
    assert one(negated, trials_with(small)).verdict == "NOT SUPPORTED"
    assert one({**negated, "margin": 0.0002}, trials_with(small)).verdict == "SUPPORTED"


def test_a_trend_wants_the_line_to_fall_too() -> None:
    losses = {
        ("a", 2**i): [(2 - i / 100 if i < 7 else 3.0) + seed / 1000 + (seed * i % 3) / 5000
                      for seed in range(6)]
        for i in range(8)
    }  # fmt: skip
    found = one({"factor": "width", "trend": "falling"}, trials_with(losses))
    assert found.effect.mean > 0.5
    assert (found.verdict, found.cells_hold) == ("NOT SUPPORTED", 0)


def test_rounding_is_no_difference() -> None:
    kind = {"a": (2.0, 1.9), "b": (2.2, 2.3)}  # one falls by as much as the other rises
    losses = {
        (name, width): [start + seed**2 / 100 for seed in range(4)]
        for name, (first, second) in kind.items()
        for width, start in ((8, first), (16, second))
    }
    found = one(
        {"factor": "width", "monotone": "falling", "holds": "on average"}, trials_with(losses)
    )
    assert abs(found.effect.mean) < 1e-12
    assert found.decision.supports > 0.4
    assert found.verdict != "SUPPORTED"


@pytest.mark.parametrize("level", [0.001, "1e-3", "0.001"])
def test_levels_are_found_as_yaml_writes_them(level: Any) -> None:
    trials = trials_with(CLEAR)
    trials.table["width"] = trials.table["width"].map({8: 0.001, 16: 0.1})
    found = one({**ORDER, "where": {"width": level}}, trials)
    assert (found.cells, found.verdict) == (1, "SUPPORTED")


def test_monotone_wants_each_step_and_trend_the_whole() -> None:
    losses = {
        ("a", width): [level + 0.01 * seed + 0.002 * ((seed * width) % 3) for seed in range(5)]
        for width, level in ((8, 2.0), (16, 1.5), (32, 1.52), (64, 1.0))
    }
    trials = trials_with(losses)
    steps = one({"factor": "width", "monotone": "falling"}, trials)
    assert [c.what for c in steps.contrasts] == ["64 - 32", "32 - 16", "16 - 8"]
    assert (steps.verdict, steps.cells_hold, steps.weakest.what) == ("NOT SUPPORTED", 0, "32 - 16")
    trend = one({"factor": "width", "trend": "falling"}, trials)
    assert (trend.verdict, trend.cells_hold, trend.cells) == ("SUPPORTED", 1, 1)
    # A least-squares line through -1.5, -0.5, 0.5, 1.5 in the order 64, 32, 16, 8.
    first = {width: losses["a", width][0] for width in (8, 16, 32, 64)}
    slope = (-1.5 * first[64] - 0.5 * first[32] + 0.5 * first[16] + 1.5 * first[8]) / 5
    assert trend.contrasts[0].differences[0] == pytest.approx(-3 * slope)
    rising = one({"factor": "width", "trend": "rising"}, trials)
    assert (rising.verdict, rising.cells_hold) == ("NOT SUPPORTED", 0)
    assert rising.contrasts[0].mean == pytest.approx(-trend.contrasts[0].mean)


def test_best_is_against_each_other_level_and_equal_wants_equivalence() -> None:
    found = one({"factor": "kind", "best": "a"}, trials_with(CLEAR))
    assert [c.what for c in found.contrasts[:2]] == ["a - b", "a - c"]
    assert found.verdict == "SUPPORTED"
    assert one({"factor": "kind", "best": "b"}, trials_with(CLEAR)).verdict == "NOT SUPPORTED"
    near = {("a", 8): [1.0001, 1.1, 1.2], ("b", 8): [1.001, 1.099, 1.2]}
    equal = {"factor": "kind", "equal": ["a", "b"]}
    assert one({**equal, "margin": 0.01}, trials_with(near)).verdict == "SUPPORTED"
    assert one({**equal, "margin": 0.0005}, trials_with(near)).verdict == "UNDERPOWERED"
    assert one({**equal, "margin": 0.01}, trials_with(CLEAR)).verdict == "NOT SUPPORTED"


def write_table(path: Path, losses: Mapping[str, list[float]], digits: int) -> Path:
    rows = [
        f"{kind},{seed},{loss:.{digits}f}"
        for kind, several in losses.items()
        for seed, loss in enumerate(several)
    ]
    path.write_text("\n".join(["kind,seed,val_loss", *rows]) + "\n")
    return path


def checked(path: Path, text: str) -> Any:
    (path.parent / "claims.yaml").write_text(text)
    (found,) = check_claims(load_trials(str(path)), path.parent / "claims.yaml")
    return found


ORDERED = "claims: [{claim: x, factor: kind, order: [a, b]}]"
EQUAL = "claims: [{claim: x, factor: kind, equal: [a, b], margin: %s}]"


def test_pairs_without_spread_need_more_than_their_direction(tmp_path: Path) -> None:
    two = {"a": [2.40, 2.40], "b": [2.41, 2.41]}
    found = checked(write_table(tmp_path / "x.csv", two, 2), ORDERED)
    assert found.verdict == "UNDERPOWERED"
    assert found.decision.supports >= 0.05
    # With all digits the differences of five distinct pairs are the same: their signs decide.
    five = {"a": [2.1 + i / 7 for i in range(5)], "b": [2.2 + i / 7 for i in range(5)]}
    for seeds, verdict in ((4, "UNDERPOWERED"), (5, "SUPPORTED")):
        some = {kind: losses[:seeds] for kind, losses in five.items()}
        found = checked(write_table(tmp_path / "x.csv", some, 12), ORDERED)
        assert (found.verdict, found.decision.supports) == (verdict, 2.0**-seeds)
        assert found.decision.noise.flat == (True,)


def test_losses_that_are_rounded_are_not_called_equal(tmp_path: Path) -> None:
    chance = np.random.default_rng(2)
    losses = {"a": list(chance.normal(2.4, 0.001, 5)), "b": list(chance.normal(2.404, 0.001, 5))}
    path = write_table(tmp_path / "x.csv", losses, 2)
    with pytest.raises(
        AnalysisError, match=r"rounded to 0\.01, so nothing can be said of equality"
    ):
        checked(path, EQUAL % 0.002)
    assert checked(write_table(path, losses, 6), EQUAL % 0.05).verdict == "SUPPORTED"


@pytest.mark.parametrize("digits", [2, 3])
def test_rounding_makes_nothing_equal_that_is_twice_the_margin_apart(
    digits: int, tmp_path: Path
) -> None:
    margin = 2 * 10.0**-digits
    chance, found = np.random.default_rng(3), []
    for i in range(40):
        start = chance.uniform(2.3, 2.4)
        losses = {
            "a": list(chance.normal(start, margin / 5, 5)),
            "b": list(chance.normal(start + 2 * margin, margin / 5, 5)),
        }
        path = write_table(tmp_path / f"{i}.csv", losses, digits)
        found.append(checked(path, EQUAL % margin).verdict)
    assert found.count("SUPPORTED") <= 2


def test_selections_are_paired_where_they_agree() -> None:
    sides = {"better": {"kind": "a"}, "worse": {"kind": ["b", "c"]}}
    found = one(sides, trials_with(CLEAR))
    assert [(c.cell, c.what) for c in found.contrasts] == [
        ("width=8 against kind=b width=8", "a - b|c"),
        ("width=8 against kind=c width=8", "a - b|c"),
        ("width=16 against kind=b width=16", "a - b|c"),
        ("width=16 against kind=c width=16", "a - b|c"),
    ]
    nearest = one({**sides, "despite": ["width"]}, trials_with(CLEAR))
    assert nearest.differs == {}  # the same pairs, as none need differ
    assert [c.cell for c in nearest.contrasts] == [c.cell for c in found.contrasts]


def test_a_cell_has_one_configuration_of_a_level() -> None:
    with pytest.raises(AnalysisError, match=r"several configurations with kind=a, .* in width: "):
        contrasts_of(claim(**ORDER, despite=["width"]), trials_with(CLEAR))


# The published table, on its own.


@pytest.fixture(scope="module")
def published() -> Any:
    return conclusions_table(check_claims(load_trials(str(PUBLISHED))))


def test_the_published_table_has_the_counts_that_it_shows(published: pd.DataFrame) -> None:
    counts = {row["claim"]: (row["cells_hold"], row["cells"]) for _, row in published.iterrows()}
    assert counts == {
        "attention with a positional encoding is better than the plain bigram": (35, 36),
        "the factorised model is worse than the plain bigram": (1, 1),
        "rope is better than sinpe, and sinpe than randn": (12, 12),
        "a longer block_size is better for rope and sinpe, at each step": (6, 6),
        "val_loss tends to fall with block_size for rope and sinpe": (6, 6),
        "a longer block_size is not always better for randn": (0, 3),
        "a larger n_embd is not always better": (0, 12),
    }
    worst = published.iloc[0]
    assert worst["weakest_cell"] == "pe_type=randn n_embd=256 block_size=64"
    assert worst["effect"] == pytest.approx(2.48324 - 2.48322)


def test_one_run_a_cell_supports_nothing(published: pd.DataFrame) -> None:
    assert set(published["verdict"]) == {"UNDERPOWERED"}
    assert set(published["seeds"]) == {1}
    assert published["seeds_needed"].isna().all()
    assert published[["low", "high"]].isna().all(axis=None)


# Files of claims.


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("claims: [", "line 1: not YAML"),
        ("other: 1", "expected a list of claims"),
        ("claims: [{claim: x}]", r"claims\[0\]: give `better` and `worse`, or a `factor`"),
        ("claims: [{claim: x, factor: kind}]", "one of order, monotone, trend, best, equal"),
        ("claims: [{claim: x, factor: kind, best: a, order: [a, b]}]", "one of order"),
        ("claims: [{claim: x, factor: kind, bst: a}]", r"claims\[0\].bst: unknown; known: claim"),
        ("claims: [{claim: x, factor: kind, best: a, holds: often}]", r"holds: .*on average"),
        ("{margin: -1, claims: [{claim: x, factor: kind, best: a}]}", "margin: .*greater than 0"),
        ("{margins: 1, claims: [{claim: x, factor: kind, best: a}]}", "unknown 'margins'"),
        ("claims: [{claim: x, factor: kind, order: [a, a]}]", "a level occurs twice in a, a"),
        ("claims: [{claim: x, factor: seed, monotone: falling}]", "paired by their seed"),
        ("claims: [{claim: x, factor: kind, best: a, despite: [seed]}]", "paired by their seed"),
        ("claims: [{claim: x, factor: kind, best: a, within: [width]}]", r"in `despite`, and fix"),
        ("claims: [{claim: x, better: {}, worse: {kind: a}}]", "better: .*at least 1"),
        ("claims: [{claim: x, factor: kind, best: a, where: {width: []}}]", ".*least one"),
        ("claims: [{claim: x, factor: kind, best: null, order: [a, {}]}]", "a word, a number"),
        ("{margin: .inf, claims: [{claim: x, factor: kind, best: a}]}", "margin: .*finite"),
        ("{1: 2, a: 3, claims: [{claim: x, factor: kind, best: a}]}", "unknown '1'"),
        ("{.nan: 2, claims: [{claim: x, factor: kind, best: a}]}", "line 1: unknown 'nan'"),
        ("claims: [{claim: x, factor: kind, trend: falling}]", "kind is not a number in every"),
        ("claims: [{claim: x, better: {kind: a}, worse: {width: 8}}]", "3 trials are both"),
        ("claims: [{claim: x, factor: kind, best: a, where: {kind: a}}]", "nothing to compare"),
        ("claims: [{claim: x, factor: knd, best: a}]", "no setting 'knd'|has a setting 'knd'"),
        ("claims: [{claim: x, factor: kind, best: z}]", "has kind=z; there are: a, b, c"),
    ],
)
def test_a_wrong_file_is_refused(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "claims.yaml"
    path.write_text(text)
    with pytest.raises(AnalysisError, match=message):
        check_claims(trials_with(CLEAR), path)


def test_the_shipped_claims_are_left_out_where_they_do_not_apply() -> None:
    assert check_claims(trials_with(CLEAR)) == []


# Simulated sweeps: cells x levels x seeds of normal losses, with an effect of each seed that all
# trials of the seed share, and which pairing takes away.

Simulate = Callable[[np.random.Generator], list[Contrast]]


def simulated(means: np.ndarray, seeds: int, chance: np.random.Generator) -> list[Contrast]:
    """Contrasts of neighbouring levels; ``means`` is cells x levels."""
    shared = chance.normal(0, 3, seeds)
    cells, levels = means.shape
    losses = means[..., None] + chance.normal(0, 1, (cells, levels, seeds)) + shared
    return [
        Contrast(f"c{c}", f"{k}", tuple(range(seeds)), losses[c, k : k + 2].T, MINUS, 0, ())
        for c in range(cells)
        for k in range(levels - 1)
    ]


def supported(
    made: Claim, means: np.ndarray, seeds: int, verdict: str = "SUPPORTED", sweeps: int = SWEEPS
) -> float:
    chance = np.random.default_rng(11)
    found = 0
    for _ in range(sweeps):
        contrasts = simulated(means, seeds, chance)
        if made.holds == "on average":
            contrasts = averages(contrasts)
        found += decide(made, contrasts).verdict == verdict
    return found / sweeps


NULLS = {
    # The hardest case for "every cell": all but one hold beyond doubt, and that one not at all.
    "in every cell": np.array([[-20.0, 0.0], [0.0, 0.0]]),
    "on average": np.zeros((3, 2)),
    # For "not every cell": all hold, but by nothing.
    "not in every cell": np.zeros((4, 2)),
}
NOISE_OF_A_RATE = 2.6 * (ALPHA * (1 - ALPHA) / SWEEPS) ** 0.5  # 99 % of estimates are within


@pytest.mark.parametrize("holds", NULLS)
def test_under_a_true_null_a_claim_is_supported_at_the_nominal_rate_at_most(holds: str) -> None:
    rate = supported(claim(factor="x", order=[0, 1], holds=holds, margin=0.01), NULLS[holds], 5)
    assert rate <= ALPHA + NOISE_OF_A_RATE
    assert rate >= ALPHA - 2 * NOISE_OF_A_RATE  # nor is it so timid that it finds nothing


def test_an_order_of_three_equal_levels_is_hardly_ever_supported() -> None:
    rate = supported(claim(factor="x", order=[0, 1, 2]), np.zeros((2, 3)), 5)
    assert rate <= 0.01


def test_levels_that_differ_by_the_margin_are_called_equal_at_the_nominal_rate_at_most() -> None:
    made = claim(factor="x", equal=[0, 1], margin=3.0)
    rate = supported(made, np.full((1, 2), (0.0, 3.0)), 5)
    assert ALPHA - 2 * NOISE_OF_A_RATE <= rate <= ALPHA + NOISE_OF_A_RATE
    negated = claim(factor="x", equal=[0, 1], margin=3.0, holds="not in every cell")
    assert supported(negated, np.full((2, 2), (0.0, 3.0)), 5) <= ALPHA + NOISE_OF_A_RATE


def test_a_claim_that_holds_is_contradicted_at_the_nominal_rate_at_most() -> None:
    made = claim(factor="x", order=[0, 1], margin=0.5)
    rate = supported(made, np.full((4, 2), (0.0, 0.5)), 5, "NOT SUPPORTED")
    assert rate <= ALPHA + NOISE_OF_A_RATE


def test_a_trend_among_equal_levels_is_supported_at_the_nominal_rate_at_most() -> None:
    chance = np.random.default_rng(12)
    made = claim(factor="x", trend="falling")
    found = 0
    for losses in chance.normal(0, 1, (SWEEPS, 4, 4)):  # seeds x levels
        contrast = Contrast("", "", (0, 1, 2, 3), losses[:, ::-1], np.array([1.0, 0, 0, -1]), 0, ())
        found += decide(made, [contrast]).verdict == "SUPPORTED"
    assert found / SWEEPS <= ALPHA + NOISE_OF_A_RATE


@pytest.mark.parametrize(
    ("holds", "means", "seeds"),
    [
        ("in every cell", np.full((1, 2), (0.0, 1.6)), 5),
        ("in every cell", np.full((3, 2), (0.0, 2.0)), 6),
        ("on average", np.full((4, 2), (0.0, 0.8)), 5),
        ("not in every cell", np.array([[1.8, 0.0], [0.0, 9.0], [0.0, 9.0]]), 6),
    ],
)
def test_with_a_planted_effect_the_power_is_that_of_the_forecast(
    holds: str, means: np.ndarray, seeds: int
) -> None:
    made = claim(factor="x", order=[0, 1], holds=holds, margin=1e-6)
    spread = 2**0.5 / (len(means) ** 0.5 if holds == "on average" else 1)
    centre = means[:, 0] - means[:, 1]
    if holds == "on average":
        centre = centre[:1]
    # Samples with exactly the planted mean and spread.
    known = [
        Contrast(
            "", "", (0, 1, 2), mean + spread * np.array([[-1.0], [0.0], [1.0]]), np.ones(1), 0, ()
        )
        for mean in centre
    ]
    expected = chances(made, known, seeds).supported
    assert 0.3 < expected < 0.97
    assert supported(made, means, seeds, sweeps=1_000) == pytest.approx(expected, abs=0.05)


def test_tables_have_a_row_a_claim_and_a_row_a_contrast(tmp_path: Path) -> None:
    path = tmp_path / "claims.yaml"
    path.write_text("{margin: 0.2, claims: [{claim: x, factor: kind, order: [a, b, c]}]}")
    conclusions = check_claims(trials_with(CLEAR), path)
    (row,) = conclusions_table(conclusions).to_dict("records")
    # In one cell a - b is -0.10, which is less than the margin of 0.2.
    assert (row["verdict"], row["cells_hold"], row["cells"]) == ("NOT SUPPORTED", 2, 2)
    assert (row["seeds"], row["seeds_to_refute"], row["lost"]) == (3, 3, 0)
    assert row["seeds_needed"] is None  # more seeds show the small difference better still
    assert row["low"] < row["effect"] < row["high"] < 0
    table = contrasts_table(conclusions)
    assert list(table["what"]) == ["a - b", "b - c"] * 2
    assert table["p_holm"].max() == pytest.approx(conclusions[0].decision.supports)
    assert table["p_equal"][2] < 0.05 < table["p_equal"][0]  # 0.10 is within the margin of 0.2
    assert table["run_ids"][0].split()[:2] == ["a8-0", "b8-0"]
