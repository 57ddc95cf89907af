"""Claims judged on trials: once, or again and again as further trials end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from analysis.claims.claim import Claim
from analysis.claims.claim_errors import ClaimError, ConfoundedError
from analysis.claims.claim_file import ClaimData, ClaimFile, load_claims
from analysis.claims.conclusions import Conclusion, conclude, corrected
from analysis.claims.configurations import configurations_of
from analysis.claims.contrast import Contrast
from analysis.claims.contrasts import Contrasts, RunsOf, no_setting, own_runs
from analysis.claims.one_sided import ALPHA
from analysis.claims.procedures import Anytime, FixedNumber, Procedure
from analysis.errors import AnalysisError
from analysis.text.shares import checked_error
from analysis.trials.confirmed import confirmation_note, judged
from analysis.trials.table import Trials, of_trials

NO_BORROWING = (
    "at any look `bound` asks for a test that knows no variance, so there is nothing to `borrow`;"
    " leave one of them out"
)


@of_trials
def check_claims(
    trials: Trials,
    claims: Path | str | ClaimData | None = None,
    anytime: bool = False,
    error: float = ALPHA,
) -> list[Conclusion]:
    """Test claims on the trials; where there are studies, on their confirmed winners.

    Args:
        trials: from `load_trials`.
        claims: a YAML file (see `analysis.claims.claim_file`), or a claim or a list of them, each a
            dictionary as in the file; None takes those claims of the published study that the
            trials can speak of.
        anytime: whether verdicts hold at any look, so that one may train seeds until a claim is
            decided; else they hold for one look at a number of seeds that was fixed beforehand.
        error: the share of sweeps in which a claim may be SUPPORTED though it is false, and the
            share in which it may be NOT SUPPORTED though it is true. Only `anytime` tests can have
            another than 5 %; from 1e-6 to below 0.5.

    Raises:
        AnalysisError: a claim is wrong, or names what no trial has or what was tuned; the error
            cannot be one; or the file has a bound of differences that a pair exceeds.
    """
    return Judge(trials, load_claims(claims), anytime, error).conclusions()


@dataclass
class _Case:
    """A claim, its contrasts, and the verdict at the last look."""

    index: int  # in the file
    claim: Claim
    contrasts: Contrasts | None  # None if the trials differ in more than the claim says
    measured: Sequence[Contrast] | None = None
    conclusion: Conclusion | None = None  # None if there is none on these contrasts


class Judge:
    """Judges claims on the configurations of some trials; the losses may change between looks."""

    def __init__(self, trials: Trials, file: ClaimFile, anytime: bool, error: float) -> None:
        """Find out what the claims compare.

        Args:
            trials: of all configurations; not all seeds have to be there.
            file: the claims.
            anytime: as in `check_claims`.
            error: as in `check_claims`.

        Raises:
            AnalysisError: a claim is wrong, or names what no trial has or what was tuned.
        """
        if anytime and file.borrow and file.bound is not None:
            raise AnalysisError(f"{file.source or 'claims'}: {NO_BORROWING}")
        try:
            checked_error(error)
        except ValueError as problem:
            raise AnalysisError(str(problem)) from None
        self._procedure: Procedure = (
            Anytime(error, file.bound, file.borrow) if anytime else FixedNumber(borrows=file.borrow)
        )
        self._trials, self._file = trials, file
        evidence = judged(trials)
        found = configurations_of(evidence)
        self._cases = []
        for index, claim in enumerate(file.claims):
            try:
                if not file.shipped:
                    _check_despite(claim, trials)
                _check_tuned(claim, set(trials.params) - set(evidence.params))
                self._cases.append(_Case(index, claim, Contrasts(claim, evidence, found)))
            except ClaimError as problem:
                self._refuse(index, problem)
                if isinstance(problem, ConfoundedError):
                    nothing = conclude(claim, [], self._procedure)
                    nothing = replace(nothing, confounded=str(problem))
                    self._cases.append(_Case(index, claim, None, conclusion=nothing))

    def conclusions(self, runs_of: RunsOf = own_runs) -> list[Conclusion]:
        """Return the verdicts; a claim is tested again only if its runs have changed.

        Args:
            runs_of: returns the runs of a configuration: the same object while none has changed.
                By default those of the trials.

        Raises:
            AnalysisError: these losses cannot decide a claim; or the file has a bound of
                differences that a pair exceeds.
        """
        for case in self._cases:
            if case.contrasts is not None:
                self._judge(case, case.contrasts.measured(runs_of))
        found = [case.conclusion for case in self._cases if case.conclusion is not None]
        return corrected(found) if self._file.corrected else found

    def _judge(self, case: _Case, contrasts: list[Contrast]) -> None:
        if contrasts is case.measured:
            return
        case.measured, case.conclusion = contrasts, None
        try:
            case.claim.check(contrasts)
            _check_bound(contrasts, self._file.bound)
        except ClaimError as problem:
            self._refuse(case.index, problem)
            return
        if contrasts:
            case.conclusion = conclude(case.claim, contrasts, self._procedure)
        elif not self._file.shipped:
            place = self._file.place(case.index)
            raise AnalysisError(f"{place}: {_nothing_to_compare(self._trials)}")

    def _refuse(self, index: int, problem: ClaimError) -> None:
        """Raise an error; claims of the published study are left out instead."""
        if not self._file.shipped:
            raise AnalysisError(f"{self._file.place(index, problem.path)}: {problem}") from None


def _check_bound(contrasts: Sequence[Contrast], bound: float | None) -> None:
    """Refuse pairs that differ by more than the bound of the file.

    Raises:
        ClaimError: a pair does.
    """
    if bound is None:
        return
    for contrast in contrasts:
        largest = max(map(abs, contrast.differences.tolist()), default=0.0)
        if largest > bound + contrast.rounding:
            cell = f" in {contrast.cell}" if contrast.cell else ""
            raise ClaimError(
                f"a pair{cell} ({contrast.what}) differs by {largest:.4g} nats, more than the"
                f" bound {bound:g} of this file, so its verdicts would not hold; a larger bound"
                " has to be chosen before the trials, for a sweep with fresh seeds"
            )


def _nothing_to_compare(trials: Trials) -> str:
    note = confirmation_note(trials)
    return (
        f"{trials.experiment!r} has nothing to compare: no two of its configurations are as the"
        f" claim says{f'. {note}' if note else ''}"
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
