"""SearchSpec spaces as a sweep file says them."""

from __future__ import annotations

import pytest

from sweeps.planning.overriding import override
from sweeps.spec.search_spec import Parameter, SearchSpec, Stopping
from tests.sweeps.searches import SWEEP, plan
from trainables.errors import UserError, validate

GRID = """
name: studies
training: {max_steps: 20, eval_every: 10}
arms:
  - model: {variant: bigram}
  - model: {variant: attention}
    grid: {model.pe_type: [rope, randn], training.block_size: [4, 8]}
    search:
      training.learning_rate: {low: 1e-3, high: 1e-1, log: true}
      training.schedule: [constant, cosine]
      training.warmup_steps: {low: 0, high: 10, step: 5, when: {training.schedule: cosine}}
"""
ARMS = """
name: variants
training: {max_steps: 20, eval_every: 10}
arms:
  - model: {variant: bigram}
    search: {training.learning_rate: {low: 1e-3, high: 1e-1, log: true}}
  - model: {variant: attention}
    search:
      training.learning_rate: {low: 1e-3, high: 1e-1, log: true}
      model.pe_type: [rope, randn]
"""


def test_what_is_in_the_grid_is_compared_and_what_is_in_the_search_is_tuned_in_each_of_it() -> None:
    made = plan(GRID)
    assert [study.label for study in made.studies] == [
        "attention pe_type=rope block_size=4",
        "attention pe_type=rope block_size=8",
        "attention pe_type=randn block_size=4",
        "attention pe_type=randn block_size=8",
    ]
    assert {trial.model.variant for trial in made.trials} == {"bigram"}
    assert [trial.seed for trial in made.trials] == list(range(1337, 1343)), "the winners' as well"
    assert made.tuned == ("learning_rate", "schedule", "warmup_steps")
    assert {arm.settings["model"]["pe_type"] for c in made.studies for arm in c.arms} == {
        "rope", "randn"
    }  # fmt: skip


def test_each_end_and_each_choice_is_tried_before_the_start_those_under_a_condition_too() -> None:
    flats = [trial.flat for trial in plan(GRID).examples]
    assert {flat["learning_rate"] for flat in flats} == {1e-3, 1e-1}
    assert {(flat["schedule"], flat["warmup_steps"]) for flat in flats} == {
        ("constant", 0), ("cosine", 0), ("cosine", 10)
    }  # fmt: skip


def test_a_parameter_is_chosen_only_where_its_condition_holds() -> None:
    (study, *_) = plan(GRID).studies

    def values(schedule: str) -> dict[str, object]:
        def pick(name: str, parameter: Parameter) -> object:
            return schedule if name == "schedule" else parameter.high

        return study.choose(pick)[1]

    assert values("cosine")["training.warmup_steps"] == 10
    assert "training.warmup_steps" not in values("constant")


def test_arms_without_a_grid_share_a_study_that_chooses_among_them() -> None:
    (study,) = plan(ARMS).studies
    asked = []

    def pick(name: str, parameter: Parameter) -> object:
        asked.append(name)
        return parameter.choices[-1] if parameter.choices else parameter.low

    arm, values = study.choose(pick)
    assert asked == ["arm", "learning_rate", "pe_type"]
    assert arm.configure(values, 1).flat["pe_type"] == "randn"


def test_arms_that_give_a_setting_other_ranges_have_a_parameter_each() -> None:
    (study,) = plan(ARMS.replace("1e-1", "1", 1)).studies
    names = []
    for label in ("bigram", "attention"):

        def pick(name: str, parameter: Parameter, label: str = label) -> object:
            names.append(name)
            return label if name == "arm" else (parameter.choices or [parameter.low])[0]

        study.choose(pick)
    assert names == [
        "arm", "learning_rate of bigram", "arm", "learning_rate of attention", "pe_type"
    ]  # fmt: skip


