"""Buffers that the steps of a stack read and write; none of them moves in memory.

Shapes: S steps, M members, B batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import numpy.typing as npt
import torch

from trainables.config import TrainingConfig, TrialConfig
from trainables.data.batches import batch_starts
from trainables.training.adamw import adamw_scalars

STEPS = 512  # between two fillings, at most
CELLS = 1 << 23  # starts in the table, at most


class StepTable:
    """Inputs of a stack's next steps, a row for each: they are drawn and computed together.

    A step reads and writes the row whose number ``row_1`` has, and adds one to it: so all steps are
    the same sequence of operations, which a GPU can repeat.
    """

    def __init__(
        self,
        trials: Sequence[TrialConfig],
        windows: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        """Make an empty table.

        Args:
            trials: of the members, equal in batch size.
            windows: of the training split.
            device: of the stack.
            dtype: of the values that are trained.
        """
        self._trials, self._windows = trials, windows
        members, batch_size = len(trials), trials[0].training.batch_size
        self.rows = max(1, min(STEPS, CELLS // (members * batch_size)))
        self.row_1 = torch.zeros(1, dtype=torch.int64, device=device)
        self.starts_SMB = torch.zeros(
            self.rows, members, batch_size, dtype=torch.int64, device=device
        )
        self.scalars_S3M = torch.zeros(self.rows, 3, members, dtype=dtype, device=device)
        self.losses_SM = torch.zeros(self.rows, members, dtype=dtype, device=device)
        self._rates: dict[TrainingConfig, npt.NDArray[np.float64]] = {}
        self._ahead: dict[tuple[int, ...], npt.NDArray[np.int64]] = {}
        self._filled = 0  # rows

    def fill(self, first_steps: Sequence[int], rows: int) -> None:
        """Fill the first rows for the next steps of each member.

        Args:
            first_steps: updates of each member so far.
            rows: how many, at most ``self.rows``.
        """
        starts_SMB = self._ahead.pop(tuple(first_steps), None)
        if starts_SMB is None or len(starts_SMB) < rows:
            starts_SMB = self._drawn(first_steps, rows)
        factors_S3 = cache(
            lambda training, first: adamw_scalars(
                self._rates_of(training)[first : first + rows], first
            )
        )  # of members with equal ones once
        members = zip(self._trials, first_steps, strict=True)
        scalars_S3M = np.stack(
            [factors_S3(trial.training, first) for trial, first in members], axis=-1
        )
        self._filled = rows
        self.row_1.zero_()
        self.starts_SMB[:rows] = torch.from_numpy(starts_SMB[:rows]).to(self.row_1.device)
        self.scalars_S3M[:rows] = torch.from_numpy(scalars_S3M).to(self.scalars_S3M)

    def draw_ahead(self, first_steps: Sequence[int]) -> None:
        """Draw the starts of as many steps as were filled last, while the device is busy."""
        self._ahead = {}
        if first_steps[0] < self._trials[0].training.last_step:
            self._ahead = {tuple(first_steps): self._drawn(first_steps, self._filled)}

    def _drawn(self, first_steps: Sequence[int], rows: int) -> npt.NDArray[np.int64]:
        """Return the starts of windows (S, M, B)."""
        starts = np.empty((rows, *self.starts_SMB.shape[1:]), np.int64)
        for i, (trial, first) in enumerate(zip(self._trials, first_steps, strict=True)):
            starts[:, i] = batch_starts(
                trial.seed, first, rows, trial.training.batch_size, self._windows
            )
        return starts

    def _rates_of(self, training: TrainingConfig) -> npt.NDArray[np.float64]:
        """Return the learning rates of all steps of a training."""
        if training not in self._rates:
            rates = map(training.learning_rate_at, range(training.max_steps))
            self._rates[training] = np.fromiter(rates, np.float64, training.max_steps)
        return self._rates[training]

    def first_bad(self, rows: int) -> dict[int, tuple[int, float]]:
        """Return the members with a loss that is not finite: its row, and the loss itself.

        Args:
            rows: that the steps since `fill` have written. This waits for the device.
        """
        losses_SM = self.losses_SM[:rows].cpu()
        bad_SM = ~losses_SM.isfinite()
        members = bad_SM.any(0).nonzero().flatten().tolist()
        rows_M = bad_SM.int().argmax(0).tolist()
        return {i: (rows_M[i], float(losses_SM[rows_M[i], i])) for i in members}
