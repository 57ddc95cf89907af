"""What the trials say of claims."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from analysis.claims import Claim, ClaimError, ConfoundedError, load_claims
from analysis.confirmed import confirmation_note, judged
from analysis.contrasts import Contrast, contrasts_of, no_setting
from analysis.csv_files import csv_text
from analysis.errors import AnalysisError
from analysis.runs import Trials
from analysis.statistics import (
    Floats,
    Interval,
    bca_interval,
    equivalence,
    holm,
    page_trend,
    paired_ts,
    power,
    seeds_needed,
    sign_flip,
    t_interval,
    t_intervals,
)

ALPHA = 0.05
NEGATED = "not in every cell"
CONTRAST_COLUMNS = (
    *("claim_index", "claim", "verdict", "favoured", "cell", "what", "n", "mean", "low", "high"),
    *("p_holm", "p_equal", "lost", "run_ids"),
)
Verdict = Literal["SUPPORTED", "NOT SUPPORTED", "UNDERPOWERED"]


@dataclass(frozen=True)
class Decision:
    """A verdict and what it rests on."""

    verdict: Verdict
    supports: float  # p-value of the test whose rejection supports the claim
    refutes: float  # of the one whose rejection contradicts it
    weakest: int | None  # the contrast that decides, of those that were given


@dataclass(frozen=True)
class Conclusion:
    """What the trials say of a claim; differences in nats per character, negative in its favour."""

    claim: Claim
    decision: Decision
    contrasts: tuple[Contrast, ...]
    cells: int
    cells_hold: int  # in which every mean difference bears the claim out
    weakest: Contrast | None  # the one that decides: of the cells, or of averages over cells
    effect: Interval  # of the weakest, by Student's t
    bootstrap: Interval  # of the weakest, BCa
    sign_flip: float  # p-value of the weakest
    seeds: int  # pairs in the contrast that has fewest
    seeds_needed: int | None  # None: unknown, or no number would do
    holm: tuple[float, ...]  # adjusted p-values, for statements about single contrasts
    confounded: str = ""  # why nothing was compared

    @property
    def verdict(self) -> Verdict:
        return self.decision.verdict

    @property
    def lost(self) -> int:
        """Pairs of which a trial is missing: it failed, was stopped, still runs, or never ran."""
        return sum(contrast.lost for contrast in self.contrasts)

    @property
    def most_seeds(self) -> int:
        """Pairs in the contrast that has most."""
        return max((len(contrast.differences) for contrast in self.contrasts), default=0)

    @property
    def differs(self) -> dict[str, int]:
        """In how many differences the sides have another value of what the claim is not about."""
        return dict(Counter(name for contrast in self.contrasts for name in contrast.differs))

    @property
    def repeated(self) -> int:
        """Seeds that are left out, as they repeat the losses of another one."""
        return sum(contrast.repeated for contrast in self.contrasts)

    @property
    def equal_losses(self) -> int:
        """Differences of which a side has the same loss with several seeds."""
        return sum(contrast.has_equal_losses for contrast in self.contrasts)


def check_claims(trials: Trials, claims: Path | str | None = None) -> list[Conclusion]:
    """Hold claims against the trials; where there are studies, against their confirmed winners.

    Args:
        trials: from `load_trials`.
        claims: a YAML file (see `analysis.claims`); None takes the claims of the published study,
            those of them that the trials can speak of.

    Raises:
        AnalysisError: the file is wrong, or names what no trial has or what was tuned.
    """
    file = load_claims(None if claims is None else Path(claims))
    evidence = judged(trials)
    conclusions = []
    for index, claim in enumerate(file.claims):
        try:
            if not file.shipped:
                _check_despite(claim, trials)
            _check_tuned(claim, set(trials.params) - set(evidence.params))
            contrasts = contrasts_of(claim, evidence)
        except ClaimError as error:
            if not file.shipped:
                raise AnalysisError(f"{file.place(index, error.path)}: {error}") from None
            if isinstance(error, ConfoundedError):
                conclusions.append(replace(conclude(claim, []), confounded=str(error)))
            continue
        if contrasts:
            conclusions.append(conclude(claim, contrasts))
        elif not file.shipped:
            note = confirmation_note(trials)
            raise AnalysisError(
                f"{file.place(index)}: {trials.experiment!r} has nothing to compare: no two of"
                f" its configurations are as the claim says{f'. {note}' if note else ''}"
            )
    return conclusions


def _check_despite(claim: Claim, trials: Trials) -> None:
    for name in claim.despite:
        if name not in trials.params:
            raise ClaimError(no_setting(name, trials), "despite")


def _check_tuned(claim: Claim, tuned: set[str]) -> None:
    for name in sorted(claim.names.keys() & tuned):
        raise ClaimError(
            f"{name} was tuned in each study, so its values are not compared; what a claim is"
            " about belongs into the grid of the arm",
            *claim.names[name],
        )


def conclude(claim: Claim, contrasts: Sequence[Contrast]) -> Conclusion:
    """Describe what the contrasts of a claim say, and decide."""
    by_cell = defaultdict(list)
    for contrast in contrasts:
        by_cell[contrast.cell].append(_badness(claim, contrast) < 0)
    alone = _against(claim, contrasts, True) if claim.holds == NEGATED else _for(claim, contrasts)
    deciding = averages(contrasts) if claim.holds == "on average" else contrasts
    decision = decide(claim, deciding)
    weakest = None if decision.weakest is None else deciding[decision.weakest]
    sample = weakest.differences if weakest else np.empty(0)
    return Conclusion(
        claim=claim,
        decision=decision,
        contrasts=tuple(contrasts),
        cells=len(by_cell),
        cells_hold=sum(map(all, by_cell.values())),
        weakest=weakest,
        effect=t_interval(sample),
        bootstrap=bca_interval(sample),
        sign_flip=sign_flip(sample, "greater" if claim.holds == NEGATED else "less"),
        seeds=min((len(contrast.differences) for contrast in contrasts), default=0),
        seeds_needed=needed(claim, deciding),
        holm=tuple(holm(alone)),
    )


def decide(claim: Claim, contrasts: Sequence[Contrast]) -> Decision:
    """The verdict on contrasts that all have to bear a claim out (or not, if it says so).

    All of them is an intersection-union test: the largest p-value decides, without correction. That
    one of several contradicts is corrected by Holm. In a claim that holds in every cell or on
    average, a difference that is better by less than the margin contradicts, and is no support
    either; for one that does not hold in every cell only a difference of the other sign counts.
    """
    if not contrasts:
        return Decision("UNDERPOWERED", 1.0, 1.0, None)
    strict = claim.holds == NEGATED
    favour, against = _for(claim, contrasts), _against(claim, contrasts, strict)
    all_hold = float(favour.max())
    one_fails = float(min(1, len(contrasts) * against.min()))  # Holm's first step
    supports, refutes = (one_fails, all_hold) if strict else (all_hold, one_fails)
    verdict: Verdict = "UNDERPOWERED"
    if refutes < ALPHA:
        verdict = "NOT SUPPORTED"
    elif supports < ALPHA:
        verdict = "SUPPORTED"
    # The one with the least evidence for all, or the most against; if tests cannot tell, by means.
    evidence = -against if strict else favour
    measured = [i for i, contrast in enumerate(contrasts) if len(contrast.differences)]
    keys = {i: (evidence[i], _badness(claim, contrasts[i])) for i in measured}
    return Decision(verdict, supports, refutes, max(measured, key=keys.__getitem__, default=None))


def averages(contrasts: Sequence[Contrast]) -> list[Contrast]:
    """The mean over cells of each kind of contrast, by the seeds that all its cells have."""
    by_kind = defaultdict(list)
    for contrast in contrasts:
        by_kind[contrast.what].append(contrast)
    found = []
    for what, kind in by_kind.items():
        seeds = sorted(set.intersection(*(set(each.seeds) for each in kind)))
        rows = [[each.seeds.index(seed) for seed in seeds] for each in kind]
        weights, losses = (
            kind[0].weights,
            [each.losses[row] for each, row in zip(kind, rows, strict=True)],
        )
        if len({len(each.weights) for each in kind}) > 1:  # lines through few and many levels
            pairs = zip(kind, losses, strict=True)
            weights, losses = np.ones(1), [(some @ each.weights)[:, None] for each, some in pairs]
        found.append(
            replace(
                kind[0],
                cell=f"the mean over {len(kind)} cells",
                what=what,
                seeds=tuple(seeds),
                losses=np.mean(losses, axis=0),
                weights=weights,
                lost=sum(each.lost for each in kind),
                run_ids=tuple(run_id for each in kind for run_id in each.run_ids),
            )
        )
    return found


def favoured(claim: Claim) -> str:
    """Which differences bear a claim out."""
    if claim.equal is not None:
        return "small"
    return "positive" if claim.holds == NEGATED else "negative"


def needed(claim: Claim, contrasts: Sequence[Contrast]) -> int | None:
    """How many seeds would show the claim with a power of 0.8, were all as seen.

    A trend is forecast by the line fitted to its levels.

    Returns:
        None where a contrast has fewer than two pairs, or no number up to 1,000 would do.
    """
    return seeds_needed(*_planned(claim, contrasts)) if contrasts else None


def forecast(claim: Claim, contrasts: Sequence[Contrast], seeds: int) -> float:
    """The chance that the claim is SUPPORTED with so many seeds, were all as seen."""
    samples, alpha, any_of = _planned(claim, contrasts)
    return power(samples, seeds, alpha, any_of)


def _planned(claim: Claim, contrasts: Sequence[Contrast]) -> tuple[list[Floats], float, bool]:
    """Samples whose means should be below zero, the level, and whether one of them is enough."""
    samples = [contrast.differences for contrast in contrasts]
    margin, negated = claim.margin, claim.holds == NEGATED
    if claim.equal is not None and negated:
        samples = [margin - np.sign(x.mean()) * x if len(x) else x for x in samples]
    elif claim.equal is not None:
        samples = [side for x in samples for side in (x - margin, -x - margin)]
    elif negated:
        samples = [-x for x in samples]
    return samples, ALPHA, negated


def conclusions_table(conclusions: Sequence[Conclusion]) -> pd.DataFrame:
    """A row a claim.

    Returns:
        Columns ``claim``, ``holds`` (where it should hold), ``verdict``, ``cells_hold``, ``cells``,
        ``weakest_cell``, ``what`` (which difference there), ``effect``, ``low`` and ``high``
        (its mean and 95 % paired-t interval, nats per character), ``bca_low`` and ``bca_high`` (by
        bootstrap), ``p_supports``, ``p_refutes``, ``p_sign_flip`` (of the weakest cell), ``seeds``
        (the fewest pairs of a cell), ``seeds_needed`` (missing where it is unknown), ``lost``
        (pairs of which a trial did not finish).
    """
    rows = [
        {
            "claim": each.claim.claim,
            "holds": each.claim.holds,
            "verdict": each.verdict,
            "cells_hold": each.cells_hold,
            "cells": each.cells,
            "weakest_cell": each.weakest.cell if each.weakest else "",
            "what": each.weakest.what if each.weakest else "",
            "effect": each.effect.mean,
            "low": each.effect.low,
            "high": each.effect.high,
            "bca_low": each.bootstrap.low,
            "bca_high": each.bootstrap.high,
            "p_supports": each.decision.supports,
            "p_refutes": each.decision.refutes,
            "p_sign_flip": each.sign_flip,
            "seeds": each.seeds,
            "seeds_needed": each.seeds_needed,
            "lost": each.lost,
        }
        for each in conclusions
    ]
    table = pd.DataFrame(rows)
    return table.astype({"seeds_needed": "Int64"}) if rows else table


def contrasts_table(conclusions: Sequence[Conclusion]) -> pd.DataFrame:
    """A row a contrast.

    Returns:
        Columns ``claim_index`` (from 1), ``claim``, ``verdict``, ``favoured`` (which differences
        bear the claim out: "negative", "positive" or "small"), ``cell``, ``what``, ``n`` (pairs),
        ``mean``, ``low`` and ``high`` (95 % paired-t interval, nats per character), ``p_holm``
        (that this one alone bears the claim out, corrected for all of the claim), ``p_equal`` (two
        one-sided tests that it is less than the margin), ``lost``, ``run_ids``.
    """
    rows = []
    for index, each in enumerate(conclusions, start=1):
        about = (index, each.claim.claim, each.verdict, favoured(each.claim))
        samples = [contrast.differences for contrast in each.contrasts]
        equal = equivalence(samples, each.claim.margin)
        tests = zip(each.contrasts, t_intervals(samples), each.holm, equal, strict=True)
        for contrast, found, p_holm, p_equal in tests:
            measured = (found.n, found.mean, found.low, found.high, p_holm, p_equal)
            runs = " ".join(contrast.run_ids)
            rows.append((*about, contrast.cell, contrast.what, *measured, contrast.lost, runs))
    return pd.DataFrame(rows, columns=list(CONTRAST_COLUMNS))


def write_conclusions(conclusions: Sequence[Conclusion], folder: Path) -> list[Path]:
    """Write ``conclusions.csv`` and ``contrasts.csv``, with all digits.

    Returns:
        The files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / "conclusions.csv", folder / "contrasts.csv"]
    for path, table in zip(paths, (conclusions_table, contrasts_table), strict=True):
        path.write_bytes(csv_text(table(conclusions)).encode())
    return paths


