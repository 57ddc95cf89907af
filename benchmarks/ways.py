"""The compared ways of running many trials.

Plain loops, plain Tune, `sweeps run`, and our workers without Ray and MLflow.
"""

from __future__ import annotations

import json
import math
import sqlite3
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.commands import PYTHON, CommandResult, run_command
from benchmarks.plain_loop import PlainConfig

AT_ONCE = 2
LOOP, LOOPS = "plain loop, one after another", f"plain loops, {AT_ONCE} at a time"
TUNE, TUNE_REUSING = "plain Ray Tune", "plain Ray Tune, reuse_actors=True"
OURS, BARE = "`sweeps run`", "our workers, neither Ray nor MLflow"


@dataclass(frozen=True)
class PackTimes:
    """Where the time of a pack went."""

    trials: int
    packs: int  # of its size and shape, of which this one was trained
    intervals: Sequence[Mapping[str, float]]  # seconds by part, from evaluation to evaluation


@dataclass(frozen=True)
class WayResult:
    """The measured result of one way of running trials."""

    command: CommandResult
    trials: int  # finished
    tokens: int  # trained on, by all of them
    val_loss: float  # nats per character, the mean of the last evaluations
    started_s: Sequence[float]  # starts of trials, time.time(), in order; at least the first
    ended_s: float = math.nan  # of the last trial, time.time()
    packs: Sequence[PackTimes] = ()  # by our workers

    @property
    def start_up_s(self) -> float:
        """Seconds from the command to the first trial."""
        return self.started_s[0] - self.command.started_s

    @property
    def training_s(self) -> float:
        """Seconds from the start of the first trial to the end of the last one."""
        return self.ended_s - self.started_s[0]

    @property
    def end_s(self) -> float:
        """Seconds from the end of the last trial to the end of the command."""
        return self.command.wall_s - self.start_up_s - self.training_s


def run_plain(
    way: str, trials: Sequence[PlainConfig], corpus: str, corpora: Path, device: str
) -> WayResult:
    """Run plain trials by one of the plain ways."""
    with tempfile.TemporaryDirectory() as name:
        work = Path(name) / "work.json"
        content = {"corpus": corpus, "corpora": str(corpora), "device": device}
        work.write_text(json.dumps(content | {"trials": list(map(asdict, trials))}))
        tune = ["benchmarks.plain_tune", str(work), name, "--at-once", str(AT_ONCE)]
        arguments = {
            LOOP: ["benchmarks.plain_loop", str(work)],
            LOOPS: ["benchmarks.plain_loop", str(work), "--at-once", str(AT_ONCE)],
            TUNE: tune,
            TUNE_REUSING: [*tune, "--reuse-actors"],
        }[way]
        return _result_of(run_command(PYTHON, "-m", *arguments))


def run_bare(
    corpora: Path,
    sweep: str,
    *overrides: str,
    is_one_of_each: bool = False,
    within_s: float = math.inf,
) -> WayResult:
    """Run the trials of a sweep by our workers, without Ray and MLflow.

    Args:
        corpora: the cache of downloaded texts.
        sweep: a sweep file or a preset.
        overrides: values that replace the sweep's.
        is_one_of_each: train only one of the packs of each size and shape.
        within_s: seconds after which it is killed.

    Raises:
        TimeoutError: it had not ended in time.
    """
    arguments = [sweep, *overrides, "--corpora", str(corpora), "--at-once", str(AT_ONCE)]
    one_of_each = ["--one-of-each"] if is_one_of_each else []
    command = (PYTHON, "-m", "benchmarks.bare", *arguments, *one_of_each)
    return _result_of(run_command(*command, within_s=within_s))


def _result_of(command: CommandResult) -> WayResult:
    """Read the result of a command that prints it as JSON in its last line."""
    last = json.loads(command.output.splitlines()[-1])
    numbers = (last["trials"], last["tokens"], last["val_loss"], [last["started_s"]])
    packs = [PackTimes(**pack) for pack in last["packs"]]
    return WayResult(command, *numbers, last["ended_s"], packs)


def run_ours(folder: Path, sweep: str, name: str, *overrides: str) -> WayResult:
    """Run a sweep in a folder, with a new state folder.

    Args:
        folder: where `sweeps run` is started.
        sweep: a sweep file or a preset.
        name: the name of the sweep.
        overrides: values that replace the sweep's.
    """
    with tempfile.TemporaryDirectory(dir=folder) as state:
        arguments = ("-m", "sweeps", "run", sweep, "--state", state, *overrides)
        command = run_command(PYTHON, *arguments, cwd=folder)
        with closing(sqlite3.connect(Path(state) / "sweeps" / name / "outbox.db")) as box:
            trials = box.execute(
                "SELECT step, content, latest_ms, started_ms FROM trials WHERE status = 'FINISHED'"
                " ORDER BY started_ms"
            ).fetchall()
            last = box.execute("SELECT content, MAX(step) FROM evaluations GROUP BY key").fetchall()
    params = [json.loads(content)["params"] for _, content, *_ in trials]
    tokens = sum(
        step * int(values["batch_size"]) * int(values["block_size"])
        for (step, *_), values in zip(trials, params, strict=True)
    )
    losses = [json.loads(content)["val_loss"] for content, _ in last]
    started_s = [started_ms / 1e3 for *_, started_ms in trials]
    ended_s = max(latest_ms for _, _, latest_ms, _ in trials) / 1e3
    return WayResult(command, len(trials), tokens, statistics.fmean(losses), started_s, ended_s)
