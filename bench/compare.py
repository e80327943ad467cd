"""Conclave beside its peers, on this machine, in one run: `make bench`.

    python -m bench.compare [--peers conclave,etcd,floor] [--works lock,write,read,handover,failover,silence]
                            [--callers 1,16,64,256] [--rounds 3] [--seconds 3] [--kills 30] [--stops 9] [--json FILE]
                            [--slower-disk-us 4000]

In each round every peer is started anew in a directory of its own, driven by the same program (`bench.callers`, in two
client processes), and stopped; the next round begins with another peer. A peer that is not installed is left out, with
the reason. Rates are counted between two moments of the monotonic clock, after every caller has done one operation, and
CPU time is read at the same two moments from all servers and both clients. The deaths of leaders, `--kills` by kill -9
and `--stops` by SIGSTOP, are spread over the rounds. Under the table stand the bars that Conclave is measured against.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))  # So that it also starts as a file.

from bench import slow_disk
from bench.bars import BARS, OURS, Outcome, bars_table, judged
from bench.clients import Clients, clients_of
from bench.figures import Cell, Histogram, changes_of_owner, silence_s, summary, table
from bench.options import CUT_OFF, directory, ended_tidily, file_to_write, numbers, positive, seconds, some_of
from bench.peers import MODULES, server_class
from bench.peers.base import Peer, Unusable
from bench.works import CALLERS, DEATH_CALLERS, DEATHS, HANDOVER_CALLERS, RATES, WORKS
from coordinator.config import PROJECT, ConfigError

REFERENCE: Final = "etcd"
BEGINS_IN_S: Final = 0.3
"""From the last caller's first operation to the span that is counted: all are at full speed by then."""
KILL_AFTER_S: Final = 0.5
LOOK_AFTER_S: Final = 1.0
LOOK_EVERY_S: Final = 0.5
SILENCE_S_MAX: Final = 30.0
SETTLED_S: Final = 0.5
"""Between two deaths, once all members follow one leader again."""
START_S_GUESS: Final = 6.0
DEATH_S_GUESS: Final = 7.0


def cpu_s(peer: Peer, clients: Clients) -> float:
    """CPU time so far of all servers and clients. Raises Unusable where a server has ended: what goes on without it is
    not what is measured."""
    peer.must_run()
    processes = [*peer.processes(), *(psutil.Process(client.process.pid) for client in clients.all)]
    times = [process.cpu_times() for process in processes]
    return sum(time.user + time.system for time in times)


def measure_rate(peer: Peer, clients: Clients, number: int, work: str, callers: int, seconds: float) -> Cell:
    clients.begin(work, callers)
    from_s = time.monotonic() + BEGINS_IN_S
    until_s = from_s + seconds
    for client in clients.all:
        client.say({"do": "measure", "from_s": from_s, "until_s": until_s})
    time.sleep(max(0.0, from_s - time.monotonic()))
    before_s = cpu_s(peer, clients)
    time.sleep(max(0.0, until_s - time.monotonic()))
    used_s = cpu_s(peer, clients) - before_s
    answers = [client.answer(seconds) for client in clients.all]
    histogram = Histogram()
    for answer in answers:
        histogram += Histogram.from_json(answer["histogram"])
    if work == "handover":
        done = changes_of_owner((at, owner) for answer in answers for at, owner in answer["grants"])
    else:
        done = sum(answer["count"] for answer in answers)
    return Cell(
        peer.name,
        number,
        work,
        callers,
        done / seconds,
        used_s * 1e6 / done if done else None,
        histogram.quantile_us(0.5),
        histogram.quantile_us(0.99),
        sum(answer["errors"] for answer in answers),
        next((answer["first_error"] for answer in answers if answer["first_error"]), ""),
    )


