"""`python -m tests.cloud_fallback.fuzz --seconds 30 --seed 1`: random requests, for as long as it is told.

Each seed makes the same requests. What is found is written to a file, which `--replay` tries again, and the exit code
is 1. With `--guided` atheris looks for bytes that reach more of the decoder, where it is installed.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FunctionType
from typing import Any

from cloud_fallback import EndpointProcess
from cloud_fallback.endpoint.rpc import request_bounds
from cloud_fallback.open_inference import tensors
from tests.cloud_fallback.fuzz.generator import Generator
from tests.cloud_fallback.fuzz.targets import Decoder, LiveEndpoint, Target
from tests.cloud_fallback.onnx_models import write_models

# Requests that a guided search begins with.
_CORPUS = 300


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.cloud_fallback.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target", choices=("decoder", "endpoint", "both"), default="both")
    parser.add_argument("--address", help="an endpoint that runs, in place of one that is started")
    parser.add_argument("--replay", type=Path, help="a file with the bytes of one request")
    parser.add_argument("--guided", action="store_true")
    arguments = parser.parse_args()
    if arguments.guided:
        return _guided(arguments.seconds, arguments.seed)
    with ExitStack() as stack:
        targets: dict[str, Target] = {}
        if arguments.target != "endpoint":
            targets["decoder"] = stack.enter_context(Decoder())
        if arguments.target != "decoder":
            address = arguments.address or stack.enter_context(_endpoint())
            targets["endpoint"] = stack.enter_context(LiveEndpoint(address))
        if arguments.replay:
            return _tried(targets, arguments.replay.read_bytes())
        return _run(targets, arguments.seconds, arguments.seed)


def _run(targets: dict[str, Target], seconds: float, seed: int) -> int:
    generator, count, start = Generator(seed), 0, time.monotonic()
    while time.monotonic() - start < seconds:
        content = generator.bytes()
        count += 1
        if failed := _tried(targets, content):
            return failed
    result = {
        "seed": seed,
        "requests": count,
        "seconds": round(time.monotonic() - start, 1),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "outcomes": {name: dict(target.outcomes.most_common()) for name, target in targets.items()},
    }
    sys.stdout.write(json.dumps(result, indent=2) + "\n")
    return 0


def _tried(targets: dict[str, Target], content: bytes) -> int:
    for name, target in targets.items():
        try:
            target.try_out(content)
        except Exception as error:
            path = Path(f"fuzz-{hashlib.sha256(content).hexdigest()[:12]}.bin")
            path.write_bytes(content)
            sys.stderr.write(f"{name}: {type(error).__name__}: {error}; its bytes are in {path}\n")
            return 1
    return 0


@contextmanager
def _endpoint() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        write_models(Path(folder))
        with EndpointProcess([folder]) as process:
            yield process.address


def _guided(seconds: float, seed: int) -> int:
    try:
        atheris: Any = importlib.import_module("atheris")
    except ModuleNotFoundError:
        sys.stderr.write("--guided needs atheris: pip install atheris\n")
        return 2
    for module in (tensors, request_bounds):
        for name, value in list(vars(module).items()):
            if isinstance(value, FunctionType) and value.__module__ == module.__name__:
                setattr(module, name, atheris.instrument_func(value))
    generator = Generator(seed)
    with tempfile.TemporaryDirectory() as corpus, Decoder() as decoder:
        # From nothing it would take for ever to come upon a message.
        for number in range(_CORPUS):
            Path(corpus, str(number)).write_bytes(generator.request().SerializeToString())
        limits = (f"-max_total_time={seconds:.0f}", f"-seed={seed}", "-max_len=65536")
        atheris.Setup([sys.argv[0], *limits, corpus], decoder.try_out)
        # It ends the process itself.
        atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
