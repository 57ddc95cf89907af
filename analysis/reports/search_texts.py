"""Results of a search in words and tables, for the report and the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from analysis.errors import AnalysisError
from analysis.figures.report_figures import SEARCH_FIGURES, figures_of_search
from analysis.reports.ranking_texts import first_rows
from analysis.results.importances import (
    ALL,
    MEANING,
    MOST_TRIALS,
    MOST_WORDS,
    importance,
    samples,
    too_little,
)
from analysis.results.ranking import DECIMALS, level_means, markdown
from analysis.results.studies import chosen, study_tables, winners
from analysis.text.document import Figure, Report, as_text, markdown_table
from analysis.trials.confirmed import confirmation_note, studies_of, unconfirmed
from analysis.trials.search_record import EDGE
from analysis.trials.table import Trials

MOST_ROWS = 60  # of a table; the CSV files have all
EFFORT = ["suggestions", "finished", "stopped", "failed", "steps", "full_steps"]
LOSSES = dict.fromkeys(["search_loss", "val_loss", "low", "high"], 5)
WINNERS = """\
`search_loss` is what the search saw of its winner, the mean over `search_n` of its own trials: it
is optimistic, as the winner won by it. `val_loss` is the mean of the same configuration over `n`
fresh seeds, drawn after the choice, with its 95 % interval from `low` to `high`: that is what
counts. `edges` names settings within 5 % of an end of their range (of its logarithm where it is
log): there the best may lie beyond it.
"""
MEANS = (
    "Descriptive, no evidence and no test: the mean val_loss of each level of a setting, in nats"
    " per character, over `n` configurations that differ from those of its other levels in nothing"
    " else."
)
EFFORTS = """\
A suggestion is a configuration with its seeds. `steps` were trained (optimizer updates, added over
trials; of those that did not finish, up to where they were judged last); `full_steps` would have
been without early stopping.
"""


def basis(trials: Trials) -> str:
    """Return which trials of a tuned sweep are evidence, and which are missing; else ""."""
    search, studies = trials.search, studies_of(trials)
    if search is None or not studies:
        return ""
    tuned = "; ".join(f"{name}: {search.ranges(name)}" for name in search.tuned)
    seeds = ", ".join(map(str, search.confirm_seeds))
    parts = [
        f"Judged on the winners of {len(studies) - len(unconfirmed(trials))} studies, each trained"
        f" again on fresh seeds{f' ({seeds})' if seeds else ''}.",
        f"What was tuned in each study may differ between them: {tuned}.",
        confirmation_note(trials),
        _plain_note(trials, search.confirm_seeds),
    ]
    return " ".join(filter(None, parts))


def search_section(trials: Trials, drawn: Mapping[str, Figure]) -> list[str]:
    """Return the section of a report on the search; empty where there were no studies."""
    table = winners(trials)
    if trials.search is None or table.empty:
        return []
    compact = table.drop(columns=[*EFFORT, "run_ids"])
    effort = table[["study", *EFFORT]]
    parts = [
        "## Search\n",
        _how(trials),
        _held(trials),
        "### Winners\n",
        WINNERS,
        _edges(table),
        _table(compact.drop(columns=_empty(compact))),
        "### What it took\n",
        EFFORTS,
        _saved(effort),
        _table(effort),
    ]
    return [*parts, *(drawn[name].markdown for name in SEARCH_FIGURES if name in drawn)]


def search_report(trials: Trials) -> tuple[Report, dict[str, pd.DataFrame]]:
    """Return a page on which settings mattered and on the search, and the tables for its files.

    If there are too few trials for importance, the page says so and shows the rest: the studies of
    a search, or the `level_means` of a plain sweep.

    Raises:
        AnalysisError: no two configurations can be compared, and there was no search.
    """
    named = study_tables(trials)
    table = importance(trials) if samples(trials) else pd.DataFrame()
    if not table.empty:
        named = {"importance": table} | named
    elif not named:
        named = {"means": level_means(trials)}
        if named["means"].empty:
            raise AnalysisError(
                f"no two configurations differ in one setting; {too_little(trials)}"
            )
    drawn = figures_of_search(trials, table)
    title = f"What mattered in {trials.experiment}"
    text = as_text(_no_importance(trials)) + "\n"
    if "importance" in named:
        text = f"{_meaning(table)}\n\n{markdown(table)}"
    elif "means" in named:
        text += f"\n{MEANS}\n\n{markdown_table(named['means'], DECIMALS)}"
    sections = [f"# {as_text(title)}\n", text, *search_section(trials, drawn)]
    if len(sections) == 2:
        sections += [figure.markdown for figure in drawn.values()]
    return Report(title, "\n".join(sections), drawn), named


def search_text(trials: Trials, named: Mapping[str, pd.DataFrame]) -> str:
    """Return which settings mattered and the winners of a search, for a terminal.

    Args:
        trials: of a sweep.
        named: their tables, of `search_report`.
    """
    more = "the CSV file has all"
    parts = [_no_importance(trials)]
    if "importance" in named:
        table = named["importance"]
        parts = [_meaning(table), "", first_rows(table, "settings", more)]
    elif "means" in named:
        parts += ["", MEANS, "", first_rows(named["means"], "levels", more)]
    if "winners" in named:
        table = named["winners"]
        compact = table.drop(columns=[*EFFORT, *_empty(table)], errors="ignore")
        parts += ["", "winners", first_rows(compact, "winners", more), "", _saved(table).rstrip()]
    return "\n".join(parts)


def _no_importance(trials: Trials) -> str:
    return f"No importance is shown: {too_little(trials)}."


def _meaning(table: pd.DataFrame) -> str:
    """Return what the table of `importance` means."""
    meaning = "; ".join(f"{name}: {text}" for name, text in MEANING.items())
    count = table.loc[table["scope"] == ALL, "trials"].max()
    which = "finished trials" if count < MOST_TRIALS else "of the finished trials, evenly chosen"
    return (
        f"Descriptive, on {count} {which}: no evidence and no test. {meaning}. A setting that a"
        " search hardly varied looks"
        " unimportant, and one that not all trials have is measured among those that have it; one"
        f" with more than {MOST_WORDS} words for values is left out."
    )


def _plain_note(trials: Trials, fresh: Sequence[int]) -> str:
    """Return what keeps plain trials from being compared with winners; else ""."""
    tables = [trials.table] if trials.planned is None else [trials.table, trials.planned]
    plain = pd.concat([table.loc[table["stage"] == "", "seed"] for table in tables])
    if plain.empty or plain.isin(list(fresh)).any():
        return ""
    return (
        "The plain trials have none of the fresh seeds, so they make no pairs with the winners:"
        " name the same seeds for both."
    )


def _how(trials: Trials) -> str:
    search = trials.search
    assert search is not None
    units = {"trials": "suggestions", "hours": "hours", "patience": "suggestions without progress"}
    limits = [f"{limit:g} {units[name]}" for name, limit in search.limits.items()]
    rows = [(name, search.ranges(name)) for name in search.tuned]
    none = search.stopping == "none"
    text = (
        f"Sampler: {search.sampler}; minimised: {', '.join(search.objectives)};"
        f" {'none stopped early' if none else f'stopped early by {search.stopping}'};"
        f" limits: {', '.join(limits) or 'none'}; seeds of a suggestion:"
        f" {', '.join(map(str, search.seeds))}; fresh seeds of the winners:"
        f" {', '.join(map(str, search.confirm_seeds)) or 'none'}."
    )
    note = confirmation_note(trials)
    ranges = markdown_table(pd.DataFrame(rows, columns=["tuned", "from"]))
    return "\n".join([as_text(text) + "\n", f"**{as_text(note)}**\n" if note else "", ranges])


def _held(trials: Trials) -> str:
    free = {*chosen(trials), *(trials.search.tuned if trials.search else ()), "seed"}
    grid = [name for name in trials.settings if name not in free]
    fixed = [name for name in trials.params if name not in {*free, *grid}]
    values = ", ".join(f"{name}={trials.table[name].iloc[0]}" for name in fixed)
    text = f"Compared by the grid: {', '.join(grid) or 'nothing'}. Fixed: {values or 'nothing'}."
    return as_text(text) + "\n"


def _edges(table: pd.DataFrame) -> str:
    at_edge = int((table["edges"] != "").sum())
    if not at_edge:
        return f"No winner lies within {EDGE:.0%} of an end of a range.\n"
    return (
        f"**{at_edge} of {len(table)} winners lie at an edge of a range:** a wider range may have"
        " better ones.\n"
    )


def _saved(effort: pd.DataFrame) -> str:
    steps, full = int(effort["steps"].sum()), int(effort["full_steps"].sum())
    counts = ", ".join(f"{int(effort[name].sum())} {name}" for name in EFFORT[1:4])
    share = (
        f", {1 - steps / full:.0%} less than the {full:,} without early stopping" if full else ""
    )
    return f"{int(effort['suggestions'].sum())} suggestions: {counts}. {steps:,} steps{share}.\n"


def _empty(table: pd.DataFrame) -> list[str]:
    return [str(name) for name in table if table[name].isna().all() or (table[name] == "").all()]


def _table(table: pd.DataFrame) -> str:
    text = markdown_table(table.head(MOST_ROWS), {n: d for n, d in LOSSES.items() if n in table})
    if len(table) > MOST_ROWS:
        text += f"\nThe first {MOST_ROWS} of {len(table)} rows; the CSV files have all.\n"
    return text
