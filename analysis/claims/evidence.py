"""How the evidence for and against claims grew, seed by seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from analysis.claims.conclusions import Conclusion, conclude
from analysis.claims.contrast import Contrast
from analysis.claims.decisions import verdict_of

EVIDENCE_COLUMNS = (
    *("claim_index", "claim", "seeds", "trials", "e_supports", "e_refutes", "verdict", "error"),
)  # fmt: skip


def evidence_table(conclusions: Sequence[Conclusion]) -> pd.DataFrame:
    """Return a row for each claim and number of seeds.

    Returns:
        Columns ``claim_index`` (from 1), ``claim``, ``seeds`` (of each configuration, at most),
        ``trials`` (that the claim compares, so far), ``e_supports`` and ``e_refutes`` (the largest
        e-values so far for the claim and against it, at least 1; divided by the number of claims
        where these are corrected), ``verdict`` then, and ``error``: a verdict needs an e-value
        above 1 / error. No rows for verdicts that hold for one look only.
    """
    rows: list[tuple[object, ...]] = []
    for index, conclusion in enumerate(conclusions, start=1):
        if not conclusion.is_anytime or not conclusion.contrasts:
            continue
        procedure = conclusion.decision.procedure
        most = max(len(contrast.seeds) for contrast in conclusion.every_contrast)
        for seeds in range(1, most + 1):
            cut = [_first(contrast, seeds) for contrast in conclusion.every_contrast]
            then = conclude(conclusion.claim, cut, procedure).decision
            supports, refutes = (
                min(1.0, conclusion.corrected_for * p) for p in (then.supports, then.refutes)
            )
            trials = {run_id for contrast in cut for run_id in contrast.run_ids}
            verdict = verdict_of(supports, refutes, procedure.error)
            about = (index, conclusion.statement, seeds, len(trials))
            rows.append((*about, 1 / supports, 1 / refutes, verdict, procedure.error))
    return pd.DataFrame(rows, columns=list(EVIDENCE_COLUMNS))


def _first(contrast: Contrast, seeds: int) -> Contrast:
    """Return a contrast with its first pairs."""
    return replace(contrast, before_missing=min(seeds, len(contrast.seeds))).leading()