def measure_death(peer: Peer, number: int, work: str) -> Cell:
    """One death of the leader under a light load of writes; the cluster is whole again afterwards."""
    with clients_of(peer, failover=True) as clients:
        clients.begin(work, DEATH_CALLERS)
        time.sleep(KILL_AFTER_S)
        peer.until(peer.leader, f"{peer.name} has a leader")
        leader = peer.leader()
        if work == "failover":
            died_s = peer.kill(leader)
        else:
            died_s = time.monotonic()
            peer.signal(leader, signal.SIGSTOP)
        try:
            silence = _silence(clients, died_s)
        finally:
            if work == "failover":
                peer.restart(leader)
            else:
                peer.signal(leader, signal.SIGCONT)
        first_error = next((a["first_error"] for a in clients.ask({"do": "end"}) if a["first_error"]), "")
    peer.until(peer.is_whole, f"{peer.name} is whole again")
    time.sleep(SETTLED_S)
    return Cell(peer.name, number, work, DEATH_CALLERS, silence * 1e3, None, first_error=first_error)


def _silence(clients: Clients, died_s: float) -> float:
    """Looks until writes go on again."""
    look_s = died_s + LOOK_AFTER_S
    while True:
        time.sleep(max(0.0, look_s - time.monotonic()))
        acknowledged = [at for answer in clients.ask({"do": "trace"}) for at in answer["acknowledged_s"]]
        found = silence_s(acknowledged, died_s)
        if found is not None:
            return found
        if time.monotonic() > died_s + SILENCE_S_MAX:
            raise Unusable(f"no write was acknowledged in {SILENCE_S_MAX:g} s after the leader's death")
        look_s = time.monotonic() + LOOK_EVERY_S


def started(name: str, directory: Path) -> Peer:
    """Servers that serve. Between the choice of a port and their listening there another program may have taken it, so
    what did not start is started once more, on other ports and in an empty directory. Raises Unusable."""
    try:
        return _started(name, directory)
    except Unusable as error:
        say(f"{name} did not start, and is started once more, on other ports: {error}")
    directory.rename(directory.with_name(f"{directory.name}-first"))
    directory.mkdir()
    return _started(name, directory)


def _started(name: str, directory: Path) -> Peer:
    peer = server_class(name)(directory)
    try:
        peer.start()
    except BaseException:
        peer.stop()
        raise
    return peer


def visit(name: str, number: int, options: argparse.Namespace, directory: Path) -> Iterator[Cell]:
    """All works of one peer in one round, on servers that are started for it."""
    peer = started(name, directory)
    works = [work for work in options.works if work in peer.works]
    try:
        with clients_of(peer) as clients:
            for work in works:
                if work in RATES:
                    for callers in options.callers:
                        yield measure_rate(peer, clients, number, work, callers, options.seconds)
                elif work == "handover":
                    yield measure_rate(peer, clients, number, work, HANDOVER_CALLERS, options.seconds)
        for work in works:
            if work in DEATHS:
                for _ in share_of_round(deaths(options, work), options.rounds, number):
                    yield measure_death(peer, number, work)
    finally:
        peer.stop()


def deaths(options: argparse.Namespace, work: str) -> int:
    return int(options.kills if work == "failover" else options.stops)


