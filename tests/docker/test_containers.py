"""The service in containers, on a real engine: what is built, who may do what, and what survives.

    make containers

Each disturbed sweep has to end with 38 trials of 38, each in one run, no step twice, and every loss
that of the undisturbed one, bit for bit.
"""

from __future__ import annotations

import contextlib
import logging
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.docker import engine
from tests.docker.engine import HOST, IMAGE, JOBS, TRIALS, Curves, Image, Stack, run

pytestmark = [pytest.mark.containers, pytest.mark.timeout(1800)]
logger = logging.getLogger(__name__)

MOST_BYTES = 1.6e9
OUTAGE_S = 30.0
BEFORE = 5  # trials that are done when the disturbance comes
SERVICES = ("ray-head", "ray-worker", "mlflow", "postgres")
SMALL_STATE = """\
volumes:
  state: {driver_opts: {type: tmpfs, device: tmpfs, o: "size=80m"}}
"""
# Of whoever asks from a fourth container without credentials: the address, and what it gets.
ANSWERS = {
    "http://mlflow:5000/api/2.0/mlflow/experiments/search?max_results=1": "401",
    "http://mlflow:5000/health": "200",
    "http://ray-head:8265/api/jobs/": "401",
    "http://ray-head:52365/api/healthz": "200",
    "http://ray-head:8080/metrics": "200",  # asks for nothing, as docker/README.md says
    "http://ray-head:10001/": "nobody",
    "http://postgres:5432/": "nobody",  # in a network of its own
}
ON_DATABASE = "import psycopg; psycopg.connect('host=postgres user=mlflow')"
ASK = """\
import sys, urllib.error, urllib.request
for url in sys.argv[1:]:
    try:
        print(urllib.request.urlopen(url, timeout=10).status)
    except urllib.error.HTTPError as error:
        print(error.code)
    except OSError:
        print("nobody")
"""


@dataclass
class Reference:
    """A stack on which a sweep has run undisturbed."""

    stack: Stack
    curves: Curves

    @contextlib.contextmanager
    def disturbed(self, name: str) -> Iterator[None]:
        """Context manager: a sweep that runs; afterwards it must end by itself, complete."""
        began = time.monotonic()
        self.stack.submit(name)
        self.stack.wait_for_trials(name, BEFORE)
        yield
        assert self.stack.wait_for_end(name) == "FINISHED"
        assert self.stack.curves(name) == self.curves
        logger.info("%s: %d of %d after %.0f s", name, TRIALS, TRIALS, time.monotonic() - began)
        for line in self.stack.logs(name):
            if line.startswith(("lost ", "faults ", "again ")):
                logger.info("%s says: %s", name, line)


@contextlib.contextmanager
def started(stack: Stack) -> Iterator[Stack]:
    try:
        logger.info("all healthy after %.0f s", stack.up())
        yield stack
    finally:
        stack.compose("down", "--volumes", "--timeout", "5")


@pytest.fixture(scope="module")
def image() -> Image:
    if reason := engine.missing():
        pytest.exit(f"make containers needs a Docker engine with Compose: {reason}", returncode=2)
    built = engine.build()
    logger.info("built in %.0f s: %.2f GB", built.built_s, built.size / 1e9)
    return built


@pytest.fixture(scope="module")
def reference(image: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reference]:
    with started(Stack(tmp_path_factory.mktemp("stack") / "docker", "sweeps-test")) as stack:
        began = time.monotonic()
        stack.submit("undisturbed")
        assert stack.wait_for_end("undisturbed") == "FINISHED"
        logger.info("undisturbed: %.0f s", time.monotonic() - began)
        yield Reference(stack, stack.curves("undisturbed"))


def test_the_image_is_small_and_names_its_commit(image: Image) -> None:
    assert image.size <= MOST_BYTES
    label = '{{index .Config.Labels "org.opencontainers.image.revision"}}'
    assert run(["docker", "image", "inspect", "--format", label, IMAGE]).strip() == image.commit


def test_each_run_names_the_commit(image: Image, reference: Reference) -> None:
    runs = reference.stack.runs("undisturbed")
    assert {each.data.tags["code_version"] for each in runs} == {f"0.1.0+{image.commit}"}


