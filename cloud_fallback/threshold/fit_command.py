"""`hybridge fallback fit`: the confidence below which the cloud is asked, with a promise of what that reaches."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_runtime.access_flags import access_flags, access_settings
from edge_runtime.console import emit, format_option, say, table, usage_error
from edge_runtime.errors import HybridgeError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cloud_fallback.threshold.device_tier import DeviceTier
    from cloud_fallback.threshold.fit import Fit
    from cloud_fallback.threshold.fit_record import FitRecord
    from cloud_fallback.threshold.labelled_data import LabelledData
    from edge_runtime.tensor_spec import Array
    from edge_runtime.tensor_type import TensorType

__all__ = ["fit"]


@click.command()
@click.option(
    "--bundle",
    type=click.Path(),
    multiple=True,
    required=True,
    help="Model on the device; may be repeated, the cheapest first.",
)
@click.option(
    "--data", type=click.Path(), required=True, help="An .npz with an array for each input, and 'label'."
)
@click.option("--cloud", metavar="URL", help="The cloud to ask, such as grpc://host:8001/digits-large.")
@access_flags
@click.option(
    "--cloud-predictions",
    type=click.Path(),
    metavar="FILE",
    help="Or what it answers: an .npz with 'label', or 'probabilities'.",
)
@click.option(
    "--target-accuracy",
    type=click.FloatRange(0, 1, True, True),
    help="Promise this accuracy, and offload least.",
)
@click.option(
    "--max-offload",
    type=click.FloatRange(0, 1, min_open=True),
    help="Or promise to offload no more than this share, and be most accurate.",
)
@click.option(
    "--confidence",
    type=click.FloatRange(0, 1, True, True),
    default=0.95,
    show_default=True,
    help="Of the promise.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False),
    default="fitted",
    show_default=True,
    help="Folder for the bundles with their thresholds.",
)
@click.option("--plot", type=click.Path(), help="Draw the curve: a .png, .svg or .pdf.")
@click.option("--overwrite", is_flag=True, help="Replace files that exist.")
@format_option
def fit(
    bundle: tuple[str, ...],
    data: str,
    cloud: str | None,
    cloud_predictions: str | None,
    target_accuracy: float | None,
    max_offload: float | None,
    confidence: float,
    out: str,
    plot: str | None,
    overwrite: bool,
    **access: Any,
) -> None:
    """Fits the thresholds of one or more models on the device, with a promise of what they reach.

    A model that is unsure asks the next, and the last one the cloud. The promise holds for examples of the kind that
    the data has: it is refused where the data has too few.
    """
    from cloud_fallback.threshold.device_tier import DeviceTier
    from cloud_fallback.threshold.fit import Goal
    from cloud_fallback.threshold.fit_record import FitRecord
    from cloud_fallback.threshold.labelled_data import read_labelled

    if (cloud is None) == (cloud_predictions is None):
        raise usage_error("give either --cloud, to ask it, or --cloud-predictions, with what it answers")
    settings = access_settings(**access)
    if settings and cloud is None:
        raise usage_error("--tls-* and --token-* are for --cloud")
    Goal.check(target_accuracy=target_accuracy, max_offload=max_offload, confidence=confidence)
    targets = _targets(bundle, Path(out), plot, overwrite=overwrite)
    tiers = [DeviceTier(path) for path in bundle]
    labelled = read_labelled(data, _takes(tiers))
    for note in labelled.notes:
        say(note)
    classes = _cloud_classes(cloud, settings, cloud_predictions, labelled, tiers[-1].spec.output)
    record = FitRecord.make(
        tiers,
        labelled,
        classes,
        target_accuracy=target_accuracy,
        max_offload=max_offload,
        confidence=confidence,
        progress=say,
    )
    if plot is not None:
        # A fit without a promise is the one whose curve is wanted most.
        _draw(record, plot, overwrite=overwrite)
    record.fit.require()
    Path(out).mkdir(parents=True, exist_ok=True)
    for made, target in zip(record.bundles(), targets, strict=True):
        made.save(target, overwrite=overwrite)
    saved = [str(target) for target in targets]
    emit(record.as_data(saved, plot), lambda: _text(record, saved, plot))


def _targets(bundle: Sequence[str], out: Path, plot: str | None, *, overwrite: bool) -> list[Path]:
    """Where the bundles go, refused before long work is done for them."""
    from edge_runtime.files import check_writable

    targets = [out / Path(path).name for path in bundle]
    if len(set(targets)) < len(targets):
        raise usage_error("two bundles of one file name would be written to the same file")
    if out.is_dir():
        for target in targets:
            check_writable(target, overwrite=overwrite)
    if plot is not None:
        from cloud_fallback.plot import require_plots

        require_plots(plot)
        check_writable(plot, overwrite=overwrite)
    return targets


def _takes(tiers: Sequence[DeviceTier]) -> dict[str, TensorType]:
    """What a stage of these tiers is given: all must take the same."""
    from edge_runtime.errors import ErrorCode
    from edge_runtime.tensor_type import Bindings

    first = tiers[0].takes
    for tier in tiers[1:]:
        own = tier.takes
        if own.keys() != first.keys() or any(Bindings().mismatch(first[name], own[name]) for name in own):
            raise HybridgeError(
                ErrorCode.CHAIN_INVALID,
                f"tier '{tier.name}'",
                received=", ".join(f"{name} {kind}" for name, kind in own.items()),
                expected=f"the inputs of '{tiers[0].name}', "
                + ", ".join(f"{name} {kind}" for name, kind in first.items()),
                fix="preprocess in the bundles, so that all tiers take the same",
            )
    return first


def _cloud_classes(
    url: str | None,
    settings: Mapping[str, Any],
    predictions: str | None,
    labelled: LabelledData,
    output: str,
) -> Array:
    if url is None:
        from cloud_fallback.threshold.labelled_data import read_predictions

        return read_predictions(predictions or "", len(labelled))
    from cloud_fallback.threshold.cloud_answers import ask_cloud

    say(f"asking {url} for {len(labelled):,} examples")
    return ask_cloud(
        url,
        list(labelled.items()),
        settings=settings,
        output=output,
        progress=_tenths(len(labelled)),
    )


def _tenths(count: int) -> Callable[[int], None]:
    """Says how far it is, ten times in all."""

    def progress(done: int) -> None:
        if done * 10 // count > (done - 1) * 10 // count and count >= 100:
            say(f"asked {done:,} of {count:,}")

    return progress


def _draw(record: FitRecord, plot: str, *, overwrite: bool) -> None:
    from cloud_fallback.threshold.curve_plot import draw_curve
    from edge_runtime.files import write_file

    picture = draw_curve(record.tradeoff, record.fit, suffix=Path(plot).suffix)
    write_file(plot, picture, overwrite=overwrite)


def _text(record: FitRecord, saved: Sequence[str], plot: str | None) -> str:
    fit, point = record.fit, record.fit.point
    rows = [
        (
            tier.name,
            f"{tier.spec.temperature:.4g}",
            f"{threshold:.4f}",
            f"{alone:.2%}",
            f"{answered:.1%}",
            "" if latency is None else f"{latency:.3f}",
        )
        for tier, threshold, alone, answered, latency in zip(
            record.tiers, point.thresholds, record.alone, point.answered, record.latencies_ms, strict=True
        )
    ]
    rows.append(("cloud", "", "", f"{record.cloud_accuracy:.2%}", f"{point.offloaded:.1%}", ""))
    lines = [
        f"promised: {fit.goal}, by {fit.tested:,} of {fit.samples:,} examples",
        f"on all of them: {point.accuracy:.2%} right, {point.offloaded:.1%} offloaded; exact bound {_bound(fit)}",
        "",
        table(rows, header=("", "temperature", "threshold", "right alone", "answers", "ms")),
        "",
        f"area under the curve: {record.tradeoff.area:.4f}; random {record.tradeoff.area_random:.4f}, "
        f"oracle {record.tradeoff.area_oracle:.4f}",
    ]
    if record.device_ms is not None:
        lines.append(f"time on the device: {record.device_ms:.3f} ms an example on average")
    lines += [f"written: {path}" for path in (*saved, *([plot] if plot else []))]
    return "\n".join(lines)


def _bound(fit: Fit) -> str:
    from cloud_fallback.threshold.fit import Promise

    return f"{'>=' if fit.goal.promise is Promise.ACCURACY else '<='} {fit.bound:.2%}"
