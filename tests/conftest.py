"""Fixtures of several packages: corpora, and trials from short keyword arguments."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.processes import end_started
from trainables.config import TrainingConfig, TrialConfig
from trainables.data.corpus import Corpus, load_corpus

SHARED_CORPORA = Path(__file__).parents[2] / "shared" / "corpora"

MakeTrial = Callable[..., TrialConfig]
RUNNERS = {"SweepFolder", "WaitingFolder", "run_command"}  # they run whole sweeps and benchmarks


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the files that take minutes come first, so that at the end no one runs alone."""
    items.sort(key=lambda item: RUNNERS.isdisjoint(vars(getattr(item, "module", None) or object)))


@pytest.fixture(scope="session", autouse=True)
def _signals_have_their_effect() -> None:
    """Restore signals that this process ignores (under nohup): processes of tests inherit them."""
    for number, handler in (
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGHUP, signal.SIG_DFL),
    ):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, handler)


@pytest.fixture(autouse=True)
def _settings_of_ray_are_of_one_test() -> Iterator[None]:
    """`prepare_ray` sets variables that decide how a Ray of a later test would start."""
    before = {name: value for name, value in os.environ.items() if name.startswith("RAY_")}
    yield
    for name in [name for name in os.environ if name.startswith("RAY_")]:
        del os.environ[name]
    os.environ.update(before)


@pytest.fixture(autouse=True)
def _no_driver_outlives_its_test() -> Iterator[None]:
    """A test that fails may leave a sweep that would never end."""
    yield
    end_started()


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)  # tiny models: more threads cost time


@pytest.fixture(scope="session")
def corpora() -> Path:
    """The folder that holds tinyshakespeare/input.txt."""
    folder = Path(os.environ.get("SWEEPS_CORPORA") or SHARED_CORPORA)
    file = folder / "tinyshakespeare" / "input.txt"
    if not file.is_file():
        pytest.skip(f"tinyshakespeare is not at {file}; SWEEPS_CORPORA names another folder")
    return folder


@pytest.fixture(scope="session")
def tinyshakespeare(corpora: Path) -> Corpus:
    return load_corpus("tinyshakespeare", corpora)


@pytest.fixture(scope="session")
def embedded() -> Corpus:
    return load_corpus("embedded", Path("no cache is needed"))


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of an MLflow store, to copy: making one takes seconds."""
    from analysis.trials.mlflow_store import open_store
    from analysis.trials.sqlite_store import store_uri

    file = tmp_path_factory.mktemp("store") / "mlflow.db"
    open_store(store_uri(file))
    return file


@pytest.fixture
def no_ray_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let our Ray actor be a plain object: to ask Ray where it runs would start a Ray here."""
    here = SimpleNamespace(get_node_id=lambda: "here")
    monkeypatch.setattr("ray.get_runtime_context", lambda: here)
    monkeypatch.setattr("ray._private.state.state.get_draining_nodes", dict)


@pytest.fixture(scope="session")
def make_trial() -> MakeTrial:
    """Make trials from short names: `make_trial("attention", n_embd=8, max_steps=20)`."""

    def make(variant: str = "bigram", seed: int = 1337, **settings: Any) -> TrialConfig:
        about = {name: settings.pop(name, name) for name in ("corpus", "corpus_digest")}
        names = TrainingConfig.model_fields.keys() & settings
        training = TrainingConfig().model_dump() | {name: settings.pop(name) for name in names}
        model = {"variant": variant, **settings}
        return TrialConfig.from_dict({"model": model, "training": training, "seed": seed, **about})

    return make
