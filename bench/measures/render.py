"""A saved run as a chart, a page, and the tables of README and docs/benchmarks.md."""

from __future__ import annotations

import html
import io
from collections.abc import Sequence
from pathlib import Path

from attrs import frozen

from measures.peers import OURS, PEERS, winners_of
from measures.report import Series, cells, shown_ratio
from measures.saved import SavedRun
from measures.tasks import NUMPY, TRIVIAL, WORK

BEGIN, END = "<!-- benchmarks: begin -->", "<!-- benchmarks: end -->"
"""Around what is generated in a Markdown file."""

SLOWER = "guest / native: "
"""How the rows begin that compare the guest's speed with the host's."""

_CHART_TASKS = (TRIVIAL, NUMPY, WORK)
_ALL_CORES = "on all cores"
_COLOURS = {True: "#2a78b5", False: "#a8a8a8"}
_OUR_COLOUR = "#d1651d"
_SALT = "evocell"
_FIGURE_INCHES = (9.0, 6.6)


@frozen
class Line:
    """A line of README's table.

    Attributes:
        label: What it says.
        ours: The row of evocell.
        theirs: The row it stands beside; None for the baseline's call.
        each: How many of theirs one of ours does.
    """

    label: str
    ours: str
    theirs: str
    each: int = 1


_CALL = "subprocess: python, import numpy, call, end (the baseline)"
_MEMORY = "subprocess with numpy: memory"
LINES = (
    Line("create + call + destroy, in the worker", "worker process: fork + first call + destroy", _CALL),
    Line("create + call + destroy, public API", "engine: create + first call + destroy", _CALL),
    Line("each further call in a session", "engine: second call in the session", _CALL),
    Line("100 trivial candidates, all different", "engine: evaluate 100 candidates, trivial", _CALL, 100),
    Line("memory of its own, after a call", "memory each: a session kept ready, of 200", _MEMORY),
    Line("memory of its own, idle", "memory each: a record, of 2,000", _MEMORY),
)


def readme_table(run: SavedRun) -> str:
    """The few figures that README shows, as Markdown, with the day and the machine."""
    rows = [
        "|  | subprocess with numpy | evocell | times cheaper |",
        "| --- | ---: | ---: | ---: |",
        *(_line(run, line) for line in LINES if line.ours in run.series and line.theirs in run.series),
    ]
    day = run.machine["date"].split()[0]
    about = f"Medians of {run.machine['took'].rpartition(', ')[2]} on {run.machine['processor']}, {day}."
    return "\n".join([*rows, "", about])


def docs_table(run: SavedRun) -> str:
    """Every row, by section, as Markdown."""
    parts = ["```text", *(f"{name}: {value}" for name, value in run.machine.items()), "```"]
    for section in dict.fromkeys(series.section for series in run.series.values()):
        rows = [series for series in run.series.values() if series.section == section]
        parts += ["", f"### {section[0].upper()}{section[1:]}", "", *_markdown(rows)]
    notes = [f"- Left out: {name}: {why}." for name, why in run.skipped.items()]
    notes += [f"- {line}." for line in winners_of(run.series)]
    missed = [series for series in run.series.values() if series.met is False]
    notes += [
        f"- Target missed: {series.name}: {series.shown(series.median)} against {series.shown_target()} {series.unit}."
        for series in missed
    ]
    return "\n".join([*parts, *(["", "### What to know", "", *notes] if notes else [])])


def speed_table(run: SavedRun) -> str:
    """How many times slower work is in the guest, as Markdown; the slowest last."""
    found = {name: series for name, series in run.series.items() if name.startswith(SLOWER)}
    rows = [
        f"| {name.removeprefix(SLOWER)} | {series.shown(series.median)} |"
        for name, series in sorted(found.items(), key=lambda item: item[1].median)
    ]
    day, python = run.machine["date"].split()[0], run.machine["python"].rpartition(".")[0]
    about = f"Against native CPython {python} with one BLAS thread, with fuel counted; {day}."
    return "\n".join(["| work | times slower |", "| --- | ---: |", *rows, "", about])


def put_between(text: str, made: str) -> str:
    """Replace what stands between the marks of a Markdown file.

    Raises:
        ValueError: The marks are not there.
    """
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the text has no {BEGIN} before an {END}")
    return f"{head}{BEGIN}\n{made}\n{END}{tail}"


def write_chart(run: SavedRun, path: Path) -> None:
    """Draw evaluations per second of evocell and its peers, as SVG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_chart(run), encoding="utf-8")


def write_page(run: SavedRun, path: Path) -> None:
    """Write one page that needs no network: the chart and all rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_page(run), encoding="utf-8")


