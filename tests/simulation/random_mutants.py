"""Mutants that nobody chose: one comparison, constant, Boolean or statement of the core or the turn is changed at a
time.

`python -m tests.simulation --engine raft --random-mutants 200` draws so many of all that there are, and says which of
them neither the simulator nor the unit tests notice. A survivor either changes nothing that matters, and then
`docs/` says why, or is a hole in the proof.
"""

from __future__ import annotations
import __future__

import ast
import importlib
import inspect
import multiprocessing
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from random import Random
from types import FunctionType, ModuleType
from typing import Any, Final, NamedTuple

from tests.simulation.campaign import Order, run_one
from tests.simulation.mutants.edits import swapped

MODULES: Final = (
    "coordinator.consensus.quorum",
    "coordinator.consensus.membership",
    "coordinator.consensus.raft.changes",
    "coordinator.consensus.raft.core",
    "coordinator.consensus.raft.elections",
    "coordinator.consensus.raft.log",
    "coordinator.consensus.raft.progress",
    "coordinator.consensus.raft.reads",
    "coordinator.consensus.raft.replication",
    "coordinator.consensus.raft.rounds",
    "coordinator.consensus.raft.snapshots",
    "coordinator.consensus.raft.transfer",
    "coordinator.replica.leases",
    "coordinator.replica.replica",
    "coordinator.replica.turn",
)
UNIT_TESTS: Final = ("tests/unit/consensus", "tests/unit/replica")
UNIT_S_MAX: Final = 300
FIRST_SEEDS: Final = 60
SEED_S_MAX: Final = 30.0
"""A seed takes a fraction of a second; one that takes so long never ends."""
ROOT: Final = Path(__file__).parents[2]

_SWAPPED: Final[dict[type[ast.cmpop], type[ast.cmpop]]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}


class Point(NamedTuple):
    """One change to one function: the `number`-th of those that `_changes` makes of it."""

    module: str
    function: str
    number: int
    what: str

    def __str__(self) -> str:
        return f"{self.module}:{self.function} {self.what}"


def all_points() -> list[Point]:
    """Every change that can be made, in the order of the sources."""
    points = []
    for module_name in MODULES:
        module = importlib.import_module(module_name)
        for name, function in _functions(module):
            points += [
                Point(module_name, name, number, what) for number, (what, _) in enumerate(_changes(_tree(function)))
            ]
    return points


def draw(count: int, seed: int) -> list[Point]:
    points = all_points()
    return sorted(Random(seed).sample(points, min(count, len(points))))


class Fate(NamedTuple):
    """`by`: what noticed the mutant, a checker or "unit tests"; None: nothing did. `seed`: 0 where no seed did."""

    point: Point
    by: str | None
    seed: int

    def __str__(self) -> str:
        where = f" at seed {self.seed}" if self.seed else ""
        return f"{self.point}: {'alive' if self.by is None else f'died by {self.by}{where}'}"


def fates(points: list[Point], seeds: range, jobs: int) -> Iterator[Fate]:
    """What becomes of each."""
    if jobs == 1:
        yield from (fate(point, seeds) for point in points)
        return
    with multiprocessing.get_context("fork").Pool(jobs) as pool:
        yield from pool.imap(partial(fate, seeds=seeds), points)


def fate(point: Point, seeds: range) -> Fate:
    """A few seeds, then the unit tests, then all the other seeds: most die early."""
    return (
        _fate_in_seeds(point, seeds[:FIRST_SEEDS])
        or (None if survives_unit_tests(point) else Fate(point, "unit tests", 0))
        or _fate_in_seeds(point, seeds[FIRST_SEEDS:])
        or Fate(point, None, 0)
    )


def _fate_in_seeds(point: Point, seeds: range) -> Fate | None:
    with planted(point):
        for seed in seeds:
            try:
                with _time_limit(SEED_S_MAX):
                    violation = run_one(Order("raft", 5), seed).violation
            except _TooLong:
                return Fate(point, "a run without end", seed)
            except Exception as error:  # noqa: BLE001 - whatever it is, the mutant did not stay unseen
                return Fate(point, type(error).__name__, seed)
            if violation is not None:
                return Fate(point, violation[0], seed)
    return None


class _TooLong(BaseException):
    """Nothing that is simulated may catch it."""


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    def end(number: int, frame: object) -> None:
        raise _TooLong

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def planted(point: Point) -> Iterator[None]:
    """Change the function for as long as this lasts."""
    function = dict(_functions(importlib.import_module(point.module)))[point.function]
    trees = [tree for number, (_, tree) in enumerate(_changes(_tree(function))) if number == point.number]
    if not trees:
        raise LookupError(f"no such change: {point}")
    (tree,) = trees
    with swapped(function, compile(tree, f"<random mutant of {point.function}>", "exec", _FLAGS)):
        yield


