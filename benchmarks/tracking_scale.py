"""A sweep of 10,000 trials in MLflow: the time to deliver, to rank and to show it.

    python -m benchmarks.tracking_scale [--trials 10000] [--stores postgresql sqlite]

The trials are made up; the outbox, the delivery and the store are real. There are no weights and
samples to send. The stores are PostgreSQL behind the MLflow server with passwords,
as their containers start them, and the sqlite file of a local run. On each,
`analysis rankings` runs three times in a new process, and headless Chromium with an empty cache
opens the ranking of `sweeps ui` three times, until the best trial's loss is on the page. The page
of sqlite is also measured without the statistics of ANALYZE.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from unittest.mock import patch

from playwright.sync_api import Browser, sync_playwright

from benchmarks.analysis_scale import measure
from benchmarks.delivery import SWEEP, FilledOutbox, deliver, fill
from sweeps.records.state import State
from sweeps.server.ui import mlflow_ui
from sweeps.tracking.store import mlflow_client, sweep_experiments
from sweeps.tracking.views import view_link
from tests.docker.running import mlflow_server, postgres, secret_file

PASSWORD = "of this benchmark only"
TIMES = 3
PAGE_LIMIT_MS = 120_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--stores", nargs="+", choices=STORES, default=list(STORES))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as playwright:
        folder = Path(temporary)
        filled = fill(folder, given.trials)
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        print(f"| {filled.trials} trials | median (least to most), s |\n|---|---|")
        for store in given.stores:
            for what, seconds in STORES[store](browser, filled, State(folder / store)):
                low, high = min(seconds), max(seconds)
                spread = f" ({low:.1f} to {high:.1f})" if len(seconds) > 1 else ""
                print(f"| {what} | {statistics.median(seconds):.1f}{spread} |", flush=True)
        browser.close()


def in_service(
    browser: Browser, filled: FilledOutbox, state: State
) -> Iterator[tuple[str, list[float]]]:
    """Yield the measurements of PostgreSQL, the store of a cluster."""
    with service(state.root) as url:
        yield "delivery to PostgreSQL", [deliver(url, filled, state)]
        yield "rankings, PostgreSQL", rankings(url, state)
        yield "page, PostgreSQL", page(browser, url, url, filled)


def in_file(
    browser: Browser, filled: FilledOutbox, state: State
) -> Iterator[tuple[str, list[float]]]:
    """Yield the measurements of sqlite, the store of a local run."""
    uri, log_file = state.tracking_uri, state.root / "ui.log"
    yield "delivery to sqlite", [deliver(uri, filled, state)]
    yield "rankings, sqlite", rankings(uri, state)
    with patch("sweeps.server.ui.analyze"), mlflow_ui(uri, log_file=log_file) as url:
        yield "page, sqlite without ANALYZE", page(browser, url, uri, filled)
    with mlflow_ui(uri, log_file=log_file) as url:
        yield "page, sqlite", page(browser, url, uri, filled)


STORES = {"postgresql": in_service, "sqlite": in_file}


@contextmanager
def service(folder: Path) -> Iterator[str]:
    """Context manager: PostgreSQL and the MLflow server as in their containers; gives its URL."""
    login = {"MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_TRACKING_PASSWORD": PASSWORD}
    with postgres(is_safe=True) as database:
        environment = {
            "MLFLOW_BACKEND_STORE_URI": database.create("mlflow"),
            "MLFLOW_DATABASE_PASSWORD_FILE": secret_file(folder, "database", database.password),
            "MLFLOW_ADMIN_PASSWORD_FILE": secret_file(folder, "admin", PASSWORD),
            "MLFLOW_SECRET_KEY_FILE": secret_file(folder, "key"),
        }
        with mlflow_server(folder, environment) as url, patch.dict(os.environ, login):
            yield url


def rankings(uri: str, state: State) -> list[float]:
    arguments = ("rankings", SWEEP, "--tracking-uri", uri, "--state", str(state.root))
    return [measure(*arguments)[0] for _ in range(TIMES)]


def page(browser: Browser, base_url: str, uri: str, filled: FilledOutbox) -> list[float]:
    (experiment_id,) = sweep_experiments(mlflow_client(uri), SWEEP).values()
    link = view_link(base_url, experiment_id, "ranking")
    return [open_page(browser, link, filled.best) for _ in range(TIMES)]


def open_page(browser: Browser, link: str, best: float) -> float:
    """Return the seconds until the ranking shows its first loss, which must be the best."""
    with closing(
        browser.new_context(http_credentials={"username": "admin", "password": PASSWORD})
    ) as context:
        shown = context.new_page()
        losses = shown.locator(".ag-row[row-index='0'] [col-id='metrics.`val_loss`']")
        first = losses.filter(has_text=re.compile(r"\d"))
        started = time.perf_counter()
        shown.goto(link)
        first.wait_for(timeout=PAGE_LIMIT_MS)
        seconds = time.perf_counter() - started
        if not math.isclose(float(first.inner_text()), best, abs_tol=1e-3):
            raise SystemExit(f"the page begins with {first.inner_text()}; the best is {best}")
        return seconds


if __name__ == "__main__":
    main()
