"""The claims of a sweep, and whether its trials can decide them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from analysis import AnalysisError
from analysis.claims.claim import Claim
from analysis.claims.claim_file import ClaimFile, load_claims
from analysis.claims.conclusions import Conclusion
from analysis.claims.judging import Judge
from analysis.trials.table import Trials
from sweeps.deciding.evidence import Evidence
from sweeps.planning.plan import Plan
from trainables.errors import UserError


@dataclass
class SweepClaims:
    """The claims that a sweep decides."""

    file: ClaimFile
    error: float  # the probability of a wrong verdict
    limits: str  # at which the sweep stops trying, in words
    gaps: Sequence[str] = ()  # what claims ask for and no trial has, a line each
    _judge: Judge | None = None  # on the configurations of the last look
    _configurations: Sequence[str] = ()  # these

    @property
    def text(self) -> str:
        """The text of the claims file."""
        return self.file.text

    @property
    def sha256(self) -> str:
        """The hash of the bytes of the claims file."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def judge(self, evidence: Evidence) -> list[Conclusion]:
        """Return the verdicts, which hold however often they are looked at.

        What the claims compare is found once for all seeds of the same configurations, unless
        a claim selects seeds or the trials of a search do.

        Raises:
            AnalysisError: the trials cannot be compared as a claim says.
        """
        by_seed = evidence.has_studies or any("seed" in claim.names for claim in self.file.claims)
        if self._judge is None or by_seed or self._configurations != evidence.names:
            self._judge = Judge(evidence.trials(), self.file, anytime=True, error=self.error)
            self._configurations = evidence.names
        return self._judge.conclusions() if by_seed else self._judge.conclusions(evidence.runs_of)


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
    evidence = Evidence(plan)
    evidence.add((trial, {}) for trial in plan.trials)
    trials = evidence.trials()
    try:
        file = load_claims(decide.path)
    except AnalysisError as error:
        raise UserError(f"decide.claims: {error}") from None
    try:
        found = Judge(trials, file, anytime=True, error=decide.error).conclusions()
    except AnalysisError as error:
        raise UserError(str(error)) from None
    claims = [_fitting(each.claim, trials) for each in found if not each.confounded]
    if not claims:
        raise UserError(
            "decide.claims: the claims of the published study compare settings that no arm of this"
            " sweep varies; name a file of claims instead of `study`"
        )
    kept = replace(file, claims=claims, shipped=False)
    if file.shipped:  # fewer claims than the file has, whose lines are not theirs
        kept = replace(kept, source="", lines={})
    judged = [each for each in found if not each.confounded]
    gaps = [line for index, each in enumerate(judged, start=1) for line in _gaps(index, each)]
    return SweepClaims(kept, decide.error, decide.in_words, gaps)


def _gaps(index: int, conclusion: Conclusion) -> Iterator[str]:
    """Yield a warning if a claim compares levels of which a cell has no trials."""
    gaps = [each for each in conclusion.every_contrast if each.has_gap]
    if gaps:
        more = f" and {len(gaps) - 1} more" if len(gaps) > 1 else ""
        where = f"{gaps[0].cell} ({gaps[0].what}){more}".strip()
        yield (
            f"claim {index} has nothing to compare in {where}, so it cannot be shown there and gets"
            " no seeds for that"
        )


def _fitting(claim: Claim, trials: Trials) -> Claim:
    """Return a claim without the settings of `despite` that no trial has."""
    return claim.model_copy(update={"despite": [n for n in claim.despite if n in trials.params]})
