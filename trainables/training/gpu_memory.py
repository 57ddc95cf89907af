"""Measures the GPU memory of trials, and recognises errors by a lack of it. Knows no Ray."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from bigram_models import FittedModel
from trainables.config import TrainingConfig, TrialConfig
from trainables.data.corpus import Corpus
from trainables.training.evaluation import EVALUATION_TOKENS_GPU
from trainables.training.loop import Splits, TrainingDivergedError, initial_state, train

logger = logging.getLogger(__name__)

CUDA = torch.device("cuda")
STEPS = 3  # from the second one on the optimizer has its moments
BATCHES = 2  # of an evaluation
MEASURING_S = 10.0  # after which no further trial is measured
ANOTHER_PROCESS = "import torch; print(torch.cuda.mem_get_info()[0])"
ANOTHER_S = 120.0
# Messages of CUDA and its libraries, which raise no OutOfMemoryError.
NO_MEMORY = ("CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")


@dataclass(frozen=True)
class GpuUse:
    """Memory of a trial on one GPU. A trial that needs more than the GPU has takes all of it."""

    trial_bytes: int  # of its process: CUDA's context, libraries, and the allocator at its peak
    gpu_bytes: int  # for trials: all but what other processes have


def measure(
    trials: Sequence[TrialConfig], corpus: Corpus, device: torch.device = CUDA
) -> GpuUse | None:
    """Measure the memory of the largest of some trials, by training each for some steps.

    Call this once in a process, which has not used the GPU before, while no other process starts
    or stops using the GPU.

    Args:
        trials: those that may need most first.
        corpus: what they train on.
        device: the GPU.

    Returns:
        The memory, or None if torch cannot use a GPU.

    Raises:
        RuntimeError: the GPU cannot be used by a second process.
    """
    if not torch.cuda.is_available():
        return None
    # A process cannot measure its own context, as it must have one to ask for the free memory.
    free_bytes, _ = torch.cuda.mem_get_info(device)
    context_bytes = max(0, free_bytes - _free_beside_another())
    gpu_bytes = free_bytes + context_bytes
    peak_bytes = _peak_bytes(trials, corpus, device, gpu_bytes)
    taken_bytes = free_bytes - torch.cuda.mem_get_info(device)[0]
    libraries_bytes = max(0, taken_bytes - torch.cuda.memory_reserved(device))
    return GpuUse(min(gpu_bytes, context_bytes + libraries_bytes + peak_bytes), gpu_bytes)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that a GPU has too little memory. The host's does not count."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in NO_MEMORY)


def train_briefly(trial: TrialConfig, vocab_size: int, splits: Splits) -> None:
    """Take the first steps of a trial and the first batches of its evaluation.

    Raises:
        TrainingDivergedError: a loss is not finite.
    """
    state = initial_state(trial, vocab_size, splits.train.device)
    brief = shortened(trial.training, max_steps=STEPS, eval_every=STEPS, eval_batches=BATCHES)
    if not isinstance(state.model, FittedModel):  # which takes the whole split at once
        tokens = glanced(brief.block_size)
        splits = Splits(splits.train[:tokens], splits.validation[:tokens])
    for _ in train(state, splits, brief, trial.seed):
        pass


def shortened(training: TrainingConfig, **settings: int | str) -> TrainingConfig:
    """Return a training of the same steps with other settings, at a rate too low to diverge."""
    return training.model_copy(update={"learning_rate": 1e-9, "warmup_steps": 0, **settings})


def glanced(block_size: int) -> int:
    """Return the number of tokens of a split that make `BATCHES` of its evaluation on a GPU."""
    return 1 + BATCHES * max(EVALUATION_TOKENS_GPU, block_size)


def _peak_bytes(
    trials: Sequence[TrialConfig], corpus: Corpus, device: torch.device, all_bytes: int
) -> int:
    """Return the highest memory of torch's allocator for any of the trials, with the corpus."""
    splits = Splits.of(corpus, device)
    peak_bytes = torch.cuda.memory_reserved(device)
    deadline_s = time.monotonic() + MEASURING_S
    for trial in trials:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        try:
            train_briefly(trial, corpus.vocab_size, splits)
        except TrainingDivergedError:
            pass  # its memory was measured nevertheless
        except Exception as error:
            if is_out_of_memory(error):
                return all_bytes
            # The trial itself will fail by it, and report it.
            logger.warning("%s cannot be measured: %s", trial.model.variant, error)
        peak_bytes = max(peak_bytes, torch.cuda.max_memory_reserved(device))
        if time.monotonic() > deadline_s:
            break
    return peak_bytes


def _free_beside_another() -> int:
    """Return the free bytes of the GPU while another process has a context there."""
    command = [sys.executable, "-c", ANOTHER_PROCESS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=ANOTHER_S, check=False)
    if done.returncode != 0:
        reason = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
        raise RuntimeError(f"the GPU takes no second process: {reason}")
    return int(done.stdout.split()[-1])
