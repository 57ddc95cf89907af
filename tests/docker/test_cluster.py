"""The service as it is deployed, on loopback: three machines of a Ray cluster, PostgreSQL, MLflow,
all by the entry scripts of their containers, used from outside through Ray Jobs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.docker.machines import ray_cluster, wait_for
from tests.docker.running import mlflow_server, postgres, secret_file
from tests.docker.service import BIN, SWEEP_S, Service
from trainables.data.verse import write_play

ASK_S = 3.0  # between two questions: each starts a process that costs the sweep a second of a CPU

pytestmark = [pytest.mark.faults, pytest.mark.slow]  # some minutes, on two cores


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("service")
    password = secret_file(folder, "password")
    with (
        postgres() as database,
        mlflow_server(
            folder / "mlflow",
            {
                "MLFLOW_BACKEND_STORE_URI": database.create("mlflow"),
                "MLFLOW_AUTH_DATABASE_URI": database.create("users"),
                "MLFLOW_DATABASE_PASSWORD_FILE": secret_file(folder, "database", database.password),
                "MLFLOW_ADMIN_PASSWORD_FILE": password,
                "MLFLOW_SECRET_KEY_FILE": secret_file(folder, "key"),
            },
        ) as uri,
    ):
        login = {"MLFLOW_TRACKING_URI": uri, "MLFLOW_TRACKING_USERNAME": "admin"}
        on_head = {**login, "MLFLOW_TRACKING_PASSWORD_FILE": password}
        with ray_cluster(folder, [(1, 1)] * 3, on_head) as cluster:
            (folder / "laptop").mkdir()
            secret = Path(password).read_text().strip()
            tracking = {**login, "MLFLOW_TRACKING_PASSWORD": secret}
            yield Service(cluster, tracking, folder / "laptop")


def test_a_sweep_survives_a_machine_is_stopped_and_resumed(service: Service) -> None:
    sent = service.sweeps("submit", "quickstart")
    assert sent.returncode == 0, sent.stdout + sent.stderr
    assert "sent    quickstart (job quickstart-" in sent.stdout
    assert "INFO" not in sent.stderr, "Ray's own words"
    again = service.sweeps("submit", "quickstart")
    assert again.returncode == 2
    assert "`sweeps stop quickstart` stops it" in again.stderr

    victim = service.cluster.machines[2]
    has_four = lambda: service.done("quickstart") >= 4 and bool(victim.trials())  # noqa: E731
    wait_for(has_four, SWEEP_S, "4 trials", ASK_S)
    victim.kill()
    before = service.done("quickstart")
    wait_for(lambda: service.done("quickstart") >= before + 6, SWEEP_S, "6 more trials", ASK_S)

    stopped = service.sweeps("stop", "quickstart", "--json")
    assert stopped.returncode == 0, stopped.stdout + stopped.stderr
    assert json.loads(stopped.stdout)["status"] == "STOPPED"
    assert 10 <= service.done("quickstart") < 38
    assert not any(machine.trials() for machine in service.cluster.machines)

    resumed = service.sweeps("resume", "quickstart")
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    followed = service.sweeps("logs", "quickstart", "-f")
    assert followed.returncode == 0, followed.stdout + followed.stderr
    assert "to continue" in followed.stdout
    assert "38/38 done" in followed.stdout
    assert "sweep_status" not in followed.stdout, "the JSON is for programs"
    assert service.status("quickstart")["status"] == "FINISHED"

    runs = service.runs("quickstart")
    assert [run.info.status for run in runs] == ["FINISHED"] * 38
    assert len({run.data.tags["key"] for run in runs}) == 38
    assert all(len(steps) == len(set(steps)) == 3 for steps in service.steps(runs))

    table = service.sweeps("rankings", "quickstart", name="analysis")
    assert table.returncode == 0, table.stdout + table.stderr
    assert "val_loss" in table.stdout


def test_a_machine_that_joins_is_used(service: Service) -> None:
    joined = service.cluster.start(gpus=1)
    (service.folder / "play.txt").write_text(write_play(characters=20_000))
    (service.folder / "joined.yaml").write_text("""
name: joined
corpus: file:play.txt
training: {max_steps: 400000, eval_every: 400}
replicates: 3
arms: [{model: {variant: bigram}}]
""")
    sent = service.sweeps("submit", "joined.yaml")
    assert sent.returncode == 0, sent.stdout + sent.stderr
    wait_for(lambda: bool(joined.trials()), SWEEP_S, "a trial on the new machine")


def test_a_machine_that_is_told_to_leave_saves_its_trials_first(service: Service) -> None:
    """The sweep of the test before runs: three trials that do not end by themselves."""
    leaving = service.cluster.machines[-1]
    time.sleep(3)  # so that there is something to lose
    leaving.process.send_signal(signal.SIGTERM)
    leaving.process.wait(60)
    assert "finished draining" in leaving.log.read_text()
    stopped = service.sweeps("stop", "joined")
    assert stopped.returncode == 0, stopped.stdout + stopped.stderr
    logs = service.sweeps("logs", "joined").stdout
    assert "faults" in logs
    assert "at least 0 steps were taken again" in logs


TINY = """
from dataclasses import dataclass

