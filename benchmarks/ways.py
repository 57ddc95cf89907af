"""The ways of running many trials that are compared.

Plain loops, plain Tune, `sweeps run`, and our workers without Ray and MLflow around them.
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

from benchmarks.commands import PYTHON, SWEEPS, Ran, run_command
from benchmarks.plain_loop import PlainConfig

AT_ONCE = 2
LOOP, LOOPS = "plain loop, one after another", f"plain loops, {AT_ONCE} at a time"
TUNE, TUNE_REUSING = "plain Ray Tune", "plain Ray Tune, reuse_actors=True"
OURS, BARE = "`sweeps run`", "our workers, neither Ray nor MLflow"


@dataclass(frozen=True)
class Came:
    """What a way of running trials came to."""

    ran: Ran
    trials: int  # that finished
    tokens: int  # that these were trained on
    val_loss: float  # nats per character, the mean of the last ones
    started_s: Sequence[
        float
    ]  # when trials were started, time.time(), in order; the first at least

    @property
    def start_up_s(self) -> float:
        """Seconds from the command to the first trial."""
        return self.started_s[0] - self.ran.started_s


def run_plain(
    way: str, trials: Sequence[PlainConfig], corpus: str, corpora: Path, device: str
) -> Came:
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
        return _came(run_command(PYTHON, "-m", *arguments))


def run_bare(corpora: Path, sweep: str, *overrides: str) -> Came:
    """Run the trials of a sweep by our workers, without what is around them in a sweep."""
    arguments = ["benchmarks.bare", sweep, *overrides, "--corpora", str(corpora)]
    return _came(run_command(PYTHON, "-m", *arguments, "--at-once", str(AT_ONCE)))


def _came(ran: Ran) -> Came:
    """Of a command that says what its trials came to in its last line, as JSON."""
    said = json.loads(ran.said.splitlines()[-1])
    return Came(ran, said["trials"], said["tokens"], said["val_loss"], [said["started_s"]])


def run_ours(folder: Path, sweep: str, name: str, *overrides: str) -> Came:
    """Run a sweep in a folder, with a state of its own.

    Args:
        folder: where `sweeps run` is started.
        sweep: its file or a preset.
        name: the sweep's.
        overrides: of the sweep's values.
    """
    with tempfile.TemporaryDirectory(dir=folder) as state:
        ran = run_command(SWEEPS, "run", sweep, "--state", state, *overrides, cwd=folder)
        with closing(sqlite3.connect(Path(state) / "sweeps" / name / "outbox.db")) as box:
            trials = box.execute(
                "SELECT step, content, started_ms FROM trials WHERE status = 'FINISHED'"
                " ORDER BY started_ms"
            ).fetchall()
            last = box.execute("SELECT content, MAX(step) FROM evaluations GROUP BY key").fetchall()
    params = [json.loads(content)["params"] for _, content, _ in trials]
    tokens = sum(
        step * int(one["batch_size"]) * int(one["block_size"])
        for (step, _, _), one in zip(trials, params, strict=True)
    )
    losses = [json.loads(content)["val_loss"] for content, _ in last]
    started_s = [started_ms / 1e3 for *_, started_ms in trials]
    return Came(ran, len(trials), tokens, statistics.fmean(losses), started_s)
