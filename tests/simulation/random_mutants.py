"""Mutants that nobody chose: one comparison, constant, Boolean or statement of the core or the turn is changed at a
time.

`python -m tests.simulation --engine raft --random-mutants 200` draws so many of all that there are, the same ones for
the same `--random-seed`, and says which of them neither the unit tests nor the simulator notice. A survivor either
changes nothing that matters, and then `docs/survivors.md` says why, or is a hole in the proof.

Each is judged in a forked child, the cheapest judge first: the unit tests that enter the changed function, then seeds.
Texts for people are not changed: what an assertion or a refusal says, annotations, formatted strings. What was found is
kept by the code that it was found in, so that a run that was stopped goes on.
"""

from __future__ import annotations
import __future__

import ast
import copy
import hashlib
import importlib
import json
import math
import multiprocessing
import os
import resource
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache, cached_property
from multiprocessing.connection import wait
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any, Final, NamedTuple

import pytest
from _pytest.runner import runtestprotocol
from hypothesis import Phase, settings

from tests.simulation.campaign import Order, run_one
from tests.simulation.mutants.edits import MutantDoesNotFit, swapped
from tests.simulation.random_changes import change, changeable, changes_of
from tests.simulation.run import AS_DRAWN

MODULES: Final = (
    "coordinator.consensus.entries",
    "coordinator.consensus.membership",
    "coordinator.consensus.parts",
    "coordinator.consensus.quorum",
    "coordinator.consensus.raft.changes",
    "coordinator.consensus.raft.core",
    "coordinator.consensus.raft.elections",
    "coordinator.consensus.raft.log",
    "coordinator.consensus.raft.options",
    "coordinator.consensus.raft.progress",
    "coordinator.consensus.raft.reads",
    "coordinator.consensus.raft.replication",
    "coordinator.consensus.raft.rounds",
    "coordinator.consensus.raft.sleep",
    "coordinator.consensus.raft.snapshots",
    "coordinator.consensus.raft.spares",
    "coordinator.consensus.raft.standing",
    "coordinator.consensus.raft.transfer",
    "coordinator.replica.broken_holds",
    "coordinator.replica.cached_reads",
    "coordinator.replica.caching",
    "coordinator.replica.callers",
    "coordinator.replica.checkpoints",
    "coordinator.replica.comparison",
    "coordinator.replica.delays",
    "coordinator.replica.delegation",
    "coordinator.replica.gathering",
    "coordinator.replica.grants",
    "coordinator.replica.in_flight",
    "coordinator.replica.ingress",
    "coordinator.replica.intents",
    "coordinator.replica.leases",
    "coordinator.replica.levels",
    "coordinator.replica.listeners",
    "coordinator.replica.log_bytes",
    "coordinator.replica.operations",
    "coordinator.replica.reading",
    "coordinator.replica.reads",
    "coordinator.replica.replica",
    "coordinator.replica.round_trips",
    "coordinator.replica.sleep",
    "coordinator.replica.spans",
    "coordinator.replica.stamps",
    "coordinator.replica.states",
    "coordinator.replica.tenure",
    "coordinator.replica.touched",
    "coordinator.replica.turn",
    "coordinator.replica.watches",
    "coordinator.replica.watching",
    "coordinator.replica.whereabouts",
)
"""The core, and all that decides in a turn: what a turn imports, what that imports, and so on, less LEFT_OUT. What only
wraps a turn (`host`, `lifecycle`, `journal`) is none of it; `intents`, which a turn is handed, is."""
LEFT_OUT: Final = (
    "coordinator.consensus.engine",
    "coordinator.replica.directory",
    "coordinator.replica.feed",
    "coordinator.replica.frames",
    "coordinator.replica.history",
    "coordinator.replica.meters",
    "coordinator.replica.ports",
    "coordinator.replica.report",
    "coordinator.replica.snapshot_files",
    "coordinator.replica.stored",
    "coordinator.replica.sums",
)
"""Of those: what only shows a turn to people, what is the journal's, and what says only which methods there are."""
UNIT_TESTS: Final = ("tests/unit/consensus", "tests/unit/replica")
UNIT_CPU_S_MIN: Final = 10
UNIT_CPU_TIMES_MAX: Final = 4
"""A unit test may take so many times what it takes without a mutant, and at least `UNIT_CPU_S_MIN`: many tests, or one
that takes long in any case, kill nothing."""
MEMORY_BYTES_MAX: Final = 6 << 30
"""A mutant that never ends may also never stop to grow."""
DIE_SHARE_MIN: Final = 0.9
"""Of the mutants drawn, so many must die, and the page must explain each of the others."""
ROOT: Final = Path(__file__).parents[2]
STATE: Final = ROOT / "var" / "random-mutants"
PAGE: Final = ROOT / "docs" / "survivors.md"
WITHOUT_END: Final = "a run without end"
UNSOUND: Final = "a seed that fails without any mutant"


