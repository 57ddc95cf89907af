"""The verdicts on claims, with what they hold for, as the `analysis` command shows them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from analysis.claims.conclusions import Conclusion
from analysis.claims.judging import check_claims
from analysis.claims.one_sided import ALPHA
from analysis.errors import AnalysisError
from analysis.reports.text_intervals import text_sentences
from analysis.reports.validity_texts import validity
from analysis.trials.decided import claims_of, decided_error
from analysis.trials.table import Trials


@dataclass(frozen=True)
class Verdicts:
    """Conclusions on the trials of an experiment, and sentences on what they hold for."""

    conclusions: Sequence[Conclusion]
    valid: Sequence[str]  # for which looks and claims
    on_text: Sequence[str]  # of each: whether it would hold on other text; some are empty


def verdicts_on(
    trials: Trials,
    tracking_uri: str,
    claims: Path | None = None,
    anytime: bool | None = None,
    error: float | None = None,
) -> Verdicts:
    """Test claims on the trials of an experiment.

    Args:
        trials: of the experiment.
        tracking_uri: of the store that they are from; empty for a CSV file.
        claims: a file; None takes those that the sweep was run with, or of the published study.
        anytime: whether verdicts hold at any look; None if the sweep stopped by its verdicts.
        error: of verdicts at any look; None takes that of the sweep, or 5 %.

    Raises:
        AnalysisError: as by `check_claims`, or the store does not answer.
    """
    stopped_at = decided_error(trials)
    if anytime is None:
        anytime = stopped_at is not None
    if error is not None and not anytime:
        raise AnalysisError("--error is for verdicts that hold at any look; add --anytime")
    level = next(each for each in (error, stopped_at, ALPHA) if each is not None)
    with claims_of(trials, tracking_uri) as stated:
        file = claims or stated
        found = check_claims(trials, file, anytime=anytime, error=level)
        valid = validity(found, trials, file)
    return Verdicts(found, valid, text_sentences(found, trials, tracking_uri))