def test_arms_of_one_variant_are_told_apart() -> None:
    twice = ARMS.replace("variant: bigram", "variant: attention, n_embd: 8")
    (study,) = plan(twice).studies
    labels = ["attention (arms[0])", "attention (arms[1])"]
    assert [arm.label for arm in study.arms] == labels

    def pick(name: str, parameter: Parameter) -> object:
        return labels[1] if name == "arm" else (parameter.choices or [parameter.low])[0]

    assert study.choose(pick)[0].index == 1
    gridded = twice.replace("    search", "    grid: {training.block_size: [8]}\n    search")
    names = [study.label for study in plan(gridded).studies]
    assert names == [f"{label} block_size=8" for label in labels]


def test_whole_numbers_are_for_whole_settings() -> None:
    made = plan(SWEEP.replace("{low: 1e-4, high: 1, log: true}", "{low: 1, high: 2}"))
    (arm,) = made.studies[0].arms
    assert isinstance(arm.space["training.learning_rate"].low, float)
    assert isinstance(arm.space["model.n_embd"].low, int)


def test_an_override_fixes_searches_or_limits() -> None:
    fixed = plan(SWEEP, "training.learning_rate=0.1")
    assert fixed.tuned == ("n_embd",)
    assert fixed.studies[0].label == "factorized learning_rate=0.1"
    wider = plan(SWEEP, "training.batch_size={low: 8, high: 64}")
    assert wider.tuned == ("n_embd", "learning_rate", "batch_size")
    limited = plan(SWEEP, "search.trials=7", "search.confirm.top=2", "search.stopping.reduction=4")
    assert limited.to_come == 7 + 2 * 5
    assert limited.sweep.search.early == Stopping(rule="none", reduction=4)


def test_the_seeds_that_confirm_are_none_of_the_search() -> None:
    sweep = plan(SWEEP, "replicates=3", "search.confirm={top: 1, replicates: 2}").sweep
    assert (sweep.seeds, sweep.confirm_seeds) == ([1337, 1338, 1339], [1340, 1341])
    with pytest.raises(UserError, match="has the seed 1337, with which the search itself trains"):
        override(sweep, ["search.confirm.replicates=[1337]"])


def test_more_suggestions_are_the_same_study_and_other_ranges_another_one() -> None:
    def digest(*overrides: str) -> str:
        return plan(SWEEP, *overrides).studies[0].digest()

    assert digest() == digest("search.trials=99", "search.sampler=random")
    assert digest() == digest("training.evaluate_train=exact")
    for change in ("training.max_steps=50", "training.learning_rate={low: 1e-3, high: 1}"):
        assert digest(change) != digest()


def test_the_part_of_the_training_split_that_is_evaluated_makes_no_other_studies() -> None:
    usual, changed = plan(ARMS), plan(ARMS, "training.evaluate_train=end")
    assert [study.label for study in changed.studies] == ["bigram, attention"]
    assert [study.digest() for study in changed.studies] == [s.digest() for s in usual.studies]
    assert [trial.key for trial in changed.examples] == [trial.key for trial in usual.examples]
    assert {trial.training.evaluate_train for trial in changed.examples} == {"end"}
    assert changed.varying == usual.varying


