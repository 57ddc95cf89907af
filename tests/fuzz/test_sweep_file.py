"""Sweep files and overrides as nobody would write them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as some
from hypothesis.strategies import SearchStrategy

from analysis.text.plain_yaml import YamlError, parse_yaml
from bigram_models import VARIANTS
from bigram_models.positions import ENCODINGS
from sweeps.planning.overriding import override
from sweeps.planning.planner import expand
from sweeps.spec.sweep_file import SweepFile, load_sweep
from tests.fuzz import guard
from tests.sweeps.searches import SWEEP
from trainables.config import TrainingConfig
from trainables.data.corpus import Corpus, tokenise
from trainables.data.verse import write_play
from trainables.errors import UserError

GRID = """
name: cells
description: all that a file can have
corpus: embedded
seed: 3
replicates: [1, 2]
training: &training {max_steps: 20, eval_every: 10}
arms:
  - model: {variant: bigram}
    training: {<<: *training, block_size: 4}
  - model: {variant: attention, n_embd: 8}
    grid: {model.pe_type: [rope, randn], training.block_size: [4, 8]}
    search:
      training.learning_rate: {low: 1e-3, high: 1e-1, log: true}
      training.schedule: [constant, cosine]
      training.warmup_steps: {low: 0, high: 10, step: 5, when: {training.schedule: cosine}}
