"""`sweeps sample`, with a model from a folder instead of a store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import sweeps.store
from sweeps.command import main
from trainables.artifacts import write_artifacts
from trainables.config import TrialConfig
from trainables.training import initial_state

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
    monkeypatch.setattr(sweeps.store, "mlflow_client", lambda *_, **__: None)
    monkeypatch.setattr(sweeps.store, "fetch_model", lambda *_: tmp_path)
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
