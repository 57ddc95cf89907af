"""What a search will add to a sweep, before it suggests anything."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from sweeps.planning.feasibility import some_allowed
from sweeps.planning.plan import Plan
from sweeps.planning.rungs import first_rung, learnt_share, trained_share
from trainables.config import TrialConfig

EXAMPLES = 32  # random configurations of a search, over all its studies


@dataclass(frozen=True)
class SearchForecast:
    """The trials that a search will add; random configurations stand for their unknown settings.

    Configurations that a sampler learns to prefer, and the winners, cost what the longer half of
    the random ones does: of language models the larger ones are mostly better.
    """

    examples: tuple[TrialConfig, ...] = ()
    suggested: int = 0  # trials, which the pruner may stop early
    confirming: int = 0  # trials, which always train to the end
    share: float = 1.0  # mean part of its steps that a suggested trial trains, from 0 to 1
    learnt: float = 0.0  # part of the suggestions that a sampler makes from earlier results

    @staticmethod
    def of(plan: Plan, trials: int) -> SearchForecast:
        """Forecast the `trials` that the search of a plan has yet to add."""
        if not plan.studies:
            return SearchForecast()
        search, seed = plan.sweep.search, plan.sweep.seeds[0]
        count = max(1, EXAMPLES // len(plan.studies))
        examples = [some_allowed(study, search.constraints, seed, count) for study in plan.studies]
        confirming = min(trials, plan.confirming)
        suggestions = plan.share or 1
        learnt = learnt_share(search.sampler, suggestions)
        shares = [
            trained_share(
                search.early,
                first_rung(search.early, study),
                found[0].training,
                suggestions,
                learnt,
            )
            for study, found in zip(plan.studies, examples, strict=True)
            if found
        ]
        return SearchForecast(
            (*plan.examples, *(trial for found in examples for trial in found)),
            trials - confirming,
            confirming,
            statistics.fmean(shares) if shares else 1.0,
            learnt,
        )
