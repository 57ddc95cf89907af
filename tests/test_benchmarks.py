"""The benchmarks run, measure the same work on both sides, and count operations correctly."""

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks import __main__ as command
from benchmarks import bare, gpu, overhead
from benchmarks.commands import CommandResult, run_command
from benchmarks.measuring import Samples
from benchmarks.moderated import VARIANCES
from benchmarks.operations import attention_bytes, attention_operations, executed_operations
from benchmarks.ours import Shape, operations_of
from benchmarks.parts import CHECKPOINTS, EVALUATION, PARTS, SAMPLES, SET_UP, STEPS, Stopwatch
from benchmarks.plain_loop import PlainConfig, PlainTrial
from benchmarks.synthetic import SKEWED, SYMMETRIC
from benchmarks.ways import PackTimes, WayResult
from bigram_models import VARIANTS
from bigram_models.positions import AddedTable
from trainables.config import TrialConfig
from trainables.data.corpus import Corpus
from trainables.training.loop import Evaluation
from trainables.worker.reports import PackSplit, SplitCause, TrialReport, WorkerReport

ROOT = Path(__file__).parents[1]
POSITIONS = ("randn", "sinpe", "rope")
WORDS = {"", "attention", "cpu", "plain loop", "total"}

MakeTrial = Callable[..., TrialConfig]
Table = list[dict[str, str]]


