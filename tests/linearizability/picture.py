"""Draws the window of a history that can not be ordered, as an SVG with a text for every sign.

One row an operation: on the left its number in the order, who called what, and what came back; on the right a bar from
its invocation to its return, with a dot where the order lets it take effect. Rows come in this order: the end of the
longest order that was found, the operation that fits nowhere behind it, what else is in flight there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from tests.linearizability.history import Operation
from tests.linearizability.window import Window

ORDERED_ROWS_MAX: Final = 16
"""Of the order that was found, so many are drawn: its end."""
OTHER_ROWS_MAX: Final = 20
"""Of the rest in flight, so many; those that will return first, then the latest of those that never did."""

_LABEL_CHARACTERS_MAX: Final = 32
_TOOLTIP_CHARACTERS_MAX: Final = 600
_STATE_CHARACTERS_MAX: Final = 60
_ROW: Final = 26
_HEAD: Final = 150
_LEFT: Final = 560
_COLUMN: Final = 30
_CHART_MAX: Final = 780
_RIGHT: Final = 40
_STYLE: Final = """
text { font: 13px ui-monospace, Menlo, Consolas, monospace; fill: #1b1f24; }
.title { font: bold 17px system-ui, sans-serif; }
.plain { font: 13px system-ui, sans-serif; }
.faint { fill: #57606a; }
.bar { fill: #d7e6f7; stroke: #2b5d94; }
.stuck { fill: #fbd5d2; stroke: #a40e26; stroke-width: 2.5; }
.open { fill: #eceff2; stroke: #57606a; stroke-dasharray: 5 3; }
.dot { fill: #17375c; }
.wrong { fill: #a40e26; font-weight: bold; }
.path { fill: none; stroke: #17375c; stroke-dasharray: 2 3; }
.rule { stroke: #d0d7de; }
"""


@dataclass(frozen=True, slots=True)
class _Row:
    operation: Operation
    sign: str
    """What stands in the first column: its number in the order, or why it has none."""
    css: str
    takes_effect: float | None
    """A position between its invocation and its return; None if the order does not hold it."""


def draw(window: Window, *, title: str) -> str:
    """The window as an SVG document. `title` says which history it is of."""
    rows = _rows(window)
    columns = _columns(rows)
    assert window.stuck.returned is not None, "what never returns needs no place"
    stuck_at = columns[float(window.stuck.returned)]
    width = int(_LEFT + max(columns.values()) + _column_width(len(columns)) + _RIGHT)
    height = _HEAD + _ROW * len(rows) + 96
    sentences = _sentences(window, title, rows)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"',
        ' role="img" aria-labelledby="title text">',
        f'<title id="title">{_text(sentences[0])}</title>',
        f'<desc id="text">{_text(" ".join([*sentences[1:], *(_spoken(row) for row in rows)]))}</desc>',
        f"<style>{_STYLE}</style>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        f'<text class="title" x="20" y="34">{_text(sentences[0])}</text>',
    ]
    parts += [
        f'<text class="plain" x="20" y="{60 + 20 * line}">{_text(sentence)}</text>'
        for line, sentence in enumerate(sentences[1:])
    ]
    top, bottom = _HEAD - 8, _HEAD + _ROW * len(rows)
    x = _LEFT + stuck_at
    parts.append(f'<line class="rule" x1="{x}" y1="{top}" x2="{x}" y2="{bottom}"/>')
    points = []
    for line, row in enumerate(rows):
        y = _HEAD + _ROW * line
        parts += _draw_row(row, columns, y)
        if row.takes_effect is not None:
            points.append(f"{_LEFT + columns[row.takes_effect]},{y + 10}")
    if len(points) > 1:
        parts.append(f'<polyline class="path" points="{" ".join(points)}"/>')
    parts += [
        f'<text class="plain faint" x="20" y="{bottom + 30 + 20 * line}">{_text(sentence)}</text>'
        for line, sentence in enumerate(_legend(window))
    ]
    parts.append("</svg>")
    return "\n".join(parts) + "\n"


def _rows(window: Window) -> list[_Row]:
    first = max(0, len(window.prefix) - ORDERED_ROWS_MAX)
    rows = [
        _Row(operation, f"{first + at + 1}.", "bar", position)
        for at, (operation, position) in enumerate(_effects(window.prefix)[first:])
    ]
    rows.append(_Row(window.stuck, "stuck", "stuck", None))
    placed = {operation.number for operation in window.prefix}
    others = [
        operation
        for operation in window.in_flight
        if operation.number not in placed and operation.number != window.stuck.number
    ]
    others.sort(key=lambda operation: (operation.returned is None, operation.returned or -operation.invoked))
    rows += [_Row(operation, "free", "open", None) for operation in others[:OTHER_ROWS_MAX]]
    return rows


def _effects(order: Sequence[Operation]) -> list[tuple[Operation, float]]:
    """A position for each operation at which it may have taken effect, growing along the order."""
    effects: list[tuple[Operation, float]] = []
    latest = -1.0
    run = 0
    for operation in order:
        if operation.invoked > latest:
            latest, run = float(operation.invoked), 0
        run += 1
        # All of a run lie before the next event, whose position is a whole number higher.
        effects.append((operation, latest + 1 - 0.5**run if run < 40 else latest + 1 - 0.5**40))
    return effects


def _column_width(count: int) -> float:
    return min(_COLUMN, _CHART_MAX / (count + 1))


def _columns(rows: Sequence[_Row]) -> dict[float, float]:
    """How far to the right each position that is drawn stands. They are all as far apart, whatever lay between."""
    positions: set[float] = set()
    for row in rows:
        positions.add(float(row.operation.invoked))
        if row.operation.returned is not None:
            positions.add(float(row.operation.returned))
        if row.takes_effect is not None:
            positions.add(row.takes_effect)
    width = _column_width(len(positions))
    return {position: round(column * width, 1) for column, position in enumerate(sorted(positions))}


def _draw_row(row: _Row, columns: dict[float, float], y: int) -> list[str]:
    operation = row.operation
    start = _LEFT + columns[float(operation.invoked)]
    margin = max(columns.values()) + _column_width(len(columns))
    end = _LEFT + (margin if operation.returned is None else columns[float(operation.returned)])
    sign_class = "wrong" if row.css == "stuck" else "faint"
    line = f"line {operation.line}" if operation.line else ""
    what = _shortened(describe(operation), _LABEL_CHARACTERS_MAX)
    parts = [
        f"<g><title>{_text(_spoken(row))}</title>",
        f'<text class="{sign_class}" x="20" y="{y + 14}">{row.sign}</text>',
        f'<text class="faint" x="80" y="{y + 14}">{_text(_shortened(f"process {operation.process}", 16))}</text>',
        f'<text class="faint" x="210" y="{y + 14}">{line}</text>',
        f'<text x="{_LEFT - 20}" y="{y + 14}" text-anchor="end">{_text(what)}</text>',
        f'<rect class="{row.css}" x="{start}" y="{y + 2}" width="{max(end - start, 4):.1f}" height="16" rx="3"/>',
    ]
    if operation.returned is None:
        parts.append(f'<text class="faint" x="{end + 4}" y="{y + 15}">…</text>')
    if row.takes_effect is not None:
        parts.append(f'<circle class="dot" cx="{_LEFT + columns[row.takes_effect]}" cy="{y + 10}" r="5"/>')
    if row.css == "stuck":
        parts.append(f'<text class="wrong" x="{start - 8}" y="{y + 15}" text-anchor="end">fits nowhere</text>')
    parts.append("</g>")
    return parts


def _sentences(window: Window, title: str, rows: Sequence[_Row]) -> list[str]:
    of_key = f", key {_value(window.key)}" if window.key else ""
    who = f"process {window.stuck.process}" + (f", line {window.stuck.line}" if window.stuck.line else "")
    states = " or ".join(_shortened(_value(state), _STATE_CHARACTERS_MAX) for state in window.states)
    left_out = len(window.in_flight) - sum(
        1 for row in rows if row.operation.number in {operation.number for operation in window.in_flight}
    )
    furthest = "The longest order" if window.is_furthest else "The longest order that was found in the time given"
    sentences = [
        f"{title}{of_key}: not linearizable",
        f"Stuck at: {_shortened(describe(window.stuck), 100)} ({who}).",
        f"{furthest} holds {len(window.prefix)} operations and explains all that returned before; its end is drawn.",
        f"It may leave the state {states}: from there, no step of what is in flight leads to one that explains this.",
    ]
    if left_out > 0:
        sentences.append(f"In flight too and not drawn: {left_out} operations.")
    return sentences


def _legend(window: Window) -> list[str]:
    legend = [
        "Time runs to the right. A bar runs from invocation to return; one that ends in … never had an answer.",
        "Numbered: the order, with a dot where each takes effect. free: in flight, and not needed so far.",
    ]
    if not window.is_furthest:
        legend.append("The search for this picture was cut short: another order may reach further, none to the end.")
    return legend


def _spoken(row: _Row) -> str:
    operation = row.operation
    where = f", line {operation.line}" if operation.line else ""
    what = {"stuck": "fits nowhere: ", "free": "in flight: "}.get(row.sign, f"{row.sign} ")
    return f"{what}process {operation.process}{where}: {_shortened(describe(operation), _TOOLTIP_CHARACTERS_MAX)}."


def describe(operation: Operation) -> str:
    """An operation in a few words: what was asked, and what came back."""
    asked = operation.action if operation.argument is None else f"{operation.action} {_value(operation.argument)}"
    if operation.outcome_is_unknown:
        return f"{asked} (no answer)"
    if operation.result is True:
        return asked
    return f"{asked} → {'refused' if operation.result is False else _value(operation.result)}"


def _value(value: object) -> str:
    if value is None:
        return "nil"
    if isinstance(value, tuple):
        return "[" + " ".join(_value(item) for item in value) + "]"
    return f'"{value}"' if isinstance(value, str) else str(value)


def _shortened(text: str, characters_max: int) -> str:
    """The text, its middle left out where it is too long: values that differ mostly do so at their ends."""
    if len(text) <= characters_max:
        return text
    kept = characters_max - 3
    return f"{text[: kept // 3]} … {text[len(text) - (kept - kept // 3) :]}"


def _text(text: str) -> str:
    """Fit for XML, which knows no other control characters than tab and line ends."""
    return escape("".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text))