class Point(NamedTuple):
    """One change to one function: the `number`-th of all that can be made to it. `line`: of the module's file."""

    module: str
    function: str
    number: int
    line: int
    what: str

    def __str__(self) -> str:
        return f"{self.module.replace('.', '/')}.py:{self.line} {self.function}: {self.what}"


class Fate(NamedTuple):
    """`by`: what noticed the mutant, a unit test or a checker; None: nothing did. `seed`: 0 where no seed did."""

    point: Point
    by: str | None
    seed: int

    def __str__(self) -> str:
        where = f" at seed {self.seed}" if self.seed else ""
        return f"{self.point} — {'ALIVE' if self.by is None else f'died by {self.by}{where}'}"


def all_points() -> list[Point]:
    """Every change that can be made, in the order of the sources."""
    points = []
    for module_name in MODULES:
        for name, definition in _definitions(module_name).items():
            points += [
                Point(module_name, name, number, line, what)
                for number, (line, what, _, _) in enumerate(changes_of(definition))
            ]
    return points


def draw(count: int, seed: int, points: list[Point] | None = None) -> list[Point]:
    """So many of all there are, or of `points`. Whether one is drawn hangs on itself and on how many come before it,
    so that a change to the code draws others in the functions that it touches, and hardly any elsewhere."""
    likes: Counter[tuple[str, str, str]] = Counter()
    ranked = []
    for point in sorted(all_points() if points is None else points):
        same = (point.module, point.function, point.what)
        likes[same] += 1
        ranked.append((hashlib.sha256(repr((seed, *same, likes[same])).encode()).digest(), point))
    return sorted(point for _, point in sorted(ranked)[:count])


def fates(
    points: list[Point], seeds: range, jobs: int, *, state: Path | None = STATE, tests: Sequence[str] = UNIT_TESTS
) -> Iterator[Fate]:
    """What becomes of each, as it is found out. `state`: where what is known is kept; None: nowhere. `tests` judge it,
    and then the seeds."""
    kept = None if state is None else state / f"{_code_digest()}-{seeds[0]}-{seeds[-1]}.jsonl"
    known = _known(kept)
    left = []
    for point in points:
        if point in known:
            yield known[point]
        else:
            left.append(point)
    if not left:
        return
    context = multiprocessing.get_context("fork")
    results, told = context.Pipe(duplex=False)
    lock = context.Lock()

    def tell(found: object) -> None:
        with lock:
            told.send(found)

    share = context.Value("i", 0)
    workers = [context.Process(target=_work, args=(left, seeds, tests, share, tell)) for _ in range(jobs)]
    for worker in workers:
        worker.start()
    try:
        for _ in left:
            while not results.poll():
                alive = [worker.sentinel for worker in workers if worker.is_alive()]
                if not alive and not results.poll():
                    raise RuntimeError("the processes that judge have died without a word")
                wait([results, *alive])
            found = results.recv()
            if isinstance(found, str):
                raise RuntimeError(found)
            if kept is not None:
                kept.parent.mkdir(parents=True, exist_ok=True)
                with kept.open("a") as file:
                    file.write(json.dumps(found) + "\n")
            yield found
    finally:
        for worker in workers:
            worker.terminate()
            worker.join()


def is_explained(point: Point) -> bool:
    """Does the page of survivors say why this change matters to nothing?"""
    return (point.function, point.what) in explained()


def explained() -> set[tuple[str, str]]:
    """The functions and their changes that the page has a row for."""
    if not PAGE.exists():
        return set()
    cells = [row.split(" | ", 2) for row in PAGE.read_text().splitlines() if row.startswith("| `")]
    return {(function.strip("|` "), what) for function, what, _ in cells}


