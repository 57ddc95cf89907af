"""The manifests for Kubernetes: rights, secrets, and who may reach whom."""

from __future__ import annotations

import json
import re

from tests.docker.files import DOCKER
from tests.docker.manifests import containers, documents, pod_templates


def test_containers_run_as_a_user_with_no_more_rights_than_they_need() -> None:
    seen = 0
    for name, pod, container in containers():
        seen += 1
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["securityContext"]["runAsUser"] >= 999, name
        assert pod["automountServiceAccountToken"] is False, name
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, name
        assert container["resources"].keys() == {"requests", "limits"}, name
        assert re.search(r":\d", container["image"]), name
    assert seen == 8


def test_what_a_pod_mounts_it_has() -> None:
    for name, pod, container in containers():
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert mounted <= {volume["name"] for volume in pod["volumes"]} | {"data"}, name


def test_nodes_get_the_time_to_save_their_trials() -> None:
    for name, pod, container in containers():
        if "ray_node.py" in str(container.get("command", "")):
            assert pod["terminationGracePeriodSeconds"] >= 60, name


def test_the_token_is_asked_for_everywhere() -> None:
    cluster = next(d for _, d in documents() if d["kind"] == "RayCluster")
    assert cluster["spec"]["authOptions"]["mode"] == "token"
    secret = cluster["spec"]["authOptions"]["secretName"]
    for template in pod_templates(cluster):
        pod = template["spec"]
        assert secret in [v["secret"]["secretName"] for v in pod["volumes"] if "secret" in v]
        assert pod["initContainers"][0]["command"][2] == "0400"
        environment = {each["name"]: each for each in pod["containers"][0]["env"]}
        path = environment["RAY_AUTH_TOKEN_PATH"]["value"]
        assert path == pod["initContainers"][0]["command"][-1]
    assert "RAY_AUTH_MODE=token" in (DOCKER / "Dockerfile").read_text(encoding="utf-8")
    launcher = (DOCKER / "cluster.yaml").read_text(encoding="utf-8")
    assert "--env=RAY_AUTH_MODE=token" in launcher


def test_only_what_is_meant_to_be_reached_can_be() -> None:
    everything = [d for _, d in documents()]
    policies = {
        json.dumps(d["spec"]["podSelector"]["matchLabels"], sort_keys=True)
        for d in everything
        if d["kind"] == "NetworkPolicy"
    }
    for document in everything:
        for template in pod_templates(document):
            labels = template.get("metadata", {}).get("labels", {"ray.io/cluster": "sweeps"})
            assert json.dumps(labels, sort_keys=True) in policies
        if document["kind"] == "Service":
            assert document["spec"].get("type", "ClusterIP") == "ClusterIP"
