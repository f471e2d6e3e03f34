"""`hybridge inspect`: what is in a bundle or a bare `.tflite`."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import click
import msgspec

from edge_runtime.console import emit, format_option, table
from edge_runtime.errors import HybridgeError
from edge_runtime.tensor_spec import TensorSpec

__all__ = ["inspect"]


@click.command()
@click.argument("path", type=click.Path(dir_okay=False))
@click.option("--digest", help="The digest that the bundle must have.")
@format_option
def inspect(path: str, digest: str | None) -> None:
    """Verifies a bundle and shows what is in it; also for a bare .tflite."""
    from edge_runtime.files import read_file

    content = read_file(path)
    if Path(path).suffix == ".tflite":
        data = _tflite(path, content)
        emit(data, lambda: _tflite_text(data))
    else:
        data = _bundle(path, content, digest)
        emit(data, lambda: _bundle_text(data))


def _bundle(path: str, content: bytes, digest: str | None) -> dict[str, Any]:
    from edge_runtime.bundle import Bundle

    bundle = Bundle.from_bytes(content, digest=digest, name=Path(path).name)
    return {
        "kind": "bundle",
        "path": path,
        "size_bytes": len(content),
        "digest": bundle.digest,
        "verified": True,
        "manifest": msgspec.to_builtins(bundle.manifest),
        "placements": _placements(bundle.model_content, bundle.manifest.name),
    }


def _placements(content: bytes, name: str) -> list[dict[str, Any]] | None:
    """How many of each operator run on accelerated kernels on this machine; None where it cannot run the model."""
    from edge_runtime.interpreter import load_interpreter, placements

    try:
        return [msgspec.to_builtins(each) for each in placements(load_interpreter(content, name=name))]
    except HybridgeError:
        # A bundle for another device is still one to look at.
        return None


def _placed(placements: list[dict[str, Any]] | None) -> str:
    if placements is None:
        return "accelerated: this machine cannot run it"
    fast, count = sum(each["accelerated"] for each in placements), sum(each["count"] for each in placements)
    slow = [
        f"{each['operator']} x{each['count'] - each['accelerated']}"
        for each in placements
        if each["count"] > each["accelerated"]
    ]
    return f"accelerated on this machine: {fast} of {count}" + (f"; not {', '.join(slow)}" if slow else "")


def _tflite(path: str, content: bytes) -> dict[str, Any]:
    from edge_runtime.interpreter import load_interpreter, operator_counts, placements, signatures

    interpreter = load_interpreter(content, name=Path(path).stem)
    return {
        "kind": "tflite",
        "path": path,
        "size_bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "signatures": {
            key: {
                "inputs": [msgspec.to_builtins(spec) for spec in signature.inputs],
                "outputs": [msgspec.to_builtins(spec) for spec in signature.outputs],
            }
            for key, signature in signatures(interpreter).items()
        },
        "operators": operator_counts(interpreter),
        "placements": [msgspec.to_builtins(each) for each in placements(interpreter)],
    }


def _tflite_text(data: dict[str, Any]) -> str:
    lines = [f"{data['path']}: TFLite model, {data['size_bytes']:,} bytes, sha256 {data['sha256']}"]
    for key, signature in data["signatures"].items():
        lines += ["", f"signature {key or '(none)'}", _tensors(signature)]
    lines += ["", "operators: " + ", ".join(f"{name} x{count}" for name, count in data["operators"].items())]
    lines.append(_placed(data["placements"]))
    return "\n".join(lines)


def _bundle_text(data: dict[str, Any]) -> str:
    manifest = data["manifest"]
    lines = [
        f"{manifest['name']} {manifest['version']}: bundle of {data['size_bytes']:,} bytes, every file verified",
        f"digest {data['digest']}",
        "",
        _tensors(manifest["signature"]),
    ]
    if layout := manifest["signature"].get("layout"):
        lines.append(f"\nimages are {layout}")
    for raw in manifest.get("preprocessing", ()):
        steps = " -> ".join(_step(step) for step in raw["steps"])
        lines.append(f"\n'{raw['name']}' is taken as {_type(raw['takes'])}, then {steps or 'as it is'}")
    if labels := manifest.get("labels"):
        shown = ", ".join(labels[:12])
        lines.append(f"\nlabels: {shown}{f' ... ({len(labels)} in all)' if len(labels) > 12 else ''}")
    if metadata := manifest.get("metadata"):
        shown = ", ".join(f"{key} ({len(text):,} characters)" for key, text in metadata.items())
        lines.append(f"\nmetadata of the source: {shown}")
    if confidence := manifest.get("confidence"):
        lines.append("\n" + _confidence(confidence))
    lines += ["", *_metrics(manifest.get("metrics", {}))]
    if lineage := manifest.get("lineage"):
        tools = ", ".join(f"{name} {version}" for name, version in lineage.get("tools", {}).items())
        lines.append(f"made from {lineage['source']} (sha256 {lineage['source_digest']})")
        lines.append(f"  by recipe {lineage['recipe']} with {tools or 'unrecorded tools'}")
        if lineage.get("time"):
            lines.append(f"  source dated {lineage['time']}")
    requirements = manifest.get("requirements", {})
    lines.append(f"operators: {', '.join(requirements.get('operators', ())) or 'not recorded'}")
    lines.append(_placed(data["placements"]))
    files = [(file["path"], f"{file['size']:,}", file["sha256"][:16]) for file in manifest["files"]]
    lines += ["", table(files, header=("file", "bytes", "sha256"))]
    return "\n".join(lines)


def _confidence(confidence: dict[str, Any]) -> str:
    temperature, threshold = confidence.get("temperature", 1.0), confidence.get("threshold")
    line = f"confidence: {confidence.get('score', 'max-softmax')} of '{confidence['output']}'"
    line += f", temperature {temperature:g}, "
    line += "no threshold" if threshold is None else f"the cloud is asked below {threshold:.4f}"
    if curve := confidence.get("curve"):
        best = max(curve, key=lambda point: float(point["accuracy"]))
        line += f"\n  curve of {len(curve)} points; best {best['accuracy']:.2%} with {best['offloaded']:.1%} offloaded"
    if promise := confidence.get("guarantee"):
        what = "accuracy of at least" if promise["kind"] == "accuracy" else "share offloaded of at most"
        line += (
            f"\n  promised with the cloud: {what} {promise['target']:.2%}, "
            f"with {promise['confidence']:.0%} confidence, by {promise['tested']:,} of {promise['samples']:,} examples"
        )
    return line


def _metrics(metrics: dict[str, Any]) -> list[str]:
    lines = []
    if size := metrics.get("size"):
        lines.append(
            f"size: weights {size['source']:,} bytes in the source, {size['model']:,} as .tflite, "
            f"{size['deflated']:,} deflated"
        )
    if accuracy := metrics.get("accuracy"):
        lines.append(
            f"accuracy: {accuracy['source']:.2%} before, {accuracy['converted']:.2%} after conversion, "
            f"on {accuracy['samples']} samples"
        )
    if parity := metrics.get("parity"):
        signal = "identical" if parity.get("snr_db") is None else f"{parity['snr_db']:.1f} dB"
        lines.append(
            f"parity: largest error {parity['max_abs_error']:.3g}, signal to noise {signal}, "
            f"on {parity['samples']} {parity['data']} samples"
        )
    lines += [
        f"latency: {latency['median_ms']:.3f} ms median, {latency['p95_ms']:.3f} ms p95 on {latency['machine']}"
        for latency in metrics.get("latency", ())
    ]
    return lines


def _tensors(signature: dict[str, Any]) -> str:
    rows = [
        (tensor["name"], way, _type(tensor), _quantization(tensor))
        for way in ("inputs", "outputs")
        for tensor in signature[way]
    ]
    return table(
        [(name, way[:-1], kind, how) for name, way, kind, how in rows], header=("tensor", "", "type", "")
    )


def _type(tensor: dict[str, Any]) -> str:
    spec = msgspec.convert(tensor, TensorSpec)
    return f"{spec.dtype} [{', '.join(map(str, spec.shape))}]"


def _quantization(tensor: dict[str, Any]) -> str:
    quantization = tensor.get("quantization")
    if not quantization:
        return ""
    if len(quantization["scale"]) > 1:
        return f"{len(quantization['scale'])} scales along axis {quantization['axis']}"
    return f"scale {quantization['scale'][0]:.6g}, zero point {quantization['zero_point'][0]}"


def _step(step: dict[str, Any]) -> str:
    params = ", ".join(f"{name}={value}" for name, value in step.get("params", {}).items())
    return f"{step['operator']}({params})"
