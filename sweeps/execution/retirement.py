"""Trials that are no longer part of a sweep: with results, only the user may retire them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sweeps.execution.changes import Content, change
from sweeps.execution.run import Say
from sweeps.planning.plan import Plan
from sweeps.records.records import TrialRecord
from trainables.errors import UserError


@dataclass(frozen=True)
class Retirement:
    """Compares the trials of a sweep with earlier ones, and refuses to drop results."""

    plan: Plan
    trials: Mapping[str, Content]  # of the plan and its search, by key
    is_allowed: bool  # trials with results may be dropped

    def check(self, earlier: Sequence[TrialRecord], say: Say | None = None) -> None:
        """Check the trials against those that the outbox has, and show the difference.

        Raises:
            UserError: some of these have results and are no longer part of the sweep.
        """
        found = change(earlier, self.trials, self.plan)
        if not earlier or not (found.come or found.go):
            return
        if found.go_done and not self.is_allowed:
            raise UserError(
                f"the sweep {self.plan.sweep.name!r} has other trials, and {found.go_done} that go"
                f" have results: {found}.\nGive this one another name with name=NAME, or add"
                " --retire: the runs of those that go stay in MLflow, out of the rankings, and come"
                " back with their settings"
            )
        if say:
            say(f"changed {found}")

    def check_runs(self, runs: Sequence[TrialRecord]) -> None:
        """Check the trials against the runs that MLflow has.

        Raises:
            RefusedError: some of these have results and are no longer part of the sweep.
        """
        from sweeps.tracking.experiment import RefusedError

        try:
            self.check(runs)
        except UserError as error:
            raise RefusedError(str(error)) from None
