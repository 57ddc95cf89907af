"""The section `decide` of a sweep file: its seeds, its claims, and what is refused."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from sweeps.__main__ import main as main_of_process
from sweeps.cli.main import main
from sweeps.cluster.submission import fill_submission
from sweeps.planning.overriding import override
from sweeps.spec.decide_spec import DecideSpec
from sweeps.spec.sweep_file import SweepFile, load_sweep
from trainables.data.verse import write_play
from trainables.errors import UserError, validate

ARMS = "arms: [{model: {variant: attention, n_embd: 8}, grid: {model.pe_type: [rope, sinpe]}}]"
CLAIMS = "claims: [{claim: rope is better, factor: pe_type, order: [rope, sinpe]}]\n"
SEARCHED = """
arms:
  - model: {variant: attention, n_embd: 8}
    grid: {model.pe_type: [rope, sinpe]}
    search: {training.learning_rate: [1e-2, 1e-3]}
"""


@pytest.fixture(autouse=True)
def _no_engines(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)  # importing it fails
    monkeypatch.setitem(sys.modules, "mlflow", None)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SWEEPS_STATE", raising=False)
    Path("play.txt").write_text(write_play(characters=2_000))
    Path("claims.yaml").write_text(CLAIMS)


def read(content: str) -> SweepFile:
    Path("sweep.yaml").write_text(f"name: study\ncorpus: file:play.txt\n{content}\n")
    return load_sweep("sweep.yaml")[0]


def run(content: str, *arguments: str, command: str = "run") -> Result:
    Path("sweep.yaml").write_text(f"name: study\ncorpus: file:play.txt\n{content}\n")
    return CliRunner().invoke(main, [command, "sweep.yaml", *arguments])


def test_every_configuration_begins_with_three_seeds_and_others_count_up() -> None:
    assert read(ARMS).seeds == [1337]
    sweep = read(f"{ARMS}\ndecide: {{claims: claims.yaml, max_seeds: 5}}")
    assert sweep.seeds == [1337, 1338, 1339]
    assert sweep.tested_seeds == [1337, 1338, 1339, 1340, 1341]
    assert sweep.decide == DecideSpec(claims="claims.yaml", max_seeds=5)
    assert (sweep.decide.error, sweep.decide.trials, sweep.decide.hours) == (0.05, None, None)
    listed = read(f"{ARMS}\nreplicates: [9, 7]\ndecide: {{claims: study, max_seeds: 4}}")
    assert (listed.seeds, listed.tested_seeds) == ([9, 7], [7, 9, 10, 11])


def test_winners_of_a_search_are_tested_by_the_seeds_that_confirm_them() -> None:
    sweep = read(f"{SEARCHED}\ndecide: {{claims: study, max_seeds: 7}}")
    assert sweep.seeds == [1337]
    assert sweep.tested_seeds == [*range(1338, 1345)]


def test_claims_lie_beside_the_sweep_file_or_where_the_command_line_says() -> None:
    Path("folder").mkdir()
    Path("folder/sweep.yaml").write_text(
        f"name: study\ncorpus: embedded\n{ARMS}\ndecide: {{claims: claims.yaml}}\n"
    )
    sweep, _ = load_sweep("folder/sweep.yaml")
    assert sweep.decide
    assert sweep.decide.path == Path("folder/claims.yaml")
    changed = override(sweep, ["decide.claims=claims.yaml", "decide.max_seeds=9"]).decide
    assert changed
    assert (changed.path, changed.max_seeds) == (Path("claims.yaml"), 9)
    study = override(sweep, ["decide.claims=study"]).decide
    assert study
    assert study.path is None
    none = override(sweep, ["decide=null"])
    assert none.decide is None


@pytest.mark.parametrize("inside", ["", "folder/"])
def test_claims_travel_to_the_cluster(inside: str, tmp_path: Path) -> None:
    Path("there").mkdir()
    Path("folder").mkdir(exist_ok=True)
    file = Path(f"{inside}sweep.yaml")
    file.write_text(f"name: study\ncorpus: embedded\n{ARMS}\ndecide: {{claims: mine.yaml}}\n")
    Path(f"{inside}mine.yaml").write_text(CLAIMS)
    sweep, _ = load_sweep(str(file))
    fill_submission(tmp_path / "there", sweep, file, str(file), [], "0.1.0+a")
    assert (tmp_path / "there" / "mine.yaml").read_text() == CLAIMS


def test_claims_of_an_override_travel_to_the_cluster(tmp_path: Path) -> None:
    Path("there").mkdir()
    Path("folder").mkdir()
    Path("folder/sweep.yaml").write_text(f"name: study\ncorpus: embedded\n{ARMS}\n")
    sweep = override(load_sweep("folder/sweep.yaml")[0], ["decide.claims=claims.yaml"])
    fill_submission(tmp_path / "there", sweep, Path("folder/sweep.yaml"), "x", [], "0.1.0+a")
    assert (tmp_path / "there" / "claims.yaml").read_text() == CLAIMS


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (f"{ARMS}\ndecide: {{}}", ["sweep.yaml: decide.claims: field required"]),
        (f"{ARMS}\ndecide: {{claims: study, max_seed: 4}}",
         ["decide.max_seed: unknown setting", "did you mean 'max_seeds'?"]),
        (f"{ARMS}\ndecide: {{claims: nix.yaml}}",
         ["decide.claims: nix.yaml: cannot be read: No such file"]),
        (f"{ARMS}\ndecide: {{claims: study}}",
         ["the published study compare settings that no arm of this sweep varies"]),
        (f"{ARMS}\nreplicates: 1\ndecide: {{claims: study}}",
         ["decide compares configurations by the spread of their seeds, and replicates has 1"]),
        (f"{ARMS}\nreplicates: 5\ndecide: {{claims: study, max_seeds: 4}}",
         ["decide.max_seeds=4 is less than the 5 seeds of replicates"]),
        (f"{ARMS}\ndecide: {{claims: claims.yaml, trials: 5}}",
         ["decide.trials=5 is less than the 6 trials with which the sweep begins"]),
        (f"{ARMS}\ndecide: {{claims: study, max_seeds: 0}}", ["decide.max_seeds", "0"]),
        (f"{ARMS}\ndecide: {{claims: study, hours: 0}}", ["decide.hours", "0"]),
        (f"{ARMS}\ndecide: {{claims: study, error: 0.5}}", ["decide.error", "0.5"]),
        (f"{ARMS}\ndecide: {{claims: study, error: 1e-9}}",
         ["decide.error", "from 1e-06", "not 1e-09"]),
        (f"{ARMS}\ndecide: {{claims: study, error: 0}}", ["decide.error", "0"]),
        (f"{ARMS}\nseed: 18446744073709551600\ndecide: {{claims: study}}",
         ["the seeds that decide adds count up to 2**64 or more"]),
        (f"{SEARCHED}\nsearch: {{confirm: null}}\ndecide: {{claims: study}}",
         ["by the spread of their seeds, and search.confirm.replicates has 0"]),
        (f"{SEARCHED}\ndecide: {{claims: study, max_seeds: 4}}",
         ["decide.max_seeds=4 is less than the 5 seeds of search.confirm.replicates"]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("command", ["run", "plan"])
def test_a_wrong_section_is_refused(content: str, parts: list[str], command: str) -> None:
    refused(run(content, command=command), *parts)


@pytest.mark.parametrize(
    ("claims", "parts"),
    [
        ("claims:\n  - {claim: x, factor: pe_tpe, order: [rope, sinpe]}\n",
         ["claims.yaml: line 2: claims[0].factor: no trial of 'study' has a setting 'pe_tpe'"]),
        ("claims:\n  - {claim: x, factor: pe_type, order: [rope, alibi]}\n",
         ["claims.yaml: line 2: claims[0].order: no trial of 'study' has pe_type=alibi"]),
        ("claims:\n  - claim: x\n    factor: pe_type\n    where: {n_embd: 64}\n"
         "    order: [rope, sinpe]\n",
         ["claims.yaml: line 4: claims[0].where.n_embd: no trial of 'study' has n_embd=64"]),
        ("claims: []\n", ["claims.yaml: no claims given"]),
        ("claims: 3\n", ["claims.yaml: expected a list of claims"]),
        ("claims: [\n", ["claims.yaml: line 2"]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("command", ["run", "plan", "decide"])
def test_claims_that_do_not_fit_are_refused(claims: str, parts: list[str], command: str) -> None:
    Path("claims.yaml").write_text(claims)
    refused(run(f"{ARMS}\ndecide: {{claims: claims.yaml}}", command=command), *parts)
    assert not Path("state").exists()


def test_a_tuned_setting_cannot_be_compared() -> None:
    Path("claims.yaml").write_text(
        "claims:\n  - {claim: x, factor: learning_rate, order: [1e-2, 1e-3]}\n"
    )
    section = f"{SEARCHED}\ndecide: {{claims: claims.yaml}}"
    refused(run(section), "claims.yaml: line 2: claims[0].factor: ", "learning_rate")


def test_decide_needs_claims() -> None:
    refused(run(ARMS, command="decide"), "sweep.yaml names no claims to decide; give --claims FILE")
    refused(run(ARMS, "--max-seeds", "9", command="decide"), "names no claims to decide")


def test_wrong_overrides_are_named() -> None:
    sweep = validate(SweepFile, {"name": "x", "arms": [{"model": {"variant": "bigram"}}]}, "")
    with pytest.raises(UserError, match=r"override 'decide.max_seeds=4': decide.claims"):
        override(sweep, ["decide.max_seeds=4"])


def test_the_example_of_the_documentation_is_valid() -> None:
    page = (Path(__file__).parents[2] / "docs" / "deciding.md").read_text(encoding="utf-8")
    claims, sweep = re.findall(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    Path("my_claims.yaml").write_text(claims)
    Path("sweep.yaml").write_text(sweep)
    done = CliRunner().invoke(main, ["plan", "sweep.yaml"])
    assert done.exit_code == 0, done.output
    assert "begins  4 configurations x 3 seeds; then further seeds decide 1 claim" in done.output
    assert "at most 30 seeds of a configuration, 400 trials, 8 h, error 0.05" in done.output


@pytest.mark.parametrize("command", ["run", "decide"])
def test_whatever_ends_the_process_names_the_command_that_goes_on(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    monkeypatch.setattr("sweeps.process.signals.watch", lines.append)
    monkeypatch.setattr("sweeps.process.signals.exit_now", lambda code: None)
    monkeypatch.setattr(sys, "argv", ["sweeps", command, "sweep.yaml", "--help"])
    main_of_process()
    assert lines == [f"again   sweeps {command} sweep.yaml --help"]


def test_what_a_claim_cannot_compare_is_said_before_anything_is_trained() -> None:
    arms = (
        "arms: [{model: {variant: attention, n_embd: 8}, grid: {model.pe_type: [rope, sinpe],"
        " training.block_size: [4, 8]}}, {model: {variant: attention, n_embd: 8, pe_type: randn},"
        " training: {block_size: 8}}]"
    )
    decide = f"{arms}\ndecide: {{claims: claims.yaml}}"
    assert "warning claim" not in run(decide, command="plan").output
    Path("claims.yaml").write_text(CLAIMS.replace("sinpe]", "sinpe, randn]"))
    done = run(decide, command="plan")
    assert done.exit_code == 0, done.output
    assert done.output.count("warning claim") == 1
    assert (
        "warning claim 1 has nothing to compare in block_size=4 (sinpe - randn), so it cannot be"
        " shown there and gets no seeds for that"
    ) in done.output


def refused(result: Result, *parts: str) -> None:
    assert result.exit_code == 2, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert "Traceback" not in result.output
    for part in parts:
        assert part in result.output
