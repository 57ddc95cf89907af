"""docker/make-secrets.sh: who may read what it makes, and for which machine."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from tests.docker.files import DOCKER, example, load, run

ADDRESS = "10.0.0.1"


@pytest.fixture
def docker_folder(tmp_path: Path) -> Path:
    """A copy of what the script needs."""
    folder = tmp_path / "docker"
    folder.mkdir()
    for name in ("make-secrets.sh", ".env.example"):
        shutil.copy(DOCKER / name, folder)
    return folder


def make_secrets(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run("sh", "docker/make-secrets.sh", *arguments, cwd=folder.parent)


def contents(folder: Path) -> dict[str, str]:
    files = [*(folder / "secrets").iterdir(), folder / ".env"]
    return {path.name: path.read_text(encoding="utf-8") for path in files}


def settings_of(folder: Path) -> dict[str, str]:
    lines = (folder / ".env").read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def test_the_script_makes_every_secret_for_its_owner_only(docker_folder: Path) -> None:
    done = make_secrets(docker_folder)
    assert done.returncode == 0, done.stderr
    made = contents(docker_folder)
    named = load("compose.yaml", example())["secrets"].values()
    assert made.keys() == {Path(each["file"]).name for each in named} | {".env"}
    random = [made[name] for name in made if name not in (".env", "aws_credentials")]
    assert len(set(random)) == len(random)
    assert all(re.fullmatch("[0-9a-f]{20}|[0-9a-f]{64}", each) for each in random)
    assert made["s3_secret_key"] in made["aws_credentials"]
    assert not any(each in done.stdout + made[".env"] for each in random)
    for path in (docker_folder / "secrets").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert path.stat().st_uid == int(settings_of(docker_folder)["SWEEPS_UID"]) != 0
    assert "SWEEPS_STORAGE_URI" not in settings_of(docker_folder)


def test_the_script_never_overwrites(docker_folder: Path) -> None:
    make_secrets(docker_folder)
    before = contents(docker_folder)
    assert make_secrets(docker_folder, ADDRESS).returncode == 0
    assert contents(docker_folder) == before


def test_the_script_prepares_several_machines(docker_folder: Path) -> None:
    assert make_secrets(docker_folder, ADDRESS).returncode == 0
    head = settings_of(docker_folder)
    assert head["SWEEPS_HOST"] == head["SWEEPS_HEAD"] == head["S3_PUBLISH_HOST"] == ADDRESS
    project = load("compose.head.yaml", head)
    assert project["services"]["minio"]["ports"] == [f"{ADDRESS}:9000:9000"]
    assert project["services"]["mlflow"]["ports"] == ["127.0.0.1:5000:5000"]

    for name in os.listdir(docker_folder / "secrets"):
        if name not in ("ray_token", "aws_credentials"):
            (docker_folder / "secrets" / name).unlink()
    (docker_folder / ".env").unlink()
    assert make_secrets(docker_folder, "10.0.0.2", ADDRESS).returncode == 0
    worker = settings_of(docker_folder)
    assert worker["SWEEPS_HOST"] == "10.0.0.2"
    assert {n: worker[n] for n in ("SWEEPS_STORAGE_URI", "AWS_ENDPOINT_URL_S3")} == {
        n: head[n] for n in ("SWEEPS_STORAGE_URI", "AWS_ENDPOINT_URL_S3")
    }
    environment = load("compose.worker.yaml", worker)["services"]["ray-worker"]["environment"]
    assert environment["RAY_HEAD"] == f"{ADDRESS}:6379"


def test_the_script_makes_no_token_of_its_own_for_a_worker(docker_folder: Path) -> None:
    done = make_secrets(docker_folder, "10.0.0.2", ADDRESS)
    assert done.returncode == 2
    assert "ray_token is missing; copy it from the head" in done.stderr
    assert not (docker_folder / ".env").exists()
