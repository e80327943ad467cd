"""What can be changed in a function by mutants that nobody chose: comparisons, constants, Booleans and statements.

Texts for people are left alone: what an assertion or a refusal says, annotations, formatted strings.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from typing import Any, Final

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

_DROPPED: Final = (
    ast.Assign,
    ast.AugAssign,
    ast.Break,
    ast.Continue,
    ast.Delete,
    ast.Expr,
    ast.Raise,
    ast.Return,
)


def changes_of(definition: ast.FunctionDef) -> Iterator[tuple[int, str, int, int]]:
    """Each change that can be made: its line, what it is, which node, and which of the node's changes."""
    for at, (node, around) in enumerate(changeable(definition)):
        if node is definition.body[-1] and ast.unparse(node) in ("return", "return None"):
            continue  # The end of a function returns that by itself.
        for variant in range(len(node.ops) if isinstance(node, ast.Compare) else 1):
            changed = copy.deepcopy(node)
            if not change(changed, variant):
                continue
            what = f"`{ast.unparse(node)}` "
            what += "left out" if isinstance(node, ast.stmt) else f"became `{ast.unparse(changed)}`"
            if isinstance(node, ast.Constant) and not isinstance(around, (ast.If, ast.For, ast.While, ast.Match)):
                what += f" in `{ast.unparse(around)}`"
            yield node.lineno, what, at, variant


def changeable(definition: ast.FunctionDef) -> Iterator[tuple[Any, ast.AST]]:
    """Statements and expressions of the function, each with the one around it, in an order that is always the same; no
    texts, no annotations."""
    for statement in definition.body:
        yield from _within(statement, definition)


def _within(node: ast.AST, around: ast.AST) -> Iterator[tuple[Any, ast.AST]]:
    if isinstance(node, ast.JoinedStr):
        return
    if isinstance(node, (ast.stmt, ast.expr)):
        yield node, around
        around = node
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns") or (isinstance(node, ast.Assert) and name == "msg"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from _within(child, around)


def change(node: Any, variant: int) -> bool:
    """Change `node` in place; False where nothing of it can be."""
    match node:
        case ast.Compare():
            node.ops[variant] = _SWAPPED[type(node.ops[variant])]()
        case ast.Constant() if type(node.value) is bool:
            node.value = not node.value
        case ast.Constant() if type(node.value) is int:
            node.value += 1
        case ast.BoolOp():
            node.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        case ast.BinOp(op=ast.Add() | ast.Sub()):
            node.op = ast.Sub() if isinstance(node.op, ast.Add) else ast.Add()
        case ast.UnaryOp(op=ast.Not()):
            node.op = ast.UAdd()
            node.operand = ast.Call(ast.Name("bool", ast.Load()), [node.operand], [])
        case ast.Call(func=ast.Name(id="min" | "max")):
            node.func = ast.Name("min" if ast.unparse(node.func) == "max" else "max", ast.Load())
        case ast.Expr(value=ast.Constant()):
            return False
        case ast.stmt() if isinstance(node, _DROPPED):
            _leave_out(node)
        case _:
            return False
    return True


def _leave_out(statement: ast.stmt) -> None:
    """Make the statement one that does nothing; its place in its list stays."""
    location = {name: getattr(statement, name) for name in ("lineno", "col_offset", "end_lineno", "end_col_offset")}
    statement.__class__ = ast.Pass
    statement.__dict__.clear()
    for name, value in location.items():
        setattr(statement, name, value)
