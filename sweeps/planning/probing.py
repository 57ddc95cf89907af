"""Times of steps and evaluations: measured for some shapes, predicted for the others."""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import statistics
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from random import Random

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.overrides import TorchFunctionMode

from bigram_models import FittedModel, LanguageModel, TableModel
from sweeps.planning.sizes import check_memory, training_bytes
from trainables.config import TrialConfig
from trainables.data.batches import WindowSampler, initial_stream, stream
from trainables.errors import UserError, type_and_message
from trainables.own_modules import silenced
from trainables.training.evaluation import (
    EVALUATION_TOKENS,
    are_tables,
    batch_loss,
    exact_loss,
    next_token_loss,
)
from trainables.training.loop import Splits
from trainables.training.timing import one_thread

Numbers = NDArray[np.float64]

logger = logging.getLogger(__name__)

TIMED_STEPS = 10
TIMED_S = 0.05  # of steps, at least one
PROBING_S = 0.7  # seconds; then the other shapes are predicted
COUNTING_S = 0.4  # seconds; then the other shapes get the mean of those before
PRODUCTS = {"matmul": 0, "__matmul__": 0, "mm": 0, "bmm": 0, "linear": 0, "addmm": 1, "baddbmm": 1}


@dataclass(frozen=True)
class Probe:
    """Measurements of one shape; all zero if it cannot be timed.

    Times are the shortest of several, as other work on the machine can only add to them.
    """

    step_s: float = 0.0  # of an update; 0 for a model that is fitted, not trained
    token_s: float = 0.0  # of evaluating one token
    memory_bytes: float = 0.0
    weights_bytes: float = 0.0
    usual_step_s: float = 0.0  # the median, which is longer on a busy machine


@dataclass(frozen=True)
class Probes:
    """Probes of all shapes of a sweep."""

    by_shape: Mapping[str, Probe]
    predicted: frozenset[str]  # the shapes that were not timed

    @property
    def busy(self) -> float:
        """Ratio of the median step to the shortest: about 1 on a quiet machine."""
        timed = [self.by_shape[name] for name in self.by_shape if name not in self.predicted]
        shortest_s = sum(timing.step_s for timing in timed)
        return sum(timing.usual_step_s for timing in timed) / shortest_s if shortest_s else 1.0


def shape(trial: TrialConfig) -> str:
    """Return a text that is equal for trials whose steps cost the same."""
    return repr((trial.model, trial.training.block_size, trial.training.batch_size))


def probe_all(shapes: Mapping[str, TrialConfig], vocab_size: int, splits: Splits) -> Probes:
    """Probe one trial of each shape for at most about `PROBING_S`, and predict the others.

    Args:
        shapes: a trial of each shape.
        vocab_size: of the corpus.
        splits: the corpus.
    """
    largest = max(shapes, key=lambda name: _size(shapes[name]))  # decides the memory of the sweep
    others = [name for name in shapes if name != largest]
    Random(0).shuffle(others)  # so that those that are timed represent the rest
    found: dict[str, Probe] = {}
    deadline = time.perf_counter() + PROBING_S
    with one_thread():
        for name in (largest, *others):
            found[name] = _probe_or_warn(shapes[name], vocab_size, splits)
            if time.perf_counter() > deadline:
                break
        left = frozenset(shapes.keys() - found.keys())
        # Tables take their steps and evaluations from counts: their times say nothing of others.
        for is_table in {_is_table(shapes[name]) for name in left}:
            alike = {name: each for name, each in shapes.items() if _is_table(each) is is_table}
            timed = {name: found[name] for name in alike if name in found} or dict(found)
            alike |= {name: shapes[name] for name in timed}
            found |= _predicted(alike, timed, vocab_size)
    return Probes(found, left)


def _is_table(trial: TrialConfig) -> bool:
    return issubclass(trial.model.model_class, TableModel)


