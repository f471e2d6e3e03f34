"""`hybridge fallback table`: what the cloud answers to the inputs that come most often, to be shipped with a device."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_runtime.access_flags import access_flags, access_settings
from edge_runtime.console import emit, format_option, say
from edge_runtime.errors import ErrorCode, HybridgeError

if TYPE_CHECKING:
    from cloud_fallback.client.client import CloudFallback
    from cloud_fallback.client.payload import Declared
    from edge_runtime.tensor_spec import Array

__all__ = ["table"]

# Nobody waits for these answers, and the first may have to wait for its model to be loaded.
_PATIENCE_S = 60.0


@click.command()
@click.option(
    "--data",
    type=click.Path(dir_okay=False),
    required=True,
    help="An .npz of logged inputs, repetitions and all: an array for each of the model's inputs, by its name "
    "and as the stage is given it, examples along the first axis.",
)
@click.option("--cloud", metavar="URL", required=True, help="Such as grpc://host:8001/digits-large.")
@access_flags
@click.option("--out", type=click.Path(dir_okay=False), required=True, help="The file with the answers.")
@click.option("--min-count", type=click.IntRange(min=1), default=1, help="Leave out what comes less often.")
@click.option("--top", type=click.IntRange(min=1), help="Ask about so many, the most frequent first.")
@click.option("--overwrite", is_flag=True, help="Replace a file that exists.")
@format_option
def table(
    data: str, cloud: str, out: str, min_count: int, top: int | None, overwrite: bool, **access: Any
) -> None:
    """Builds a table of answers computed beforehand, for the key `table` of a chain's fallback."""
    from cloud_fallback.client.answer_table import AnswerTable
    from cloud_fallback.client.client import CloudFallback
    from cloud_fallback.client.question import digest
    from edge_runtime.files import check_writable
    from edge_runtime.sources.file_value import read_arrays

    check_writable(out, overwrite=overwrite)
    arrays = read_arrays(data, name="")
    with CloudFallback.from_url(
        cloud, settings=access_settings(**access), deadline_s=_PATIENCE_S
    ) as fallback:
        rows = _rows(Path(data).name, arrays, _declared(fallback))
        counts = Counter(map(digest, rows))
        say(f"{len(rows):,} inputs, of which {len(counts):,} are distinct; asking {cloud}")
        made = AnswerTable.build(fallback, rows, limit=top, min_count=min_count, progress=_tenths)
    if not made.answers:
        raise HybridgeError(
            ErrorCode.DATA_INVALID,
            f"inputs '{Path(data).name}'",
            received=f"none that comes {min_count} times; the most frequent comes {max(counts.values())} times",
            expected="at least one that does",
            fix="lower --min-count",
        )
    made.save(out, overwrite=overwrite)
    answered = sum(counts[key] for key in made.answers)
    facts = {
        "table": out,
        "model": made.model,
        "model_version": made.model_version,
        "inputs": len(rows),
        "distinct": len(counts),
        "kept": len(made.answers),
        "share": answered / len(rows),
        "bytes": Path(out).stat().st_size,
    }
    emit(
        facts,
        lambda: (
            f"{out}: {facts['kept']:,} answers of model '{made.model}'"
            + (f", version {made.model_version}" if made.model_version else "")
            + f", {facts['bytes']:,} bytes\n"
            f"answers {answered:,} of {len(rows):,} requests of the data ({facts['share']:.1%}), "
            f"which have {len(counts):,} distinct inputs"
        ),
    )


def _declared(fallback: CloudFallback) -> Declared:
    """What the model takes; says why where nobody is to be asked, or does not let in."""
    from cloud_fallback.client.access_advice import access_advice, refusal

    if (error := refusal(fallback)) is not None:
        raise HybridgeError(
            error.code,
            error.what,
            received=error.received,
            fix=access_advice(error) or "start the endpoint, or check its address",
        )
    return fallback.declared()


def _rows(name: str, arrays: dict[str, Array], declared: Declared) -> list[dict[str, Array]]:
    """The inputs of each example, as a device sends them: where the model takes a batch, a batch of one."""
    what = f"inputs '{name}'"
    if missing := declared.keys() - arrays.keys():
        raise _invalid(
            what,
            f"arrays {', '.join(sorted(arrays)) or 'none'}",
            f"{', '.join(declared)}, by the names of the endpoint's model",
            f"add {', '.join(sorted(missing))}, or name the arrays so",
        )
    if declared and (unused := sorted(arrays.keys() - declared.keys())):
        say(f"{what}: not used: {', '.join(unused)}")
    used = {key: array for key, array in arrays.items() if not declared or key in declared}
    lengths = {key: len(array) if array.ndim else 0 for key, array in used.items()}
    if not lengths or not all(lengths.values()) or len(set(lengths.values())) > 1:
        raise _invalid(
            what,
            ", ".join(f"'{key}' of shape {array.shape}" for key, array in used.items()) or "no arrays",
            "arrays with the same number of examples, at least one, along the first axis",
            "give every array one row for each example",
        )
    for key, array in used.items():
        rank = declared[key][1] if key in declared else array.ndim - 1
        if rank not in (array.ndim, array.ndim - 1):
            raise _invalid(
                f"array '{key}' of {what}",
                f"shape {array.shape}",
                f"{rank} axes where the first is a batch, or {rank + 1} with the examples before them",
                "reshape it",
            )
    count = next(iter(lengths.values()))
    batched = {key for key, array in used.items() if key in declared and declared[key][1] == array.ndim}
    return [
        {
            key: array[index : index + 1] if key in batched else array[index, ...]
            for key, array in used.items()
        }
        for index in range(count)
    ]


def _tenths(done: int, total: int) -> None:
    """Says how far it is, ten times in all."""
    if total >= 100 and done * 10 // total > (done - 1) * 10 // total:
        say(f"asked {done:,} of {total:,}")


def _invalid(what: str, received: str, expected: str, fix: str) -> HybridgeError:
    return HybridgeError(ErrorCode.DATA_INVALID, what, received=received, expected=expected, fix=fix)
