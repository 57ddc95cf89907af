"""From a sweep file to trials."""

from __future__ import annotations

import cProfile
import math
import pstats
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner

from analysis.text.plain_yaml import parse_yaml
from sweeps.cli.main import main
from sweeps.planning.arms import resolve_arms
from sweeps.planning.costs import count_parameters
from sweeps.planning.overriding import override
from sweeps.planning.plan import Plan
from sweeps.planning.planner import expand, make_plan
from sweeps.records.state import State
from sweeps.spec.sweep_file import CorpusSpec, SweepFile, load_sweep, preset_files
from sweeps.tracking.description import describe_trial
from tests.sweeps.fake_nvml import Gpu, has_gpus
from trainables.data.corpus import Corpus, tokenise
from trainables.data.verse import write_play
from trainables.errors import UserError, validate


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return tokenise("play", write_play(characters=50_000))


def plan(text: str, corpus: Corpus, *overrides: str) -> Plan:
    sweep = override(validate(SweepFile, parse_yaml(text), "test"), overrides)
    return expand(sweep, corpus, "test")


OWN_NET = """
from dataclasses import dataclass

import torch
from bigram_models import LanguageModel


class Net(LanguageModel):
    @dataclass(frozen=True, kw_only=True)
    class Config:
        gate: bool = True

    def __init__(self, config, vocab_size, block_size, generator):
        super().__init__(vocab_size, context_size=block_size)
        self.row = torch.nn.Parameter(torch.zeros(vocab_size))

    def forward(self, ids_BT):
        return self.row.expand(*ids_BT.shape, -1)
"""


@pytest.mark.parametrize(
    ("name", "widths"), [("published", (64, 128, 256)), ("quickstart", (32, 48, 64))]
)
def test_the_presets_are_the_38_published_configurations_at_their_widths(
    name: str, widths: Sequence[int], corpus: Corpus
) -> None:
    made = expand(load_sweep(name)[0], corpus, name)
    configurations = {
        (t.flat["variant"], t.flat.get("pe_type"), t.flat.get("n_embd"), t.flat["block_size"])
        for t in made.trials
    }
    attention = {
        ("attention", pe_type, n_embd, block_size)
        for pe_type in ("randn", "sinpe", "rope")
        for n_embd in widths
        for block_size in (8, 16, 32, 64)
    }
    assert len(made.trials) == 38
    assert configurations == attention | {("bigram", None, None, 8), ("factorized", None, 384, 8)}
    assert made.varying == ("variant", "pe_type", "n_embd", "block_size")
    assert made.names.run_name(made.trials[-1]) == f"attention rope n_embd={widths[-1]} block=64"


def test_the_published_preset_is_the_published_protocol(corpus: Corpus) -> None:
    sweep, _ = load_sweep("published")
    training = expand(sweep, corpus, "published").trials[0].training
    assert sweep.corpus == CorpusSpec(name="tinyshakespeare", test=0.0)
    assert sweep.seed == 1337
    assert (training.max_steps, training.eval_every, training.batch_size) == (5000, 500, 64)
    assert (training.learning_rate, training.evaluation) == (1e-2, "exact")


def test_numbers_in_the_string_form_of_yaml_1_1_are_numbers(corpus: Corpus) -> None:
    made = plan(
        "{name: s, training: {learning_rate: 1e-2}, arms: [{model: {variant: bigram},"
        " grid: {training.learning_rate: [1e-3, 2E-3, 1.e-4, +.5e-1]}}]}",
        corpus,
    )
    rates = [trial.training.learning_rate for trial in made.trials]
    assert rates == [1e-3, 2e-3, 1e-4, 5e-2]


