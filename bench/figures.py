"""Numbers out of runs: histograms of latencies, medians, spread, ratios, and the table. Pure.

Latencies are counted in buckets 2 % wide, so that client processes can send theirs in a few hundred numbers; a quantile
is the geometric middle of its bucket, at most 1 % off.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from bench.works import DEATHS

BUCKET_RATIO: Final = 1.02
_LOG: Final = math.log(BUCKET_RATIO)
AROUND_S: Final = 0.5
"""An acknowledgement that was on its way when the leader died may arrive; the silence begins within this."""


class Histogram:
    """Latencies in microseconds, by bucket."""

    def __init__(self, buckets: Mapping[int, int] | None = None) -> None:
        self.buckets: Counter[int] = Counter(buckets or {})

    @classmethod
    def of_seconds(cls, latencies_s: Iterable[float]) -> Histogram:
        log = math.log
        return cls(Counter(int(log(max(latency_s * 1e6, 1.0)) / _LOG) for latency_s in latencies_s))

    @property
    def count(self) -> int:
        return self.buckets.total()

    def quantile_us(self, share: float) -> float | None:
        """The latency that `share` of all are not above; None where there are none."""
        wanted, seen = share * self.count, 0
        for bucket in sorted(self.buckets):
            seen += self.buckets[bucket]
            if seen >= wanted and seen > 0:
                return float(BUCKET_RATIO ** (bucket + 0.5))
        return None

    def to_json(self) -> list[list[int]]:
        return [[bucket, count] for bucket, count in sorted(self.buckets.items())]

    @classmethod
    def from_json(cls, pairs: Iterable[Sequence[int]]) -> Histogram:
        return cls({pair[0]: pair[1] for pair in pairs})

    def __add__(self, other: Histogram) -> Histogram:
        return Histogram(self.buckets + other.buckets)


class Figure(NamedTuple):
    """A median over rounds (or kills), with the least and the most."""

    median: float
    least: float
    most: float
    samples: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Figure | None:
        return cls(statistics.median(values), min(values), max(values), len(values)) if values else None

    @property
    def spread(self) -> float:
        """Half the distance from least to most, as a share of the median."""
        return (self.most - self.least) / 2 / self.median if self.median else 0.0


def changes_of_owner(grants: Iterable[tuple[float, int]]) -> int:
    """How often the lock went to somebody else. `grants`: when and to whom, in any order."""
    owners = [owner for _, owner in sorted(grants)]
    return sum(before != after for before, after in itertools.pairwise(owners))


def silence_s(acknowledged_s: Iterable[float], died_s: float) -> float | None:
    """Seconds from the death at `died_s` to the end of the longest silence behind it that began around it: to the first
    write that a successor acknowledged. None while the silence may still last."""
    times = sorted(acknowledged_s)
    if not times or times[-1] < died_s + AROUND_S:
        return None
    around = [(a, b) for a, b in itertools.pairwise(times) if b > died_s and a < died_s + AROUND_S]
    return max(around, key=lambda pair: pair[1] - max(pair[0], died_s))[1] - died_s if around else None


# --- cells ----------------------------------------------------------------------------------------


class Cell(NamedTuple):
    """One measurement: `value` in the unit of its work (a rate, or milliseconds for the deaths)."""

    peer: str
    round: int
    work: str
    callers: int
    value: float
    cpu_us: float | None
    """CPU time of all servers and clients for each operation."""
    p50_us: float | None = None
    p99_us: float | None = None
    errors: int = 0
    first_error: str = ""


Key = tuple[str, int]
"""A work and its callers."""


def gathered(cells: Iterable[Cell]) -> dict[Key, dict[str, list[Cell]]]:
    """By work and callers, then by peer; both in the order in which they first came."""
    found: dict[Key, dict[str, list[Cell]]] = {}
    for cell in cells:
        found.setdefault((cell.work, cell.callers), {}).setdefault(cell.peer, []).append(cell)
    return found


def summary(cells: Iterable[Cell], reference: str) -> list[dict[str, Any]]:
    """One record for each work, callers and peer: medians, spread and the ratio to the reference (times faster)."""
    records = []
    for (work, callers), by_peer in gathered(cells).items():
        base = Figure.of([cell.value for cell in by_peer.get(reference, [])])
        for peer, found in by_peer.items():
            figure = Figure.of([cell.value for cell in found])
            assert figure is not None
            cpu = Figure.of([cell.cpu_us for cell in found if cell.cpu_us is not None])
            p50 = Figure.of([cell.p50_us for cell in found if cell.p50_us is not None])
            p99 = Figure.of([cell.p99_us for cell in found if cell.p99_us is not None])
            records.append(
                {
                    "work": work,
                    "callers": callers,
                    "peer": peer,
                    "median": figure.median,
                    "least": figure.least,
                    "most": figure.most,
                    "samples": figure.samples,
                    "ratio": times_faster(work, figure, base),
                    "p50_us": p50.median if p50 else None,
                    "p99_us": p99.median if p99 else None,
                    "cpu_us": cpu.median if cpu else None,
                    "errors": sum(cell.errors for cell in found),
                }
            )
    return records


def times_faster(work: str, figure: Figure, base: Figure | None) -> float | None:
    """How many times faster than the reference: of rates the quotient, of times its inverse."""
    if base is None or not base.median:
        return None
    if work not in DEATHS:
        return figure.median / base.median
    return base.median / figure.median if figure.median else None


def table(cells: Sequence[Cell], peers: Sequence[str], reference: str, units: Mapping[str, str]) -> str:
    """A table in Markdown: a row for each work and number of callers, a column for each peer; in it the median, its
    spread, and the ratio to the reference. CPU rows follow: seconds for 100,000 operations."""
    records = {(r["work"], r["callers"], r["peer"]): r for r in summary(cells, reference)}
    keys = [*gathered(cells)]
    rows = [["work", "callers", *peers]]
    for work, callers in keys:
        row = [f"{work} ({units[work]})", str(callers)]
        row += [_text(records.get((work, callers, peer)), peer == reference) for peer in peers]
        rows.append(row)
    for work, callers in keys:
        if all(records.get((work, callers, peer), {}).get("cpu_us") is None for peer in peers):
            continue
        row = [f"CPU s for 100,000 {units[work].split('/')[0]}", str(callers)]
        row += [
            _cpu_text(records.get((work, callers, peer)), records.get((work, callers, reference))) for peer in peers
        ]
        rows.append(row)
    return markdown(rows)


def _text(record: Mapping[str, Any] | None, is_reference: bool) -> str:
    if record is None:
        return "-"
    figure = Figure(record["median"], record["least"], record["most"], record["samples"])
    ratio = "" if is_reference or record["ratio"] is None else f" **{digits(record['ratio'], 2)}x**"
    failed = f" ({record['errors']} failed)" if record["errors"] else ""
    return f"{figure.median:,.0f} ±{figure.spread:.0%}{ratio}{failed}"


def _cpu_text(record: Mapping[str, Any] | None, base: Mapping[str, Any] | None) -> str:
    if record is None or record["cpu_us"] is None:
        return "-"
    text = f"{record['cpu_us'] / 10:,.1f}"
    if base is None or base is record or not base["cpu_us"]:
        return text
    return f"{text} **{digits(record['cpu_us'] / base['cpu_us'], 2)}x**"


def digits(value: float, count: int) -> str:
    """With so many significant digits, and all of those that a larger number has before its point."""
    return f"{value:,.0f}" if math.isfinite(value) and value >= 10**count - 0.5 else f"{value:,.{count}g}"


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """The first row is the head."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "| " + " | ".join("-" * width for width in widths) + " |")
    return "\n".join(lines)
