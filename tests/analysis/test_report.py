"""The report, its command, and the comparison with the published numbers."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from analysis import check_claims, load_trials, rankings, tables, trials_of
from analysis.command import main
from analysis.reports.claim_texts import Link, claim_section, weakest_runs
from analysis.reports.report import Evidence, report
from analysis.reports.verdicts import verdicts_on
from analysis.results.published import PUBLISHED, comparison
from analysis.text.document import Figure, Report
from analysis.trials.loading import load_curves
from analysis.trials.table import Trials

SPREAD = 0.004  # nats, about that of the study's seeds


@pytest.fixture(scope="module")
def replicated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The published losses with made-up seeds, and one trial that failed."""
    table = pd.read_csv(PUBLISHED)
    chance = np.random.default_rng(3)
    rows = []
    for seed in range(1, 6):
        for row in table.to_dict("records"):
            loss = row["val_loss"] + chance.normal(0, SPREAD)
            rows.append({**row, "seed": seed, "val_loss": loss, "corpus": "tinyshakespeare"})
    rows[1] |= {"status": "FAILED", "failure": "diverged <script>alert(1)</script> | at step 7"}
    path = tmp_path_factory.mktemp("table") / "replicated.csv"
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


def evidence(path: Path) -> Evidence:
    trials = load_trials(str(path))
    found = verdicts_on(trials, "")
    curves, on_text = load_curves(trials), found.on_text
    return Evidence(trials, tables(trials), curves, found.conclusions, "", found.valid, on_text)


@pytest.fixture(scope="module")
def folder(replicated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `analysis report` wrote."""
    state = tmp_path_factory.mktemp("state")
    done = invoke("report", replicated, "--state", state)
    assert done.exit_code == 0, done.output
    folder = state / "reports" / "replicated"
    assert done.output.split() == [str(folder / "report.html"), str(folder / "report.md")]
    return folder


@pytest.fixture(scope="module")
def text(folder: Path) -> str:
    return (folder / "report.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    return (folder / "report.html").read_text(encoding="utf-8")


def invoke(*arguments: Any) -> Any:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


class Page(HTMLParser):
    """What a page refers to, and which elements it has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.elements: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]


def test_the_page_needs_no_other_file(page: str) -> None:
    found = Page(page)
    inside = [address for address in found.addresses if not address.startswith("#section-")]
    assert len(inside) >= 9
    assert all(address.startswith("data:image/svg+xml;base64,") for address in inside)
    assert not {"script", "link", "iframe"} & set(found.elements)


