"""The demo from end to end."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from benchmarks.demo.digits import FULL_SCALE, Digits, Samples, load_digits
from benchmarks.demo.networks import train_large, train_small
from benchmarks.demo.report import render_report, require_plots
from benchmarks.demo.scenario import Scenario, ask_cloud_alone, run_device_alone, run_scenario
from benchmarks.demo.slow_link import SlowLink
from cloud_fallback import EndpointProcess, choose, sweep, thin
from edge_runtime import Bundle, Confidence
from edge_runtime.files import check_writable, write_file
from edge_runtime.manifest import PreprocessingStep, RawInput
from edge_runtime.tensor_spec import TensorSpec

__all__ = ["DemoResult", "run_demo"]

Say = Callable[[str], None]

_DEVICE, _CLOUD = "digits-small", "digits-large"
_VERSION = "1.0"
_SEED = 0
# The share of images that the cloud may be asked about, in choosing the threshold.
_MAX_OFFLOAD = 0.2
_DEADLINE_S = 0.05
# Each way; a round trip is four deadlines.
_LINK_DELAY_S = 0.1
# Waiting out a deadline for every image would take longer than all the rest.
_CLOUD_SAMPLES_WHEN_SLOW = 40
_CURVE_POINTS = 24

_RAW_IMAGE = RawInput(
    name="image",
    takes=TensorSpec("image", (8, 8, 1), "uint8"),
    steps=(
        PreprocessingStep("scale", {"factor": 1 / FULL_SCALE}),
        PreprocessingStep("expand-dims", {"axis": 0}),
    ),
)


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What the demo made and measured.

    Attributes:
        scenarios: The cloud up, slow, and gone.
        bundle_bytes: Size of each bundle's file: ``device`` and ``cloud``.
        files: The files written, by what they are.
        seconds: How long it took.
    """

    scenarios: tuple[Scenario, ...]
    bundle_bytes: dict[str, int]
    files: dict[str, str]
    seconds: float

    def figures(self) -> dict[str, Any]:
        """All figures, for JSON: those with the cloud up at the top, the others under ``slow`` and ``offline``."""
        online, *others = self.scenarios
        figures = {**online.figures(), "bundle_bytes": self.bundle_bytes}
        for scenario in others:
            figures[scenario.name] = {**scenario.figures(), "bundle_bytes": self.bundle_bytes}
        return {**figures, "files": self.files, "seconds": round(self.seconds, 1)}


def run_demo(out: Path, *, overwrite: bool, say: Say) -> DemoResult:
    """Trains, converts and runs; writes both bundles, the report and the figures into a folder.

    Args:
        out: The folder; made if need be.
        overwrite: Whether files of an earlier demo there are replaced.
        say: Takes a line of progress.

    Raises:
        HybridgeError: `file-exists`, `extra-missing`; what converting and serving raise.
    """
    started = time.monotonic()
    require_plots()
    files = {
        "device": out / f"{_DEVICE}-{_VERSION}.edge",
        "cloud": out / f"{_CLOUD}-{_VERSION}.edge",
        "report": out / "report.html",
        "figures": out / "figures.json",
        "unsure": out / "unsure.npy",
    }
    out.mkdir(parents=True, exist_ok=True)
    for path in files.values():
        check_writable(path, overwrite=overwrite)

    digits = load_digits()
    small, large = _trained(digits, say)
    say("[3/6] converting both: the device's to int8, the cloud's to float16")
    cloud = _converted(large, _CLOUD, "float16", digits)
    cloud.save(files["cloud"], overwrite=overwrite)
    device = _converted(small, _DEVICE, "int8", digits)
    with EndpointProcess([files["cloud"]]) as endpoint:
        say(f"[4/6] the cloud's model is served on 127.0.0.1:{endpoint.port}; choosing when to ask it")
        device = _with_threshold(device, endpoint.port, digits.validation)
        device.save(files["device"], overwrite=overwrite)
        scenarios = _run_scenarios(device, endpoint, digits.test, say)
    say("[6/6] writing the report")
    bundle_bytes = {"device": files["device"].stat().st_size, "cloud": files["cloud"].stat().st_size}
    confidence = device.manifest.confidence
    assert confidence is not None  # noqa: S101 - it was given one above
    facts = {"device": _facts(device, bundle_bytes["device"]), "cloud": _facts(cloud, bundle_bytes["cloud"])}
    page = render_report(scenarios, digits.test, confidence, facts)
    write_file(files["report"], page.encode(), overwrite=overwrite)
    named = {what: str(path) for what, path in files.items()}
    result = DemoResult(scenarios, bundle_bytes, named, time.monotonic() - started)
    write_file(files["unsure"], _unsure_image(scenarios[0], digits.test), overwrite=overwrite)
    encoded = msgspec.json.format(msgspec.json.encode(result.figures()), indent=2)
    write_file(files["figures"], encoded + b"\n", overwrite=overwrite)
    return result