@pytest.mark.parametrize("service", SERVICES)
def test_a_container_may_do_little(reference: Reference, service: str) -> None:
    """Its first process is a normal user's without capabilities, and its root is read-only."""
    status = reference.stack.exec(service, "cat", "/proc/1/status")
    fields = dict(re.findall(r"^(\w+):\s+(.*)$", status, re.MULTILINE))
    assert set(fields["Uid"].split()) == {"1000"}
    assert {int(fields[name], 16) for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
    assert fields["NoNewPrivs"] == "1"
    root = next(
        line.split() for line in reference.stack.exec(service, "cat", "/proc/mounts").splitlines()
        if line.split()[1] == "/"
    )  # fmt: skip
    assert "ro" in root[3].split(",")


def test_nothing_is_answered_without_credentials(reference: Reference) -> None:
    asked = reference.stack.fourth("python", "-c", ASK, *ANSWERS, has_token=False)
    assert dict(zip(ANSWERS, asked.stdout.split(), strict=True)) == ANSWERS
    for network, command in (
        ("default", ["ray", "status", "--address", "ray-head:6379"]),
        ("default", ["sweeps", "submit", "quickstart", "--address", JOBS]),
        ("database", ["python", "-c", ON_DATABASE]),
    ):
        refused = reference.stack.fourth(*command, network=network, has_token=False)
        assert refused.returncode != 0, command


def test_only_loopback_is_published(reference: Reference) -> None:
    published = reference.stack.compose("ps", "--format", "{{.Ports}}")
    assert set(re.findall(r"(\S+):\d+->", published)) == {HOST}


def test_a_worker_is_killed(reference: Reference) -> None:
    stack = reference.stack
    with reference.disturbed("worker-killed"):
        run(["docker", "kill", stack.container("ray-worker", 2)])
    stack.up()


def test_the_database_is_killed_for_half_a_minute(reference: Reference) -> None:
    stack = reference.stack
    with reference.disturbed("database-killed"):
        run(["docker", "kill", stack.container("postgres")])
        time.sleep(OUTAGE_S)
        stack.compose("start", "postgres")


def test_mlflow_is_killed_while_it_is_written_to(reference: Reference) -> None:
    stack = reference.stack
    with reference.disturbed("mlflow-killed"):
        for _ in range(3):
            run(["docker", "kill", stack.container("mlflow")])
            stack.compose("start", "mlflow")
            time.sleep(10.0)
        stack.up()


def test_the_head_is_restarted(reference: Reference) -> None:
    """The workers come back by themselves; the sweep, whose driver was on the head, is resumed."""
    stack, name = reference.stack, "head-restarted"
    stack.submit(name)
    stack.wait_for_trials(name, BEFORE)
    run(["docker", "kill", stack.container("ray-head")])
    stack.compose("start", "ray-head")
    stack.up()
    stack.resume(name)
    assert stack.wait_for_end(name) == "FINISHED"
    assert stack.curves(name) == reference.curves


def test_all_goes_down_and_comes_up(reference: Reference) -> None:
    stack, name = reference.stack, "down-and-up"
    stack.submit(name)
    stack.wait_for_trials(name, BEFORE)
    stack.compose("down")
    logger.info("all healthy again after %.0f s", stack.up())
    assert stack.curves("undisturbed") == reference.curves
    stack.resume(name)
    assert stack.wait_for_end(name) == "FINISHED"
    assert stack.curves(name) == reference.curves


def test_the_volume_is_full(reference: Reference, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The sweep stops and says why; with room it goes on."""
    reference.stack.compose("stop")
    folder = tmp_path_factory.mktemp("full") / "docker"
    with started(Stack(folder, "sweeps-full", SMALL_STATE)) as stack:
        stack.submit("full")
        stack.wait_for_trials("full", BEFORE)
        fill = "dd if=/dev/zero of=/state/fill bs=64k 2>/dev/null; df /state | tail -1"
        assert "100%" in stack.exec("ray-head", "sh", "-c", fill)
        status = stack.wait_for_end("full")
        lines = "\n".join(stack.logs("full"))
        logger.info("full: %s\n%s", status, lines[-600:])
        assert status == "FAILED"
        assert re.search("no space|full|No space", lines)
        stack.exec("ray-head", "rm", "/state/fill")
        stack.resume("full")
        assert stack.wait_for_end("full") == "FINISHED"
        assert stack.curves("full") == reference.curves
