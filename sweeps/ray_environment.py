"""What Ray reads from the environment when it is imported: this comes before any import of it."""

from __future__ import annotations

import os
import secrets

ALWAYS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # prints a box and each error, whatever the verbosity
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # signals are ours to handle
    "TUNE_GLOBAL_CHECKPOINT_S": "1e9",  # nothing goes on from Tune's own state
    "TUNE_WARN_THRESHOLD_S": "3600",
    "TUNE_MAX_PENDING_TRIALS_PG": "64",  # workers that start at the same time
}
LOOPBACK = {  # Ray on this machine alone: by default all its ports are open to the network
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # binds to loopback, as Ray does on those systems
    "RAY_AUTH_MODE": "token",
}


def prepare_ray(address: str | None) -> None:
    """Set what is not set yet.

    Args:
        address: of a cluster; None for Ray on this machine, which then listens on loopback only and
            answers only to who has its token, which nobody else has.
    """
    wanted = dict(ALWAYS)
    if address is None:
        wanted |= LOOPBACK
        if "RAY_AUTH_TOKEN_PATH" not in os.environ:
            wanted["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    for name, value in wanted.items():
        os.environ.setdefault(name, value)
