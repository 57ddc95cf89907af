"""How far a sweep is, in a line that people read and `sweeps status` reads back."""

from __future__ import annotations

import re
from dataclasses import dataclass

LINE = re.compile(
    r"(?P<done>\d+)/(?P<total>\d+|\?) done(?: \((?P<stopped>\d+) stopped early\))?,"
    r" (?P<running>\d+) running, (?P<failed>\d+) failed,"
    r" best val_loss (?P<best>-|[\d.]+)(?: \((?P<best_trial>.*?)\))?,"
    r"(?: (?P<elapsed>[\w ]+) elapsed,)?"
    r" (?P<left>.*?) left(?: \||$)",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Summary:
    """Counts of trials, the best loss so far, and the time that is left."""

    done: int  # those that were stopped early are among them
    total: int | None  # None where nobody knows
    stopped: int
    running: int
    failed: int
    best: float | None  # val_loss in nats per character
    best_trial: str
    left: str  # for people; "?" where nobody knows
    elapsed: str = ""  # for people, since this run began to train; earlier versions did not say

    def __str__(self) -> str:
        stopped = f" ({self.stopped} stopped early)" if self.stopped else ""
        best = "-" if self.best is None else f"{self.best:.4f} ({self.best_trial})"
        elapsed = f" {self.elapsed} elapsed," if self.elapsed else ""
        return (
            f"{self.done}/{'?' if self.total is None else self.total} done{stopped},"
            f" {self.running} running, {self.failed} failed, best val_loss {best},"
            f"{elapsed} {self.left} left"
        )


def last_summary(log: str) -> Summary | None:
    """The newest summary in the output of a sweep, if there is one."""
    found = max(LINE.finditer(log), key=re.Match.start, default=None)
    if found is None:
        return None
    return Summary(
        done=int(found["done"]),
        total=None if found["total"] == "?" else int(found["total"]),
        stopped=int(found["stopped"] or 0),
        running=int(found["running"]),
        failed=int(found["failed"]),
        best=None if found["best"] == "-" else float(found["best"]),
        best_trial=found["best_trial"] or "",
        left=found["left"],
        elapsed=found["elapsed"] or "",
    )


def duration(seconds: float) -> str:
    """Seconds for people, such as ``2 h 05 min``, ``3 min 20 s`` or ``12 s``."""
    minutes, rest_s = divmod(round(seconds), 60)
    hours, rest_minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {rest_minutes:02} min"
    return f"{minutes} min {rest_s:02} s" if minutes else f"{rest_s} s"


def counted(number: int, one: str, many: str = "") -> str:
    """A number of things for people, such as ``1 study`` or ``2 studies``."""
    return f"{number} {one if number == 1 else many or one + 's'}"
