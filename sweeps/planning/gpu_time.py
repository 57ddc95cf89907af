"""A model of the seconds that packs take on a GPU: nothing is timed.

The constants were fitted to one NVIDIA H200, where steps of 1 to 192 trials were timed at n_embd 64
and 256 and block_size 8 and 64. Other GPUs, and other models, differ: see `UNCERTAIN_GPU`.
"""

from __future__ import annotations

from sweeps.planning.gpu_memory import MemberMemory

UNCERTAIN_GPU = 0.5  # relative error of the seconds
LAUNCH_S = 8e-5  # of a step, however small it is
STEP_S_PER_BYTE = 1.9e-12  # of `MemberMemory.step_bytes`
STEP_S_PER_PARAMETER = 1.3e-10  # of the optimizer
EVALUATION_S_PER_BYTE = 3e-13  # of `MemberMemory.token_bytes` for each token
PACK_S = 1.0  # to set up a pack, and to record its steps
MEMBER_S = 0.1  # to load, save and describe a trial
REPORT_S = 0.02  # to save and report an evaluation of a trial


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
        tokens: that an evaluation of a member reads.
    """
    evaluation_s = EVALUATION_S_PER_BYTE * memory.token_bytes * tokens + REPORT_S
    own_s = MEMBER_S + evaluations * evaluation_s
    return PACK_S + steps * step_s(memory, members) + members * own_s
