"""Conclusions in words, for the terminal and the report."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import pandas as pd

from analysis.claims.claim import NEGATED
from analysis.claims.conclusions import Conclusion
from analysis.claims.forecast import fewest_for_signs
from analysis.claims.one_sided import ALPHA
from analysis.claims.tables import contrasts_table
from analysis.statistics import FEWEST_FOR_BOOTSTRAP, Interval
from analysis.text.document import as_code, as_text, in_short, markdown_table
from analysis.text.messages import address_of
from analysis.text.shares import percent

MOST_LINKS = 10  # to runs, for a claim
DISJOINT = (
    "No seed has finished on both sides of a difference, though other seeds have: trials are paired"
    " by their seed, so give all configurations the same seeds."
)
ONE_SEED = """\
There is one run for each configuration. The counts below describe those runs only; another seed may
give other counts. One run tells nothing about the spread between seeds, so no interval, no test and
no forecast of seeds is possible: every claim is UNDERPOWERED, whatever its count. Give the sweep
`replicates: 5` or more.
"""


@dataclass(frozen=True)
class Link:
    """Links to the pages of runs."""

    tracking_uri: str
    experiment_id: str

    def to(self, run_id: str) -> str:
        """Return a link in Markdown; only the id if there is no server."""
        address = self.address(run_id)
        return as_code(run_id) if address == run_id else f"[{as_text(run_id)}]({address})"

    def address(self, run_id: str) -> str:
        """Return the address of a run's page; only the id if there is no server."""
        if not self.tracking_uri.startswith("http"):
            return run_id
        return (
            f"{address_of(self.tracking_uri)}/?workflowType=machine_learning"
            f"#/experiments/{self.experiment_id}/runs/{run_id}"
        )


def one_seed_note(conclusions: Sequence[Conclusion]) -> str:
    """Return a note on what one seed cannot show, if no configuration has a second; else ""."""
    single = all(_has_one_seed(conclusion) for conclusion in conclusions)
    return ONE_SEED + "\n" if single else ""


def _has_one_seed(conclusion: Conclusion) -> bool:
    most = max((len(contrast.seeds) for contrast in conclusion.contrasts), default=0)
    return most == 1 and not conclusion.repeated


def claims_overview(conclusions: Sequence[Conclusion]) -> str:
    """Return a table with a row for each claim, and notes on how to read it."""
    rows = [
        {
            "#": index,
            "claim": conclusion.statement,
            "verdict": f"**{conclusion.verdict}**",
            "cells": f"{conclusion.cells_hold}/{conclusion.cells}",
            "weakest cell": where(conclusion),
            "effect (nats)": effect(conclusion),
            "seeds": conclusion.seeds,
            "needed": needed_in_short(conclusion) if conclusion.verdict == "UNDERPOWERED" else "",
        }
        for index, conclusion in enumerate(conclusions, start=1)
    ]
    text = markdown_table(pd.DataFrame(rows), marked_up=["verdict"])
    error = conclusions[0].decision.procedure.error if conclusions else ALPHA
    note = (
        '\n"cells" counts those in which every mean difference agrees with the comparison; a claim'
        ' of "not in every cell" is supported by the others. The effect is the'
        " difference in the weakest cell, negative in favour of what is compared, with its"
        f" {100 - 200 * error:.3g} % interval, whose ends are those of the one-sided tests at"
        f" {100 * error:.2g} % (a wider one where the claim"
        " asks which level is best). Below, p_holm is for the"
        " statement that this one difference supports the claim, corrected for all differences of"
        " the claim, and p_equal that it is less than the margin.\n"
    )
    return one_seed_note(conclusions) + text + note


