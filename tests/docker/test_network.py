"""The service on five hosts of a network: a head, two workers, MLflow, and a client with cables.

All are started by the entry scripts of their containers. They share a file system, as with NFS.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from sweeps.records.outbox import Outbox
from sweeps.records.records import TrialRecord
from tests.docker.hosts import Network, network
from tests.docker.machines import ENTRY, ray_cluster, wait_for
from tests.docker.running import mlflow_server, secret_file
from tests.docker.service import SWEEP_S, Service
from trainables.data.verse import write_play

logger = logging.getLogger(__name__)  # figures: --log-cli-level=INFO
pytestmark = [pytest.mark.faults, pytest.mark.slow]  # some minutes, on two cores

EVERY = 1_000  # steps
SWEEP = """
name: {name}
corpus: file:play.txt
training: {{max_steps: {steps}, eval_every: {every}}}
replicates: 2
arms: [{{model: {{variant: bigram}}}}]
"""


@pytest.fixture(scope="module")
def net() -> Iterator[Network]:
    with network() as made:
        yield made


@pytest.fixture(scope="module")
def service(net: Network, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("service")
    password = secret_file(folder, "password")
    store = f"sqlite:///{folder}/mlflow.db"
    settings = {
        "MLFLOW_BACKEND_STORE_URI": store,
        "MLFLOW_AUTH_DATABASE_URI": f"sqlite:///{folder}/users.db",
        "MLFLOW_ADMIN_PASSWORD_FILE": password,
        "MLFLOW_SECRET_KEY_FILE": secret_file(folder, "key"),
    }
    with mlflow_server(folder / "mlflow", settings, net.add("mlflow")) as uri:
        login = {"MLFLOW_TRACKING_URI": uri, "MLFLOW_TRACKING_USERNAME": "admin"}
        on_head = {**login, "MLFLOW_TRACKING_PASSWORD_FILE": password}
        with ray_cluster(folder, [(0, 0), (2, 0), (2, 0)], on_head, net) as cluster:
            laptop = folder / "laptop"
            laptop.mkdir()
            (laptop / "play.txt").write_text(write_play(characters=20_000))
            tracking = {**login, "MLFLOW_TRACKING_PASSWORD": Path(password).read_text().strip()}
            yield Service(cluster, tracking, laptop, net.add("client"), store)


def write(service: Service, name: str, steps: int) -> None:
    (service.folder / f"{name}.yaml").write_text(SWEEP.format(name=name, steps=steps, every=EVERY))


def submit(service: Service, name: str, steps: int) -> None:
    write(service, name, steps)
    sent = service.sweeps("submit", f"{name}.yaml")
    assert sent.returncode == 0, sent.stdout + sent.stderr


def trials(service: Service, name: str) -> list[TrialRecord]:
    path = service.cluster.folder / "state/sweeps" / name / "outbox.db"
    if not path.exists():
        return []
    with closing(Outbox(path, name)) as outbox:
        return outbox.trials()


def trained(service: Service, name: str) -> list[int]:
    """How far each trial is, in steps, as the driver knows it."""
    return [trial.step for trial in trials(service, name)]


def check_whole(service: Service, name: str) -> None:
    """All trials of a sweep are finished, each is one run, and no step is there twice."""
    followed = service.sweeps("logs", name, "-f")
    assert followed.returncode == 0, followed.stdout + followed.stderr
    assert service.status(name)["status"] == "FINISHED", followed.stdout
    found, runs = trials(service, name), service.runs(name)
    assert [run.info.status for run in runs] == ["FINISHED"] * len(found) == ["FINISHED"] * 2
    assert len({run.data.tags["key"] for run in runs}) == 2
    for trial, steps in zip(found, service.steps(runs), strict=True):
        assert sorted(steps) == list(range(EVERY, trial.step + 1, EVERY))


# Ray takes a machine that is silent for about 70 s for dead, and that one ends its Ray after 200 s.
@pytest.mark.parametrize(
    ("cut_s", "steps", "restarts"),
    [(40, 60_000, 0), (100, 150_000, 1), (300, 150_000, 1)],
)
def test_a_worker_that_is_cut_off(
    service: Service, net: Network, cut_s: int, steps: int, restarts: int
) -> None:
    """After a short cut its trials go on there; after a long one, elsewhere, started again once."""
    name = f"cut-{cut_s}"
    submit(service, name, steps)
    wait_for(lambda: min(trained(service, name), default=0) > 0, SWEEP_S, "trials", 0.5)
    victim = next(machine for machine in service.cluster.machines[1:] if machine.trials())
    carried = len(victim.trials())
    net.cut(victim.name)
    begin_s, continued_s = time.monotonic(), []
    while time.monotonic() < begin_s + cut_s:
        time.sleep(0.5)
        if not continued_s and any(trial.restarts for trial in trials(service, name)):
            continued_s.append(time.monotonic() - begin_s)
    net.mend(victim.name)
    logger.info("cut off for %d s: continued elsewhere after %s s", cut_s, continued_s)
    if restarts:
        assert continued_s
        wait_for(lambda: victim.has_ended, 60, "the end of a Ray that was taken for dead")
        victim.start()
        wait_for(lambda: service.cluster.joined() == 3, 60, "the worker that is back")
    else:
        assert len(victim.trials()) == carried
    check_whole(service, name)
    found = trials(service, name)
    logger.info("steps trained again: %s", [trial.recomputed for trial in found])
    log = service.sweeps("logs", name).stdout
    assert sorted(trial.restarts for trial in found)[-carried:] == [restarts] * carried, log
    assert sum(trial.restarts for trial in found) == restarts * carried, log


def test_a_sweep_over_slow_cables_that_lose_frames(service: Service, net: Network) -> None:
    """200 ms each way and 2 % between the client, the head and MLflow."""
    quick = timed(service, "quick")
    for name in ("client", "mlflow"):
        net.slow_down(name, 0.2, 0.02)
    try:
        slow = timed(service, "slow")
    finally:
        for name in ("client", "mlflow"):
            net.speed_up(name)
    logger.info("seconds to submit, and until it has ended: %s; slow: %s", quick, slow)


def test_a_second_head_on_another_host_is_refused(service: Service, net: Network) -> None:
    rival = net.add("rival")
    settings = {
        "SWEEPS_HOST": rival.address,
        "SWEEPS_STATE": str(service.cluster.folder / "state"),
        "RAY_AUTH_TOKEN_PATH": str(service.cluster.token),
    }
    done = subprocess.run(
        [*rival.command, sys.executable, ENTRY, "head"],
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2, done.stderr
    assert "which belongs to one head, is held by process" in done.stderr


def timed(service: Service, name: str) -> tuple[float, float]:
    """Submit a sweep and wait for its end: seconds until it was sent, and until it has ended."""
    begin_s = time.monotonic()
    submit(service, name, 10_000)
    sent_s = time.monotonic() - begin_s
    check_whole(service, name)
    return sent_s, time.monotonic() - begin_s


@pytest.mark.parametrize("share", [0.5, 0.7, 0.85, 0.95])
def test_a_client_that_vanishes_while_it_submits(
    service: Service, net: Network, share: float
) -> None:
    """The sweep is not there or whole, and another client can submit it again."""
    laptop = replace(service, client=net.add("laptop"))
    net.slow_down("laptop", 0.2, 0.0)  # so that it spends its time in requests
    begin_s = time.monotonic()
    submit(laptop, f"whole-{share}", 2_000)
    whole_s = time.monotonic() - begin_s
    name = f"torn-{share}"
    write(laptop, name, 2_000)
    process = subprocess.Popen(**laptop.command("submit", f"{name}.yaml"))
    time.sleep(share * whole_s)
    assert process.poll() is None
    net.remove("laptop")
    process.wait(5)

    listed = json.loads(service.sweeps("status", "--json").stdout)
    is_there = any(job["sweep"] == name for job in listed)
    logger.info("after %.1f s of %.1f s: %s", share * whole_s, whole_s, is_there)
    if is_there:
        check_whole(service, name)
    again = service.sweeps("submit", f"{name}.yaml")
    assert again.returncode == 0, again.stdout + again.stderr
    check_whole(service, name)
    check_whole(service, f"whole-{share}")
