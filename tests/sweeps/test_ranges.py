"""What the ranges of a search reach, and searches that have little or nothing to choose from."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import optuna
import pytest
from click.testing import CliRunner

from analysis.trials.search_record import Space, read_search
from sweeps.cli.main import main
from sweeps.planning.feasibility import MOST, allowed
from sweeps.search.study import Study
from sweeps.spec.search_spec import Parameter, SamplerName
from sweeps.tracking.description import describe_sweep
from tests.sweeps.searches import SWEEP, continued, plan, search, simulate, studies, valley
from tests.sweeps.simulation import Simulation
from trainables.errors import UserError, validate

SAMPLERS = get_args(SamplerName)
RATE = "{low: 1e-4, high: 1, log: true}"
WIDTH = "{low: 2, high: 32}"
ODD = SWEEP.replace(WIDTH, "{low: 8, high: 30, step: 8}").replace(
    RATE, "{low: 0.1, high: 0.45, step: 0.1}"
)
TINY = SWEEP.replace(RATE, "[0.1]").replace(WIDTH, "[2, 3]").replace("trials: 20", "trials: 12")


def constrained(*constraints: str, sweep: str = SWEEP) -> str:
    return sweep.replace("stopping:", f"constraints: {json.dumps(constraints)}, stopping:")


@pytest.mark.parametrize(
    ("low", "high", "step", "highest"),
    [
        (8, 30, 8, 24),
        (8, 32, 8, 32),
        (-7, 8, 4, 5),
        (1, 10**15 + 5, 2, 10**15 + 5),
        (0.1, 0.45, 0.1, 0.4),
        (0.1, 0.4, 0.1, 0.4),
        (0.1, 0.3, 0.2, 0.3),
        (0, 1, 0.3, 0.9),
    ],
)
def test_steps_reach_a_highest_value_that_the_analysis_knows_as_well(
    low: float, high: float, step: float, highest: float
) -> None:
    parameter = Parameter(low=low, high=high, step=step)
    assert parameter.highest == highest
    assert type(parameter.highest) is type(highest)
    assert parameter.value(int(parameter.count) - 1) == pytest.approx(highest)
    space = Space.of({"low": low, "high": high, "step": step})  # as earlier versions wrote it
    assert space.high == highest
    assert [space.edge(value) for value in (low, highest)] == ["low edge", "high edge"]
    assert optuna.distributions.FloatDistribution(low, highest, step=step).high == highest


def test_a_range_of_one_value_in_an_earlier_sweep_has_no_edge() -> None:
    assert Space.of({"low": 8, "high": 10, "step": 8}).edge(8) == ""


@pytest.mark.parametrize(
    ("given", "part"),
    [
        ({"low": 8, "high": 10, "step": 8}, "step=8 leads from low=8 beyond high=10"),
        ({"low": 0.1, "high": 0.2, "step": 1e300}, "low is the only value"),
        ({"low": 0.0, "high": 1e30, "step": 1e-9}, "step=1e-09 is too small"),
        ({"low": 1, "high": 2**53, "step": 1}, "step=1 is too small"),
    ],
)
def test_a_step_that_cannot_be_is_refused(given: dict[str, Any], part: str) -> None:
    with pytest.raises(UserError, match=part):
        validate(Parameter, given, "x: ")


@pytest.mark.parametrize("step", [0, -1, "x", 1e-300, float("inf"), float("nan")])
def test_a_step_that_nobody_can_have_written_has_another_form(step: Any) -> None:
    space = {"low": 1, "high": 1e300, "step": step}
    about = {"sampler": "tpe", "stopping": "none", "objectives": ["val_loss"], "seeds": [1]}
    text = json.dumps({**about, "confirm_seeds": [], "arms": [0], "spaces": [{"n": space}]})
    with pytest.raises(ValueError, match="has another form than expected"):
        read_search(text)


def test_what_is_stored_and_tried_first_is_what_is_reached() -> None:
    made = plan(ODD)
    widths = {example.flat["n_embd"] for example in made.examples}
    assert widths == {8, 24}
    stored = json.loads(describe_sweep(made)["tags"]["search"])["spaces"][0]
    assert (stored["n_embd"]["high"], stored["learning_rate"]["high"]) == (24, 0.4)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("sweep", ["odd", "plain"])
def test_a_search_shows_no_warning_of_a_library(sweep: str, sampler: str, tmp_path: Path) -> None:
    several = "objectives: [val_loss, parameters], " if sampler.startswith("nsga") else ""
    text = ODD if sweep == "odd" else SWEEP
    made = plan(text.replace("trials: 20", f"{several}trials: 8, sampler: {sampler}"))
    with warnings.catch_warnings(action="error"):
        found = search(made, tmp_path)
        Simulation(found, valley).run()
        again = search(made, tmp_path)  # reads what was chosen
        continued(again)
    assert len(list(again.known())) == 8
    if sweep == "odd":
        assert {trial.flat["n_embd"] for trial, _ in again.known()} <= {8, 16, 24}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            constrained("n_embd > 99"),
            f"none of {MOST:,} random configurations of the study factorized satisfies them",
        ),
        (
            constrained("n_embd > 2", "n_embd < 3", sweep=TINY),
            "none of the 2 configurations of the study factorized satisfies them",
        ),
        (
            constrained("n_embd / (n_embd - 8) < 0 and n_embd > 8"),
            f"none of {MOST:,} random configurations",
        ),
    ],
)
def test_constraints_that_nothing_satisfies_are_refused(text: str, message: str) -> None:
    with pytest.raises(UserError) as refused:
        plan(text)
    assert "test: search.constraints: " in str(refused.value)
    assert message in str(refused.value)
    assert "loosen them" in str(refused.value)


def test_a_suggestion_for_which_a_constraint_cannot_be_evaluated_is_not_trained() -> None:
    made = plan(constrained("1 / (n_embd - 8) > -1", "n_embd < 12"))
    found = search(made)
    Simulation(found, valley).run()
    widths = {trial.flat["n_embd"] for trial, _ in found.known()}
    assert widths <= {*range(2, 12)} - {7, 8}
    reasons = [
        one.user_attrs.get("rejected", "") for one in found._studies["factorized"].stored.trials
    ]
    assert any("cannot be evaluated: division by zero" in reason for reason in reasons)
    assert len(list(found.known())) == 20


def test_a_small_space_is_counted_and_one_that_is_used_up_says_so(tmp_path: Path) -> None:
    made = plan(TINY)
    assert made.sizes == {"factorized": 2}
    assert made.to_come == 2
    said = ["study factorized: all 2 configurations of its space were tried; widen it for more"]
    for _ in range(2):  # and when it is run again
        found = search(made, tmp_path)
        Simulation(continued(found), valley).run()
        assert found.exhausted() == said
    assert len(list(found.known())) == 2


def test_a_search_that_has_what_it_asked_for_is_not_exhausted() -> None:
    made = plan(TINY, "search.trials=2")
    assert made.sizes == {}
    found = search(made)
    Simulation(found, valley).run()
    assert found.exhausted() == []


def test_conditions_and_arms_are_counted_each_once() -> None:
    arms = """arms:
  - model: {variant: bigram}
    search: {training.learning_rate: [0.1, 0.2]}
  - model: {variant: factorized}
    search:
      model.n_embd: {low: 2, high: 7, step: 2}
      training.schedule: [constant, cosine]
      training.warmup_steps: {low: 0, high: 10, step: 5, when: {training.schedule: cosine}}
