"""The `analysis` command."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from analysis.command_options import (
    AnalysisGroup,
    anytime_option,
    claims_option,
    error_option,
    experiment_argument,
    out_option,
    state_option,
    tracking_option,
)
from analysis.errors import AnalysisError
from analysis.figures.matplotlib_settings import load_matplotlib
from analysis.folder import Folder
from analysis.text.terminal import note, pass_on, say, set_up

if TYPE_CHECKING:
    from analysis.claims.conclusions import Conclusion
    from analysis.reports.verdicts import Verdicts
    from analysis.trials.table import Trials


MOST_RUNS = 4  # that are named for a claim
CLAIMS_HELP = """\
Test claims on the trials of EXPERIMENT.

EXPERIMENT is a sweep's name, or a CSV file with one row for each trial. Writes
conclusions.csv, contrasts.csv and trials.csv, which has the losses that the tests use. Exit
codes: 0 every claim is SUPPORTED; 1 some are not; 2 the request is wrong.

Each claim in a file of claims has one of these forms (docs/claims.md explains them):

\b
  claims:
    - claim: rope is better than sinpe, and sinpe than randn
      where: {variant: attention}      # of these trials
      factor: pe_type                  # all else held fixed
      order: [rope, sinpe, randn]
      # or   best: rope                # better than every other
      # or   best: any                 # which is best?
      # or   equal: [rope, sinpe]      # within the margin, 0.002
      # if the factor is a number:
      # or   monotone: falling         # at each step (or rising)
      # or   trend: falling            # as a whole
      holds: in every cell             # or: on average, not in every cell
    - claim: attention is better than the bigram
      better: {variant: attention}
      worse: {variant: bigram}
      despite: [block_size]            # which may differ
