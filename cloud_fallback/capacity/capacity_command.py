"""`hybridge fallback capacity`: how many replicas answer a fleet of devices."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import msgspec

from edge_runtime.console import emit, format_option, table, usage_error

if TYPE_CHECKING:
    from cloud_fallback.capacity import OffloadPoint, Plan, Traffic

__all__ = ["capacity"]


@click.command()
@click.option("--devices", type=int, required=True, help="Devices in the fleet.")
@click.option(
    "--requests-per-hour",
    type=float,
    required=True,
    help="Predictions that one device makes in an hour, on average.",
)
@click.option("--peak-factor", type=float, help="Load of the busiest hour over the average.  [default: 1]")
@click.option(
    "--profile",
    type=click.Path(dir_okay=False),
    help="CSV file with the load of each hour, in any unit; in place of --peak-factor.",
)
@click.option(
    "--surge",
    type=float,
    default=1.0,
    show_default=True,
    help="Times as many questions as usual at the worst: retries, and outboxes that drain after an outage.",
)
@click.option("--offload", type=float, help="Share of predictions for which the cloud is asked.")
@click.option(
    "--bundle",
    type=click.Path(dir_okay=False),
    help="The devices' bundle, with its curve; in place of --offload.",
)
@click.option(
    "--threshold", type=float, help="Confidence below which the cloud is asked.  [default: the bundle's]"
)
@click.option(
    "--service-ms", type=float, required=True, help="What one request takes one worker, on average."
)
@click.option(
    "--service-cv",
    type=float,
    default=1.0,
    show_default=True,
    help="Standard deviation of that over its mean: 0 for a constant, 1 to be on the safe side.",
)
@click.option(
    "--workers-per-replica",
    type=int,
    default=1,
    show_default=True,
    help="Requests that one replica runs at once.",
)
@click.option(
    "--deadline-ms", type=float, required=True, help="From question to answer, as a device counts it."
)
@click.option("--network-ms", type=float, required=True, help="Of that, the way there and back.")
@click.option(
    "--target-late", type=float, default=0.01, show_default=True, help="Share of answers that may be later."
)
@click.option(
    "--max-utilisation",
    type=float,
    default=0.8,
    show_default=True,
    help="Share of the time that workers may be busy.",
)
@click.option(
    "--spare", type=int, default=1, show_default=True, help="Replicas that may be away with the promise kept."
)
@click.option("--replica-price", type=float, help="What a replica costs in an hour, in any currency.")
@click.option(
    "--plot", "plot", type=click.Path(dir_okay=False), help="Draw the curves: a .png, .svg or .pdf file."
)
@click.option("--overwrite", is_flag=True, help="Let --plot replace a file.")
@format_option
def capacity(
    devices: int,
    requests_per_hour: float,
    peak_factor: float | None,
    profile: str | None,
    surge: float,
    offload: float | None,
    bundle: str | None,
    threshold: float | None,
    service_ms: float,
    service_cv: float,
    workers_per_replica: int,
    deadline_ms: float,
    network_ms: float,
    target_late: float,
    max_utilisation: float,
    spare: int,
    replica_price: float | None,
    plot: str | None,
    overwrite: bool,
) -> None:
    """Works out how many replicas of the endpoint a fleet needs, and what a point of accuracy costs.

    Requests arrive at random, each replica has a line of its own, and no more than --target-late of the answers may
    reach a device after its deadline, also while --spare replicas are away.
    """
    from cloud_fallback.capacity import GammaTime, Goal, Replica, plan
    from edge_runtime.files import check_writable

    if plot is not None:
        from cloud_fallback.plot import require_plots

        require_plots(plot)
        check_writable(plot, overwrite=overwrite)
    worked_out = plan(
        _traffic(devices, requests_per_hour, peak_factor, profile, surge),
        *_offload(offload, bundle, threshold),
        Replica(GammaTime(service_ms / 1e3, service_cv), workers_per_replica),
        Goal(deadline_ms / 1e3, network_ms / 1e3, target_late, max_utilisation, spare),
        replica_price=replica_price,
    )
    if plot is not None:
        from cloud_fallback.capacity.capacity_plot import draw

        draw(worked_out, plot, overwrite=overwrite)
    emit(
        {"replicas": worked_out.chosen.staffing.replicas, **msgspec.structs.asdict(worked_out), "plot": plot},
        lambda: _text(worked_out),
    )


def _traffic(
    devices: int, requests_per_hour: float, peak_factor: float | None, profile: str | None, surge: float
) -> Traffic:
    from cloud_fallback.capacity import Traffic
    from cloud_fallback.capacity.traffic import read_profile
    from edge_runtime.files import read_file

    if profile is None:
        return Traffic(devices, requests_per_hour, 1.0 if peak_factor is None else peak_factor, surge=surge)
    if peak_factor is not None:
        raise usage_error("--peak-factor and --profile both say how high the peak is; give one")
    hours = read_profile(read_file(profile), profile)
    return Traffic.by_the_hour(devices, requests_per_hour, hours=hours, surge=surge)


def _offload(
    offload: float | None, bundle: str | None, threshold: float | None
) -> tuple[OffloadPoint, list[OffloadPoint]]:
    from cloud_fallback.capacity.offload import bundle_curve, share_curve
    from edge_runtime.bundle import Bundle

    if (offload is None) == (bundle is None):
        raise usage_error("give the share offloaded, either as --offload or by the curve of a --bundle")
    if bundle is not None:
        return bundle_curve(Bundle.open(bundle), threshold)
    if threshold is not None:
        raise usage_error("--threshold is a point on the curve of a --bundle; there is none")
    return share_curve(offload or 0.0)


def _text(plan: Plan) -> str:
    chosen, staffing = plan.chosen, plan.chosen.staffing
    loads = (staffing.all_up, staffing.spare_away)
    rows = [
        ("replicas", *(f"{load.replicas:,}" for load in loads)),
        ("workers busy", *(f"{load.utilisation:.1%}" for load in loads)),
        ("late answers", *(f"{load.late:.3%}" for load in loads)),
        ("wait p50 ms", *(f"{load.wait_p50_ms:.1f}" for load in loads)),
        ("wait p99 ms", *(f"{load.wait_p99_ms:.1f}" for load in loads)),
        ("in the line of a replica", *(f"{load.waiting:.2f}" for load in loads)),
    ]
    lines = [
        f"{_count(staffing.replicas, 'replica')} for {_rate(staffing.arrivals_per_s)} requests/s at the peak, "
        f"{chosen.at.offloaded:.1%} of all predictions"
        + (f", for an accuracy of {chosen.at.accuracy:.2%}" if chosen.at.accuracy is not None else ""),
        "",
        table(rows, header=("at the peak", "all up", f"{_count(plan.goal.spare, 'spare one')} away")),
        "",
        f"{_count(staffing.one_line, 'replica')} would do if all shared one line",
    ]
    if plan.hourly_replicas:
        least, most = min(plan.hourly_replicas), max(plan.hourly_replicas)
        lines.append(f"{least:,} to {most:,} replicas over the hours of the profile")
    if chosen.cost_per_million is not None:
        lines.append(f"{chosen.cost_per_million:.4g} for a million predictions with all of them up all day")
    if plan.cost_per_million_by_the_hour is not None:
        lines.append(f"{plan.cost_per_million_by_the_hour:.4g} with as many as each hour needs")
    return "\n".join([*lines, "", _curve_table(plan)])


def _curve_table(plan: Plan) -> str:
    with_accuracy, with_cost = plan.chosen.at.accuracy is not None, plan.chosen.cost_per_million is not None
    header = ["offloaded", *(["accuracy"] if with_accuracy else []), "replicas"]
    header += ["for a million"] if with_cost else []
    rows = []
    for point in plan.curve:
        mark = " <" if point == plan.chosen else ""
        cells = [f"{point.at.offloaded:.1%}{mark}"]
        cells += [f"{point.at.accuracy:.2%}"] if with_accuracy else []
        cells += [f"{point.staffing.replicas:,}"]
        cells += [f"{point.cost_per_million:.4g}"] if with_cost else []
        rows.append(tuple(cells))
    return table(rows, header=tuple(header))


def _rate(per_s: float) -> str:
    return f"{per_s:,.0f}" if per_s >= 1000 else f"{per_s:.4g}"


def _count(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'' if number == 1 else 's'}"
