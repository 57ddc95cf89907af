"""For which looks and claims verdicts hold, and the looks that a sweep's run keeps."""

from __future__ import annotations

import json
import shutil
from hashlib import sha256
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from mlflow import MlflowClient
from mlflow.entities import Metric

from analysis import AnalysisError, Trials, check_claims, load_trials
from analysis.claims.evidence import evidence_table
from analysis.claims.one_sided import OneSided
from analysis.claims.procedures import FixedNumber
from analysis.command import main
from analysis.figures.report_figures import figures
from analysis.reports.validity_texts import validity
from analysis.trials.loading import load_curves
from analysis.trials.looks import looks_of, looks_with_fewer, record_look
from analysis.trials.mlflow_store import LOOKS_TABLE

REPLICATED = "docs/results/replicated/trials.csv"
FILES = 8  # of claims, all false
WIDE = {"claim": "a wide one is better", "factor": "width", "order": [16, 8]}


class Sweep:
    """A sweep in a real store, of two widths, whose wide one is better by 0.05."""

    def __init__(self, uri: str) -> None:
        self.uri, self.client = uri, MlflowClient(uri)
        self.experiment = self.client.create_experiment("study")
        self.parent = self.add({"role": "sweep"})
        self.seeds = 0

    def add(self, tags: dict[str, str], **params: object) -> str:
        run_id = str(self.client.create_run(self.experiment, tags=tags).info.run_id)
        for name, value in params.items():
            self.client.log_param(run_id, name, value)
        return run_id

    def train(self, seeds: int) -> None:
        """Train this number of further seeds."""
        for _ in range(seeds):
            self.seeds += 1
            for width in (8, 16):
                tags = {"role": "trial", "key": f"{width}-{self.seeds}"}
                run_id = self.add(tags, width=width, seed=self.seeds)
                loss = 2.4 + 0.001 * (self.seeds * 7 % 5) - (0.05 if width == 16 else 0)
                loss += 0.0001 * self.seeds * (width == 16)
                self.client.log_batch(run_id, [Metric("val_loss", loss, 1, 10)])
                self.client.set_terminated(run_id)
        self.client.set_terminated(self.parent)

    def tag(self, **tags: str) -> None:
        for name, value in tags.items():
            self.client.set_tag(self.parent, name, value)

    def load(self) -> Trials:
        return load_trials("study", self.uri)


@pytest.fixture
def sweep(empty_store: Path, tmp_path: Path) -> Sweep:
    return Sweep(f"sqlite:///{shutil.copy(empty_store, tmp_path / 'mlflow.db')}")


@pytest.fixture
def claims(tmp_path: Path) -> Path:
    path = tmp_path / "claims.yaml"
    path.write_text(json.dumps({"claims": [WIDE]}))
    return path


def conclude(sweep: Sweep, claims: Path, out: Path, *options: str) -> tuple[int, str]:
    """Exit code and output of `analysis conclusions`."""
    given = ["conclusions", "study", "--claims", str(claims), "--tracking-uri", sweep.uri]
    found = CliRunner().invoke(main, [*given, "--out", str(out), *options])
    return found.exit_code, found.output


def test_a_second_look_with_more_seeds_is_warned_of(
    sweep: Sweep, claims: Path, tmp_path: Path
) -> None:
    sweep.train(3)
    for _ in range(2):  # to look again at the same is no second look
        code, text = conclude(sweep, claims, tmp_path)
        assert code == 0
        assert "for one look (5 % of sweeps are wrong)" in text
        assert "Warning" not in text
    sweep.train(1)
    _, text = conclude(sweep, claims, tmp_path)
    assert "Warning: this sweep was looked at once before with fewer trials" in text
    assert "with 6 of the 8 that are finished now" in text
    sweep.train(1)
    assert "looked at 2 times before" in conclude(sweep, claims, tmp_path)[1]
    assert [look.trials for look in looks_of(sweep.load())] == [6, 8, 10]


def test_verdicts_of_any_look_leave_no_look(sweep: Sweep, claims: Path, tmp_path: Path) -> None:
    sweep.train(3)
    code, text = conclude(sweep, claims, tmp_path, "--anytime")
    assert code == 0
    assert "These verdicts hold at any look" in text
    assert "The largest e-value so far for the claim is" in text
    assert looks_of(sweep.load()) == []


def test_a_sweep_that_stopped_by_its_verdicts_is_judged_so(
    sweep: Sweep, claims: Path, tmp_path: Path
) -> None:
    sweep.train(2)
    sweep.tag(decide=json.dumps({"error": 0.01}))
    code, text = conclude(sweep, claims, tmp_path)
    assert code == 1, "two pairs do not decide at 1 %"
    assert "wrong in at most 1 % of sweeps" in text
    assert conclude(sweep, claims, tmp_path, "--error", "0.05")[0] == 0
    text = conclude(sweep, claims, tmp_path, "--one-look")[1]
    assert "for one look" in text
    assert "Warning: this sweep chose its numbers of seeds by its verdicts" in text
    for error in ("nan", "0", "0.5", "1e-7"):
        assert conclude(sweep, claims, tmp_path, "--error", error)[0] == 2
    code, text = conclude(sweep, claims, tmp_path, "--one-look", "--error", "0.1")
    assert (code, "add --anytime" in text) == (2, True)


