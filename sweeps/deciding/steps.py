"""Which seeds come next: the choice of a step from the contrasts that are open."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from analysis.claims.conclusions import Conclusion
from analysis.claims.contrast import Contrast
from analysis.claims.open_contrasts import open_contrasts
from sweeps.deciding.evidence import Evidence
from trainables.config import TrialConfig


@dataclass(frozen=True)
class OpenPair:
    """A contrast of an open claim, as the configurations that it compares."""

    claim: int  # its index
    cell: str
    configurations: tuple[str, ...]
    turn: tuple[int, int, float]  # the lowest comes first
    contradicts: bool = False  # whether its mean so far is against the claim

    @property
    def is_first(self) -> bool:
        """True for the most useful contrast of its claim."""
        return self.turn[0] == 0


@dataclass(frozen=True)
class Step:
    """The trials that are missing of a seed with all configurations of a contrast."""

    trials: tuple[TrialConfig, ...]
    cell: str
    ahead: int  # seeds of the contrast before this one that are not finished


def open_pairs(conclusions: Sequence[Conclusion], evidence: Evidence) -> list[OpenPair]:
    """Return the contrasts that may decide the open claims, in the order of their turns.

    The most useful contrast of each claim comes before all second ones. Among those, the one with
    the fewest seeds comes first, so that no claim takes all trials, and then the claim that has
    most evidence.
    """
    found = [
        OpenPair(
            index,
            contrast.cell,
            tuple(evidence.configurations(contrast.run_ids)),
            (place, len(contrast.seeds), min(each.decision.supports, each.decision.refutes)),
            each.claim.distance(contrast) > 0,
        )
        for index, each in enumerate(conclusions)
        for place, contrast in enumerate(_useful(each))
    ]
    return sorted(found, key=lambda pair: pair.turn)


def _useful(conclusion: Conclusion) -> list[Contrast]:
    """Return open contrasts that further seeds change: not those of losses without chance."""
    return [
        contrast
        for contrast in open_contrasts(conclusion)
        if len(contrast.seeds) > (1 if contrast.repeated else 0)
    ]


def next_steps(
    pairs: Sequence[OpenPair],
    evidence: Evidence,
    seeds: Sequence[int],
    is_there: Callable[[TrialConfig], bool],
) -> list[Step]:
    """Return the next seed of each open contrast that has one, the most useful first.

    First comes a seed for the most useful contrast of each claim. If its mean is against the claim,
    more seeds for it come next, because it alone may refute the claim; then a seed for each of the
    other contrasts, and then more. No contrast is further ahead of its finished seeds than by half
    of them.

    Args:
        pairs: from `open_pairs`.
        evidence: the trials and their results.
        seeds: that a configuration may have, in their order.
        is_there: returns whether a trial is not to be suggested: it is known, or it is finished.
    """
    found = [(pair, step) for pair in pairs for step in _step(pair, evidence, seeds, is_there)]
    return [step for _, step in sorted(found, key=lambda both: _rank(*both))]


def _rank(pair: OpenPair, step: Step) -> int:
    """Return the number by which the steps of all contrasts are sorted: the lowest comes first."""
    if pair.is_first and not step.ahead:
        return 0
    return 1 if pair.is_first and pair.contradicts else 2 + step.ahead


def _step(
    pair: OpenPair,
    evidence: Evidence,
    seeds: Sequence[int],
    is_there: Callable[[TrialConfig], bool],
) -> Iterator[Step]:
    done = finished_seeds(pair, evidence, seeds)
    for ahead, seed in enumerate(seeds[done : done + 1 + max(1, done // 2)]):
        trials = [evidence.sibling(each, seed) for each in pair.configurations]
        if any(map(evidence.has_failed, trials)):
            return  # seeds count in their order, so later ones would not count
        if missing := tuple(trial for trial in trials if not is_there(trial)):
            yield Step(missing, pair.cell, ahead)
            return


def finished_seeds(pair: OpenPair, evidence: Evidence, seeds: Sequence[int]) -> int:
    """Return how many seeds, from the first one on, are finished with all configurations."""
    for done, seed in enumerate(seeds):
        trials = (evidence.sibling(each, seed) for each in pair.configurations)
        if not all(map(evidence.is_finished, trials)):
            return done
    return len(seeds)


def is_blocked(pair: OpenPair, evidence: Evidence, seeds: Sequence[int]) -> bool:
    """Return whether a failed trial keeps later seeds of a contrast from counting."""
    done = finished_seeds(pair, evidence, seeds)
    trials = (evidence.sibling(each, seed) for seed in seeds[done:] for each in pair.configurations)
    return any(map(evidence.has_failed, trials))
