"""The files of docker/ without a Docker engine: schemas, linters, and what the image is made of.

The schemas are those of Compose (in check-jsonschema), of Kubernetes (in kubernetes-validate) and
of Ray's launcher (in ray). No package has KubeRay's: see kuberay.json.
"""

from __future__ import annotations

import fnmatch
import importlib.util
import json
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml

from tests.docker.files import COMPOSE, DOCKER, KUBERNETES, ROOT, example, filled_in, run
from tests.docker.manifests import documents, every_document, pod_templates

KUBERNETES_VERSION = "1.35"


def test_compose_files_fit_the_schema_of_compose(tmp_path: Path) -> None:
    """As they are written, and with all variables filled in."""
    schema = ("--builtin-schema", "vendor.compose-spec")
    written = []
    for path in COMPOSE:
        written.append(tmp_path / path.name)
        written[-1].write_text(filled_in(path.read_text(encoding="utf-8"), example()))
    done = run(sys.executable, "-m", "check_jsonschema", *schema, *COMPOSE, *written)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_dockerfile_passes_its_linter() -> None:
    done = run("hadolint", "docker/Dockerfile")
    assert done.returncode == 0, done.stdout + done.stderr


def test_scripts_pass_their_linter() -> None:
    done = run("shellcheck", *DOCKER.rglob("*.sh"))
    assert done.returncode == 0, done.stdout + done.stderr


@every_document
def test_manifests_fit_the_schema_of_kubernetes(document: dict[str, Any]) -> None:
    if not document["apiVersion"].startswith("ray.io/"):
        kubernetes_validate.validate(document, KUBERNETES_VERSION, strict=True)
        return
    schema = json.loads((Path(__file__).parent / "kuberay.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(schema).validate(document)
    for template in pod_templates(document):
        pod = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "pod"}}
        kubernetes_validate.validate(pod | {"template": template}, KUBERNETES_VERSION, strict=True)


def test_the_launcher_file_fits_the_schema_of_ray() -> None:
    found = importlib.util.find_spec("ray")
    assert found is not None
    assert found.origin is not None
    autoscaler = Path(found.origin).parent / "autoscaler"
    schema = json.loads((autoscaler / "ray-schema.json").read_text(encoding="utf-8"))
    config = yaml.safe_load((DOCKER / "cluster.yaml").read_text(encoding="utf-8"))
    jsonschema.validate(config, schema)
    defaults = yaml.safe_load((autoscaler / "aws" / "defaults.yaml").read_text(encoding="utf-8"))
    installed_by_default = [key for key in defaults if key.endswith("setup_commands")]
    assert installed_by_default
    assert all(config[key] == [] for key in installed_by_default)


def dockerfile() -> str:
    return (DOCKER / "Dockerfile").read_text(encoding="utf-8")


def test_the_version_is_that_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    files = [DOCKER / "Dockerfile", DOCKER / "cluster.yaml", *COMPOSE, *KUBERNETES]
    named = [
        version
        for path in files
        for version in re.findall(
            r"(?:bigram-sweeps:|image\.version=\")([0-9.]+)-", path.read_text(encoding="utf-8")
        )
    ]
    assert len(named) >= len(files) - 2
    assert set(named) == {project["version"]}


def test_the_ray_version_of_the_manifests_is_the_one_in_the_image() -> None:
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    versions = [d["spec"]["rayVersion"] for _, d in documents() if "rayVersion" in d["spec"]]
    assert versions
    assert all(f"\nray=={version}\n" in pins for version in versions)


def test_whatever_is_installed_is_pinned() -> None:
    """All that the package and the service ask for; what those ask for is in the same file."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["service"]
    names = {re.split(r"[\[<>=]", each)[0].lower() for each in wanted}
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").lower()
    assert {name for name in names if not re.search(rf"^{re.escape(name)}==", pins, re.M)} == set()
    assert "pip install" not in re.sub(r"pip install setuptools==\S+", "", dockerfile())


def test_the_image_copies_only_what_the_context_has_and_no_secret() -> None:
    allowed = [
        line[1:]
        for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line.startswith("!")
    ]
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", dockerfile(), re.MULTILINE)
    sources = [source for line in copied for source in line.split()]
    assert sources
    assert set(sources) == set(allowed)
    assert "*" in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    for secret in ("docker/.env", "docker/secrets/ray_token", ".git/config", "state/mlflow.db"):
        assert not any(fnmatch.fnmatch(secret, f"{each}*") for each in allowed)


def test_secrets_are_not_committed() -> None:
    for secret in ("docker/.env", "docker/secrets/ray_token"):
        assert run("git", "check-ignore", "--quiet", secret).returncode == 0


def test_the_image_runs_as_a_user_by_number() -> None:
    assert re.findall(r"^USER (\S+)$", dockerfile(), re.MULTILINE)[-1] == "1000:1000"
    service = dockerfile().partition(" AS service")[2].partition("\nFROM ")[0]
    assert re.findall(r"^USER (\S+)$", service, re.MULTILINE) == ["1000:1000"]
