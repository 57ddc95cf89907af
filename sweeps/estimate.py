"""What a sweep will take, from a few real steps of each shape on this machine."""

from __future__ import annotations

import logging
import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from random import Random

import torch

from bigram_models import FittedModel, LanguageModel
from sweeps.sizes import check_memory, training_bytes
from trainables.batches import WindowSampler, initial_stream, stream
from trainables.config import TrainingConfig, TrialConfig
from trainables.corpus import Corpus
from trainables.evaluation import EVALUATION_TOKENS, exact_loss, next_token_loss
from trainables.timing import one_thread
from trainables.training import Splits

logger = logging.getLogger(__name__)

TIMED_STEPS = 5
TIMED_S = 0.05  # of steps, at least one
PROBING_S = 2.0  # shapes that come later than this are taken to cost what the others do
WORKER_BYTES = 450 << 20  # of a Ray worker with torch, before its trial
STARTUP_S = 10.0  # Ray, the workers and the tracking store
TRIAL_OVERHEAD_S = 0.15
WEIGHTS_ON_DISK = 8  # two checkpoints with both moments, the artifact and MLflow's copy of it
TRIAL_DISK_BYTES = 64 << 10  # text, configuration, and rows in both databases


@dataclass(frozen=True)
class Cost:
    """Of one trial: seconds on one slot, bytes of memory beyond the worker itself, and of disk."""

    seconds: float
    memory_bytes: int
    disk_bytes: int


@dataclass(frozen=True)
class Probe:
    """What was measured of one shape; of a trial that cannot be timed, nothing."""

    step_s: float = 0.0  # of an update; none for a model that is fitted, not trained
    token_s: float = 0.0  # of the evaluation, of one token
    memory_bytes: float = 0.0
    weights_bytes: float = 0.0

    @staticmethod
    def mean(probes: Sequence[Probe]) -> Probe:
        """Of some shapes, for one that was not measured."""
        return Probe(*map(statistics.fmean, zip(*map(astuple, probes), strict=True)))

    def cost(self, training: TrainingConfig, splits: Splits) -> Cost:
        """The cost of a trial of this shape."""
        tokens = len(splits.train) + len(splits.validation)
        if training.evaluation != "exact":
            tokens = 2 * training.eval_batches * training.batch_size * training.block_size
        evaluations = math.ceil(training.max_steps / training.eval_every) if self.step_s else 1
        return Cost(
            seconds=TRIAL_OVERHEAD_S
            + self.step_s * training.max_steps
            + self.token_s * evaluations * tokens,
            memory_bytes=int(self.memory_bytes),
            disk_bytes=TRIAL_DISK_BYTES + int(WEIGHTS_ON_DISK * self.weights_bytes),
        )


@dataclass(frozen=True)
class Estimate:
    """Of a sweep: the cost by trial key, and of the whole.

    Of trials that a search will suggest nobody knows the cost yet: they are taken to cost what its
    examples do on average, trained to their end.
    """

    costs: Mapping[str, Cost]
    mean_s: float  # seconds of a trial that is not in `costs`
    work_s: float  # seconds of all trials one after another
    disk_bytes: int

    def seconds(self, at_once: int) -> float:
        """Of the sweep, with so many trials at once."""
        longest_s = max(cost.seconds for cost in self.costs.values())
        return STARTUP_S + max(self.work_s / at_once, longest_s)

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
    examples: Sequence[TrialConfig] = (),
    coming: int = 0,
) -> Estimate:
    """Time some steps and one batch of evaluation for each shape of the sweep.

    Args:
        trials: that are to be trained.
        corpus: what they train on.
        examples: of the trials that a search will suggest; one or the other must be given.
        coming: how many these will be.
    """
    shapes = {_shape(trial): trial for trial in (*examples, *trials)}
    splits = Splits.of(corpus, torch.device("cpu"))
    probes = _probes(shapes, corpus.vocab_size, splits)
    costs = {t.key: probes[_shape(t)].cost(t.training, splits) for t in (*trials, *examples)}
    known = [costs[trial.key] for trial in trials]
    shown = [costs[example.key] for example in examples] or known
    mean_s = statistics.fmean(cost.seconds for cost in shown)
    mean_bytes = statistics.fmean(cost.disk_bytes for cost in shown)
    work_s = sum(cost.seconds for cost in known) + coming * mean_s
    return Estimate(
        costs=costs,
        mean_s=mean_s,
        work_s=work_s,
        disk_bytes=sum(cost.disk_bytes for cost in known) + int(coming * mean_bytes),
    )


