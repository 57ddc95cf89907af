"""Addresses of MLflow's pages, for a page of the same UI."""

from __future__ import annotations

from urllib.parse import quote, urlencode

WORKFLOW = {"workflowType": "machine_learning"}  # else a fresh browser shows pages for agents


def run_link(experiment_id: str, run_id: str, page: str = "") -> str:
    """Return the address of a run."""
    experiment, run = quote(experiment_id, safe=""), quote(run_id, safe="")
    return f"#/experiments/{experiment}/runs/{run}{page}?{urlencode(WORKFLOW)}"


def artifact_link(experiment_id: str, run_id: str, artifact: str) -> str:
    """Return the address of an artifact's preview."""
    return run_link(experiment_id, run_id, f"/artifacts/{quote(artifact)}")


def artifact_source(run_id: str, artifact: str) -> str:
    """Return the address of an artifact itself, as the source of an image."""
    return f"get-artifact?{urlencode({'path': artifact, 'run_uuid': run_id})}"