def test_a_report_begins_with_what_the_sweep_is_about_and_its_best(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text("n_embd,seed,val_loss\n8,1,1.0\n8,2,1.5\n16,1,2.0\n")
    trials = load_trials(str(table))
    tags = {
        "description": "<b>one\n\n# two",
        "mlflow.note.content": "[ranking](#/experiments/1) ![val_loss](get-artifact?path=a)",
        "status": "FINISHED",
    }
    trials = replace(trials, sweep=tags)
    told = report(Evidence(trials, tables(trials), load_curves(replace(trials, sweep={})), []))
    begin = told.text.partition("## Rankings")[0]
    assert "# Sweep table\n\n&lt;b>one\n\n\\# two\n\n3 trials" in begin
    assert (
        "Lowest val_loss: **1.2500** nats per character (mean over 2 seeds) with n_embd=8." in begin
    )
    assert all(each.startswith(("#section-", "data:")) for each in Page(told.html).addresses)


def test_what_a_run_says_is_shown_and_not_obeyed(page: str) -> None:
    assert "&lt;script&gt;alert(1)&lt;/script&gt; | at step 7" in page


def test_the_same_runs_give_the_same_bytes(folder: Path, replicated: Path, tmp_path: Path) -> None:
    report(evidence(replicated)).write(tmp_path)
    files = [path.relative_to(tmp_path) for path in tmp_path.rglob("*.*")]
    assert len(files) >= 20
    for file in files:
        assert (tmp_path / file).read_bytes() == (folder / file).read_bytes()


def test_the_report_has_its_parts_in_order(text: str) -> None:
    titles = re.findall(r"^## (.*)$", text, flags=re.MULTILINE)
    assert titles == [
        "Conclusions",
        "Rankings",
        "Figures",
        "Against the published numbers",
        "Not counted in the conclusions",
        "Provenance",
        "Caveats",
        "Methods",
    ]
    counts = "190 trials (1 FAILED, 189 FINISHED) of 38 configurations. Seeds: 1, 2, 3, 4, 5."
    assert counts in text
    assert "FAILED: diverged" in text
    assert "Pairs with a trial that is missing or did not finish: 1;" in text
    assert "corpus=tinyshakespeare" in text.partition("## Caveats")[2]


def test_figures_in_the_text_are_beside_it(text: str, folder: Path) -> None:
    named = set(re.findall(r"\(figures/(.*?)\.svg\)", text))
    assert {"heatmap", "loss_by_block_size", "differences_3"} <= named
    assert named == {path.stem for path in (folder / "figures").glob("*.png")}
    for svg in (folder / "figures").glob("*.svg"):
        ElementTree.parse(svg)


def test_the_tables_are_beside_it(folder: Path) -> None:
    for name in ("ranking.csv", "by_n_embd.md", "conclusions.csv", "contrasts.csv"):
        assert (folder / name).stat().st_size > 100


def test_one_run_a_cell_is_said_to_support_nothing() -> None:
    text = report(evidence(PUBLISHED)).text
    assert "There is one run for each configuration." in text
    assert "35/36" in text
    assert text.count("**UNDERPOWERED**") == 2 * 7
    assert "SUPPORTED**" not in text
    assert "Seeds: not given." in text


def test_published_losses_are_held_against_the_spread_of_seeds() -> None:
    def trial(number: int, loss: float, **params: Any) -> dict[str, Any]:
        return {
            "run_id": f"r{number}", "status": "FINISHED", "stage": "", "stopped": "",
            "corpus": "tinyshakespeare", "max_steps": 5000, "block_size": 8, "pe_type": None,
            "n_embd": None, "seed": number, "val_loss": loss, **params,
        }  # fmt: skip

    rows = [trial(i, loss, variant="bigram") for i, loss in enumerate((2.480, 2.484, 2.488))]
    rows += [
        trial(3, 2.300, variant="factorized", n_embd=384),
        trial(4, 2.302, variant="factorized", n_embd=384),
        trial(5, 2.0, variant="factorized", n_embd=32),  # was not published
        trial(6, 1.0, variant="bigram", max_steps=100),  # another protocol
    ]
    table = comparison(Trials("study", pd.DataFrame(rows), ("variant",)))
    bigram, factorized = table.to_dict("records")
    assert (bigram["n"], bigram["published"], bigram["within"]) == (3, 2.48322, True)
    assert bigram["difference"] == pytest.approx(2.484 - 2.48322)
    half = 4.302653 * 0.004 * (1 + 1 / 3) ** 0.5  # t(0.975, 2), standard deviation
    assert (bigram["low"], bigram["high"]) == pytest.approx((2.484 - half, 2.484 + half))
    assert (factorized["n"], factorized["within"]) == (2, False)


def test_conclusions_exit_with_0_only_if_every_claim_is_supported(
    replicated: Path, tmp_path: Path
) -> None:
    claims = tmp_path / "claims.yaml"
    rope = "{claim: rope is best, where: {variant: attention}, factor: pe_type, best: rope}"
    claims.write_text(f"claims: [{rope}]")
    done = invoke("conclusions", replicated, "--claims", claims, "--out", tmp_path)
    assert (done.exit_code, done.output.split()[0]) == (0, "SUPPORTED")
    assert len(pd.read_csv(tmp_path / "contrasts.csv")) == 24
    claims.write_text(f"claims: [{rope.replace('rope', 'sinpe')}]")
    done = invoke("conclusions", replicated, "--claims", claims, "--out", tmp_path)
    assert (done.exit_code, done.output[:13]) == (1, "NOT SUPPORTED")
    done = invoke("conclusions", PUBLISHED, "--out", tmp_path)
    assert done.exit_code == 1
    assert "There is one run for each configuration" in done.output
    assert done.output.count("UNDERPOWERED ") == 7


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["report", "absent.csv"], "absent.csv cannot be read"),
        (["conclusions", "absent", "--state", "nowhere"], "no MLflow store at"),
        (["conclusions", PUBLISHED, "--claims", "absent.yaml"], "absent.yaml: cannot be read"),
        (["rankings", PUBLISHED, "--by", "depth"], "'depth' does not differ"),
        (
            ["rankings", PUBLISHED, "--out", PUBLISHED],
            "published_results.csv' cannot be used: it is not a folder",
        ),
        (["rankings", "x", "--tracking-uri", "sqlite:////absent/a.db"], "no MLflow store at /abs"),
    ],
)
def test_a_wrong_request_is_refused(
    arguments: list[Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = invoke(*arguments)
    assert (done.exit_code, message in done.output) == (2, True), done.output
    assert "Traceback" not in done.output


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("seed,val_loss\ns0,1.0", "row 2: seed 's0' is no whole number"),
        ("seed,val_loss\n0.5,1.0", "row 2: seed '0.5' is no whole number"),
        ("seed,val_loss\n,1.0\n1,2.0", "row 2: seed '' is no whole number"),
        (
            "n_embd,seed,val_loss\n8,1,1.0\n8,1,2.0",
            "row 3 has the settings and the seed of another",
        ),
        ("n_embd,seed,val_loss\n8,1,nan\n8,2,", "no val_loss"),
        ("n_embd,status,val_loss\n8,FAILED,1.0", "no trial of 'table' is finished"),
    ],
)
def test_a_table_that_cannot_be_is_refused(rows: str, message: str, tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text(rows + "\n")
    done = invoke("report", table, "--out", tmp_path)
    assert (done.exit_code, message in done.output) == (2, True), done.output


def test_a_loss_that_is_no_number_is_left_out(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text("n_embd,seed,val_loss\n8,1,1.0\n8,2,inf\n16,1,2.0\n16,2,2.1\n")
    trials = load_trials(str(table))
    assert list(rankings(trials)["n"]) == [1, 2]
    assert list(trials.left_out["why"]) == ["val_loss is inf"]
    assert invoke("report", table, "--out", tmp_path / "out").exit_code == 0


def test_settings_may_have_the_names_of_columns(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text("n,rank,loss,a/b,val_loss\n1,2,3,4,1.0\n1,2,3,5,2.0\n2,2,4,4,3.0\n")
    assert load_trials(str(table)).settings == ("a/b", "loss", "n_setting")
    done = invoke("report", table, "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "out" / "by_a_b.csv").exists()


def test_a_table_without_losses_or_claims_that_do_not_apply_are_refused(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text("n_embd,loss\n8,1.0\n")
    assert "no val_loss" in invoke("rankings", table).output
    table.write_text("n_embd,val_loss\n8,1.0\n16,2.0\n")
    done = invoke("conclusions", table, "--out", tmp_path)
    assert (done.exit_code, "write your own" in done.output) == (2, True)
    assert invoke("report", table, "--out", tmp_path).exit_code == 0


def test_links_lead_to_the_pages_of_runs_where_there_is_a_server(replicated: Path) -> None:
    conclusion = evidence(replicated).conclusions[2]
    page = r"\]\(http://localhost:5000/\?workflowType=machine_learning#/experiments/7/runs/row"
    served = claim_section(1, conclusion, Link("http://localhost:5000/", "7"), 60)
    assert len(re.findall(page, served)) == 10  # two configurations, five seeds
    assert "`row " in claim_section(1, conclusion, Link("sqlite:///x", "7"), 60)


def test_of_many_runs_few_are_named_and_a_file_has_the_others(
    replicated: Path, tmp_path: Path
) -> None:
    claims = tmp_path / "claims.yaml"
    rope = "{claim: rope is best, where: {variant: attention}, factor: pe_type, best: rope}"
    claims.write_text(f"claims: [{rope}]")
    shown = invoke("conclusions", replicated, "--claims", claims, "--out", tmp_path).output
    assert len(re.findall(r"^ +row \d+$", shown, flags=re.MULTILINE)) == 4
    assert f"{'':13} and 6 more, which contrasts.csv names\n" in shown
    in_file = pd.read_csv(tmp_path / "contrasts.csv")["run_ids"]
    assert all(run in " ".join(in_file) for run in re.findall(r"^ +(row \d+)$", shown, re.M))
    (found,) = check_claims(load_trials(str(replicated)), claims)
    assert len(weakest_runs(found, str, 10)) == 10
    assert weakest_runs(found, str, 9)[-1] == "and 1 more, which contrasts.csv names"


def test_what_is_seen_is_said_plainly(tmp_path: Path) -> None:
    shown = invoke("conclusions", PUBLISHED, "--out", tmp_path).output
    for said in (
        "The mean differences agree with the comparison in 35 of 36 cells.",
        "The weakest difference is bigram - factorized: -0.02664 nats per character, one seed.",
        "One seed tells nothing about the spread between seeds; train at least two.",
    ):
        assert said in shown


def test_a_report_shows_its_figures_inside_the_page() -> None:
    figure = Figure("a-figure_1", "what it shows", b"<svg/>", b"png")
    made = Report("A & B", f"# T\n\n{figure.markdown}", {"a-figure_1": figure})
    assert "<title>A &amp; B</title>" in made.html
    assert 'src="data:image/svg+xml;base64,PHN2Zy8+"' in made.html


def test_no_trials_is_an_error_of_its_own() -> None:
    with pytest.raises(ValueError, match="has no trials"):
        trials_of("study", iter([]))
