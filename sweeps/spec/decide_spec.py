"""The decide section of a sweep file: which claims further seeds should decide, and the limits."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, PositiveFloat

from analysis.text.shares import checked_error
from sweeps.spec.search_spec import UpToMost
from trainables.settings import Frozen

STUDY = "study"  # the claims of the published study, which come with the package
FIRST_SEEDS = 3  # of a configuration, unless `replicates` says otherwise: two decide little


class DecideSpec(Frozen):
    """Claims that the sweep decides by training further seeds, and when it stops trying.

    Every configuration begins with the ``replicates`` of the sweep, the winners of a search with
    those of ``search.confirm``. Then further seeds go to the configurations that open claims
    compare, until all claims are decided or a limit is reached. Verdicts hold however often they
    are looked at: a true hypothesis is rejected with a probability of at most ``error``.
    """

    claims: Annotated[str, Field(min_length=1)]  # a file beside the sweep file, or `study`
    max_seeds: UpToMost = 30  # of a configuration
    trials: UpToMost | None = None  # of the sweep, those that it begins with included
    hours: PositiveFloat | None = None  # of training, summed over all runs of the command
    error: Annotated[float, AfterValidator(checked_error)] = 0.05

    def beside(self, folder: Path) -> DecideSpec:
        """Return the same, with the path of a claims file that was relative to a folder."""
        if self.claims == STUDY:
            return self
        return self.model_copy(update={"claims": str(folder / self.claims)})

    @property
    def path(self) -> Path | None:
        """The file of the claims; None for those of the published study."""
        return None if self.claims == STUDY else Path(self.claims)

    @property
    def in_words(self) -> str:
        """The limits, such as ``at most 30 seeds of a configuration, error 0.05``."""
        parts = [f"at most {self.max_seeds} seeds of a configuration"]
        parts += [f"{self.trials} trials"] if self.trials else []
        parts += [f"{self.hours:g} h"] if self.hours else []
        parts.append(f"error {self.error:g}")
        return ", ".join(parts)
