"""How long a sweep will take: by earlier trials, some timed steps, or a model of a GPU's speed."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from sweeps.planning.earlier import EarlierTimings, StepTiming
from sweeps.planning.forecast import SearchForecast
from sweeps.planning.gpu_time import GpuPacks, gpu_costs
from sweeps.planning.predicting import count_all
from sweeps.planning.probing import Probe, Probes, probe_all, shape
from sweeps.planning.trial_cost import (
    Costs,
    TrialCost,
    bytes_on_disk,
    evaluated_parts,
    evaluated_tokens,
)
from trainables.config import EvaluatingTrain, TrainingConfig, TrialConfig
from trainables.data.corpus import Corpus
from trainables.training.loop import Splits

IN_A_SWEEP = 1.15  # ratio to steps timed alone: adds the optimizer and the load of other trials
WORKER_BYTES = 450 << 20  # of a Ray worker with torch, before its trial
STARTUP_S = 10.0  # Ray, the workers and the tracking store
TRIAL_OVERHEAD_S = 0.15
EVALUATION_OVERHEAD_S = 0.02  # to save and report
UNCERTAIN = 0.2  # relative error of what was timed
UNCERTAIN_BEFORE = 0.1  # of earlier trials
UNCERTAIN_PREDICTED = 0.5  # of predictions


@dataclass(frozen=True)
class Estimate:
    """Cost of a sweep: of each trial by key, and of all together."""

    costs: Mapping[str, TrialCost]
    mean_s: float  # expected seconds of a trial that is not in `costs`
    work_s: float  # expected seconds of all trials, one after another
    most_s: float  # the same if no trial is stopped early
    disk_bytes: int
    uncertain: float = 0.0  # relative error of the seconds, in both directions
    busy: float = 1.0  # median time of a step just now, relative to the shortest
    basis: str = ""  # the sources of the estimate, in words

    def seconds(self, at_once: int) -> float:
        """Return the expected seconds of the sweep with `at_once` trials at once."""
        return STARTUP_S + self._slots_s(self.work_s, at_once)

    def range_s(self, at_once: int) -> tuple[float, float]:
        """Return the lower and the upper bound of the likely seconds."""
        most_s = self._slots_s(self.most_s, at_once) * self.busy
        return (
            STARTUP_S + self._slots_s(self.work_s, at_once) * (1 - self.uncertain),
            STARTUP_S + most_s * (1 + self.uncertain),
        )

    def _slots_s(self, work_s: float, at_once: int) -> float:
        longest_s = max(cost.seconds * cost.members for cost in self.costs.values())
        return max(work_s / at_once, longest_s)

    def memory_bytes(self, at_once: int, pack: int = 1) -> int:
        """Return the bytes of memory that a sweep needs.

        Args:
            at_once: packs that train at the same time.
            pack: trials of each pack.
        """
        largest = max(cost.memory_bytes for cost in self.costs.values())
        return at_once * (WORKER_BYTES + pack * largest)

    def of(self, key: str) -> float:
        """Return the expected seconds of a trial, by its key."""
        return self.costs[key].seconds if key in self.costs else self.mean_s

    def of_pack(self, key: str) -> float:
        """Return the expected seconds of the pack of a trial, by its key."""
        return self.of(key) * (self.costs[key].members if key in self.costs else 1)


def estimate(
    trials: Sequence[TrialConfig],
    corpus: Corpus,
    forecast: SearchForecast | None = None,
    earlier: EarlierTimings | None = None,
    others: Sequence[TrialConfig] = (),
    gpu_packs: GpuPacks | None = None,
    times: bool = True,
) -> Estimate:
    """Estimate the cost of each trial from earlier trials on this machine, or from timed steps.

    On GPUs nothing is timed: `sweeps.planning.gpu_time` is a model of their speed.

    There must be at least one trial in `trials`, `others` or the examples of `forecast`.

    Args:
        trials: to be trained.
        corpus: that they train on.
        forecast: of the trials that a search will add.
        earlier: timings of trials on this machine.
        others: trials that are not to be trained, but whose costs are wanted too.
        gpu_packs: the packs on GPUs; None if the trials train on CPUs.
        times: whether steps are timed; without, shapes of which there are no earlier timings are
            predicted from what their steps compute.
    """
    forecast = forecast or SearchForecast()
    known = {trial.key: trial for trial in (*trials, *others, *forecast.examples)}
    costs = _known_costs(known, corpus, earlier or EarlierTimings(), gpu_packs, times)
    given = [costs.by_key[trial.key] for trial in trials]
    examples = [costs.by_key[trial.key] for trial in forecast.examples] or list(
        costs.by_key.values()
    )
    seconds = _search_seconds(examples, forecast)
    given_s = sum(cost.seconds for cost in given) + forecast.confirming * seconds.preferred
    added = forecast.suggested + forecast.confirming
    added_s = forecast.suggested * seconds.suggested + forecast.confirming * seconds.preferred
    return Estimate(
        costs=costs.by_key,
        mean_s=added_s / added if added else seconds.suggested,
        work_s=given_s + forecast.suggested * seconds.suggested,
        most_s=given_s + forecast.suggested * seconds.unpruned,
        disk_bytes=sum(cost.disk_bytes for cost in given)
        + int(added * statistics.fmean(cost.disk_bytes for cost in examples)),
        uncertain=costs.uncertain,
        busy=costs.busy,
        basis=costs.basis,
    )


def _known_costs(
    known: Mapping[str, TrialConfig],
    corpus: Corpus,
    earlier: EarlierTimings,
    gpu_packs: GpuPacks | None,
    times: bool,
) -> Costs:
    """Return the costs of trials, by key: from earlier timings, from timed or predicted steps."""
    splits = Splits.of(corpus, torch.device("cpu"))
    if gpu_packs:
        return gpu_costs(known, splits, gpu_packs)
    shapes = {shape(trial): trial for trial in known.values()}
    vocab_size = corpus.vocab_size
    probes = probe_all(shapes, vocab_size, splits) if times else count_all(shapes, vocab_size)
    timings = {key: earlier.of(trial) for key, trial in known.items()}
    remembered = {shape(known[key]) for key, timing in timings.items() if timing}
    predicted = probes.predicted - remembered
    factor = _factor(known, probes, timings)
    costs, unsure_s = {}, 0.0
    for key, trial in known.items():
        probe, timing = probes.by_shape[shape(trial)], timings[key]
        costs[key] = _cost(trial.training, splits, probe, timing, factor)
        part = UNCERTAIN_PREDICTED if shape(trial) in predicted else UNCERTAIN
        unsure_s += (UNCERTAIN_BEFORE if timing else part) * costs[key].seconds
    return Costs(
        by_key=costs,
        uncertain=unsure_s / sum(cost.seconds for cost in costs.values()),
        busy=probes.busy,
        basis=_basis(len(remembered), len(shapes), len(predicted)),
    )


@dataclass(frozen=True)
class _SearchSeconds:
    """Mean seconds of a trial that a search adds."""

    preferred: float  # of a configuration that the sampler prefers, trained to its end
    unpruned: float  # of a suggestion, trained to its end
    suggested: float  # of a suggestion, which the pruner may stop early


def _search_seconds(examples: Sequence[TrialCost], forecast: SearchForecast) -> _SearchSeconds:
    lengths_s = sorted(cost.seconds for cost in examples)
    random_s = statistics.fmean(lengths_s)
    preferred_s = statistics.fmean(lengths_s[len(lengths_s) // 2 :])
    unpruned_s = (1 - forecast.learnt) * random_s + forecast.learnt * preferred_s
    return _SearchSeconds(preferred_s, unpruned_s, forecast.share * unpruned_s)


def _basis(remembered: int, shapes: int, predicted: int) -> str:
    """Return the sources of an estimate in words, given how many shapes each source covers."""
    timed = shapes - remembered - predicted
    parts = {
        "from what earlier trials took here": remembered,
        "from timed steps": timed,
        "predicted by operations and bytes": predicted,
    }
    texts = [f"{source} ({count} of {shapes} shapes)" for source, count in parts.items() if count]
    return texts[0].partition(" (")[0] if len(texts) == 1 else ", ".join(texts)


def _factor(
    known: Mapping[str, TrialConfig], probes: Probes, timings: Mapping[str, StepTiming | None]
) -> float:
    """Return the ratio of a step's time in a sweep to its time alone; the median over shapes."""
    ratios = [
        timing.step_s / probes.by_shape[shape(known[key])].step_s
        for key, timing in timings.items()
        if timing and probes.by_shape[shape(known[key])].step_s
    ]
    return statistics.median(ratios) if ratios else IN_A_SWEEP


