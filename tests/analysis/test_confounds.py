"""What a claim is not about: what differs beside it, what is not there, and what is there twice."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as some

from analysis import check_claims, conclusions_table, contrasts_table, load_trials
from analysis.claims.claim_errors import ClaimError
from analysis.claims.claim_file import read_claim
from analysis.claims.conclusions import Conclusion, conclude
from analysis.claims.contrast import Contrast
from analysis.claims.contrasts import contrasts_of
from analysis.claims.decisions import averages, decide
from analysis.command import main
from analysis.errors import AnalysisError
from analysis.reports.claim_texts import (
    Link,
    claim_section,
    claims_overview,
    one_seed_note,
    sentences,
)
from analysis.trials.table import Trials
from tests.analysis.tuned import run, sweep

SEEDS = range(1, 6)
SIDES = "better: {variant: attention}, worse: {variant: bigram}"
Row = Mapping[str, Any]


def rows(loss: float, seeds: Iterable[int] = SEEDS, **params: Any) -> list[Row]:
    """Trials of a configuration, whose losses scatter a little around this one."""
    return [
        {**params, "seed": seed, "val_loss": loss + 0.003 * np.sin(seed * 7.3 + loss * 1e3)}
        for seed in seeds
    ]


def loaded(folder: Path, *several: Sequence[Row]) -> Trials:
    """These trials, by way of a CSV file."""
    path = folder / "table.csv"
    pd.DataFrame([row for each in several for row in each]).to_csv(path, index=False)
    return load_trials(str(path))


def judge(trials: Trials, folder: Path, claim: str) -> Conclusion:
    path = folder / "claims.yaml"
    path.write_text(f"claims:\n  - {{claim: x, {claim}}}\n")
    (found,) = check_claims(trials, path)
    return found


# What differs beside the claim.

CONFOUNDS = [
    ("max_steps", 5000, 500),
    ("corpus", "A", "B"),
    ("learning_rate", 0.01, 0.0001),
    ("evaluation", "exact", "sampled"),
    ("batch_size", 64, 32),
]


@pytest.mark.parametrize(("name", "value", "other"), CONFOUNDS)
def test_sides_that_differ_in_another_setting_are_refused_until_it_is_named(
    name: str, value: Any, other: Any, tmp_path: Path
) -> None:
    trials = loaded(
        tmp_path,
        rows(2.3, variant="attention", **{name: value}),
        rows(2.4, variant="bigram", **{name: other}),
    )
    with pytest.raises(AnalysisError) as refused:
        judge(trials, tmp_path, SIDES)
    assert str(refused.value) == (
        f"{tmp_path}/claims.yaml: line 2: claims[0].better: 1 configuration has no partner in"
        f" `worse` that agrees in all else, such as variant=attention {name}={value}: the nearest"
        f" differs in {name} ({value}, {other}); say `despite: [{name}]` if that may be, or select"
        " what agrees by `where`"
    )
    allowed = judge(trials, tmp_path, f"{SIDES}, despite: [{name}]")
    assert (allowed.verdict, allowed.differs) == ("SUPPORTED", {name: 1})
    assert f"In 1 of 1 differences the sides also differ in {name}." in list(sentences(allowed))


@pytest.mark.parametrize(
    "form",
    ["order: [2, 1]", "best: 2", "monotone: falling", "trend: falling", "equal: [2, 1], margin: 9"],
)
@pytest.mark.parametrize(("name", "value", "other"), CONFOUNDS)
def test_levels_that_differ_in_another_setting_are_refused_until_it_is_named(
    form: str, name: str, value: Any, other: Any, tmp_path: Path
) -> None:
    trials = loaded(
        tmp_path, rows(2.3, heads=2, **{name: value}), rows(2.4, heads=1, **{name: other})
    )
    with pytest.raises(AnalysisError) as refused:
        judge(trials, tmp_path, f"factor: heads, {form}")
    assert f"the nearest differs in {name} (" in str(refused.value)
    assert f"say `despite: [{name}]`" in str(refused.value)
    allowed = judge(trials, tmp_path, f"factor: heads, {form}, despite: [{name}]")
    assert (allowed.verdict, allowed.differs) == ("SUPPORTED", {name: 1})


def test_a_corpus_of_one_side_alone_has_no_partner(tmp_path: Path) -> None:
    trials = loaded(
        tmp_path,
        rows(2.3, variant="attention", corpus="A"),
        rows(2.2, variant="attention", corpus="B"),
        rows(2.4, variant="bigram", corpus="A"),
    )
    with pytest.raises(AnalysisError, match=r"variant=attention corpus=B: .* corpus \(B, A\)"):
        judge(trials, tmp_path, SIDES)
    with pytest.raises(AnalysisError, match=r"\.worse: 1 .* in `better` .* corpus \(B, A\)"):
        judge(trials, tmp_path, "better: {variant: bigram}, worse: {variant: attention}")
    found = judge(trials, tmp_path, f"{SIDES}, where: {{corpus: A}}")
    assert (found.verdict, found.cells, found.differs) == ("SUPPORTED", 1, {})


def arms(**digests: str) -> Trials:
    """A sweep of two arms, each with a learning rate of its own."""
    plans = [("attention", 0.01, 2.3, digests), ("bigram", 0.0001, 2.4, {})]
    return sweep(
        [
            run({"variant": variant, "learning_rate": rate, "seed": seed}, loss + seed**2 / 1e3,
                **tags)
            for variant, rate, loss, tags in plans
            for seed in SEEDS
        ]
    )  # fmt: skip


def test_arms_of_a_sweep_with_other_learning_rates_are_refused(tmp_path: Path) -> None:
    with pytest.raises(AnalysisError, match=r"differs in learning_rate \(0.01, 0.0001\)"):
        judge(arms(), tmp_path, SIDES)


def test_what_only_one_side_has_may_vary_there(tmp_path: Path) -> None:
    trials = loaded(
        tmp_path,
        rows(2.3, variant="attention", pe_type="rope", rate=0.1),
        rows(2.2, variant="attention", pe_type="sinpe", rate=0.1),
        rows(2.4, variant="bigram", pe_type=None, rate=0.1),
    )
    found = judge(trials, tmp_path, SIDES)
    assert [c.cell for c in found.contrasts] == ["pe_type=rope", "pe_type=sinpe"]
    assert (found.verdict, found.differs) == ("SUPPORTED", {})


def test_a_blank_is_a_value_where_others_of_the_kind_have_one(tmp_path: Path) -> None:
    blank = rows(2.4, variant="bigram", corpus=None)
    attention = rows(2.3, variant="attention", corpus="B")
    assert judge(loaded(tmp_path, attention, blank), tmp_path, SIDES).verdict == "SUPPORTED"
    trials = loaded(tmp_path, attention, blank, rows(2.5, variant="bigram", corpus="A"))
    with pytest.raises(AnalysisError, match=r"differs in corpus \(B, A\)"):
        judge(trials, tmp_path, SIDES)
    found = judge(trials, tmp_path, f"{SIDES}, despite: [corpus]")
    assert found.differs == {"corpus": 2}


def test_of_the_allowed_partners_the_nearest_are_taken_from_either_side(tmp_path: Path) -> None:
    trials = loaded(
        tmp_path,
        rows(2.3, variant="attention", block_size=8),
        rows(2.2, variant="attention", block_size=16),
        rows(2.4, variant="bigram", block_size=8),
        rows(2.4, variant="bigram", block_size=32),
    )
    found = judge(trials, tmp_path, f"{SIDES}, despite: [block_size]")
    assert [(c.cell, c.differs) for c in found.contrasts] == [
        ("block_size=8 against block_size=8", ()),
        ("block_size=8 against block_size=32", ("block_size",)),
        ("block_size=16 against block_size=8", ("block_size",)),
        ("block_size=16 against block_size=32", ("block_size",)),
    ]  # 16 is equally far from both, and so is 32


def test_a_setting_that_the_claim_names_may_differ_and_is_not_said(tmp_path: Path) -> None:
    trials = loaded(
        tmp_path,
        rows(2.3, variant="attention", block_size=16),
        rows(2.4, variant="bigram", block_size=8),
    )
    about = "better: {variant: attention, block_size: 16}, worse: {variant: bigram, block_size: 8}"
    assert judge(trials, tmp_path, about).differs == {}


@pytest.mark.parametrize("name", ["corpus_digest", "code_version", "result_version"])
def test_trials_that_were_made_otherwise_are_compared_and_it_is_said(
    name: str, tmp_path: Path
) -> None:
    def made(ours: str | None, theirs: str | None) -> Conclusion:
        both = [*rows(2.3, heads=2), *rows(2.4, heads=1)]
        table = loaded(tmp_path, both).table
        table[name] = [ours] * 5 + [theirs] * 5
        claim = read_claim({"claim": "x", "factor": "heads", "order": [2, 1]})
        return conclude(claim, contrasts_of(claim, Trials("x", table, ("heads", "seed"))))

    assert made("1", "1").differs == {}
    assert made("", "1").differs == made(None, "1").differs == {}
    found = made("1", "2")
    assert (found.verdict, found.differs) == ("SUPPORTED", {name: 1})
    assert f"In 1 of 1 differences the sides also differ in {name}." in list(sentences(found))


def test_a_report_and_the_command_say_what_differs(tmp_path: Path) -> None:
    table, claims = tmp_path / "table.csv", tmp_path / "claims.yaml"
    loaded(
        tmp_path,
        rows(2.3, variant="attention", rate=1, corpus_digest="abc"),
        rows(2.4, variant="bigram", rate=2, corpus_digest="def"),
    )
    claims.write_text(f"claims: [{{claim: x, {SIDES}, despite: [rate]}}]")
    arguments = [str(table), "--claims", str(claims), "--out", str(tmp_path / "out")]
    said = CliRunner().invoke(main, ["conclusions", *arguments])
    assert said.exit_code == 0, said.output
    assert CliRunner().invoke(main, ["report", *arguments]).exit_code == 0
    caveats = (tmp_path / "out" / "report.md").read_text().partition("## Caveats")[2]
    for name in ("rate", "corpus_digest"):
        assert f"In 1 of 1 differences the sides also differ in {name}." in said.output
        assert f"Claim 1 compares trials that also differ in {name}, in 1 of 1" in caveats
    claims.write_text(f"claims: [{{claim: x, {SIDES}}}]")
    refused = CliRunner().invoke(main, ["conclusions", *arguments])
    assert (refused.exit_code, "Traceback" in refused.output) == (2, False)


def test_a_shipped_claim_whose_sides_differ_is_not_left_out_in_silence(tmp_path: Path) -> None:
    trials = loaded(
        tmp_path,
        rows(2.3, variant="attention", pe_type="rope", max_steps=5000),
        rows(2.4, variant="attention", pe_type="sinpe", max_steps=5000),
        rows(2.5, variant="attention", pe_type="randn", max_steps=5000),
        rows(2.6, variant="bigram", pe_type=None, max_steps=500),
    )
    against_bigram, order = check_claims(trials)
    assert (against_bigram.verdict, order.verdict) == ("UNDERPOWERED", "SUPPORTED")
    (said,) = sentences(against_bigram)
    assert said.startswith("Nothing was compared: 3 configurations have no partner")
    assert "max_steps (5000, 500)" in said
    section = claim_section(1, against_bigram, Link("", ""), 60)
    assert "Nothing was compared: 3 configurations" in section
    assert "**UNDERPOWERED**" in claims_overview([against_bigram])
    assert conclusions_table([against_bigram])["effect"].isna().all()
    assert contrasts_table([against_bigram]).empty


def test_shipped_claims_allow_another_block_size_for_a_bigram(tmp_path: Path) -> None:
    trials = loaded(
        tmp_path,
        *(rows(2.3, variant="attention", n_embd=64, block_size=block) for block in (8, 16)),
        rows(2.4, variant="bigram", n_embd=None, block_size=8),
        rows(2.5, variant="factorized", n_embd=384, block_size=8),
    )
    attention, factorised = check_claims(trials)[:2]
    assert (attention.verdict, attention.cells) == ("SUPPORTED", 2)
    assert attention.differs == {"block_size": 1}
    assert (factorised.verdict, factorised.differs) == ("SUPPORTED", {})


def test_a_claim_may_leave_open_what_was_tuned_everywhere(tmp_path: Path) -> None:
    trials = loaded(tmp_path, rows(2.3, heads=2, rate=0.1), rows(2.4, heads=1, rate=0.1))
    text = "factor: heads, order: [2, 1], despite: [rate]"
    assert judge(trials, tmp_path, text).differs == {}


def test_what_was_tuned_is_another_value_than_a_number(tmp_path: Path) -> None:
    trials = loaded(
        tmp_path,
        rows(2.3, variant="attention", rate=0.1),
        rows(2.2, variant="attention", rate=0.2),
        rows(2.4, variant="bigram", rate=0.1),
    )
    table = trials.table.assign(rate=trials.table["rate"].astype(object).replace(0.2, "tuned"))
    mixed = Trials("x", table, trials.params)
    with pytest.raises(AnalysisError, match=r"rate=tuned: .* rate \(tuned, 0.1\)"):
        judge(mixed, tmp_path, SIDES)
    allowed = judge(mixed, tmp_path, f"{SIDES}, despite: [rate]")
    assert (allowed.verdict, allowed.cells, allowed.differs) == ("SUPPORTED", 2, {"rate": 1})
    where = judge(mixed, tmp_path, f"{SIDES}, where: {{rate: 1e-1}}")
    assert (where.verdict, where.cells) == ("SUPPORTED", 1)
    best = "factor: rate, best: tuned, where: {variant: attention}"
    assert judge(mixed, tmp_path, best).verdict == "SUPPORTED"


# What is not there.


def grid(*levels: Any, cells: Iterable[int] = (8, 64), seeds: Iterable[int] = SEEDS) -> list[Row]:
    """Losses that fall clearly with ``n_embd``, in each block_size."""
    return [
        row
        for cell in cells
        for level in levels
        for row in rows(2.5 - level / 100, seeds, n_embd=level, block_size=cell)
    ]


class Planned(Trials):
    """Of a sweep whose plan is known."""

    plan_known = True


def waiting(trials: Trials, which: Callable[[pd.DataFrame], pd.Series[bool]]) -> Trials:
    """As if these trials had not been started, in a store that knows the plan."""
    table = trials.table.copy()
    table.loc[which(table), ["status", "val_loss"]] = ["WAITING", np.nan]
    return Planned(trials.experiment, table, trials.params)


OPEN = ["best: 32", "monotone: falling", "trend: falling"]


@pytest.mark.parametrize("form", [*OPEN, "order: [32, 16]", "best: 32, levels: [16, 32]"])
def test_a_level_that_a_cell_never_began_decides_nothing(form: str, tmp_path: Path) -> None:
    claim = f"factor: n_embd, {form}, where: {{block_size: [8, 64]}}"
    whole = loaded(tmp_path, grid(16, 32))
    assert judge(whole, tmp_path, claim).verdict == "SUPPORTED"
    found = judge(loaded(tmp_path, grid(16, 32, cells=[64]), grid(32, cells=[8])), tmp_path, claim)
    assert (found.verdict, found.cells, found.lost) == ("UNDERPOWERED", 2, 5)
    planned = waiting(whole, lambda table: (table["n_embd"] == 16) & (table["block_size"] == 8))
    found = judge(planned, tmp_path, claim)
    assert (found.verdict, found.cells, found.lost) == ("UNDERPOWERED", 2, 5)


@pytest.mark.parametrize("form", OPEN[1:])
def test_without_the_level_that_breaks_a_series_it_is_not_supported(
    form: str, tmp_path: Path
) -> None:
    breaks = rows(2.9, n_embd=64, block_size=8)
    others = [*grid(16, 32), *rows(1.5, n_embd=64, block_size=64)]
    claim = f"factor: n_embd, {form}"
    assert judge(loaded(tmp_path, others, breaks), tmp_path, claim).verdict == "NOT SUPPORTED"
    found = judge(loaded(tmp_path, others), tmp_path, claim)
    assert (found.verdict, found.cells, found.lost) == ("UNDERPOWERED", 2, 5)


def test_a_level_that_was_never_planned_in_a_cell_is_not_missed(tmp_path: Path) -> None:
    trials = loaded(tmp_path, grid(16, 32), grid(64, cells=[64]))
    claim = "factor: n_embd, monotone: falling"
    assert judge(trials, tmp_path, claim).lost == 5
    found = judge(Planned("x", trials.table, trials.params), tmp_path, claim)
    assert (found.verdict, found.lost) == ("SUPPORTED", 0)


@pytest.mark.parametrize(
    "claim",
    [
        "factor: n_embd, order: [32, 16]",
        "factor: n_embd, trend: falling",
        "better: {n_embd: 32}, worse: {n_embd: 16}",
    ],
)
def test_seeds_that_are_absent_on_both_sides_are_lost(claim: str, tmp_path: Path) -> None:
    trials = loaded(tmp_path, grid(16, 32, cells=[8]), grid(16, 32, cells=[64], seeds=[1, 2, 3]))
    found = judge(trials, tmp_path, claim)
    assert (found.verdict, found.lost) == ("UNDERPOWERED", 2)
    assert "decide nothing" in " ".join(sentences(found))
    planned = Planned("x", trials.table, trials.params)  # three seeds were all that it was to have
    assert judge(planned, tmp_path, claim).verdict == "SUPPORTED"
    whole = loaded(tmp_path, grid(16, 32))
    planned = waiting(whole, lambda table: (table["block_size"] == 64) & (table["seed"] > 3))
    assert judge(planned, tmp_path, claim).lost == 2


def test_seeds_of_levels_that_are_not_compared_are_not_missed(tmp_path: Path) -> None:
    trials = loaded(tmp_path, grid(16, 32), grid(64, seeds=range(1, 11)))
    assert judge(trials, tmp_path, "factor: n_embd, order: [32, 16]").verdict == "SUPPORTED"
    assert judge(trials, tmp_path, "factor: n_embd, best: 64").lost == 20


def test_declared_levels_are_compared_and_no_others(tmp_path: Path) -> None:
    trials = loaded(tmp_path, grid(16, 32, 64), grid(48, cells=[64]))
    planned = Planned("x", trials.table, trials.params)
    for form, steps, whose in (
        ("monotone: falling", ["64 - 16"], trials),
        ("monotone: falling", ["64 - 16"], planned),
        ("trend: rising", ["16 - 64, fitted"], trials),
        ("best: 64", ["64 - 16"], planned),
    ):
        found = judge(whose, tmp_path, f"factor: n_embd, {form}, levels: [64, 16]")
        assert [c.what for c in found.contrasts] == steps * 2
        assert found.lost == 0
    for whose in (trials, planned):
        found = judge(whose, tmp_path, "factor: n_embd, monotone: falling, levels: [16, 48]")
        assert (found.verdict, found.lost) == ("UNDERPOWERED", 5)


# What is there twice.


def test_copies_of_pairs_under_other_seeds_count_once(tmp_path: Path) -> None:
    def tried(times: int) -> Conclusion:
        two = [(2.300, 2.310), (2.310, 2.355)]
        table = [
            {"heads": heads, "seed": 2 * copy + at, "val_loss": pair[side]}
            for copy in range(times)
            for at, pair in enumerate(two)
            for side, heads in enumerate((2, 1))
        ]
        return judge(loaded(tmp_path, table), tmp_path, "factor: heads, order: [2, 1]")

    once, five = tried(1), tried(5)
    assert (once.verdict, five.verdict, five.seeds) == ("UNDERPOWERED", "UNDERPOWERED", 2)
    assert (
        five.decision.supports
        == pytest.approx(once.decision.supports)
        == pytest.approx(0.18, abs=0.02)
    )
    assert (once.repeated, five.repeated) == (0, 8)
    assert any("the losses of another seed: 8, not counted" in one for one in sentences(five))


def test_models_without_chance_have_one_seed(tmp_path: Path) -> None:
    table = [
        {"heads": heads, "seed": seed, "val_loss": loss}
        for heads, loss in ((2, 2.3), (1, 2.4))
        for seed in SEEDS
    ]
    found = judge(loaded(tmp_path, table), tmp_path, "factor: heads, order: [2, 1]")
    assert (found.verdict, found.seeds, found.repeated) == ("UNDERPOWERED", 1, 4)
    assert one_seed_note([found]) == ""  # there are five runs of each


def test_copies_on_one_side_are_said(tmp_path: Path) -> None:
    one = [{"heads": 2, "seed": seed, "val_loss": 2.3 + seed % 2 / 100} for seed in SEEDS]
    found = judge(
        loaded(tmp_path, one, rows(2.4, heads=1)), tmp_path, "factor: heads, order: [2, 1]"
    )
    assert (found.seeds, found.repeated, found.equal_losses) == (5, 0, 1)
    assert any("has the same loss with several seeds" in one for one in sentences(found))
    other = judge(
        loaded(tmp_path, rows(2.3, heads=2), rows(2.4, heads=1)),
        tmp_path,
        "factor: heads, order: [2, 1]",
    )
    assert (other.repeated, other.equal_losses) == (0, 0)


def test_a_configuration_with_two_trials_of_a_seed_is_refused(tmp_path: Path) -> None:
    both = [*rows(2.3, heads=2), *rows(2.4, heads=1), *rows(2.2, seeds=[3], heads=2)]
    table = [{**row, "corpus_digest": "b" if at == 10 else "a"} for at, row in enumerate(both)]
    with pytest.raises(AnalysisError, match="seed 3 have heads=2; they differ in corpus_digest"):
        judge(loaded(tmp_path, table), tmp_path, "factor: heads, order: [2, 1]")


def test_rounded_losses_of_either_side_make_the_resolution(tmp_path: Path) -> None:
    rounded = [{**row, "val_loss": round(row["val_loss"], 3)} for row in rows(2.3, heads=2)]
    trials = loaded(tmp_path, rounded, rows(2.4, heads=1))
    for claim in ("factor: heads, order: [2, 1]", "better: {heads: 1}, worse: {heads: 2}"):
        (contrast,) = judge(trials, tmp_path, claim).contrasts
        assert contrast.resolution == 0.001
    (contrast,) = judge(
        loaded(tmp_path, rows(2.3, heads=2), rows(2.4, heads=1)), tmp_path, claim
    ).contrasts
    assert contrast.resolution < 1e-8


# Where a file of claims is wrong.

LINES = """\
margin: 0.001
claims:
  - claim: one that is right
    factor: heads
    order: [2, 1]
  - claim: another
    where:
      rate: 0.1
    """


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("factor: heads\n    best: 2\n    bst: 1", "line 11: claims[1].bst: unknown; known:"),
        (
            "factor: heads\n    best: 2\n    despite: rate",
            "line 11: claims[1].despite: expected a list",
        ),
        ("factor: heads\n    best: 2\n    despite: [1]", "line 11: claims[1].despite: expected a"),
        ("factor: heads\n    best: 2\n    within: [rate]", "line 11: claims[1].within: is no more"),
        ("factor: heads\n    best: 2\n    margin: -1", "line 11: claims[1].margin: "),
        ("factor: heads\n    order:\n      - 2\n      - {}", "line 12: claims[1].order: "),
        ("factor: heads", "line 6: claims[1]: with a `factor`"),
        ("factor: heads\n    order: [1, 2]\n    levels: [1, 2]", "line 6: claims[1]: `levels` is"),
        ("factor: heads\n    best: 3\n    levels: [1, 2]", "line 6: claims[1]: the best level, 3,"),
        ("factor: heads\n    best: 1\n    levels: [1, 1]", "line 6: claims[1]: a level occurs"),
        ("factor: heads\n    best: 1\n    levels: [1, 1.0]", "line 9: claims[1].factor: a level"),
        ("factor: heads\n    best: 1\n    despite: [heads]", "line 6: claims[1]: 'heads' is comp"),
        ("factor: heads\n    best: 1\n    despite: [seed]", "line 6: claims[1]: trials are paired"),
        ("factor: heads\n    best: 1\n    despite: [a]", "line 11: claims[1].despite: no trial of"),
        ("factor: head\n    best: 1", "line 9: claims[1].factor: no trial of 'table' has a set"),
        ("factor: heads\n    best: 9", "line 10: claims[1].best: no trial of 'table' has heads=9"),
        (
            "factor: heads\n    trend: falling\n    levels: [1, 9]",
            "line 11: claims[1].levels: no trial of 'table' has heads=9; there are: 1, 2",
        ),
        (
            "better:\n      heads: 2\n    worse:\n      heads: 7",
            "line 12: claims[1].worse.heads: no trial of 'table' has heads=7; there are: 1, 2",
        ),
        (
            "better:\n      heads: 2\n    worse:\n      heads: 1",
            "line 9: claims[1].better: 1 configuration has no partner in `worse`",
        ),
        (
            "better:\n      heads: 2\n    worse:\n      heads: [1, 2]",
            "line 11: claims[1].worse: 5 trials are both better and worse",
        ),
        ("factor: word\n    trend: falling", "line 9: claims[1].factor: word is not a number"),
        ("factor: only\n    best: 1", "line 6: claims[1]: 'table' has nothing to compare"),
    ],
)
def test_an_error_says_the_line(text: str, place: str, tmp_path: Path) -> None:
    trials = loaded(
        tmp_path,
        rows(2.3, heads=2, rate=0.1, word="a", only=1, steps=1),
        rows(2.4, heads=1, rate=0.1, word="b", only=1, steps=2),
        rows(2.4, heads=2, rate=0.2, word="b", only=1, steps=1),
        rows(2.4, heads=1, rate=0.2, word="b", only=1, steps=1),
    )
    path = tmp_path / "claims.yaml"
    path.write_text(LINES + text + "\n")
    with pytest.raises(AnalysisError) as refused:
        check_claims(trials, path)
    assert str(refused.value).startswith(f"{path}: {place}")
    assert "\n" not in str(refused.value)


# Whatever the sweep.

FORMS = [
    {"better": {"kind": 1}, "worse": {"kind": 2}},
    {"factor": "kind", "order": [1, 2]},
    {"factor": "kind", "best": 1},
    {"factor": "kind", "monotone": "rising"},
    {"factor": "kind", "trend": "rising"},
    {"factor": "kind", "equal": [1, 2], "margin": 9.0},
]
SCOPES = ["in every cell", "on average", "not in every cell"]


def verdict(form: Mapping[str, Any], trials: Trials, **more: Any) -> tuple[str, list[Contrast]]:
    """A verdict, or "refused"; and what it rests on."""
    claim = read_claim({"claim": "x", **more, **form})
    try:
        contrasts = contrasts_of(claim, trials)
    except ClaimError:
        return "refused", []
    deciding = averages(contrasts) if claim.holds == "on average" else contrasts
    return decide(claim, deciding).verdict, contrasts


def made(table: Sequence[Row]) -> Trials:
    full = [
        {"run_id": f"r{at}", "status": "FINISHED", "stage": "", "stopped": "", **row}
        for at, row in enumerate(table)
    ]
    names = [name for name in table[0] if name != "val_loss"]
    return Trials("made", pd.DataFrame(full), tuple(names))


@some.composite
def sweeps(draw: some.DrawFn, effect: float) -> list[dict[str, Any]]:
    """Every combination of kinds, of up to two other settings, and of seeds."""
    kinds = range(1, draw(some.integers(2, 3)) + 1)
    cells = [
        {"width": width, "depth": depth}
        for width in range(draw(some.integers(1, 3)))
        for depth in range(draw(some.integers(1, 2)))
    ]
    chance = np.random.default_rng(draw(some.integers(0, 2**32)))
    seeds = range(draw(some.integers(5, 6)))  # so many that odd noise does not decide
    return [
        {"kind": kind, **cell, "seed": seed, "val_loss": effect * kind + chance.normal(0, 0.01)}
        for kind in kinds
        for cell in cells
        for seed in seeds
    ]


few = settings(database=None, deadline=None, derandomize=True, max_examples=20)
in_form = pytest.mark.parametrize("form", FORMS, ids=lambda form: " ".join(map(str, form)))


@in_form
@few
@given(data=some.data())
def test_another_setting_that_differs_is_never_passed_over(
    form: Mapping[str, Any], data: some.DataObject
) -> None:
    table = data.draw(sweeps(effect=1.0))
    scope = data.draw(some.sampled_from(SCOPES[:2]))
    control = [{**row, "other": 1} for row in table]
    assert verdict(form, made(control), holds=scope)[0] == "SUPPORTED"
    # One kind has another value, in some cells or in all; or both values, and the others one.
    which = data.draw(some.sampled_from([1, 2]))
    widths = data.draw(some.sets(some.sampled_from([row["width"] for row in table]), min_size=1))
    mine = [row for row in control if row["kind"] == which and row["width"] in widths]
    rest = [row for row in control if row not in mine]
    values = data.draw(some.sampled_from([[2], [1, 2], [2, 3]]))
    trials = made([*rest, *({**row, "other": value} for value in values for row in mine)])
    assert verdict(form, trials, holds=scope)[0] != "SUPPORTED"
    found, contrasts = verdict(form, trials, holds=scope, despite=["other"])
    assert found in ("SUPPORTED", "refused")
    if found == "SUPPORTED" and 1 not in values:
        assert any("other" in contrast.differs for contrast in contrasts)


@in_form
@pytest.mark.parametrize("taken_by", [["kind", "seed"], ["kind"], ["seed"]], ids=" ".join)
@few
@given(data=some.data())
def test_what_is_taken_away_never_makes_a_claim_supported(
    taken_by: Sequence[str], form: Mapping[str, Any], data: some.DataObject
) -> None:
    """A trial, a level or a seed of a cell, with which the claim does not hold."""
    table = data.draw(sweeps(effect=data.draw(some.sampled_from([1.0, 0.005]))))
    scope = data.draw(some.sampled_from(SCOPES))
    row = data.draw(some.sampled_from([row for row in table if row["kind"] <= 2]))
    names = ["width", "depth", *taken_by]
    taken = [each for each in table if all(each[name] == row[name] for name in names)]
    left = [each for each in table if each not in taken]
    shift = data.draw(some.sampled_from([99.0, 0.0]))
    for each in taken:
        each["val_loss"] += shift if each["kind"] == 1 else -shift
    # What nothing else in the table tells of is not missed: it might never have been planned.
    told = all(
        any(each[name] == row[name] and each["kind"] <= 2 for each in left)
        for name in ("kind", "seed")
    )
    if told and verdict(form, made(table), holds=scope, margin=0.01)[0] != "SUPPORTED":
        assert verdict(form, made(left), holds=scope, margin=0.01)[0] != "SUPPORTED"


def test_trials_without_a_common_seed_are_said_to_have_none(tmp_path: Path) -> None:
    trials = loaded(tmp_path, rows(2.3, range(3), heads=2), rows(2.4, range(5, 8), heads=1))
    found = judge(trials, tmp_path, "factor: heads, order: [2, 1]")
    text = " ".join(sentences(found))
    assert "No seed has finished on both sides" in text
    assert "did not finish" not in text
    assert "have both trials of a pair finished" not in text
