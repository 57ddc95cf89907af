"""Verdicts on claims, with the evidence for each."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import inf, nan
from statistics import fmean

from analysis.claims.claim import NEGATED, Claim
from analysis.claims.contrast import Contrast
from analysis.claims.decisions import (
    Decision,
    Verdict,
    averages,
    decide,
    p_against,
    p_for,
    p_signs,
    verdict_of,
)
from analysis.claims.forecast import Needed, seeds_needed
from analysis.claims.noise import Noise
from analysis.claims.procedures import FIXED_NUMBER, Procedure
from analysis.statistics import Interval, bca_interval, holm
from analysis.trials.selection import Value

NOTHING = Interval(nan, nan, nan, 0)


@dataclass(frozen=True)
class Conclusion:
    """Verdict on a claim, with its evidence. Differences are in nats; negative ones support it.

    All but the verdict is computed at its first use.
    """

    claim: Claim
    decision: Decision
    contrasts: tuple[Contrast, ...]
    basis: tuple[Contrast, ...]  # those that decide: of the cells, or of averages over cells
    confounded: str = ""  # why nothing was compared
    ranked: tuple[Conclusion, ...] = ()  # `best: any`: one of each level, lowest mean first
    corrected_for: int = 1  # claims of a file that may have one wrong verdict together (Holm)

    @property
    def verdict(self) -> Verdict:
        """The verdict on the claim."""
        return self.decision.verdict

    @property
    def statement(self) -> str:
        """The claim in words; for `best: any`, with the level that is best."""
        return self.claim.statement(self.lowest_first, self.verdict == "SUPPORTED")

    @property
    def lowest_first(self) -> list[Value | None]:
        """The levels by their mean loss, for `best: any`; else empty."""
        return [conclusion.contrasts[0].candidate for conclusion in self.ranked]

    @property
    def confidence(self) -> float:
        """Confidence of the intervals whose ends agree with the tests that decide."""
        return 1 - (1 - self.decision.procedure.confidence) / self.decision.among

    @property
    def every_contrast(self) -> list[Contrast]:
        """The contrasts; for `best: any` those of each level."""
        return [contrast for each in self.ranked or (self,) for contrast in each.contrasts]

    @property
    def is_anytime(self) -> bool:
        """True if the verdict holds at any look."""
        return self.decision.procedure.is_anytime

    @property
    def weakest(self) -> Contrast | None:
        """The contrast of `basis` that decides the verdict; None where no pair is finished."""
        index = self.decision.weakest
        return None if index is None else self.basis[index]

    @property
    def cells(self) -> int:
        """Number of cells."""
        return len({contrast.cell for contrast in self.contrasts})

    @property
    def cells_hold(self) -> int:
        """Number of cells in which every mean difference agrees with the claim."""
        agrees = defaultdict(list)
        for contrast in self.contrasts:
            agrees[contrast.cell].append(self.claim.distance(contrast) < 0)
        return sum(map(all, agrees.values()))

    @cached_property
    def effect(self) -> Interval:
        """Mean difference of the weakest contrast, and its t interval at `confidence`."""
        return self._interval(family=self.decision.among)

    @cached_property
    def simultaneous(self) -> Interval:
        """The interval of `effect`, widened so that all those of `basis` hold at once with 90 %."""
        return self._interval(family=len(self.basis) * self.decision.among)

    def _interval(self, family: int) -> Interval:
        index = self.decision.weakest
        if index is None:
            return NOTHING
        return self.decision.procedure.interval(self.basis, index, family)

    @cached_property
    def bootstrap(self) -> Interval:
        """The BCa bootstrap interval of the weakest, with 95 %; NaN with fewer than ten pairs."""
        return bca_interval(self.weakest.differences) if self.weakest else NOTHING

    @cached_property
    def sign_flip(self) -> float:
        """The p-value of the sign-flip test of the weakest contrast."""
        found = p_signs(self.claim, self.weakest) if self.weakest else 1.0
        return min(1.0, self.decision.among * found)

    @property
    def seeds(self) -> int:
        """Pairs in the contrast that has fewest."""
        return min((len(contrast.seeds) for contrast in self.contrasts), default=0)

    @cached_property
    def needed(self) -> Needed:
        """How many seeds each configuration would need for a verdict."""
        found = seeds_needed(self.claim, self.basis, self.decision)
        if not self.ranked:
            return found
        refutes = [each.needed.to_refute for each in self.ranked]  # none is best if all are refuted
        return Needed(found.to_show, None if None in refutes else max(filter(None, refutes)))

    @cached_property
    def holm(self) -> tuple[float, ...]:
        """The p-value of each contrast, adjusted by Holm for the number of contrasts."""
        alone = p_against if self.claim.holds == NEGATED else p_for
        noise, procedure = Noise.of(self.contrasts), self.decision.procedure
        found = holm(alone(self.claim, self.contrasts, noise, procedure))
        return tuple(min(1.0, self.decision.among * p) for p in found)

    @property
    def lost(self) -> int:
        """Pairs of which a trial is missing: it failed, was stopped, still runs, or never ran."""
        return sum(contrast.lost for contrast in self.contrasts)

    @property
    def differs(self) -> dict[str, int]:
        """Number of differences whose sides also differ in a setting, by its name."""
        return dict(Counter(name for contrast in self.contrasts for name in contrast.differs))

    @property
    def repeated(self) -> int:
        """Seeds that are left out because they repeat the losses of another seed."""
        return sum(contrast.repeated for contrast in self.contrasts)

    @property
    def equal_losses(self) -> int:
        """Differences of which a side has the same loss with several seeds."""
        return sum(contrast.has_equal_losses for contrast in self.contrasts)


def corrected(conclusions: Sequence[Conclusion]) -> list[Conclusion]:
    """Return conclusions of which none is wrong, but in the share of sweeps that one may be.

    The p-values that support claims are adjusted by Holm, and so are those that refute them.
    """
    supports = holm([each.decision.supports for each in conclusions])
    refutes = holm([each.decision.refutes for each in conclusions])
    found = []
    for each, supported, refuted in zip(conclusions, supports, refutes, strict=True):
        verdict = verdict_of(supported, refuted, each.decision.procedure.error)
        decision = replace(each.decision, verdict=verdict, supports=supported, refutes=refuted)
        found.append(replace(each, decision=decision, corrected_for=len(conclusions)))
    return found


def conclude(
    claim: Claim, contrasts: Sequence[Contrast], procedure: Procedure = FIXED_NUMBER
) -> Conclusion:
    """Return the conclusion on a claim from its contrasts.

    For `best: any` each level is compared with all others. The claim is SUPPORTED if a level passes
    all its tests at 5 % / number of levels, because the losses that choose the level also test it.
    It is NOT SUPPORTED if that is the verdict on every single level.
    """
    contrasts = [procedure.counted(contrast) for contrast in contrasts]
    alternatives = claim.alternatives(contrasts)
    among = len(alternatives)
    if not alternatives:
        return _concluded(claim, contrasts, 1, procedure)
    found = [_concluded(claim, each, among, procedure) for each in alternatives]
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


def _concluded(
    claim: Claim, contrasts: Sequence[Contrast], among: int, procedure: Procedure
) -> Conclusion:
    basis = averages(contrasts) if claim.holds == "on average" else contrasts
    decision = decide(claim, basis, among, procedure)
    return Conclusion(claim, decision, tuple(contrasts), tuple(basis))


def _mean_difference(each: Conclusion) -> tuple[int, float]:
    """Sort key of a level: missing comparisons first, then its mean difference to the others."""
    means = [contrast.mean for contrast in each.basis if len(contrast.seeds)]
    return len(each.basis) - len(means), fmean(means or [inf])
