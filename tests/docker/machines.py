"""Machines of a Ray cluster, each started by the containers' own entry script on a host."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.docker.hosts import Loopback, Network
from tests.docker.running import secret_file
from tests.processes import descendants

ROOT = Path(__file__).parents[2]
ENTRY = ROOT / "docker/entry/ray_node.py"
START_S = 120.0
RESTARTS = 3
TRIAL = ("ray::ResourceTrainable", "ray::RayTrial")  # at work, and while it waits for the driver


def wait_for(condition: Callable[[], bool], wait_s: float, what: str, every_s: float = 0.2) -> None:
    deadline_s = time.monotonic() + wait_s
    while not condition():
        assert time.monotonic() < deadline_s, f"{what} did not come in {wait_s:g} s"
        time.sleep(every_s)


@dataclass
class Machine:
    """One machine: the entry script and all that it started."""

    name: str  # of its host in the network
    run: Callable[[], subprocess.Popen[bytes]]  # starts the entry script
    log: Path
    files: Path  # Ray's own: machines that share them disturb each other

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        """Start it, as Compose does each time that it has ended."""
        self.log.touch()
        self.begin = self.log.stat().st_size
        self.process = self.run()

    @property
    def is_up(self) -> bool:
        """Whether Ray has started here."""
        return "will now block forever" in self.log.read_text()[self.begin :]

    @property
    def has_ended(self) -> bool:
        """Whether Ray has ended here."""
        return self.process.poll() is not None

    def pids(self) -> list[int]:
        return [self.process.pid, *(pid for pid, _ in descendants(self.process.pid))]

    def trials(self) -> list[int]:
        """The processes that carry trials."""
        found = descendants(self.process.pid)
        return [pid for pid, title in found if title.startswith(TRIAL)]

    def kill(self) -> None:
        """As when the power goes: nothing of it says goodbye."""
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


@dataclass
class Cluster:
    """A head and its workers, each on a host of its own."""

    folder: Path
    network: Loopback | Network = field(default_factory=Loopback)
    environment: dict[str, str] = field(default_factory=dict)  # of the head, besides
    machines: list[Machine] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.token = Path(secret_file(self.folder, "token"))
        self.head_host = self.network.add("head")
        self.port, self.dashboard_port = self.head_host.port(6379), self.head_host.port(8265)

    @property
    def dashboard(self) -> str:
        return f"http://{self.head_host.address}:{self.dashboard_port}"

    @property
    def client(self) -> dict[str, str]:
        """The environment of somebody outside who has the token."""
        return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(self.token)}

    def start(self, cpus: int = 1, gpus: int = 0, **environment: str) -> Machine:
        """Start one more machine; the first one is the head."""
        number = len(self.machines)
        role = "worker" if number else "head"
        name = f"{role}-{number}" if number else role
        host = self.network.add(name) if number else self.head_host
        settings = {
            "SWEEPS_HOST": host.address,
            "RAY_HEAD": f"{self.head_host.address}:{self.port}",
            "RAY_PORT": str(self.port),
            "RAY_DASHBOARD_PORT": str(self.dashboard_port),
            "RAY_AGENT_PORT": str(host.port(52365)),
            "RAY_AUTH_TOKEN_PATH": str(self.token),
            "RAY_NUM_CPUS": str(cpus),
            "RAY_NUM_GPUS": str(gpus),
            "RAY_OBJECT_STORE_BYTES": str(100 << 20),
            "SWEEPS_STATE": str(self.folder / "state"),
            **self.environment,
            **environment,
        }
        log = self.folder / f"{name}.log"
        # Not in pytest's folders: the path of a socket has to be short.
        settings["RAY_TEMP_DIR"] = tempfile.mkdtemp(prefix="ray-")
        os.chmod(settings["RAY_TEMP_DIR"], 0o755)  # open to others, as /tmp is

        def run() -> subprocess.Popen[bytes]:
            with log.open("ab") as output:
                return subprocess.Popen(
                    [*host.command, sys.executable, str(ENTRY), role],
                    env={**os.environ, **settings},
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                )

        machine = Machine(name, run, log, Path(settings["RAY_TEMP_DIR"]))
        self.machines.append(machine)
        for _ in range(RESTARTS):  # Ray gives up after 30 s
            wait_for(lambda: machine.is_up or machine.has_ended, START_S, "Ray")
            if machine.is_up:
                break
            machine.start()
        return machine

    def joined(self) -> int:
        """How many machines of the cluster are alive, as Ray has it."""
        code = (
            "import ray; ray.init(address='auto', log_to_driver=False, logging_level='ERROR')\n"
            "print(sum(node['Alive'] for node in ray.nodes()))"
        )
        try:
            done = self.python(code)
        except subprocess.TimeoutExpired:
            return 0
        return int(done.stdout.split()[-1]) if done.returncode == 0 else 0

    def python(self, code: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run Python on the head that connects to the cluster as one that has the token."""
        address = {"RAY_ADDRESS": f"{self.head_host.address}:{self.port}"}
        return subprocess.run(
            [*self.head_host.command, sys.executable, "-c", code],
            env={**os.environ, **self.client, **address, **environment},
            capture_output=True,
            text=True,
            timeout=60,
        )


@contextlib.contextmanager
def ray_cluster(
    folder: Path,
    sizes: Sequence[tuple[int, int]],
    environment: dict[str, str] | None = None,
    network: Network | None = None,
) -> Iterator[Cluster]:
    """Context manager: a cluster; all ends with the block.

    Args:
        folder: for logs, the token and the state directory, which all machines share.
        sizes: the CPUs and logical GPUs of each machine, the head first.
        environment: of the head, besides.
        network: which gets a host for each machine; None for addresses of loopback.
    """
    cluster = Cluster(folder, network or Loopback(), environment or {})
    try:
        for cpus, gpus in sizes:
            cluster.start(cpus, gpus)
        wait_for(lambda: cluster.joined() == len(sizes), START_S, "the cluster")
        yield cluster
    finally:
        pids = [pid for machine in cluster.machines for pid in machine.pids()]
        for machine in reversed(cluster.machines):
            machine.kill()
        wait_for(lambda: not any(map(_runs, pids)), 20, "the end of the cluster")
        for machine in cluster.machines:
            shutil.rmtree(machine.files, ignore_errors=True)


def _runs(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
