"""For which looks, and for how many claims, verdicts hold: in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from analysis.claims.conclusions import Conclusion
from analysis.trials.decided import decided_error, history_in_words
from analysis.trials.looks import looks_with_fewer
from analysis.trials.table import Trials


def validity(
    conclusions: Sequence[Conclusion], trials: Trials, claims: Path | None = None
) -> list[str]:
    """Return sentences on the looks and claims for which verdicts hold.

    Args:
        conclusions: with these verdicts.
        trials: that they are about.
        claims: their file; None if there is none, or if the sweep states none.
    """
    if not conclusions:
        return []
    stated = history_in_words(trials, claims) if claims else ""
    found = [*_looks(conclusions[0], trials), *_claims(conclusions), stated]
    return list(filter(None, found))


def _looks(conclusion: Conclusion, trials: Trials) -> Iterator[str]:
    error = _percent(conclusion.decision.procedure.error)
    if conclusion.is_anytime:
        yield (
            f"These verdicts hold at any look: each is wrong in at most {error} % of sweeps,"
            " however often one looks and whenever one stops."
        )
        return
    yield (
        f"These verdicts are for one look ({error} % of sweeps are wrong) at a number of seeds that"
        " was fixed beforehand; to look again with more seeds, use --anytime."
    )
    if decided_error(trials) is not None:
        yield (
            "Warning: this sweep chose its numbers of seeds by its verdicts: only those of"
            " --anytime hold for it."
        )
    if before := looks_with_fewer(trials):
        first = before[0]
        times = "once" if len(before) == 1 else f"{len(before)} times"
        yield (
            f"Warning: this sweep was looked at {times} before with fewer trials, first on"
            f" {first.time} with {first.trials} of the {len(trials.finished)} that are finished"
            " now: more verdicts are wrong than that."
        )


def _claims(conclusions: Sequence[Conclusion]) -> Iterator[str]:
    number = len(conclusions)
    error = conclusions[0].decision.procedure.error
    if number == 1:
        return
    if conclusions[0].corrected_for > 1:
        yield (
            f"They are corrected for {number} claims (Holm): in at most {_percent(error)} % of"
            " sweeps is any of them SUPPORTED though it is false."
        )
        return
    independent = 1 - (1 - error) ** number
    yield (
        f"Each of the {number} claims is tested by itself: were all of them false and independent,"
        f" {_percent(independent)} % of sweeps would have a SUPPORTED one; `corrected: true` in the"
        " claims file corrects for that."
    )


def _percent(share: float) -> str:
    return f"{100 * share:.2g}"
