"""The files of `docs/deploy/`, as a cluster gets them."""

from __future__ import annotations

import copy
import socket
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

__all__ = ["DEPLOY", "Manifest", "base", "container", "documents", "find", "free_port", "tls"]

DEPLOY = Path(__file__).parents[3] / "docs" / "deploy"

Manifest = dict[str, Any]


def documents(path: Path) -> list[Any]:
    """What a YAML file holds."""
    return list(yaml.safe_load_all(path.read_text()))


def base() -> list[Manifest]:
    """The resources of `kubernetes/base`, with the images that its kustomization names."""
    folder = DEPLOY / "kubernetes" / "base"
    (kustomization,) = documents(folder / "kustomization.yaml")
    resources = [each for name in kustomization["resources"] for each in documents(folder / name)]
    images = {each["name"]: f"{each['newName']}:{each['newTag']}" for each in kustomization["images"]}
    for each in resources:
        if each["kind"] != "Namespace":
            each["metadata"]["namespace"] = kustomization["namespace"]
        for part in (
            each["spec"].get("template", {}).get("spec", {}).get("containers", ()) if "spec" in each else ()
        ):
            part["image"] = images[part["image"]]
    return resources


def tls() -> list[Manifest]:
    """The resources of `kubernetes/tls`: those of the base, patched, and its own."""
    folder = DEPLOY / "kubernetes" / "tls"
    (kustomization,) = documents(folder / "kustomization.yaml")
    resources = base()
    for patch in kustomization["patches"]:
        target = find(resources, patch["target"]["kind"], patch["target"]["name"])
        for operation in documents(folder / patch["path"])[0]:
            _apply(target, operation)
    for name in kustomization["resources"]:
        if name != "../base":
            resources += documents(folder / name)
            resources[-1]["metadata"]["namespace"] = kustomization["namespace"]
    return resources


def find(resources: list[Manifest], kind: str, name: str = "hybridge") -> Manifest:
    """The resource of that kind and name."""
    (found,) = [each for each in resources if (each["kind"], each["metadata"]["name"]) == (kind, name)]
    return found


def container(resources: list[Manifest]) -> Manifest:
    """The only container of the deployment."""
    (only,) = find(resources, "Deployment")["spec"]["template"]["spec"]["containers"]
    assert isinstance(only, dict)
    return only


def free_port() -> int:
    """A port of the loopback that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _apply(target: Any, operation: Manifest) -> None:
    """One operation of a JSON patch (RFC 6902), of those that the files use."""
    *path, last = operation["path"].split("/")[1:]
    for step in path:
        target = target[int(step) if isinstance(target, list) else step]
    key = int(last) if isinstance(target, list) and last != "-" else last
    if operation["op"] == "test":
        assert target[key] == operation["value"]
    elif operation["op"] == "remove":
        del target[key]
    elif key == "-":
        target.append(copy.deepcopy(operation["value"]))
    else:
        assert (operation["op"] == "add") == (isinstance(target, dict) and key not in target)
        target[key] = copy.deepcopy(operation["value"])
