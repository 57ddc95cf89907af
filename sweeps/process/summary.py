"""How far a sweep is: a line for people, and a line of JSON for `sweeps status`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields

WANTS_JSON = "SWEEPS_STATUS_JSON"  # environment variable: the driver also prints lines of JSON
KEY = "sweep_status"
PREFIX = f'{{"{KEY}": '  # how each line of JSON begins


@dataclass(frozen=True)
class Summary:
    """Counts of trials, the best loss so far, and the time that is left."""

    done: int  # includes those that were stopped early
    total: int | None  # None if it is unknown
    stopped: int
    running: int
    failed: int
    best: float | None  # val_loss in nats per character
    best_trial: str
    left: str  # for people; "?" if it is unknown
    elapsed: str = ""  # for people, since this run began to train

    def __str__(self) -> str:
        stopped = f" ({self.stopped} stopped early)" if self.stopped else ""
        best = "-" if self.best is None else f"{self.best:.4f} ({self.best_trial})"
        elapsed = f" {self.elapsed} elapsed," if self.elapsed else ""
        return (
            f"{self.done}/{'?' if self.total is None else self.total} done{stopped},"
            f" {self.running} running, {self.failed} failed, best val_loss {best},"
            f"{elapsed} {self.left} left"
        )

    def to_json(self) -> str:
        """Return the line of JSON that `last_summary` reads."""
        return json.dumps({KEY: asdict(self)})


def last_summary(log: str) -> Summary | None:
    """Return the newest summary that a driver wrote as JSON, or None if its log has none."""
    return next(filter(None, map(_parsed, reversed(log.split("\n")))), None)


def without_json(chunks: Iterable[str]) -> Iterator[str]:
    """Yield the lines of a log that are for people; a chunk may end within a line."""
    rest, is_shown = "", False  # what a line so far has to show; whether more of it is shown
    for chunk in chunks:
        shown = ""
        *lines, rest = (rest + chunk).split("\n")
        for line in lines:
            shown += f"{line}\n" if is_shown or not line.startswith(PREFIX) else ""
            is_shown = False
        is_shown = is_shown or not (rest.startswith(PREFIX) or PREFIX.startswith(rest))
        if is_shown:
            shown, rest = shown + rest, ""
        yield shown
    if not rest.startswith(PREFIX):
        yield rest


def _parsed(line: str) -> Summary | None:
    start = line.find(PREFIX)  # other output may be on the same line
    if start < 0:
        return None
    try:
        found = json.JSONDecoder().raw_decode(line, start)[0][KEY]
        return Summary(**{field.name: found[field.name] for field in fields(Summary)})
    except (ValueError, KeyError, TypeError, RecursionError):  # it is cut, or not of this version
        return None


def duration(seconds: float) -> str:
    """Return seconds for people, such as ``2 h 05 min``, ``3 min 20 s`` or ``12 s``."""
    minutes, rest_s = divmod(round(seconds), 60)
    hours, rest_minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {rest_minutes:02} min"
    return f"{minutes} min {rest_s:02} s" if minutes else f"{rest_s} s"


def counted(number: int, singular: str, plural: str = "") -> str:
    """Return a number of things for people, such as ``1 study`` or ``2 studies``."""
    return f"{number} {singular if number == 1 else plural or singular + 's'}"