def _known(kept: Path | None) -> dict[Point, Fate]:
    if kept is None or not kept.exists():
        return {}
    rows = [json.loads(line) for line in kept.read_text().splitlines()]
    return {Point(*point): Fate(Point(*point), by, seed) for point, by, seed in rows}


def _code_digest() -> str:
    """Names the code that was judged, and the code that judged."""
    digest = hashlib.sha256()
    for directory in ("coordinator", "tests/simulation", *UNIT_TESTS):
        for path in sorted((ROOT / directory).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


# --- the judges -----------------------------------------------------------------------------------


def _work(points: list[Point], seeds: range, tests: Sequence[str], share: Any, tell: Callable[[Any], None]) -> None:
    """A process that judges one mutant after the other, inside a run of pytest that has collected the unit tests."""
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    # A failure is enough; nobody reads the shortest one.
    phases = (Phase.explicit, Phase.generate)
    settings.register_profile("mutants", derandomize=True, database=None, phases=phases, report_multiple_bugs=False)
    settings.load_profile("mutants")
    arguments = ["-q", "-p", "no:cacheprovider", "-m", "not slow", "--timeout=0", *tests]
    os.chdir(ROOT)
    judge = _Judge(points, seeds, share, tell)
    pytest.main(arguments, plugins=[judge])
    if judge.trouble:
        tell(judge.trouble)


class _Judge:
    """A plugin of pytest that runs the collected tests in its own way: again and again, each time in a child."""

    def __init__(self, points: list[Point], seeds: range, share: Any, tell: Callable[[Any], None]) -> None:
        self._points = points
        self._seeds = seeds
        self._share = share
        self._tell = tell
        self._parent = os.getppid()
        self.trouble = "the unit tests could not be collected"

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        self.trouble = ""
        try:
            entered = _control(session.items)
            while (point := self._next()) is not None:
                self._tell(_fate(point, _who_could_notice(entered, point), self._seeds))
        except Exception as error:
            self.trouble = str(error)
            raise
        return True

    def _next(self) -> Point | None:
        if os.getppid() != self._parent:
            return None  # Whoever waited for the answers was killed.
        with self._share.get_lock():
            number = self._share.value
            self._share.value += 1
        return self._points[number] if number < len(self._points) else None


class _Entered(NamedTuple):
    """A test took so long without a mutant, and entered these functions of those modules."""

    item: pytest.Item
    took_s: float
    functions: set[tuple[str, str]]


def _control(items: list[pytest.Item]) -> list[_Entered]:
    """Run the tests without a mutant: all must pass. Notes which functions each enters, so that only those are asked
    that could notice; the quickest tests come first."""
    entered: list[_Entered] = []
    with _noting() as noted:
        for item in items:
            noted.clear()
            begun_s = time.process_time()
            if _fails(item):
                raise RuntimeError(f"{item.nodeid} fails without any mutant")
            entered.append(_Entered(item, time.process_time() - begun_s, set(noted)))
    return sorted(entered, key=lambda one: one.took_s)


def _who_could_notice(entered: list[_Entered], point: Point) -> list[_Entered]:
    return [one for one in entered if (point.module, point.function) in one.functions]


@contextmanager
def _noting() -> Iterator[set[tuple[str, str]]]:
    """As long as this lasts, every function that can be changed notes here that it is entered."""
    noted: set[tuple[str, str]] = set()
    with ExitStack() as undo:
        for module_name in MODULES:
            module = importlib.import_module(module_name)
            for name, function in _functions(module).items():
                vars(module)[_NOTE] = noted.add
                definition = copy.deepcopy(_definitions(module_name)[name])
                note = ast.parse(f"{_NOTE}({(module_name, name)!r})").body
                definition.body[:0] = note
                undo.enter_context(swapped(function, _compiled(module_name, definition)))
        yield noted


_NOTE: Final = "_note_entered_"


def _fails(item: pytest.Item) -> bool:
    return any(report.failed for report in runtestprotocol(item, log=False, nextitem=None))


def _fails_in_time(test: _Entered) -> bool:
    """In a child, which ends where the test takes too long."""
    _end_after(max(UNIT_CPU_S_MIN, UNIT_CPU_TIMES_MAX * test.took_s))
    return _fails(test.item)


def _end_after(cpu_s: float) -> None:
    """Have the system end this process when it has taken so much more of the processor's time."""
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(time.process_time() + cpu_s), most))


