"""Start a machine of the Ray cluster: settings from the environment, secrets from files.

    python docker/entry/ray_node.py head|worker

It becomes `ray start --block`, which answers only to who has the token.

    RAY_AUTH_TOKEN_PATH    a file with the token of the cluster, closed to others; needed
    SWEEPS_HOST            the address or name of this machine; 127.0.0.1, where it is alone and
                           listens on loopback only; `auto` is where its own host name leads to
    RAY_HEAD               host:port of the head, for a worker, which waits for it
    RAY_HEAD_WAIT_S        how long; 120
    RAY_PORT               of the head; 6379
    RAY_DASHBOARD_PORT     of the head; 8265
    RAY_METRICS_PORT       for Prometheus; any free one
    RAY_AGENT_PORT         for health checks and jobs; 52365
    RAY_NUM_CPUS, RAY_NUM_GPUS, RAY_OBJECT_STORE_BYTES    as many as Ray finds
    RAY_TEMP_DIR           where Ray's own files go, into a private folder; TMPDIR or /tmp
    SWEEPS_STATE           of a head: the state directory, which no other head may have
    MLFLOW_TRACKING_PASSWORD_FILE    for the sweeps' drivers, which run on the head
    RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S    seconds; 30

Other users can read none of Ray's files (sockets, logs, the code of jobs). A start removes those of
nodes that are over. The server of Ray Client, which nothing here uses, is not started.

SIGTERM is the notice that the machine goes, as a spot instance does: Ray gives it no more work, its
trials save themselves and go on elsewhere, and then it ends.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from sweeps.cluster.ray_environment import INNER, make_ray_scratch
from sweeps.records.lock import locked_file
from sweeps.server.secret_file import read_secret
from trainables.errors import UserError

LOOPBACK = "127.0.0.1"
REFUSED = 2  # exit code
LEAST = 32  # characters of the token
TRY_S = 5.0
# How long a connection may be silent: after Ray's 20 s trials would begin again from a checkpoint,
# though the head waits for about 70 s before it takes a machine for dead.
KEEPALIVE, KEEPALIVE_MS = "RAY_grpc_keepalive_timeout_ms", "60000"
OPTIONS = {
    "--num-cpus": "RAY_NUM_CPUS",
    "--num-gpus": "RAY_NUM_GPUS",
    "--object-store-memory": "RAY_OBJECT_STORE_BYTES",
    "--metrics-export-port": "RAY_METRICS_PORT",
    "--dashboard-agent-listen-port": "RAY_AGENT_PORT",
}
HEAD_OPTIONS = {
    "--port": "RAY_PORT",
    "--dashboard-port": "RAY_DASHBOARD_PORT",
}
DEFAULTS = {"RAY_PORT": "6379", "RAY_DASHBOARD_PORT": "8265"}
# `ray start --head` opens the port of Ray Client unless its dependencies are missing, and has no
# option against it: so this says that they are.
START_RAY = """
from ray.scripts import scripts
scripts.get_ray_client_dependency_error = lambda: ImportError("the server of Ray Client is off")
scripts.main()
"""


def main() -> NoReturn:
    try:
        command, secrets = prepare(sys.argv[1:], os.environ)
        if "--head" in command:
            hold_state(os.environ)
        command += ["--temp-dir", private_folder(os.environ)]
    except UserError as error:
        print(f"ray_node: {error}", file=sys.stderr)
        sys.exit(REFUSED)
    os.environ.update(secrets)
    os.execv(command[0], command)


def prepare(
    arguments: list[str], environment: Mapping[str, str]
) -> tuple[list[str], dict[str, str]]:
    """The command that starts Ray, and what it needs in its environment besides.

    Raises:
        UserError: a setting is missing or cannot be, or the head does not answer.
    """
    if arguments not in (["head"], ["worker"]):
        raise UserError("say what this machine is: ray_node.py head, or ray_node.py worker")
    if read_secret(environment, "RAY_AUTH_TOKEN_PATH", LEAST) is None:
        raise UserError(
            "RAY_AUTH_TOKEN_PATH is not set; name a file with the cluster's token (openssl rand"
            " -hex 32), the same on all machines"
        )
    besides = {
        "RAY_AUTH_MODE": "token",
        "RAY_USAGE_STATS_ENABLED": "0",
        KEEPALIVE: environment.get(KEEPALIVE) or KEEPALIVE_MS,
        # The commands of jobs find the same Python, and `ray` itself.
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", "")]),
    }
    host = environment.get("SWEEPS_HOST") or LOOPBACK
    address = _address(socket.gethostname() if host == "auto" else host)
    if address == LOOPBACK:
        besides["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # else Ray takes another address
    command = [sys.executable, "-P", "-c", START_RAY, "start", "--block"]
    command += ["--disable-usage-stats", "--node-ip-address", address]
    command += _options(OPTIONS, environment)
    if arguments == ["head"]:
        password = read_secret(environment, "MLFLOW_TRACKING_PASSWORD_FILE", 1)
        if password is not None:
            besides["MLFLOW_TRACKING_PASSWORD"] = password
        command += ["--head", "--dashboard-host", address]
        command += _options(HEAD_OPTIONS, {**DEFAULTS, **environment})
    else:
        command += ["--address", _head(environment)]
    return command, besides


def hold_state(environment: Mapping[str, str]) -> None:
    """Lock the state directory, if there is one, for as long as this process and Ray live.

    Raises:
        UserError: it is that of another head, or it cannot be locked.
    """
    if state := environment.get("SWEEPS_STATE"):
        file = locked_file(
            Path(state) / "head.json",
            f"the state directory {state}, which belongs to one head,",
            "stop that head, or give this one another directory by SWEEPS_STATE",
        )
        os.set_inheritable(os.dup(file.fileno()), True)  # `file` itself is closed now


def private_folder(environment: Mapping[str, str]) -> str:
    """Make the folder of Ray's own files, which is kept for as long as this process and Ray live.

    Raises:
        UserError: it cannot be where the environment says, or its path is too long for sockets.
    """
    scratch = make_ray_scratch(environment.get("RAY_TEMP_DIR") or None)
    scratch.keep_over_exec()
    return str(scratch.path / INNER)


def _options(names: Mapping[str, str], environment: Mapping[str, str]) -> list[str]:
    """Of the flags those whose variable is set."""
    given = {flag: environment.get(name, "") for flag, name in names.items()}
    return [word for flag, value in given.items() if value for word in (flag, value)]


def _address(host: str) -> str:
    try:
        return socket.gethostbyname(host)
    except OSError as error:
        raise UserError(f"SWEEPS_HOST={host} has no address: {error.strerror}") from None


def _head(environment: Mapping[str, str]) -> str:
    """Wait until the head listens; where it does, with its IP address."""
    given = environment.get("RAY_HEAD", "")
    host, _, port = given.rpartition(":")
    if not host or not port.isdigit():
        raise UserError(f"RAY_HEAD={given}: the head is expected as host:port, such as head:6379")
    wait_s = float(environment.get("RAY_HEAD_WAIT_S") or 120)
    deadline_s = time.monotonic() + wait_s
    while True:
        try:
            with socket.create_connection((host, int(port)), TRY_S) as connection:
                return f"{connection.getpeername()[0]}:{port}"
        except OSError as error:
            if time.monotonic() > deadline_s:
                raise UserError(
                    f"no head answers at RAY_HEAD={given} after {wait_s:g} s: {error.strerror}"
                ) from None
            time.sleep(0.5)


if __name__ == "__main__":
    main()
