"""The manifests of docker/kubernetes, for the tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.docker.files import KUBERNETES


def documents() -> list[tuple[str, dict[str, Any]]]:
    return [
        (f"{path.name}:{document['kind']}:{document['metadata']['name']}", document)
        for path in KUBERNETES
        for document in yaml.safe_load_all(path.read_text(encoding="utf-8"))
    ]


every_document = pytest.mark.parametrize(
    "document", [pytest.param(d, id=name) for name, d in documents()]
)


def pod_templates(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Of a document that makes pods."""
    spec = document["spec"]
    groups = [spec.get("headGroupSpec", {}), *spec.get("workerGroupSpecs", []), spec]
    return [group["template"] for group in groups if "template" in group]


def containers() -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """(document, pod, container) of every container in docker/kubernetes."""
    for name, document in documents():
        for template in pod_templates(document):
            pod = template["spec"]
            for container in pod.get("initContainers", []) + pod["containers"]:
                yield name, pod, container
