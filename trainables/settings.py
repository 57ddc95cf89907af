"""Base of all settings. Imports no torch, so that mistakes in settings are reported at once."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

LARGEST = 2**53  # whole numbers up to it are exact as floats; no count comes near
Count = Annotated[int, Field(gt=0, le=LARGEST)]


class Frozen(BaseModel):
    """Immutable settings, validated when they are made; unknown names are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Seed(Frozen):
    """The seed of a trial, for initial values, batches, sampled evaluation and sampled text."""

    seed: int = Field(default=1337, ge=0, lt=2**64)  # the range of a torch.Generator
