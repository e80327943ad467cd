"""`docs/simulation.md` has every kind of fault, checker, option and key that there is, and no other."""

from __future__ import annotations

import re

import pytest

from tests.simulation import __main__ as command_line
from tests.simulation.campaign import Summary
from tests.simulation.checkers import CHECKERS
from tests.simulation.faults import KIND_NAMES
from tests.simulation.injector import Injector
from tests.simulation.mutants.edits import Edit, Mutant
from tests.unit.pages import DOCS, ROOT, WORD, has_function, names_of_tests, rows, section, words

PAGE = DOCS / "simulation.md"
OF_ITS_OWN = {"liveness", "no-defect"}
"""What judges without a file among the checkers."""


def tables(title: str) -> list[list[list[str]]]:
    """Of a section: the rows of each table, without its heading."""
    return [rows(part)[1:] for part in section(PAGE, title).split("\n\n") if part.startswith("| ")]


def firsts(table: list[list[str]]) -> list[str]:
    """What each row is about."""
    return [WORD.findall(row[0])[0] for row in table]


def test_every_kind_of_fault_has_its_row_in_order() -> None:
    drawn, counted = tables("Faults")
    assert firsts(drawn) == [*KIND_NAMES]
    assert all(len(row) == 2 and len(row[1]) > 20 for row in drawn)
    assert not {*firsts(counted)} & {*KIND_NAMES}


def test_what_is_counted_and_not_drawn_is_counted_in_the_code() -> None:
    source = "".join(path.read_text() for path in (ROOT / "tests/simulation").rglob("*.py"))
    found = {*re.findall(r'faults\["([a-z-]+)"\]', source)} | {*re.findall(r'Weather\("([a-z-]+)"', source)}
    assert {*firsts(tables("Faults")[1])} == found - {*KIND_NAMES}


def test_the_injector_does_every_kind_on_the_page() -> None:
    made = [kind for kind in KIND_NAMES if not hasattr(Injector, "_" + kind.replace("-", "_"))]
    assert made == ["replayed-votes", "replayed-acknowledgements"]


def test_every_checker_has_its_row_in_order() -> None:
    (table,) = tables("Checkers")
    assert firsts(table) == [checker.name for checker in CHECKERS]
    assert all(len(row) == 3 and all(row) for row in table)
    assert {*words(section(PAGE, "Checkers"))} >= OF_ITS_OWN


def test_every_option_and_status_and_key_has_its_row() -> None:
    options, statuses, keys = tables("The command line")
    said = {option for row in options for option in re.findall(r"(?<![\w-])--?[a-z][a-z-]*", row[0])}
    assert said == {name for action in command_line._parser()._actions for name in action.option_strings}
    assert [int(row[0]) for row in statuses] == [command_line.HELD, command_line.VIOLATED, command_line.UNUSABLE]
    assert firsts(keys) == [*Summary().as_json()]


def test_what_a_planted_bug_is_made_of_is_on_the_page() -> None:
    text = section(PAGE, "Planted bugs")
    assert {*Mutant._fields} <= {*words(text)}
    assert f"`Edit({', '.join(Edit._fields)})`" in text


@pytest.mark.parametrize("word", words(PAGE.read_text()))
def test_what_the_page_names_is_there(word: str) -> None:
    if word.startswith("test_"):
        assert word in names_of_tests()
    elif ".py" in word or word.endswith("/"):
        path = word.partition(":")[0]
        places = (
            "",
            "coordinator",
            "tests/simulation",
            "coordinator/replica",
            "coordinator/client",
            "tests/simulation/mixed",
        )
        assert any((ROOT / place / path).exists() for place in places), word


def test_a_function_that_is_not_there_is_noticed() -> None:
    assert has_function("replica/turn.py:Turn.run")
    assert not has_function("replica/turn.py:Turn.walk")
    assert not has_function("replica/turns.py:Turn.run")
