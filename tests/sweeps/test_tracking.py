"""A sweep's runs in a real MLflow store, held against records of the outbox."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from analysis import load_trials, markdown, tables, write_ranking, write_tables
from analysis.text.document import as_text
from analysis.trials.mlflow_store import attach
from sweeps.records.events import TrialEvent
from sweeps.records.outbox import Outbox
from sweeps.records.records import TrialRecord
from sweeps.server.ui import mlflow_ui
from sweeps.tracking.experiment import RefusedError
from sweeps.tracking.sweep_runs import SweepRuns
from sweeps.tracking.views import limit_charts, saved_views
from tests.sweeps.faulty_proxy import FaultyProxy
from trainables.files import trial_folder
from trainables.persistence.storage import SharedFolder

SWEEP = {
    "description": "letters",
    "views": {},
    "uri": None,
    "code_version": "1",
    "tags": {"command": "sweeps run letters"},
    "dataset": {"name": "text", "digest": "0" * 64, "vocabulary": 3},
}


def content(name: str, **params: str) -> dict[str, Any]:
    return {"name": name, "params": {"lr": "0.1", **params}, "tags": {"variant": "bigram"}}


def evaluation(step: int) -> dict[str, float]:
    names = ("train_loss", "val_loss", "best_val_loss", "tokens_per_s", "training_s")
    return {"step": step, **dict.fromkeys(names, 4 - step / 8)}


def progressed(key: str, *steps: int, time_ms: int) -> TrialEvent:
    evaluations = [evaluation(step) for step in steps]
    return TrialEvent(
        key, "progressed", step=steps[-1], evaluations=evaluations, hardware="cpu", time_ms=time_ms
    )


@pytest.fixture
def uri(empty_store: Path, tmp_path: Path) -> str:
    return f"sqlite:///{shutil.copy(empty_store, tmp_path / 'mlflow.db')}"


@pytest.fixture
def client(uri: str) -> MlflowClient:
    return MlflowClient(uri)


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    """Of one trial that runs, after two evaluations."""
    with closing(Outbox(tmp_path / "outbox.db", "study")) as outbox:
        begin(outbox)
        yield outbox


def begin(outbox: Outbox, time_ms: int = 1_000) -> None:
    outbox.describe(SWEEP, {"a": content("alpha")})
    outbox.record(TrialEvent("a", "started", time_ms=time_ms))
    outbox.record(progressed("a", 2, 4, time_ms=time_ms + 10))


def connect(uri: str, outbox: Outbox) -> SweepRuns:
    folder = outbox.path.parent
    artifacts = None if uri.startswith("http") else folder / "artifacts"
    reports = folder / "reports"
    return SweepRuns(uri, outbox, artifacts, SharedFolder(folder), reports, lambda _: None)


def send(uri: str, outbox: Outbox) -> None:
    runs = connect(uri, outbox)
    for key in outbox.unsent():
        record = outbox.trial(key)
        assert record is not None
        runs.send_trial(record)
    runs.send_sweep(outbox.sweep)


def runs_in(client: MlflowClient, role: str = "trial") -> list[Any]:
    experiment = client.get_experiment_by_name("study")
    return list(client.search_runs([experiment.experiment_id], f"tags.role = '{role}'"))


def points(client: MlflowClient, run: Any) -> list[tuple[int, int, float]]:
    history = client.get_metric_history(run.info.run_id, "val_loss")
    return sorted((each.step, each.timestamp, each.value) for each in history)


ONCE = [(2, 1_010, 3.75), (4, 1_010, 3.5)]


def test_a_trial_is_a_run_and_sending_it_again_changes_nothing(
    uri: str, outbox: Outbox, client: MlflowClient
) -> None:
    for _ in range(2):
        send(uri, outbox)
        outbox.resend("a")  # as if no answer had come
    send(uri, outbox)
    (run,) = runs_in(client)
    assert points(client, run) == ONCE
    assert (run.info.status, run.info.start_time) == ("RUNNING", 1_000)
    assert len(runs_in(client, "sweep")) == 1
    assert len(run.inputs.dataset_inputs) == 1


def test_a_training_loss_that_was_not_computed_is_left_out(
    uri: str, outbox: Outbox, client: MlflowClient, tmp_path: Path
) -> None:
    def curve() -> list[tuple[int, float]]:
        (run,) = runs_in(client)
        history = client.get_metric_history(run.info.run_id, "train_loss")
        assert len(points(client, run)) == 4
        return sorted((each.step, each.value) for each in history)

    without = evaluation(6) | {"train_loss": None, "train_part": "end"}
    part = evaluation(8) | {"train_part": "slice"}
    outbox.record(TrialEvent("a", "progressed", step=6, evaluations=[without]))
    outbox.record(TrialEvent("a", "stopped", step=6, reason="hopeless"))
    send(uri, outbox)
    (run,) = runs_in(client)
    note = run.data.tags["mlflow.note.content"]
    assert "Validation loss **3.25000** nats per character after 6 steps." in note
    assert "first characters of the training split" not in note
    outbox.record(TrialEvent("a", "progressed", step=8, evaluations=[part]))
    outbox.record(TrialEvent("a", "finished", step=8))
    send(uri, outbox)
    (run,) = runs_in(client)
    note = run.data.tags["mlflow.note.content"]
    assert "**3.00000** nats per character (training 3.00000) after 8 steps.\n\nTraining" in note
    assert "are those of the first characters of the training split, as many as" in note
    expected = [(2, 3.75), (4, 3.5), (8, 3.0)]
    assert curve() == expected
    with closing(Outbox(tmp_path / "new.db", "study")) as new:
        new.describe(SWEEP, {"a": content("alpha")})
        send(uri, new)
        new.resend("a")  # the evaluations that it has learnt from the store
        send(uri, new)
    assert curve() == expected


def test_a_lost_outbox_learns_from_the_store_and_doubles_no_step(
    uri: str, outbox: Outbox, client: MlflowClient, tmp_path: Path
) -> None:
    send(uri, outbox)
    with closing(Outbox(tmp_path / "new.db", "study")) as new:
        new.describe(SWEEP, {"a": content("alpha")})
        connect(uri, new)
        assert new.trials()[0].status == "KILLED"  # nothing runs
        begin(new, time_ms=500)  # the checkpoint tells all again, by a clock that was set back
        new.record(progressed("a", 6, time_ms=600))
        new.record(TrialEvent("a", "finished", time_ms=700))
        send(uri, new)
    (run,) = runs_in(client)
    assert points(client, run) == [*ONCE, (6, 1_010, 3.25)]
    assert run.info.status == "FINISHED"


def test_steps_that_were_heard_while_the_store_was_away_are_not_doubled_either(
    uri: str, outbox: Outbox, client: MlflowClient, tmp_path: Path
) -> None:
    send(uri, outbox)
    with closing(Outbox(tmp_path / "new.db", "study")) as new:
        begin(new, time_ms=5_000)
        new.record(progressed("a", 6, time_ms=6_000))
        send(uri, new)
    (run,) = runs_in(client)
    assert points(client, run) == [*ONCE, (6, 6_000, 3.25)]


@pytest.mark.parametrize("status", ["FINISHED", "FAILED"])
def test_what_ended_is_known_without_an_outbox(
    status: str, uri: str, outbox: Outbox, tmp_path: Path
) -> None:
    kind: Any = status.lower()
    outbox.record(TrialEvent("a", kind, reason="it diverged" if kind == "failed" else ""))
    send(uri, outbox)
    with closing(Outbox(tmp_path / "new.db", "study")) as new:
        new.describe(SWEEP, {"a": content("alpha"), "b": content("beta")})
        connect(uri, new)
        statuses = {record.key: (record.status, record.failures) for record in new.trials()}
        assert statuses == {"a": (status, int(status == "FAILED")), "b": ("WAITING", 0)}
        assert new.unsent() == []


def test_of_two_runs_of_a_key_the_one_that_is_known_or_older_stays(
    uri: str, outbox: Outbox, client: MlflowClient, tmp_path: Path
) -> None:
    send(uri, outbox)
    (run,) = runs_in(client)
    tags = {"role": "trial", "key": "a"}
    for start_time in (1, 2_000):  # an older and a younger ghost
        client.create_run(run.info.experiment_id, start_time=start_time, tags=tags)
    client.create_run(run.info.experiment_id, tags={"role": "sweep"})
    connect(uri, outbox)
    assert [each.info.run_id for each in runs_in(client)] == [run.info.run_id]
    assert len(runs_in(client, "sweep")) == 1
    client.create_run(run.info.experiment_id, start_time=3_000, tags=tags)
    with closing(Outbox(tmp_path / "new.db", "study")) as new:
        new.describe(SWEEP, {"a": content("alpha")})
        connect(uri, new)
    assert [each.info.run_id for each in runs_in(client)] == [run.info.run_id]


class DyingClient:
    """A client of MLflow whose process dies after some requests."""

    def __init__(self, client: MlflowClient) -> None:
        self.client, self.left = client, 1_000

    def __getattr__(self, name: str) -> Any:
        def request(*args: Any, **options: Any) -> Any:
            if not self.left:
                raise SystemExit("killed")
            self.left -= 1
            return getattr(self.client, name)(*args, **options)

        return request


@pytest.mark.parametrize("is_lost", [False, True])
def test_a_driver_that_dies_between_two_requests_leaves_no_run_open(
    is_lost: bool,
    uri: str,
    outbox: Outbox,
    client: MlflowClient,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    requests = range(1, 7)
    ends = {f"{end}-{n}": end for end in ("finished", "failed", "stopped") for n in requests}
    trials = {key: content(key) for key in ends}
    outbox.describe(SWEEP, trials)
    dying = DyingClient(client)
    with monkeypatch.context() as patch:
        patch.setattr("sweeps.tracking.sweep_runs.mlflow_client", lambda *_, **__: dying)
        runs = connect(uri, outbox)
    deaths = []
    for key, end in ends.items():
        kind: Any = end
        outbox.record(TrialEvent(key, "started", time_ms=1_000))
        outbox.record(progressed(key, 2, 4, time_ms=1_010))
        outbox.record(TrialEvent(key, kind, reason="" if end == "finished" else "why"))
        record = outbox.trial(key)
        assert record is not None
        dying.left = int(key[-1])
        try:
            runs.send_trial(record)
        except SystemExit:
            deaths.append(key)
    assert len(ends) > len(deaths) >= len(ends) / 2
    path = tmp_path / "new.db" if is_lost else outbox.path
    with closing(Outbox(path, "study")) as new:
        new.describe(SWEEP, trials)
        send(uri, new)
        assert new.unsent() == []
        undecided = [record.key for record in new.trials() if not record.is_decided]
        assert undecided if is_lost else not undecided
        for key in undecided:  # its end had not reached the store: it is trained once more
            new.record(progressed(key, 2, 4, time_ms=1_010))
            new.record(TrialEvent(key, "finished"))
        send(uri, new)
    found = {run.data.tags["key"]: run for run in runs_in(client)}
    assert found.keys() == trials.keys()
    for key, run in found.items():
        end = "finished" if key in undecided else ends[key]
        assert run.info.status == ("FAILED" if end == "failed" else "FINISHED")
        assert points(client, run) == ONCE


@pytest.mark.parametrize("retries", ["0", "2"])
def test_a_request_whose_answer_is_lost_makes_one_run(
    retries: str, outbox: Outbox, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow's client asks again by itself, or the next delivery does."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", retries)
    monkeypatch.chdir(tmp_path)  # where the server keeps artifacts
    with mlflow_ui(uri, log_file=tmp_path / "server.log") as url:
        proxy = FaultyProxy(url)
        runs = connect(proxy.url, outbox)
        record = outbox.trial("a")
        assert record is not None
        proxy.lose_next = "/runs/create"
        with contextlib.suppress(MlflowException):
            runs.send_trial(record)
        assert proxy.errors == 1
        if outbox.unsent():
            runs.send_trial(record)
        (run,) = runs_in(MlflowClient(url))
        assert points(MlflowClient(url), run) == ONCE
        proxy.close()


def test_a_run_that_was_deleted_is_made_again_as_a_whole(
    uri: str, outbox: Outbox, client: MlflowClient
) -> None:
    send(uri, outbox)
    client.delete_run(runs_in(client)[0].info.run_id)
    assert outbox.unsent() == []
    send(uri, outbox)
    (run,) = runs_in(client)
    assert points(client, run) == ONCE
    assert run.data.params == {"lr": "0.1"}


def test_another_store_gets_all_of_it(
    uri: str, outbox: Outbox, empty_store: Path, tmp_path: Path
) -> None:
    send(uri, outbox)
    other = f"sqlite:///{shutil.copy(empty_store, tmp_path / 'other.db')}"
    send(other, outbox)
    client = MlflowClient(other)
    (run,) = runs_in(client)
    assert points(client, run) == ONCE


def test_a_change_of_what_is_shown_reaches_the_run_and_its_params_stay(
    uri: str, outbox: Outbox, client: MlflowClient
) -> None:
    send(uri, outbox)
    before = runs_in(client)[0].info.run_id
    outbox.describe(SWEEP, {"a": content("alpha 1", lr="1e-1", seed="7")})
    send(uri, outbox)
    (run,) = runs_in(client)
    assert (run.info.run_id, run.info.run_name, run.info.status) == (before, "alpha 1", "KILLED")
    assert run.data.params == {"lr": "0.1", "seed": "7"}  # MLflow refuses another spelling


def test_a_removed_trial_changes_its_role_and_comes_back(
    uri: str, outbox: Outbox, client: MlflowClient, tmp_path: Path
) -> None:
    outbox.record(TrialEvent("a", "finished", time_ms=2_000))
    send(uri, outbox)
    outbox.describe(SWEEP, {"b": content("beta")})
    send(uri, outbox)
    assert runs_in(client) == []
    (run,) = runs_in(client, "removed")
    assert (run.info.status, run.info.end_time) == ("FINISHED", 2_000)
    with closing(Outbox(tmp_path / "new.db", "study")) as new:  # also when the outbox is lost
        new.describe(SWEEP, {"a": content("alpha")})
        send(uri, new)
    assert [each.info.run_id for each in runs_in(client)] == [run.info.run_id]


def test_a_run_of_a_trial_that_no_outbox_knows_is_removed(
    uri: str, outbox: Outbox, client: MlflowClient, tmp_path: Path
) -> None:
    send(uri, outbox)
    with closing(Outbox(tmp_path / "new.db", "study")) as new:
        new.describe(SWEEP, {"b": content("beta")})
        connect(uri, new)
    assert runs_in(client) == []
    assert len(runs_in(client, "removed")) == 1


def test_runs_that_no_outbox_knows_are_asked_about_before_they_are_removed(
    uri: str, outbox: Outbox, client: MlflowClient, tmp_path: Path
) -> None:
    outbox.record(TrialEvent("a", "stopped", reason="so", time_ms=2_000))
    send(uri, outbox)
    asked = []

    def refuse(trials: Sequence[TrialRecord]) -> None:
        asked.append([(trial.key, trial.is_done, trial.content["params"]) for trial in trials])
        raise RefusedError("no")

    with closing(Outbox(tmp_path / "new.db", "study")) as new:
        new.describe(SWEEP, {"b": content("beta")})

        def open_again(may_retire: Any) -> SweepRuns:
            root, storage = tmp_path / "artifacts", SharedFolder(tmp_path)
            return SweepRuns(uri, new, root, storage, tmp_path / "reports", may_retire)

        with pytest.raises(RefusedError, match=r"^no$"):
            open_again(refuse)
        assert asked == [[("a", True, {"lr": "0.1"})]]
        open_again(None)
        assert len(runs_in(client)) == 1, "`sync` has no plan to ask by"
        new.describe(SWEEP, {"a": content("alpha"), "b": content("beta")})
        open_again(refuse)
        assert len(runs_in(client)) == len(asked) == 1, "what is planned is not asked about"


def test_runs_of_a_search_whose_outbox_was_lost_are_not_asked_about(
    uri: str, outbox: Outbox, client: MlflowClient, tmp_path: Path
) -> None:
    outbox.add({"a": {**content("alpha"), "tags": {"stage": "search"}}})
    outbox.record(TrialEvent("a", "finished", time_ms=2_000))
    send(uri, outbox)

    def refuse(trials: Sequence[TrialRecord]) -> None:
        raise RefusedError("no")

    with closing(Outbox(tmp_path / "new.db", "study")) as new:
        for tags, is_asked in [({}, True), ({"search": "{}"}, False)]:
            new.describe({**SWEEP, "tags": tags}, {})
            place = tmp_path / "artifacts", SharedFolder(tmp_path), tmp_path / "reports"
            with pytest.raises(RefusedError) if is_asked else contextlib.nullcontext():
                SweepRuns(uri, new, *place, refuse)
            assert len(runs_in(client, "removed")) == (not is_asked)
        new.add({"a": {**content("alpha"), "tags": {"stage": "search"}}})  # suggested again
        send(uri, new)
    assert len(runs_in(client)) == 1


def test_a_reason_that_is_no_more_is_taken_back(
    uri: str, outbox: Outbox, client: MlflowClient
) -> None:
    outbox.record(TrialEvent("a", "failed", reason="no memory"))
    send(uri, outbox)
    assert runs_in(client)[0].data.tags["failure"] == "no memory"
    outbox.reset_failures()
    outbox.record(TrialEvent("a", "started"))
    outbox.record(TrialEvent("a", "finished"))
    send(uri, outbox)
    (run,) = runs_in(client)
    assert (run.data.tags["failure"], run.info.status) == ("", "FINISHED")


def test_a_long_curve_comes_in_several_requests(
    uri: str, outbox: Outbox, client: MlflowClient
) -> None:
    outbox.record(progressed("a", *range(6, 1_006), time_ms=2_000))
    send(uri, outbox)
    (run,) = runs_in(client)
    assert len(points(client, run)) == 1_002


def test_a_store_that_mlflow_does_not_have_is_refused(outbox: Outbox, tmp_path: Path) -> None:
    for uri in ("ftp://somewhere", str(tmp_path), "file:///tmp/x"):
        with pytest.raises(RefusedError, match="is no MLflow store; known: http, https, sqlite"):
            SweepRuns(uri, outbox, None, SharedFolder(tmp_path), tmp_path)


def test_artifacts_of_a_state_that_was_moved_are_refused_where_the_store_cannot_be_corrected(
    uri: str, outbox: Outbox, client: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As on PostgreSQL, say.
    monkeypatch.setattr("analysis.trials.mlflow_store.follow_move", lambda *_: None)
    old = tmp_path / "old" / "artifacts" / "study"
    client.create_experiment("study", artifact_location=old.as_uri())
    root = tmp_path / "artifacts" / "study"
    for _ in range(2):
        with pytest.raises(RefusedError, match=f"ln -s {tmp_path} {tmp_path}/old leads there"):
            SweepRuns(uri, outbox, root, SharedFolder(tmp_path), tmp_path)
    assert not old.exists()
    (tmp_path / "old").symlink_to(tmp_path)
    SweepRuns(uri, outbox, root, SharedFolder(tmp_path), tmp_path)


def test_a_trial_that_was_stopped_early_is_finished_and_says_why(
    uri: str, outbox: Outbox, client: MlflowClient
) -> None:
    outbox.add({"a": {**content("alpha"), "tags": {"stage": "search", "rung": "4"}}})
    outbox.record(TrialEvent("a", "stopped", reason="hopeless at step 4", time_ms=1_020))
    send(uri, outbox)
    (run,) = runs_in(client)
    assert run.info.status == "FINISHED"
    assert run.data.tags["stopped"] == "hopeless at step 4"
    assert (run.data.tags["stage"], run.data.tags["rung"]) == ("search", "4")
    assert "failure" not in run.data.tags
    assert "Stopped early: hopeless at step 4" in run.data.tags["mlflow.note.content"]


def test_an_outbox_that_was_lost_learns_that_a_trial_was_stopped(
    uri: str, outbox: Outbox, tmp_path: Path
) -> None:
    outbox.record(TrialEvent("a", "stopped", reason="hopeless", time_ms=1_020))
    send(uri, outbox)
    with closing(Outbox(tmp_path / "other" / "outbox.db", "study")) as other:
        other.describe(SWEEP, {"a": content("alpha")})
        connect(uri, other)
        record = other.trial("a")
        assert record is not None
        assert (record.status, record.reason) == ("STOPPED", "hopeless")


def test_what_a_trial_costs_is_a_metric_that_is_there_once(
    uri: str, outbox: Outbox, client: MlflowClient
) -> None:
    outbox.add({"a": {**content("alpha"), "costs": {"parameters": 65.0}}})
    send(uri, outbox)
    outbox.record(progressed("a", 6, time_ms=1_030))
    send(uri, outbox)
    (run,) = runs_in(client)
    (point,) = client.get_metric_history(run.info.run_id, "parameters")
    assert point.value == 65


# Use of the machine, and logs.


def used(step: int, host: str) -> dict[str, Any]:
    """An evaluation as a worker reports it; `evaluation` is one of an earlier version."""
    usage = {"process_cpu_utilization_percentage": 90.0 + step, "process_peak_memory_megabytes": 9}
    return {**evaluation(step), "host": host, "usage": usage}


def test_what_a_trial_took_is_under_the_system_metrics_of_its_run_and_no_result(
    uri: str, outbox: Outbox, client: MlflowClient
) -> None:
    columns = None
    for evaluations in ([], [used(6, "n1"), used(8, "n2"), used(10, "n1")]):
        outbox.record(TrialEvent("a", "progressed", 9, evaluations, hardware="cpu", time_ms=1_030))
        for _ in range(2):
            send(uri, outbox)
            outbox.resend("a")
        before, columns = columns, [*load_trials("study", uri).table]
        assert before in (None, columns)
    (run,) = runs_in(client)
    history = client.get_metric_history(
        run.info.run_id, "system/process_cpu_utilization_percentage"
    )
    assert [(one.step, one.timestamp, one.value) for one in history] == [
        (6, 1_030, 96),
        (8, 1_030, 98),
        (10, 1_030, 100),
    ]
    assert run.data.metrics["system/process_peak_memory_megabytes"] == 9
    assert len(points(client, run)) == 5  # those of an earlier version are there as well


def leave_behind(outbox: Outbox, **files: str) -> Path:
    folder = trial_folder(outbox.path.parent, "a") / "artifacts"
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.txt").write_text(text)
    return folder


def artifacts_of(run: Any) -> dict[str, str]:
    folder = Path(run.info.artifact_uri.removeprefix("file://"))
    return {path.name: path.read_text() for path in folder.glob("*")}


@pytest.mark.parametrize(
    ("kind", "has_log"),
    [("finished", True), ("failed", True), ("stopped", True), ("started", False)],
)
def test_a_run_has_the_log_of_a_trial_that_ended_and_its_note_leads_there(
    kind: Any, has_log: bool, uri: str, outbox: Outbox, client: MlflowClient
) -> None:
    outbox.record(TrialEvent("a", "progressed", 6, [used(6, "n2"), used(8, "n1")], hardware="c"))
    leave_behind(outbox, log="taken up\n")
    outbox.record(TrialEvent("a", kind, reason="so"))
    if not has_log:
        outbox.kill_running()  # interrupted
    send(uri, outbox)
    (run,) = runs_in(client)
    note = run.data.tags["mlflow.note.content"]
    link = f"[log.txt](#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}/artifacts/log"
    assert artifacts_of(run) == ({"log.txt": "taken up\n"} if has_log else {})
    assert (link in note) == has_log
    assert note.startswith("**alpha** of sweep `study`, trained on n1, n2")


def test_a_retry_brings_its_log_and_weights_are_sent_once(
    uri: str, outbox: Outbox, client: MlflowClient
) -> None:
    runs = connect(uri, outbox)

    def send_trial() -> dict[str, str]:
        record = outbox.trial("a")
        assert record is not None
        runs.send_trial(record)
        return artifacts_of(runs_in(client)[0])

    for log in ("failed once\n", "failed once\nfailed twice\n"):
        leave_behind(outbox, log=log)
        outbox.record(TrialEvent("a", "failed", reason="so"))
        assert send_trial() == {"log.txt": log}
    leave_behind(outbox, log="finished\n", weights="0.1")
    outbox.record(TrialEvent("a", "finished"))
    assert send_trial() == {"log.txt": "finished\n", "weights.txt": "0.1"}
    leave_behind(outbox, weights="0.2")
    assert send_trial()["weights.txt"] == "0.1"


# What is data, and neither markup nor a missing value.

WORDS = ["None", "NA", "", "null", "nan", "<NA>", "'=1", "=1"]


def test_the_table_of_a_sweep_keeps_the_words_of_its_levels(
    uri: str, outbox: Outbox, client: MlflowClient, tmp_path: Path
) -> None:
    words = {f"k{i}": content(f"t{i}", word=word) for i, word in enumerate(WORDS)}
    outbox.describe(SWEEP, {**words, "lacks": content("lacks")})
    for key in (*words, "lacks"):
        outbox.record(progressed(key, 2, time_ms=2_000))
        outbox.record(TrialEvent(key, "finished", time_ms=3_000))
    send(uri, outbox)
    named = tables(load_trials("study", uri))
    write_tables(named, tmp_path / "reports")
    write_ranking(named["ranking"], tmp_path / "reports")
    for status in ("FINISHED", "FAILED"):  # twice: it does not grow
        outbox.end(status)
        send(uri, outbox)
        (run,) = runs_in(client, "sweep")
        table = json.loads(artifacts_of(run)["ranking.json"])
        column = table["columns"].index("word")
        found = [row[column] for row in table["data"]]
        assert sorted(found, key=repr) == sorted([*WORDS, None], key=repr)
    assert "ranking.json" in run.data.tags["mlflow.loggedArtifacts"]
    text = markdown(named["ranking"])
    assert all(f"| {as_text(word)} " in text for word in WORDS)


def test_the_page_of_a_run_obeys_nothing_that_its_trial_says(
    uri: str, outbox: Outbox, client: MlflowClient
) -> None:
    hostile = "<script>x</script> [x](javascript:y) **b** | \x1b[2J"
    outbox.describe(
        {**SWEEP, "description": f"{hostile}\n\n# more"},
        {"a": content(hostile, word=hostile)},
    )
    leave_behind(outbox, sample=f"a\r{hostile}\n\n{hostile}\n# b")
    for kind in ("stopped", "failed", "finished"):
        outbox.record(TrialEvent("a", kind, reason=hostile))
        send(uri, outbox)
    (run,), (sweep,) = runs_in(client), runs_in(client, "sweep")
    reader = MarkdownIt("commonmark", {"html": True}).enable("table")
    note = reader.render(run.data.tags["mlflow.note.content"])
    elements = ["code", "p", "pre", "strong", "table", "tbody", "td", "th", "thead", "tr"]
    assert sorted(set(re.findall(r"<(\w+)", note))) == elements
    shown = hostile.replace("<", "&lt;").replace(">", "&gt;").replace("\x1b", r"\x1b")
    assert note.startswith(f"<p><strong>{shown}</strong> of sweep <code>study</code></p>")
    assert f"<td>word</td>\n<td>{shown}</td>" in note
    assert f"<pre><code>a\n{shown}\n\n{shown}\n# b\n</code></pre>" in note
    about = reader.render(sweep.data.tags["mlflow.note.content"])
    assert about.startswith('<p><a href="#/experiments/1/runs?')
    assert "</p>\n<p><strong>1 of 1 trials" in about
    assert about.endswith(f"</p>\n<p>{shown}</p>\n<p># more</p>\n")
    assert f"Best: {shown}, validation loss <strong>3.5000</strong>" in about
    links = re.findall(r'href="([^"]*)"', about)
    assert len(links) == 3, "to the best trial's run and to both views"
    assert all(link.startswith("#/experiments/") for link in links)
    assert sorted(set(re.findall(r"<(\w+)", about))) == ["a", "p", "strong"]


def test_the_best_of_a_search_is_a_confirmed_one_as_soon_as_there_is_one(
    uri: str, outbox: Outbox, client: MlflowClient
) -> None:
    def page() -> tuple[str, float]:
        outbox.end("RUNNING")
        send(uri, outbox)
        (sweep,) = runs_in(client, "sweep")
        return sweep.data.tags["mlflow.note.content"], sweep.data.metrics["best_val_loss"]

    stages = {"a": "search", "b": "search", "c": "confirm", "d": "confirm"}
    trials = {key: content(f"trial {key}") for key in stages}
    for key, stage in stages.items():
        trials[key]["tags"] = {**trials[key]["tags"], "stage": stage}
    outbox.describe(SWEEP, trials)
    for key, step in (("a", 8), ("b", 24)):
        outbox.record(progressed(key, step, time_ms=2_000))
        outbox.record(TrialEvent(key, "finished"))
    note, lowest = page()
    assert "Best of the search, not confirmed on fresh seeds: trial b, " in note
    assert lowest == 1.0
    for key, step in (("c", 8), ("d", 16)):
        outbox.record(progressed(key, step, time_ms=2_000))
        outbox.record(TrialEvent(key, "finished"))
    note, lowest = page()
    assert "Best of the trials on fresh seeds: trial d, " in note
    assert lowest == 2.0


def test_the_page_of_a_sweep_says_how_far_it_is_and_what_is_best(
    uri: str, outbox: Outbox, client: MlflowClient, tmp_path: Path
) -> None:
    def page() -> tuple[str, Any]:
        outbox.end("RUNNING")
        send(uri, outbox)
        (sweep,) = runs_in(client, "sweep")
        return sweep.data.tags["mlflow.note.content"], sweep

    views = saved_views(["lr"])
    outbox.describe({**SWEEP, "views": views}, {key: content(f"trial {key}") for key in "abcd"})
    note, sweep = page()
    assert re.fullmatch(r"\[ranking\]\(#/\S+ · \[curves\]\(#/\S+\n\n.*\n\nletters", note)
    assert "\n\n**0 of 4 trials are done**.\n\n" in note
    assert "best_val_loss" not in sweep.data.metrics
    for key, step in (("a", 8), ("b", 16), ("c", 24)):
        outbox.record(progressed(key, step, time_ms=2_000))
    for key, kind in (("a", "finished"), ("b", "finished"), ("c", "stopped"), ("d", "failed")):
        outbox.record(TrialEvent(key, kind, reason="so"))
    for _ in range(2):
        note, sweep = page()
    assert "**3 of 4 trials are done**, 1 stopped early, 1 failed. Best: trial b, " in note
    best = outbox.trial("b")
    assert best
    assert f"**2.0000** nats per character ([its run](#/experiments/1/runs/{best.run_id}?" in note
    assert "[report]" not in note
    assert (sweep.data.tags["best_trial"], sweep.data.tags["best_key"]) == ("trial b", "b")
    assert len(client.get_metric_history(sweep.info.run_id, "best_val_loss")) == 1
    assert sweep.data.metrics["best_val_loss"] == 2.0
    tag = client.get_experiment("1").tags["mlflow.sharedViewState.curves"]
    assert tag == limit_charts(views["mlflow.sharedViewState.curves"], [3.0, 2.0]), (
        "stopped ones are not"
    )

    report = tmp_path / "report.html"
    report.write_text("a page")
    attach(load_trials("study", uri), tmp_path, [report], uri)
    said = client.get_run(sweep.info.run_id).data.tags["mlflow.note.content"]
    link = f"#/experiments/1/runs/{sweep.info.run_id}/artifacts/report.html?workflowType="
    assert said.startswith(f"[report]({link}machine_learning) · [ranking]("), "at once"
    attach(load_trials("study", uri), tmp_path, [report], uri)
    assert page()[0] == said, "once, and also where the sweep writes it"


def test_the_page_of_a_sweep_shows_the_picture_of_its_results(
    uri: str, outbox: Outbox, client: MlflowClient, tmp_path: Path
) -> None:
    def note() -> tuple[str, str]:
        send(uri, outbox)
        (sweep,) = runs_in(client, "sweep")
        return sweep.info.run_id, sweep.data.tags["mlflow.note.content"]

    assert "![" not in note()[1]
    for name in ("ranking.json", "overview.png"):
        (tmp_path / "reports").mkdir(exist_ok=True)
        (tmp_path / "reports" / name).write_text('{"columns": ["n"], "data": [[1]]}')
    outbox.end("FINISHED")
    run_id, text = note()
    assert text.endswith(f"![val_loss](get-artifact?path=overview.png&run_uuid={run_id})")


@pytest.mark.parametrize(("kind", "begins"), [("failed", "Failed"), ("stopped", "Stopped early")])
def test_why_a_trial_ended_is_no_markup(
    kind: Any, begins: str, uri: str, outbox: Outbox, client: MlflowClient
) -> None:
    outbox.record(TrialEvent("a", kind, reason="<b>*x*\n# y"))
    send(uri, outbox)
    (run,) = runs_in(client)
    assert f"\n{begins}: &lt;b>\\*x\\* # y\n" in run.data.tags["mlflow.note.content"]
