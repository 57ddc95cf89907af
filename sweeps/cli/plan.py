"""`sweeps plan`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from analysis.errors import listed
from analysis.text.terminal import in_a_line, table
from analysis.text.terminal import try_to_say as say
from sweeps.cli.loading import load_plan
from sweeps.cli.options import overrides_argument, state_option
from sweeps.process.phases import phase
from sweeps.process.summary import counted, duration

if TYPE_CHECKING:
    from sweeps.deciding.claims import SweepClaims
    from sweeps.execution.overview import FinishedTrials
    from sweeps.planning.estimate import Estimate
    from sweeps.planning.plan import Plan
    from sweeps.records.state import State
    from sweeps.resources.allocation import Allocation

BUSY = 1.3  # ratio of the median step to the shortest, from which a machine counts as busy


@click.command("plan")
@click.argument("file")
@overrides_argument
@click.option("--trials", "list_trials", is_flag=True, help="List every trial with its key.")
@state_option
def plan_command(file: str, overrides: Sequence[str], list_trials: bool, state_root: Path) -> None:
    """Check a sweep and estimate its cost; start nothing.

    FILE is a path or a preset. Counts its trials, and estimates their time on this machine.

    OVERRIDES are path=value, or path=a,b to try both: training.max_steps=100 model.n_embd=64,128
    """
    plan = load_plan(file, overrides, state_root, is_here=True)
    from sweeps.execution.overview import finished_trials
    from sweeps.planning.earlier import EarlierTimings, earlier_timings
    from sweeps.planning.estimate import estimate
    from sweeps.planning.forecast import SearchForecast
    from sweeps.records.state import state_at
    from sweeps.resources.allocation import allocate
    from sweeps.resources.gpu_report import gpus_here
    from sweeps.resources.nodes import check_this_machine, local_node

    state, claims = state_at(state_root), _claims(plan)
    done = finished_trials(plan, state)
    check_this_machine(plan.sweep.resources)  # before anything is timed
    reports = [gpus_here()] if plan.sweep.resources.may_use_gpus else []
    allocation = allocate(plan, plan.trials, [local_node()], reports)
    coming, packs = SearchForecast.of(plan, done.to_come(plan)), allocation.gpu_packs
    with phase("estimating" if packs else "timing some steps of the trials"):
        earlier = EarlierTimings() if packs else earlier_timings(state)
        cost = estimate(done.left(plan), plan.corpus, coming, earlier, plan.trials, packs)
    _show_trials(plan, done, allocation)
    _show_cost(plan, cost, allocation)
    if claims:
        _show_claims(plan, claims, state, cost.mean_s / allocation.speed)
    if list_trials:
        _list_trials(plan, cost)


def _show_trials(plan: Plan, done: FinishedTrials, allocation: Allocation) -> None:
    """Show what a sweep consists of."""
    corpus = plan.corpus
    say(f"sweep   {plan.sweep.name}")
    say(
        f"corpus  {corpus.name}: {len(corpus.train) + len(corpus.validation):,} characters,"
        f" {corpus.vocab_size} distinct, sha256 {corpus.digest[:12]}"
        f"{f', {len(corpus.test):,} more for the test' if len(corpus.test) else ''}"
    )
    for warning in plan.warnings:
        say(f"warning {in_a_line(warning)}")
    variants = Counter(trial.model.variant for trial in plan.trials)
    parts = [f"{count} {variant}" for variant, count in variants.items()]
    if plan.studies:
        parts.append(f"{'?' if plan.to_come is None else plan.to_come} of the search")
    total = len(plan.trials) + (plan.to_come or 0)
    say(f"trials  {total} ({', '.join(parts)}), {allocation.at_once} at once on this machine")
    if done.in_words:
        say(f"done    {done.in_words}")
    if plan.studies:
        _show_search(plan)
    else:
        say(f"varies  {', '.join(plan.varying) or 'nothing'}")


def _show_search(plan: Plan) -> None:
    """Show what limits a search, and which settings it compares, tunes and leaves unchanged."""
    from trainables.config import canonical

    _show_limits(plan)
    compared = [name for name in plan.varying if name not in (*plan.tuned, "seed")]
    say(f"studies {len(plan.studies)}, one for each of: {', '.join(compared) or 'the sweep'}")
    say(f"tuned   {', '.join(plan.tuned)}")
    for label, size in plan.sizes.items():
        say(f"        {label} has {size} configurations in all")
    for name, parameter in plan.shortened.items():
        say(
            f"        {name} from {parameter.low} by {parameter.step} reaches {parameter.highest},"
            f" not {parameter.high}"
        )
    fixed = [
        f"{name}={canonical(value)}"
        for name, value in plan.examples[0].flat.items()
        if name not in (*plan.varying, *plan.tuned)
    ]
    say(f"fixed   {', '.join(fixed)}")


def _show_limits(plan: Plan) -> None:
    """Show when a search ends, how it chooses, and how its winners are confirmed."""
    search = plan.sweep.search
    numbers = {"suggestions": search.budget, "hours": search.hours}
    limits = [f"{number:g} {name}" for name, number in numbers.items() if number is not None]
    if search.patience is not None:
        limits.append(f"until {search.patience} in a row improve nothing")
    seeds = f", each with {len(plan.sweep.seeds)} seeds" if len(plan.sweep.seeds) > 1 else ""
    say(
        f"search  {' or '.join(limits)}{seeds}; sampler {search.sampler}, early stopping"
        f" {search.early.rule}, minimises {' and '.join(search.objectives)}"
    )
    if search.confirm is not None:
        fresh = len(plan.sweep.confirm_seeds)
        say(f"confirm the best {search.confirm.top} of each study with {fresh} new seeds")


def _claims(plan: Plan) -> SweepClaims | None:
    """Return the claims that a sweep decides, checked on its trials; None if it decides none."""
    if plan.sweep.decide is None:
        return None
    from sweeps.deciding.claims import read_claims  # it loads the libraries of `analysis`

    return read_claims(plan)


def _show_claims(plan: Plan, claims: SweepClaims, state: State, trial_s: float) -> None:
    """Show how a sweep decides its claims, and what it still takes by the trials that it has.

    Args:
        plan: of the sweep.
        claims: that it decides.
        state: has the trials.
        trial_s: seconds that a trial adds to the sweep.
    """
    from sweeps.deciding.outlook import outlook
    from sweeps.deciding.pilot import pilot
    from sweeps.records.outbox_file import OUTBOX

    seeds = len(plan.sweep.seeds)
    count = len(plan.trials) // len(plan.sweep.grid_seeds)
    begins = f"{counted(count, 'configuration')} x {seeds} seeds"
    if plan.studies:
        fresh = len(plan.sweep.confirm_seeds)
        begins = f"the search, its winners x {fresh} seeds"
        begins += f", {counted(count, 'configuration')} x {seeds + fresh} seeds" if count else ""
    say(f"begins  {begins}; then further seeds decide {counted(len(claims.file.claims), 'claim')}")
    say(f"limits  {claims.limits}")
    for gap in claims.gaps:
        say(f"warning {in_a_line(gap)}")
    if plan.studies:
        further = len(plan.sweep.tested_seeds) - len(plan.sweep.confirm_seeds)
        say(
            "claims  no forecast, as the search has yet to find what they compare; at most"
            f" {counted(further, 'further seed')} of each of {len(plan.studies) + count} winners"
            " and other configurations"
        )
        return
    found = outlook(plan, claims, state.sweep(plan.sweep.name) / OUTBOX)
    if found is None:
        others = state.outboxes
        others.pop(plan.sweep.name, None)
        found = pilot(plan, claims, others)
    if found:
        source = "if means and spreads stay as they are"
        if found.sweeps:
            source = f"by the trials of {listed(found.sweeps)} alone"
        takes = f", {duration(found.further * trial_s)}" if found.further else ""
        say(
            f"claims  {found.verdicts}; {source}, about {counted(found.further, 'further trial')}"
            f"{takes}"
        )
        if found.sweeps:
            say(
                "warning a claim that was made after a look at those trials needs seeds that they"
                " do not have: set `seed`"
            )


def _show_cost(plan: Plan, cost: Estimate, allocation: Allocation) -> None:
    """Show what a sweep takes: packs, GPUs, time, memory and disk."""
    if allocation.pack_counts:
        say(f"packs   {allocation.pack_counts}")
    if allocation.gpu_reason:
        say(f"gpu     {allocation.gpu_reason}")
    is_left = cost.work_s or plan.to_come is None
    nothing = "nothing: all trials are done"
    if plan.sweep.decide:
        nothing = "nothing: all trials that the sweep begins with are done"
    takes = _time(plan, cost, allocation) if is_left else nothing
    say(f"takes   {takes}")
    memory_bytes = cost.memory_bytes(allocation.at_once, allocation.largest_pack)
    say(
        f"needs   {memory_bytes / 2**30:.1f} GiB of memory and"
        f" {cost.disk_bytes / 2**20:,.0f} MiB of disk"
    )


def _time(plan: Plan, cost: Estimate, allocation: Allocation) -> str:
    """Return how long a sweep will take on this machine and how that is known, in words."""
    hours = plan.sweep.search.hours
    if plan.to_come is None:
        limit = f"at most {hours:g} h of searching" if hours else "as long as something improves"
        return f"{limit}; a trial about {duration(cost.mean_s)} ({cost.basis})"
    low_s, high_s = cost.range_s(allocation.speed)
    expected = duration(cost.seconds(allocation.speed))
    about = f"about {expected} ({duration(low_s)} to {duration(high_s)})"
    limit = f"; at most {hours:g} h of it searching" if hours and plan.studies else ""
    busy = "; this machine is busy now" if cost.busy > BUSY else ""
    where = "GPU" if allocation.gpu_packs else "CPU"
    return f"{about} on this machine's {where}, {cost.basis}{limit}{busy}"


def _list_trials(plan: Plan, cost: Estimate) -> None:
    """Show every trial of the grid with its key and its time."""
    rows = []
    for trial in plan.trials:
        values = [trial.flat.get(name, "") for name in plan.varying]
        rows.append((trial.key, *values, duration(cost.costs[trial.key].seconds)))
    say(table(["key", *plan.varying, "about"], rows))