search: {trials: 20, sampler: tpe, constraints: ["n_embd * block_size <= 99"], confirm: {top: 2}}
resources: {cpus_per_trial: 1, pack: auto, max_concurrent: 2}
tracking: {uri: null}
storage: {}
"""
FILES = [GRID, SWEEP]
SYNTAX = [
    *"[]{}:,-?#&*!|>'\"%@`<=~.\\_ \n\t0123456789eExob+nul",
    "<<", "--- ", "...", "\n  ", "!!", "&a ", "*a", ": ", "- ", "? ", "\0", "\x1b", "\x85",
    "\u2028", "\ud800", "\ufeff", "\U0001f600", r"\x", r"\u", r"\U", "1:30", "0042", "é",
]  # fmt: skip
WORDS = [
    "", "x", "yes", "no", "off", "null", "~", "rope", "cosine", "<<", "=", "a b", "2021-99-99",
    "true", "0042", "1:30", "1e400", ".nan", "-.inf", "1_000", "0x1F", "run #3", "[x](y)", "[/red]",
    "no_such_module:Model", "json:JSONDecoder", "json:nothing", "..:x", "é", "\u2028",
    "x" * 300, "9" * 400, "a.b", "Default", "run.csv", "file:absent.txt", "s3://bucket",
]  # fmt: skip
NUMBERS = [0, 1, -1, 2, 7, 10**3, 10**9, 2**31, 2**53, 2**63, 2**64 - 1, 2**64, 10**400, 0.5,
           1e-300, 1e308, -1e308]  # fmt: skip
TRIAL_PATHS = [
    *(f"training.{name}" for name in TrainingConfig.model_fields),
    "model.n_embd", "model.pe_type", "model.variant", "model.no", "seed",
]  # fmt: skip
PATHS = [
    *TRIAL_PATHS, *SweepFile.model_fields, "resources.pack", "resources.priority",
    "resources.cpus_per_trial", "resources.gpus_per_trial", "search.trials", "search.hours",
    "search.stopping", "search.stopping.reduction", "search.confirm", "search.confirm.top",
    "search.confirm.replicates", "search.objectives", "search.constraints", "search.warm_start",
    "search.sampler", "search.storage", "tracking.uri", "storage.uri", "arms.0", "", ".", "name.x",
]  # fmt: skip
KEYS = sorted({"variant", "n_embd", "low", "high", "log", "step", "when", "choices", "grid", "rule",
               *(path.rpartition(".")[2] for path in PATHS), *PATHS})  # fmt: skip

plain = some.one_of(
    some.none(),
    some.booleans(),
    some.sampled_from(NUMBERS),
    some.sampled_from(WORDS),
    some.integers(-50, 50),
    some.floats(),
    some.text(max_size=8),
)
values: SearchStrategy[Any] = some.recursive(
    plain,
    lambda inner: some.one_of(
        some.lists(inner, max_size=4),
        some.dictionaries(some.sampled_from(KEYS), inner, max_size=4),
    ),
    max_leaves=12,
)
tags = some.sampled_from(
    ["", "", "", "!!str ", "!!int ", "!!float ", "!!bool ", "!!null ", "!!timestamp ", "!!binary ",
     "!!set ", "!!omap ", "!!python/name:os.system ", "!mine ", "&a ", "&b "]
)  # fmt: skip


def written(value: Any) -> str:
    """A value as YAML in one line; text in a way that is often, but not always, text again."""
    if isinstance(value, str):
        return value if value.isalnum() else json.dumps(value, ensure_ascii=len(value) % 2 == 0)
    if isinstance(value, list):
        return f"[{', '.join(map(written, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{written(k)}: {written(v)}' for k, v in value.items())}}}"
    text = "null" if value is None else str(value).lower()
    return text.replace("inf", ".inf").replace("nan", ".nan")


tagged = some.builds(lambda tag, value: tag + written(value), tags, values)
pieces = some.one_of(
    some.sampled_from(SYNTAX),
    some.sampled_from(WORDS),
    some.sampled_from(
        ["*a", "<<: *a", "<<: [*a, *b]", "{<<: {a: 1}, <<: 3}", "? [a, b]", "{{ x }}"]
    ),
    tagged,
    some.text(max_size=5),
)
rubbish = some.one_of(
    some.text(),
    some.lists(pieces, max_size=30).map("".join),
    some.lists(pieces, max_size=20).map("\n- ".join),
    some.builds(lambda piece, times: piece * times, pieces, some.integers(1, 3_000)),
    tagged,
)


@some.composite
def changed_files(draw: some.DrawFn) -> str:
    """A valid sweep file with some words and characters of it replaced, doubled or left out."""
    text = draw(some.sampled_from(FILES))
    for _ in range(draw(some.integers(1, 3))):
        start = draw(some.integers(0, len(text)))
        length = draw(some.one_of(some.just(0), some.integers(0, 12)))
        new = draw(some.one_of(pieces, some.just(""), some.just(text[start : start + 40])))
        text = text[:start] + new + text[start + length :]
    return text


USUAL: dict[str, list[Any]] = {  # values that can be, by the name of a setting
    "block_size": [1, 8, 64],
    "batch_size": [1, 64, 10**6, 10**12],
    "learning_rate": [1e-3, 1, 1e10],
    "schedule": ["constant", "cosine"],
    "warmup_steps": [0, 1],
    "precision": ["float32", "tf32", "bfloat16"],
    "max_steps": [2, 5_000, 2**53],
    "eval_every": [1, 2**53],
    "evaluation": ["exact", "sampled", "published"],
    "evaluate_train": ["slice", "exact", "end"],
    "eval_batches": [1, 10**9],
    "n_embd": [2, 64, 10**9],
    "pe_type": list(ENCODINGS),
    "smoothing": [0, 1.5],
    "variant": list(VARIANTS),
    "replicates": [1, 3, 10**9, [1, 2], [2**64 - 1]],
    "seed": [0, 2**64 - 1],
    "trials": [1, 40, 10**5],
    "hours": [0.5, 1e308],
    "patience": [1],
    "sampler": ["tpe", "qmc", "cmaes", "nsga2"],
    "stopping": ["asha", "median", "none", {"rule": "asha", "reduction": 2}],
    "objectives": [["val_loss"], ["val_loss", "parameters"], ["val_loss", "training_tokens"]],
    "constraints": [[], ["block_size <= 64"], ["n_embd * block_size < 99", "seed > 0"]],
    "confirm": [None, {"top": 2}, {"top": 10**5, "replicates": 9}, {"replicates": [7, 8]}],
    "cpus_per_trial": [1, 0.5],
    "gpus_per_trial": [0, 0.5, "auto"],
    "pack": ["auto", "off", 8],
    "max_concurrent": [1, None],
}
MODEL = {
    name: [field.name for field in fields(variant.Config) if field.name in USUAL]
    for name, variant in VARIANTS.items()
}
SEARCH = ["trials", "hours", "patience", "sampler", "stopping", "objectives", "constraints",
          "confirm"]  # fmt: skip
RESOURCES = ["cpus_per_trial", "gpus_per_trial", "pack", "max_concurrent"]


def value_of(name: str) -> SearchStrategy[Any]:
    """A value for a setting, in most cases one that can be."""
    return some.integers(0, 19).flatmap(
        lambda chance: some.sampled_from(USUAL[name]) if chance else values
    )


def some_of(names: list[str], most: int = 3) -> SearchStrategy[dict[str, Any]]:
    """Values for some of these settings, seldom for one that does not exist."""
    return some.lists(some.sampled_from(names), max_size=most, unique=True).flatmap(
        lambda chosen: some.fixed_dictionaries({name: value_of(name) for name in chosen})
    )


@some.composite
def spaces(draw: some.DrawFn, paths: list[str]) -> dict[str, Any]:
    """What a grid or a search has."""
    space: dict[str, Any] = {}
    for path in draw(some.lists(some.sampled_from(paths), max_size=3, unique=True)):
        value = value_of(path.partition(".")[2])
        space[path] = draw(some.lists(value, min_size=1, max_size=3))
        if draw(some.booleans()):
            ends = {"low": draw(value), "high": draw(value)}
            more = some.fixed_dictionaries({}, optional={"log": plain, "step": plain})
            when = {"when": {draw(some.sampled_from(paths)): draw(values)}}
            space[path] = ends | draw(more) | draw(some.sampled_from([{}, {}, when]))
    return space


@some.composite
def assembled_files(draw: some.DrawFn) -> str:
    """A file whose shape is right, and most of its values."""
    training = list(TrainingConfig.model_fields)
    arms = []
    for _ in range(draw(some.integers(1, 3))):
        variant = draw(value_of("variant"))
        own = MODEL.get(variant, []) if isinstance(variant, str) else []
        paths = [*(f"training.{name}" for name in training), *(f"model.{name}" for name in own)]
        grid = draw(spaces(paths))
        arm = {
            "model": {"variant": variant, **draw(some_of(own or ["n_embd"]))},
            "training": draw(some_of(training)),
            "grid": {path: space for path, space in grid.items() if isinstance(space, list)},
        }
        if draw(some.booleans()):
            arm["search"] = draw(spaces(paths))
        arms.append(arm)
    file = {"name": "s", "training": draw(some_of(training)), "arms": arms}
    file |= draw(some_of(["replicates", "seed"]))
    if any("search" in arm for arm in arms):
        file["search"] = draw(some_of(SEARCH))
    return written(file | {"resources": draw(some_of(RESOURCES, 2))})


overrides = some.builds(
    lambda path, equals, value: path + equals + value,
    some.integers(0, 9).flatmap(
        lambda chance: some.sampled_from(PATHS) if chance else some.text(max_size=12)
    ),
    some.sampled_from([*["="] * 9, "", "=="]),
    some.one_of(
        some.sampled_from(sorted(USUAL)).flatmap(value_of).map(written),
        some.sampled_from(WORDS),
        some.lists(plain.map(written), max_size=4).map(",".join),
        values.map(written),
        spaces([f"training.{name}" for name in TrainingConfig.model_fields]).map(
            lambda space: ",".join(map(written, space.values()))
        ),
        rubbish,
        some.text(),
    ),
)
NO_OVERRIDES = some.just(list[str]())


@guard.efforts
def test_a_yaml_text(effort: settings) -> None:
    guard.fuzz(effort, some.one_of(rubbish, changed_files()), parse_yaml, YamlError)


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return tokenise("play", write_play(characters=2_000))


Plan = Callable[[tuple[str, list[str]]], None]


@pytest.fixture
def plan(corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """Plan a file by its text, with overrides."""
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "sweep.yaml"

    def make(request: tuple[str, list[str]]) -> None:
        text, assignments = request
        file.write_bytes(text.encode(errors="surrogatepass"))
        try:
            sweep, source = load_sweep(str(file))
            expand(override(sweep, assignments), corpus, source)
        except UserError as error:
            if "\n" in str(error) or len(str(error)) > 2_000:
                pytest.fail(f"this message is no line: {error}")
            raise

    return make


@guard.efforts
def test_a_changed_sweep_file(effort: settings, plan: Plan) -> None:
    guard.fuzz(effort, some.tuples(changed_files(), NO_OVERRIDES), plan, UserError)


@guard.efforts
def test_a_sweep_file_of_odd_values(effort: settings, plan: Plan) -> None:
    guard.fuzz(effort, some.tuples(assembled_files(), NO_OVERRIDES), plan, UserError)


@guard.efforts
def test_overrides(effort: settings, plan: Plan) -> None:
    requests = some.tuples(some.sampled_from(FILES), some.lists(overrides, min_size=1, max_size=3))
    guard.fuzz(effort, requests, plan, UserError)