@pytest.mark.parametrize(
    ("before", "after", "parts"),
    [
        ("high: 32", "high: 1", ["arms[0].search.model.n_embd", "low=2 must be below high=1"]),
        ("low: 1e-4", "low: 0", ["arms[0].search", "a log scale needs low above 0"]),
        ("log: true", "log: true, step: 2", ["log and step exclude each other"]),
        ("{low: 2, high: 32}", "[]", ["the list of choices is empty"]),
        ("{low: 2, high: 32}", "[2, 2]", ["a choice occurs twice"]),
        ("{low: 2, high: 32}", "[[2]]", ["[2] cannot be a choice"]),
        ("{low: 2, high: 32}", "{low: 2}", ["give a list of choices, or low and high"]),
        ("{low: 2, high: 32}", "{low: 2.5, high: 4}", ["n_embd.low: must be a whole number"]),
        ("{low: 2, high: 32}", "{low: 2, hihg: 4}", ["unknown setting 'hihg'", "'high'"]),
        ("model.n_embd:", "model.n_emb:", ["search.model.n_emb", "'n_embd'"]),
        ("model.n_embd:", "seed:", ["arms[0].search.seed", "replicates"]),
        ("{low: 2, high: 32}", "[2, -1]", ["arms[0].model: n_embd must be at least 1"]),
        ("{low: 2, high: 32}", "{low: 2, high: 9, when: {training.lr: 1}}", ["when.training.lr"]),
        (
            "{low: 2, high: 32}",
            "{low: 2, high: 9, when: {training.learning_rate: 1}}",
            ["training.learning_rate must come before it"],
        ),
        ("factorized}", "factorized}\n    grid: {model.n_embd: [4]}", ["the grid has it too"]),
        ("factorized}", "factorized}\n    grid: {training.block_size: [4, 4]}", ["twice"]),
        ("confirm: null", "confirm: {replicates: [-5]}", ["a seed must be at least 0"]),
        ("trials: 20", 'constraints: ["[1][n_embd] > 1"]', ["constraints[0]"]),
        ("trials: 20", "trials: 0", ["search.trials", "greater than 0"]),
        ("trials: 20", "sampler: tpa", ["search.sampler", "'tpe'"]),
        ("trials: 20", "sampler: nsga2", ["nsga2 is for several objectives"]),
        ("trials: 20", "objectives: [parameters]", ["the first objective must be val_loss"]),
        (
            "stopping: none",
            "stopping: asha, objectives: [val_loss, parameters]",
            ["no trial can be stopped early", "stopping: none"],
        ),
        ("trials: 20", 'constraints: ["n_embd <"]', ["constraints[0]", "is no expression"]),
        ("trials: 20", 'constraints: ["n_emb < 9"]', ["constraints[0]", "'n_embd'"]),
        ("trials: 20", 'constraints: ["n_embd * 2"]', ["constraints[0]", "write a comparison"]),
        ("trials: 20", 'constraints: ["n_embd < seed.x"]', ["constraints[0]"]),
    ],
)
def test_what_cannot_be_is_refused_with_the_remedy(
    before: str, after: str, parts: list[str]
) -> None:
    assert before in SWEEP
    with pytest.raises(UserError) as refused:
        plan(SWEEP.replace(before, after))
    for part in parts:
        assert part in str(refused.value)


def test_a_search_without_anything_to_choose_is_refused() -> None:
    with pytest.raises(UserError, match="no arm has a `search`"):
        plan("{name: s, arms: [{model: {variant: bigram}}], search: {trials: 3}}")


def test_a_condition_on_what_is_never_chosen_is_refused() -> None:
    with pytest.raises(UserError, match="'cosin' is not one of its choices"):
        plan(GRID.replace("when: {training.schedule: cosine}", "when: {training.schedule: cosin}"))


def test_fewer_suggestions_than_studies_are_refused() -> None:
    with pytest.raises(UserError, match="less than a suggestion for each of the 4 studies"):
        plan(GRID, "search.trials=3")


@pytest.mark.parametrize("path", ["search.trials.x", "search.x.y", "resources.x.y"])
def test_an_override_of_what_is_not_there_is_refused(path: str) -> None:
    with pytest.raises(UserError):
        plan(SWEEP, f"{path}=3")


def test_a_search_that_names_no_limit_has_one() -> None:
    assert SearchSpec().budget == 100
    assert SearchSpec(hours=1).budget is None
    assert validate(SearchSpec, {"stopping": "median"}, "s").early.rule == "median"
    assert SearchSpec(objectives=["val_loss", "parameters"]).early.rule == "none"
