"""Times of steps and evaluations: measured for some shapes, predicted for the others."""

from __future__ import annotations

import contextlib
import logging
import math
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from random import Random
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.overrides import TorchFunctionMode

from bigram_models import FittedModel, LanguageModel
from sweeps.planning.sizes import check_memory, training_bytes
from trainables.config import TrialConfig
from trainables.data.batches import WindowSampler, initial_stream, stream
from trainables.errors import UserError, type_and_message
from trainables.own_modules import silenced
from trainables.training.evaluation import EVALUATION_TOKENS, exact_loss, next_token_loss
from trainables.training.loop import Splits
from trainables.training.timing import one_thread

Numbers = NDArray[np.float64]

logger = logging.getLogger(__name__)

TIMED_STEPS = 10
TIMED_S = 0.05  # of steps, at least one
PROBING_S = 4.0  # seconds; the shapes that are left are predicted
COUNTING_S = 2.0  # seconds; those that are left then get the mean of the timed ones
PRODUCTS = {"matmul": 0, "__matmul__": 0, "mm": 0, "bmm": 0, "linear": 0, "addmm": 1, "baddbmm": 1}


@dataclass(frozen=True)
class Probe:
    """Measurements of one shape; all zero if it cannot be timed.

    The shortest of several times counts: other work on the machine only adds to it.
    """

    step_s: float = 0.0  # of an update; none for a model that is fitted, not trained
    token_s: float = 0.0  # of the evaluation, of one token
    memory_bytes: float = 0.0
    weights_bytes: float = 0.0
    usual_step_s: float = 0.0  # the median, which is longer where the machine is busy


@dataclass(frozen=True)
class Probes:
    """Probes of all shapes of a sweep."""

    of: Mapping[str, Probe]  # by shape
    predicted: frozenset[str]  # the shapes that were not timed

    @property
    def busy(self) -> float:
        """Ratio of the median step to the shortest: about 1 on a quiet machine."""
        timed = [probe for shape, probe in self.of.items() if shape not in self.predicted]
        shortest_s = sum(probe.step_s for probe in timed)
        return sum(probe.usual_step_s for probe in timed) / shortest_s if shortest_s else 1.0


def shape(trial: TrialConfig) -> str:
    """Equal for trials whose steps cost the same, however many they are."""
    return repr((trial.model, trial.training.block_size, trial.training.batch_size))


def probe_all(shapes: Mapping[str, TrialConfig], vocab_size: int, splits: Splits) -> Probes:
    """Probe one trial of each shape, as far as `PROBING_S` goes, and predict the others.

    Args:
        shapes: a trial of each shape.
        vocab_size: of the corpus.
        splits: the corpus.
    """
    largest = max(shapes, key=lambda each: _size(shapes[each]))  # decides what memory it takes
    others = [each for each in shapes if each != largest]
    Random(0).shuffle(others)  # so that those that come in time stand for the rest
    found: dict[str, Probe] = {}
    deadline = time.perf_counter() + PROBING_S
    with one_thread():
        for each in (largest, *others):
            found[each] = _probed(shapes[each], vocab_size, splits)
            if time.perf_counter() > deadline:
                break
        left = shapes.keys() - found.keys()
        if left:
            found |= _predicted(shapes, found, vocab_size)
    return Probes(found, frozenset(left))


def _probed(trial: TrialConfig, vocab_size: int, splits: Splits) -> Probe:
    try:
        with silenced():
            return probe(trial, vocab_size, splits)
    except (Exception, SystemExit) as error:  # the trial itself will fail by it, legibly
        logger.warning(
            "%s cannot be timed, so what is estimated leaves it out: %s",
            trial.model.variant,
            error if isinstance(error, UserError) else type_and_message(error),
        )
        return Probe()


def probe(trial: TrialConfig, vocab_size: int, splits: Splits) -> Probe:
    """Time a few steps and a slice of the evaluation of a trial.

    Without the optimizer's updates: a tenth of a small step, and torch's optimizers bring its
    compiler with them, a second and 70 MiB of this process.
    """
    check_memory(trial, vocab_size)
    training = trial.training
    model = trial.model.build(vocab_size, training.block_size, initial_stream(trial.seed))
    times: list[float] = []
    memory_bytes = 0.0
    if isinstance(model, FittedModel):
        model.fit(splits.train)
    else:
        sampler = WindowSampler(splits.train, training.batch_size, training.block_size)
        chance = stream(trial.seed, "batches")
        _step_s(model, sampler, chance)  # warms up
        while len(times) < TIMED_STEPS and (sum(times) < TIMED_S or len(times) < 2):
            times.append(_step_s(model, sampler, chance))
        memory_bytes = training_bytes(model, *sampler.draw(chance))
    return Probe(
        step_s=min(times, default=0.0),
        token_s=min(_evaluation_s(model, splits, training.block_size) for _ in range(2)),
        memory_bytes=memory_bytes,
        weights_bytes=sum(tensor.nbytes for tensor in model.state_dict().values()),
        usual_step_s=statistics.median(times) if times else 0.0,
    )


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