def _fate(point: Point, tests: list[_Entered], seeds: range) -> Fate:
    def ask_tests() -> str | None:
        with planted(point):
            return next((f"unit test {test.item.name}" for test in tests if _fails_in_time(test)), None)

    asker = os.getpid()

    def ask_seeds() -> str | None:
        found, seed = None, 0
        with planted(point):
            for seed in seeds:
                if os.getppid() != asker:
                    os._exit(1)  # Nobody listens any more.
                found = _violation(seed)
                if found is not None:
                    break
        if found is None:
            return None
        return f"{found if _violation(seed) is None else UNSOUND}@{seed}"

    with planted(point):
        pass  # It fits; else that is an error, and no crash of a child.
    by = _in_child(ask_tests)
    if by is not None:
        return Fate(point, by, 0)
    by, _, seed = (_in_child(ask_seeds) or "").partition("@")
    if by == UNSOUND:
        raise RuntimeError(f"seed {seed} fails without any mutant")
    return Fate(point, by or None, int(seed or 0))


def _violation(seed: int) -> str | None:
    """What noticed something in this run; None where nothing did."""
    violation = run_one(Order("raft", AS_DRAWN), seed).violation
    return None if violation is None else violation[0]


def _in_child(work: Callable[[], str | None]) -> str | None:
    """Do `work` in a forked child; what it returns. A child that does not end, or crashes, says that instead."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reader)
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES_MAX, MEMORY_BYTES_MAX))
            os.write(writer, (work() or "").encode())
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        said = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return WITHOUT_END if os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGKILL) else "a crash"
    return "a crash" if status else said or None


# --- planting -------------------------------------------------------------------------------------


@contextmanager
def planted(point: Point) -> Iterator[None]:
    """Change the function for as long as this lasts."""
    function = _functions(importlib.import_module(point.module))[point.function]
    definition = copy.deepcopy(_definitions(point.module)[point.function])
    changes = [*changes_of(definition)]
    if point.number >= len(changes) or changes[point.number][:2] != (point.line, point.what):
        raise MutantDoesNotFit(f"no such change: {point}")
    _, _, at, variant = changes[point.number]
    change([*changeable(definition)][at][0], variant)
    with swapped(function, _compiled(point.module, definition)):
        yield


def _compiled(module_name: str, definition: ast.FunctionDef) -> CodeType:
    """As if it stood where the function stands: tests that plant bugs of their own look for its source there."""
    path = importlib.import_module(module_name).__file__
    assert path is not None
    definition.decorator_list = []
    module = ast.fix_missing_locations(ast.Module([definition], []))
    return compile(module, path, "exec", _FLAGS)


_FLAGS: Final = __future__.annotations.compiler_flag


def _functions(module: ModuleType) -> dict[str, FunctionType]:
    """Functions and methods that the module defines, by qualified name."""
    found: dict[str, FunctionType] = {}
    for thing in vars(module).values():
        if getattr(thing, "__module__", None) != module.__name__:
            continue
        for member in (thing, *(vars(thing).values() if isinstance(thing, type) else ())):
            function = _function_in(member)
            if isinstance(function, FunctionType) and function.__module__ == module.__name__:
                found[function.__qualname__] = function
    return {name: found[name] for name in _definitions(module.__name__) if name in found}


def _function_in(member: Any) -> Any:
    """What a class holds under a name may wrap the function that is defined there."""
    match member:
        case property():
            return member.fget
        case cached_property():
            return member.func
        case staticmethod() | classmethod():
            return member.__func__
    return member


@cache
def _definitions(module_name: str) -> dict[str, ast.FunctionDef]:
    """Functions and methods by qualified name, in the order of the source."""
    path = importlib.import_module(module_name).__file__
    assert path is not None
    found: dict[str, ast.FunctionDef] = {}
    for node in ast.parse(Path(path).read_text()).body:
        if isinstance(node, ast.FunctionDef):
            found[node.name] = node
        elif isinstance(node, ast.ClassDef):
            methods = [inner for inner in node.body if isinstance(inner, ast.FunctionDef)]
            found |= {f"{node.name}.{method.name}": method for method in methods if method.name not in _FOR_PEOPLE}
    return found


_FOR_PEOPLE: Final = ("__repr__", "__str__")
