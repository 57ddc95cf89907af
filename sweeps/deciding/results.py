"""The verdicts of a sweep on its claims, as lines, and what it would take to decide open ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from analysis.claims.conclusions import Conclusion
from sweeps.deciding.evidence import Evidence
from sweeps.deciding.expected import price
from sweeps.deciding.steps import OpenPair, is_blocked
from sweeps.process.summary import counted

FAILED = (
    "a trial that it compares has failed, so pairs with later seeds do not count; --retry-failed"
    " tries it again"
)
OPEN = "UNDERPOWERED"  # the verdict of a claim that is not decided


def verdicts_in_words(conclusions: Sequence[Conclusion]) -> str:
    """Return how many claims are decided, such as ``7 claims: 4 decided, 3 open``."""
    left = sum(each.verdict == OPEN for each in conclusions)
    return f"{counted(len(conclusions), 'claim')}: {len(conclusions) - left} decided, {left} open"


def results(
    conclusions: Sequence[Conclusion],
    pairs: Sequence[OpenPair],
    evidence: Evidence,
    seeds: Sequence[int],
    limits: str,
) -> Iterator[str]:
    """Yield the verdict on each claim, and what an open one would take, a line each.

    Args:
        conclusions: on the claims, at the last look.
        pairs: the open contrasts.
        evidence: the trials and their results.
        seeds: that a configuration may have.
        limits: of the sweep, in words.
    """
    if not conclusions:
        return
    yield f"{verdicts_in_words(conclusions)} after {counted(evidence.finished, 'trial')}"
    for index, each in enumerate(conclusions):
        decision = each.decision
        numbers = f"e-value {_number(1 / decision.supports)} for it"
        numbers += f", {_number(1 / decision.refutes)} against it"
        verdict = "open" if each.verdict == OPEN else each.verdict
        yield f"{index + 1} {verdict} ({numbers}): {each.statement}"
        if each.verdict == OPEN:
            blocked = any(
                is_blocked(pair, evidence, seeds) for pair in pairs if pair.claim == index
            )
            if not any(len(contrast.seeds) for contrast in each.contrasts):
                blocked = evidence.ended > evidence.finished  # else it was only begun
            yield f"  {FAILED if blocked else price(each)}"
    if any(each.verdict == OPEN for each in conclusions):
        yield f"larger limits continue from here; they are: {limits}"


def _number(value: float) -> str:
    return f"{value:.3g}"
