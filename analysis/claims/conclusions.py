"""What the trials say of claims."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import inf, nan
from pathlib import Path
from statistics import fmean

import pandas as pd

from analysis.claims.claim import Claim, ClaimData, ClaimError, ConfoundedError, load_claims
from analysis.claims.contrasts import Contrast, contrasts_of, no_setting
from analysis.claims.decisions import (
    ALPHA,
    NEGATED,
    Decision,
    Noise,
    Verdict,
    averages,
    badness,
    decide,
    floor,
    p_against,
    p_equal,
    p_for,
    tests_against,
    tests_for,
)
from analysis.claims.forecast import Needed, seeds_needed
from analysis.errors import AnalysisError
from analysis.statistics import Interval, bca_interval, holm, sign_flip, t_intervals
from analysis.text.csv_files import csv_text
from analysis.trials.confirmed import confirmation_note, judged
from analysis.trials.table import Trials, of_trials

CONFIDENCE = 1 - 2 * ALPHA  # of intervals, whose ends are those of the one-sided tests
CONTRAST_COLUMNS = (
    *("claim_index", "claim", "verdict", "favoured", "cell", "what", "n", "mean", "low", "high"),
    *("confidence", "p_holm", "p_equal", "lost", "run_ids"),
)
NOTHING = Interval(nan, nan, nan, 0)


@dataclass(frozen=True)
class Conclusion:
    """What the trials say of a claim; differences in nats per character, negative in its favour.

    All but the verdict is worked out when it is first asked for.
    """

    claim: Claim
    decision: Decision
    contrasts: tuple[Contrast, ...]
    basis: tuple[Contrast, ...]  # those that decide: of the cells, or of averages over cells
    confounded: str = ""  # why nothing was compared
    ranked: tuple[Conclusion, ...] = ()  # of each level, where it asks which is best: lowest first

    @property
    def verdict(self) -> Verdict:
        return self.decision.verdict

    @property
    def statement(self) -> str:
        """The claim; where it asks which level is best, with the answer."""
        if not self.ranked:
            return self.claim.claim
        level = f"{self.claim.factor}={self.contrasts[0].candidate}"
        answer = level if self.verdict == "SUPPORTED" else f"none is shown, lowest is {level}"
        return f"{self.claim.claim} ({answer})"

    @property
    def confidence(self) -> float:
        """Confidence of the intervals whose ends agree with the tests that decide."""
        return 1 - (1 - CONFIDENCE) / self.decision.among

    @property
    def deciding(self) -> int:
        """Number of contrasts in `basis`."""
        return len(self.basis)

    @property
    def weakest(self) -> Contrast | None:
        """The contrast of `basis` that decides the verdict; None where no pair is finished."""
        index = self.decision.weakest
        return None if index is None else self.basis[index]

    @property
    def cells(self) -> int:
        return len(self._by_cell)

    @property
    def cells_hold(self) -> int:
        """Number of cells in which every mean difference agrees with the claim."""
        return sum(all(badness(self.claim, one) < 0 for one in cell) for cell in self._by_cell)

    @property
    def _by_cell(self) -> list[list[Contrast]]:
        cells = defaultdict(list)
        for contrast in self.contrasts:
            cells[contrast.cell].append(contrast)
        return list(cells.values())

    @property
    def effect(self) -> Interval:
        """Mean difference of the weakest contrast, and its t interval at `confidence`."""
        return next(iter(intervals(self._weakest, of=self.decision.among)), NOTHING)

    @property
    def simultaneous(self) -> Interval:
        """The interval of `effect`, so wide that those of all of `basis` hold at once with 90 %."""
        together = self.deciding * self.decision.among
        return next(iter(intervals(self._weakest, of=together)), NOTHING)

    @cached_property
    def bootstrap(self) -> Interval:
        """The BCa bootstrap interval of the weakest, with 95 %; NaN with fewer than ten pairs."""
        return next((bca_interval(one.differences) for one in self._weakest), NOTHING)

    @cached_property
    def sign_flip(self) -> float:
        """The p-value of the sign-flip test of the weakest contrast."""
        found = max((_signs(self.claim, one) for one in self._weakest), default=1.0)
        return min(1.0, self.decision.among * found)

    @property
    def _weakest(self) -> list[Contrast]:
        return [self.weakest] if self.weakest else []

    @property
    def seeds(self) -> int:
        """Pairs in the contrast that has fewest."""
        return min((len(contrast.seeds) for contrast in self.contrasts), default=0)

    @property
    def most_seeds(self) -> int:
        """Pairs in the contrast that has most."""
        return max((len(contrast.seeds) for contrast in self.contrasts), default=0)

    @cached_property
    def needed(self) -> Needed:
        """How many seeds each configuration would need for a verdict."""
        found = seeds_needed(self.claim, self.basis, self.decision)
        if not self.ranked:
            return found
        each = [one.needed.to_refute for one in self.ranked]  # none is best when all are refuted
        return Needed(found.to_show, None if None in each else max(filter(None, each)))

    @cached_property
    def holm(self) -> tuple[float, ...]:
        """The p-value of each contrast, adjusted by Holm for the number of contrasts."""
        alone = p_against if self.claim.holds == NEGATED else p_for
        found = holm(alone(self.claim, self.contrasts, Noise.of(self.contrasts)))
        return tuple(min(1.0, self.decision.among * p) for p in found)

    @property
    def lost(self) -> int:
        """Pairs of which a trial is missing: it failed, was stopped, still runs, or never ran."""
        return sum(contrast.lost for contrast in self.contrasts)

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


@of_trials
def check_claims(trials: Trials, claims: Path | str | ClaimData | None = None) -> list[Conclusion]:
    """Hold claims against the trials; where there are studies, against their confirmed winners.

    Args:
        trials: from `load_trials`.
        claims: a YAML file (see `analysis.claims.claim`), or a claim or a list of them, each a
            dictionary as in the file; None takes those claims of the published study that the
            trials can speak of.

    Raises:
        AnalysisError: a claim is wrong, or names what no trial has or what was tuned.
    """
    file = load_claims(claims)
    evidence = judged(trials)
    conclusions = []
    for index, claim in enumerate(file.claims):
        try:
            if not file.shipped:
                _check_despite(claim, trials)
            _check_tuned(claim, set(trials.params) - set(evidence.params))
            contrasts = contrasts_of(claim, evidence)
            _check_digits(claim, contrasts)
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


def _check_digits(claim: Claim, contrasts: Sequence[Contrast]) -> None:
    """Refuse an `equal` claim whose margin is no larger than the rounding of the losses.

    Raises:
        ClaimError: the losses are not known as finely as the claim's margin.
    """
    coarsest = max(contrasts, key=lambda contrast: contrast.rounding, default=None)
    if claim.equal is not None and coarsest and coarsest.rounding >= claim.margin:
        raise ClaimError(
            f"the losses are rounded to {coarsest.resolution:g}, so nothing can be said of equality"
            f" within {claim.margin:g}; give them with more digits, or a larger margin",
            "equal",
        )


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
    """Decide what the contrasts of a claim say."""
    if claim.asks_best and contrasts:
        return _which_is_best(claim, contrasts)
    return _concluded(claim, contrasts, among=1)


def _concluded(claim: Claim, contrasts: Sequence[Contrast], among: int) -> Conclusion:
    basis = averages(contrasts) if claim.holds == "on average" else contrasts
    return Conclusion(claim, decide(claim, basis, among), tuple(contrasts), tuple(basis))


def _which_is_best(claim: Claim, contrasts: Sequence[Contrast]) -> Conclusion:
    """Hold each level against all others, and take the one that is best.

    SUPPORTED if a level passes all its tests at 5 % / number of levels: it is chosen by the losses
    that test it. NOT SUPPORTED if each level by itself is: so none is best.
    """
    by_level = defaultdict(list)
    for contrast in contrasts:
        by_level[contrast.candidate].append(contrast)
    found = [_concluded(claim, each, among=len(by_level)) for each in by_level.values()]
    found.sort(key=_mean_difference)
    supported = [each for each in found if each.verdict == "SUPPORTED"]
    best = (supported or found)[0]
    refutes = max(each.decision.refutes for each in found)
    verdict: Verdict = "UNDERPOWERED"
    if all(each.verdict == "NOT SUPPORTED" for each in found):
        verdict = "NOT SUPPORTED"
    elif supported:
        verdict = "SUPPORTED"
    decision = replace(best.decision, verdict=verdict, refutes=refutes)
    ranked = (best, *(each for each in found if each is not best))
    return replace(best, decision=decision, ranked=ranked)


def _mean_difference(each: Conclusion) -> tuple[int, float]:
    """Sort key of a level: missing comparisons first, then its mean difference to the others."""
    means = [contrast.mean for contrast in each.basis if len(contrast.seeds)]
    return len(each.basis) - len(means), fmean(means or [inf])


def intervals(contrasts: Sequence[Contrast], of: int = 1) -> list[Interval]:
    """Where mean differences may lie, by Student's t, with 90 %: each end is a one-sided 5 % test.

    Args:
        contrasts: of which.
        of: of how many contrasts all such intervals together hold the means with 90 % (Bonferroni).
    """
    if not contrasts:
        return []
    return t_intervals(
        [contrast.differences for contrast in contrasts],
        1 - (1 - CONFIDENCE) / of,
        [contrast.rounding for contrast in contrasts],
        [floor(contrast) for contrast in contrasts],
    )


def _signs(claim: Claim, contrast: Contrast) -> float:
    """The p-value of the sign-flip tests that correspond to the t-tests that decide."""
    if claim.holds == NEGATED:
        against = tests_against(claim, contrast)
        found = [sign_flip(test.sample(contrast.differences)) for test in against]
        return min(1.0, len(found) * min(found))
    return max(sign_flip(test.sample(contrast.differences)) for test in tests_for(claim, contrast))


def favoured(claim: Claim) -> str:
    """Which differences bear a claim out."""
    if claim.equal is not None:
        return "small"
    return "positive" if claim.holds == NEGATED else "negative"


def conclusions_table(conclusions: Sequence[Conclusion]) -> pd.DataFrame:
    """A row a claim.

    Returns:
        Columns ``claim`` (and which level is best, where it asks that), ``holds`` (where it should
        hold), ``verdict``, ``cells_hold``, ``cells``, ``weakest_cell``, ``what`` (which difference
        there), ``effect``, ``low`` and ``high`` (its mean and paired-t interval, nats per
        character, whose ends are those of the one-sided tests: 90 %, more for ``best: any``),
        ``simultaneous_low`` and ``simultaneous_high`` (the same, where the intervals of all
        ``deciding`` differences hold together), ``bca_low`` and ``bca_high`` (95 %, by bootstrap;
        missing with fewer than ten pairs), ``p_supports``, ``p_refutes``, ``p_sign_flip`` (of the
        weakest cell), ``p_normal`` (that the differences are normal, by Shapiro and Wilk),
        ``seeds`` (the fewest pairs of a cell), ``seeds_needed`` and ``seeds_to_refute`` (missing
        where it is unknown, or no number would do), ``lost`` (pairs of which a trial did not
        finish).
    """
    rows = [
        {
            "claim": each.statement,
            "holds": each.claim.holds,
            "verdict": each.verdict,
            "cells_hold": each.cells_hold,
            "cells": each.cells,
            "weakest_cell": each.weakest.cell if each.weakest else "",
            "what": each.weakest.what if each.weakest else "",
            "effect": each.effect.mean,
            "low": each.effect.low,
            "high": each.effect.high,
            "simultaneous_low": each.simultaneous.low,
            "simultaneous_high": each.simultaneous.high,
            "deciding": each.deciding,
            "bca_low": each.bootstrap.low,
            "bca_high": each.bootstrap.high,
            "p_supports": each.decision.supports,
            "p_refutes": each.decision.refutes,
            "p_sign_flip": each.sign_flip,
            "p_normal": each.decision.noise.p_normal,
            "seeds": each.seeds,
            "seeds_needed": each.needed.to_show,
            "seeds_to_refute": each.needed.to_refute,
            "lost": each.lost,
        }
        for each in conclusions
    ]
    table = pd.DataFrame(rows)
    return table.astype({"seeds_needed": "Int64", "seeds_to_refute": "Int64"}) if rows else table


def contrasts_table(conclusions: Sequence[Conclusion]) -> pd.DataFrame:
    """A row a contrast.

    Returns:
        Columns ``claim_index`` (from 1), ``claim``, ``verdict``, ``favoured`` (which differences
        support the claim: "negative", "positive" or "small"), ``cell``, ``what``, ``n`` (pairs),
        ``mean``, ``low`` and ``high`` (paired-t interval by itself, nats per character), the
        ``confidence`` of that (0.9, more for ``best: any``), ``p_holm`` (that this one alone
        supports the claim, corrected for all of the claim), ``p_equal`` (two one-sided tests that
        it is less than the margin), ``lost``, ``run_ids``.
    """
    rows = []
    for index, each in enumerate(conclusions, start=1):
        about = (index, each.statement, each.verdict, favoured(each.claim))
        found = intervals(each.contrasts, of=each.decision.among)
        equal = p_equal(each.claim, each.contrasts)
        for contrast, one, p_one, p_same in zip(
            each.contrasts, found, each.holm, equal, strict=True
        ):
            measured = (one.n, one.mean, one.low, one.high, each.confidence, p_one, p_same)
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
