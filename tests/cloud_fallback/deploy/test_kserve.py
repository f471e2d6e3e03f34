"""KServe's manifests: what its own models say of them, and what they say of each other."""

from __future__ import annotations

import ast
import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from referencing import Registry, Resource

from benchmarks.peers import peer_python
from cloud_fallback.endpoint.serve_command import serve
from tests.cloud_fallback.deploy.manifests import DEPLOY, Manifest, documents
from tests.cloud_fallback.deploy.test_kubernetes import VERSIONS

# What the schemas of the package call themselves.
_DEFINITIONS = "https://kubernetes.io/api/_definitions.json"

(RUNTIME,) = documents(DEPLOY / "kserve" / "serving-runtime.yaml")
(SERVICE,) = documents(DEPLOY / "kserve" / "inference-service.yaml")


def test_the_service_asks_for_what_the_runtime_has() -> None:
    model = SERVICE["spec"]["predictor"]["model"]
    assert model["runtime"] == RUNTIME["metadata"]["name"]
    assert SERVICE["metadata"]["namespace"] == RUNTIME["metadata"]["namespace"]
    assert model["modelFormat"]["name"] in {each["name"] for each in RUNTIME["spec"]["supportedModelFormats"]}
    assert model["protocolVersion"] in RUNTIME["spec"]["protocolVersions"]


def test_the_runtime_runs_the_endpoint_where_kserve_looks_for_it() -> None:
    (only,) = RUNTIME["spec"]["containers"]
    assert only["name"] == "kserve-container"
    models, *flags = only["args"]
    assert models == "/mnt/models"
    given = dict(flag.split("=", 1) for flag in flags)
    assert given.keys() <= {name for parameter in serve.params for name in parameter.opts}
    (port,) = only["ports"]
    assert (port["name"], port["containerPort"]) == ("h2c", int(given["--port"]))
    assert only["readinessProbe"]["grpc"]["port"] == port["containerPort"]
    assert RUNTIME["spec"]["annotations"]["prometheus.kserve.io/port"] == given["--metrics-port"]


@pytest.mark.heavy
def test_every_field_is_one_that_kserve_has() -> None:
    models = _Models()
    models.check("V1alpha1ServingRuntime", RUNTIME, "ServingRuntime")
    models.check("V1beta1InferenceService", SERVICE, "InferenceService")
    wrong: Manifest = {"spec": {"predictor": {"model": {"modelFormt": {"name": "edge"}}}}}
    with pytest.raises(AssertionError, match=r"InferenceService.spec.predictor.model.modelFormt"):
        models.check("V1beta1InferenceService", wrong, "InferenceService")
    wrong = {"spec": {"containers": [{"name": "c", "ports": [{"containerPort": "one"}]}]}}
    with pytest.raises(jsonschema.ValidationError):
        models.check("V1alpha1ServingRuntime", wrong, "ServingRuntime")


class _Models:
    """The models of KServe's Python package, whose own reader passes over fields that it does not know.

    They are read and not imported: the package would bring a web framework and pandas. What they have of Kubernetes is
    held against that one's schemas.
    """

    def __init__(self) -> None:
        python = peer_python("kserve", [], without_dependencies=["kserve==0.21.0"], say=print)
        (models,) = python.parents[1].glob("lib/python*/site-packages/kserve/models")
        self._fields: dict[str, tuple[dict[str, str], dict[str, str]]] = {}
        for path in models.glob("v1*.py"):
            self._read(path)
        folder = files("kubernetes_validate") / "kubernetes-json-schema" / f"v{VERSIONS[-1]}.0-local-strict"
        schemas = json.loads((folder / "_definitions.json").read_text())
        self._kubernetes: Manifest = schemas["$defs"]
        self._registry = Resource.from_contents(schemas) @ Registry()

    def check(self, model: str, value: Any, where: str) -> None:
        """Asserts that a value has only fields of a model, each of its type."""
        types, names = self._fields[model]
        by_name = {name: types[attribute] for attribute, name in names.items()}
        for name, part in value.items():
            assert name in by_name, f"{where}.{name}: KServe's {model} has no such field"
            self._check_type(by_name[name], part, f"{where}.{name}")

    def _check_type(self, kind: str, value: Any, where: str) -> None:
        if listed := re.fullmatch(r"list\[(.*)\]", kind):
            for index, each in enumerate(value):
                self._check_type(listed[1], each, f"{where}[{index}]")
        elif mapped := re.fullmatch(r"dict\(str, (.*)\)", kind):
            for name, each in value.items():
                self._check_type(mapped[1], each, f"{where}.{name}")
        elif kind in self._fields:
            self.check(kind, value, where)
        elif kind in ("str", "bool", "int"):
            assert isinstance(value, {"str": str, "bool": bool, "int": int}[kind]), f"{where} is no {kind}"
        else:
            self._check_kubernetes(kind, value)

    def _check_kubernetes(self, kind: str, value: Manifest) -> None:
        (name,) = [each for each in self._kubernetes if re.fullmatch(rf"io\.k8s\.\S+\.v1\.{kind[2:]}", each)]
        schema = {"$ref": f"{_DEFINITIONS}#/$defs/{name}"}
        jsonschema.Draft202012Validator(schema, registry=self._registry).validate(value)

    def _read(self, path: Path) -> None:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef):
                tables = {
                    target.id: ast.literal_eval(part.value)
                    for part in node.body
                    if isinstance(part, ast.Assign)
                    for target in part.targets
                    if isinstance(target, ast.Name) and target.id in ("openapi_types", "attribute_map")
                }
                self._fields[node.name] = (tables["openapi_types"], tables["attribute_map"])
