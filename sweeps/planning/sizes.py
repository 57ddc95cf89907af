"""Limits of a sweep: number of trials, block size, and memory of a trial.

All are computed from counts and shapes, before anything is allocated.
"""

from __future__ import annotations

import heapq
import math
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from bigram_models import FittedModel, LanguageModel
from sweeps.planning.arms import ArmTrial
from sweeps.spec.search_spec import MOST_TRIALS
from sweeps.spec.sweep_file import SweepFile
from trainables.config import TrialConfig
from trainables.data.batches import initial_stream
from trainables.data.corpus import Corpus
from trainables.errors import UserError
from trainables.own_modules import silenced
from trainables.training.evaluation import next_token_loss

FAR = 10  # times this machine's memory: a machine of a cluster may be larger, but not that much
SMALL_BYTES = 1 << 30  # of the largest tensor; smaller shapes are not checked
MOST_CHECKED = 20  # shapes, the largest ones first
SHAPE_SETTINGS = {"block_size", "batch_size"}  # of the training
CGROUP = Path("/sys/fs/cgroup/memory.max")


def check_counts(sweep: SweepFile, source: str) -> None:
    """Refuse a sweep of too many trials, before any of them is made.

    Raises:
        UserError: grids, seeds and the search multiply to more than `MOST_TRIALS`, or to more
            trials than `decide` allows.
    """
    seeds, confirming = len(sweep.seeds), len(sweep.confirm_seeds)
    grid_seeds = len(sweep.grid_seeds)
    trials = studies = examples = 0
    for arm in sweep.arms:
        combinations = math.prod(len(values) for values in arm.grid.values())
        if arm.search:
            studies += combinations
            ends = sum(len(parameter.choices or "  ") for parameter in arm.search.values())
            examples += combinations * ends
        else:
            trials += combinations * grid_seeds
    if sweep.is_searched:
        trials += (sweep.search.budget or 0) * seeds
        trials += studies * (sweep.search.confirm.top if sweep.search.confirm else 0) * confirming
    if trials > MOST_TRIALS:
        raise UserError(
            f"{source}: these are {trials:,} trials, and a sweep has {MOST_TRIALS:,} at most; give"
            " fewer values or seeds, or several sweeps"
        )
    if sweep.decide and sweep.decide.trials and trials > sweep.decide.trials:
        raise UserError(
            f"{source}: decide.trials={sweep.decide.trials} is less than the {trials:,} trials"
            " with which the sweep begins; give more, or fewer `replicates`"
        )
    if examples > MOST_TRIALS:
        raise UserError(
            f"{source}: its {studies:,} studies have {examples:,} choices and ends of ranges in"
            f" all, and a sweep has {MOST_TRIALS:,} at most; give fewer, or several sweeps"
        )


def check_blocks(trials: Iterable[ArmTrial], corpus: Corpus, source: str) -> None:
    """Refuse trials whose block size is too large for the corpus.

    Raises:
        UserError: the message names the arm and the largest block size.
    """
    for index, trial in trials:
        try:
            corpus.check_block(trial.training.block_size)
        except UserError as error:
            raise UserError(f"{source}: arms[{index}]: {error}") from None


def check_sizes(
    trials: Iterable[TrialConfig], vocab_size: int, source: str, times: float = FAR
) -> None:
    """Refuse trials that need more than `times` the memory of this machine.

    Raises:
        UserError: the message says how much memory a trial needs.
    """
    shapes = {repr(_sizes(trial)): trial for trial in trials}
    largest = heapq.nlargest(MOST_CHECKED, shapes.values(), lambda trial: math.prod(_sizes(trial)))
    for trial in largest:
        if needed_bytes(trial, vocab_size) > times * memory_bytes():
            raise UserError(f"{source}: {_in_words(trial, vocab_size)}")