def claim_section(
    index: int, conclusion: Conclusion, link: Link, most_rows: int, on_text: str = ""
) -> str:
    """Return the section of a claim, with all its evidence.

    Args:
        index: of the claim, from 1.
        conclusion: on it.
        link: to the pages of runs.
        most_rows: of its table.
        on_text: whether its difference would hold on other text, in a sentence.
    """
    table = contrasts_table([conclusion]).drop(
        columns=["claim_index", "claim", "verdict", "favoured", "confidence", "run_ids"]
    )
    if not table["lost"].any():
        table = table.drop(columns="lost")
    if (table["n"] < 2).all():
        table = table.drop(columns=["low", "high", "p_holm", "p_equal"])
    for name in table.columns.intersection(["p_holm", "p_equal"]):
        table[name] = [f"{p:.4f}" if p >= 0.0001 else "<0.0001" for p in table[name]]
    decimals = dict.fromkeys(["mean", "low", "high"], 5)
    parts = [
        f"### {index}. {as_text(conclusion.statement)}\n",
        f"**{conclusion.verdict}** ({conclusion.claim.holds}).\n",
        as_text(" ".join(filter(None, [*sentences(conclusion), on_text]))) + "\n",
        markdown_table(table.head(most_rows), decimals),
    ]
    if len(table) > most_rows:
        parts.append(f"The first {most_rows} of {len(table)} differences; contrasts.csv has all.\n")
    if runs := weakest_runs(conclusion, link.to, MOST_LINKS):
        parts.append(f"Runs of the weakest cell: {', '.join(runs)}\n")
    return "\n".join(parts)


def weakest_runs(conclusion: Conclusion, shown: Callable[[str], str], most: int) -> list[str]:
    """Return at most `most` runs of the weakest contrast, by seed, and the number of the others."""
    run_ids = _distinct(conclusion.weakest.run_ids if conclusion.weakest else ())
    more = len(run_ids) - most
    rest = [f"and {more} more, which contrasts.csv names"] if more > 0 else []
    return [*map(shown, run_ids[:most]), *rest]


def sentences(conclusion: Conclusion) -> Iterable[str]:
    """Yield sentences on the evidence for and against a claim."""
    if conclusion.confounded:
        yield f"Nothing was compared: {conclusion.confounded}."
        return
    if choice := conclusion.claim.choice(conclusion.lowest_first, conclusion.confidence):
        no_level = " No level is better than all others by the margin."
        yield choice + (no_level if conclusion.verdict == "NOT SUPPORTED" else "")
    named = "weakest difference"
    if conclusion.claim.holds == NEGATED:
        is_countered = conclusion.cells_hold < conclusion.cells
        named = "strongest counterexample" if is_countered else "nearest to a counterexample"
    held = f"{conclusion.cells_hold} of {conclusion.cells}"
    yield f"The mean differences agree with the comparison in {held} cells."
    if conclusion.weakest is None:
        is_disjoint = any(contrast.is_disjoint for contrast in conclusion.contrasts)
        yield DISJOINT if is_disjoint else "In none of them have both trials of a pair finished."
        if conclusion.lost and not is_disjoint:
            yield _lost(conclusion)
        yield from _differing(conclusion)
        return
    yield (
        f"The {named} is {where(conclusion)}: {effect(conclusion)} nats per character,"
        f" {_seeds(conclusion)}."
    )
    if conclusion.effect.n > 1:
        yield from _evidence(conclusion)
    if conclusion.lost:
        yield _lost(conclusion)
    if late := sum(contrast.after_missing for contrast in conclusion.contrasts):
        yield (
            f"Finished pairs that do not count: {late}; pairs count in the order of their seeds, up"
            " to the first that is missing or did not finish."
        )
    yield from _differing(conclusion)
    if conclusion.verdict == "UNDERPOWERED":
        yield needed_in_words(conclusion)


def _evidence(conclusion: Conclusion) -> Iterable[str]:
    procedure = conclusion.decision.procedure
    if len(conclusion.basis) > 1:
        text = (
            f"It is one of {len(conclusion.basis)} that decide: intervals that hold for all of them"
            f" at once with {percent(procedure.confidence)} % give it"
            f" {_between(conclusion.simultaneous)}."
        )
        together = conclusion.simultaneous
        if conclusion.verdict == "SUPPORTED" and together.low <= 0 <= together.high:
            text += " It may contain zero: each of them is tested by itself, and all have to pass."
        yield text
    if conclusion.is_anytime:
        supports, refutes = conclusion.decision.supports, conclusion.decision.refutes
        yield (
            f"The largest e-value so far for the claim is {_large(1 / supports)}, that against it"
            f" {_large(1 / refutes)}; {1 / procedure.error:g} decides, at any look, and what comes"
            " later changes nothing of that. The interval is the present one."
        )
        return
    if conclusion.bootstrap.n >= FEWEST_FOR_BOOTSTRAP:
        yield f"Its 95 % bootstrap interval is {_between(conclusion.bootstrap)}."
    yield (
        f"For the claim p = {conclusion.decision.supports:.2g}, against it"
        f" p = {conclusion.decision.refutes:.2g}; by the sign-flip test alone"
        f" p = {conclusion.sign_flip:.4f}."
    )
    noise = conclusion.decision.noise
    if not noise.is_normal:
        yield (
            f"The differences do not look normal (Shapiro-Wilk, p = {noise.p_normal:.2g}), so the"
            " sign-flip test has to agree with the t-test."
        )
    if flat := sum(noise.flat):
        yield (
            f"{flat} of {len(noise.flat)} differences have no more spread than rounding makes, so"
            " the sign-flip test has to agree there."
        )
    fewest = fewest_for_signs(conclusion.decision.among)
    if not noise.is_good and conclusion.seeds < fewest:
        yield f"With fewer than {fewest} seeds it cannot."


