"""Imports go one way, and heavy libraries stay where they are needed."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("bigram_models", "trainables", "analysis", "sweeps")
# What each part may import of ours, lowest first.
MAY_IMPORT = {
    "bigram_models": "",
    "analysis.errors": "",
    "analysis.statistics": "",
    "analysis.anytime": "analysis.statistics",
    "analysis.moderated": "analysis.statistics",
    "analysis.folder": "analysis.errors",
    "analysis.text": "analysis.errors",
    "analysis.command_options": "analysis.errors analysis.folder analysis.text",
    "analysis.trials": "analysis.errors analysis.text",
    "analysis.claims": "analysis.errors analysis.statistics analysis.anytime analysis.moderated"
    " analysis.text analysis.trials",
    "analysis.results": "analysis.errors analysis.statistics analysis.text analysis.trials",
    "analysis.figures": "analysis.statistics analysis.text analysis.trials analysis.results",
    "analysis.reports": "analysis.errors analysis.statistics analysis.text analysis.trials"
    " analysis.claims analysis.results analysis.figures",
    "analysis": "analysis.errors analysis.trials analysis.claims analysis.results",
    "trainables.errors": "",
    "trainables.files": "",
    "trainables.settings": "",
    "trainables.precision": "",
    "trainables.own_modules": "",
    "trainables.variants": "bigram_models trainables.errors trainables.own_modules",
    "trainables.config": "bigram_models trainables.errors trainables.settings trainables.precision"
    " trainables.variants",
    "trainables.data": "trainables.errors trainables.files",
    "trainables.training": "bigram_models trainables.config trainables.data trainables.precision",
    "trainables.persistence": "bigram_models trainables.config trainables.data trainables.errors"
    " trainables.files trainables.training",
    "trainables.model_contract": "bigram_models trainables.errors trainables.training"
    " trainables.variants",
    "trainables.model_check": "bigram_models trainables.config trainables.data trainables.errors"
    " trainables.model_contract trainables.own_modules trainables.persistence trainables.variants",
    "trainables.worker": "trainables.config trainables.data trainables.files trainables.persistence"
    " trainables.training",
    "analysis.comparison": "analysis.errors analysis.text analysis.trials analysis.figures"
    " bigram_models trainables.*",  # of trained models: decision 7
    "analysis.command": "analysis.errors analysis.folder analysis.command_options analysis.text"
    " analysis.trials analysis.claims analysis.results analysis.figures analysis.reports"
    " analysis.comparison",
    "sweeps.process": "",
    "sweeps.records": "analysis analysis.trials trainables.*",
    "sweeps.spec": "analysis.errors analysis.text trainables.*",
    "sweeps.planning": "analysis.errors analysis.text bigram_models trainables.*"
    " sweeps.records sweeps.spec",
    "sweeps.resources": "trainables.* sweeps.spec sweeps.planning",
    "sweeps.tracking": "analysis analysis.errors analysis.text analysis.trials trainables.*"
    " sweeps.records sweeps.planning",
    "sweeps.search": "analysis analysis.errors analysis.text analysis.trials trainables.*"
    " sweeps.process sweeps.records sweeps.spec sweeps.planning sweeps.resources",
    "sweeps.deciding": "analysis analysis.claims analysis.trials trainables.* sweeps.process"
    " sweeps.records sweeps.planning sweeps.tracking sweeps.search",
    "sweeps.cluster": "analysis.errors analysis.text trainables.* sweeps.process sweeps.spec"
    " sweeps.planning sweeps.resources sweeps.tracking",
    "sweeps.execution": "analysis analysis.errors analysis.text analysis.trials analysis.results"
    " analysis.figures analysis.reports bigram_models trainables.* sweeps.process sweeps.records"
    " sweeps.spec sweeps.planning sweeps.resources sweeps.tracking sweeps.search sweeps.deciding"
    " sweeps.cluster",
    "sweeps.server": "analysis.errors analysis.trials trainables.* sweeps.process",
    "sweeps.cli": "analysis.errors analysis.text analysis.results trainables.*"
    " sweeps.process sweeps.records sweeps.spec sweeps.planning sweeps.resources sweeps.tracking"
    " sweeps.deciding sweeps.cluster sweeps.execution sweeps.server",
    "sweeps.__main__": "sweeps.process sweeps.cli",
}
HOMES = {
    "ray": {
        "trainables/worker/ray_trial.py",
        "sweeps/cluster/connection.py",
        "sweeps/cluster/jobs.py",
        "sweeps/cluster/machines.py",
        "sweeps/cluster/notices.py",
        "sweeps/cluster/ray_processes.py",
        "sweeps/cluster/ray_start.py",
        "sweeps/cluster/remote_tasks.py",
        "sweeps/cluster/slots.py",
        "sweeps/cluster/sweep_job.py",
        "sweeps/execution/tune_runner.py",
    },
    "mlflow": {
        "sweeps/tracking/evidence.py",
        "sweeps/tracking/experiment.py",
        "sweeps/tracking/run_contents.py",
        "sweeps/tracking/store.py",
        "sweeps/tracking/sweep_runs.py",
        "analysis/trials/mlflow_store.py",
    },
    "triton": {"bigram_models/triton_kernels.py"},
}
HEAVY = ("ray", "mlflow", "optuna", "triton")
FILES = [
    path.relative_to(ROOT).as_posix()
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
]
every_file = pytest.mark.parametrize("file", FILES)


def nodes(file: str) -> Iterator[ast.AST]:
    return ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8")))


def imported(file: str) -> set[str]:
    """The modules that a file imports, anywhere in it."""
    names: set[str] = set()
    for node in nodes(file):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno} imports relatively"
            module = node.module or ""
            below = {f"{module}.{alias.name}" for alias in node.names}
            names |= {name for name in below if is_module(name)} or {module}
    return names


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def libraries(file: str) -> set[str]:
    """The top-level names that a file imports."""
    return {name.partition(".")[0] for name in imported(file)}


def module_of(file: str) -> str:
    return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def part_of(module: str) -> str:
    """The part of the table that a module is in; a package is its own `__init__`."""
    parts = module.split(".")
    names = [".".join(parts[: end + 1]) for end in range(len(parts))]
    return next((name for name in reversed(names) if name in MAY_IMPORT), module)


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
    part = part_of(module_of(file))
    parts = {part_of(name) for name in imported(file) if name.partition(".")[0] in PACKAGES}
    allowed = below(part)
    assert {name for name in parts - {part} if name not in allowed} == set()


def below(part: str) -> set[str]:
    """The parts that a part may import."""
    names = MAY_IMPORT.get(part, "").split()
    return {known for known in MAY_IMPORT for name in names if fnmatch(known, name)}


def test_the_table_has_every_part_and_no_way_back() -> None:
    parts = {part_of(module_of(file)) for file in FILES}
    assert parts - {"trainables", "sweeps"} == MAY_IMPORT.keys()
    lower: set[str] = set()
    for part in MAY_IMPORT:
        assert below(part) <= lower, part
        lower.add(part)


def test_modules_of_a_package_need_each_other_one_way() -> None:
    modules = {module_of(file): file for file in FILES}
    graph = {module: loaded_with(file) & modules.keys() for module, file in modules.items()}
    list(TopologicalSorter(graph).static_order())  # raises CycleError


@pytest.mark.parametrize("package", [file for file in FILES if file.endswith("/__init__.py")])
def test_a_package_lists_its_modules(package: str) -> None:
    listed = (ROOT / package).read_text(encoding="utf-8")
    folder = (ROOT / package).parent
    modules = {path.stem for path in folder.glob("*.py")} - {"__init__", "__main__"}
    modules |= {path.parent.name for path in folder.glob("*/__init__.py")}
    entries = re.findall(r"^ *(\w+)  ", listed, re.MULTILINE)
    assert sorted(entries) == sorted(modules)


def test_nothing_needs_the_comparison_to_load() -> None:
    users = {f for f in FILES if any("analysis.comparison" in name for name in loaded_with(f))}
    assert users
    assert {part_of(module_of(file)) for file in users} == {"analysis.comparison"}


@pytest.mark.parametrize("file", [file for file in FILES if file.startswith("bigram_models/")])
def test_models_need_torch_only(file: str) -> None:
    assert libraries(file) - {"triton"} <= {"torch", "bigram_models"} | sys.stdlib_module_names


@pytest.mark.parametrize("library", HOMES)
def test_heavy_libraries_are_imported_in_few_files(library: str) -> None:
    assert {file for file in FILES if library in libraries(file)} == HOMES[library]


@every_file
def test_only_commands_print(file: str) -> None:
    prints = [
        node.lineno
        for node in nodes(file)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "print"
    ]
    assert file.startswith("sweeps/cli/") or file == "analysis/command.py" or not prints


@every_file
def test_no_module_is_a_drawer(file: str) -> None:
    assert Path(file).stem not in ("utils", "util", "helpers", "misc", "common")


def test_every_package_is_checked() -> None:
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert packages - {"tests", "benchmarks"} == set(PACKAGES)


@pytest.mark.parametrize(
    "code",
    [
        "import bigram_models",
        "import trainables.training.loop",
        "from trainables.persistence import artifacts, checkpoint",
        "from sweeps.cli.main import main; main(['--help'], standalone_mode=False)",
        "from sweeps.cli.main import main; main(['run', '--help'], standalone_mode=False)",
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
from sweeps.cli.main import main
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
from trainables.persistence import artifacts, checkpoint
from trainables.config import TrialConfig
from trainables.data.corpus import tokenise
from trainables.training.loop import Splits, initial_state, train
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
