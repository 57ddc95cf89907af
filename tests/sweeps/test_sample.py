"""`sweeps sample`, with a model from a folder instead of a store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result

import sweeps.tracking.store
from sweeps.cli.main import main
from trainables.config import TrialConfig
from trainables.persistence.artifacts import write_artifacts
from trainables.training.loop import initial_state

MakeTrial = Callable[..., TrialConfig]
Sample = Callable[..., Result]


@pytest.fixture
def sample(make_trial: MakeTrial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sample:
    """Run the command on an untrained model that knows some characters."""

    def run(vocabulary: str, *arguments: str) -> Result:
        trial = make_trial("bigram")
        write_artifacts(tmp_path, trial, initial_state(trial, len(vocabulary)).model, vocabulary)
        return CliRunner().invoke(main, ["sample", "study/best", "--length", "5", *arguments])

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sweeps.tracking.store, "mlflow_client", lambda *_, **__: None)
    monkeypatch.setattr(sweeps.tracking.store, "fetch_model", lambda *_: tmp_path)
    return run


@pytest.mark.parametrize(
    ("vocabulary", "first"), [("\nabc", "\n"), ("abc", "a"), ("\tabc", "\t"), ("é漢", "é")]
)
def test_by_default_it_continues_what_the_model_knows(
    vocabulary: str, first: str, sample: Sample
) -> None:
    result = sample(vocabulary)
    assert result.exit_code == 0, result.output
    assert result.output.startswith(first)
    assert len(result.output) == len(first) + 5 + len("\n")


def test_a_prompt_is_taken_as_it_is(sample: Sample) -> None:
    assert sample("abc", "--prompt", "cab").output.startswith("cab")
    for prompt, reason in (("", "the prompt is empty"), ("\n", r"'\n' does not occur")):
        refused = sample("abc", "--prompt", prompt)
        assert refused.exit_code == 2
        assert reason in refused.output


class Store:
    """Stands for MLflow: two sweeps, of which one has a run that was stopped early."""

    def search_experiments(self) -> list[Any]:
        tags = {"mlflow.sharedViewState.ranking": ""}
        names = ["Default", "tiny", "ocrash"]
        return [
            SimpleNamespace(name=n, experiment_id=n, tags={} if n == "Default" else tags)
            for n in names
        ]

    def search_runs(self, ids: list[str], query: str, **_: Any) -> list[Any]:
        tags = {"stopped": "asha"}
        return [SimpleNamespace(data=SimpleNamespace(tags=tags))] if ids == ["tiny"] else []


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ocrash/best", "no trial of ocrash is finished, so it has no best model yet"),
        ("tiny/best", "no trial of tiny is finished, so it has no best model yet"),
        ("tinny/best", "the MLflow store has no sweep 'tinny'; did you mean 'tiny'?"),
        ("tiny", "tiny is a sweep, and 'tiny' no trial; name its best one tiny/best"),
        ("tiny/worst", "tiny is a sweep, and 'tiny/worst' no trial; name its best one tiny/best"),
        ("abc", "there is no trial 'abc'; name a run id, a trial's key, or SWEEP/best"),
    ],
)
def test_what_has_no_model_is_said(name: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeps.tracking.store, "mlflow_client", lambda *_, **__: Store())
    refused = CliRunner().invoke(main, ["sample", name])
    assert (refused.exit_code, refused.stderr) == (2, f"sweeps: {said}\n")