def _cost(
    training: TrainingConfig, splits: Splits, probe: Probe, timing: StepTiming | None, factor: float
) -> TrialCost:
    """Return the cost of a trial, from `timing` if there is one."""
    step_s = timing.step_s if timing else factor * probe.step_s
    parts = evaluated_parts(training, takes_steps=bool(probe.step_s))

    def evaluation_s(part: EvaluatingTrain) -> float:
        if timing:
            return _remembered_s(
                timing, part, lambda part: evaluated_tokens(training, splits, part)
            )
        return EVALUATION_OVERHEAD_S + factor * probe.token_s * evaluated_tokens(
            training, splits, part
        )

    evaluations_s = sum(count * evaluation_s(part) for part, count in parts.items())
    return TrialCost(
        seconds=TRIAL_OVERHEAD_S + step_s * training.max_steps + evaluations_s,
        memory_bytes=int(probe.memory_bytes),
        disk_bytes=bytes_on_disk(probe.weights_bytes),
    )


def _remembered_s(
    timing: StepTiming, part: EvaluatingTrain, tokens: Callable[[EvaluatingTrain], int]
) -> float:
    """Return the seconds of an evaluation; of an unknown part by the tokens of a known one."""
    if part in timing.evaluation_s:
        return timing.evaluation_s[part]
    known, seconds = next(iter(timing.evaluation_s.items()))
    reading_s = max(0.0, seconds - EVALUATION_OVERHEAD_S)
    return EVALUATION_OVERHEAD_S + reading_s * tokens(part) / tokens(known)
