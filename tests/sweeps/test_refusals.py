"""Bad input: a clear error, exit code 2, no traceback, and Ray is not even imported."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from sweeps.cli.main import main
from sweeps.planning.overriding import override
from sweeps.spec.sweep_file import load_sweep
from trainables.data.verse import write_play

ATTENTION = "arms: [{model: {variant: attention}, grid: {model.n_embd: [8, 16]}}]"


@pytest.fixture(autouse=True)
def _no_engines(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)  # importing it fails
    monkeypatch.setitem(sys.modules, "mlflow", None)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SWEEPS_STATE", raising=False)
    Path("play.txt").write_text(write_play(characters=2_000))


def run(content: str, *arguments: str, command: str = "run") -> Result:
    Path("sweep.yaml").write_text(f"name: study\ncorpus: file:play.txt\n{content}\n")
    return CliRunner().invoke(main, [command, "sweep.yaml", *arguments])


def refused(result: Result, *parts: str) -> None:
    assert result.exit_code == 2, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert "Traceback" not in result.output
    for part in parts:
        assert part in result.output


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("arms: [{model: {variant: attention}, grid: {model.pe_typ: [rope]}}]",
         ["sweep.yaml: arms[0].grid.model.pe_typ", "unknown setting", "did you mean 'pe_type'?"]),
        ("trainin: {}\n" + ATTENTION,
         ["sweep.yaml: trainin: unknown setting 'trainin'", "'training'"]),
        ("training: {max_step: 3}\n" + ATTENTION, ["training.max_step", "'max_steps'"]),
        ("arms: [{model: {variant: attention, n_emb: 8}}]", ["arms[0].model.n_emb", "'n_embd'"]),
        ("arms: [{model: {variant: atention}}]", ["arms[0].model.variant", "'attention'"]),
        ("arms: [{model: {}}]", ["arms[0].model.variant", "attention"]),
        ("arms: [{model: {variant: 'my_model:Net'}}]", ["arms[0].model.variant", "my_model"]),
        ("storage: {uri: 'memory://x'}\n" + ATTENTION,
         ["sweep.yaml: storage.uri: storage memory://x lies in the memory of one process"]),
        ("resources: {cpu_per_trial: 1}\n" + ATTENTION, ["resources.cpu_per_trial", "'cpus_per"]),
        ("arms: [{model: {variant: attention, n_embd: '64'}}]", ["arms[0].model.n_embd", "'64'"]),
        ("arms: [{model: {variant: attention}, grid: {model.n_embd: [8, 1.5]}}]",
         ["arms[0].model.n_embd", "1.5"]),
        ("arms: [{model: {variant: attention}, grid: {model.n_embd: 8}}]",
         ["arms[0].grid.model.n_embd", "list"]),
        ("training: {max_steps: true}\n" + ATTENTION, ["training.max_steps", "True"]),
        ("training: {learning_rate: .inf}\n" + ATTENTION, ["training.learning_rate", "finite"]),
        ("training: {learning_rate: -1e-2}\n" + ATTENTION, ["training.learning_rate", "-0.01"]),
        ("seed: -1\n" + ATTENTION, ["seed", "-1"]),
        ("replicates: 0\n" + ATTENTION, ["sweep.yaml: replicates", "number of seeds", "0"]),
        ("replicates: [1, 1]\n" + ATTENTION, ["replicates", "twice", "[1, 1]"]),
        ("replicates: []\n" + ATTENTION, ["replicates", "list"]),
        ("replicates: 2.5\n" + ATTENTION, ["replicates", "2.5"]),
        ("replicates: [1, -1]\n" + ATTENTION, ["seed", "-1"]),
        ("arms: [{model: {variant: attention}, grid: {seed: [1, 2]}}]",
         ["arms[0].grid.seed", "replicates: [1, 2]"]),
        ("arms: [{model: {variant: attention, pe_type: rope, n_embd: 7}}]",
         ["arms[0].model", "n_embd=7 is odd", "rope"]),
        ("training: {block_size: 200}\n" + ATTENTION,
         ["block_size=200", "validation split", "199"]),
        ("arms: [{model: {variant: attention}, grid: {model.n_embd: [8, 8]}}]",
         ["repeats a trial of arms[0]", "n_embd=8"]),
        ("arms: [{model: {variant: bigram}}, {model: {variant: bigram}}]",
         ["arms[1] repeats a trial of arms[0]"]),
        ("arms: [{model: {variant: bigram}, training: {evaluate_train: end}},"
         " {model: {variant: bigram}}]",
         ["arms[1] repeats", ", and evaluate_train cannot change its result; remove one"]),
        ("arms: [{model: {variant: bigram}, grid: {training.evaluate_train: [slice, end]}}]",
         ["arms[0].grid.training.evaluate_train: trials that differ in nothing else are the same",
          "`training: {evaluate_train: exact}`"]),
        ("arms: [{model: {variant: bigram}, search: {training.evaluate_train: [slice, end]}}]",
         ["arms[0].search.training.evaluate_train: trials that differ in nothing else"]),
        ("arms: [{model: {variant: attention}, grid: {model.n_embd: []}}]",
         ["arms[0].grid.model.n_embd", "empty"]),
        ("arms: []", ["arms", "at least 1"]),
        ("description: no arms", ["arms", "required"]),
        ("name: study\n" + ATTENTION, ["sweep.yaml: line 3: 'name' is given twice"]),
        ("arms: [", ["sweep.yaml: line", "not YAML"]),
        ("arms: " + "[" * 3_000, ["sweep.yaml: line 3: more than 50 lists and maps"]),
        ("seed: 0042\n" + ATTENTION, ["sweep.yaml: line 3: readers", "write 42"]),
        ("arms: [{model: {{ model }}}]", ["sweep.yaml: line 3: a map cannot be a key"]),
        ("training: {1: 2}\n" + ATTENTION, ["sweep.yaml: training: the key 1 should be text"]),
        ("training: {log: yes}\n" + ATTENTION, ["training.log: unknown setting 'log'"]),
        ("? \"a\\nb\"\n: 1\n" + ATTENTION, ["sweep.yaml: ['a\\nb']: unknown setting 'a\\nb'"]),
        ("resources: {gpus_per_trial: 1.5}\n" + ATTENTION, ["gpus_per_trial", "1.5", "whole"]),
        ("resources: {gpus_per_trial: automatic}\n" + ATTENTION,
         ["sweep.yaml: resources.gpus_per_trial: give auto, or a number", "'automatic'"]),
        ("resources: {cpus_per_trial: 9999}\n" + ATTENTION, ["9999 CPUs", "there is"]),
        ("resources: {gpus_per_trial: 64}\n" + ATTENTION, ["64 GPUs", "there is"]),
        ("corpus: nowhere\n" + ATTENTION, ["'corpus' is given twice"]),
    ],
)  # fmt: skip
def test_a_wrong_file_is_refused_with_what_where_and_the_remedy(
    content: str, parts: list[str]
) -> None:
    refused(run(content), *parts)


@pytest.mark.parametrize("command", ["run", "plan"])
@pytest.mark.parametrize(
    ("code", "reason"),
    [("import sys\nsys.exit(7)\n", "own_net.py:2: SystemExit: 7"),
     ("{}['x']\n", "own_net.py:1: KeyError: 'x'")],
)  # fmt: skip
def test_a_module_that_raises_or_exits_is_refused(code: str, reason: str, command: str) -> None:
    Path("own_net.py").write_text(code)
    refused(run("arms: [{model: {variant: 'own_net:Net'}}]", command=command), reason)


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("model.pe_typ=rope", ["override 'model.pe_typ=rope'", "'model.pe_type'"]),
        ("training.max_steps", ["path=value"]),
        ("corpus=nowhere", ["'nowhere' does not exist", "embedded"]),
        ("corpus=file:absent.txt", ["absent.txt", "No such file"]),
        ("resources.cpus=2", ["override", "unknown setting 'cpus'", "cpus_per_trial"]),
        ("resources.gpus_per_trial=some", ["override", "gpus_per_trial: give auto", "'some'"]),
        ("name=a/b", ["override", "name"]),
        ("model.n_embd=", ["model.n_embd", "empty"]),
        ("model.n_embd=x,8", ["model.n_embd", "'x'"]),
    ],
)
def test_a_wrong_override_is_refused(override: str, parts: list[str]) -> None:
    refused(run(ATTENTION, override), *parts)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("run.csv", "would be a file to `analysis`"),
        ("run.CSV", "would be a file to `analysis`"),
        ("a.b.Csv", "would be a file to `analysis`"),
        ("Default", "the name Default belongs to an experiment that MLflow makes"),
        ("DEFAULT", "the name DEFAULT belongs to an experiment that MLflow makes"),
        ("a" * 101, "write 1 to 100 letters"),
        ("..", "write 1 to 100 letters"),
        (".hidden", "write 1 to 100 letters"),
        ("-x", "write 1 to 100 letters"),
        ("a\n", "write 1 to 100 letters"),
        ("größe", "write 1 to 100 letters"),
        ("", "write 1 to 100 letters"),
    ],
)
def test_a_name_that_means_something_else_is_refused(name: str, reason: str) -> None:
    refused(run(ATTENTION, f"name={name}"), "override 'name=", "name: ", reason)


@pytest.mark.parametrize(
    "content",
    [
        f"replicates: {[1] * 5_000}\n" + ATTENTION,
        f"{'x' * 5_000}: 1\n" + ATTENTION,
        f"training: {{max_steps: {'x' * 5_000}}}\n" + ATTENTION,
        f"training: {{{'x' * 5_000}: 1}}\n" + ATTENTION,
        f"arms: [{{model: {{variant: {'x' * 5_000}}}}}]",
        f"arms: [{{model: {{variant: 'x:{'y' * 5_000}'}}}}]",
        f"arms: [{{model: {{variant: bigram}}, grid: {{model.{'x' * 5_000}: [1]}}}}]",
        f"arms: [{{model: {{variant: bigram}}, search: {{seed: {[*range(5_000)]}}}}}]",
        f"arms: [{{model: {{variant: bigram}}, grid: {{seed: {[*range(5_000)]}}}}}]",
    ],
)
def test_what_is_long_is_shown_in_short(content: str) -> None:
    result = run(content)
    refused(result, "sweep.yaml: ")
    assert len(result.output) < 600


@pytest.mark.parametrize("name", ["run.csv2", "csv", "Defaults", "2024-01-01", "a..b", "a" * 100])
def test_a_name_that_looks_like_one_of_these_is_fine(name: str) -> None:
    sweep, _ = load_sweep("quickstart")
    assert override(sweep, [f"name={name}"]).name == name


@pytest.mark.parametrize("command", ["run", "plan"])
@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("absent.yaml", ["there is no sweep file absent.yaml"]),
        ("publishd", ["no preset 'publishd'", "did you mean published?"]),
        ("quickstrat", ["no preset 'quickstrat'", "did you mean quickstart?"]),
        ("quickstart.yml", ["no sweep file quickstart.yml; did you mean quickstart?"]),
        ("mine", ["no preset 'mine'", "did you mean mine.yml?"]),
        ("min.yaml", ["no sweep file min.yaml; did you mean mine.yml?"]),
        ("below/thiers.yaml", ["no sweep file below/thiers.yaml; did you mean below/theirs.yaml?"]),
        ("zzz", ["no preset 'zzz'", "presets: compare, published, quickstart, search, tuned"]),
    ],
)
def test_a_missing_file_or_preset_is_refused(command: str, name: str, parts: list[str]) -> None:
    Path("below").mkdir()
    for file in ("mine.yml", "below/theirs.yaml"):
        Path(file).write_text("")
    refused(CliRunner().invoke(main, [command, name]), *parts)


@pytest.mark.parametrize("name", ["/dev/zero", "pipe", ".", "play.txt/x"])
def test_what_is_no_file_is_refused_at_once(name: str) -> None:
    os.mkfifo("pipe")
    refused(CliRunner().invoke(main, ["plan", name]), name)


def test_a_name_that_no_file_can_have_is_refused() -> None:
    refused(CliRunner().invoke(main, ["plan", "x" * 300]), "xxx", "File name too long")
    refused(CliRunner().invoke(main, ["plan", "a\0b"]), "no preset")


def test_a_state_directory_that_cannot_be_written_is_refused() -> None:
    refused(run(ATTENTION, "--state", "/proc/state"), "/proc/state", "not writable", "--state")
    refused(run(ATTENTION, "--state", "play.txt"), "play.txt", "not a directory", "--state")


def test_a_command_that_reads_runs_needs_a_store() -> None:
    for arguments in (["ui"], ["sample", "study/best"]):
        result = CliRunner().invoke(main, arguments)
        refused(result, "there is no MLflow store", "run a sweep first")
    assert not Path("state").exists()


def test_storage_that_this_machine_cannot_use_is_refused_before_anything_is_written() -> None:
    said = run("storage: {uri: 'file:///dev/null/x'}\n" + ATTENTION)
    refused(said, "file:///dev/null/x/study cannot be written: ", "each machine needs the package")
    chosen = ("--storage-uri", "s4://bucket")
    refused(run(ATTENTION, *chosen), "storage s4://bucket has a protocol that fsspec does not know")
    assert not list(Path("state/sweeps").glob("*"))
