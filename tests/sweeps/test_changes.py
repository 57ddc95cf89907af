"""A changed sweep under an old name: the difference is shown before anything is retired."""

from __future__ import annotations

import re
import shutil
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from mlflow import MlflowClient

from sweeps.cli.main import main
from sweeps.planning.planner import make_plan
from sweeps.records.events import TrialEvent
from sweeps.records.outbox import Outbox
from sweeps.records.state import State
from sweeps.tracking.description import describe_sweep, describe_trial
from tests.sweeps.searches import SWEEP as SEARCH
from tests.sweeps.searches import simulate
from tests.sweeps.test_tracking import evaluation

SWEEP = """
name: study
corpus: embedded
training: {max_steps: 2, eval_every: 2}
arms:
  - model: {variant: attention, n_embd: 8}
    grid: {model.pe_type: [rope, sinpe, randn], training.block_size: [4, 8]}
"""
STORE = Path("state/sweeps/study/outbox.db")


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)  # nothing may come as far
    monkeypatch.chdir(tmp_path)
    for variable in ("SWEEPS_STATE", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(variable, raising=False)
    Path("sweep.yaml").write_text(SWEEP)


def finish(count: int, *overrides: str) -> None:
    """Let the outbox know the first trials as finished."""
    state = State(Path("state").absolute())
    made = make_plan("sweep.yaml", overrides, state)
    with closing(Outbox(STORE, "study")) as outbox:
        trials = {trial.key: describe_trial(made, trial) for trial in made.trials}
        outbox.describe({**describe_sweep(made), "storage": None}, trials)
        for key in list(trials)[:count]:
            outbox.record(TrialEvent(key, "started"))
            outbox.record(TrialEvent(key, "progressed", 2, [evaluation(2)], hardware="cpu"))
            outbox.record(TrialEvent(key, "finished"))


def sweeps(*arguments: str) -> Result:
    done = CliRunner().invoke(main, [*arguments])
    assert "Traceback" not in done.output
    return done


def roles() -> dict[str, str]:
    with closing(Outbox(STORE, "study")) as outbox:
        both = [*outbox.trials(), *outbox.removed_trials()]
        return {record.key: record.role for record in both}


def done_line(*overrides: str) -> str:
    planned = sweeps("plan", "sweep.yaml", *overrides)
    assert planned.exit_code == 0, planned.output
    return "\n".join(re.findall(r"^done .*$", planned.output, re.MULTILINE))


def test_a_plan_takes_as_long_as_what_is_left_of_it() -> None:
    def takes() -> str:
        return re.findall(r"^takes +(.*)$", sweeps("plan", "sweep.yaml").output, re.MULTILINE)[0]

    assert takes().startswith("about ")
    finish(4)
    assert takes().startswith("about ")
    finish(6)
    assert takes() == "nothing: all trials are done"


def test_a_plan_says_what_of_it_is_done_and_what_would_be_retired() -> None:
    assert done_line() == ""
    finish(4)
    before = STORE.read_bytes()
    assert done_line().startswith("done    4 of 6 trials are done in ")
    assert "retired" not in done_line()
    line = done_line("training.block_size=4")
    assert re.match(r"done    2 of 3 trials are done in \S+; 2 others with results", line)
    assert "would be retired (block_size 4 8, now 4)" in line
    assert "name=NAME" in line
    assert "--retire" in line
    assert STORE.read_bytes() == before
    assert done_line("name=other") == ""
    STORE.write_bytes(b"nonsense" * 1_000)
    assert done_line() == ""


@pytest.mark.parametrize(
    ("overrides", "counts", "why"),
    [
        (["training.max_steps=4"], "0 trials stay, 6 come, 6 go", "max_steps 2, now 4"),
        (["model.pe_type=rope"], "2 trials stay, 0 come, 4 go", "pe_type rope sinpe randn, now"),
        (["seed=7"], "0 trials stay, 6 come, 6 go", "seed 1337, now 7"),
        (["training.block_size=4,16"], "3 trials stay, 3 come, 3 go", "block_size 4 8, now 4 16"),
    ],
)
def test_trials_with_results_are_not_retired_unasked(
    overrides: list[str], counts: str, why: str
) -> None:
    finish(6)
    before = roles()
    refused = sweeps("run", "sweep.yaml", *overrides)
    assert refused.exit_code == 2
    assert counts in refused.stderr
    assert why in refused.stderr
    assert "name=NAME, or add --retire" in refused.stderr
    assert roles() == before, "nothing was written"


def test_they_are_retired_when_that_is_asked_for(empty_store: Path) -> None:
    finish(6)
    Path("state/mlflow.db").write_bytes(empty_store.read_bytes())
    done = sweeps("run", "sweep.yaml", "model.pe_type=rope", "--retire")
    assert done.exit_code == 0, done.output
    assert "changed 2 trials stay, 0 come, 4 go (pe_type rope sinpe randn, now rope)" in done.output
    assert "study: 2 done, 4 no longer part of the sweep" in done.output
    assert sorted(roles().values()) == ["removed"] * 4 + ["trial"] * 2
    again = sweeps("run", "sweep.yaml", "model.pe_type=rope")
    assert again.exit_code == 0, again.output
    assert "changed" not in again.output


def test_runs_in_mlflow_that_a_lost_state_directory_knew_are_not_retired_unasked(
    empty_store: Path,
) -> None:
    finish(6)
    Path("state/mlflow.db").write_bytes(empty_store.read_bytes())
    done = sweeps("run", "sweep.yaml")
    assert done.exit_code == 0, done.output
    assert Path("state/reports/study/overview.png").exists()
    shutil.rmtree("state/sweeps")

    def runs() -> Counter[str]:
        client = MlflowClient(f"sqlite:///{Path('state/mlflow.db').absolute()}")
        return Counter(run.data.tags["role"] for run in client.search_runs(["1"]))

    refused = sweeps("run", "sweep.yaml", "model.pe_type=rope")
    assert refused.exit_code == 2
    shown = r"4 that go have results: 2 trials stay, 0 come, 4 go \(pe_type( \w+){3}, now rope\)"
    assert re.search(shown, refused.stderr)
    assert "name=NAME, or add --retire" in refused.stderr
    assert runs() == {"trial": 6, "sweep": 1}
    done = sweeps("run", "sweep.yaml", "model.pe_type=rope", "--retire")
    assert done.exit_code == 0, done.output
    assert "study: 2 done" in done.output
    assert runs() == {"trial": 2, "removed": 4, "sweep": 1}


def test_what_has_no_results_goes_and_comes_unasked(empty_store: Path) -> None:
    finish(2, "model.pe_type=rope,randn")
    Path("state/mlflow.db").write_bytes(empty_store.read_bytes())
    done = sweeps("run", "sweep.yaml", "model.pe_type=rope")
    assert done.exit_code == 0, done.output
    assert "changed 2 trials stay, 0 come, 2 go (pe_type rope randn, now rope)" in done.output


def test_a_search_that_goes_on_retires_nothing_and_another_one_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulate(monkeypatch, tmp_path)
    confirm = ["search.confirm={top: 1, replicates: 2}"]
    Path("sweep.yaml").write_text(SEARCH)
    for trials in (4, 4, 8):  # then another winner may be confirmed
        done = sweeps("run", "sweep.yaml", *confirm, f"search.trials={trials}")
        assert done.exit_code == 0, done.output
        assert "changed" not in done.output
    assert re.match(r"done    10 of 10 trials", done_line(*confirm, "search.trials=8"))
    refused = sweeps("run", "sweep.yaml", *confirm, "search.trials=8", "training.max_steps=50")
    assert refused.exit_code == 2
    assert "0 trials stay, 0 come, 8 go (max_steps 100, now 50)" in refused.stderr