def test_arms_override_the_shared_training_and_the_grid_overrides_the_arm(corpus: Corpus) -> None:
    made = plan(
        """
        name: s
        training: {max_steps: 10, batch_size: 3, eval_every: 7}
        arms:
          - model: {variant: bigram}
            training: {max_steps: 20, batch_size: 4}
            grid: {training.batch_size: [5, 6]}
        replicates: [1, 2]
        """,
        corpus,
    )
    got = [(t.training.max_steps, t.training.batch_size, t.training.eval_every, t.seed)
           for t in made.trials]  # fmt: skip
    assert got == [(20, 5, 7, 1), (20, 5, 7, 2), (20, 6, 7, 1), (20, 6, 7, 2)]


def test_an_override_replaces_the_grid_of_every_arm_that_has_the_setting(corpus: Corpus) -> None:
    sweep, _ = load_sweep("published")
    one = expand(override(sweep, ["model.pe_type=rope", "model.n_embd=64"]), corpus, "")
    assert [t.flat["block_size"] for t in one.trials if t.model.variant == "attention"] == [
        8, 16, 32, 64,
    ]  # fmt: skip
    assert {t.flat.get("n_embd") for t in one.trials} == {None, 64}
    two = expand(
        override(sweep, ["training.block_size=8,16", "training.max_steps=100"]), corpus, ""
    )
    assert len(two.trials) == 2 + 2 + 18
    assert expand(override(sweep, ["seed=[1,2]"]), corpus, "").trials[-1].seed == 2
    again = override(sweep, ["name=other", "resources.cpus_per_trial=2", "tracking.uri=http://x"])
    assert (again.name, again.resources.cpus_per_trial, again.tracking.uri) == (
        "other",
        2,
        "http://x",
    )


def test_with_another_evaluate_train_a_sweep_has_the_same_trials(corpus: Corpus) -> None:
    """So those that are finished stay, and nothing of them is sent again."""
    sweep, _ = load_sweep("quickstart")
    before = expand(sweep, corpus, "")
    now = expand(override(sweep, ["training.evaluate_train=end"]), corpus, "")
    assert {trial.training.evaluate_train for trial in now.trials} == {"end"}
    assert [(trial.key, describe_trial(now, trial)) for trial in now.trials] == [
        (trial.key, describe_trial(before, trial)) for trial in before.trials
    ]


def test_replicates_are_seeds_of_every_configuration(corpus: Corpus) -> None:
    text = "{name: s, seed: 7, replicates: 3, arms: [{model: {variant: bigram}}]}"
    assert [t.seed for t in plan(text, corpus).trials] == [7, 8, 9]
    assert [t.seed for t in plan(text, corpus, "seed=20").trials] == [20, 21, 22]
    for seeds in ("seed=4,1", "seed=[4,1]", "replicates=[4,1]"):
        assert [t.seed for t in plan(text, corpus, seeds).trials] == [4, 1]
    assert [t.seed for t in plan(text, corpus, "replicates=2").trials] == [7, 8]
    assert plan(text, corpus).varying == ("seed",)


def test_more_replicates_keep_the_trials_that_there_are(corpus: Corpus) -> None:
    text = "{name: s, replicates: 2, arms: [{model: {variant: bigram}}]}"
    few, many = plan(text, corpus).trials, plan(text, corpus, "replicates=5").trials
    assert [trial.key for trial in few] == [trial.key for trial in many[:2]]


def test_names_and_resources_do_not_change_keys(corpus: Corpus) -> None:
    sweep, _ = load_sweep("published")
    plain = expand(sweep, corpus, "").trials
    other = override(sweep, ["name=other", "resources.max_concurrent=1", "description=x"])
    assert [t.key for t in expand(other, corpus, "").trials] == [t.key for t in plain]


@pytest.mark.parametrize(
    ("widths", "replicates"), [(2, 200), (400, 1)], ids=["many seeds", "many configurations"]
)
def test_a_trial_of_a_large_plan_costs_little(widths: int, replicates: int, corpus: Corpus) -> None:
    """A schema of its own for each trial took 970 calls, so 20,000 trials took a minute."""
    grid = {"model.n_embd": list(range(2, 2 + 2 * widths, 2))}
    arm = {"model": {"variant": "attention"}, "grid": grid}
    sweep = validate(SweepFile, {"name": "s", "replicates": replicates, "arms": [arm]}, "test")
    expand(sweep, corpus, "test")  # what is made once
    with cProfile.Profile() as profile:
        made = expand(sweep, corpus, "test")
        assert made.varying
    assert len(made.trials) == len({trial.key for trial in made.trials}) == widths * replicates
    assert pstats.Stats(profile).total_calls < 300 * len(made.trials)