def _probe_or_warn(trial: TrialConfig, vocab_size: int, splits: Splits) -> Probe:
    """Probe a trial; log a warning and return zeros if it fails."""
    try:
        with silenced():
            return probe(trial, vocab_size, splits)
    except (Exception, SystemExit) as error:  # the trial itself will fail, with its reason
        logger.warning(
            "%s cannot be timed, so what is estimated leaves it out: %s",
            trial.model.variant,
            error if isinstance(error, UserError) else type_and_message(error),
        )
        return Probe()


def probe(trial: TrialConfig, vocab_size: int, splits: Splits) -> Probe:
    """Time a few steps and a slice of the evaluation of a trial.

    The optimizer's updates are left out: they are a tenth of a small step, and torch's optimizers
    import its compiler, which takes a second and 70 MiB of this process.
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
        generator = stream(trial.seed, "batches")
        _step_s(model, sampler, generator)  # warms up
        while len(times) < TIMED_STEPS and (sum(times) < TIMED_S or len(times) < 2):
            times.append(_step_s(model, sampler, generator))
        memory_bytes = training_bytes(model, *sampler.draw(generator))
    return Probe(
        step_s=min(times, default=0.0),
        token_s=min(_evaluation_s(model, splits, training.block_size) for _ in range(2)),
        memory_bytes=memory_bytes,
        weights_bytes=sum(tensor.nbytes for tensor in model.state_dict().values()),
        usual_step_s=statistics.median(times) if times else 0.0,
    )


def _step_s(model: LanguageModel, sampler: WindowSampler, generator: torch.Generator) -> float:
    """Return the seconds of one batch, forward and backward."""
    started = time.perf_counter()
    inputs_BT, targets_BT = sampler.draw(generator)
    model.zero_grad()
    batch_loss(model, inputs_BT, targets_BT).backward()  # type: ignore[no-untyped-call]
    return time.perf_counter() - started


def _evaluation_s(model: LanguageModel, splits: Splits, block_size: int) -> float:
    """Return the seconds of evaluating one token, from a slice of the validation split.

    Tables are evaluated on the whole split, of which most time goes into counting it.
    """
    few = len(splits.validation) if are_tables([model]) else 1 + max(EVALUATION_TOKENS, block_size)
    piece = splits.validation[:few]
    started = time.perf_counter()
    exact_loss(model, piece, block_size)
    return (time.perf_counter() - started) / (len(piece) - 1)


def _predicted(
    shapes: Mapping[str, TrialConfig], timed: Mapping[str, Probe], vocab_size: int
) -> dict[str, Probe]:
    """Predict the probes of the shapes that were not timed, from their operations and bytes."""
    counts: dict[str, Numbers] = {}
    deadline = time.perf_counter() + COUNTING_S
    known = [name for name in timed if timed[name].step_s]
    unknown = [name for name in shapes if name not in timed]
    for name in (*known, *unknown):
        if time.perf_counter() > deadline:
            break
        with silenced(), contextlib.suppress(Exception, SystemExit):  # as in `_probe_or_warn`
            counts[name] = _count(shapes[name], vocab_size)
    mean = mean_probe(timed.values())
    found = dict.fromkeys(unknown, mean)
    known = [name for name in known if name in counts]
    if len(known) < 2:
        return found
    work = np.array([counts[name] for name in known])
    tokens = np.array([_tokens(shapes[name]) for name in known])
    step = _fit(work, np.array([timed[name].step_s for name in known]))
    token = _fit(work / tokens[:, None], np.array([timed[name].token_s for name in known]))
    for name in found.keys() & counts.keys():
        step_s = float(step @ counts[name])
        token_s = float(token @ counts[name]) / _tokens(shapes[name])
        found[name] = replace(mean, step_s=step_s, token_s=token_s, usual_step_s=step_s)
    return found


def mean_probe(probes: Collection[Probe]) -> Probe:
    """Return the mean of each measurement over probes, of which there is at least one."""
    columns = zip(*map(astuple, probes), strict=True)
    return Probe(*map(statistics.fmean, columns))


def _fit(work: Numbers, seconds: Numbers) -> Numbers:
    """Fit the seconds of each kind of work by non-negative least squares of relative errors.

    Args:
        work: operations, multiplications and bytes, a row for each shape.
        seconds: measured for each shape. The fit reproduces their sum exactly.

    Returns:
        The seconds of an operation, of a multiplication and of a byte.
    """
    scale = work.max(axis=0)
    scale[scale == 0] = 1
    found = _not_negative(work / scale / seconds[:, None])
    rates: Numbers = found / scale
    rates *= seconds.sum() / (work @ rates).sum()
    return rates


def _not_negative(rows: Numbers) -> Numbers:
    """Return the least-squares solution of rows @ x = 1 without negative numbers.

    There are few columns, so it is the best of all choices of columns that may be positive.
    """
    best, best_error = np.zeros(rows.shape[1]), math.inf
    columns = range(rows.shape[1])
    for size in range(1, rows.shape[1] + 1):
        for chosen in map(list, itertools.combinations(columns, size)):
            found = np.zeros(rows.shape[1])
            found[chosen] = np.linalg.lstsq(rows[:, chosen], np.ones(len(rows)), rcond=None)[0]
            error = float(np.square(rows @ found - 1).sum())
            if (found >= 0).all() and error < best_error:
                best, best_error = found, error
    return best


def _size(trial: TrialConfig) -> float:
    """Return a number that roughly orders trials by the memory that they need."""
    sizes = [value for value in trial.model.values.values() if type(value) is int]
    return math.prod([trial.training.block_size, trial.training.batch_size, *sizes])


def _tokens(trial: TrialConfig) -> int:
    """Return the tokens of a batch."""
    return trial.training.batch_size * trial.training.block_size


def _count(trial: TrialConfig, vocab_size: int) -> Numbers:
    """Count the operations, multiplications and bytes of one forward pass."""
    training = trial.training
    model = trial.model.build(vocab_size, training.block_size, initial_stream(trial.seed))
    return count_of(model, training.batch_size, training.block_size)


def count_of(model: LanguageModel, batch_size: int, block_size: int) -> Numbers:
    """Count the operations, multiplications and bytes of one forward pass of a model."""
    ids_BT = torch.zeros((batch_size, block_size), dtype=torch.int64)
    with _Counting() as counting, torch.no_grad():
        next_token_loss(model(ids_BT), ids_BT)
    return np.array([counting.operations, counting.multiplications, counting.bytes], dtype=float)


class _Counting(TorchFunctionMode):
    """Counts the operations of a model; a dispatch mode would see more, but loads a compiler."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = self.multiplications = self.bytes = 0

    def __torch_function__(
        self,
        function: Callable[..., object],
        types: object,
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        result = function(*args, **(kwargs or {}))
        inputs = list(_tensors((args, kwargs)))
        known = {tensor.untyped_storage().data_ptr() for tensor in inputs}
        results = [t for t in _tensors(result) if t.untyped_storage().data_ptr() not in known]
        if results:  # neither an input nor a view of one
            self.operations += 1
            self.bytes += sum(tensor.nbytes for tensor in (*inputs, *results))
            name = getattr(function, "__name__", "")
            if name in PRODUCTS:
                self.multiplications += results[0].numel() * inputs[PRODUCTS[name]].shape[-1]
        return result


def _tensors(given: object) -> Iterator[Tensor]:
    """Yield the tensors of a value and of the collections in it."""
    if isinstance(given, Tensor):
        yield given
    elif isinstance(given, Mapping):
        yield from _tensors(tuple(given.values()))
    elif isinstance(given, Sequence) and not isinstance(given, str):
        for item in given:
            yield from _tensors(item)
