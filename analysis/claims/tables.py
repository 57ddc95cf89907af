"""Conclusions as tables, and as CSV files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from analysis.claims.conclusions import Conclusion
from analysis.claims.decisions import p_equal
from analysis.text.csv_files import csv_text

CONTRAST_COLUMNS = (
    *("claim_index", "claim", "verdict", "favoured", "cell", "what", "n", "mean", "low", "high"),
    *("confidence", "p_holm", "p_equal", "lost", "run_ids"),
)


def conclusions_table(conclusions: Sequence[Conclusion]) -> pd.DataFrame:
    """Return a row for each claim.

    Returns:
        Columns ``claim`` (and which level is best, where it asks that), ``holds`` (where it should
        hold), ``verdict``, ``cells_hold``, ``cells``, ``weakest_cell``, ``what`` (which difference
        there), ``effect``, ``low`` and ``high`` (its mean and paired-t interval, nats per
        character, whose ends are those of the one-sided tests: 90 %, more for ``best: any``),
        ``simultaneous_low`` and ``simultaneous_high`` (the same, where the intervals of all
        ``deciding`` differences hold together), ``bca_low`` and ``bca_high`` (95 %, by bootstrap;
        missing with fewer than ten pairs), ``p_supports``, ``p_refutes``, ``p_sign_flip`` (of the
        weakest cell), ``p_normal`` (that the differences are normal, by Shapiro and Wilk),
        ``seeds`` (the fewest pairs of a cell), ``seeds_needed`` and ``seeds_to_refute`` (missing
        where it is unknown, or no number would do), ``lost`` (pairs of which a trial did not
        finish).
    """
    table = pd.DataFrame([_row(conclusion) for conclusion in conclusions])
    whole = dict.fromkeys(["seeds_needed", "seeds_to_refute"], "Int64")
    return table.astype(whole) if len(table) else table


def _row(conclusion: Conclusion) -> dict[str, object]:
    weakest, decision = conclusion.weakest, conclusion.decision
    return {
        "claim": conclusion.statement,
        "holds": conclusion.claim.holds,
        "verdict": conclusion.verdict,
        "cells_hold": conclusion.cells_hold,
        "cells": conclusion.cells,
        "weakest_cell": weakest.cell if weakest else "",
        "what": weakest.what if weakest else "",
        "effect": conclusion.effect.mean,
        "low": conclusion.effect.low,
        "high": conclusion.effect.high,
        "simultaneous_low": conclusion.simultaneous.low,
        "simultaneous_high": conclusion.simultaneous.high,
        "deciding": len(conclusion.basis),
        "bca_low": conclusion.bootstrap.low,
        "bca_high": conclusion.bootstrap.high,
        "p_supports": decision.supports,
        "p_refutes": decision.refutes,
        "p_sign_flip": conclusion.sign_flip,
        "p_normal": decision.noise.p_normal,
        "seeds": conclusion.seeds,
        "seeds_needed": conclusion.needed.to_show,
        "seeds_to_refute": conclusion.needed.to_refute,
        "lost": conclusion.lost,
    }


def contrasts_table(conclusions: Sequence[Conclusion]) -> pd.DataFrame:
    """Return a row for each contrast.

    Returns:
        Columns ``claim_index`` (from 1), ``claim``, ``verdict``, ``favoured`` (which differences
        support the claim: "negative", "positive" or "small"), ``cell``, ``what``, ``n`` (pairs),
        ``mean``, ``low`` and ``high`` (paired-t interval by itself, nats per character), the
        ``confidence`` of that (0.9, more for ``best: any``), ``p_holm`` (that this one alone
        supports the claim, corrected for all of the claim), ``p_equal`` (two one-sided tests that
        it is less than the margin), ``lost``, ``run_ids``.
    """
    rows: list[tuple[object, ...]] = []
    for index, conclusion in enumerate(conclusions, start=1):
        claim, contrasts = conclusion.claim, conclusion.contrasts
        about = (index, conclusion.statement, conclusion.verdict, claim.favoured)
        procedure = conclusion.decision.procedure
        found = procedure.intervals(contrasts, family=conclusion.decision.among)
        equal = p_equal(claim, contrasts, procedure)
        for contrast, interval, p_holm, p_same in zip(
            contrasts, found, conclusion.holm, equal, strict=True
        ):
            bounds = (interval.n, interval.mean, interval.low, interval.high, conclusion.confidence)
            tests = (p_holm, p_same, contrast.lost, " ".join(contrast.run_ids))
            rows.append((*about, contrast.cell, contrast.what, *bounds, *tests))
    return pd.DataFrame(rows, columns=list(CONTRAST_COLUMNS))


def write_conclusions(conclusions: Sequence[Conclusion], folder: Path) -> list[Path]:
    """Write ``conclusions.csv`` and ``contrasts.csv``, with all digits.

    Returns:
        The files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / "conclusions.csv", folder / "contrasts.csv"]
    for path, table in zip(paths, (conclusions_table, contrasts_table), strict=True):
        path.write_bytes(csv_text(table(conclusions)).encode())
    return paths
