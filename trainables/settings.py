"""What settings are made of; without torch, so that a mistake in them is told at once."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

LARGEST = 2**53  # the whole numbers up to here are exact as floats, and no count comes near
Count = Annotated[int, Field(gt=0, le=LARGEST)]


class Frozen(BaseModel):
    """Settings that are valid from the moment they exist; unknown ones are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Seed(Frozen):
    """The seed of a trial: initial values, batches, sampled evaluation and text come from it."""

    seed: int = Field(default=1337, ge=0, lt=2**64)  # what a torch.Generator takes
