"""Which pruner of Optuna stops configurations early, by its name in a sweep file."""

from __future__ import annotations

from optuna.pruners import BasePruner, MedianPruner, NopPruner, SuccessiveHalvingPruner

from sweeps.spec.search_spec import Stopping


def make_pruner(stopping: Stopping, first_step: int) -> BasePruner:
    """Return a pruner that compares at each rung; all that it compares is in Optuna's storage."""
    if stopping.rule == "asha":
        return SuccessiveHalvingPruner(first_step, stopping.reduction)
    if stopping.rule == "median":
        return MedianPruner(n_startup_trials=stopping.startup)
    return NopPruner()


def pruning_reason(stopping: Stopping, step: int) -> str:
    """Return why a configuration was pruned at a step, in words."""
    if stopping.rule == "asha":
        return f"asha: not among the best 1/{stopping.reduction} at step {step}"
    return f"median: worse than the median at step {step}"