def _line(run: SavedRun, line: Line) -> str:
    ours, theirs = run.series[line.ours], run.series[line.theirs]
    factor = line.each * theirs.median / ours.median
    shown = f"{factor:,.0f}×" if factor >= 10 else f"{factor:.1f}×"
    return f"| {line.label} | {_amount(theirs, line.each)} | {_amount(ours)} | {shown} |"


def _amount(series: Series, each: int = 1) -> str:
    value = series.median * each
    units = (
        (("GB", 1e9), ("MB", 1e6), ("kB", 1e3))
        if series.unit == "MB"
        else (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6))
    )
    unit, scale = next((pair for pair in units if value >= pair[1]), units[-1])
    return f"{value / scale:.3g} {unit}"


def _markdown(rows: Sequence[Series]) -> list[str]:
    headings = ("measured", "unit", "median", "10 %", "90 %", "n", "target", "", "times cheaper")
    return [
        f"| {' | '.join(headings)} |",
        f"| --- | --- |{' ---: |' * (len(headings) - 2)}",
        *(f"| {' | '.join(cells(series))} |" for series in rows),
    ]


def _chart(run: SavedRun) -> str:
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot

    with mpl.rc_context({"svg.hashsalt": _SALT, "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure, places = pyplot.subplots(len(_CHART_TASKS), 1, figsize=_FIGURE_INCHES, layout="constrained")
        for place, task in zip(places, _CHART_TASKS, strict=True):
            bars = [
                (peer, run.series[name].median)
                for peer in PEERS
                if (name := f"{peer.name}: {task.name}: {_ALL_CORES}") in run.series
            ]
            bars.sort(key=lambda bar: bar[1])
            colours = [_OUR_COLOUR if peer.name == OURS else _COLOURS[peer.isolated] for peer, _ in bars]
            drawn = place.barh([peer.name for peer, _ in bars], [rate for _, rate in bars], color=colours)
            place.bar_label(
                drawn, labels=[f"{rate:,.0f}" if rate >= 10 else f"{rate:.1f}" for _, rate in bars], padding=3
            )
            place.set_xscale("log")
            place.set_title(f"evaluations per second, {task.name}", loc="left", fontsize=10)
            place.spines[["top", "right"]].set_visible(False)
            place.tick_params(labelsize=8)
            place.margins(x=0.12)
        day = run.machine["date"].split()[0]
        figure.supxlabel(
            f"logarithmic; grey: programs are not isolated from the machine or each other; {run.machine['processor']}; {day}",
            fontsize=8,
        )
        drawing = io.StringIO()
        figure.patch.set_facecolor("white")
        figure.savefig(drawing, format="svg", metadata={"Date": None, "Creator": None})
        pyplot.close(figure)
    return "\n".join(line.rstrip() for line in drawing.getvalue().splitlines()) + "\n"


def _page(run: SavedRun) -> str:
    chart = _chart(run)
    drawing = chart[chart.index("<svg") :]
    head = "".join(
        f"<dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>" for name, value in run.machine.items()
    )
    parts = []
    for section in dict.fromkeys(series.section for series in run.series.values()):
        rows = [series for series in run.series.values() if series.section == section]
        parts.append(f"<h2>{html.escape(section)}</h2><table><thead>{_HEAD}</thead><tbody>")
        parts += [_html_row(series) for series in rows]
        parts.append("</tbody></table>")
    notes = [f"left out: {name}: {why}" for name, why in run.skipped.items()] + winners_of(run.series)
    listed = "".join(f"<li>{html.escape(note)}</li>" for note in notes)
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>evocell benchmarks</title><style>{_STYLE}</style>"
        f"<h1>evocell benchmarks</h1><dl>{head}</dl><figure>{drawing}</figure><ul>{listed}</ul>{''.join(parts)}</html>\n"
    )


def _html_row(series: Series) -> str:
    name, unit, median, low, high, n, target, met, _ = cells(series)
    numbers = "".join(f"<td class=n>{html.escape(text)}</td>" for text in (median, low, high, n, target))
    verdict = f"<td class='{met}'>{met}</td>"
    ratio = html.escape(shown_ratio(series.ratio))
    return f"<tr><td>{html.escape(name)}</td><td>{unit}</td>{numbers}{verdict}<td class=n>{ratio}</td></tr>"


_HEAD = "<tr><th>measured<th>unit<th>median<th>10 %<th>90 %<th>n<th>target<th><th>times cheaper</tr>"
_STYLE = """
:root { color-scheme: light dark; --line: #8884; --good: #2a8a3e; --bad: #c0392b; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0 1rem; }
dt { opacity: .7; } dd { margin: 0; }
figure { margin: 1rem 0; background: #fff; border-radius: 6px; padding: .5rem; }
figure svg { width: 100%; height: auto; }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
th, td { text-align: left; padding: .2rem .5rem; border-bottom: 1px solid var(--line); }
.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.met { color: var(--good); } .missed { color: var(--bad); font-weight: 600; }
"""
