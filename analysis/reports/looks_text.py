"""The looks of a sweep that stopped by its verdicts, in words."""

from __future__ import annotations

import pandas as pd

from analysis.text.document import markdown_table

OPEN = "UNDERPOWERED"  # the verdict on a claim that is not decided


def looks_section(looks: pd.DataFrame) -> list[str]:
    """Return when each claim was decided; nothing without looks.

    Args:
        looks: from `load_looks`.
    """
    if looks.empty:
        return []
    first, last = looks.iloc[0], looks.iloc[-1]
    text = (
        f"The sweep looked at its claims {looks['look'].nunique()} times at which the evidence had"
        f" changed, from {first['time']} with {first['finished']} finished trials to"
        f" {last['time']} with {last['finished']}; looks.csv has the evidence at each.\n"
    )
    rows = [_first_verdict(index, rows) for index, rows in looks.groupby("claim_index", sort=True)]
    return ["### Looks\n", text, markdown_table(pd.DataFrame(rows))]


def _first_verdict(index: object, rows: pd.DataFrame) -> dict[str, object]:
    """Return the first look with a verdict on a claim, or the last one."""
    decided = rows[rows["verdict"] != OPEN]
    row = rows.iloc[-1] if decided.empty else decided.iloc[0]
    return {
        "#": int(float(str(index))),
        "claim": row["claim"],
        "verdict": "open" if decided.empty else row["verdict"],
        "trials": int(row["finished"]),
        "time": row["time"],
        "e-value for it": f"{10 ** row['evidence']:.3g}",
        "against it": f"{10 ** row['evidence_against']:.3g}",
    }
