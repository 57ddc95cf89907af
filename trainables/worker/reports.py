"""What the driver sends to a worker, and what the worker reports: plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import TypedDict

from trainables.training.loop import Evaluation


class PackConfig(TypedDict):
    """The trials that a worker trains together: one, or several of a `stack_shape`."""

    keys: list[str]
    trials: str  # JSON: a list of `TrialConfig.to_dict`. As text, because Tune copies and keeps it
    gpus: float  # the share of a GPU, or the number of GPUs, that the worker gets
    report_s: float  # seconds for which a report gathers evaluations; 0: each is reported at once


class FailureKind(StrEnum):
    """Why a trial failed."""

    DIVERGED = "diverged"  # a loss is not finite
    OUT_OF_MEMORY = "out_of_memory"  # of the GPU
    ERROR = "error"  # any other


class SplitCause(StrEnum):
    """Why the trials of a pack cannot go on together."""

    MEMORY = "memory"  # the GPU has too little for all of them
    SHAPE = "shape"  # the models cannot be computed as one
    DEATHS = "deaths"  # their workers died repeatedly, which one of them may cause


@dataclass(frozen=True)
class TrialReport:
    """Progress of a trial since the worker's last report of it."""

    key: str
    step: int  # optimizer updates so far
    done: bool  # true if it is trained to its end
    evaluations: Sequence[Evaluation]  # new ones; all earlier ones if it resumes here
    resumed: bool = False  # true if it starts or resumes at this step
    notes: Sequence[str] = ()  # damaged files that it could not use
    hardware: str = ""  # that trains it, see `trainables.worker.worker.hardware_tag`
    host: str = ""  # that made the evaluations; empty for earlier ones
    usage: Mapping[str, float] = field(default_factory=dict)  # since then, see `Usage.take`

    def rows(self) -> list[dict[str, object]]:
        """Return each evaluation as plain data, with the host and its usage if it is new."""
        is_new = self.host or self.usage  # some machines have no name
        measured = {"host": self.host, "usage": self.usage} if is_new else {}
        return [asdict(evaluation) | measured for evaluation in self.evaluations]


@dataclass(frozen=True)
class TrialFailure:
    """A trial that failed by itself, so that trying again will not help; its log has the traceback.

    A trial whose worker died has no report.
    """

    key: str
    kind: FailureKind
    reason: str  # type and message of the error


@dataclass(frozen=True)
class PackSplit:
    """The unfinished trials of a pack cannot go on together; nothing that was saved is lost."""

    cause: SplitCause
    reason: str = ""  # the error, in one line


@dataclass(frozen=True)
class WorkerReport:
    """Reports of the trials of a worker that were not done before."""

    trials: Sequence[TrialReport | TrialFailure] = ()
    done: bool = False  # true if this worker does nothing more for these trials
    # Why trials that are not done are paused here, if they are:
    storage_error: str = ""  # their states cannot be stored
    split: PackSplit | None = None

    @property
    def has_evaluations(self) -> bool:
        """True if it has an evaluation of any trial."""
        return any(isinstance(each, TrialReport) and each.evaluations for each in self.trials)

    def followed_by(self, later: WorkerReport) -> WorkerReport:
        """Return this report and a later one of the same worker as one."""
        return replace(later, trials=(*self.trials, *later.trials))