def _badness(claim: Claim, contrast: Contrast) -> float:
    """How far the mean difference is from bearing the claim out; negative where it does."""
    if claim.equal is not None:
        return abs(contrast.mean) - claim.margin
    return contrast.mean


def _for(claim: Claim, contrasts: Sequence[Contrast]) -> Floats:
    """The p-values of the tests whose rejection says that a contrast bears the claim out.

    A contrast that lost a pair decides nothing, here and below: what fails does not fail by chance.
    """
    samples = [contrast.differences for contrast in contrasts]
    if claim.equal is not None:
        p_values = equivalence(samples, claim.margin)
    else:
        p_values = paired_ts(samples, "less")
    for i, contrast in enumerate(contrasts):
        if contrast.levels is not None:
            p_values[i] = max(p_values[i], page_trend(contrast.levels))
    return np.where([contrast.lost > 0 for contrast in contrasts], 1.0, p_values)


def _against(claim: Claim, contrasts: Sequence[Contrast], strict: bool) -> Floats:
    """The p-values of the tests whose rejection says that a contrast contradicts the claim."""
    samples = [contrast.differences for contrast in contrasts]
    if claim.equal is not None:
        above = paired_ts([x - claim.margin for x in samples], "greater")
        below = paired_ts([x + claim.margin for x in samples], "less")
        p_values = np.minimum(1.0, 2 * np.minimum(above, below))
    else:
        p_values = paired_ts([x + (0.0 if strict else claim.margin) for x in samples], "greater")
    return np.where([contrast.lost > 0 for contrast in contrasts], 1.0, p_values)