def survives_unit_tests(point: Point) -> bool:
    """Run the unit tests of the core and the turn with the change in, in a process of their own."""
    program = (
        "import sys, pytest; from tests.simulation.random_mutants import Point, planted\n"
        f"with planted(Point(*{tuple(point)!r})): sys.exit(pytest.main({[*_PYTEST, *UNIT_TESTS]!r}))"
    )
    try:
        run = subprocess.run(
            [sys.executable, "-c", program], cwd=ROOT, capture_output=True, timeout=UNIT_S_MAX, check=False
        )
    except subprocess.TimeoutExpired:
        return False
    return run.returncode == 0


_PYTEST: Final = ("-q", "-x", "-p", "no:cacheprovider", "-m", "not slow")
_FLAGS: Final = __future__.annotations.compiler_flag


# --- the changes ----------------------------------------------------------------------------------


def _functions(module: ModuleType) -> Iterator[tuple[str, FunctionType]]:
    for name, thing in vars(module).items():
        if getattr(thing, "__module__", None) != module.__name__:
            continue
        if isinstance(thing, FunctionType):
            yield name, thing
        elif inspect.isclass(thing):
            for inner, member in vars(thing).items():
                function = member.fget if isinstance(member, property) else member
                if not isinstance(function, FunctionType) or function.__module__ != module.__name__:
                    continue
                if not inner.startswith("__") or inner == "__init__":
                    yield f"{name}.{inner}", function


def _tree(function: FunctionType) -> ast.Module:
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except OSError:  # Made by the interpreter, as a named tuple's methods are.
        return ast.Module([], [])
    definition = tree.body[0]
    assert isinstance(definition, ast.FunctionDef)
    definition.decorator_list = []
    return ast.parse(ast.unparse(tree))


def _changes(tree: ast.Module) -> Iterator[tuple[str, ast.Module]]:
    """Each change that can be made, and the tree with it in."""
    if not tree.body:
        return
    for index, node in enumerate(ast.walk(tree)):
        for variant in range(3):
            changed = ast.parse(ast.unparse(tree))
            target = next(found for at, found in enumerate(ast.walk(changed)) if at == index)
            what = _change(target, variant)
            if what is not None:
                yield f"line {getattr(node, 'lineno', 0)}: {what}", ast.fix_missing_locations(changed)
            elif variant:
                break


def _change(node: Any, variant: int) -> str | None:
    """Change `node` in place; what was changed, None where nothing can be."""
    before = ast.unparse(node) if not isinstance(node, (ast.Module, ast.FunctionDef, ast.arguments)) else ""
    if variant == 0:
        if isinstance(node, ast.Compare):
            node.ops[0] = _SWAPPED[type(node.ops[0])]()
        elif isinstance(node, ast.Constant) and type(node.value) is bool:
            node.value = not node.value
        elif isinstance(node, ast.Constant) and type(node.value) is int:
            node.value += 1
        elif isinstance(node, ast.BoolOp):
            node.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        elif isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Sub)):
            node.op = ast.Sub() if isinstance(node.op, ast.Add) else ast.Add()
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            node.op = ast.UAdd()
            node.operand = ast.Call(ast.Name("bool", ast.Load()), [node.operand], [])
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("min", "max"):
            node.func.id = "min" if node.func.id == "max" else "max"
        elif isinstance(node, (ast.FunctionDef, ast.If, ast.For, ast.While)):
            return _drop(node, 0)
        else:
            return None
        return f"{before} became {ast.unparse(node)}"
    if isinstance(node, (ast.FunctionDef, ast.If, ast.For, ast.While)):
        return _drop(node, variant)
    return None


def _drop(node: Any, which: int) -> str | None:
    """Leave out the `which`-th statement of a body that does something by itself."""
    droppable = [
        at
        for at, statement in enumerate(node.body)
        if isinstance(statement, (ast.Assign, ast.AugAssign, ast.Continue, ast.Break))
        or (isinstance(statement, ast.Expr) and not isinstance(statement.value, ast.Constant))
    ]
    if which >= len(droppable):
        return None
    at = droppable[which]
    gone = ast.unparse(node.body[at])
    node.body[at] = ast.Pass()
    return f"{gone} left out"
