"""How the sweep's own run shows the claims that it decides, and the evidence at each look."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pandas as pd

from analysis.text.csv_files import csv_text
from analysis.trials.mlflow_store import CLAIMS_HISTORY, LOOKS_TABLE
from sweeps.records.look_log import KnownClaims, Look, LookLog

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

CLAIMS = "claims{}.yaml"  # artifacts: the first claims, then claims-2.yaml if they change, ...
FOR, AGAINST = "evidence/claim {}", "evidence_against/claim {}"  # metrics: log10 of e-values
MOST_METRICS = 1_000  # in one request to MLflow


def send_evidence(client: MlflowClient, run_id: str, log: LookLog) -> None:
    """Send the claims and the looks that the run of a sweep lacks. Raises what MLflow raises."""
    if log.is_sent:
        return
    claims, looks = log.claims(), log.unsent()
    before = client.get_run(run_id).data.tags.get(CLAIMS_HISTORY, "[]")
    history = claims_history(claims, json.loads(before))
    if json.dumps(history) != before:
        texts = {each.sha256: each.text for each in claims}
        for entry in history:
            if (sha256 := entry["sha256"]) in texts:
                client.log_text(run_id, texts[sha256], entry["file"])
        client.set_tag(run_id, CLAIMS_HISTORY, json.dumps(history))
    metrics = [metric for look in looks.values() for metric in _metrics(look)]
    for start in range(0, len(metrics), MOST_METRICS):
        client.log_batch(run_id, metrics[start : start + MOST_METRICS])
    if looks:
        client.log_text(run_id, looks_csv(log.looks()), LOOKS_TABLE)
    log.sent(claims, max(looks, default=0))


def claims_history(
    claims: Sequence[KnownClaims], stored: Sequence[Mapping[str, str | int]]
) -> list[dict[str, str | int]]:
    """Return what is known of all claims that a sweep was run with, as plain data.

    Args:
        claims: that the outbox has.
        stored: what the run has; it stays, whatever the outbox has lost since.

    Returns:
        For each text of claims its ``file`` among the artifacts, its ``sha256``, ``since`` when a
        run first had it, and how many trials were ``finished`` and how many ``looks`` were taken
        before.
    """
    history = [dict(entry) for entry in stored]
    for each in claims:
        if all(entry["sha256"] != each.sha256 for entry in history):
            number = len(history) + 1
            history.append(
                {
                    "file": CLAIMS.format("" if number == 1 else f"-{number}"),
                    "sha256": each.sha256,
                    "since": in_iso(each.since_ms),
                    "finished": each.finished,
                    "looks": each.looks,
                }
            )
    return history


def in_iso(time_ms: int) -> str:
    """Return a time since 1970 in UTC, such as ``2026-11-27T07:30:00+00:00``."""
    return datetime.fromtimestamp(time_ms // 1000, UTC).isoformat()


def looks_csv(looks: Mapping[int, Look]) -> str:
    """Return a CSV table with a row for each claim at each look, with log10 of its e-values."""
    rows = [
        {
            "look": number,
            "time": in_iso(look.time_ms),
            "finished": look.finished,
            "trained_s": round(look.trained_s, 1),
            "claim_index": index,
            "claim": each.claim,
            "verdict": each.verdict,
            "evidence": each.evidence_for,
            "evidence_against": each.evidence_against,
        }
        for number, look in looks.items()
        for index, each in enumerate(look.claims, start=1)
    ]
    return csv_text(pd.DataFrame(rows))


def _metrics(look: Look) -> list[Metric]:
    """Return the metrics of a look; its step is the number of finished trials."""
    from mlflow.entities import Metric

    return [
        Metric(name.format(index), value, look.time_ms, look.finished)
        for index, each in enumerate(look.claims, start=1)
        for name, value in ((FOR, each.evidence_for), (AGAINST, each.evidence_against))
    ]
