"""The saved views as a researcher meets them: MLflow's own page in headless Chromium.

The format of saved views is internal to the UI, so nothing but the page itself can vouch for it.
Screenshots are left in pytest's temporary folder.
"""

import http.client
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from matplotlib.figure import Figure
from mlflow.entities import Metric, Param
from mlflow.tracking import MlflowClient
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from analysis.text.links import artifact_link, artifact_source, run_link
from analysis.trials.mlflow_store import PICTURE
from sweeps.server.ui import UiError, mlflow_ui
from sweeps.tracking.run_contents import USAGE
from sweeps.tracking.views import limit_charts, saved_views, view_link

STEPS = range(0, 5_001, 500)
PE_LOSSES = {"rope": 1.9, "sinpe": 2.1, "randn": 2.3}  # nats, the best of each
COLOURS = {"rope": "#0072b2", "sinpe": "#e69f00", "randn": "#009e73"}
PAGE_LIMIT_MS = 30_000  # the first page takes 3 to 10 s
START_MS = 1_700_000_000_000
CHROMIUM_FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

READ_TABLE = """() => {
  const rows = {};
  for (const cell of document.querySelectorAll('.ag-row .ag-cell')) {
    const row = rows[cell.closest('.ag-row').getAttribute('row-index')] ??= {};
    row[cell.getAttribute('col-id')] = (cell.querySelector('a') ?? cell).innerText.trim();
  }
  return rows;
}"""
READ_CHARTS = """() => [...document.querySelectorAll('.js-plotly-plot')].map(
  plot => plot.data.filter(line => line.mode === 'lines+markers').map(line => [...line.y]))"""
READ_LOOKS = """() => [...document.querySelectorAll('.js-plotly-plot')].map(plot => [
  plot.data.filter(line => line.mode === 'lines+markers').map(line => line.marker.color),
  ...plot.layout.yaxis.range])"""


@dataclass(frozen=True)
class Trial:
    name: str
    params: dict[str, str]
    losses: list[float]  # validation, by step

    def train_losses(self) -> list[float]:
        return [loss - 0.05 for loss in self.losses]


@dataclass(frozen=True)
class Store:
    uri: str
    experiment_id: str
    trials: list[Trial]

    def ranking(self) -> list[Trial]:
        return sorted(self.trials, key=lambda trial: trial.losses[-1])


def make_trial(name: str, best: float, params: dict[str, str]) -> Trial:
    common = {"learning_rate": "0.01", "seed": "1337"}
    return Trial(name, params | common, [best + 2 * 0.5 ** (step / 400) for step in STEPS])


def make_trials() -> list[Trial]:
    trials = [
        make_trial("bigram", 2.49, {"variant": "bigram"}),
        make_trial("factorized d384", 2.48, {"variant": "factorized", "n_embd": "384"}),
    ]
    for pe_type, n_embd, block_size in product(PE_LOSSES, (64, 128, 256), (8, 16, 32, 64)):
        best = PE_LOSSES[pe_type] + 3 / n_embd + 1 / block_size
        params = {"pe_type": pe_type, "n_embd": str(n_embd), "block_size": str(block_size)}
        name = f"{pe_type} d{n_embd} T{block_size}"
        trials.append(make_trial(name, best, {"variant": "attention"} | params))
    return trials


def log_run(
    client: MlflowClient,
    experiment_id: str,
    name: str,
    tags: dict[str, str],
    params: dict[str, str],
    metrics: dict[str, list[float]],
    status: str = "FINISHED",
) -> str:
    run_id: str = client.create_run(
        experiment_id, start_time=START_MS, run_name=name, tags=tags
    ).info.run_id
    client.log_batch(
        run_id,
        params=[Param(*param) for param in params.items()],
        metrics=[
            Metric(key, value, START_MS + step, step)
            for key, values in metrics.items()
            for step, value in zip(STEPS, values, strict=False)
        ],
    )
    client.set_terminated(run_id, status, end_time=START_MS + 60_000)
    return run_id


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """One experiment: 38 trials, and others not to be shown, most of them with a lower loss."""
    folder = tmp_path_factory.mktemp("store")
    store_uri = f"sqlite:///{folder}/mlflow.db"
    client = MlflowClient(store_uri)
    experiment = client.create_experiment("study", artifact_location=str(folder / "artifacts"))
    low = {"val_loss": [0.01], "train_loss": [0.01]}
    parent = log_run(client, experiment, "sweep", {"role": "sweep"}, {}, low)
    tags = {"role": "trial", "sweep": "study", "mlflow.parentRunId": parent}
    trials = make_trials()
    for trial in trials:
        metrics = {"train_loss": trial.train_losses(), "val_loss": trial.losses}
        best = {"best_val_loss": [min(trial.losses)], "steps_per_s": [1000.0]}
        colour = COLOURS.get(trial.params.get("pe_type", ""), "#666666")
        key = {"key": trial.name, "stage": "search", "mlflow.runColor": colour}
        run_id = log_run(client, experiment, trial.name, tags | key, trial.params, metrics | best)
    client.log_text(run_id, "To be, or not to be", "sample.txt")
    failed = {"variant": "attention", "pe_type": "rope"}
    log_run(client, experiment, "failed at once", tags | {"key": "a"}, failed, {}, "FAILED")
    log_run(client, experiment, "failed late", tags | {"key": "b"}, failed, low, "FAILED")
    log_run(client, experiment, "other sweep", tags | {"sweep": "other"}, failed, low)
    params = ["pe_type", "n_embd", "block_size"]
    losses = [trial.losses[-1] for trial in trials]
    for name, value in saved_views(params, ["stage"], sweep="study").items():
        client.set_experiment_tag(experiment, name, limit_charts(value, losses))
    return Store(store_uri, experiment, trials)


