"""Repeats a training step: in one launch of a CUDA graph on a GPU, in a loop elsewhere."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import torch

STEPS = 10  # in one launch
WARM_UP = 3  # steps before a capture, in which libraries allocate their memory

logger = logging.getLogger(__name__)


class Repeated:
    """Repeats one step, none of whose tensors moves in memory."""

    def __init__(self, device: torch.device) -> None:
        """Capture nothing yet; steps are captured only on a GPU."""
        self._is_capturing = device.type == "cuda"
        self._graph: torch.cuda.CUDAGraph | None = None

    def run(self, step: Callable[[], None], steps: int, within_s: float) -> int:
        """Repeat the step, at least once, for some seconds at most.

        On a GPU the steps are only launched, and the time is that of their launches.

        Args:
            step: the same function at each call. It does not wait for the device. No reference to
                it is kept, as its owner has one to this object.
            steps: how many.
            within_s: seconds after which no further step begins.

        Returns:
            How many steps were taken.
        """
        started = time.perf_counter()
        taken = 0
        while taken < steps:
            taken += self._take(step, steps - taken)
            if time.perf_counter() - started > within_s:
                break
        return taken

    def _take(self, step: Callable[[], None], left: int) -> int:
        """Take one or more of the steps that are left; return how many."""
        if left >= STEPS and self._graph:
            self._graph.replay()
            return STEPS
        if left >= WARM_UP + STEPS and self._is_capturing:
            self._capture(step)
            return WARM_UP
        step()
        return 1

    def _capture(self, step: Callable[[], None]) -> None:
        """Take some steps, then record the graph of those that follow."""
        self._is_capturing = False  # it is tried once
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                step()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                for _ in range(STEPS):
                    step()
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            logger.warning("the steps are taken one by one: %s", str(error).splitlines()[0])
        else:
            self._graph = graph
