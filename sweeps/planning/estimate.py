"""How long a sweep will take: from earlier trials on this machine, or from a few timed steps."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from sweeps.planning.earlier import Earlier, Timing
from sweeps.planning.feasibility import some_allowed
from sweeps.planning.plan import Plan
from sweeps.planning.probing import Probe, Probes, probe_all, shape
from sweeps.planning.rungs import first_rung, learnt_share, trained_share
from trainables.config import TrainingConfig, TrialConfig
from trainables.data.corpus import Corpus
from trainables.training.loop import Splits

IN_A_SWEEP = 1.15  # ratio to steps timed alone: adds the optimizer and the load of other trials
WORKER_BYTES = 450 << 20  # of a Ray worker with torch, before its trial
STARTUP_S = 10.0  # Ray, the workers and the tracking store
TRIAL_OVERHEAD_S = 0.15
EVALUATION_OVERHEAD_S = 0.02  # to save and report
WEIGHTS_ON_DISK = 8  # two checkpoints with both moments, the artifact and MLflow's copy of it
TRIAL_DISK_BYTES = 64 << 10  # text, configuration, and rows in both databases
EXAMPLES = 32  # random configurations of a search, over all its studies
UNCERTAIN = 0.2  # relative error of what was timed
UNCERTAIN_BEFORE = 0.1  # of earlier trials
UNCERTAIN_PREDICTED = 0.5  # of predictions


@dataclass(frozen=True)
class Cost:
    """Of one trial: seconds on one slot, bytes of memory beyond the worker itself, and of disk."""

    seconds: float
    memory_bytes: int
    disk_bytes: int


@dataclass(frozen=True)
class Coming:
    """The trials that a search will add. Random configurations stand for their unknown settings.

    What a sampler learns to prefer, and the winners, cost what the longer half of them does: of
    language models the larger ones are mostly better.
    """

    examples: tuple[TrialConfig, ...] = ()
    suggested: int = 0  # trials, which the pruner may stop early
    confirming: int = 0  # trials, which always train to the end
    share: float = 1.0  # mean part of its steps that a suggested trial trains, from 0 to 1
    learnt: float = 0.0  # part of the suggestions that a sampler makes from earlier results

    @staticmethod
    def of(plan: Plan, trials: int) -> Coming:
        """Describe the `trials` that the search of a plan has yet to add."""
        if not plan.studies:
            return Coming()
        search, seed = plan.sweep.search, plan.sweep.seeds[0]
        each = max(1, EXAMPLES // len(plan.studies))
        examples = [some_allowed(cell, search.constraints, seed, each) for cell in plan.studies]
        confirm = search.confirm.top * len(plan.sweep.confirm_seeds) if search.confirm else 0
        confirming = min(trials, len(plan.studies) * confirm)
        each_makes = plan.share or 1
        learnt = learnt_share(search.sampler, each_makes)
        shares = [
            trained_share(
                search.early, first_rung(search.early, cell), some[0].training, each_makes, learnt
            )
            for cell, some in zip(plan.studies, examples, strict=True)
            if some
        ]
        return Coming(
            (*plan.examples, *(one for some in examples for one in some)),
            trials - confirming,
            confirming,
            statistics.fmean(shares) if shares else 1.0,
            learnt,
        )


@dataclass(frozen=True)
class Estimate:
    """Cost of a sweep: of each trial by key, and of all together."""

    costs: Mapping[str, Cost]
    mean_s: float  # expected seconds of a trial that is not in `costs`
    work_s: float  # expected seconds of all trials, one after another
    most_s: float  # the same if no trial is stopped early
    disk_bytes: int
    uncertain: float = 0.0  # relative error of the seconds, in both directions
    busy: float = 1.0  # median time of a step just now, relative to the shortest
    basis: str = ""  # the sources of the estimate, in words

    def seconds(self, at_once: int) -> float:
        """Expected seconds of the sweep with so many trials at once."""
        return STARTUP_S + self._slots_s(self.work_s, at_once)

    def range_s(self, at_once: int) -> tuple[float, float]:
        """Lower and upper bound of the seconds that are likely."""
        most_s = self._slots_s(self.most_s, at_once) * self.busy
        return (
            STARTUP_S + self._slots_s(self.work_s, at_once) * (1 - self.uncertain),
            STARTUP_S + most_s * (1 + self.uncertain),
        )

    def _slots_s(self, work_s: float, at_once: int) -> float:
        longest_s = max(cost.seconds for cost in self.costs.values())
        return max(work_s / at_once, longest_s)

    def memory_bytes(self, at_once: int, pack: int = 1) -> int:
        """Of the machine, with so many packs at once of so many trials."""
        largest = max(cost.memory_bytes for cost in self.costs.values())
        return at_once * (WORKER_BYTES + pack * largest)

    def of(self, key: str) -> float:
        """Seconds of a trial."""
        return self.costs[key].seconds if key in self.costs else self.mean_s


def estimate(
    trials: Sequence[TrialConfig],
    corpus: Corpus,
    coming: Coming | None = None,
    earlier: Earlier | None = None,
    others: Sequence[TrialConfig] = (),
) -> Estimate:
    """Estimate the cost of each trial from earlier trials on this machine, or from timed steps.

    There must be at least one trial in `trials`, `others` or the examples of `coming`.

    Args:
        trials: to be trained.
        corpus: that they train on.
        coming: the trials that a search will add.
        earlier: timings of trials on this machine.
        others: trials that are not to be trained, but whose costs are wanted too.
    """
    coming, earlier = coming or Coming(), earlier or Earlier()
    known = {trial.key: trial for trial in (*trials, *others, *coming.examples)}
    splits = Splits.of(corpus, torch.device("cpu"))
    shapes = {shape(trial): trial for trial in known.values()}
    probes = probe_all(shapes, corpus.vocab_size, splits)
    before = {key: earlier.of(trial) for key, trial in known.items()}
    remembered = {shape(known[key]) for key, timing in before.items() if timing}
    predicted = probes.predicted - remembered
    factor = _factor(known, probes, before)
    costs, unsure_s = {}, {}
    for key, trial in known.items():
        probe, timing = probes.of[shape(trial)], before[key]
        costs[key] = _cost(trial.training, splits, probe, timing, factor)
        part = UNCERTAIN_PREDICTED if shape(trial) in predicted else UNCERTAIN
        unsure_s[key] = (UNCERTAIN_BEFORE if timing else part) * costs[key].seconds
    given = [costs[trial.key] for trial in trials]
    shown = [costs[example.key] for example in coming.examples] or list(costs.values())
    lengths_s = sorted(cost.seconds for cost in shown)
    random_s = statistics.fmean(lengths_s)
    preferred_s = statistics.fmean(lengths_s[len(lengths_s) // 2 :])
    whole_s = (1 - coming.learnt) * random_s + coming.learnt * preferred_s
    mean_s = coming.share * whole_s
    given_s = sum(cost.seconds for cost in given) + coming.confirming * preferred_s
    count = coming.suggested + coming.confirming
    coming_s = coming.suggested * mean_s + coming.confirming * preferred_s
    return Estimate(
        costs=costs,
        mean_s=coming_s / count if count else mean_s,
        work_s=given_s + coming.suggested * mean_s,
        most_s=given_s + coming.suggested * whole_s,
        disk_bytes=sum(cost.disk_bytes for cost in given)
        + int(count * statistics.fmean(cost.disk_bytes for cost in shown)),
        uncertain=sum(unsure_s.values()) / sum(cost.seconds for cost in costs.values()),
        busy=probes.busy,
        basis=_basis(len(remembered), len(shapes), len(predicted)),
    )


def _basis(remembered: int, shapes: int, predicted: int) -> str:
    timed = shapes - remembered - predicted
    parts = {
        "from what earlier trials took here": remembered,
        "from timed steps": timed,
        "predicted by operations and bytes": predicted,
    }
    said = [f"{how} ({count} of {shapes} shapes)" for how, count in parts.items() if count]
    return said[0].partition(" (")[0] if len(said) == 1 else ", ".join(said)


def _factor(
    known: Mapping[str, TrialConfig], probes: Probes, before: Mapping[str, Timing | None]
) -> float:
    """Ratio of the time of a step in a sweep to that of one timed alone; median over shapes."""
    ratios = [
        timing.step_s / probes.of[shape(known[key])].step_s
        for key, timing in before.items()
        if timing and probes.of[shape(known[key])].step_s
    ]
    return statistics.median(ratios) if ratios else IN_A_SWEEP


def _cost(
    training: TrainingConfig, splits: Splits, probe: Probe, timing: Timing | None, factor: float
) -> Cost:
    """Compute the cost of a trial, from `timing` where there is one."""
    step_s, evaluation_s = factor * probe.step_s, factor * probe.token_s * _tokens(training, splits)
    if timing:
        step_s, evaluation_s = timing.step_s, timing.evaluation_s
    else:
        evaluation_s += EVALUATION_OVERHEAD_S
    evaluations = 1
    if probe.step_s:
        evaluations = math.ceil(training.max_steps / training.eval_every)
        evaluations += training.evaluation == "published"  # which looks before the first step
    return Cost(
        seconds=TRIAL_OVERHEAD_S + step_s * training.max_steps + evaluation_s * evaluations,
        memory_bytes=int(probe.memory_bytes),
        disk_bytes=TRIAL_DISK_BYTES + int(WEIGHTS_ON_DISK * probe.weights_bytes),
    )


def _tokens(training: TrainingConfig, splits: Splits) -> int:
    """Number of tokens that an evaluation reads."""
    if training.evaluation == "exact":
        return len(splits.train) + len(splits.validation)
    return 2 * training.eval_batches * training.batch_size * training.block_size
