"""The compose files: each says what is true of the others, and nothing is open that need not be."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.docker.files import COMPOSE, DOCKER, STARTED, example, load, variables

MAY_BE_ROOT = {"state-owner", "volume-owner"}  # they give volumes to the user, once
EVERY_SERVICE = [
    (name, service, settings)
    for name in STARTED
    for service, settings in load(name, example()).get("services", {}).items()
]
every_service = pytest.mark.parametrize(
    ("file", "service", "settings"), EVERY_SERVICE, ids=[f"{f}:{s}" for f, s, _ in EVERY_SERVICE]
)


@pytest.mark.parametrize("path", COMPOSE, ids=lambda path: path.name)
def test_every_variable_is_in_the_example_with_its_default(path: Path) -> None:
    known = example()
    for name, default in variables(path):
        assert name in known, f"{name} of {path.name} is missing in .env.example"
        if default is not None:
            assert known[name] == default, f"{name} of {path.name} has another default"


def test_every_setting_of_the_example_is_used() -> None:
    used = {name for path in COMPOSE for name, _ in variables(path)}
    assert example().keys() == used


@pytest.mark.parametrize("file", STARTED)
def test_what_a_file_refers_to_is_there(file: str) -> None:
    project = load(file, example())
    services, secrets = project["services"], project["secrets"]
    for name, service in services.items():
        assert set(service.get("depends_on", {})) <= services.keys(), name
        assert set(service.get("secrets", [])) <= secrets.keys(), name
        assert set(service.get("networks", [])) <= project.get("networks", {}).keys(), name
        sources = {v["source"] for v in service.get("volumes", []) if v["type"] == "volume"}
        assert sources <= project["volumes"].keys(), name
        for path in re.findall(r"/run/secrets/(\w+)", json.dumps(service)):
            assert path in service["secrets"], f"{name} reads {path}, which it is not given"
        for bound in (v["source"] for v in service.get("volumes", []) if v["type"] == "bind"):
            assert (DOCKER / bound).is_file(), bound
    used = {secret for service in services.values() for secret in service.get("secrets", [])}
    assert used == secrets.keys()


@every_service
def test_a_service_waits_for_what_it_needs_to_be_ready(
    file: str, service: str, settings: dict[str, Any]
) -> None:
    services = load(file, example())["services"]
    for name, need in settings.get("depends_on", {}).items():
        once = services[name].get("restart") == "no"
        ready = "service_completed_successfully" if once else "service_healthy"
        assert need["condition"] == ready, f"{service} -> {name}"
        if "profiles" in services[name]:  # which may be off
            assert need.get("required") is False or services[name]["profiles"] == settings.get(
                "profiles"
            )


@every_service
def test_a_service_has_no_more_rights_than_it_needs(
    file: str, service: str, settings: dict[str, Any]
) -> None:
    assert settings["read_only"] is True
    assert settings["cap_drop"] == ["ALL"]
    assert settings["security_opt"] == ["no-new-privileges:true"]
    assert not settings.keys() & {"privileged", "pid", "ipc", "devices"}
    if service in MAY_BE_ROOT:
        assert settings["cap_add"] == ["CHOWN"]
        assert settings["network_mode"] == "none"
        assert settings["restart"] == "no"
    else:
        assert settings["user"] == "1000:1000"
        assert "cap_add" not in settings


@every_service
def test_an_image_is_pinned(file: str, service: str, settings: dict[str, Any]) -> None:
    tag = settings["image"].rpartition(":")[2]
    assert re.search(r"\d+[.-]\d+", tag), settings["image"]


@every_service
def test_long_running_services_have_limits_health_and_time_to_stop(
    file: str, service: str, settings: dict[str, Any]
) -> None:
    if settings["restart"] == "no":
        return
    assert settings["restart"] == "unless-stopped"
    assert settings["stop_grace_period"].endswith("s")
    own_image = "bigram-sweeps" in settings["image"]
    assert "healthcheck" in settings or (own_image and "ray_node.py" in str(settings["command"]))
    if file != "compose.worker.yaml":  # there the machine is the limit
        assert settings["deploy"]["resources"]["limits"].keys() == {"cpus", "memory"}


@every_service
def test_nothing_is_published_beyond_loopback_unless_asked(
    file: str, service: str, settings: dict[str, Any]
) -> None:
    for port in settings.get("ports", []):
        assert port.startswith("127.0.0.1:"), port
    if settings.get("network_mode") == "host":
        assert file != "compose.yaml"
        assert settings["environment"]["SWEEPS_HOST"]


@pytest.mark.parametrize("file", ["compose.head.yaml", "compose.worker.yaml"])
def test_several_machines_need_an_address(file: str) -> None:
    settings = {name: value for name, value in example().items() if name != "SWEEPS_HOST"}
    with pytest.raises(KeyError, match="SWEEPS_HOST"):
        load(file, settings)


def test_secrets_are_given_to_those_only_who_need_them() -> None:
    services = load("compose.yaml", example())["services"]
    who = {
        secret: {name for name, each in services.items() if secret in each.get("secrets", [])}
        for secret in ("ray_token", "postgres_password", "mlflow_admin_password", "s3_secret_key")
    }
    rays = {"ray-head", "ray-worker", "ray-gpu-worker"}
    assert who == {
        "ray_token": rays | {"prometheus"},
        "postgres_password": {"mlflow", "postgres"},
        "mlflow_admin_password": {"mlflow", "ray-head"},
        "s3_secret_key": {"minio"},
    }


def test_the_database_is_reached_by_mlflow_alone() -> None:
    project = load("compose.yaml", example())
    assert project["networks"]["database"] == {"internal": True}
    there = {n for n, s in project["services"].items() if "database" in s.get("networks", [])}
    assert there == {"mlflow", "postgres"}
    assert project["services"]["postgres"]["networks"] == ["database"]