"""


@click.group(cls=AnalysisGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="bigram-sweeps")
def main() -> None:
    """Rankings, conclusions and reports of sweeps, from their runs in MLflow."""
    set_up("analysis")


@main.command()
@experiment_argument
@click.option(
    "--by",
    multiple=True,
    metavar="SETTING",
    help="Pivot by this setting; may be repeated. By default by each number that differs.",
)
@click.option("--markdown", "as_markdown", is_flag=True, help="Print all tables as Markdown.")
@click.option(
    "--csv",
    "as_csv",
    is_flag=True,
    help="Print the ranking as CSV; with one --by, print that pivot.",
)
@tracking_option
@state_option
@out_option
def rankings(
    experiment: str,
    by: tuple[str, ...],
    as_markdown: bool,
    as_csv: bool,
    tracking_uri: str | None,
    state: Path,
    out: Path | None,
) -> None:
    """Rank the configurations of EXPERIMENT by val_loss.

    EXPERIMENT is a sweep's name, or a CSV file with one row for each trial. Prints the best
    configurations and the largest pivot; writes all of them to CSV and Markdown files.
    """
    from analysis.reports.ranking_texts import not_ranked, ranking_text
    from analysis.results.ranking import markdown, tables, write_tables
    from analysis.text.csv_files import csv_text

    if as_csv and as_markdown:
        raise AnalysisError("give --csv or --markdown, not both: the files are written anyway")
    if as_csv and len(by) > 1:
        raise AnalysisError("--csv prints one table: give --by once, or not at all")
    trials, _ = _load(experiment, tracking_uri, state)
    named = tables(trials, list(by) or None)
    alone = [name for name in by if f"by_{name}" not in named]
    if alone and as_csv:
        raise AnalysisError(f"no two configurations differ in {alone[0]} alone: it has no pivot")
    if as_csv:
        pass_on(csv_text(named[f"by_{by[0]}" if by else "ranking"]))
    elif as_markdown:
        pass_on("\n".join(f"## {name}\n\n{markdown(table)}" for name, table in named.items()))
    else:
        say(ranking_text(named, every_pivot=bool(by)))
    if text := not_ranked(trials):
        note(text)
    for name in alone:
        note(f"no two configurations differ in {name} alone: it has no pivot")
    for path in write_tables(named, out or state / "reports" / trials.experiment):
        note(str(path))


@main.command(help=CLAIMS_HELP)
@experiment_argument
@claims_option
@anytime_option
@error_option
@tracking_option
@state_option
@out_option
@click.pass_context
def conclusions(
    context: click.Context,
    experiment: str,
    claims: Path | None,
    anytime: bool | None,
    error: float | None,
    tracking_uri: str | None,
    state: Path,
    out: Path | None,
) -> None:
    """Test claims on the trials of an experiment; its help is CLAIMS_HELP."""
    from analysis.claims.tables import write_conclusions
    from analysis.reports.verdicts import verdicts_on
    from analysis.trials.confirmed import judged
    from analysis.trials.loading import is_table
    from analysis.trials.trials_csv import write_trials_csv

    trials, uri = _load(experiment, tracking_uri, state)
    verdicts = verdicts_on(trials, uri, claims, anytime, error)
    found = verdicts.conclusions
    if not found:
        raise AnalysisError(
            f"no claim of the published study is about the trials of {trials.experiment!r};"
            " write your own and name the file with --claims"
        )
    _say_conclusions(verdicts, trials, uri)
    folder = out or state / "reports" / trials.experiment
    source = experiment if is_table(experiment) else ""
    for path in (
        *write_conclusions(found, folder),
        write_trials_csv(judged(trials), folder, source),
    ):
        say(str(path))
    _keep_look(found, trials, uri)
    if any(conclusion.verdict != "SUPPORTED" for conclusion in found):
        context.exit(1)


def _say_conclusions(verdicts: Verdicts, trials: Trials, uri: str) -> None:
    """Print each verdict with its sentences and runs, and what the trials lack."""
    from analysis.reports.claim_texts import Link, one_seed_note, sentences, weakest_runs
    from analysis.reports.search_texts import basis
    from analysis.trials.confirmed import not_begun_note

    pass_on(one_seed_note(verdicts.conclusions))
    if text := basis(trials):
        say(f"{text}\n")
    link = Link(uri, trials.sweep.get("experiment_id", ""))
    for conclusion, on_other_text in zip(verdicts.conclusions, verdicts.on_text, strict=True):
        say(f"{conclusion.verdict:13} {conclusion.statement}")
        for sentence in filter(None, [*sentences(conclusion), on_other_text]):
            say(f"{'':13} {sentence}")
        for run in weakest_runs(conclusion, link.address, MOST_RUNS):
            say(f"{'':13} {run}")
    for sentence in verdicts.valid:
        say(sentence)
    if text := not_begun_note(trials):
        say(text)
    if trials.status != "FINISHED":
        say(f"the sweep is {trials.status}: this is about its trials so far")


def _keep_look(found: Sequence[Conclusion], trials: Trials, uri: str) -> None:
    """Record this look at verdicts in the sweep's run, if they hold for one look only."""
    from analysis.trials.looks import record_look

    if not found or found[0].is_anytime:
        return
    try:
        record_look(trials, uri)
    except AnalysisError as problem:
        note(f"this look is not written down: {problem}")


