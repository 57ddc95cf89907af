"""Times of steps and evaluations without timing any: from what they compute."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping

import numpy as np

from bigram_models import FittedModel
from sweeps.planning.probing import COUNTING_S, Probe, Probes, count_of, mean_probe
from trainables.config import TrialConfig
from trainables.data.batches import initial_stream
from trainables.own_modules import silenced
from trainables.training.timing import one_thread

USUAL_S = (5e-6, 1e-11, 3e-10)  # seconds of an operation, a multiplication, a byte on a CPU
BACKWARD = 2.0  # work of a backward pass, relative to the forward pass


def count_all(shapes: Mapping[str, TrialConfig], vocab_size: int) -> Probes:
    """Predict the probes of all shapes from operations and bytes, at `USUAL_S`; time nothing.

    They compare shapes with one another; on this machine all may be off by one factor.
    """
    found: dict[str, Probe] = {}
    deadline = time.perf_counter() + COUNTING_S
    with one_thread():
        for name, trial in shapes.items():
            if time.perf_counter() > deadline:
                break
            with silenced(), contextlib.suppress(Exception, SystemExit):  # as in `probe_all`
                found[name] = _counted(trial, vocab_size)
    mean = mean_probe(found.values()) if found else Probe()
    return Probes({name: found.get(name, mean) for name in shapes}, frozenset(shapes))


def _counted(trial: TrialConfig, vocab_size: int) -> Probe:
    """Predict the probe of a shape from one forward pass of one sequence."""
    training = trial.training
    model = trial.model.build(vocab_size, training.block_size, initial_stream(trial.seed))
    weights_bytes = sum(tensor.nbytes for tensor in model.state_dict().values())
    operations, multiplications, of_bytes = count_of(model, 1, training.block_size)
    work = np.array(
        [operations, multiplications * training.batch_size, of_bytes * training.batch_size]
    )
    forward_s = float(np.dot(USUAL_S, work))
    is_fitted = isinstance(model, FittedModel)
    return Probe(
        step_s=0.0 if is_fitted else forward_s * (1 + BACKWARD),
        token_s=forward_s / (training.batch_size * training.block_size),
        memory_bytes=0.0 if is_fitted else float(work[2]),
        weights_bytes=weights_bytes,
    )