def _large(e_value: float) -> str:
    """Return an e-value in a few digits, such as 0.4, 37 or 2e+06."""
    return f"{e_value:.2g}" if e_value < 100 or e_value >= 1e5 else f"{e_value:.0f}"


def needed_in_short(conclusion: Conclusion) -> str:
    """Return the number of seeds that would show a claim, or why there is none."""
    if conclusion.lost or conclusion.seeds < 2:
        return "unknown"
    if conclusion.needed.to_show is not None and not conclusion.needed.is_refuted_first:
        return str(max(conclusion.needed.to_show, conclusion.seeds + 1))
    if conclusion.needed.to_refute is not None:
        more = "" if conclusion.needed.to_show is not None else "none; "
        return f"{more}{max(conclusion.needed.to_refute, conclusion.seeds + 1)} to refute"
    return "no number"


def needed_in_words(conclusion: Conclusion) -> str:
    """Return a sentence on how many seeds a verdict would need."""
    if conclusion.lost:
        return "First, the missing trials have to finish."
    if conclusion.seeds < 2:
        return "One seed tells nothing about the spread between seeds; train at least two."
    needed = conclusion.needed
    if needed.to_show is not None and not needed.is_refuted_first:
        if needed.to_show <= conclusion.seeds:  # p-values vary from sample to sample
            return "Judging by these losses, a few more seeds would show it."
        return f"Judging by these losses, about {needed.to_show} seeds would show it."
    if needed.to_refute is not None:
        few = needed.to_refute <= conclusion.seeds
        refute = "a few more" if few else f"about {needed.to_refute}"
        if needed.to_show is not None:
            return f"Judging by these losses, {refute} seeds would refute it."
        return (
            f"Judging by these losses, no number of seeds would show it; {refute} would refute it."
        )
    return "Judging by these losses, no number of seeds up to 1,000 would decide."


def where(conclusion: Conclusion) -> str:
    """Return the weakest cell and its difference, such as ``n_embd=64 (rope - sinpe)``."""
    if conclusion.weakest is None:
        return ""
    cell, what = conclusion.weakest.cell, conclusion.weakest.what
    return f"{cell} ({what})" if cell else what


def effect(conclusion: Conclusion) -> str:
    """Return the mean difference with its interval, such as ``-0.0182 [-0.0241, -0.0123]``."""
    found = conclusion.effect
    if found.n == 0:
        return ""
    if found.n == 1:
        return in_short(found.mean, 5, "+")
    return f"{in_short(found.mean, 4, '+')} {_between(found)}"


def _between(found: Interval) -> str:
    return f"[{in_short(found.low, 4, '+')}, {in_short(found.high, 4, '+')}]"


def _lost(conclusion: Conclusion) -> str:
    return (
        f"Pairs with a trial that is missing or did not finish: {conclusion.lost}; their"
        " differences decide nothing."
    )


def _differing(conclusion: Conclusion) -> Iterable[str]:
    """Yield sentences on other differences of the sides, and on repeated losses."""
    whole = len(conclusion.contrasts)
    for name, number in conclusion.differs.items():
        yield f"In {number} of {whole} differences the sides also differ in {name}."
    if conclusion.repeated:
        yield (
            f"Seeds with exactly the losses of another seed: {conclusion.repeated}, not counted;"
            " they are copies, or the models do not depend on the seed."
        )
    if conclusion.equal_losses:
        yield (
            f"In {conclusion.equal_losses} differences a side has the same loss with several seeds:"
            " its model does not depend on the seed, or its losses are rounded or copied."
        )


def _seeds(conclusion: Conclusion) -> str:
    return f"{conclusion.effect.n} seeds" if conclusion.effect.n > 1 else "one seed"


def _distinct(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
