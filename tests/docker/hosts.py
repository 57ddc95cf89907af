"""The hosts that the tests' servers run on: addresses of loopback, or namespaces of a network.

A `Network` has what a real one has: each host has its own interface, address and ports, and its
cable can be pulled, or made slow and lossy. It needs root and `ip`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

SLOW_WIRE = Path(__file__).with_name("slow_wire.py")
PREFIX = "sweeps-"  # of the namespaces, before the id of their process
SUBNET = "10.213.7"


def free_port(address: str = "127.0.0.1") -> int:
    """Return a port of an address of this machine that nothing listens at."""
    with socket.create_server((address, 0)) as probe:
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Host:
    """Where a server listens; by default an address of loopback."""

    address: str
    command: tuple[str, ...] = ()  # before each command that is to run there

    def port(self, usual: int) -> int:
        """Return a port that is free there: the usual one, where nothing else can have it."""
        return usual if self.command else free_port(self.address)


@dataclass
class Loopback:
    """Hosts from 127.0.0.2 on, as addresses of this machine."""

    hosts: list[Host] = field(default_factory=list)

    def add(self, name: str) -> Host:
        """Add a host; its name is for those who read the test."""
        self.hosts.append(Host(f"127.0.0.{len(self.hosts) + 2}"))
        return self.hosts[-1]


@dataclass
class Network:
    """Hosts as network namespaces, whose cables (veth pairs) end at a bridge.

    The bridge is in a namespace of its own, `switch`, so nothing of it is seen outside.
    """

    hosts: dict[str, Host] = field(default_factory=dict)
    wires: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)  # the slow ones
    added: int = 0

    def __post_init__(self) -> None:
        self.prefix = f"{PREFIX}{os.getpid()}-"
        self._make("switch")
        self._at_switch("link", "add", "bridge", "type", "bridge")
        self._at_switch("link", "set", "bridge", "up")

    def add(self, name: str) -> Host:
        """Add a host with the next address, from 10.213.7.1 on."""
        self.added += 1
        self._make(name)
        inside = ("ip", "netns", "exec", self.prefix + name)
        host = Host(f"{SUBNET}.{self.added}", inside)
        there = self.prefix + name
        self._at_switch("link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", there)
        self._at_switch("link", "set", name, "master", "bridge", "up")
        _ip("-n", there, "address", "add", f"{host.address}/24", "dev", "eth0")
        _ip("-n", there, "link", "set", "eth0", "up")
        self.hosts[name] = host
        return host

    def cut(self, name: str) -> None:
        """Pull the cable of a host."""
        self._at_switch("link", "set", name, "down")

    def mend(self, name: str) -> None:
        """Plug the cable in again."""
        self._at_switch("link", "set", name, "up")

    def slow_down(self, name: str, delay_s: float, loss: float) -> None:
        """Delay each frame from and to a host, and lose a share of them.

        Two bridges with a process between them: the kernel's netem is not on every machine.
        """
        near, far = f"{name}-near", f"{name}-far"
        wire = subprocess.Popen(
            ["ip", "netns", "exec", f"{self.prefix}switch", sys.executable, str(SLOW_WIRE),
             near, far, str(delay_s), str(loss)],
            stdout=subprocess.PIPE,
        )  # fmt: skip
        self.wires[name] = wire
        assert wire.stdout is not None
        assert wire.stdout.readline() == b"ready\n"
        apart = f"{name}-apart"
        self._at_switch("link", "add", apart, "type", "bridge")
        for port, bridge in ((near, apart), (far, "bridge"), (name, apart)):
            self._at_switch("link", "set", port, "master", bridge, "up")
        self._at_switch("link", "set", apart, "up")

    def speed_up(self, name: str) -> None:
        """Undo `slow_down`."""
        self._at_switch("link", "set", name, "master", "bridge")
        self._at_switch("link", "del", f"{name}-apart")
        self._end_wire(name)

    def remove(self, name: str) -> None:
        """Remove a host as if it had burnt down: nothing that it runs says goodbye."""
        self._at_switch("link", "del", name)
        remove_namespace(self.prefix + name)
        if name in self.wires:
            self._at_switch("link", "del", f"{name}-apart")
            self._end_wire(name)
        del self.hosts[name]

    def close(self) -> None:
        """End all that runs in the namespaces, and remove them."""
        for name in list(self.wires):
            self._end_wire(name)
        for name in [*self.hosts, "switch"]:
            with contextlib.suppress(subprocess.CalledProcessError):
                remove_namespace(self.prefix + name)

    def _make(self, name: str) -> None:
        _ip("netns", "add", self.prefix + name)
        _ip("-n", self.prefix + name, "link", "set", "lo", "up")

    def _end_wire(self, name: str) -> None:
        wire = self.wires.pop(name)
        wire.kill()
        wire.wait()

    def _at_switch(self, *arguments: str) -> None:
        _ip("-n", f"{self.prefix}switch", *arguments)


@contextlib.contextmanager
def network() -> Iterator[Network]:
    """Context manager: a network without hosts; skips the test where none can be made."""
    if os.getuid() != 0 or not shutil.which("ip"):
        pytest.skip("network namespaces need root and `ip` (iproute2)")
    _remove_abandoned()
    try:
        made = Network()
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespaces here: {error.stderr.strip()}")
    try:
        yield made
    finally:
        made.close()


def remove_namespace(namespace: str) -> None:
    """Kill what runs in a namespace, and remove it."""
    for pid in _ip("netns", "pids", namespace).split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    _ip("netns", "del", namespace)


def namespaces() -> list[str]:
    """The namespaces of this module, of all processes."""
    names = [line.split()[0] for line in _ip("netns", "list").splitlines()]
    return [name for name in names if name.startswith(PREFIX)]


def _remove_abandoned() -> None:
    """Remove the namespaces of tests that were killed."""
    for name in namespaces():
        pid = name.removeprefix(PREFIX).partition("-")[0]
        if not Path(f"/proc/{pid}").exists():
            with contextlib.suppress(subprocess.CalledProcessError):
                remove_namespace(name)


def _ip(*arguments: str) -> str:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=True)
    return done.stdout