def test_claims_that_were_changed_after_looking_are_told_apart(
    sweep: Sweep, claims: Path, tmp_path: Path
) -> None:
    sweep.train(3)
    stated = {"sha256": sha256(claims.read_bytes()).hexdigest(), "since": "2026-01-02T03:04:05"}
    first = {"file": "claims.yaml", "finished": 0, "looks": 0, **stated}
    sweep.tag(claims_history=json.dumps([first]), decide=json.dumps({"error": 0.05}))
    sweep.client.log_artifact(sweep.parent, str(claims))
    code, text = conclude(sweep, claims, tmp_path)
    assert code == 0
    assert "were stated on 2026-01-02T03:04:05, before the first trial." in text
    given = ["conclusions", "study", "--tracking-uri", sweep.uri, "--out", str(tmp_path)]
    assert "a wide one is better" in CliRunner().invoke(main, given).output, "those it keeps"
    other = tmp_path / "claims-2.yaml"
    other.write_text(json.dumps({"claims": [{**WIDE, "claim": "another one"}]}))
    sweep.client.log_artifact(sweep.parent, str(other))
    second = {**first, "file": "claims-2.yaml", "sha256": "of the second"}
    sweep.tag(claims_history=json.dumps([first, second]))
    assert "another one" in CliRunner().invoke(main, given).output
    sweep.tag(claims_sha256=first["sha256"])  # and back again
    assert "a wide one is better" in CliRunner().invoke(main, given).output
    later = {**first, "finished": 4, "looks": 1}
    sweep.tag(claims_history=json.dumps([{**first, "sha256": "other"}, later]))
    _, text = conclude(sweep, claims, tmp_path)
    assert "Warning: these claims" in text
    assert "when 4 trials were finished and 1 look was taken" in text
    sweep.tag(claims_history=json.dumps([{**first, "sha256": "other"}, {**later, "finished": 0}]))
    assert ", after others of 2026-01-02T03:04:05." in conclude(sweep, claims, tmp_path)[1]
    claims.write_text(json.dumps({"claims": [{**WIDE, "claim": "now it is so"}]}))
    assert "written after looking" in conclude(sweep, claims, tmp_path)[1]


def test_a_report_says_at_which_look_each_claim_was_decided(
    sweep: Sweep, claims: Path, tmp_path: Path
) -> None:
    sweep.train(3)
    stated = {"sha256": "kept", "since": "2026-01-02T03:04:05", "finished": 0, "looks": 0}
    sweep.tag(
        claims_history=json.dumps([{"file": "claims.yaml", **stated}]),
        decide=json.dumps({"error": 0.05}),
    )
    rows = ["look,time,finished,trained_s,claim_index,claim,verdict,evidence,evidence_against"]
    for look, (finished, verdict) in enumerate([(4, "UNDERPOWERED"), (6, "SUPPORTED")], start=1):
        rows.append(f"{look},at {look},{finished},9.5,1,it is so,{verdict},1.5,0")
        rows.append(f"{look},at {look},{finished},9.5,2,it is not,UNDERPOWERED,0.3,0")
    looks = tmp_path / LOOKS_TABLE
    looks.write_text("\n".join(rows) + "\n")
    for file in (claims, looks):
        sweep.client.log_artifact(sweep.parent, str(file))
    given = ["report", "study", "--tracking-uri", sweep.uri, "--out", str(tmp_path / "out")]
    assert CliRunner().invoke(main, given).exit_code == 0
    assert (tmp_path / "out" / LOOKS_TABLE).read_text() == looks.read_text().replace(
        ",0\n", ",0.0\n"
    )
    text = (tmp_path / "out" / "report.md").read_text()
    section = text.partition("### Looks")[2].partition("![")[0]
    assert "2 times at which the evidence had changed, from at 1 with 4 finished" in section
    cells = [[cell.strip() for cell in row.split("|")[1:-1]] for row in section.splitlines()]
    assert ["1", "it is so", "SUPPORTED", "6", "at 2", "31.6", "1"] in cells
    assert ["2", "it is not", "open", "6", "at 2", "2", "1"] in cells
    looks.write_text("look,time\n1,now\n")
    sweep.client.log_artifact(sweep.parent, str(looks))
    again = CliRunner().invoke(main, given)
    assert (again.exit_code, "looks.csv of run" in again.output) == (2, True)


