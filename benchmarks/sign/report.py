"""The sign translator's report: before and after, what was read, and where the time went, in one HTML page."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edge_runtime import __version__
from edge_runtime.latency import machine_name

if TYPE_CHECKING:
    from benchmarks.sign.demo import Picture, SignResult

__all__ = ["render_report"]

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>hybridge: the sign translator</title><style>
body {{ font: 16px/1.5 system-ui, sans-serif; color: #0f172a; max-width: 72rem; margin: 2rem auto; padding: 0 1rem }}
h1 {{ margin-bottom: 0 }} h2 {{ margin-top: 2.5rem }} .lead {{ font-size: 1.1rem; color: #334155 }}
.pair {{ display: grid; grid-template-columns: 1fr 1fr; gap: .75rem }} .pair img {{ width: 100%; border-radius: 6px }}
table {{ border-collapse: collapse; width: 100%; margin-top: .75rem }} .wide {{ overflow-x: auto }}
th, td {{ padding: .3rem .6rem; text-align: left; font-size: .92rem; border-bottom: 1px solid #e2e8f0 }}
th {{ color: #475569; font-weight: 600 }} td.number {{ text-align: right; font-variant-numeric: tabular-nums }}
.cloud {{ color: #ea580c; font-weight: 600 }} .kept {{ color: #64748b; font-style: italic }}
.bar {{ background: #2563eb; height: .7rem; border-radius: 2px; min-width: 1px }}
footer {{ margin-top: 3rem; color: #64748b; font-size: .9rem }} code {{ background: #f1f5f9; padding: 0 .25em }}
@media (max-width: 40rem) {{ .pair {{ grid-template-columns: 1fr }} }}
</style></head><body>
<h1>Signs, in Spanish</h1>
<p class="lead">{lead}</p>
{pictures}
<h2>Where the time goes</h2>
<p>Median milliseconds of each stage over {count} images; a stage that runs for each line counts all of them.</p>
<div class="wide"><table><tr><th>stage</th><th>ms</th><th style="width:60%"></th></tr>{stages}</table></div>
<footer>hybridge {version} on {machine}. Made by <code>hybridge demo sign</code>.</footer></body></html>
"""


def render_report(result: SignResult) -> str:
    """The page, with its pictures inside."""
    lines = [line for picture in result.pictures for line in picture.lines]
    asked = sum("cloud" in (line.source, line.translator) for line in lines)
    translated = sum(line.translated for line in lines)
    lead = (
        f"{len(lines)} lines on {len(result.pictures)} images, {translated} of them translated, "
        f"{len(lines) - asked} by the device alone. A line in a frame stays in English: nobody was sure what it says."
    )
    return _PAGE.format(
        lead=html.escape(lead),
        pictures="".join(_picture(picture) for picture in result.pictures),
        count=len(result.pictures),
        stages=_stages(result.pictures),
        version=__version__,
        machine=html.escape(machine_name()),
    )


def _picture(picture: Picture) -> str:
    rows = "".join(
        f"<tr><td>{html.escape(line.text)}</td>"
        f"<td{'' if line.translated else ' class=kept'}>{html.escape(line.translation)}</td>"
        f"<td class=number>{line.confidence:.2f}</td>{_source(line.source)}"
        f"<td class=number>{line.translation_confidence:.2f}</td>{_source(line.translator)}"
        f"<td>{html.escape(line.font)}</td></tr>"
        for line in picture.lines
    )
    return (
        f"<h2>{html.escape(picture.name)}</h2>"
        f"<div class=pair>{_image(picture.before, 'before')}{_image(picture.after, 'after')}</div>"
        "<div class=wide><table><tr><th>read</th><th>translation</th><th>confidence</th><th>read by</th>"
        f"<th>confidence</th><th>translated by</th><th>font</th></tr>{rows}</table></div>"
        f"<p>{picture.elapsed_ms:.0f} ms</p>"
    )


def _source(source: str) -> str:
    return f"<td class=cloud>{source}</td>" if source == "cloud" else f"<td>{html.escape(source)}</td>"


def _image(path: Path, what: str) -> str:
    encoded = base64.b64encode(path.read_bytes()).decode()
    return f'<img alt="{what}" src="data:image/png;base64,{encoded}">'


def _stages(pictures: Sequence[Picture]) -> str:
    from statistics import median

    names = dict.fromkeys(name for picture in pictures for name in picture.stages_ms)
    times = {name: median(picture.stages_ms.get(name, 0.0) for picture in pictures) for name in names}
    longest = max(times.values(), default=1.0) or 1.0
    return "".join(
        f"<tr><td>{html.escape(name)}</td><td class=number>{milliseconds:.2f}</td>"
        f'<td><div class=bar style="width:{100 * milliseconds / longest:.1f}%"></div></td></tr>'
        for name, milliseconds in times.items()
    )