@main.command()
@experiment_argument
@claims_option
@anytime_option
@error_option
@tracking_option
@state_option
@out_option
def report(
    experiment: str,
    claims: Path | None,
    anytime: bool | None,
    error: float | None,
    tracking_uri: str | None,
    state: Path,
    out: Path | None,
) -> None:
    """Write a report on EXPERIMENT, and attach it in MLflow.

    EXPERIMENT is a sweep's name, or a CSV file with one row for each trial. Writes report.html
    and report.md, which MLflow shows in the run of the sweep. Beside them are the tables that the
    report shows in part, and trials.csv with the losses that the tests use.
    """
    load_matplotlib()
    from analysis.claims.tables import write_conclusions
    from analysis.reports.report import Evidence, runs_with_curves
    from analysis.reports.report import report as written
    from analysis.reports.verdicts import verdicts_on
    from analysis.results.ranking import tables, write_tables
    from analysis.results.studies import study_tables
    from analysis.text.csv_files import csv_text
    from analysis.trials.confirmed import judged
    from analysis.trials.decided import load_looks
    from analysis.trials.loading import is_table, load_curves
    from analysis.trials.mlflow_store import LOOKS_TABLE, attach
    from analysis.trials.trials_csv import write_trials_csv

    trials, uri = _load(experiment, tracking_uri, state)
    verdicts = verdicts_on(trials, uri, claims, anytime, error)
    found = verdicts.conclusions
    named = tables(trials)
    curves = load_curves(trials, uri, runs_with_curves(named["ranking"]))
    looks = load_looks(trials, uri)
    made = written(
        Evidence(trials, named, curves, found, uri, verdicts.valid, verdicts.on_text, looks)
    )
    folder = out or state / "reports" / trials.experiment
    paths = made.write(folder)
    write_tables(named | study_tables(trials), folder)
    write_conclusions(found, folder)
    write_trials_csv(judged(trials), folder, experiment if is_table(experiment) else "")
    if len(looks):
        (folder / LOOKS_TABLE).write_bytes(csv_text(looks).encode())
    if trials.sweep:
        attach(trials, folder, [*paths, *made.figure_paths(folder)], uri)
        _keep_look(found, trials, uri)
    for path in paths:
        say(str(path))


@main.command()
@experiment_argument
@tracking_option
@state_option
@click.option(
    "--out",
    type=Folder(),
    help="The folder to write to; STATE/reports/EXPERIMENT/importance by default.",
)
def importance(experiment: str, tracking_uri: str | None, state: Path, out: Path | None) -> None:
    """Show which settings mattered in EXPERIMENT.

    EXPERIMENT is a sweep's name, or a CSV file with one row for each trial. Importance (fANOVA and
    PED-ANOVA) describes the existing trials; it is no evidence. Writes a page with figures, and
    tables as CSV and Markdown: importance and, for a search, its winners, suggestions, best_so_far
    and Pareto front. With too few trials for importance, a search gets the other tables, and a
    grid gets means: the mean val_loss of each level of a setting, all other settings being equal.
    """
    load_matplotlib()
    from analysis.reports.search_texts import search_report, search_text
    from analysis.results.ranking import write_tables

    trials, _ = _load(experiment, tracking_uri, state)
    made, named = search_report(trials)
    say(search_text(trials, named))
    folder = out or state / "reports" / trials.experiment / "importance"
    for path in [*made.write(folder), *write_tables(named, folder)]:
        say(str(path))


@main.command()
@click.argument("experiment", default="compare")
@tracking_option
@state_option
@click.option(
    "--corpora",
    type=Folder(),
    envvar="SWEEPS_CORPORA",
    help="The cache of downloaded corpora; STATE/corpora by default (SWEEPS_CORPORA).",
)
@click.option(
    "--out",
    type=Folder(),
    help="The folder of the report; STATE/reports/EXPERIMENT/compare by default.",
)
def compare(
    experiment: str, tracking_uri: str | None, state: Path, corpora: Path | None, out: Path | None
) -> None:
    """Compare BabyGPT v1 with the statistical bigram.

    EXPERIMENT has the runs of `sweeps run compare`. Losses and trained models are those of the
    runs; times are measured on this machine now, on the CPU and on a GPU if there is one. Takes
    about a minute.
    """
    load_matplotlib()
    from analysis.comparison.measure import comparison_of
    from analysis.comparison.report import report_of
    from analysis.trials.mlflow_store import store_of

    store = tracking_uri or store_of(state)
    found = comparison_of(experiment, store, corpora or state / "corpora", note)
    for path in report_of(found).write(out or state / "reports" / experiment / "compare"):
        say(str(path))


def _load(experiment: str, tracking_uri: str | None, state: Path) -> tuple[Trials, str]:
    """Return the trials, and the URI of the store that they are from; empty for a CSV file."""
    from analysis.trials.loading import is_table, load_trials
    from analysis.trials.mlflow_store import store_of

    uri = "" if is_table(experiment) else tracking_uri or store_of(state)
    return load_trials(experiment, uri), uri