def check_memory(trial: TrialConfig, vocab_size: int) -> None:
    """Refuse a trial that does not fit into the memory of this machine.

    Raises:
        UserError: the message says how much memory it needs.
    """
    if not fits_here(trial, vocab_size):
        raise UserError(_in_words(trial, vocab_size))


def fits_here(trial: TrialConfig, vocab_size: int) -> bool:
    """Return whether a trial fits into the memory of this machine."""
    return needed_bytes(trial, vocab_size) <= memory_bytes()


def needed_bytes(trial: TrialConfig, vocab_size: int) -> float:
    """Return the least bytes of memory that a trial needs.

    It is 0 for the common shapes, which fit everywhere, and infinite for sizes that overflow.
    """
    training = trial.training
    tokens, longest = training.batch_size * training.block_size, training.block_size
    sizes = _sizes(trial)
    largest = max(tokens, vocab_size, *sizes) * max(longest, vocab_size, *sizes)
    if largest * 4 < SMALL_BYTES:
        return 0
    is_fitted = issubclass(trial.model.model_class, FittedModel)
    if is_fitted and training.evaluation == "exact":
        return 0
    least_bytes = 16 * tokens  # inputs and targets
    if is_fitted:
        return least_bytes
    try:
        with torch.device("meta"), _WithoutGenerators(), silenced():
            model = trial.model.build(vocab_size, longest, initial_stream(trial.seed))
            least_bytes += 4 * sum(parameter.nbytes for parameter in model.parameters())
            ids_BT = torch.empty((training.batch_size, longest), dtype=torch.int64)
            return training_bytes(model, ids_BT, ids_BT)
    except Exception as error:
        if "overflow" in str(error).lower():  # of a size in bytes
            return math.inf
        return least_bytes  # a user's own model may read its values, for example


def training_bytes(model: LanguageModel, inputs_BT: Tensor, targets_BT: Tensor) -> int:
    """Return the bytes of weights, gradients, both moments, and tensors saved for backward."""
    saved = saved_bytes(lambda: next_token_loss(model(inputs_BT), targets_BT))
    return saved + 4 * sum(parameter.nbytes for parameter in model.parameters())


def saved_bytes(forward: Callable[[], Tensor]) -> int:
    """Return the bytes of the tensors that a computation saves for its backward pass."""
    saved = 0

    def keep(tensor: Tensor) -> Tensor:
        nonlocal saved
        saved += tensor.nbytes
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        forward()
    return saved


def memory_bytes() -> int:
    """Return the memory of this machine, or of this container."""
    machine_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        return min(machine_bytes, int(CGROUP.read_text()))
    except (OSError, ValueError):  # not in a container, or without a limit
        return machine_bytes


class _WithoutGenerators(TorchFunctionMode):
    """Leaves out the random generator of torch functions: meta tensors cannot be drawn from one."""

    def __torch_function__(
        self,
        function: Callable[..., object],
        types: object,
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        kwargs = {n: v for n, v in (kwargs or {}).items() if n != "generator"}
        return function(*args, **kwargs)


def _sizes(trial: TrialConfig) -> list[int]:
    """Return the whole numbers, without 0, that decide the shapes of a trial."""
    settings = trial.model.to_dict().values()
    whole = [abs(value) for value in settings if type(value) is int and value]
    return [trial.training.block_size, trial.training.batch_size, *whole]


def _in_words(trial: TrialConfig, vocab_size: int) -> str:
    shown = {**trial.model.to_dict(), **trial.training.model_dump(include=SHAPE_SETTINGS)}
    settings = " ".join(f"{name}={value}" for name, value in shown.items())
    needed_gib, has_gib = needed_bytes(trial, vocab_size) / 2**30, memory_bytes() / 2**30
    needed = "more than any" if math.isinf(needed_gib) else f"{needed_gib:,.0f} GiB of"
    return (
        f"a trial with {settings} takes {needed} memory, and this machine has {has_gib:,.0f} GiB;"
        " give smaller sizes"
    )
