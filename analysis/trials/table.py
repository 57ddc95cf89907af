"""A table with a row for each trial, from MLflow or a file."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Container, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ParamSpec, TypeVar

import pandas as pd

from analysis.errors import AnalysisError
from analysis.trials.search_record import SearchRecord, read_search

Given = ParamSpec("Given")
Result = TypeVar("Result")
WAITING = "WAITING"  # the status of a trial that was planned and has no run
STOPPED = "stopped early"
LARGEST = 1e100  # of a number: powers of larger ones overflow
METRICS = (
    *("train_loss", "val_loss", "best_val_loss", "tokens_per_second", "training_seconds"),
    "test_loss",
)
IDENTITY = ("run_id", "name", "key")
TAGS = (
    *("failure", "stage", "stopped", "study", "hardware"),
    *("code_version", "corpus_digest", "result_version"),
)
NUMBER_TAGS = {"suggestion": "suggestion", "arm": "arm", "rung": "rung", "picked": "rank"}
COSTS = ("parameters", "training_tokens")  # metrics of a search that has them for an objective
RESERVED = {  # columns of the tables here, in rankings, of studies and in figures
    *IDENTITY,
    *TAGS,
    *NUMBER_TAGS,
    *METRICS,
    *COSTS,
    *("outcome", "search_loss", "search_n", "last_loss", "edges", "suggestions", "finished"),
    *("failed", "steps", "full_steps", "best"),
    *("status", "why", "planned"),
    *("rank", "n", "low", "high", "left_out", "run_ids"),
    *("configuration", "label", "placed", "reference", "group", "best_of_group", "mean", "shown"),
    *("row", "column", "line"),
}
SUFFIX = "_setting"
# Settings in the order in which people read them; others follow in the order of the alphabet.
FIRST_PARAMS = ("variant", "pe_type", "n_embd", "block_size")


@dataclass(frozen=True)
class Trials:
    """The trials of an experiment.

    ``table`` has one row for each trial:

    * ``run_id``, ``name``, ``key``: of its run in MLflow;
    * ``status``: FINISHED, FAILED, KILLED, RUNNING; ``failure``: why it failed (in trials that
      claims are tested on, and from a file, also WAITING: it was planned and has no run);
    * ``stage``: "search" for a trial that a search suggested, "confirm" for one of a winner that
      was trained again on fresh seeds, else empty; ``stopped``: why it was stopped before its last
      step, else empty; ``study``: its study, in both stages;
    * ``suggestion``: its number in the study; ``rung``: the last step at which it was judged;
      ``picked``: 1 for a trial of the best configuration of a study by the search's own losses, 2
      and so on; ``arm``: of the sweep file, counted from 0 (all four missing if they have no
      meaning, and in a table from a file);
    * ``hardware``, ``code_version``, ``corpus_digest``, ``result_version``: the hardware,
      code and text of the trial; losses of different result versions cannot be compared;
    * a column for each name in ``params``, its settings: numbers where all values are; ``seed`` is
      0 where it is not known, and a setting with the name of another column is NAME_setting;
    * the metrics of the last step: ``train_loss``, ``val_loss``, ``best_val_loss`` in nats per
      character, ``tokens_per_second``, ``training_seconds`` (without evaluation). Before its end a
      trial may have no ``train_loss``, or that of a part of the training split. ``test_loss`` is
      that of a split that nothing else reads, of a trial that is tested; else missing.

    ``planned`` has a row for each trial that the sweep planned, with or without a run. For a study
    these are the trials that will confirm its winner, without the tuned settings. It has the
    columns of ``table``, and those of settings that no run has. None if the plan is not known.
    """

    experiment: str
    table: pd.DataFrame
    params: tuple[str, ...]
    sweep: Mapping[str, str] = field(default_factory=dict)  # its run: tags, run_id, status
    planned: pd.DataFrame | None = None

    @property
    def plan_known(self) -> bool:
        """True if it is known which trials the sweep planned."""
        return self.planned is not None

    @property
    def status(self) -> str:
        """Status of the sweep as a whole; a table from a file is FINISHED."""
        return self.sweep.get("status", "FINISHED")

    @cached_property
    def search(self) -> SearchRecord | None:
        """Record of the search; None if the sweep did not search.

        Raises:
            AnalysisError: the record of the search cannot be read from its run.
        """
        return read_search(self.sweep.get("search"))

    @cached_property
    def varying(self) -> tuple[str, ...]:
        """The params that differ between trials, one that some trials lack included."""
        return tuple(name for name in self.params if self.table[name].nunique(dropna=False) > 1)

    @property
    def settings(self) -> tuple[str, ...]:
        """The params that differ between configurations: all that vary but the seed."""
        return tuple(name for name in self.varying if name != "seed")

    @cached_property
    def finished(self) -> pd.DataFrame:
        """The rows that count in a ranking; their val_loss is a finite number."""
        return self.table[(self.table["status"] == "FINISHED") & is_finite(self.table["val_loss"])]

    @cached_property
    def comparable(self) -> pd.DataFrame:
        """The rows that are evidence: finished, trained to the end, not suggested by a search.

        The best suggestion of a search was chosen for its losses, so it looks better than it is.
        """
        rows = self.finished
        return rows[(rows["stage"] == "") & (rows["stopped"] == "")]

    @property
    def outcomes(self) -> dict[str, int]:
        """Number of trials by status. Trials that were stopped early have a status of their own."""
        is_stopped = (self.table["status"] == "FINISHED") & (self.table["stopped"] != "")
        counts = self.table["status"].where(~is_stopped, STOPPED).value_counts()
        return {str(outcome): int(number) for outcome, number in sorted(counts.items())}

    @property
    def left_out(self) -> pd.DataFrame:
        """The other rows, with a column ``why``."""
        return self.other_than(self.comparable)

    def other_than(self, counted: pd.DataFrame) -> pd.DataFrame:
        """Return the rows that are not counted, with a column ``why``."""
        rows = self.table.drop(counted.index)
        return rows.assign(why=[_why_left_out(row) for row in rows.to_dict("records")])


def of_trials(function: Callable[Given, Result]) -> Callable[Given, Result]:
    """Decorator: refuse a first argument that is not a `Trials`, such as a sweep's name.

    Raises:
        AnalysisError: by the function, with the remedy.
    """

    @functools.wraps(function)
    def checked(*given: Given.args, **named: Given.kwargs) -> Result:
        first = given[0] if given else named.get("trials")
        if not isinstance(first, Trials) and (given or "trials" in named):
            is_name = isinstance(first, str | os.PathLike)
            name, what = (repr(str(first)), "text") if is_name else ("NAME", type(first).__name__)
            raise AnalysisError(
                f"{function.__name__} takes the trials of a sweep, not {what}: give it"
                f" load_trials({name})"
            )
        return function(*given, **named)

    return checked


def is_finite(values: pd.Series) -> pd.Series:
    """Return which values are usable numbers: not missing, not too large."""
    return values.astype(float).abs() <= LARGEST


def _why_left_out(row: Mapping[Hashable, Any]) -> str:  # Any: columns have several types
    if row["status"] != "FINISHED":
        return f"{row['status']}: {row['failure']}".removesuffix(": ")
    if row["stopped"]:
        return f"stopped early: {row['stopped']}"
    if row["stage"]:
        is_winner = row["stage"] == "confirm"
        return (
            "confirmed, but not the search's first choice" if is_winner else "suggested by a search"
        )
    if abs(row["val_loss"]) <= LARGEST:
        return "plain, where a confirmed winner or its seeds are what counts"
    return f"val_loss is {row['val_loss']}"


def typed(source: str, table: pd.DataFrame, params: Iterable[str]) -> pd.DataFrame:
    """Convert the texts of a table to numbers where all values are numbers, in place.

    Args:
        source: what to call it in messages.
        table: with losses that are numbers already.
        params: its settings.

    Raises:
        AnalysisError: a seed or a number of a search is no whole number.
    """
    for name in params:
        numbers = pd.to_numeric(table[name], errors="coerce")
        if (numbers.notna() == table[name].notna()).all():
            table[name] = numbers.convert_dtypes()
    if "seed" not in table:
        table["seed"] = 0
    seeds = pd.to_numeric(table["seed"], errors="coerce")
    if seeds.isna().any() or (seeds % 1 != 0).any():
        raise AnalysisError(f"{source}: a seed is not a whole number, or missing in some trials")
    table["seed"] = seeds.astype(object).map(int)
    for name in table.columns.intersection(list(NUMBER_TAGS)):
        numbers = pd.to_numeric(table[name], errors="coerce")
        if (numbers.isna() & table[name].notna()).any() or (numbers % 1 > 0).any():
            raise AnalysisError(f"{source}: the tag {NUMBER_TAGS[name]!r} is no whole number")
        table[name] = numbers.astype("Int64")
    return table


def column(param: str, but: Container[str] = ()) -> str:
    """Return the column of a param; each param has its own.

    Args:
        param: its name.
        but: reserved columns, which no param may have.
    """
    base = re.sub(f"({SUFFIX})*$", "", param)
    return f"{param}{SUFFIX}" if base in RESERVED and base not in but else param


def param(column: str, but: Container[str] = ()) -> str:
    """Return the param of a column: the inverse of `column`."""
    base = re.sub(f"({SUFFIX})*$", "", column)
    return column.removesuffix(SUFFIX) if base in RESERVED and base not in but else column


def in_reading_order(params: Iterable[str]) -> tuple[str, ...]:
    """Return the params in the order of reading: FIRST_PARAMS, then by the alphabet."""
    return tuple(sorted(params, key=_reading_order))


def _reading_order(name: str) -> tuple[int, str]:
    known = FIRST_PARAMS.index(name) if name in FIRST_PARAMS else len(FIRST_PARAMS)
    return known, name