def _shape(trial: TrialConfig) -> str:
    """Equal for trials whose steps cost the same, however many they are."""
    return repr((trial.model, trial.training.block_size, trial.training.batch_size))


def _probes(
    shapes: Mapping[str, TrialConfig], vocab_size: int, splits: Splits
) -> Mapping[str, Probe]:
    """A probe for each shape, of one of its trials, or the mean of others where time is short."""
    probes: dict[str, Probe] = {}
    order = list(shapes)
    Random(0).shuffle(order)  # so that those that come in time stand for the others
    deadline = time.perf_counter() + PROBING_S
    with one_thread():
        for shape in order:
            trial = shapes[shape]
            try:
                probes[shape] = probe(trial, vocab_size, splits)
            except (Exception, SystemExit) as error:  # the trial itself will fail by it, legibly
                logger.warning(
                    "%s cannot be timed, so what is estimated leaves it out: %s",
                    trial.model.variant,
                    error,
                )
                probes[shape] = Probe()
            if time.perf_counter() > deadline:
                break
    mean = Probe.mean(list(probes.values()))
    return {shape: probes.get(shape, mean) for shape in shapes}


def probe(trial: TrialConfig, vocab_size: int, splits: Splits) -> Probe:
    """What a trial's shape costs, from a few of its steps and a slice of its evaluation.

    Without the optimizer's updates: a tenth of a small step, and torch's optimizers bring its
    compiler with them, a second and 70 MiB of this process.
    """
    check_memory(trial, vocab_size)
    training = trial.training
    model = trial.model.build(vocab_size, training.block_size, initial_stream(trial.seed))
    step_s = memory_bytes = 0.0
    if isinstance(model, FittedModel):
        model.fit(splits.train)
    else:
        sampler = WindowSampler(splits.train, training.batch_size, training.block_size)
        chance = stream(trial.seed, "batches")
        _step_s(model, sampler, chance)  # warms up
        times: list[float] = []
        while len(times) < TIMED_STEPS and sum(times) < TIMED_S:
            times.append(_step_s(model, sampler, chance))
        step_s = statistics.median(times)
        memory_bytes = training_bytes(model, *sampler.draw(chance))
    weights_bytes = sum(tensor.nbytes for tensor in model.state_dict().values())
    token_s = _evaluation_s(model, splits, training.block_size)
    return Probe(step_s, token_s, memory_bytes, weights_bytes)


def _step_s(model: LanguageModel, sampler: WindowSampler, chance: torch.Generator) -> float:
    """Seconds of one batch, forward and backward."""
    started = time.perf_counter()
    inputs_BT, targets_BT = sampler.draw(chance)
    model.zero_grad()
    next_token_loss(model(inputs_BT), targets_BT).backward()  # type: ignore[no-untyped-call]
    return time.perf_counter() - started


def _evaluation_s(model: LanguageModel, splits: Splits, block_size: int) -> float:
    """Seconds of evaluating one token, from a slice of the validation split."""
    piece = splits.validation[: 1 + max(EVALUATION_TOKENS, block_size)]
    started = time.perf_counter()
    exact_loss(model, piece, block_size)
    return (time.perf_counter() - started) / (len(piece) - 1)
