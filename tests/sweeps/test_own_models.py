"""A model of the user's own is tried before Ray is started: `sweeps plan` and `sweeps run`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import sweeps.planning.sizes
from sweeps.cli.main import main
from sweeps.planning.planner import make_plan
from sweeps.records.state import State
from tests.sweeps.test_changes import finish
from trainables.errors import UserError
from trainables.variants import model_class, settings_schema

MODEL = """
from dataclasses import dataclass

import torch

from bigram_models import LanguageModel


class Net(LanguageModel):
    @dataclass(frozen=True, kw_only=True)
    class Config:
        width: int = 4

    def __init__(self, config, vocab_size, block_size, generator):
        super().__init__(vocab_size, context_size=block_size)
        print("built")
        self.width = config.width
        self.table = torch.nn.Parameter(torch.randn(vocab_size, vocab_size, generator=generator))

    def forward(self, ids_BT):
        print("called")
        return self.table[ids_BT]
"""
LAST = "        return self.table[ids_BT]\n"
FAILS = '        raise RuntimeError("no such\\nkernel")\n'
FAILS_WIDE = f"        if self.width > 5:\n    {FAILS}{LAST}"
SWEEP = """
name: study
corpus: embedded
training: {max_steps: 2, eval_every: 2}
arms:
  - model: {variant: bigram}
  - model: {variant: "own_net:Net"}
    grid: {model.width: [4, 6]}
"""
SEARCH = """
name: study
corpus: embedded
training: {max_steps: 2, eval_every: 2}
search: {trials: 4, objectives: [val_loss, parameters], confirm: null}
arms:
  - model: {variant: "own_net:Net"}
    search: {model.width: [4, 6]}
"""


def forget() -> None:
    """Let the module be imported anew."""
    sys.modules.pop("own_net", None)
    model_class.cache_clear()
    settings_schema.cache_clear()


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(sys.modules, "ray", None)  # nothing may come as far
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.chdir(tmp_path)
    for variable in ("SWEEPS_STATE", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(variable, raising=False)
    Path("sweep.yaml").write_text(SWEEP)
    write(LAST)
    yield
    forget()


def write(last: str, sweep: str = SWEEP) -> None:
    """A model that ends so, and its sweep."""
    Path("own_net.py").write_text(MODEL.replace(LAST, last))
    Path("sweep.yaml").write_text(sweep)
    forget()


def run(*arguments: str) -> Result:
    done = CliRunner().invoke(main, [*arguments])
    assert "Traceback" not in done.output
    return done


@pytest.mark.parametrize("command", ["plan", "run"])
@pytest.mark.parametrize(
    ("last", "parts"),
    [
        (FAILS, ["(width=4, block_size=8)", "own_net.py:22: RuntimeError: no such kernel"]),
        (FAILS_WIDE, ["(width=6, block_size=8)", "RuntimeError: no such kernel"]),
        (LAST.replace("\n", ".detach()\n"), ["no gradient"]),
        (LAST.replace("\n", " / 0\n"), ["logits that are not finite"]),
        (LAST.replace("\n", "[:, :, :-1]\n"), ["a logit for each of the"]),
    ],
)
def test_a_model_that_cannot_train_is_refused_with_its_arm(
    command: str, last: str, parts: list[str]
) -> None:
    write(last)
    refused = run(command, "sweep.yaml")
    assert refused.exit_code == 2
    assert refused.stderr.startswith("sweeps: sweep.yaml: arms[1]: own_net:Net (width=")
    assert len(refused.stderr.splitlines()) == 1
    for part in parts:
        assert part in refused.stderr


def test_what_it_prints_is_no_part_of_a_plan(capsys: pytest.CaptureFixture[str]) -> None:
    for sweep in (SWEEP, SEARCH):
        write(LAST, sweep)
        planned = run("plan", "sweep.yaml")
        assert planned.exit_code == 0, planned.output
        assert "takes   about" in planned.output
        assert "built" not in planned.output
        assert "called" not in planned.output
        assert "warning" not in planned.output
    made = make_plan("sweep.yaml", [], State(Path("state").absolute()))
    assert made.costs["parameters"](made.examples[0]) > 0
    assert capsys.readouterr().out == ""


def test_a_search_may_suggest_what_fails_but_not_that_alone() -> None:
    write(FAILS_WIDE, SEARCH)
    planned = run("plan", "sweep.yaml")
    assert planned.exit_code == 0, planned.output
    assert "warning own_net:Net: some of its configurations will fail: " in planned.output
    assert "(width=6, block_size=8)" in planned.output
    write(FAILS, SEARCH)
    refused = run("plan", "sweep.yaml")
    assert refused.exit_code == 2
    assert "sweep.yaml: arms[0]: own_net:Net (width=4, block_size=8): forward" in refused.stderr


def test_a_model_that_is_too_large_here_may_train_on_a_cluster(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write(FAILS)
    monkeypatch.setattr(sweeps.planning.sizes, "SMALL_BYTES", 0)
    has = 4 * 4 * 30 * 30  # bytes: the table of logits is larger, with its gradient and moments
    monkeypatch.setattr(sweeps.planning.sizes, "memory_bytes", lambda: has)
    state = State(Path("state").absolute())
    assert make_plan("sweep.yaml", ["training.batch_size=1"], state).warnings == ()
    refused = run("run", "sweep.yaml", "training.batch_size=1")
    assert "GiB of memory, and this machine has" in refused.stderr
    monkeypatch.setattr(sweeps.planning.sizes, "memory_bytes", lambda: 100 * has)
    with pytest.raises(UserError, match="no such kernel"):
        make_plan("sweep.yaml", ["training.batch_size=1"], state)


def test_an_edited_model_is_said_to_be_edited() -> None:
    finish(3)
    write(LAST.replace("\n", " * 2\n"))
    refused = run("run", "sweep.yaml")
    assert refused.exit_code == 2
    assert "1 trial stays, 2 come, 2 go (the code of own_net:Net changed)" in refused.stderr
    refused = run("run", "sweep.yaml", "training.max_steps=4")
    assert refused.exit_code == 2
    assert "(max_steps 2, now 4)" in refused.stderr
    write(LAST)
    again = run("plan", "sweep.yaml")
    assert "3 of 3 trials are done" in again.output