"""
    start, end = SWEEP.index("arms:"), SWEEP.index("search: {trials")
    made = plan(SWEEP[:start] + arms + SWEEP[end:])
    (study,) = made.studies
    found = allowed(study, [], 1)
    assert (len(found.keys), found.looked_at, found.is_all) == (2 + 3 * (1 + 3), 14, True)
    found = allowed(study, ["n_embd > 2"], 1)  # the bigram has no such setting
    assert len(found.keys) == 2 + 2 * (1 + 3)
    searched = search(made)
    Simulation(searched, valley).run()
    assert "all 14 configurations" in searched.exhausted()[0]


def test_steps_of_a_fraction_are_counted_as_they_are_suggested() -> None:
    text = SWEEP.replace(RATE, "{low: 0.1, high: 0.75, step: 0.1}").replace(WIDTH, "[2]")
    found = search(plan(text))
    Simulation(found, valley).run()
    assert "all 7 configurations" in found.exhausted()[0]


def constrain(study: Study, constraint: str) -> None:
    """Change the constraints of a study that is open."""
    search = study.space.settings.search.model_copy(update={"constraints": [constraint]})
    study.space.settings = replace(study.space.settings, search=search)


def test_a_study_that_finds_nothing_says_what_became_of_its_suggestions() -> None:
    wide = SWEEP.replace(WIDTH, "{low: 1, high: 2000}").replace(RATE, "[0.1]")
    (study,) = studies(plan(wide))
    constrain(study, "n_embd > 2000")
    assert study.ask() is None
    assert study.why_exhausted.startswith("no suggestion satisfies the constraints (220 tried)")
    (study,) = studies(plan(wide))
    assert study.ask() is not None
    constrain(study, "n_embd > 2000")
    assert study.ask() is None
    assert "of 221 suggestions 0 were there before and 220 are not allowed" in study.why_exhausted


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    simulate(monkeypatch, tmp_path)
    return tmp_path


def test_the_command_says_why_a_search_ended_before_its_limit(folder: Path) -> None:
    (folder / "sweep.yaml").write_text(TINY)
    shown = CliRunner().invoke(main, ["plan", "sweep.yaml"])
    assert "factorized has 2 configurations in all" in shown.output
    done = CliRunner().invoke(main, ["run", "sweep.yaml"])
    assert done.exit_code == 0, done.output
    assert "search  study factorized: all 2 configurations of its space were tried" in done.output


def test_the_plan_shows_what_steps_do_not_reach_and_refuses_what_cannot_be(folder: Path) -> None:
    (folder / "sweep.yaml").write_text(ODD)
    shown = CliRunner().invoke(main, ["plan", "sweep.yaml"])
    assert shown.exit_code == 0, shown.output
    assert "n_embd from 8 by 8 reaches 24, not 30" in shown.output
    assert "learning_rate from 0.1 by 0.1 reaches 0.4, not 0.45" in shown.output
    (folder / "sweep.yaml").write_text(constrained("n_embd > 99"))
    for command in ("plan", "run"):
        refused = CliRunner().invoke(main, [command, "sweep.yaml"])
        assert refused.exit_code == 2, refused.output
        assert "search.constraints: none of 1,000 random configurations" in refused.output
    assert not (folder / "state").exists()
