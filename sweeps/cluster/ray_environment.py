"""What Ray needs before its import: environment variables, and a folder for sockets and logs."""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path

from sweeps.process import signals
from trainables.errors import UserError
from trainables.persistence.scratch import ScratchFolder

SOCKET_BYTES = 107  # the longest path of a socket
RAY_BYTES = 82  # what Ray adds to the base: our folder, a session and `sockets/plasma_store`
BASES = ("/tmp", "/var/tmp", "/dev/shm")  # if TMPDIR is not usable
INNER = "r"  # Ray makes its folder writable for every user, so it gets one inside a private one

ALWAYS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # it prints a box and each error at any verbosity
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # workers stay where the user's own models are found
    "PL_DISABLE_FORK": "1",  # as Tune sets it in its actors
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # `sweeps.process.signals` handles signals
    "TUNE_GLOBAL_CHECKPOINT_S": "1e9",  # no sweep resumes from Tune's state
    "TUNE_WARN_THRESHOLD_S": "3600",
    "TUNE_MAX_PENDING_TRIALS_PG": "64",  # workers that start at the same time
}
LOOPBACK = {  # Ray on this machine alone: by default all its ports are open to the network
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # binds to loopback, as Ray does on those systems
    "RAY_AUTH_MODE": "token",
    # Where no worker can start, the driver would wait for one for ever inside C++.
    "RAY_prestart_worker_first_driver": "0",
}

AHEAD = {"RAY_preload_python_modules": "trainables.worker.ray_trial"}  # by workers without a task


def prepare_ray(address: str | None) -> None:
    """Set the environment variables that are not set yet.

    Args:
        address: of a cluster; None for Ray on this machine, which then listens on loopback only and
            requires a token that only this process knows.
    """
    wanted = dict(ALWAYS)
    if address is None:
        wanted |= LOOPBACK | AHEAD
        if "RAY_AUTH_TOKEN_PATH" not in os.environ:
            wanted["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    for name, value in wanted.items():
        os.environ.setdefault(name, value)


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """Context manager: yield a private temporary folder with a path short enough for Ray's sockets.

    Raises:
        UserError: no such folder can be created.
    """
    scratch = make_ray_scratch()
    signals.before_exit(scratch.remove)
    try:
        yield scratch.path / INNER
    finally:
        scratch.remove()


def make_ray_scratch(base: str | None = None) -> ScratchFolder:
    """Make a private temporary folder, with a folder for Ray, `INNER`, in it.

    Args:
        base: the folder that it is made in; None takes the first of TMPDIR and `BASES` that is
            writable and has a short path.

    Raises:
        UserError: no such folder can be created.
    """
    for folder in _bases() if base is None else [base]:
        if len(os.fsencode(folder)) + RAY_BYTES <= SOCKET_BYTES:
            with contextlib.suppress(OSError):
                scratch = ScratchFolder(Path(folder))
                (scratch.path / INNER).mkdir()
                return scratch
    raise UserError(
        "Ray needs a temporary folder that is writable and has a path of at most"
        f" {SOCKET_BYTES - RAY_BYTES} characters; name one by"
        f" {'TMPDIR' if base is None else 'RAY_TEMP_DIR'}"
    )


def _bases() -> list[str]:
    with contextlib.suppress(FileNotFoundError):  # no folder at all is writable
        return [tempfile.gettempdir(), *BASES]
    return list(BASES)
