"""The suite's results as one JSON and as a page."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from benchmarks.onnx_conformance.case import Result, data_of

__all__ = ["as_json", "as_markdown", "is_holdable"]

# Element types that no device runtime can hold, as ONNX names them.
_UNHELD = re.compile(r"STRING|BFLOAT16|FLOAT8\w*|FLOAT4\w*|U?INT[24]|COMPLEX\w+")


def is_holdable(case: Any) -> bool:
    """Whether all tensors that a case names are of types that a device runtime can hold."""
    import onnx

    graph = data_of(case)[0].graph
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.WhichOneof("value") != "tensor_type":
            return False
        name = onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type)
        if _UNHELD.fullmatch(name):
            return False
    return True


def as_json(results: Sequence[Result], cases: Mapping[str, Any]) -> bytes:
    """Counts, versions, and every case."""
    import onnx

    from edge_runtime.interpreter import runtime_version

    summary = _summary(results, cases)
    content = {
        "suite": f"onnx {onnx.__version__}, node and simple",
        "runtime": runtime_version(),
        **summary,
        "cases": [
            {key: value for key, value in msgspec.to_builtins(result).items() if key != "seconds" and value}
            for result in results
        ],
    }
    return msgspec.json.format(msgspec.json.encode(content), indent=1) + b"\n"


def _summary(results: Sequence[Result], cases: Mapping[str, Any]) -> dict[str, int]:
    holdable = {name for name, case in cases.items() if is_holdable(case)}
    passed = {result.name for result in results if result.status == "passed"}
    counts = Counter(result.status for result in results)
    return {
        "total": len(results),
        "holdable": len(holdable),
        "passed": len(passed),
        "passed_holdable": len(passed & holdable),
        "passed_with_fixed_inputs": sum(
            result.status == "passed" and bool(result.fixed) for result in results
        ),
        "refused": counts["refused"],
        "wrong": counts["wrong"],
        "crashed": counts["crashed"],
    }


def as_markdown(results: Sequence[Result], cases: Mapping[str, Any]) -> str:
    """The page: what passes by operator, and each case that does not, with its reason."""
    import onnx

    from edge_runtime.interpreter import runtime_version

    summary = _summary(results, cases)
    total, holdable = summary["total"], summary["holdable"]
    lines = [
        "# ONNX conformance",
        "",
        f"Written by `python -m benchmarks.onnx_conformance`: the {total:,} `node` and `simple` cases that onnx "
        f"{onnx.__version__} ships, each",
        f"converted by the importer and run by {runtime_version()}; outputs are compared with the suite's own",
        "values at its relative tolerance (0.001 unless a case says otherwise) and an absolute one of 0.00001.",
        "",
        "| | cases | passed | share |",
        "|---|---|---|---|",
        f"| all | {total:,} | {summary['passed']:,} | {summary['passed'] / total:.1%} |",
        f"| with types that a device runtime can hold | {holdable:,} | {summary['passed_holdable']:,} "
        f"| {summary['passed_holdable'] / holdable:.1%} |",
        "",
        f"Of those that passed, {summary['passed_with_fixed_inputs']} take as a constant what the suite gives as an "
        "input, such as axes or a shape,",
        "because no device computes with it as the model runs; `fixed` in the JSON names these inputs.",
        f"Not passed: {summary['refused']} refused with a reason, {summary['wrong']} with other values, "
        f"{summary['crashed']} crashed.",
        "",
        "## By operator",
        "",
        "The operator is that of a case's first node; what the suite expands into its definition counts for it too.",
        "",
        "| operator | cases | passed |",
        "|---|---|---|",
    ]
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(_operator(result.name, cases), []).append(result)
    lines += [
        f"| {name} | {len(each)} | {sum(result.status == 'passed' for result in each)} |"
        for name, each in sorted(groups.items())
    ]
    lines += ["", "## Left out, and why", "", "| case | status | reason |", "|---|---|---|"]
    lines += [
        f"| {result.name.removeprefix('test_')} | {result.status} | {_shown(result.reason)} |"
        for result in results
        if result.status != "passed"
    ]
    return "\n".join(lines) + "\n"


def _operator(name: str, cases: Mapping[str, Any]) -> str:
    plain = re.sub(r"_expanded(_ver\d+)?$", "", name)
    node = data_of(cases.get(plain, cases[name]))[0].graph.node[0]
    return f"{node.domain}.{node.op_type}" if node.domain else str(node.op_type)


def _shown(reason: str) -> str:
    text = " ".join(reason.replace("|", "\\|").split())
    text = re.sub(r"^\d+ nodes? that cannot be converted ", "", text)
    return text if len(text) <= 240 else f"{text[:237]}..."