def share_of_round(total: int, rounds: int, number: int) -> range:
    """Those of `total` that fall into round `number`, the first being 0."""
    return range(number * total // rounds, (number + 1) * total // rounds)


def in_turn(peers: Sequence[str], number: int) -> list[str]:
    """The order of a round: another begins each time."""
    first = number % len(peers)
    return [*peers[first:], *peers[:first]]


def estimate_s(options: argparse.Namespace, peers: Iterable[str]) -> float:
    total_s = 0.0
    for name in peers:
        works = server_class(name).works & {*options.works}
        spans = sum(len(options.callers) if work in RATES else work == "handover" for work in works)
        total_s += options.rounds * (START_S_GUESS + spans * (options.seconds + 2 * BEGINS_IN_S))
        total_s += sum(deaths(options, work) for work in works if work in DEATHS) * DEATH_S_GUESS
    return total_s


# --- the run --------------------------------------------------------------------------------------


def usable(names: Sequence[str], left_out: dict[str, str]) -> dict[str, str]:
    """Versions of the peers that can run here; says why of the others, and notes it in `left_out`."""
    found = {}
    for name in names:
        try:
            found[name] = server_class(name).check()
        except Exception as error:  # noqa: BLE001 - other people's modules raise what they like when they are imported
            left_out[name] = _words_of(error)
            say(f"{name} is left out: {left_out[name]}")
    return found


def _words_of(error: Exception) -> str:
    return str(error) if isinstance(error, Unusable | ImportError | ConfigError) else repr(error)


def machine() -> dict[str, Any]:
    memory = psutil.virtual_memory().total
    return {
        "python": platform.python_version(),
        "kernel": platform.release(),
        "processors": os.cpu_count(),
        "memory_gb": round(memory / 2**30),
        "load": [round(load, 2) for load in os.getloadavg()],
    }


def fdatasync_us(directory: Path, count: int = 200) -> float:
    """The median of an append of 512 bytes and its fdatasync: what a promise costs on this disk."""
    times = []
    path = directory / "fdatasync"
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        for _ in range(count):
            began_s = time.perf_counter()
            os.write(file, bytes(512))
            os.fdatasync(file)
            times.append(time.perf_counter() - began_s)
    finally:
        os.close(file)
        path.unlink()
    return sorted(times)[count // 2] * 1e6


class Run:
    """What came of a run."""

    def __init__(self) -> None:
        self.cells: list[Cell] = []
        self.left_out: dict[str, str] = {}
        """Peers, and why. Of those that failed in the run, what there is from before stays."""
        self.failed = False
        """Did one fail in the run?"""
        self.disk_us: list[float] = []
        """At the beginning of each round."""
        self.cut_off = ""
        """Why it ended before all was measured."""


def go(run: Run, options: argparse.Namespace, names: Sequence[str], parent: Path) -> None:
    cells, left_out = run.cells, run.left_out
    for number in range(options.rounds):
        run.disk_us.append(fdatasync_us(parent))
        for name in in_turn(names, number):
            if name in left_out:
                continue
            directory = parent / f"{number}-{name}"
            directory.mkdir()
            try:
                for cell in visit(name, number, options, directory):
                    say(words(cell, options.rounds))
                    cells.append(cell)
            except Exception as error:  # noqa: BLE001 - of eight systems one that fails must not end the run of the others
                run.failed = True
                left_out[name] = f"from round {number + 1} of {options.rounds} on: {_words_of(error)}"
                say(f"{name} is left out: {left_out[name]}")
            if not options.keep:
                shutil.rmtree(directory, ignore_errors=True)


def words(cell: Cell, rounds: int) -> str:
    unit = WORKS[cell.work].unit
    text = f"round {cell.round + 1}/{rounds}  {cell.peer:<12}{cell.work:<9}{cell.callers:>4}"
    text += f"  {cell.value:>10,.0f} {unit:<10}"
    if cell.p50_us is not None and cell.p99_us is not None:
        text += f"  p50 {cell.p50_us / 1e3:.2f} ms  p99 {cell.p99_us / 1e3:.2f} ms"
    if cell.cpu_us is not None:
        text += f"  {cell.cpu_us:,.0f} µs of CPU each"
    if cell.errors:
        text += f"  {cell.errors} failed: {cell.first_error}"
    return text


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=some_of(MODULES, "some peers"), default=[*MODULES])
    parser.add_argument("--works", type=some_of(WORKS, "some works"), default=[*WORKS])
    parser.add_argument("--callers", type=numbers, default=[*CALLERS])
    parser.add_argument("--rounds", type=positive, default=3)
    parser.add_argument("--seconds", type=seconds, default=3.0, help="of each span that is counted")
    parser.add_argument(
        "--kills", type=positive, default=30, help="deaths of each peer's leader by kill -9, over all rounds"
    )
    parser.add_argument("--stops", type=positive, default=9, help="and by SIGSTOP")
    parser.add_argument(
        "--slower-disk-us", type=positive, default=0, help="so much longer do fdatasync and fsync take (slow_disk.py)"
    )
    parser.add_argument("--json", type=file_to_write, metavar="FILE", help="keep every cell and the summary there")
    parser.add_argument("--directory", type=directory, default=PROJECT / "var", help="where the peers keep their data")
    parser.add_argument("--keep", action="store_true", help="leave the peers' data and logs there")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    result = Run()
    versions = usable(options.peers, result.left_out)
    if not versions:
        return 1
    names = [*versions]
    minutes = estimate_s(options, names) / 60
    say(f"{', '.join(names)}: {options.rounds} rounds, about {minutes:.0f} minutes")
    options.directory.mkdir(parents=True, exist_ok=True)
    parent = Path(tempfile.mkdtemp(prefix="bench-", dir=options.directory))
    before = machine()
    before["slower_disk_us"] = options.slower_disk_us
    began_s = time.monotonic()
    try:
        with ended_tidily(), slow_disk.slower(parent, options.slower_disk_us):
            go(result, options, names, parent)
    except SystemExit:
        result.cut_off = "by a signal"
    except (RuntimeError, OSError) as error:
        say(f"the run ends here: {error}")
        result.failed, result.cut_off = True, str(error)
    finally:
        if not options.keep:
            shutil.rmtree(parent, ignore_errors=True)
    if result.cut_off and not result.disk_us:
        return 1  # It has not begun.
    before["fdatasync_us"] = [round(each) for each in result.disk_us]
    took_s = time.monotonic() - began_s
    print(report(result, options, before, versions, took_s))
    if options.json is not None:
        whole = record(result, options, before, versions, took_s)
        options.json.write_text(json.dumps(whole, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    if result.cells and not result.failed:
        return CUT_OFF if result.cut_off else 0
    return 1


OPTIONS: Final = ("peers", "works", "callers", "rounds", "seconds", "kills", "stops")
"""What the figures depend on."""


def record(
    run: Run, options: argparse.Namespace, where: dict[str, Any], versions: dict[str, str], took_s: float
) -> dict[str, Any]:
    """All that `report` says, and each cell, in JSON's types."""
    records = summary(run.cells, REFERENCE)
    outcomes = judged(records)
    return {
        "machine": where,
        "versions": versions,
        "about": {name: server_class(name).about for name in versions},
        "left_out": run.left_out,
        "cut_off": run.cut_off,
        "took_s": round(took_s),
        "options": {name: getattr(options, name) for name in OPTIONS},
        "units": {name: work.unit for name, work in WORKS.items()},
        "reference": REFERENCE,
        "summary": records,
        "bars": [outcome.to_json() for outcome in outcomes],
        "not_judged": not_judged(options, outcomes),
        "cells": [cell._asdict() for cell in run.cells],
    }


def not_judged(options: argparse.Namespace, outcomes: Iterable[Outcome]) -> list[str]:
    """The bars of what was asked for that no figure came of."""
    found = {outcome.bar for outcome in outcomes}
    peers = {"", *options.peers} if OURS in options.peers else set()
    return [
        bar.text
        for bar in BARS
        if bar not in found
        and bar.peer in peers
        and bar.work in options.works
        and (bar.work not in RATES or bar.callers in options.callers)
    ]


def report(
    run: Run, options: argparse.Namespace, where: dict[str, Any], versions: dict[str, str], took_s: float
) -> str:
    """The table, the bars, and what ran where, and what did not."""
    cells = run.cells
    peers = [name for name in versions if any(cell.peer == name for cell in cells)]
    lines = [table(cells, peers, REFERENCE, {name: work.unit for name, work in WORKS.items()}), ""]
    outcomes = judged(summary(cells, REFERENCE))
    lines += [bars_table(outcomes), ""] if outcomes else []
    lacking = not_judged(options, outcomes)
    lines += [f"Not judged, for there is no figure: {'; '.join(lacking)}.", ""] if lacking else []
    disk = ", ".join(map(str, where["fdatasync_us"]))
    lines += [
        f"{where['processors']} processors, Python {where['python']}, Linux {where['kernel']}.",
        f"Took {took_s / 60:.0f} minutes. Load at the beginning: {where['load'][0]}.",
        f"Append and fdatasync of 512 bytes, before each round: {disk} µs.",
    ]
    if where["slower_disk_us"]:
        longer = where["slower_disk_us"]
        lines.append(f"In programs that are linked with libc (etcd is not) it takes {longer} µs longer.")
    lines.append("")
    lines += [f"- {name}: {server_class(name).about} ({versions[name]})" for name in peers]
    lines += [f"- {name} is left out: {why}" for name, why in run.left_out.items()]
    lines += ["", f"Cut off ({run.cut_off}): there is less of it than was asked for."] if run.cut_off else []
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
