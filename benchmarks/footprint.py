"""What the runtime takes on a device: the base install on disk, and a loaded chain in memory, by what takes it.

``python -m benchmarks.footprint`` adds up the files of each package that the base install brings, and runs one model
in fresh processes that say after each step what is resident: Python, NumPy, the interpreter, edge_runtime, the loaded
chain, one run. The model is the int8 DS-CNN of MLPerf Tiny in ``HYBRIDGE_DATA``, or the one that ``--model`` names.
It needs Linux. Part of what is resident is code, which processes that run the same share.
"""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

import click

from benchmarks.data import data_file
from edge_runtime import Bundle, Manifest
from edge_runtime.command import run_verb
from edge_runtime.console import emit, format_option, table
from edge_runtime.interpreter import load_interpreter, runtime_version, signatures
from edge_runtime.latency import machine_name
from edge_runtime.manifest import SCHEMA_VERSION

__all__ = ["footprint"]

_MODEL = "mlperf_tiny/kws_ref_model.tflite"
# What `footprint_probe` does, each on top of those before it.
_STEPS = ("Python", "NumPy", "interpreter", "edge_runtime", "the chain, loaded", "one run")


@click.command()
@click.option("--model", type=click.Path(exists=True, dir_okay=False), help="Another .tflite to load.")
@click.option("--runs", default=5, show_default=True, type=click.IntRange(min=1), help="Processes measured.")
@format_option
def footprint(model: str | None, runs: int) -> None:
    """Measures the size of the base install and the resident memory of a loaded chain."""
    packages = _installed_bytes("hybridge")
    path = Path(model) if model else data_file(_MODEL)
    memory = _resident_bytes(path, runs)
    known = sum(size for size in packages.values() if size is not None)
    emit(
        {
            "machine": machine_name(),
            "runtime": runtime_version(),
            "install": {"total_bytes": known, "packages": packages},
            "memory": {
                "model": path.name,
                "runs": runs,
                "total_bytes": sum(memory.values()),
                "steps": memory,
            },
        },
        lambda: "\n\n".join(
            (
                table(
                    [
                        *((name, _megabytes(size)) for name, size in packages.items()),
                        ("together", _megabytes(known)),
                    ],
                    header=("installed", "MB"),
                ),
                table(
                    [
                        *((step, _megabytes(size)) for step, size in memory.items()),
                        ("together", _megabytes(sum(memory.values()))),
                    ],
                    header=(f"resident, {path.name}", f"MB, median of {runs}"),
                ),
            )
        ),
    )


def _installed_bytes(root: str) -> dict[str, int | None]:
    """Bytes of each package that `root` needs without extras, largest first; None for one that a system keeps."""
    sizes: dict[str, int | None] = {}
    wanted = [root]
    while wanted:
        name = wanted.pop()
        if name in sizes:
            continue
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue  # for another platform
        files = [Path(str(file.locate())) for file in distribution.files or ()]
        sizes[name] = sum(file.stat().st_size for file in files if file.is_file()) or None
        wanted += [
            re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0].lower().replace("_", "-")
            for requirement in distribution.requires or ()
            if not re.search(r"\bextra\s*==", requirement)
        ]
    return dict(sorted(sizes.items(), key=lambda item: -(item[1] or 0)))


def _resident_bytes(path: Path, runs: int) -> dict[str, int]:
    """Resident bytes that each step adds, the median over `runs` processes."""
    content = path.read_bytes()
    interpreter = load_interpreter(content)
    signature = next(iter(signatures(interpreter).values()))
    manifest = Manifest(
        schema_version=SCHEMA_VERSION, name=_bundle_name(path), version="1", signature=signature
    )
    tensors = [
        f"{spec.name}:{spec.dtype}:{','.join('1' if isinstance(size, str) else str(size) for size in spec.shape)}"
        for spec in signature.inputs
    ]
    with tempfile.TemporaryDirectory() as folder:
        bundle = Bundle.create(manifest, {"model.tflite": content}).save(folder)
        totals = [_measured(type(interpreter).__module__, str(bundle), *tensors) for _ in range(runs)]
    return {
        step: round(statistics.median(total[index] - (total[index - 1] if index else 0) for total in totals))
        for index, step in enumerate(_STEPS)
    }


def _bundle_name(path: Path) -> str:
    return re.sub(r"[^a-z0-9]+", "-", path.stem.lower()).strip("-")


def _measured(*arguments: str) -> list[int]:
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks.footprint_probe", *arguments],
        check=True,
        capture_output=True,
        text=True,
    )
    return [int(line) for line in run.stdout.split()]


def _megabytes(size: int | None) -> str:
    return "the system's" if size is None else f"{size / 1e6:.1f}"


if __name__ == "__main__":
    run_verb(footprint)
