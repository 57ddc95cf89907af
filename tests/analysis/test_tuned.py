"""Claims about a tuned sweep, held against confirmed winners made by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from analysis import AnalysisError, check_claims
from analysis.claims.claim_file import read_claim
from analysis.claims.contrasts import contrasts_of
from analysis.reports.search_texts import basis
from analysis.trials.confirmed import confirmation_note, judged, unconfirmed
from analysis.trials.table import Trials
from tests.analysis.tuned import confirmed, run, suggested, sweep

ROPE = [2.30, 2.31, 2.29]
SINPE = [2.40, 2.42, 2.39]
RATES = {"rope": 0.02, "sinpe": 0.005}  # each study found another one


def cell(pe_type: str, n_embd: int = 64, **tuned: Any) -> dict[str, Any]:
    tuned = {"learning_rate": RATES[pe_type], "schedule": "constant", "warmup_steps": 0, **tuned}
    return {"variant": "attention", "pe_type": pe_type, "n_embd": n_embd, **tuned}


def study(pe_type: str, n_embd: int = 64) -> str:
    return f"attention pe_type={pe_type} n_embd={n_embd}"


def searched(pe_type: str, n_embd: int = 64) -> list[Any]:
    """Two suggestions, of which the search liked the first one."""
    label = study(pe_type, n_embd)
    return [
        suggested(label, 0, cell(pe_type, n_embd), 1.9),
        suggested(label, 1, cell(pe_type, n_embd, schedule="cosine", warmup_steps=7), 2.6),
    ]


def whole(sinpe: list[float | None] | None = None) -> list[Any]:
    """Two widths, in which rope is better by 0.10, 0.11 and 0.10, and by nothing more."""
    runs = []
    for width in (64, 128):
        runs += [*searched("rope", width), *searched("sinpe", width)]
        runs += confirmed(study("rope", width), cell("rope", width), ROPE)
        runs += confirmed(study("sinpe", width), cell("sinpe", width), sinpe or SINPE)
    return runs


ORDER = read_claim({"claim": "x", "factor": "pe_type", "order": ["rope", "sinpe"]})


def claims_file(folder: Path, text: str) -> Path:
    path = folder / "claims.yaml"
    path.write_text(f"claims: [{{claim: x, {text}}}]")
    return path


def concluded(
    trials: Trials, folder: Path, text: str = "factor: pe_type, order: [rope, sinpe]"
) -> Any:
    (found,) = check_claims(trials, claims_file(folder, text))
    return found


def test_a_claim_is_judged_on_the_confirmed_winners_of_each_cell(tmp_path: Path) -> None:
    found = concluded(sweep(whole()), tmp_path)
    assert [(c.cell, c.what, c.seeds) for c in found.contrasts] == [
        ("n_embd=64", "rope - sinpe", (2, 3, 4)),
        ("n_embd=128", "rope - sinpe", (2, 3, 4)),
    ]
    assert found.contrasts[0].differences == pytest.approx([-0.10, -0.11, -0.10])
    assert (found.verdict, found.lost) == ("SUPPORTED", 0)
    assert all("stage=confirm" in run_id for run_id in found.contrasts[0].run_ids)


def test_with_what_was_tuned_in_the_cells_nothing_could_be_compared() -> None:
    trials = sweep(whole())
    winners = trials.table[trials.table["stage"] == "confirm"].assign(stage="")
    as_if_plain = Trials("tuned", winners, trials.params)
    with pytest.raises(
        AnalysisError, match=r"the nearest differs in learning_rate \(0.02, 0.005\)"
    ):
        contrasts_of(ORDER, as_if_plain)
    assert [c.lost for c in contrasts_of(ORDER, judged(trials))] == [0, 0]


def test_other_choices_of_the_search_are_reported_and_not_used(tmp_path: Path) -> None:
    second = cell("sinpe", schedule="cosine", warmup_steps=7)
    runs = [*whole(), *confirmed(study("sinpe"), second, [1.0, 1.0, 1.0], rank=2)]
    trials = sweep(runs)
    found = concluded(trials, tmp_path)
    assert (found.verdict, found.lost) == ("SUPPORTED", 0)
    why = trials.other_than(judged(trials).comparable)["why"]
    assert list(why).count("confirmed, but not the search's first choice") == 3
    assert list(why).count("suggested by a search") == 8


def test_a_winner_that_failed_on_a_fresh_seed_is_a_lost_pair(tmp_path: Path) -> None:
    found = concluded(sweep(whole([2.40, None, 2.39])), tmp_path)
    assert (found.verdict, found.lost) == ("UNDERPOWERED", 2)


def test_a_study_without_a_confirmed_winner_is_missed_and_named(tmp_path: Path) -> None:
    late = f"study={study('sinpe', 128)}"
    trials = sweep(
        [r for r in whole() if not ("confirm" in r.info.run_id and late in r.info.run_id)]
    )
    assert unconfirmed(trials) == ["attention pe_type=sinpe n_embd=128"]
    found = concluded(trials, tmp_path)
    assert (found.verdict, found.cells, found.cells_hold, found.lost) == ("UNDERPOWERED", 2, 1, 3)
    assert "1 of 4 studies have no confirmed winner" in confirmation_note(trials)
    assert "run the sweep again" in confirmation_note(trials)


def test_a_search_that_is_not_confirmed_concludes_nothing(tmp_path: Path) -> None:
    runs = [*searched("rope"), *searched("sinpe")]
    trials = sweep(runs, confirm_seeds=[])
    assert "set `search.confirm`" in confirmation_note(trials)
    found = concluded(trials, tmp_path)
    assert (found.verdict, found.seeds) == ("UNDERPOWERED", 0)
    with pytest.raises(AnalysisError, match=r"nothing to compare.*set `search.confirm`"):
        concluded(trials, tmp_path, "factor: pe_type, best: rope, where: {pe_type: rope}")


@pytest.mark.parametrize("name", ["learning_rate", "warmup_steps"])
def test_a_claim_about_what_was_tuned_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(AnalysisError, match=f"{name} was tuned in each study"):
        concluded(sweep(whole()), tmp_path, f"factor: {name}, monotone: falling")


def test_plain_trials_are_compared_on_the_fresh_seeds_and_stand_back_in_a_cell(
    tmp_path: Path,
) -> None:
    fixed = {"learning_rate": 0.01, "schedule": "constant", "warmup_steps": 0, "max_steps": 1000}
    bigram = [run({"variant": "bigram", **fixed, "seed": seed}, 2.5) for seed in (1, 2, 3, 4)]
    by_hand = {**cell("rope"), **fixed}
    untuned = [run({**by_hand, "seed": seed}, 9.0) for seed in (2, 3, 4)]
    trials = sweep([*whole(), *bigram, *untuned])
    text = "better: {variant: attention}, worse: {variant: bigram}"
    with pytest.raises(AnalysisError, match=r"learning_rate \(tuned, 0.01\)"):
        concluded(trials, tmp_path, text)
    text += ", despite: [learning_rate, schedule, warmup_steps]"
    found = concluded(trials, tmp_path, text)
    assert (found.verdict, found.cells, found.lost) == ("SUPPORTED", 4, 0)
    assert found.differs == dict.fromkeys(["learning_rate", "schedule", "warmup_steps"], 4)
    first = next(c for c in found.contrasts if c.cell == "pe_type=rope n_embd=64")
    assert first.differences == pytest.approx([2.30 - 2.5, 2.31 - 2.5, 2.29 - 2.5])
    assert len(trials.other_than(judged(trials).comparable)) == 8 + 1 + 3


def test_plain_trials_of_other_seeds_make_no_pairs_and_it_is_said(tmp_path: Path) -> None:
    bigram = [run({"variant": "bigram", "seed": seed}, 2.5) for seed in (1, 9)]
    trials = sweep([*whole(), *bigram])
    found = concluded(trials, tmp_path, "better: {variant: attention}, worse: {variant: bigram}")
    assert (found.verdict, found.seeds) == ("UNDERPOWERED", 0)
    assert "The plain trials have none of the fresh seeds" in basis(trials)
    assert "plain trials" not in basis(sweep(whole()))


def test_without_studies_the_trials_are_judged_as_they_are() -> None:
    plain = sweep([run({"n_embd": 8, "seed": 1}, 2.0)])
    assert judged(plain) is plain
    assert confirmation_note(plain) == ""


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"spaces": [{"learning_rate": {"low": 1}}]}, "KeyError: 'high'"),
        (
            {"spaces": [{"learning_rate": {"low": 0, "high": 1, "log": True}}]},
            "no logarithmic range",
        ),
        ({"seeds": None}, "TypeError"),
        ({"arms": [5]}, "IndexError"),
    ],
)
def test_a_description_of_another_form_is_refused(about: Any, message: str) -> None:
    with pytest.raises(AnalysisError, match=message):
        judged(sweep(whole(), **about))
