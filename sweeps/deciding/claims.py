"""The claims of a sweep, and whether its trials can decide them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from analysis import AnalysisError
from analysis.claims.claim import Claim
from analysis.claims.claim_file import SHIPPED, load_claims
from analysis.claims.conclusions import Conclusion, check_claims
from analysis.trials.table import Trials
from sweeps.deciding.evidence import Evidence
from sweeps.planning.plan import Plan
from trainables.errors import UserError


@dataclass(frozen=True)
class SweepClaims:
    """The claims that a sweep decides."""

    claims: Sequence[Claim]
    corrected: bool  # whether one wrong verdict in all claims counts as one error
    bound: float | None  # nats: no difference of a pair is larger
    text: str  # of their file
    sha256: str  # of its bytes
    error: float  # the probability of a wrong verdict
    limits: str  # at which the sweep stops trying, in words

    def judge(self, trials: Trials) -> list[Conclusion]:
        """Return the verdicts, which hold however often they are looked at.

        Raises:
            AnalysisError: the trials cannot be compared as a claim says.
        """
        content = {"claims": self.claims, "corrected": self.corrected, "bound": self.bound}
        return check_claims(trials, content, anytime=True, error=self.error)


def read_claims(plan: Plan) -> SweepClaims | None:
    """Read the claims of a plan, and check them on its trials, of which none need be trained.

    Returns:
        None if the plan decides no claims. Of the claims of the published study, those that the
        trials of the plan can speak of.

    Raises:
        UserError: the file cannot be read, a claim has no meaning, or names what no trial has.
    """
    decide = plan.sweep.decide
    if decide is None:
        return None
    path = decide.path
    try:
        data = (path or SHIPPED).read_bytes()
    except OSError as error:
        raise UserError(f"decide.claims: {path} cannot be read: {error.strerror}") from None
    evidence = Evidence(plan)
    evidence.add((trial, {}) for trial in plan.trials)
    trials = evidence.trials()
    try:
        file = load_claims(path)
        found = check_claims(trials, path, anytime=True, error=decide.error)
    except AnalysisError as error:
        raise UserError(str(error)) from None
    claims = [_fitting(each.claim, trials) for each in found if not each.confounded]
    if not claims:
        raise UserError(
            "decide.claims: the claims of the published study compare settings that no arm of this"
            " sweep varies; name a file of claims instead of `study`"
        )
    sha256 = hashlib.sha256(data).hexdigest()
    return SweepClaims(
        claims, file.corrected, file.bound, data.decode(), sha256, decide.error, decide.in_words
    )


def _fitting(claim: Claim, trials: Trials) -> Claim:
    """Return a claim without the settings of `despite` that no trial has."""
    return claim.model_copy(update={"despite": [n for n in claim.despite if n in trials.params]})
