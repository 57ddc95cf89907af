"""Sweeps that are too large are refused before anything of them is made."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from bigram_models.positions import ENCODINGS
from sweeps.cli.main import main
from sweeps.planning import sizes
from sweeps.planning.estimate import estimate
from tests.sweeps.searches import SWEEP, plan
from trainables.config import TrialConfig
from trainables.data.batches import initial_stream
from trainables.data.corpus import tokenise
from trainables.data.verse import write_play
from trainables.errors import UserError

MakeTrial = Callable[..., TrialConfig]

BIGRAM = "{name: s, arms: [{model: {variant: bigram}}]}"
VALUES = f"[{', '.join(map(str, range(1, 61)))}]"
GRIDS = (
    "{name: s, arms: [{model: {variant: attention}, grid: {"
    f"model.n_embd: {VALUES}, training.max_steps: {VALUES}, training.batch_size: {VALUES}}}}}]}}"
)


@pytest.mark.parametrize(
    ("text", "overrides", "parts"),
    [
        (BIGRAM, ["replicates=1000000000"], ["replicates", "1000000000 seeds are too many"]),
        (BIGRAM, [f"replicates={2**64}"], ["replicates", "too many"]),
        (SWEEP, ["search.confirm.replicates=1000000000"], ["confirm.replicates", "too many"]),
        (SWEEP, ["search.confirm={replicates: 1000000000}"], ["confirm.replicates", "too many"]),
        (SWEEP, ["search.trials=1000000000"], ["search.trials", "100000"]),
        (SWEEP, ["search.confirm={top: 1000000000}"], ["search.confirm.top", "100000"]),
        (BIGRAM, [f"training.batch_size={10**12}"], ["batch_size=1000000000000", "GiB of memory"]),
        (BIGRAM, [f"training.batch_size={2**53}"], ["takes more than any memory"]),
        (BIGRAM, [f"training.batch_size={2**53 + 1}"], ["training.batch_size", "less than or"]),
        (BIGRAM, [f"training.max_steps={2**60}"], ["training.max_steps", "less than or equal"]),
        (BIGRAM, [f"training.max_steps={2**53}"], ["more than 1,000,000 evaluations"]),
        (BIGRAM, [f"training.max_steps={10**400}"], ["training.max_steps", "too large"]),
        (BIGRAM, [f"training.max_steps={{low: 1, high: {10**400}}}"], ["too large"]),
        (BIGRAM, [f"training.max_steps={{low: 1, high: {2**60}}}"], ["high: 1152921504606846976"]),
        (BIGRAM, ["training.learning_rate={low: -1e308, high: 1e308}"], ["too far apart"]),
        (BIGRAM, ["training.learning_rate={low: 0, high: 1, step: 1e-300}"], ["too small"]),
        (BIGRAM, ["training.learning_rate={low: .nan, high: 1}"], ["low: give a number, not nan"]),
        (BIGRAM, [f"seed={2**64 - 1}", "replicates=2"], ["seeds count up", "lower the seed"]),
        (SWEEP, [f"seed={2**64 - 1}", "search.confirm={top: 1}"], ["lower the seed"]),
        (BIGRAM, ["resources.max_concurrent=1" + "0" * 18], ["resources.max_concurrent"]),
        (BIGRAM, ["resources.cpus_per_trial=1e-320"], ["cpus_per_trial", "at least 0.0001"]),
        (BIGRAM, ["resources.gpus_per_trial=1e-320"], ["gpus_per_trial", "at least 0.0001"]),
        (GRIDS, [], ["these are 216,000 trials, and a sweep has 100,000 at most"]),
        (GRIDS, ["replicates=50000", "training.max_steps=1"], ["these are 180,000,000 trials"]),
        (SWEEP, ["search.trials=100000", "replicates=2"], ["these are 200,000 trials"]),
        (SWEEP, [f"training.max_steps={VALUES}", "search.confirm={top: 100000}"], ["trials"]),
    ],
)  # fmt: skip
def test_it_is_refused_at_once_with_its_size(
    text: str, overrides: list[str], parts: list[str]
) -> None:
    started_s, before_kib = time.process_time(), peak_kib()
    with pytest.raises(UserError) as refused:
        plan(text, *overrides)
    for part in parts:
        assert part in str(refused.value)
    assert time.process_time() - started_s < 5
    assert peak_kib() - before_kib < 300_000


def peak_kib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def test_the_choices_of_all_studies_are_counted() -> None:
    text = (
        "{name: s, search: {hours: 1, confirm: null}, arms: [{model: {variant: bigram}, grid: {"
        f"training.max_steps: {VALUES}, training.batch_size: {VALUES}}}, search: {{"
        f"training.eval_every: {VALUES}, training.warmup_steps: {{low: 0, high: 9}}}}}}]}}"
    )
    with pytest.raises(UserError, match=r"3,600 studies have 223,200 choices and ends"):
        plan(text)


def test_what_a_sweep_may_have() -> None:
    long = [f"training.max_steps={2**53}", f"training.eval_every={2**40}"]
    made = plan(BIGRAM, "replicates=3", f"seed={2**64 - 3}", *long)
    assert [trial.seed for trial in made.trials] == [2**64 - 3, 2**64 - 2, 2**64 - 1]
    assert plan(SWEEP, "search.trials=99999").to_come == 99_999


def test_a_plan_of_a_trial_that_fits_nowhere_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "ray", None)
    for override in ("model.n_embd=1000000000", "training.batch_size=1000000000000"):
        asked = ["plan", "quickstart", override]
        result = CliRunner().invoke(main, asked)
        assert result.exit_code == 2, result.output
        assert "GiB of memory, and this machine has" in result.output
        assert "give smaller sizes" in result.output


@pytest.mark.parametrize(
    ("variant", "settings"),
    [
        ("bigram", {}),
        ("factorized", {"n_embd": 384}),
        ("attention", {"n_embd": 128}),
        ("attention", {"batch_size": 2}),
        *[("attention", {"pe_type": pe_type, "block_size": 32}) for pe_type in ENCODINGS],
    ],
)
def test_the_memory_of_a_step_is_known_from_shapes(
    variant: str,
    settings: dict[str, object],
    make_trial: MakeTrial,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sizes, "SMALL_BYTES", 0)
    trial = make_trial(variant, **settings)
    training = trial.training
    model = trial.model.build(65, training.block_size, initial_stream(1))
    ids_BT = torch.zeros(training.batch_size, training.block_size, dtype=torch.int64)
    assert sizes.needed_bytes(trial, 65) == sizes.training_bytes(model, ids_BT, ids_BT)


def test_a_trial_that_is_too_large_here_only_is_planned_and_not_timed(
    make_trial: MakeTrial, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sizes, "SMALL_BYTES", 0)
    monkeypatch.setattr(sizes, "memory_bytes", lambda: 500_000)
    trial = make_trial("attention")
    sizes.check_sizes([trial], 65, "file")
    estimate([trial], tokenise("play", write_play(characters=2_000)))
    (said,) = caplog.messages
    assert "attention cannot be timed, so what is estimated leaves it out" in said
    assert "this machine has 0 GiB" in said
    with pytest.raises(UserError, match=r"file: a trial with variant=attention"):
        sizes.check_sizes([trial], 65, "file", times=1)
    monkeypatch.setattr(sizes, "memory_bytes", lambda: 50_000)
    with pytest.raises(UserError, match=r"file: a trial with variant=attention .* takes 0 GiB"):
        sizes.check_sizes([trial], 65, "file")