def test_the_first_of_two_equal_studies_is_named(corpus: Corpus) -> None:
    arm = "model: {variant: attention}, search: {model.n_embd: {low: 8, high: 16}}"
    with pytest.raises(UserError, match="has the study 'attention block_size=8' twice"):
        plan(f"{{name: s, arms: [{{{arm}, grid: {{training.block_size: [4, 8, 8]}}}}]}}", corpus)


SMALL = ("model.n_embd=16", "training.block_size=8", "training.max_steps=20")


def test_plan_counts_and_estimates_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    arguments = ["plan", "quickstart", "model.n_embd=16", "training.block_size=8", "--trials"]
    has_gpus(monkeypatch, [], is_usable=False, problem="NVML Shared Library Not Found")
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert "5 (1 bigram, 1 factorized, 3 attention)" in result.output
    assert "embedded: 1,115,000 characters" in result.output
    assert "GiB of memory" in result.output
    assert "takes   about" in result.output
    assert "on this machine's CPU" in result.output
    assert "gpu     " not in result.output
    assert result.output.count("attention  ") == 3
    assert not list(tmp_path.iterdir())


def test_on_a_machine_with_a_gpu_the_plan_is_for_the_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweeps.planning.probing.probe", None)  # nothing is timed
    has_gpus(monkeypatch, [Gpu(139)])
    arguments = ["plan", "quickstart", "--state", str(tmp_path), "--trials"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert "gpu     1 x NVIDIA H200, 139.0 GiB free: " in result.output
    assert "packs   12 of 3 trials; 2 trials alone" in result.output
    assert re.search(
        r"takes   about .* on this machine's GPU, by a model of its speed", result.output
    )
    on_cpus = CliRunner().invoke(main, [*arguments, "resources.gpus_per_trial=0", *SMALL])
    assert "gpu     " not in on_cpus.output
    assert "on this machine's CPU" in on_cpus.output


def test_a_gpu_that_torch_cannot_use_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    has_gpus(monkeypatch, [Gpu(139)], is_usable=False, build=None)
    result = CliRunner().invoke(main, ["plan", "quickstart", "--state", str(tmp_path), *SMALL])
    assert result.exit_code == 0, result.output
    reason = "torch can use none: the trials train on CPUs (this build of torch is for CPUs)"
    assert f"gpu     {reason}\n" in result.output
    assert "on this machine's CPU" in result.output


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        (["search.trials=4"], r"about \S+ s \(\S+ s to \S+ (s|min \d+ s)\) on this machine's CPU"),
        (["search.hours=2"], r"about .*CPU, from timed steps; at most 2 h of it searching"),
        (["search.hours=2", "search.trials=null"], r"at most 2 h of searching; a trial about"),
        (
            ["search.patience=3", "search.trials=null"],
            r"as long as something improves; a trial about",
        ),
    ],
)
def test_plan_says_how_long_a_search_takes_as_far_as_it_is_known(
    limits: list[str], said: str, tmp_path: Path
) -> None:
    small = ["corpus=embedded", "model.n_embd=8", "training.block_size=8", "training.max_steps=20"]
    arguments = ["plan", "search", *small, "model.pe_type=rope", *limits, "--state", str(tmp_path)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert re.search(f"takes   {said}", result.output), result.output


def test_list_names_every_preset() -> None:
    output = CliRunner().invoke(main, ["list"]).output
    assert all(name in output for name in preset_files())


def test_a_model_that_cannot_be_built_has_no_number_of_parameters(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = plan("{name: s, arms: [{model: {variant: bigram}}]}", corpus)
    assert count_parameters(made.trials[0], corpus.vocab_size) == corpus.vocab_size**2

    def leave(*_: object) -> None:
        raise SystemExit(7)

    monkeypatch.setattr("trainables.variants.ModelConfig.build", leave)
    assert math.isnan(count_parameters(made.trials[0], corpus.vocab_size))


def test_names_of_runs_say_what_differs_and_no_more(corpus: Corpus, tmp_path: Path) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text("""
name: named
replicates: [7, 8]
arms:
  - model: {variant: attention, pe_type: rope}
    grid: {model.n_embd: [32, 64], training.schedule: [cosine, constant]}
  - model: {variant: bigram}
    grid: {training.learning_rate: [0.012345678, 3e-4]}
  - model: {variant: "names_a:Net"}
    grid: {model.gate: [true, false]}
""")
    for module in ("names_a", "names_b"):
        (tmp_path / f"{module}.py").write_text(OWN_NET)
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(tmp_path)
        made = expand(load_sweep(str(file))[0], corpus, "sweep.yaml")
        named = {made.names.run_name(trial) for trial in made.trials if trial.seed == 7}
        assert len({made.names.run_name(trial) for trial in made.trials}) == len(made.trials)
        file.write_text(file.read_text() + '  - model: {variant: "names_b:Net"}\n')
        both = expand(load_sweep(str(file))[0], corpus, "sweep.yaml")
        names = {both.names.run_name(trial).split()[0] for trial in both.trials}
    assert {
        "attention rope cosine n_embd=32 lr=0.01 seed=7",
        "bigram constant lr=0.01235 seed=7",
        "Net constant gate lr=0.01 seed=7",
        "Net constant gate=False lr=0.01 seed=7",
    } <= named
    assert names == {"attention", "bigram", "names_a:Net", "names_b:Net"}


def test_a_sweep_file_that_was_read_is_not_read_again(tmp_path: Path) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text("{name: s, corpus: embedded, arms: [{model: {variant: bigram}}]}")
    loaded = load_sweep(str(file))
    file.unlink()
    made = make_plan(str(file), ["seed=7"], State(tmp_path), loaded=loaded)
    assert [trial.seed for trial in made.trials] == [7]
    assert made.command == f"sweeps run {file} seed=7"
    with pytest.raises(UserError, match=r"there is no sweep file .*sweep\.yaml"):
        make_plan(str(file), [], State(tmp_path))


def test_an_arm_is_resolved_to_fixed_compared_and_tuned_settings(corpus: Corpus) -> None:
    text = """
name: s
training: {max_steps: 10, block_size: 4}
arms:
  - model: {variant: bigram}
  - model: {variant: attention, n_embd: 8}
    training: {max_steps: 20}
    grid: {model.pe_type: [rope, randn], training.block_size: [8]}
    search: {training.learning_rate: {low: 1, high: 2}}
"""
    first, arm = resolve_arms(validate(SweepFile, parse_yaml(text), "test"), corpus, "test")
    assert (first.variant, first.where, first.grid, first.space) == (
        "bigram", "test: arms[0]", {}, {}
    )  # fmt: skip
    assert first.combinations() == [{}]
    assert arm.fixed["training"] == {"max_steps": 20, "block_size": 4}
    assert type(arm.space["training.learning_rate"].low) is float
    last = arm.combinations()[-1]
    assert last == {"model.pe_type": "randn", "training.block_size": 8}
    settings = arm.settings(last)
    assert settings["model"] == {"variant": "attention", "n_embd": 8, "pe_type": "randn"}
    assert settings["training"] == {"max_steps": 20, "block_size": 8}
    defaults = arm.defaults(settings)
    assert (defaults["training.block_size"], defaults["training.eval_every"]) == (8, 500)
    assert arm.fixed["model"] == {"variant": "attention", "n_embd": 8}, "it is not changed"
