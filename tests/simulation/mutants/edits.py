"""How a bug is planted: a function's source is edited and compiled anew, and takes the place of the function's code.

The code object is exchanged inside the function, so that whoever has imported the function has the bug too.
"""

from __future__ import annotations
import __future__

import builtins
import dis
import importlib
import inspect
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import CodeType, FunctionType
from typing import Any, NamedTuple


class MutantDoesNotFit(Exception):
    """The product's code is not what the mutant was written for. Says where."""


class Edit(NamedTuple):
    """`where`: "module:function" or "module:Class.method". `before` stands in its source exactly once."""

    where: str
    before: str
    after: str


class Mutant(NamedTuple):
    """`name`: lower-case words joined by hyphens. `caught_by`: the checkers that may name it, several where the order
    of seeds decides. `rule`: what is broken, and who says so."""

    name: str
    caught_by: tuple[str, ...]
    rule: str
    edits: tuple[Edit, ...]
    nodes: int = 0
    """In a cluster of so many; 0: of any."""


@contextmanager
def planted_edits(edits: Sequence[Edit]) -> Iterator[None]:
    """Several edits may be of one function; each is made on what those before it left."""
    with ExitStack() as undo:
        sources: dict[str, str] = {}
        for edit in edits:
            function = _find(edit.where)
            source = sources.get(edit.where) or textwrap.dedent(inspect.getsource(function))
            found = source.count(edit.before)
            if found != 1:
                raise MutantDoesNotFit(
                    f"{edit.where}: expected this text once, found it {found} times: {edit.before!r}"
                )
            sources[edit.where] = source.replace(edit.before, edit.after)
        for where, source in sources.items():
            function = _find(where)
            module = _compiled(function, source)
            for name in _global_names(module):
                if name not in function.__globals__ and not hasattr(builtins, name):
                    raise MutantDoesNotFit(f"{where}: there is no {name} in its module")
            undo.enter_context(swapped(function, module))
        yield


@contextmanager
def swapped(function: FunctionType, module: CodeType) -> Iterator[None]:
    """Give `function` the code of the only function that `module`, a compiled module, defines."""
    made: dict[str, Callable[..., Any]] = {}
    exec(module, function.__globals__, made)
    (mutated,) = made.values()
    assert isinstance(mutated, FunctionType)
    original = function.__code__
    if mutated.__code__.co_freevars != original.co_freevars:
        raise MutantDoesNotFit(f"{function.__qualname__} closes over other names than before")
    function.__code__ = mutated.__code__
    try:
        yield
    finally:
        function.__code__ = original


def _global_names(code: CodeType) -> Iterator[str]:
    """What it looks up in its module, itself and in whatever is defined within."""
    for instruction in dis.get_instructions(code):
        if instruction.opname == "LOAD_GLOBAL":
            yield instruction.argval
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _global_names(constant)


def _find(where: str) -> FunctionType:
    module_name, _, path = where.partition(":")
    found: Any = importlib.import_module(module_name)
    for name in path.split("."):
        if name not in vars(found):
            raise MutantDoesNotFit(f"{where}: there is no {name}")
        found = vars(found)[name]
    if isinstance(found, property):
        found = found.fget
    if not isinstance(found, FunctionType):
        raise MutantDoesNotFit(f"{where}: expected a function, got {type(found).__name__}")
    return found


def _compiled(function: FunctionType, source: str) -> CodeType:
    lines = source.splitlines(keepends=True)
    while lines[0].startswith("@"):
        lines.pop(0)
    name = f"<mutant of {function.__qualname__}>"
    return compile("".join(lines), name, "exec", __future__.annotations.compiler_flag)
