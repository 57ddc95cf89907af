"""From a sweep file to its plan: read it, apply overrides, expand arms, check every trial."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import replace

from sweeps.planning.arms import grid_trials, resolve_arms
from sweeps.planning.feasibility import check_constraints, study_sizes
from sweeps.planning.overriding import override
from sweeps.planning.plan import Plan
from sweeps.planning.sizes import FAR, check_blocks, check_counts, check_sizes, fits_here
from sweeps.planning.study_spec import make_study_specs, study_examples
from sweeps.records.state import State
from sweeps.spec.sweep_file import SweepFile, load_sweep
from trainables.config import TrainingConfig, TrialConfig
from trainables.data.corpus import Corpus, load_corpus
from trainables.errors import UserError, brief, validate
from trainables.model_check import check_models


def make_plan(
    name_or_path: str,
    overrides: Sequence[str],
    state: State,
    is_here: bool = False,
    loaded: tuple[SweepFile, str] | None = None,
) -> Plan:
    """Read a sweep file or preset, apply overrides, load its corpus and check every trial.

    Args:
        name_or_path: of the file or preset.
        overrides: assignments such as ``training.max_steps=100``, as `override` takes them.
        state: has the corpora.
        is_here: whether the trials must fit into the memory of this machine.
        loaded: result of `load_sweep` for the file, if it was read already.

    Raises:
        UserError: something in the file, the overrides or the corpus is wrong.
    """
    sweep, source = loaded or load_sweep(name_or_path)
    sweep = override(sweep, overrides)
    corpus = load_corpus(sweep.corpus.name, state.corpora, sweep.corpus.test)
    try:
        plan = expand(sweep, corpus, source, is_here)
    except UserError as error:
        raise UserError(_naming_overrides(str(error), overrides)) from None
    warnings = [corpus.warning] if corpus.warning else []
    warnings += _check_own_models(plan, source)
    return replace(
        plan,
        command=shlex.join(["sweeps", "run", name_or_path, *overrides]),
        warnings=tuple(dict.fromkeys(warnings)),
    )


def expand(sweep: SweepFile, corpus: Corpus, source: str, is_here: bool = False) -> Plan:
    """Make the trials and the studies of a sweep.

    Args:
        sweep: the file, with the overrides applied.
        corpus: its corpus.
        source: name of the file, for messages.
        is_here: whether the trials must fit into the memory of this machine.

    Raises:
        UserError: a value is wrong, a grid is empty, a trial occurs twice, or it is all too large.
    """
    check_counts(sweep, source)
    validate(TrainingConfig, sweep.training, f"{source}: training")
    first_seed, grid_seeds = sweep.seeds[0], sweep.grid_seeds
    arms = resolve_arms(sweep, corpus, source)
    trials = grid_trials(arms, grid_seeds)
    studies = make_study_specs(arms, source)
    examples = study_examples(studies, first_seed)
    everything = [*trials, *examples]
    check_blocks(everything, corpus, source)
    times = 1 if is_here else FAR
    check_sizes([trial for _, trial in everything], corpus.vocab_size, source, times)
    check_constraints(sweep.search.constraints, [trial for _, trial in examples], source)
    return Plan(
        sweep=sweep,
        corpus=corpus,
        trials=tuple(trial for _, trial in trials),
        studies=studies,
        examples=tuple(trial for _, trial in examples),
        sizes=study_sizes(studies, sweep.search, first_seed, source),
        arm_indices={trial.key: index for index, trial in reversed(everything)},
    )


def _naming_overrides(message: str, overrides: Sequence[str]) -> str:
    """Return a message about a value, with the overrides that may have given the value."""
    names = {text: text.partition("=")[0].rpartition(".")[2] for text in overrides}
    given = [text for text, name in names.items() if re.search(rf"\b{re.escape(name)}\b", message)]
    return f"{message} (by the override {', '.join(map(brief, given))})" if given else message


def _check_own_models(plan: Plan, source: str) -> Iterator[str]:
    """Check the user's own models in each arm, and yield warnings about them.

    Raises:
        UserError: a model cannot be trained; for a search, none of its examples can.
    """
    vocab_size = plan.corpus.vocab_size
    sizes = [len(plan.corpus.train), len(plan.corpus.validation)]
    of_arm: dict[int, list[TrialConfig]] = {}
    for trial in (*plan.trials, *plan.examples):
        of_arm.setdefault(plan.arm_indices[trial.key], []).append(trial)
    for index, trials in of_arm.items():
        is_searched = bool(plan.sweep.arms[index].search)
        try:
            yield from check_models(
                trials, vocab_size, sizes, lambda trial: fits_here(trial, vocab_size), is_searched
            )
        except UserError as error:
            raise UserError(f"{source}: arms[{index}]: {error}") from None