@pytest.fixture(scope="module")
def base_url(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with mlflow_ui(store.uri, log_file=tmp_path_factory.mktemp("ui") / "logs" / "ui.log") as url:
        port = urlsplit(url).port
        assert len(processes_with(f"--port {port}")) == 2  # the command and its one worker
        yield url
    assert processes_with(f"--port {port}") == []


def processes_with(words: str) -> list[str]:
    listing = subprocess.run(["ps", "-ewwo", "args"], capture_output=True, text=True, check=True)
    return [line for line in listing.stdout.splitlines() if words in line]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    executable = shutil.which("chromium")
    if executable is None and os.environ.get("CI"):
        pytest.fail("chromium is not installed")
    if executable is None:
        pytest.skip("chromium is not installed")
    expect.set_options(timeout=PAGE_LIMIT_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=CHROMIUM_FLAGS)
        yield browser
        browser.close()


def open_context(browser: Browser, base_url: str) -> Iterator[BrowserContext]:
    """A fresh profile; its pages must need nothing from outside this machine."""
    context = browser.new_context(viewport={"width": 1600, "height": 1000})
    context.set_default_timeout(PAGE_LIMIT_MS)
    hosts: set[str] = set()
    context.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
    yield context
    context.close()
    assert hosts <= {urlsplit(base_url).netloc, ""}  # data: and blob: have no host


@pytest.fixture
def first_visit(browser: Browser, base_url: str) -> Iterator[BrowserContext]:
    """MLflow's assistant panel opens by itself, and stays away once closed."""
    yield from open_context(browser, base_url)


@pytest.fixture(scope="module")
def later_visit(browser: Browser, base_url: str) -> Iterator[BrowserContext]:
    for context in open_context(browser, base_url):
        seen = "localStorage['mlflow.assistant.fab.autoOpenedOnFirstLoad_v1'] = 'true'"
        context.add_init_script(seen)
        yield context


def read_table(page: Page) -> list[dict[str, str]]:
    rows: dict[str, dict[str, str]] = page.evaluate(READ_TABLE)
    return [rows[index] for index in sorted(rows, key=int)]


def read_charts(page: Page, lines: int) -> Any:
    """The y values of each line of the two charts, lowest end first, once all are drawn."""
    page.wait_for_function(
        f"() => {{ const charts = ({READ_CHARTS})();"
        f" return charts.length === 2 && charts.every(lines =>"
        f" lines.length === {lines} && lines.every(line => line.length === {len(STEPS)})) }}"
    )
    return [sorted(chart, key=lambda line: line[-1]) for chart in page.evaluate(READ_CHARTS)]


def headers_in_view(page: Page) -> list[str]:
    """The columns, left to right, that are whole on the screen; not the pinned ones."""
    viewport = page.locator(".ag-header-viewport").bounding_box()
    assert viewport is not None
    shown = []
    for header in page.locator(".ag-header-viewport .ag-header-cell").all():
        box = header.bounding_box()
        if box is not None and box["x"] + box["width"] <= viewport["x"] + viewport["width"] + 1:
            shown.append((box["x"], header.inner_text().strip()))
    return [name for _, name in sorted(shown)]


@pytest.mark.browser
def test_the_ranking_link_opens_on_the_trials_by_val_loss(
    store: Store, base_url: str, first_visit: BrowserContext, tmp_path: Path
) -> None:
    page = first_visit.new_page()
    page.goto(view_link(base_url, store.experiment_id, "ranking"))
    expect(page.get_by_text("38 matching runs")).to_be_visible()  # no parent, no failures
    page.wait_for_function(
        f"() => {{ const rows = Object.values(({READ_TABLE})());"
        " return rows.length >= 15 && rows.every(row =>"
        " 'attributes.`Run Name`' in row && 'metrics.`val_loss`' in row) }"
    )
    rows = read_table(page)
    assistant = page.get_by_text("Ask questions about your experiments")
    expect(assistant).to_be_visible()

    columns = ["pe_type", "n_embd", "block_size", "val_loss", "best_val_loss"]
    assert headers_in_view(page)[: len(columns)] == columns
    page.screenshot(path=tmp_path / "ranking-first-visit.png")
    page.get_by_role("button", name="Close").first.click()
    expect(assistant).to_be_hidden()
    page.screenshot(path=tmp_path / "ranking.png")

    expected = store.ranking()[: len(rows)]
    assert len(rows) >= 15
    assert [row["attributes.`Run Name`"] for row in rows] == [trial.name for trial in expected]
    losses = [float(row["metrics.`val_loss`"]) for row in rows]
    assert losses == pytest.approx([trial.losses[-1] for trial in expected])
    assert rows[0]["params.`pe_type`"] == "rope"
    assert rows[0]["params.`n_embd`"] == "256"
    assert rows[0]["params.`block_size`"] == "64"


@pytest.mark.browser
def test_the_curves_link_opens_on_a_line_for_each_trial(
    store: Store, base_url: str, later_visit: BrowserContext, tmp_path: Path
) -> None:
    page = later_visit.new_page()
    page.goto(view_link(base_url, store.experiment_id, "curves"))
    val_losses, train_losses = read_charts(page, lines=38)
    page.screenshot(path=tmp_path / "curves.png")

    ranking = store.ranking()
    # The UI smooths by default, and shows ten runs.
    assert val_losses == [pytest.approx(trial.losses) for trial in ranking]
    assert train_losses == [pytest.approx(trial.train_losses()) for trial in ranking]
    for colours, low, high in page.evaluate(READ_LOOKS):
        assert [colours.count(colour) for colour in COLOURS.values()] == [12, 12, 12]
        assert colours.count("#666666") == 2
        assert 1.5 < 10**low < ranking[0].losses[-1]
        assert ranking[-1].losses[-1] < 10**high < ranking[-1].losses[0], "not where they began"


@pytest.mark.browser
def test_an_artifact_in_a_local_folder_is_shown_and_what_a_trial_took_has_its_own_page(
    store: Store, base_url: str, later_visit: BrowserContext
) -> None:
    client = MlflowClient(store.uri)
    name = store.trials[-1].name
    [run] = client.search_runs([store.experiment_id], f"attributes.run_name = '{name}'")
    page = later_visit.new_page()
    page.goto(f"{base_url}/{artifact_link(store.experiment_id, run.info.run_id, 'sample.txt')}")
    expect(page.get_by_text("To be, or not to be")).to_be_visible()
    client.log_metric(run.info.run_id, USAGE.format("process_gpu"), 1.0)
    page.reload()
    page.get_by_role("tab", name="System metrics").click()
    expect(page.get_by_text("process_gpu", exact=True)).to_be_visible()


@pytest.mark.browser
def test_the_page_of_a_sweep_shows_its_picture(
    store: Store, base_url: str, later_visit: BrowserContext, tmp_path: Path
) -> None:
    client = MlflowClient(store.uri)
    [run] = client.search_runs([store.experiment_id], "tags.role = 'sweep'")
    run_id = run.info.run_id
    picture = tmp_path / PICTURE
    Figure(figsize=(7.2, 4)).savefig(picture, dpi=78)
    client.log_artifact(run_id, str(picture))
    note = f"first\n\n![val_loss]({artifact_source(run_id, PICTURE)})"
    client.set_tag(run_id, "mlflow.note.content", note)
    page = later_visit.new_page()
    page.goto(f"{base_url}/{run_link(store.experiment_id, run_id)}")
    expect(page.get_by_text("first", exact=True)).to_be_visible()
    page.get_by_text("Show more").click()
    page.wait_for_function(
        "() => [...document.images].some(each => each.complete && each.naturalWidth === 561)"
    )
    page.screenshot(path=tmp_path / "sweep.png")


@pytest.mark.parametrize(("host", "status"), [("localhost", 200), ("study.example.com", 403)])
def test_the_server_answers_to_names_of_this_machine_only(
    base_url: str, host: str, status: int
) -> None:
    port = urlsplit(base_url).port
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/", headers={"Host": f"{host}:{port}"})
    assert connection.getresponse().status == status
    connection.close()


def test_a_taken_port_is_refused_before_a_server_starts(base_url: str, tmp_path: Path) -> None:
    port = urlsplit(base_url).port
    log_file = tmp_path / "ui.log"
    with (
        pytest.raises(UiError, match=rf"127\.0\.0\.1:{port} \(Address already in use\)"),
        mlflow_ui("sqlite://", log_file=log_file, port=port),
    ):
        pass
    assert not log_file.exists()


def test_a_server_that_cannot_open_its_store_says_why(tmp_path: Path) -> None:
    with (
        pytest.raises(
            UiError, match=r"(?s)ended at its start.*ui\.log.*unsupported URI 'odd://db'"
        ),
        mlflow_ui("odd://db", log_file=tmp_path / "ui.log"),
    ):
        pass
