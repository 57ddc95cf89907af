"""The published study, and how far our losses are from it."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from analysis.statistics import prediction_interval
from analysis.trials.loading import load_trials
from analysis.trials.table import Trials

PUBLISHED = Path(__file__).parents[1] / "published_results.csv"
FACTORS = ("variant", "pe_type", "n_embd", "block_size")
PROTOCOL = {  # of the study, as params of a trial show it
    "corpus": "tinyshakespeare",
    "batch_size": "64",
    "learning_rate": "0.01",
    "max_steps": "5000",
    "schedule": "constant",
    "warmup_steps": "0",
    "precision": "float32",
}
CONTEXT_FREE = ("bigram", "factorized")  # the study does not say their block_size: it is idle


def comparison(trials: Trials) -> pd.DataFrame:
    """Compare the published losses with the same configurations of ours.

    Returns:
        One row for each configuration, best published first: ``variant``, ``pe_type``, ``n_embd``,
        ``block_size``, ``published`` (val_loss, nats per character), ``n``, ``val_loss``,
        ``difference`` (ours less theirs), ``low`` and ``high``: where a single further run of ours
        would lie with 95 % probability; ``within``: whether the published one does (missing with
        one seed). Empty where nothing is comparable, as with losses that are measured differently.
    """
    if "evaluation" in trials.varying:
        return pd.DataFrame()
    whole = _as_published(trials)
    rows = []
    for published in load_trials(str(PUBLISHED)).table.to_dict("records"):
        same = whole
        for name in FACTORS:
            idle = name == "block_size" and published["variant"] in CONTEXT_FREE
            if not idle and pd.notna(published[name]):
                same = same[same[name] == published[name]] if name in same else same[:0]
        if len(same):
            factors = {name: published[name] for name in FACTORS}
            rows.append({**factors, **_beside(float(published["val_loss"]), same["val_loss"])})
    table = pd.DataFrame(rows)
    if rows:
        table = table.astype({"n_embd": "Int64", "block_size": "Int64"})
        table = table.sort_values("published", ignore_index=True)
    return table


def _as_published(trials: Trials) -> pd.DataFrame:
    """Return the comparable trials that follow the protocol of the study, as far as is known."""
    rows = trials.table
    for name, value in PROTOCOL.items():
        if name in rows:
            rows = rows[rows[name].astype(str) == value]
    return rows[rows.index.isin(trials.comparable.index)]


def _beside(published: float, losses: pd.Series) -> dict[str, object]:
    """Compare a published loss with ours, of one configuration."""
    found = prediction_interval(losses)
    is_within = bool(found.low <= published <= found.high)
    return {
        "published": published,
        "n": len(losses),
        "val_loss": found.mean,
        "difference": found.mean - published,
        "low": found.low,
        "high": found.high,
        "within": is_within if len(losses) > 1 else pd.NA,
    }
