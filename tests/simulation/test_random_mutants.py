"""The maker of random mutants: what it changes and what not, that it leaves nothing behind, and how it judges."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.simulation import __main__ as command_line
from tests.simulation import random_mutants
from tests.simulation.mutants import MutantDoesNotFit
from tests.simulation.random_changes import changes_of
from tests.simulation.random_mutants import (
    LEFT_OUT,
    MODULES,
    ROOT,
    WITHOUT_END,
    Fate,
    _definitions,
    _end_after,
    _Entered,
    _fails_in_time,
    _functions,
    _in_child,
    _who_could_notice,
    all_points,
    draw,
    explained,
    fates,
    is_explained,
    planted,
)

SOURCE = '''
def sample(a: int = 1, b: "bool | 2" = True) -> int:
    """Docstring with 1 and True."""
    assert a < 5, f"{a + 1} is above {5}"
    if not a and b or a in (3, 4):
        raise ValueError(f"expected {a > 1}")
    while a == 7:
        a += 1
        break
    c = max(a - 1, 2)
    del b
    return c
'''


def said_of(source: str) -> list[str]:
    (definition,) = ast.parse(source).body
    assert isinstance(definition, ast.FunctionDef)
    return [f"{line}: {what}" for line, what, _, _ in changes_of(definition)]


def test_comparisons_constants_booleans_and_statements_are_changed_and_texts_are_not():
    assert said_of(SOURCE) == [
        "4: `a < 5` became `a <= 5`",
        "4: `5` became `6` in `a < 5`",
        "5: `not a and b or a in (3, 4)` became `(not a and b) and a in (3, 4)`",
        "5: `not a and b` became `not a or b`",
        "5: `not a` became `+bool(a)`",
        "5: `a in (3, 4)` became `a not in (3, 4)`",
        "5: `3` became `4` in `(3, 4)`",
        "5: `4` became `5` in `(3, 4)`",
        "6: `raise ValueError(f'expected {a > 1}')` left out",
        "7: `a == 7` became `a != 7`",
        "7: `7` became `8` in `a == 7`",
        "8: `a += 1` left out",
        "8: `1` became `2` in `a += 1`",
        "9: `break` left out",
        "10: `c = max(a - 1, 2)` left out",
        "10: `max(a - 1, 2)` became `min(a - 1, 2)`",
        "10: `a - 1` became `a + 1`",
        "10: `1` became `2` in `a - 1`",
        "10: `2` became `3` in `max(a - 1, 2)`",
        "11: `del b` left out",
        "12: `return c` left out",
    ]


def test_each_comparison_of_a_chain_is_changed_by_itself():
    assert said_of("def f(a): return 0 <= a < 9")[1:3] == [
        "1: `0 <= a < 9` became `0 < a < 9`",
        "1: `0 <= a < 9` became `0 <= a <= 9`",
    ]


def test_a_return_of_nothing_at_the_end_is_no_statement_to_leave_out():
    assert said_of("def f(a):\n    if a:\n        return None\n    return None") == ["3: `return None` left out"]


def test_the_same_seed_draws_the_same_mutants_and_another_others():
    points = all_points()
    assert len(points) == len(set(points)) > 1_000
    assert {point.module for point in points} == set(MODULES)
    assert draw(200, 1) == draw(200, 1)
    assert len(set(draw(200, 1))) == 200
    assert draw(200, 1) != draw(200, 2)
    assert draw(1 << 20, 1) == sorted(points)


def test_no_module_of_the_core_or_the_turn_is_forgotten():
    core = (ROOT / "coordinator" / "consensus").rglob("*.py")
    found = {".".join(path.relative_to(ROOT).with_suffix("").parts) for path in core if path.stem != "__init__"}
    left = ["coordinator.replica.turn"]
    while left:
        name = left.pop()
        path = ROOT / (name.replace(".", "/") + ".py")
        if name.startswith("coordinator.replica.") and path.exists() and name not in found:
            found.add(name)
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ImportFrom) and node.module is not None:
                    left += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    forgotten = {name for name in found if _definitions(name)} - {*MODULES, *LEFT_OUT}
    assert forgotten == set()
    assert {*LEFT_OUT} <= found


def test_a_change_to_one_function_draws_no_others_elsewhere():
    points = all_points()
    drawn = draw(200, 1, points)
    touched = drawn[0].function
    moved = [point._replace(line=point.line + 7, number=point.number + 1) for point in points]
    left = [point for point in moved if point.function != touched]
    again = {(point.module, point.function, point.what) for point in draw(200, 1, left)}
    others = {(point.module, point.function, point.what) for point in drawn if point.function != touched}
    assert others <= again


def test_every_mutant_fits_and_leaves_nothing_behind():
    def codes() -> list[object]:
        return [f.__code__ for module in MODULES for f in _functions(importlib.import_module(module)).values()]

    before = codes()
    for point in draw(150, 3):
        function = _functions(importlib.import_module(point.module))[point.function]
        with planted(point):
            assert function.__code__ not in before
            assert f"def {function.__name__}(" in inspect.getsource(function)
    assert codes() == before


def test_every_function_that_is_drawn_from_is_found():
    for module in MODULES:
        assert [*_functions(importlib.import_module(module))] == [*_definitions(module)]


def test_a_mutant_of_other_code_is_an_error():
    point = all_points()[0]
    with pytest.raises(MutantDoesNotFit, match="no such change"), planted(point._replace(what="something else")):
        pass
    with pytest.raises(MutantDoesNotFit, match="no such change"), planted(point._replace(number=1 << 20)):
        pass


def test_a_judge_in_a_child_says_what_it_found_and_hangs_and_crashes_count():
    def hang() -> str:
        _end_after(0.1)
        while True:
            pass

    def crash() -> str:
        os.kill(os.getpid(), signal.SIGTERM)
        return "is dead"

    def fail() -> str:
        raise MemoryError

    assert _in_child(lambda: None) is None
    assert _in_child(lambda: "unit test x") == "unit test x"
    assert _in_child(hang) == WITHOUT_END
    assert _in_child(crash) == "a crash"
    assert _in_child(fail) == "a crash"


def test_each_row_of_the_page_explains_a_change_that_can_be_made():
    assert explained() != set()
    assert explained() <= {(point.function, point.what) for point in all_points()}


def test_a_row_explains_its_own_function_and_change_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(random_mutants, "PAGE", tmp_path / "survivors.md")
    one, other = draw(2, 1)
    rows = [f"| `{function}` | {what} | because |" for function, what in ((one.function, "x"), ("f", one.what))]
    random_mutants.PAGE.write_text("\n".join([*rows, f"| `{other.function}` | {other.what} | because |"]))
    assert is_explained(other)
    assert not is_explained(one)


def test_what_is_known_of_this_code_is_not_judged_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    points = draw(2, 1)
    known = [Fate(points[0], "unit test x", 0), Fate(points[1], None, 0)]
    monkeypatch.setattr(random_mutants, "_code_digest", lambda: "code")
    (tmp_path / "code-1-9.jsonl").write_text("".join(json.dumps(fate) + "\n" for fate in known))
    monkeypatch.setattr(random_mutants, "_work", None)  # Nobody works.
    assert list(fates(points, range(1, 10), 1, state=tmp_path)) == known


def test_the_summary_says_who_died_and_of_what_and_fails_below_the_bar_and_on_what_is_not_explained(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    points = draw(10, 1)
    said = [Fate(point, "unit test x", 0) for point in points[:8]]
    said += [Fate(points[8], "log-matching", 3), Fate(points[9], None, 0)]
    monkeypatch.setattr(random_mutants, "fates", lambda *_: iter(said))
    monkeypatch.setattr(random_mutants, "PAGE", tmp_path / "survivors.md")
    assert command_line.main(["--engine", "raft", "--random-mutants", "10"]) == 1
    printed = capsys.readouterr().out
    assert "9 of 10 died (90.0 %), by these judges:\n  unit tests: 8\n  log-matching in a seed: 1\n" in printed
    assert "10 of 10: " in printed
    assert f"  {points[9]} (not in docs/survivors.md)\n" in printed
    assert "1 of 1 survivors are not explained in docs/survivors.md\n" in printed
    rows = [f"| `{point.function}` | {point.what} | because |" for point in (points[9], points[0])]
    (tmp_path / "survivors.md").write_text("\n".join(rows))
    assert command_line.main(["--engine", "raft", "--random-mutants", "10"]) == 0
    printed = capsys.readouterr().out
    assert f"  {points[9]}\n" in printed
    assert "0 of 1 survivors are not explained in docs/survivors.md\n" in printed
    said[0] = Fate(points[0], None, 0)
    assert command_line.main(["--engine", "raft", "--random-mutants", "10"]) == 1, "too many, explained or not"


def test_tests_that_only_take_long_have_the_time_that_they_need(monkeypatch: pytest.MonkeyPatch):
    point = all_points()[0]
    here, elsewhere = {(point.module, point.function)}, {("another", "function")}
    names: list[Any] = ["a", "b", "c"]
    took = [*map(_Entered, names, (2.0, 5.0, 9.0), (here, elsewhere, here))]
    asked = _who_could_notice(took, point)
    assert [str(test.item) for test in asked] == ["a", "c"]
    allowed: list[float] = []
    monkeypatch.setattr(random_mutants, "_end_after", allowed.append)
    monkeypatch.setattr(random_mutants, "_fails", lambda item: str(item) == "c")
    assert [_fails_in_time(test) for test in asked] == [False, True]
    assert allowed == [10, 36]


def test_the_time_of_one_test_is_not_taken_from_the_next():
    def work_on(times: int) -> str:
        for _ in range(times):
            _end_after(1)
            begun_s = time.process_time()
            while time.process_time() < begun_s + 0.6:
                pass
        return "done"

    assert _in_child(lambda: work_on(4)) == "done"


@pytest.mark.timeout(600)
def test_a_mutant_that_breaks_a_rule_dies_by_a_unit_test():
    program = (
        "from tests.simulation.random_mutants import all_points, fates\n"
        "what = ('majority', '`size // 2 + 1` became `size // 2 - 1`')\n"
        "points = [point for point in all_points() if (point.function, point.what) == what]\n"
        "tests = ['tests/unit/consensus/test_elections.py', 'tests/unit/consensus/test_core.py']\n"
        "for fate in fates(points, range(1, 2), 1, state=None, tests=tests): print(fate)"
    )
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert re.search(r"quorum.py:\d+ majority: `size // 2 \+ 1` became .* died by unit test test_\w+", run.stdout)
