"""Looks that keep what they found before give the verdicts of a look at all trials anew."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from analysis.claims.claim import Claim
from analysis.claims.claim_file import load_claims
from analysis.claims.conclusions import Conclusion, conclude
from analysis.claims.contrast import Contrast
from analysis.claims.judging import Judge
from analysis.claims.procedures import Procedure
from sweeps.deciding.claims import SweepClaims
from sweeps.deciding.evidence import Evidence
from tests.sweeps.deciding import CLAIMS, SWEEP, DecidedSweep, normal
from tests.sweeps.searches import plan
from trainables.config import TrialConfig

ATTENTION = {"where": {"variant": "attention"}, "factor": "pe_type"}
FORMS: list[dict[str, object]] = [
    *CLAIMS,
    {**ATTENTION, "claim": "one is best", "best": "any"},
    {**ATTENTION, "claim": "they differ little", "equal": ["rope", "sinpe"], "margin": 0.03},
    {**ATTENTION, "claim": "on average", "order": ["rope", "sinpe"], "holds": "on average"},
]
ROPE = CLAIMS[1]
OF_SEEDS = {
    "claim": "of three seeds",
    "where": {"variant": "attention", "seed": [1337, 1338, 1339]},
    "factor": "pe_type",
    "order": ["rope", "sinpe"],
}


def evidence_of(found: Sequence[Conclusion]) -> list[tuple[object, ...]]:
    return [
        (
            *(each.verdict, each.decision.supports, each.decision.refutes, each.lost),
            [(c.cell, c.what, c.seeds, c.run_ids, c.resolution, c.lost) for c in each.contrasts],
        )
        for each in found
    ]


@pytest.mark.parametrize(("claims", "corrected"), [(FORMS, True), ([ROPE, OF_SEEDS], False)])
def test_every_look_is_as_if_it_were_the_first(
    claims: Sequence[Mapping[str, object]], corrected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = load_claims({"claims": list(claims), "corrected": corrected})
    kept = SweepClaims(file, 0.05, "")
    judge_kept = kept.judge
    looks: list[list[tuple[object, ...]]] = []

    def judge(evidence: Evidence) -> list[Conclusion]:
        found = judge_kept(evidence)
        looks.append(evidence_of(found))
        if not len(looks) % 4:  # it takes its time
            anew = Judge(evidence.trials(), file, anytime=True, error=0.05).conclusions()
            assert looks[-1] == evidence_of(anew)
        return found

    monkeypatch.setattr("tests.sweeps.deciding.claims_of", lambda _: kept)
    monkeypatch.setattr(kept, "judge", judge)

    def fails(trial: TrialConfig) -> bool:
        return trial.flat.get("pe_type") == "randn" and trial.seed == 1341

    def losses(trial: TrialConfig) -> float:
        return math.nan if trial.seed == 1342 else round(normal()(trial), 4)

    sweep = DecidedSweep(
        losses, plan(SWEEP, "decide.max_seeds=6"), claims=claims, workers=3, fails=fails
    )
    sweep.run(dies_after=40)
    sweep.run()
    assert len(looks) > 3
    assert len({str(look) for look in looks}) > 3


def test_what_is_compared_is_found_once_and_only_changed_claims_are_tested(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[Judge] = []
    tested: list[str] = []

    def make(*given: Any, **named: Any) -> Judge:
        made.append(Judge(*given, **named))
        return made[-1]

    def test(claim: Claim, contrasts: Sequence[Contrast], procedure: Procedure) -> Conclusion:
        tested.append(claim.claim)
        return conclude(claim, contrasts, procedure)

    monkeypatch.setattr("sweeps.deciding.claims.Judge", make)
    monkeypatch.setattr("analysis.claims.judging.conclude", test)
    sizes = [
        {**ROPE, "claim": str(size), "where": {"variant": "attention", "block_size": size}}
        for size in (4, 8)
    ]
    kept = SweepClaims(load_claims({"claims": sizes}), 0.05, "")
    monkeypatch.setattr("tests.sweeps.deciding.claims_of", lambda _: kept)
    sweep = DecidedSweep(normal())
    sweep.run()
    assert len(made) == 1
    assert len(tested) < 2 * len(sweep.looks)
    assert {*tested} == {"4", "8"}
