"""A model of the seconds that packs take on a GPU: nothing is timed.

The constants were fitted to one NVIDIA H200, where steps of 1 to 192 trials were timed at n_embd 64
and 256 and block_size 8 and 64, and the published sweep was run with 1 and 10 seeds. They are of a
pack that has a GPU to itself: packs that share one slow each other down, which `Allocation.speed`
counts. Other GPUs, and other models, differ: see `UNCERTAIN_GPU`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from bigram_models import FittedModel
from sweeps.planning.gpu_memory import FLOAT, GpuMemory, MemberMemory
from sweeps.planning.trial_cost import (
    Costs,
    TrialCost,
    bytes_on_disk,
    evaluated_parts,
    evaluated_tokens,
)
from trainables.config import TrialConfig
from trainables.training.loop import Splits

UNCERTAIN_GPU = 0.5  # relative error of the seconds
LAUNCH_S = 8e-5  # of a step, however small it is
STEP_S_PER_BYTE = 1.9e-12  # of `MemberMemory.step_bytes`
STEP_S_PER_PARAMETER = 1.3e-10  # of the optimizer
EVALUATION_S_PER_BYTE = 3e-13  # of `MemberMemory.token_bytes` for each token
PACK_S = 1.0  # to set up a pack, and to record its steps
MEMBER_S = 0.03  # to load, save and describe a trial
REPORT_S = 0.004  # to save and report an evaluation of a trial


def step_s(memory: MemberMemory, members: int) -> float:
    """Return the seconds of a step of a pack."""
    member_s = STEP_S_PER_BYTE * memory.step_bytes + STEP_S_PER_PARAMETER * memory.parameters
    return LAUNCH_S + members * member_s


def pack_s(
    memory: MemberMemory, members: int, steps: int, evaluations: int, tokens: float
) -> float:
    """Return the seconds of a pack from its start to its end.

    Args:
        memory: of its members.
        members: how many.
        steps: of each member.
        evaluations: of each member.
        tokens: that all evaluations of a member read.
    """
    evaluations_s = EVALUATION_S_PER_BYTE * memory.token_bytes * tokens + evaluations * REPORT_S
    own_s = MEMBER_S + evaluations_s
    return PACK_S + steps * step_s(memory, members) + members * own_s


@dataclass(frozen=True)
class GpuPacks:
    """The packs of a sweep that trains on GPUs."""

    memory: GpuMemory
    members: Callable[[TrialConfig], int]  # trials of the pack of a trial


def gpu_costs(known: Mapping[str, TrialConfig], splits: Splits, packs: GpuPacks) -> Costs:
    """Return the costs of trials on GPUs, by key."""
    costs = {}
    for key, trial in known.items():
        members = packs.members(trial)
        memory = packs.memory.member(trial)
        costs[key] = TrialCost(
            seconds=gpu_seconds(trial, members, packs.memory, splits) / members,
            memory_bytes=memory.state_bytes if memory else 0,
            disk_bytes=bytes_on_disk(FLOAT * memory.parameters if memory else 0),
            members=members,
        )
    return Costs(costs, UNCERTAIN_GPU, 1.0, "by a model of its speed")


def gpu_seconds(trial: TrialConfig, members: int, memory: GpuMemory, splits: Splits) -> float:
    """Return the expected seconds of a pack of trials of one shape on a GPU."""
    known, training = memory.member(trial), trial.training
    if known is None:  # then the launches alone are counted
        known = MemberMemory(0, 0, 0, 0, training.block_size)
    takes_steps = not issubclass(trial.model.model_class, FittedModel)
    parts = evaluated_parts(training, takes_steps)
    tokens = sum(count * evaluated_tokens(training, splits, part) for part, count in parts.items())
    steps = training.last_step if takes_steps else 0
    return pack_s(known, members, steps, parts.total(), tokens)
