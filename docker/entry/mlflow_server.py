"""Start the MLflow server of the service: settings from the environment, secrets from files.

    python docker/entry/mlflow_server.py

It waits for the database, brings its tables up to date (once, also when several servers start
together), and becomes `mlflow server`, whose health is at GET /health. All that it writes itself is
in the temporary folder.

    MLFLOW_HOST                     the address to listen on; 127.0.0.1
    MLFLOW_PORT                     5000
    MLFLOW_ALLOWED_HOSTS            names under which clients reach it, with commas; those of this
                                    machine and MLFLOW_HOST are always among them
    MLFLOW_BACKEND_STORE_URI        postgresql+psycopg://USER@HOST:PORT/DATABASE, or sqlite:///PATH
    MLFLOW_DATABASE_PASSWORD_FILE   of USER on PostgreSQL
    MLFLOW_DATABASE_WAIT_S          how long to wait for the database; 60
    MLFLOW_ARTIFACTS_DESTINATION    a folder or s3:// URI
    MLFLOW_ADMIN_USERNAME           admin
    MLFLOW_ADMIN_PASSWORD_FILE      of this user, who is made, or given this password if need be
    MLFLOW_SECRET_KEY_FILE          for the forms of the user pages
    MLFLOW_AUTH_DATABASE_URI        where users are kept; in the database above

With the two files of the admin it asks for a user and a password; beyond loopback it does not start
without.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from configparser import RawConfigParser
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

from analysis.text.messages import first_line
from sweeps.server.mlflow_server import (
    LOCAL_NAMES,
    LOOPBACK,
    analyze,
    server_command,
    server_environment,
)
from sweeps.server.secret_file import read_secret
from trainables.errors import UserError

REFUSED = 2  # exit code
STORES = ("postgresql", "postgresql+psycopg", "postgresql+psycopg2", "sqlite")
ADMIN_LEAST = 12  # characters: MLflow's own rule
KEY_LEAST = 32
TRY_S = 5
NAME = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:\d+)?")
MIGRATION_LOCK = 0x6D6C666C6F77  # of PostgreSQL's advisory locks
USERS_CONFIGURATION = {
    "default_permission": "READ",  # everybody sees every sweep; who makes one manages it
    "auth_cache_ttl_seconds": "60",  # without, each request hashes the password: 150 ms
}


@dataclass(frozen=True)
class Settings:
    """How the server is to be; a value that exists is valid."""

    host: str
    port: int
    names: tuple[str, ...]
    store: str
    users: str  # database of users
    artifacts: str
    database_password: str | None
    wait_s: float
    admin: str
    admin_password: str | None  # None: it asks for no password
    secret_key: str | None


def main() -> NoReturn:
    try:
        settings = read_settings(os.environ)
        prepare(settings)
    except UserError as error:
        print(f"mlflow_server: {error}", file=sys.stderr)
        sys.exit(REFUSED)
    command = server_command(
        settings.host,
        settings.port,
        settings.names,
        settings.artifacts,
        asks_for_password=settings.admin_password is not None,
    )
    sys.stdout.flush()
    os.execv(command[0], command)


def read_settings(environment: Mapping[str, str]) -> Settings:
    """What the environment says, and the secrets in the files that it names.

    Raises:
        UserError: something is missing, cannot be, or is not as secret as it must be.
    """
    host = environment.get("MLFLOW_HOST") or LOOPBACK
    store = _store(environment, "MLFLOW_BACKEND_STORE_URI", needed=True)
    users = _store(environment, "MLFLOW_AUTH_DATABASE_URI") or store
    admin_password = read_secret(environment, "MLFLOW_ADMIN_PASSWORD_FILE", ADMIN_LEAST)
    secret_key = read_secret(environment, "MLFLOW_SECRET_KEY_FILE", KEY_LEAST)
    has_both = admin_password is not None and secret_key is not None
    if not has_both and not _is_loopback(host):
        raise UserError(
            f"MLFLOW_HOST={host} is beyond loopback, so users must log in: name a file with the"
            " admin's password in MLFLOW_ADMIN_PASSWORD_FILE and one with a random key in"
            " MLFLOW_SECRET_KEY_FILE (openssl rand -hex 32)"
        )
    if not has_both and (admin_password or secret_key):
        raise UserError(
            "MLFLOW_ADMIN_PASSWORD_FILE and MLFLOW_SECRET_KEY_FILE belong together: name both,"
            " or neither for a server without passwords on loopback"
        )
    database_password = read_secret(environment, "MLFLOW_DATABASE_PASSWORD_FILE", least=1)
    if database_password is not None and "postgresql" not in store + users:
        raise UserError(
            "MLFLOW_DATABASE_PASSWORD_FILE is for PostgreSQL; MLFLOW_BACKEND_STORE_URI names"
            " another store"
        )
    admin = environment.get("MLFLOW_ADMIN_USERNAME") or "admin"
    if ":" in admin:
        raise UserError(f"MLFLOW_ADMIN_USERNAME={admin} has a colon, which no user name may")
    return Settings(
        host,
        int(_number(environment, "MLFLOW_PORT", "5000", 1, 65535)),
        _names(host, environment.get("MLFLOW_ALLOWED_HOSTS", "")),
        store,
        users,
        _artifacts(environment),
        database_password,
        _number(environment, "MLFLOW_DATABASE_WAIT_S", "60", 0, 3600),
        admin,
        admin_password,
        secret_key,
    )


def prepare(settings: Settings) -> None:
    """Bring the database up to date; leave in the environment what the server needs of it.

    Raises:
        UserError: the database does not answer, or cannot be used.
    """
    os.environ.update(server_environment(settings.store))  # MLflow reads it when imported
    if settings.database_password is not None:
        os.environ["PGPASSWORD"] = settings.database_password  # so no URI and no message has it
    if settings.secret_key is not None:
        os.environ["MLFLOW_FLASK_SERVER_SECRET_KEY"] = settings.secret_key
    with contextlib.ExitStack() as databases:
        for uri in dict.fromkeys((settings.store, settings.users)):
            databases.enter_context(_only_here(uri, settings.wait_s))
        _migrate(settings)
    analyze(settings.store)


def _migrate(settings: Settings) -> None:
    from mlflow.db import upgrade
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    assert upgrade.callback is not None
    try:
        upgrade.callback(settings.store)  # here: as a command it would show the URI to `ps`
        if settings.admin_password is not None:
            _prepare_users(settings, settings.admin_password)
    except (MlflowException, SQLAlchemyError, OSError) as error:
        raise UserError(f"the database cannot be used: {first_line(error)}") from None


def _prepare_users(settings: Settings, password: str) -> None:
    """Make the tables of users and the admin, or give them the form and the password of today."""
    configuration = RawConfigParser()
    configuration["mlflow"] = {
        **USERS_CONFIGURATION,
        "admin_username": settings.admin,  # made here: the server needs no password of theirs
        "database_uri": settings.users.replace("%", "%%"),  # MLflow interpolates
    }
    path = Path(tempfile.mkdtemp(prefix="mlflow-server-")) / "basic_auth.ini"
    with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
        configuration.write(file)
    os.environ["MLFLOW_AUTH_CONFIG_PATH"] = str(path)
    for name in ("MLFLOW_AUTH_ADMIN_USERNAME", "MLFLOW_AUTH_ADMIN_PASSWORD"):
        os.environ.pop(name, None)  # they would outdo the file
    from mlflow.server.auth.sqlalchemy_store import SqlAlchemyStore

    users = SqlAlchemyStore()
    users.init_db(settings.users)  # runs the migrations
    if not users.has_user(settings.admin):
        users.create_user(settings.admin, password, is_admin=True)
    elif not users.authenticate_user(settings.admin, password):
        users.update_user(settings.admin, password=password, is_admin=True)
    users.engine.dispose()


@contextlib.contextmanager
def _only_here(uri: str, wait_s: float) -> Iterator[None]:
    """Wait until a database answers and no other server is changing its tables; then hold it.

    Raises:
        UserError: there was no answer in that time, or there is no such kind of database.
    """
    import sqlalchemy

    if not uri.startswith("postgresql"):  # a file of this machine's, for one server
        yield
        return
    connection = _connected(uri, wait_s)
    try:
        lock = sqlalchemy.text("SELECT pg_advisory_lock(:key)")
        connection.execute(lock, {"key": MIGRATION_LOCK})
        yield
    finally:
        connection.close()
        connection.engine.dispose()  # PostgreSQL gives the lock back when the connection ends


def _connected(uri: str, wait_s: float) -> Any:
    import sqlalchemy
    from sqlalchemy.exc import ArgumentError, SQLAlchemyError

    end_s = time.monotonic() + wait_s
    while True:
        try:
            engine = sqlalchemy.create_engine(
                uri, isolation_level="AUTOCOMMIT", connect_args={"connect_timeout": TRY_S}
            )
            return engine.connect()
        except (ArgumentError, ImportError) as error:
            raise UserError(
                "MLFLOW_BACKEND_STORE_URI cannot be used: "
                f"{first_line(error)}; for PostgreSQL it is"
                " postgresql+psycopg://USER@HOST:PORT/DATABASE"
            ) from None
        except SQLAlchemyError as error:
            if time.monotonic() > end_s:
                raise UserError(
                    f"the database does not answer after {wait_s:g} s: {first_line(error)}."
                    " See MLFLOW_BACKEND_STORE_URI, MLFLOW_DATABASE_PASSWORD_FILE and the"
                    " database's own log"
                ) from None
            time.sleep(min(1.0, wait_s))


def _store(environment: Mapping[str, str], variable: str, needed: bool = False) -> str:
    uri = environment.get(variable, "")
    if not uri and not needed:
        return ""
    if uri.partition(":")[0] not in STORES:
        raise UserError(  # the URI may have a password, so it is not shown
            f"{variable} {'names no database that is known here' if uri else 'is not set'};"
            " postgresql+psycopg://USER@HOST:PORT/DATABASE or sqlite:///PATH is expected"
        )
    return uri


def _names(host: str, listed: str) -> tuple[str, ...]:
    names = [name.strip() for name in listed.split(",") if name.strip()]
    for name in names:
        if not NAME.fullmatch(name):
            raise UserError(
                f"MLFLOW_ALLOWED_HOSTS has {name!r}; host names are expected, with commas, such as"
                " mlflow,mlflow.example.com"
            )
    own = [] if host in ("0.0.0.0", "::") else [f"[{host}]" if ":" in host else host]
    return (*LOCAL_NAMES, *own, *names)


def _artifacts(environment: Mapping[str, str]) -> str:
    variable = "MLFLOW_ARTIFACTS_DESTINATION"
    place = environment.get(variable, "")
    if not place:
        raise UserError(f"{variable} is not set; a folder or s3://BUCKET/PREFIX is expected")
    if "://" in place and not place.startswith("file://"):
        return place
    folder = Path(urlsplit(place).path if place.startswith("file://") else place).absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return str(folder)
    except OSError as error:
        raise UserError(
            f"{variable}={place}: the folder is not writable ({error.strerror}); mount a volume"
            f" there that user {os.getuid()} may write to"
        ) from None


def _number(
    environment: Mapping[str, str], variable: str, default: str, low: int, high: int
) -> float:
    text = environment.get(variable) or default
    with contextlib.suppress(ValueError):
        if low <= float(text) <= high:
            return float(text)
    raise UserError(f"{variable}={text}: a number from {low} to {high} is expected")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False


if __name__ == "__main__":
    main()