def _predicted(
    shapes: Mapping[str, TrialConfig], timed: Mapping[str, Probe], vocab_size: int
) -> dict[str, Probe]:
    """Predict the probes of the shapes that were not timed, from their operations and bytes."""
    counts: dict[str, Numbers] = {}
    deadline = time.perf_counter() + COUNTING_S
    known = [each for each in timed if timed[each].step_s]
    unknown = [each for each in shapes if each not in timed]
    for each in (*known, *unknown):
        if time.perf_counter() > deadline:
            break
        with silenced(), contextlib.suppress(Exception, SystemExit):  # as in `_probed`
            counts[each] = _count(shapes[each], vocab_size)
    columns = zip(*map(astuple, timed.values()), strict=True)
    mean = Probe(*map(statistics.fmean, columns))
    found = dict.fromkeys(unknown, mean)
    known = [each for each in known if each in counts]
    if len(known) < 2:
        return found
    work = np.array([counts[each] for each in known])
    tokens = np.array([_tokens(shapes[each]) for each in known])
    step = _fit(work, np.array([timed[each].step_s for each in known]))
    token = _fit(work / tokens[:, None], np.array([timed[each].token_s for each in known]))
    for each in found.keys() & counts.keys():
        step_s = float(step @ counts[each])
        token_s = float(token @ counts[each]) / _tokens(shapes[each])
        found[each] = replace(mean, step_s=step_s, token_s=token_s, usual_step_s=step_s)
    return found


def _fit(work: Numbers, seconds: Numbers) -> Numbers:
    """Fit the seconds of each kind of work by non-negative least squares of relative errors.

    Args:
        work: operations, multiplications and bytes, a row for each shape.
        seconds: measured for each shape. Their sum is reproduced exactly.
    """
    from scipy.optimize import nnls  # a second to import, and seldom needed

    scale = work.max(axis=0)
    scale[scale == 0] = 1
    found, _ = nnls(work / scale / seconds[:, None], np.ones(len(seconds)))
    rates: Numbers = found / scale
    rates *= seconds.sum() / (work @ rates).sum()
    return rates


def _size(trial: TrialConfig) -> float:
    """Roughly in the order of the memory that trials take."""
    sizes = [value for value in trial.model.values.values() if type(value) is int]
    return math.prod([trial.training.block_size, trial.training.batch_size, *sizes])


def _tokens(trial: TrialConfig) -> int:
    return trial.training.batch_size * trial.training.block_size


def _count(trial: TrialConfig, vocab_size: int) -> Numbers:
    """Count the operations, multiplications and bytes of one forward pass."""
    training = trial.training
    model = trial.model.build(vocab_size, training.block_size, initial_stream(trial.seed))
    ids_BT = torch.zeros((training.batch_size, training.block_size), dtype=torch.int64)
    with _Counting() as counting, torch.no_grad():
        next_token_loss(model(ids_BT), ids_BT)
    return np.array([counting.operations, counting.multiplications, counting.bytes], dtype=float)


class _Counting(TorchFunctionMode):
    """Counts the operations of a model. A dispatch mode would count more, but loads a compiler."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = self.multiplications = self.bytes = 0

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        inputs = list(_tensors((args, kwargs)))
        known = {each.untyped_storage().data_ptr() for each in inputs}
        results = [one for one in _tensors(result) if one.untyped_storage().data_ptr() not in known]
        if results:  # neither a view of what was given, nor the same
            self.operations += 1
            self.bytes += sum(each.nbytes for each in (*inputs, *results))
            name = getattr(function, "__name__", "")
            if name in PRODUCTS:
                self.multiplications += results[0].numel() * inputs[PRODUCTS[name]].shape[-1]
        return result


def _tensors(given: Any) -> Iterator[Tensor]:
    if isinstance(given, Tensor):
        yield given
    elif isinstance(given, Mapping):
        yield from _tensors(tuple(given.values()))
    elif isinstance(given, Sequence) and not isinstance(given, str):
        for each in given:
            yield from _tensors(each)