def _trained(digits: Digits, say: Say) -> tuple[Any, Any]:
    def epochs(step: str) -> Callable[[int, int, float], None]:
        return lambda epoch, total, accuracy: say(
            f"{step}: epoch {epoch} of {total}, {accuracy:.1%} right on the validation images"
        )

    say("[1/6] training the device's model")
    small = train_small(digits.train, digits.validation, seed=_SEED, on_epoch=epochs("[1/6] device"))
    say("[2/6] training the cloud's model")
    large = train_large(digits.train, digits.validation, seed=_SEED, on_epoch=epochs("[2/6] cloud"))
    return small, large


def _converted(model: Any, name: str, recipe: str, digits: Digits) -> Bundle:
    from convert import convert

    conversion = convert(
        model,
        recipe=recipe,
        name=name,
        version=_VERSION,
        representative={"image": digits.train.images[:300]},
        evaluation={"image": digits.validation.images, "label": digits.validation.labels},
        labels=tuple(str(digit) for digit in range(10)),
        preprocessing=(_RAW_IMAGE,),
        confidence=Confidence("logits"),
    )
    return conversion.bundle


def _with_threshold(device: Bundle, port: int, validation: Samples) -> Bundle:
    alone = run_device_alone(device, validation)
    cloud = ask_cloud_alone(f"127.0.0.1:{port}", _CLOUD, validation, deadline_s=5.0)
    curve = sweep(alone.confidences, alone.digits == validation.labels, cloud.digits == validation.labels)
    chosen = choose(curve, max_offload=_MAX_OFFLOAD)
    # The chosen point is kept whatever else is thinned out.
    kept = {point.threshold: point for point in (*thin(curve, _CURVE_POINTS), chosen)}
    confidence = Confidence(
        "logits", threshold=chosen.threshold, curve=tuple(kept[threshold] for threshold in sorted(kept))
    )
    return Bundle.create(msgspec.structs.replace(device.manifest, confidence=confidence), device.files)


def _run_scenarios(
    device: Bundle, endpoint: EndpointProcess, test: Samples, say: Say
) -> tuple[Scenario, Scenario, Scenario]:
    say(f"[5/6] {len(test)} held-back images on the device alone")
    alone = run_device_alone(device, test)

    def run(name: str, port: int, cloud_samples: int) -> Scenario:
        return run_scenario(
            name,
            device,
            port,
            test,
            device=alone,
            deadline_s=_DEADLINE_S,
            cloud_model=_CLOUD,
            cloud_samples=cloud_samples,
        )

    say("[5/6] hybrid, with the cloud up")
    online = run("online", endpoint.port, len(test))
    say(
        f"[5/6] hybrid, with {_LINK_DELAY_S * 1e3:.0f} ms more each way and {_DEADLINE_S * 1e3:.0f} ms to answer"
    )
    with SlowLink(endpoint.port, delay_s=_LINK_DELAY_S) as link:
        slow = run("slow", link.port, _CLOUD_SAMPLES_WHEN_SLOW)
    say("[5/6] hybrid, with the cloud's process killed")
    endpoint.kill()
    offline = run("offline", endpoint.port, len(test))
    return online, slow, offline


def _unsure_image(online: Scenario, samples: Samples) -> bytes:
    """An image to try by hand, as an `.npy` file: one that the cloud corrected, or else the least sure."""
    wrong = online.device.digits != online.labels
    corrected = wrong & (online.hybrid.digits == online.labels)
    index = int(np.argmin(np.where(corrected, online.device.confidences, 2.0 + online.device.confidences)))
    buffer = io.BytesIO()
    np.save(buffer, samples.images[index])
    return buffer.getvalue()


def _facts(bundle: Bundle, size: int) -> dict[str, Any]:
    manifest = bundle.manifest
    accuracy, parity = manifest.metrics.accuracy, manifest.metrics.parity
    assert manifest.lineage is not None  # noqa: S101 - every conversion has one
    return {
        "bundle": bundle.file_name,
        "recipe": manifest.lineage.recipe,
        "bytes": size,
        "before / after conversion": f"{accuracy.source:.1%} / {accuracy.converted:.1%}" if accuracy else "-",
        "largest error": f"{parity.max_abs_error:.3g}" if parity else "-",
        "signal to noise": f"{parity.snr_db:.0f} dB" if parity and parity.snr_db is not None else "-",
    }
