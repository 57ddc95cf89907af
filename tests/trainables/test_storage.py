"""The contract of every storage: a folder, a URI of a file system, and S3 as a server speaks it."""

from __future__ import annotations

import contextlib
import json
import math
import pickle
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import torch
from fsspec.implementations.local import LocalFileSystem
from moto.server import ThreadedMotoServer
from s3fs import S3FileSystem

from trainables.config import TrialConfig
from trainables.data.corpus import tokenise
from trainables.errors import UserError
from trainables.persistence import artifacts
from trainables.persistence.artifacts import SAMPLE, load_model
from trainables.persistence.checkpoint import load_checkpoint
from trainables.persistence.remote import RemotePrefix
from trainables.persistence.storage import (
    CHECKPOINTS,
    SharedFolder,
    Storage,
    StorageError,
    check_from_here,
    check_uri,
    marked,
    open_storage,
    problem_here,
)
from trainables.training.loop import Splits, TrainingState, initial_state, train
from trainables.worker import durable
from trainables.worker.durable import DurableTrial, TrialProgress
from trainables.worker.ray_trial import RayTrial, RayTrialConfig
from trainables.worker.reports import TrialFailure

CORPUS = tokenise("verse", "to be or not to be\n" * 30)
CPU = torch.device("cpu")
SPLITS = Splits.of(CORPUS, CPU)
NEWEST, PREVIOUS = CHECKPOINTS
SECRET = "a-secret-access-key"


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(artifacts, "SAMPLE_CHARACTERS", 5)
    monkeypatch.setattr(durable, "SAVE_S", -1.0)  # after each step
    S3FileSystem.clear_instance_cache()  # one has the credentials of its time
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))  # where private folders are


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """The address of an S3 server with an empty bucket."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    client = boto3.client(
        "s3", "us-east-1", endpoint_url=address, aws_access_key_id="k", aws_secret_access_key="s"
    )
    client.create_bucket(Bucket="bucket")
    yield address
    server.stop()


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "an-access-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")


@pytest.fixture(params=["folder", "file", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "folder":
        return SharedFolder(tmp_path / "shared")
    if request.param == "file":
        return RemotePrefix(f"file://{tmp_path}/shared")
    request.getfixturevalue("credentials")
    request.getfixturevalue("monkeypatch").setenv("AWS_ENDPOINT_URL", request.getfixturevalue("s3"))
    return RemotePrefix(f"s3://bucket/{tmp_path.name}/shared")


@pytest.fixture
def remote(tmp_path: Path) -> RemotePrefix:
    return RemotePrefix(f"file://{tmp_path}/shared")


@pytest.fixture
def trial(make_trial: Callable[..., TrialConfig]) -> TrialConfig:
    return make_trial("attention", n_embd=4, max_steps=4, eval_every=2, batch_size=4)


def resume(trial: TrialConfig, storage: Storage) -> DurableTrial:
    return DurableTrial(trial, CORPUS, SPLITS, storage.open_trial(trial.key), CPU)


def finish(resumed: DurableTrial) -> list[TrialProgress]:
    reports = [resumed.advance(within_s=0)]
    while not reports[-1].done:
        reports.append(resumed.advance(within_s=0))
    return reports


def files(storage: Storage, key: str) -> dict[str, bytes]:
    """What the storage has of a trial."""
    resumed = storage.open_trial(key)  # a private folder goes with it
    paths = [path for path in resumed.folder.rglob("*") if path.is_file()]
    return {path.relative_to(resumed.folder).as_posix(): path.read_bytes() for path in paths}


def undisturbed(trial: TrialConfig) -> TrainingState:
    state = initial_state(trial, CORPUS.vocab_size)
    list(train(state, SPLITS, trial.training, trial.seed))
    return state


def assert_ended_as_undisturbed(trial: TrialConfig, storage: Storage) -> None:
    """The same losses and weights, bit for bit, and nothing else but what is left behind."""
    expected, ended = undisturbed(trial), initial_state(trial, CORPUS.vocab_size)
    resumed = storage.open_trial(trial.key)
    load_checkpoint(ended, resumed.folder / NEWEST, trial.key)
    assert [each.val_loss for each in ended.history] == [each.val_loss for each in expected.history]
    with storage.artifacts(trial.key) as folder:
        model, _, _ = load_model(folder)
        assert len((folder / SAMPLE).read_text()) == 5
    for state in (ended.model.state_dict(), model.state_dict()):
        for name, value in expected.model.state_dict().items():
            assert torch.equal(value, state[name])
    names = {name.partition("/")[0] for name in files(storage, trial.key)}
    assert {name for name in names if "unusable" not in name} == {NEWEST, "artifacts"}


# Files.


def test_what_one_machine_pushes_the_next_one_has(storage: Storage) -> None:
    mine = storage.open_trial("a")
    (mine.folder / "artifacts").mkdir(parents=True)
    for name in (NEWEST, "starts.json", "artifacts/sample.txt"):
        (mine.folder / name).write_bytes(name.encode())
    mine.push()
    assert files(storage, "a") == {
        name: name.encode() for name in (NEWEST, "starts.json", "artifacts/sample.txt")
    }
    (mine.folder / "starts.json").unlink()
    (mine.folder / NEWEST).rename(mine.folder / "renamed")
    (mine.folder / "artifacts/sample.txt").write_bytes(b"more")
    mine.push()
    assert files(storage, "a") == {"renamed": NEWEST.encode(), "artifacts/sample.txt": b"more"}
    assert files(storage, "b") == {}


def test_trials_with_a_checkpoint_are_known_and_no_others(storage: Storage) -> None:
    for key, name in [("a", NEWEST), ("b", PREVIOUS), ("c", "starts.json"), ("d", NEWEST)]:
        storage.write(f"trials/{key}/{name}", b"content")
    storage.write(f"trials/e/artifacts/{NEWEST}", b"not a checkpoint")
    assert storage.started(["a", "b", "c", "e", "absent"]) == {"a", "b"}


@pytest.mark.usefixtures("credentials")
def test_what_others_wrote_meanwhile_is_seen(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3)
    storage = RemotePrefix("s3://bucket/seen")
    assert storage.started(["a"]) == set()
    for key in ("a", "b"):
        boto3.client("s3").put_object(Bucket="bucket", Key=f"seen/trials/{key}/{NEWEST}")
        assert key in storage.started(["a", "b"])


def test_a_trial_that_left_nothing_behind_has_no_artifacts(storage: Storage) -> None:
    with storage.artifacts("a") as folder:
        assert not folder.is_dir() or not list(folder.iterdir())


def test_a_worker_gets_the_same_storage_and_no_credentials(storage: Storage) -> None:
    check_from_here(storage)
    storage.write("word", b"a word")
    pickled = pickle.dumps(storage)
    assert SECRET.encode() not in pickled
    assert len(pickled) < 500
    assert pickle.loads(pickled).read("word") == b"a word"


def test_a_private_folder_goes_when_the_trial_is_left(
    remote: RemotePrefix, trial: TrialConfig, tmp_path: Path
) -> None:
    resumed = resume(trial, remote)
    resumed.advance(within_s=0)
    assert len(list(tmp_path.glob("tmp/sweeps-*"))) == 1
    resumed.pause()
    assert files(remote, trial.key).keys() == set()  # it took no step
    del resumed
    with remote.artifacts(trial.key):
        pass
    assert not list(tmp_path.glob("tmp/sweeps-*"))


def test_names_in_the_storage_do_not_lead_out_of_the_private_folder(
    remote: RemotePrefix, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = f"{tmp_path}/shared/trials/a"
    monkeypatch.setattr(LocalFileSystem, "find", lambda *_: [f"{start}/../x", f"{start}/good"])
    remote.write("trials/x", b"evil")
    remote.write("trials/a/good", b"good")
    assert files(remote, "a") == {"good": b"good"}
    assert not list(tmp_path.glob("tmp/x"))


# Trials.


def test_a_trial_that_is_abandoned_goes_on_elsewhere_as_if_undisturbed(
    storage: Storage, trial: TrialConfig
) -> None:
    before = resume(trial, storage)
    for _ in range(4):
        before.advance(within_s=0)  # the report, and three steps
    reports = finish(resume(trial, storage))
    assert (reports[0].step, reports[0].resumed, reports[0].notes) == (3, True, [])
    assert_ended_as_undisturbed(trial, storage)


def test_a_damaged_checkpoint_is_set_aside_there_and_the_one_before_it_is_used(
    storage: Storage, trial: TrialConfig
) -> None:
    before = resume(trial, storage)
    for _ in range(4):
        before.advance(within_s=0)
    for number in (1, 2):
        storage.write(f"trials/{trial.key}/{NEWEST}", b"damaged %d" % number)
        resumed = resume(trial, storage)
        progress = resumed.advance(within_s=0)
        assert progress.step == 2
        (note,) = progress.notes
        assert storage.where(trial.key) in note
        assert note.endswith(f"kept as {NEWEST}.unusable-{number}")
        kept = files(storage, trial.key)
        assert kept[f"{NEWEST}.unusable-{number}"] == b"damaged %d" % number
        assert NEWEST not in kept
        resumed.advance(within_s=0)
    assert storage.started([trial.key]) == {trial.key}
    finish(resumed)
    assert_ended_as_undisturbed(trial, storage)


@pytest.mark.usefixtures("no_ray_starts")
def test_a_trial_that_fails_leaves_its_traceback_there(
    storage: Storage, make_trial: Callable[..., TrialConfig], tmp_path: Path
) -> None:
    diverging = make_trial(learning_rate=1e30, max_steps=9, batch_size=4)
    given = json.dumps([diverging.to_dict()])
    config: RayTrialConfig = {
        "pack": {"keys": [diverging.key], "trials": given, "gpus": 0.0, "report_s": 0.0}
    }
    check_from_here(storage)
    worker = RayTrial.__new__(RayTrial)
    worker.setup(config, corpus=CORPUS, storage=storage, threads=1, gpu=False)
    assert isinstance(worker.step()["report"].trials[-1], TrialFailure)
    assert "Traceback" in files(storage, diverging.key)["artifacts/log.txt"].decode()
    assert "starts.json" not in files(storage, diverging.key)
    worker.cleanup()
    assert not list(tmp_path.glob("tmp/sweeps-*"))


CHANGES = ("pipe_file", "rm_file")


class Counted:
    """Lets the file system die, or fail, at its n-th change: before, amid or after it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, nth: int, when: str, by: type) -> None:
        self.changes = 0
        for name in CHANGES:
            monkeypatch.setattr(LocalFileSystem, name, self.dying(name, nth, when, by))

    def dying(self, name: str, nth: int, when: str, by: type) -> Callable[..., Any]:
        do = getattr(LocalFileSystem, name)

        def change(file_system: LocalFileSystem, path: str, content: bytes = b"") -> None:
            self.changes += 1
            given = (content,) if name == "pipe_file" else ()
            if self.changes != nth:
                do(file_system, path, *given)
                return
            if when == "amid" and given:
                do(file_system, path, content[: len(content) // 2])
            elif when == "after":
                do(file_system, path, *given)
            raise by("at this change")

        return change


@pytest.mark.parametrize("when", ["before", "amid", "after"])
@pytest.mark.parametrize("by", [KeyboardInterrupt, TimeoutError], ids=["death", "failure"])
def test_whatever_change_of_the_storage_is_the_last_the_trial_goes_on(
    when: str, by: type[BaseException], remote: RemotePrefix, trial: TrialConfig,
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:  # fmt: skip
    changes, nth = 0, 0
    while changes >= nth:
        nth += 1
        storage = RemotePrefix(f"{remote.uri}/{nth}")
        saved = 0
        with (
            monkeypatch.context() as patch,
            contextlib.suppress(KeyboardInterrupt, StorageError),
        ):
            counted = Counted(patch, nth, when, by)
            dying = resume(trial, storage)
            while not (progress := dying.advance(within_s=0)).done:
                saved = progress.step
        changes = counted.changes
        all_reports = finish(resume(trial, storage))
        assert all_reports[0].step >= saved, f"change {nth}"
        assert [each.step for one in all_reports for each in one.evaluations] == [2, 4]
        assert_ended_as_undisturbed(trial, storage)
    # The starts, four checkpoints and three before them, four artifacts; two files are removed.
    assert changes == 14


def test_a_trial_can_be_saved_when_the_storage_answers_again(
    remote: RemotePrefix, trial: TrialConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    starving = resume(trial, remote)
    for _ in range(2):
        starving.advance(within_s=0)
    for _ in range(2):
        with monkeypatch.context() as patch:
            Counted(patch, 1, "amid", ConnectionError)
            with pytest.raises(StorageError, match=r"/shared cannot be written: ConnectionError"):
                starving.advance(within_s=0)
        assert resume(trial, remote).advance(math.inf).step >= 1
    starving.pause()
    reports = finish(resume(trial, remote))
    assert (reports[0].step, reports[0].notes) == (3, [])
    assert_ended_as_undisturbed(trial, remote)


# What is checked before the start.


def test_a_machine_that_has_the_marker_has_no_problem(storage: Storage, tmp_path: Path) -> None:
    with marked(storage) as marker:
        assert problem_here(storage, marker) == ""
        assert problem_here(storage, "another marker") != ""
    names = (path.name for path in tmp_path.rglob("*"))
    assert not any(name.startswith(".marker") for name in names)
    with pytest.raises(OSError, match="marker"):
        storage.read(marker)


def test_a_folder_that_another_machine_lacks_is_a_problem_there(tmp_path: Path) -> None:
    with marked(SharedFolder(tmp_path / "here")) as marker:
        absent = problem_here(SharedFolder(tmp_path / "there"), marker)
        assert "does not see" in absent
        (tmp_path / "there").mkdir()
        assert problem_here(SharedFolder(tmp_path / "there"), marker).startswith("another dir")


def test_storage_that_cannot_be_written_is_refused_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "shared").write_text("in the way")
    with pytest.raises(UserError, match=r"/shared/x cannot be written: .*; each machine needs"):
        check_from_here(RemotePrefix(f"file://{tmp_path}/shared/x"))
    with pytest.raises(UserError, match=r"exists.*; put it on storage that all of them share"):
        check_from_here(SharedFolder(tmp_path / "shared"))


@pytest.mark.usefixtures("credentials")
def test_a_bucket_that_is_not_there_is_refused(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3)
    with pytest.raises(
        UserError, match=r"s3://absent/x cannot be written: .*bucket does not exist"
    ):
        check_from_here(RemotePrefix("s3://absent/x"))


def test_a_machine_without_credentials_is_told_so(
    s3: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "PROFILE"):
        monkeypatch.delenv(f"AWS_{name}", raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3)
    with pytest.raises(UserError, match="Unable to locate credentials; each machine needs"):
        check_from_here(RemotePrefix("s3://bucket/anonymous"))


def test_a_machine_without_the_package_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)  # its import raises ImportError
    with pytest.raises(UserError, match=r"ImportError: Please install gcsfs.*; each machine needs"):
        check_from_here(RemotePrefix("gs://bucket/x"))


@pytest.mark.parametrize(
    ("uri", "why"),
    [
        ("memory://x", "lies in the memory of one process; name a path that all machines share"),
        ("s4://bucket/x", "protocol that fsspec does not know"),
        ("simplecache::s3://bucket/x", "is a chain"),
        ("file://x", "is not absolute; write file:///folder"),
        ("s3://", "names no place"),
        (f"sftp://me:{SECRET}@host/x", "may not hold a password"),
    ],
)
def test_a_uri_that_cannot_be_shared_is_refused(uri: str, why: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=why) as refused:
        open_storage(uri, tmp_path, "study")
    assert SECRET not in str(refused.value)


def test_a_uri_says_what_kind_of_storage_it_is(tmp_path: Path) -> None:
    assert open_storage(None, tmp_path, "study") == SharedFolder(tmp_path)
    assert open_storage("/mnt/shared", tmp_path, "study") == SharedFolder(Path("/mnt/shared/study"))
    assert open_storage("s3://bucket/", tmp_path, "study") == RemotePrefix("s3://bucket/study")
    check_uri("abfs://container@account.dfs.core.windows.net/x")
