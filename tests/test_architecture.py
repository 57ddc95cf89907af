"""Imports go one way, and heavy libraries stay where they are needed."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {
    "bigram_models": set(),
    "trainables": {"bigram_models"},
    "sweeps": {"bigram_models", "trainables", "analysis"},
    "analysis": set(),
}
COMPARISON = (
    "analysis/comparison/"  # of trained models: it alone of analysis loads them (decision 7)
)
HOMES = {
    "ray": {
        "trainables/ray_trial.py",
        "sweeps/cluster.py",
        "sweeps/errands.py",
        "sweeps/jobs/client.py",
        "sweeps/ray_run.py",
    },
    "mlflow": {"sweeps/store.py", "sweeps/tracking.py", "analysis/runs.py"},
}
HEAVY = ("ray", "mlflow", "optuna")
FILES = [
    path.relative_to(ROOT).as_posix()
    for package in MAY_IMPORT
    for path in sorted((ROOT / package).rglob("*.py"))
]
every_file = pytest.mark.parametrize("file", FILES)


def nodes(file: str) -> Iterator[ast.AST]:
    return ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8")))


def imported(file: str) -> set[str]:
    """The top-level names that a file imports, anywhere in it."""
    names: set[str] = set()
    for node in nodes(file):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno} imports relatively"
            names.add((node.module or "").partition(".")[0])
    return names


def loaded_with(file: str) -> set[str]:
    """The modules that are imported when a file is."""
    body = ast.parse((ROOT / file).read_text(encoding="utf-8")).body
    return {node.module or "" for node in body if isinstance(node, ast.ImportFrom)}


def run_python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@every_file
def test_imports_go_one_way(file: str) -> None:
    package = file.partition("/")[0]
    allowed = MAY_IMPORT[package]
    if file.startswith(COMPARISON):
        allowed = {"bigram_models", "trainables"}
    assert imported(file) & (MAY_IMPORT.keys() - {package}) <= allowed


def test_nothing_needs_the_comparison_to_load() -> None:
    assert any(file.startswith(COMPARISON) for file in FILES)
    users = {f for f in FILES if any("analysis.comparison" in name for name in loaded_with(f))}
    assert all(file.startswith(COMPARISON) for file in users)


@pytest.mark.parametrize("file", [file for file in FILES if file.startswith("bigram_models/")])
def test_models_need_torch_only(file: str) -> None:
    assert imported(file) <= {"torch", "bigram_models"} | sys.stdlib_module_names


@pytest.mark.parametrize("library", HOMES)
def test_ray_and_mlflow_are_imported_in_few_files(library: str) -> None:
    assert {file for file in FILES if library in imported(file)} == HOMES[library]


@every_file
def test_only_commands_print(file: str) -> None:
    prints = [
        node.lineno
        for node in nodes(file)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "print"
    ]
    assert file.endswith("/command.py") or not prints


@every_file
def test_no_module_is_a_drawer(file: str) -> None:
    assert Path(file).stem not in ("utils", "util", "helpers", "misc", "common")


def test_every_package_is_checked() -> None:
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert packages - {"tests", "benchmarks"} == MAY_IMPORT.keys()


@pytest.mark.parametrize(
    "code",
    [
        "import bigram_models",
        "import trainables.training, trainables.artifacts, trainables.checkpoint",
        "from sweeps.command import main; main(['--help'], standalone_mode=False)",
        "from sweeps.command import main; main(['run', '--help'], standalone_mode=False)",
        "from analysis.command import main; main(['--help'], standalone_mode=False)",
    ],
)
def test_what_needs_no_heavy_library_loads_none(code: str) -> None:
    loaded = run_python(
        f"{code}\nimport sys\nprint('loaded', *(sys.modules.keys() & set({HEAVY})))"
    )
    assert loaded.splitlines()[-1] == "loaded"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["list"], "quickstart"),
        (["run", "quikstart"], "no preset 'quikstart'"),
        (["plan", "typo.yaml"], "typo.yaml: arms"),
        (["verify-pack", "typo.yaml"], "typo.yaml: arms"),
    ],
)
def test_a_mistake_is_told_without_torch(words: list[str], said: str, tmp_path: Path) -> None:
    (tmp_path / "typo.yaml").write_text("name: x\nmodel: 3\n")
    told = run_python(f"""
import contextlib, io, os, sys
os.chdir({str(tmp_path)!r})
from sweeps.command import main
with contextlib.redirect_stderr(sys.stdout), contextlib.suppress(SystemExit):
    main({words})
print('torch' in sys.modules)
""")
    assert said in told
    assert told.endswith("False\n")


def test_the_analysis_of_results_needs_no_torch() -> None:
    said = run_python("""
import analysis
from analysis.command import main
main(['compare', '--help'], standalone_mode=False)
import sys
print('torch' in sys.modules)
""")
    assert said.endswith("False\n")


def test_a_trial_trains_where_ray_and_mlflow_are_not_installed() -> None:
    said = run_python(f"""
import sys
sys.modules.update(dict.fromkeys({HEAVY}))  # their import raises ImportError
import torch
from trainables import artifacts, checkpoint
from trainables.config import TrialConfig
from trainables.corpus import tokenise
from trainables.training import Splits, initial_state, train
corpus = tokenise("verse", "to be or not to be\\n" * 30)
trial = TrialConfig.from_dict({{
    "model": {{"variant": "attention", "n_embd": 4}},
    "training": {{"max_steps": 3}},
    "seed": 1,
    "corpus": corpus.name,
    "corpus_digest": corpus.digest,
}})
splits = Splits.of(corpus, torch.device("cpu"))
for evaluation in train(initial_state(trial, corpus.vocab_size), splits, trial.training, 1):
    print("step", evaluation.step)
""")
    assert said == "step 3\n"