@pytest.fixture(scope="module")
def without(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the module path, with which some libraries are missing."""
    folder = tmp_path_factory.mktemp("without")
    for library in ("ray", "mlflow", "optuna"):
        (folder / f"{library}.py").write_text("raise ImportError('is not installed here')")
    return folder


@pytest.fixture(scope="module")
def sections(without: Path) -> dict[str, str]:
    """What the sections print for which neither Ray nor MLflow is needed, by name."""
    names = ("steps", "packs", "gpu", "samples", "counting", "plan")
    _, *sections = run_without(without, "benchmarks", *names, "--quick").split("\n## ")
    return {text.partition("\n")[0]: text for text in sections}


@pytest.fixture(scope="module")
def tables(sections: dict[str, str]) -> dict[str, Table]:
    """The tables of the sections that print one."""
    return {name: rows_of(text) for name, text in sections.items() if name != "gpu"}


def run_without(without: Path, module: str, *arguments: str) -> str:
    """What a module prints."""
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(without)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def rows_of(text: str) -> Table:
    """The rows of a section's Markdown table."""
    lines = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    columns, _, *rows = [[cell.strip() for cell in line] for line in lines]
    return [dict(zip(columns, row, strict=True)) for row in rows]


def tables_of(text: str) -> list[Table]:
    """The rows of each Markdown table."""
    return [rows_of(part) for part in text.split("\n\n") if part.startswith("|")]


def number(cell: str) -> float:
    return float(cell.split(" (")[0].replace(",", ""))


def test_every_number_is_one(tables: dict[str, Table]) -> None:
    words = {"pe_type", "way", "device", "planned", "variant", "drawn on"}
    for rows in tables.values():
        for row in rows:
            numbers = [
                number(cell)
                for column, cell in row.items()
                if column not in words and cell not in WORDS
            ]
            assert len(numbers) >= 2
            assert all(math.isfinite(one) and one > 0 for one in numbers), row


def test_plain_and_ours_take_the_same_steps(tables: dict[str, Table]) -> None:
    *rows, total = tables["steps"]
    assert [row["pe_type"] for row in rows] == list(POSITIONS)
    assert {row["tokens, each"] for row in rows} == {str(2 * 64 * 8)}  # two steps
    for who in ("plain, s", "ours, s"):
        assert number(total[who]) == pytest.approx(sum(number(row[who]) for row in rows), rel=0.02)


def test_packs_stand_beside_the_plain_loop(tables: dict[str, Table]) -> None:
    assert [row["members"] for row in tables["packs"]] == ["plain loop", "1", "2"]


def test_counting_stands_beside_loops(tables: dict[str, Table]) -> None:
    ways = {row["way"]: row for row in tables["counting"] if row["device"] == "cpu"}
    assert {row["tokens"] for row in ways.values()} == {"2000"}
    assert number(ways["`CountBigram.fit`"]["this / fit"]) == 1
    assert number(ways["a tensor, a loop over its elements"]["this / fit"]) > 1


def test_plans_of_many_trials_and_of_a_long_text_are_measured(tables: dict[str, Table]) -> None:
    assert [row["planned"] for row in tables["plan"]] == [
        "20 trials",
        "20 configurations, 10 seeds",
        "200 configurations",
        "2 MB of text",
    ]


def test_a_gpu_is_measured_by_one_command_where_there_is_none_quickly(
    sections: dict[str, str],
) -> None:
    checked, steps, sweeps = tables_of(sections["gpu"])
    assert [row["agree"] for row in checked] == ["yes"]
    assert [row["members"] for row in steps] == ["1", "3"]
    assert all(number(row["ms a step"]) > 0 for row in steps)
    assert [(row["seeds"], row["trials"], row["packs"]) for row in sweeps] == [
        ("1", "3", "3 of 1"),
        ("~ 2", "6", "6 of 1"),
    ]
    for row in sweeps:
        shares = [number(cell) for column, cell in row.items() if column.endswith(", %") and cell]
        assert sum(shares) == pytest.approx(100, abs=1)
        assert min(number(row[f"{part}, %"]) for part in PARTS) > 0


def test_time_counts_for_the_innermost_part() -> None:
    now = 0.0
    watch = Stopwatch(lambda: now)
    with watch.part(EVALUATION):
        now = 2.0
        with watch.part(CHECKPOINTS):
            now = 6.0
        now = 7.0
    now = 10.0
    watch.move(0.5, EVALUATION, STEPS)
    rest = dict.fromkeys(PARTS, 0)
    assert watch.take() == rest | {EVALUATION: 2.5, CHECKPOINTS: 4, STEPS: 0.5}
    assert watch.take() == rest


def test_a_whole_sweep_is_estimated_from_two_intervals_by_hand() -> None:
    first = dict.fromkeys(PARTS, 2.0)
    last = dict.fromkeys(PARTS, 1.0)
    times = gpu.whole(PackTimes(30, 4, [first, last]), 100)
    assert times[STEPS] == 4 * (2 + 49 * 1)  # 5,000 steps
    assert times[EVALUATION] == times[CHECKPOINTS] == 4 * (9 * 2 + 1)  # ten of them
    assert times[SET_UP] == times[SAMPLES] == 4 * (2 + 1)


@pytest.mark.parametrize(("B", "T", "D", "V"), [(2, 3, 5, 7), (4, 8, 16, 65)])
def test_operations_are_those_of_the_definition(B: int, T: int, D: int, V: int) -> None:
    table = torch.randn(V, D, requires_grad=True)
    head = torch.nn.Linear(D, V)
    ids = torch.randint(V, (B, T))

    def step() -> None:
        x = F.embedding(ids, table)
        mixed = (x @ x.mT / D**0.5).softmax(-1) @ x
        head(mixed).sum().backward()

    assert executed_operations(step) == attention_operations(B, T, D, V)


def test_ours_executes_the_definition_but_one_product_where_no_table_pays(embedded: Corpus) -> None:
    defined, executed = operations_of(Shape(16, 8, "rope"), embedded)
    assert defined == attention_operations(64, 8, 16, embedded.vocab_size)
    assert executed == defined - 2 * 64 * 8 * 8 * 16  # the scores' gradient is one product, not two
    defined, executed = operations_of(Shape(256, 16, "randn"), embedded)
    assert executed < defined


def test_bytes_by_hand() -> None:
    # One token, one channel: 3 + 2 + 1 activations five times, 1 + 1 + 1 parameters ten times.
    assert attention_bytes(1, 1, 1, 1) == 4 * (6 * 5 + 3 * 10)


@pytest.mark.parametrize("pe_type", POSITIONS)
def test_the_plain_model_is_ours(pe_type: str, embedded: Corpus) -> None:
    plain = PlainTrial(PlainConfig(n_embd=6, block_size=5, pe_type=pe_type), embedded).model
    model_class = VARIANTS["attention"]
    config = model_class.Config(pe_type=pe_type, n_embd=6)
    ours = model_class(config, embedded.vocab_size, 5, torch.Generator())  # type: ignore[call-arg]
    own = dict(plain.named_parameters())
    with torch.no_grad():
        ours.get_parameter("embed_VD").copy_(own["embedding.weight"])
        ours.get_parameter("head.weight").copy_(own["head.weight"])
        ours.get_parameter("head.bias").copy_(own["head.bias"])
    if pe_type == "randn":
        position = ours.get_submodule("position")
        assert isinstance(position, AddedTable)
        position.table_TD = plain.get_buffer("table")
    ids: Tensor = torch.randint(embedded.vocab_size, (3, 5))
    torch.testing.assert_close(plain(ids), ours(ids), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("variant", ["bigram", "factorized", "attention"])
def test_plain_trials_learn_and_report(variant: str, embedded: Corpus) -> None:
    config = PlainConfig(variant, n_embd=8, max_steps=5, eval_every=2, eval_batches=20)
    reports = list(PlainTrial(config, embedded).train())
    assert [report["step"] for report in reports] == [2, 4, 5]
    assert reports[-1]["tokens"] == 5 * 64 * 8
    assert reports[-1]["train_loss"] < reports[0]["train_loss"]


def test_our_workers_train_packs_of_a_sweep_without_what_is_around_them(
    without: Path, tmp_path: Path
) -> None:
    small = ("corpus=embedded", "model.n_embd=16", "model.pe_type=rope", "training.block_size=8")
    sweep = ("published", *small, "training.max_steps=20", "replicates=2", "resources.pack=3")
    said = json.loads(run_without(without, "benchmarks.bare", *sweep, "--corpora", str(tmp_path)))
    assert said["trials"] == 6
    assert said["tokens"] == 6 * 20 * 64 * 8
    assert 3 < said["val_loss"] < 4.5
    assert 0 < time.time() - said["started_s"] < 120
    assert said["started_s"] < said["ended_s"] < time.time()
    assert [pack["trials"] for pack in said["packs"]] == [2, 2, 2]
    assert [len(pack["intervals"]) for pack in said["packs"]] == [1, 1, 1]


def test_a_pack_that_does_not_fit_into_memory_trains_in_halves(
    monkeypatch: pytest.MonkeyPatch, make_trial: MakeTrial
) -> None:
    class FullWorker:
        """Finishes packs of up to two trials; larger ones run out of memory in their last steps."""

        def assign(self, trials: list[dict[str, Any]]) -> None:
            self.keys = [TrialConfig.from_dict(trial).key for trial in trials]
            self.step = -1

        def advance(self, within_s: float) -> WorkerReport:
            self.step += 1
            if self.step == 2 and len(self.keys) > 2:
                return WorkerReport(done=True, split=PackSplit(SplitCause.MEMORY))
            done, evaluations = self.step == 2, [Evaluation(self.step, 3.0, 2.0, 2.0, 1.0, 1.0)]
            reports = [
                TrialReport(key, self.step, done, evaluations if self.step else [])
                for key in self.keys
            ]
            return WorkerReport(reports, done)

    monkeypatch.setattr(bare, "worker", FullWorker(), raising=False)
    monkeypatch.setattr(bare, "watch", Stopwatch(), raising=False)
    trials = [make_trial(seed=seed).to_dict() for seed in range(5)]
    packs = bare.train(trials)
    assert [len(pack.reports) for pack in packs] == [2, 1, 2]
    assert [len(pack.intervals) for pack in packs] == [2, 2, 2]


def test_quarters_by_hand() -> None:
    assert overhead.by_quarter([0, 1, 2, 4, 6, 9, 12, 16, 20]) == [1, 2, 3, 4]
    assert overhead.by_quarter([0.0]) == []


def test_the_cost_of_a_trial_by_hand() -> None:
    def run_trials(number: int) -> WayResult:  # half a second each after ten seconds
        started_s = [10 + number / 2 for number in range(number)]
        command = CommandResult(
            started_s=0.0, wall_s=10 + number / 2, output="", own_mib=number, all_mib=2.0
        )
        return WayResult(command, number, number, 4.0, started_s)

    first, second = overhead.rows("ours", run_trials, [20, 40], rounds=2)
    assert (first["trials"], second["trials"]) == (20, 40)
    assert str(second["s a trial"]) == "0.5 (0.5 to 0.5)"
    assert str(second["start-up, s"]) == "10 (10 to 10)"
    assert (second["by quarter, s"], second["growth"]) == ("0.5, 0.5, 0.5, 0.5", 1.0)
    assert (first["driver, MiB"], second["driver, MiB"]) == (20, 40)


def test_a_command_is_measured() -> None:
    held = "held = bytearray(200 << 20); import time; time.sleep(1.5); print('done')"
    ran = run_command(sys.executable, "-c", held)
    assert ran.output == "done\n"
    assert ran.wall_s > 1.5
    assert 200 < ran.own_mib < 300
    assert 200 < ran.all_mib < 300
    with pytest.raises(RuntimeError, match="no such thing"):
        run_command(sys.executable, "-c", "raise SystemExit('no such thing')")
    with pytest.raises(TimeoutError, match="not ended after 1 s"):
        run_command(sys.executable, "-c", "import time; time.sleep(60)", within_s=1.0)


def test_samples_show_their_spread() -> None:
    assert str(Samples([3.0, 1.0, 2.0])) == "2 (1 to 3)"
    assert str(Samples([1234.5])) == "1,234"


def test_a_wrong_name_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmarks", "step"])
    with pytest.raises(SystemExit, match="2"):
        command.main()
    assert "unknown: step; the sections are steps, packs" in capsys.readouterr().err


def test_rates_of_verdicts_are_tabled_for_each_form_and_noise(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmarks", "verdicts", "--sweeps", "1", "--quick"])
    monkeypatch.setenv("SWEEPS_CORPORA", "")  # which the command sets: restored after the test
    command.main()
    symmetric, skewed, more, forecasts, coverage = tables_of(capsys.readouterr().out)
    assert len(symmetric) == 36  # six forms, three scopes, two verdicts
    assert len({(row["claim"], row["holds"], row["wrong"]) for row in symmetric}) == 36
    assert {row["n"] for row in symmetric + skewed} == {"5"}
    assert {row["n"] for row in more} == {"10"}
    for rows, noises in ((symmetric, SYMMETRIC), (skewed, SKEWED), (more, SYMMETRIC | SKEWED)):
        for row in rows:
            assert {number(row[noise]) for noise in noises} <= {0.0, 100.0}
    below = [row for row in forecasts if (row["means"], row["n"]) == ("0.0015, 0", "10")]
    assert [number(row["SUPPORTED, forecast"]) for row in below] == pytest.approx([72.2], abs=1)
    assert {number(row["simultaneous interval"]) for row in coverage} <= {0.0, 100.0}


def test_power_and_level_are_tabled_plain_and_with_borrowed_variances(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmarks", "moderated", "--sweeps", "20"])
    monkeypatch.setenv("SWEEPS_CORPORA", "")  # which the command sets: restored after the test
    command.main()
    power, level, later_power, later_level = tables_of(capsys.readouterr().out)
    assert len(power) == 2 * len(VARIANCES)
    assert len(level) == len(later_level) == 5 * len(VARIANCES)
    assert all(int(row["borrowed"]) <= int(row["plain"]) for row in later_power)
    equal = power[0]
    assert (equal["variances"], equal["n"]) == ("equal", "5")
    assert number(equal["plain"]) < number(equal["moderated"])