import torch
from bigram_models import LanguageModel


class Tiny(LanguageModel):
    @dataclass(frozen=True, kw_only=True)
    class Config:
        pass

    def __init__(self, config, vocab_size, block_size, generator):
        super().__init__(vocab_size, context_size=block_size)
        self.table = torch.nn.Parameter(torch.randn(vocab_size, vocab_size, generator=generator))

    def forward(self, ids_BT):
        return self.table[ids_BT]
"""


def test_two_sweeps_at_once_keep_their_limits(service: Service) -> None:
    """Their model is one of the user's own, which travels."""
    service.cluster.start(gpus=1)
    (service.folder / "tiny.py").write_text(TINY)
    limits = {"one": 1, "two": 2}
    for name, limit in limits.items():
        (service.folder / f"{name}.yaml").write_text(f"""
name: {name}
corpus: embedded
training: {{max_steps: 3000, eval_every: 1000}}
replicates: 6
arms: [{{model: {{variant: "tiny:Tiny"}}}}]
resources: {{max_concurrent: {limit}}}
""")
    with ThreadPoolExecutor() as pool:
        sent = list(pool.map(lambda name: service.sweeps("submit", f"{name}.yaml"), limits))
        assert [each.returncode for each in sent] == [0, 0], sent
        followed = list(pool.map(lambda name: service.sweeps("logs", name, "-f"), limits))
        assert [each.returncode for each in followed] == [0, 0], followed
    spans = []
    for name, limit in limits.items():
        runs = service.runs(name)
        assert [run.info.status for run in runs] == ["FINISHED"] * 6
        times = [(run.info.start_time, run.info.end_time) for run in runs]
        assert most_at_once(times) <= limit
        spans.append((min(start for start, _ in times), max(end for _, end in times)))
    assert most_at_once(spans) == 2, "they did not run at the same time"


def most_at_once(times: list[tuple[int, int]]) -> int:
    """How many of some spans of time overlap, at most."""
    starts = [start for start, _ in times]
    return max(sum(start <= moment < end for start, end in times) for moment in starts)


@pytest.mark.parametrize("path", ["/api/jobs/", "/api/version", "/api/v0/nodes"])
def test_the_dashboard_refuses_who_has_no_token(service: Service, path: str) -> None:
    url = service.cluster.dashboard + path
    for headers in ({}, {"Authorization": "Bearer " + "0" * 64}):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10)
        assert refused.value.code in (401, 403)
    token = {"Authorization": f"Bearer {service.cluster.token.read_text().strip()}"}
    answer = urllib.request.urlopen(urllib.request.Request(url, headers=token), timeout=10)
    assert answer.status == 200


def test_a_job_without_the_token_is_refused(service: Service, tmp_path: Path) -> None:
    wrong = tmp_path / "token"
    wrong.write_text("f" * 64)
    for token in (wrong, None):
        environment = dict(service.cluster.client)
        if token:
            environment["RAY_AUTH_TOKEN_PATH"] = str(token)
        else:
            environment["RAY_AUTH_MODE"] = "disabled"
        done = subprocess.run(
            [BIN / "sweeps", "status", "--address", service.cluster.dashboard],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 2, done.stdout
        assert "RAY_AUTH_TOKEN_PATH" in done.stderr
        assert "Traceback" not in done.stderr


def test_the_gcs_refuses_who_has_no_token(service: Service, tmp_path: Path) -> None:
    code = "import ray; ray.init(address='auto', log_to_driver=False); print('inside')"
    wrong = tmp_path / "token"
    wrong.write_text("f" * 64)
    without = service.cluster.python(code, RAY_AUTH_MODE="disabled")
    with_wrong = service.cluster.python(code, RAY_AUTH_TOKEN_PATH=str(wrong))
    for refused in (without, with_wrong):
        assert refused.returncode != 0
        assert "inside" not in refused.stdout
    assert "inside" in service.cluster.python(code).stdout


def test_no_secret_is_seen(service: Service) -> None:
    """Neither in command lines nor in what was written: logs, packages, MLflow's artifacts."""
    secrets = [
        service.cluster.token.read_text().strip(),
        service.tracking["MLFLOW_TRACKING_PASSWORD"],
    ]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_bytes()
        except OSError:
            continue
        assert not any(secret.encode() in line for secret in secrets), line[:300]
    written = [
        *service.cluster.folder.glob("*.log"),
        *(service.cluster.folder / "state").rglob("*"),
        *(service.cluster.folder / "mlflow").rglob("*"),
        *(path for machine in service.cluster.machines for path in machine.files.rglob("*")),
    ]
    seen = [
        path
        for path in written
        if path.is_file() and any(secret.encode() in path.read_bytes() for secret in secrets)
    ]
    assert seen == []