def test_a_tag_that_somebody_changed_is_no_look(sweep: Sweep) -> None:
    sweep.train(2)
    for text in ("[{}]", "no JSON", '{"a": 1}', '[{"time": "x", "trials": "many"}]'):
        sweep.tag(looks=text)
        assert looks_of(sweep.load()) == []
    record_look(sweep.load(), sweep.uri)
    assert len(looks_of(sweep.load())) == 1
    assert looks_with_fewer(sweep.load()) == []


def test_a_table_keeps_no_looks() -> None:
    trials = load_trials(REPLICATED)
    record_look(trials, "")
    assert looks_of(trials) == []


def test_claims_of_a_file_are_counted_or_corrected() -> None:
    trials = load_trials(REPLICATED)
    alone = validity(check_claims(trials), trials)
    assert "Each of the 7 claims is tested by itself" in alone[-1]
    assert "30 % of sweeps would have a SUPPORTED one" in alone[-1], "1 - 0.95^7"
    pe_type = {"claim": "rope is best", "factor": "pe_type", "best": "rope"}
    found = check_claims(trials, {"claims": [pe_type, pe_type], "corrected": True})
    assert "corrected for 2 claims (Holm)" in validity(found, trials)[-1]
    assert len(validity(check_claims(trials, pe_type), trials)) == 1
    assert validity([], trials) == []


def false_files(corrected: bool) -> float:
    """The share of files of ten false claims that have a SUPPORTED one."""
    chance = np.random.default_rng(2)
    count = 0
    claims = [
        {"claim": f"{n}", "factor": "width", "order": [16, 8], "where": {"kind": n}}
        for n in range(10)
    ]
    grid = [(kind, width, seed) for kind in range(10) for width in (8, 16) for seed in range(5)]
    for _ in range(FILES):
        table = pd.DataFrame(grid, columns=["kind", "width", "seed"])
        table["val_loss"] = chance.normal(2.4, 0.01, len(table))
        found = check_claims(table_of(table), {"claims": claims, "corrected": corrected})
        count += any(each.verdict == "SUPPORTED" for each in found)
    return count / FILES


def table_of(table: pd.DataFrame) -> Trials:
    template = load_trials(REPLICATED)
    filled = dict.fromkeys(("stage", "stopped", "study", "failure", "key", "name"), "")
    rows = table.assign(**filled, status="FINISHED", run_id=[str(i) for i in range(len(table))])
    return Trials(template.experiment, rows, ("kind", "width", "seed"))


def test_a_file_of_false_claims_is_seldom_wrong_if_corrected() -> None:
    assert false_files(corrected=False) > 0.15, "1 - 0.95^10 is 0.40"
    assert false_files(corrected=True) < 0.05 + 3 * (0.05 * 0.95 / FILES) ** 0.5


def test_evidence_grows_with_the_trials_and_ends_at_the_verdict() -> None:
    trials = load_trials(REPLICATED)
    conclusions = check_claims(trials, anytime=True)
    table = evidence_table(conclusions)
    assert sorted(table["claim_index"].unique()) == list(range(1, 8))
    for index, rows in table.groupby("claim_index"):
        conclusion = conclusions[int(str(index)) - 1]
        assert rows["seeds"].tolist() == [1, 2, 3, 4, 5]
        assert rows["trials"].is_monotonic_increasing
        assert rows["e_supports"].is_monotonic_increasing
        last = rows.iloc[-1]
        assert last["e_supports"] == pytest.approx(1 / conclusion.decision.supports)
        assert last["verdict"] == conclusion.verdict
    assert evidence_table(check_claims(trials)).empty
    drawn = figures(trials, load_curves(trials), pd.DataFrame(), table)["evidence"]
    assert "Decided: 3 of 7" in drawn.shows


ORDER = {
    "claim": "rope, sinpe, randn",
    "where": {"variant": "attention"},
    "factor": "pe_type",
    "order": ["rope", "sinpe", "randn"],
}


def test_borrowed_variances_make_intervals_and_tests_that_agree() -> None:
    trials = load_trials(REPLICATED)
    plain, borrowed = (
        check_claims(trials, {"claims": [ORDER], "borrow": borrow})[0] for borrow in (False, True)
    )
    assert borrowed.decision.supports < plain.decision.supports
    procedure, weakest = borrowed.decision.procedure, borrowed.decision.weakest
    assert procedure == FixedNumber(borrows=True)
    assert weakest is not None
    at_the_edge = [OneSided(1, -borrowed.effect.high)] * len(borrowed.basis)
    p_values = procedure.p_values(borrowed.basis, at_the_edge, None)
    assert p_values[weakest] == pytest.approx(0.05, abs=1e-6)


def test_a_bound_leaves_nothing_to_borrow_at_any_look() -> None:
    data = {"claims": [ORDER], "borrow": True, "bound": 0.5}
    with pytest.raises(AnalysisError, match="there is nothing to `borrow`"):
        check_claims(load_trials(REPLICATED), data, anytime=True)
