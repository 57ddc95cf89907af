"""How many further trials the open claims will take, if means and spreads are as seen so far."""

from __future__ import annotations

from collections.abc import Sequence

from analysis.claims.conclusions import Conclusion
from sweeps.deciding.evidence import Evidence
from sweeps.deciding.steps import OpenPair
from sweeps.process.summary import counted
from trainables.config import TrialConfig

UNLIKELY = "no number of seeds up to 1,000 is likely to decide it"


def expected_seeds(conclusion: Conclusion) -> int | None:
    """Return the seeds of each configuration with which a claim is likely decided.

    Returns:
        The fewer of those to show it and those to refute it; None if that is not known.
    """
    needed = conclusion.needed
    found = [seeds for seeds in (needed.to_show, needed.to_refute) if seeds is not None]
    return min(found, default=None)


def expected_trials(
    conclusions: Sequence[Conclusion],
    pairs: Sequence[OpenPair],
    evidence: Evidence,
    seeds: Sequence[int],
) -> int:
    """Return how many further trials are expected until no open claim can use another one.

    Args:
        conclusions: of all claims.
        pairs: their open contrasts.
        evidence: the trials and their results.
        seeds: that a configuration may have; a claim that needs more gets all of them.
    """
    wanted = wanted_trials(conclusions, pairs, evidence, seeds)
    return sum(not evidence.is_finished(trial) for trial in wanted)


def wanted_trials(
    conclusions: Sequence[Conclusion],
    pairs: Sequence[OpenPair],
    evidence: Evidence,
    seeds: Sequence[int],
) -> list[TrialConfig]:
    """Return the trials that `expected_trials` counts, with those that are finished."""
    wanted: dict[str, int] = {}  # seeds, by configuration
    forecast = {pair.claim: expected_seeds(conclusions[pair.claim]) for pair in pairs}
    for pair in pairs:
        count = min(forecast[pair.claim] or len(seeds), len(seeds))
        for configuration in pair.configurations:
            wanted[configuration] = max(count, wanted.get(configuration, 0))
    return [
        evidence.sibling(configuration, seed)
        for configuration, count in wanted.items()
        for seed in seeds[:count]
    ]


def price(conclusion: Conclusion) -> str:
    """Return what it would take to decide an open claim, in words."""
    needed = conclusion.needed
    parts = [
        f"about {counted(seeds, 'seed')} of each configuration would {end} it"
        for seeds, end in ((needed.to_show, "show"), (needed.to_refute, "refute"))
        if seeds is not None
    ]
    return ", ".join(parts) or UNLIKELY
