"""How much of ONNX's own conformance suite converts and runs on the device runtime.

    python -m benchmarks.onnx_conformance            # resumes what was not finished
    python -m benchmarks.onnx_conformance --only lstm --work /tmp/lstm

Results are kept case by case in the work folder, for the importer's code as it is; the JSON and the table are written
when all are there.
"""

from __future__ import annotations

import argparse
import hashlib
import re
from pathlib import Path

import click
import msgspec

import convert.onnx
from benchmarks.onnx_conformance.case import Result, load_cases
from benchmarks.onnx_conformance.table import as_json, as_markdown
from benchmarks.onnx_conformance.workers import run_all

_ROOT = Path(__file__).parents[2]


def main() -> None:
    """Runs the suite, or what is left of it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.onnx_conformance", description=__doc__)
    parser.add_argument("--workers", type=int, default=2, help="processes (2)")
    parser.add_argument("--only", default="", help="regular expression that names must contain")
    parser.add_argument(
        "--work", type=Path, default=Path("bench-out/onnx-conformance"), help="folder of results"
    )
    parser.add_argument("--docs", type=Path, default=_ROOT / "docs", help="folder of the JSON and the table")
    given = parser.parse_args()

    cases = {name: case for name, case in load_cases().items() if re.search(given.only, name)}
    given.work.mkdir(parents=True, exist_ok=True)
    kept = given.work / f"{_code_digest()[:16]}.jsonl"
    results = _read(kept)
    left = [name for name in cases if name not in results]
    with kept.open("ab") as file:

        def report(result: Result) -> None:
            results[result.name] = result
            file.write(msgspec.json.encode(result) + b"\n")
            file.flush()
            passed = sum(each.status == "passed" for each in results.values())
            click.echo(f"\r{len(results)} of {len(cases)}, {passed} passed ", nl=False, err=True)

        run_all(left, given.workers, report)
    click.echo(err=True)
    chosen = [results[name] for name in cases]
    if not given.only:
        (given.docs / "onnx-conformance.json").write_bytes(as_json(chosen, cases))
        (given.docs / "onnx-conformance.md").write_text(as_markdown(chosen, cases))
    for result in chosen if given.only else ():
        if result.status != "passed":
            click.echo(f"{result.status} {result.name}: {result.reason}")
    passed = sum(result.status == "passed" for result in chosen)
    click.echo(f"{passed} of {len(chosen)} passed")


def _code_digest() -> str:
    """Of what a result depends on: the importer, the way to a .tflite, and the suite."""
    import onnx

    digest = hashlib.sha256(onnx.__version__.encode())
    folder = Path(convert.onnx.__file__).parent
    files = [
        *folder.rglob("*.py"),
        folder.parent / "sources" / "export.py",
        Path(__file__).with_name("case.py"),
    ]
    for file in sorted(files):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _read(path: Path) -> dict[str, Result]:
    if not path.exists():
        return {}
    decoded = (msgspec.json.decode(line, type=Result) for line in path.read_bytes().splitlines() if line)
    return {result.name: result for result in decoded}


if __name__ == "__main__":
    main()
