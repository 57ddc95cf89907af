"""The network of the tests: what is cut or slow there really is, and nothing is left of it."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.docker.hosts import Host, Network, namespaces, network
from tests.docker.machines import wait_for

SERVER = """
import socket, sys
server = socket.create_server((sys.argv[1], 5000))
print("listens", flush=True)
while True:
    connection, _ = server.accept()
    while data := connection.recv(65536):
        connection.sendall(data)
"""
CLIENT = """
import socket, sys, time
connection = socket.create_connection((sys.argv[1], 5000), timeout=float(sys.argv[2]))
for size in (1, 100_000):
    begin_s = time.monotonic()
    connection.sendall(bytes(size))
    left = size
    while left:
        left -= len(connection.recv(65536))
    print(time.monotonic() - begin_s)
"""
COUNT = """
import socket, sys
server, arrived = socket.socket(type=socket.SOCK_DGRAM), 0
server.bind((sys.argv[1], 6000))
server.settimeout(10)
print("listens", flush=True)
while True:
    try:
        server.recv(100)
    except TimeoutError:
        break
    server.settimeout(1)
    arrived += 1
print(arrived)
"""
SEND = """
import socket, sys, time
client = socket.socket(type=socket.SOCK_DGRAM)
for _ in range(500):
    client.sendto(b"x", (sys.argv[1], 6000))
    time.sleep(0.001)
"""


@pytest.fixture
def net() -> Iterator[Network]:
    with network() as made:
        made.add("server")
        made.add("client")
        with listening(made.hosts["server"]):
            yield made
    assert not [name for name in namespaces() if name.startswith(made.prefix)]


@contextlib.contextmanager
def listening(host: Host) -> Iterator[None]:
    """Context manager: an echo server on a host."""
    command = [*host.command, sys.executable, "-c", SERVER, host.address]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"listens\n"
        yield
        process.kill()


def echo(net: Network, wait_s: float = 5.0) -> subprocess.CompletedProcess[str]:
    """Seconds until a byte, and until 100,000 of them, are back at the client."""
    client, server = net.hosts["client"], net.hosts["server"]
    return subprocess.run(
        [*client.command, sys.executable, "-c", CLIENT, server.address, str(wait_s)],
        capture_output=True,
        text=True,
        timeout=60,
    )


def quickest_s(net: Network) -> float:
    """Of some bytes, as the machine may be busy."""
    return min(float(echo(net).stdout.split()[0]) for _ in range(5))


def test_a_cable_that_is_pulled_lets_nothing_through(net: Network) -> None:
    assert echo(net).returncode == 0
    net.cut("server")
    assert "Error" in echo(net, 0.5).stderr
    net.mend("server")
    assert echo(net).returncode == 0


def test_a_slow_wire_delays_what_passes(net: Network) -> None:
    assert quickest_s(net) < 0.1
    net.slow_down("client", 0.1, 0.0)
    assert 0.2 <= quickest_s(net) < 0.4
    net.speed_up("client")
    assert quickest_s(net) < 0.1


def test_a_wire_loses_as_much_as_it_should(net: Network) -> None:
    net.slow_down("client", 0.0, 0.1)
    wait_for(lambda: echo(net, 20.0).returncode == 0, 60, "an echo")  # ARP gives up soon, not TCP
    client, server = net.hosts["client"], net.hosts["server"]
    command = [*server.command, sys.executable, "-c", COUNT, server.address]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as counting:
        assert counting.stdout is not None
        assert counting.stdout.readline() == b"listens\n"
        send = [*client.command, sys.executable, "-c", SEND, server.address]
        subprocess.run(send, check=True, timeout=60)
        arrived = int(counting.stdout.readline())
    assert 420 < arrived < 480


def test_a_host_that_is_removed_is_gone_and_can_be_added_again(net: Network) -> None:
    net.slow_down("client", 0.0, 0.0)
    net.remove("client")
    assert not any(name.endswith("-client") for name in namespaces())
    net.add("client")
    assert echo(net).returncode == 0


def test_a_test_that_fails_leaves_no_namespace() -> None:
    with pytest.raises(ZeroDivisionError), network() as made:  # noqa: PT012
        made.add("host")
        _ = 1 / 0
    assert not [name for name in namespaces() if name.startswith(made.prefix)]
