"""Many steps in one launch on a GPU, by a CUDA graph; elsewhere a loop."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

import torch

STEPS = 10  # of a launch
WARM_UP = 3  # steps before a capture, in which libraries take the memory that they need

logger = logging.getLogger(__name__)


class Repeated:
    """Repeats one step, whose tensors all stay where they are in memory."""

    def __init__(self, generators: Sequence[torch.Generator]) -> None:
        """Capture nothing yet.

        Args:
            generators: from which the step draws; only where they are on a GPU is it captured.
        """
        self._generators = generators
        self._is_capturing = generators[0].device.type == "cuda"
        self._graph: torch.cuda.CUDAGraph | None = None

    def run(self, step: Callable[[], None], steps: int, within_s: float) -> int:
        """Repeat the step, at least once, until a time is up.

        On a GPU the steps are only begun, and the time is that of beginning them.

        Args:
            step: the same at each call, but not kept: its owner keeps this. It does not wait for
                the device.
            steps: how many.
            within_s: seconds.

        Returns:
            How often it was repeated.
        """
        started = time.perf_counter()
        taken = 0
        while taken < steps:
            taken += self._some(step, steps - taken)
            if time.perf_counter() - started > within_s:
                break
        return taken

    def _some(self, step: Callable[[], None], left: int) -> int:
        """Take some of the steps that are left; how many."""
        if left >= STEPS and self._graph:
            self._graph.replay()
            return STEPS
        if left >= WARM_UP + STEPS and self._is_capturing:
            self._capture(step)
            return WARM_UP
        step()
        return 1

    def _capture(self, step: Callable[[], None]) -> None:
        """Take the first steps as they are, then record those that come after them."""
        self._is_capturing = False  # once, whatever comes of it
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                step()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        for generator in set(self._generators):
            graph.register_generator_state(generator)
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
