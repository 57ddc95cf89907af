"""What a trial takes of a GPU's memory, measured, and whether it was too much. Knows no Ray."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from bigram_models import FittedModel
from trainables.config import TrainingConfig, TrialConfig
from trainables.data.corpus import Corpus
from trainables.training.evaluation import EVALUATION_TOKENS_GPU
from trainables.training.loop import Splits, TrainingDivergedError, initial_state, train

logger = logging.getLogger(__name__)

CUDA = torch.device("cuda")
STEPS = 3  # the second one meets the optimizer's moments
BATCHES = 2  # of an evaluation
MEASURING_S = 10.0  # trials that come later than this are not measured
ANOTHER_PROCESS = "import torch; print(torch.cuda.mem_get_info()[0])"
ANOTHER_S = 120.0
# Words of CUDA and its libraries, which have no OutOfMemoryError of their own.
NO_MEMORY = ("CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")


@dataclass(frozen=True)
class GpuUse:
    """What a trial takes of one GPU.

    A trial that runs out of memory where nothing else runs takes all there is.
    """

    trial_bytes: int  # of its process: CUDA's context, libraries, and the allocator at its peak
    gpu_bytes: int  # what there is for trials: all but what other processes have


def measure(
    trials: Sequence[TrialConfig], corpus: Corpus, device: torch.device = CUDA
) -> GpuUse | None:
    """Train each trial for some steps and evaluate it; the one that takes most is what counts.

    To be called once in a process, which has not used the GPU before, and with nothing else that
    begins or ends there.

    Args:
        trials: those that may need most come first.
        corpus: what they train on.
        device: the GPU.

    Returns:
        None where torch cannot use a GPU.

    Raises:
        RuntimeError: the GPU takes no second process.
    """
    if not torch.cuda.is_available():
        return None
    # A process cannot see what its own context takes, for it cannot look before it has one.
    free_bytes, _ = torch.cuda.mem_get_info(device)
    context_bytes = max(0, free_bytes - _free_beside_another())
    gpu_bytes = free_bytes + context_bytes
    peak_bytes = _peak_bytes(trials, corpus, device, gpu_bytes)
    taken_bytes = free_bytes - torch.cuda.mem_get_info(device)[0]
    libraries_bytes = max(0, taken_bytes - torch.cuda.memory_reserved(device))
    return GpuUse(min(gpu_bytes, context_bytes + libraries_bytes + peak_bytes), gpu_bytes)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a GPU had no more memory to give; a host that has none is another matter."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in NO_MEMORY)


def train_briefly(trial: TrialConfig, vocab_size: int, splits: Splits) -> None:
    """The first steps of a trial and the first batches of its evaluation, as it takes them."""
    state = initial_state(trial, vocab_size, splits.train.device)
    brief = shortened(trial.training, max_steps=STEPS, eval_every=STEPS, eval_batches=BATCHES)
    if not isinstance(state.model, FittedModel):  # which takes the whole split at once
        tokens = glanced(brief.block_size)
        splits = Splits(splits.train[:tokens], splits.validation[:tokens])
    for _ in train(state, splits, brief, trial.seed):
        pass


def shortened(training: TrainingConfig, **settings: Any) -> TrainingConfig:
    """The same steps, fewer of them, at a rate that is too low to diverge by."""
    return training.model_copy(update={"learning_rate": 1e-9, "warmup_steps": 0, **settings})


def glanced(block_size: int) -> int:
    """Tokens of a split that are some batches of its evaluation on a GPU."""
    return 1 + BATCHES * max(EVALUATION_TOKENS_GPU, block_size)


def _peak_bytes(
    trials: Sequence[TrialConfig], corpus: Corpus, device: torch.device, all_bytes: int
) -> int:
    """What torch's allocator had at most for one of the trials, with the corpus."""
    splits = Splits.of(corpus, device)
    peak_bytes = torch.cuda.memory_reserved(device)
    deadline_s = time.monotonic() + MEASURING_S
    for trial in trials:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        try:
            train_briefly(trial, corpus.vocab_size, splits)
        except TrainingDivergedError:
            pass  # it took its memory all the same
        except Exception as error:
            if is_out_of_memory(error):
                return all_bytes
            # The trial itself will fail by it, alone and legibly.
            logger.warning("%s cannot be measured: %s", trial.model.variant, error)
        peak_bytes = max(peak_bytes, torch.cuda.max_memory_reserved(device))
        if time.monotonic() > deadline_s:
            break
    return peak_bytes


def _free_beside_another() -> int:
    """The free bytes of the GPU while another process has a context there, and nothing else."""
    command = [sys.executable, "-c", ANOTHER_PROCESS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=ANOTHER_S, check=False)
    if done.returncode != 0:
        why = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
        raise RuntimeError(f"the GPU takes no second process: {why}")
    return int(done.stdout.split()[-1])
