"""The compared ways of running many trials.

Plain loops, plain Tune, `sweeps run`, and our workers without Ray and MLflow.
"""

from __future__ import annotations

import json
import sqlite3
import statistics
import tempfile
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.commands import PYTHON, SWEEPS, CommandResult, run_command
from benchmarks.plain_loop import PlainConfig

AT_ONCE = 2
LOOP, LOOPS = "plain loop, one after another", f"plain loops, {AT_ONCE} at a time"
TUNE, TUNE_REUSING = "plain Ray Tune", "plain Ray Tune, reuse_actors=True"
OURS, BARE = "`sweeps run`", "our workers, neither Ray nor MLflow"


@dataclass(frozen=True)
class WayResult:
    """The measured result of one way of running trials."""

    command: CommandResult
    trials: int  # finished
    tokens: int  # trained on, by all of them
    val_loss: float  # nats per character, the mean of the last evaluations
    started_s: Sequence[float]  # starts of trials, time.time(), in order; at least the first

    @property
    def start_up_s(self) -> float:
        """Seconds from the command to the first trial."""
        return self.started_s[0] - self.command.started_s


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


def run_bare(corpora: Path, sweep: str, *overrides: str) -> WayResult:
    """Run the trials of a sweep by our workers, without Ray and MLflow."""
    arguments = ["benchmarks.bare", sweep, *overrides, "--corpora", str(corpora)]
    return _result_of(run_command(PYTHON, "-m", *arguments, "--at-once", str(AT_ONCE)))


def _result_of(command: CommandResult) -> WayResult:
    """Read the result of a command that prints it as JSON in its last line."""
    last = json.loads(command.output.splitlines()[-1])
    return WayResult(command, last["trials"], last["tokens"], last["val_loss"], [last["started_s"]])


def run_ours(folder: Path, sweep: str, name: str, *overrides: str) -> WayResult:
    """Run a sweep in a folder, with a new state folder.

    Args:
        folder: where `sweeps run` is started.
        sweep: a sweep file or a preset.
        name: the name of the sweep.
        overrides: values that replace the sweep's.
    """
    with tempfile.TemporaryDirectory(dir=folder) as state:
        command = run_command(SWEEPS, "run", sweep, "--state", state, *overrides, cwd=folder)
        with closing(sqlite3.connect(Path(state) / "sweeps" / name / "outbox.db")) as box:
            trials = box.execute(
                "SELECT step, content, started_ms FROM trials WHERE status = 'FINISHED'"
                " ORDER BY started_ms"
            ).fetchall()
            last = box.execute("SELECT content, MAX(step) FROM evaluations GROUP BY key").fetchall()
    params = [json.loads(content)["params"] for _, content, _ in trials]
    tokens = sum(
        step * int(values["batch_size"]) * int(values["block_size"])
        for (step, _, _), values in zip(trials, params, strict=True)
    )
    losses = [json.loads(content)["val_loss"] for content, _ in last]
    started_s = [started_ms / 1e3 for *_, started_ms in trials]
    return WayResult(command, len(trials), tokens, statistics.fmean(losses), started_s)
