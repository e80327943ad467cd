"""`docs/raft.md` names functions, tests and checkers: all of them are there, so that the page stays true."""

from __future__ import annotations

import importlib
import re
from functools import cache
from types import ModuleType

import pytest

from tests.simulation.checkers import CHECKERS
from tests.unit.pages import DOCS, ROOT, WORD, has, names_of_tests, rows, words

PAGE = DOCS / "raft.md"
ROOMS = (
    "coordinator/consensus/raft",
    "coordinator/consensus",
    "coordinator/replica",
    "coordinator/statemachine",
    "coordinator/statemachine/commands",
    "coordinator/membership",
    "coordinator/wire",
    "coordinator/client",
    "coordinator",
)
SECTIONS = {
    "paper": "5.1 5.2 5.3 5.4.1 5.4.2 5.4.3 5.5 5.6 6 7 8",
    "thesis": "3.10 4.1 4.2.1 4.2.2 4.2.3 4.2.4 4.3 4.4 6.1 6.2 6.3 6.4 6.4.1 9.1 9.2 9.3 9.4 9.5 9.6 "
    "10.1 10.2.1 10.2.2",
}


@cache
def modules() -> list[ModuleType]:
    """Those that can be named by their last name, and whose classes can be named by themselves."""
    paths = [path for room in ROOMS[:-2] for path in sorted((ROOT / room).glob("*.py")) if path.stem != "__main__"]
    paths += [ROOT / "coordinator/client/routing.py"]
    return [importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts)) for path in paths]


def is_there(word: str) -> bool:
    """Is there what this word names?"""
    if "/" in word or word.endswith(".py"):
        return any((ROOT / room / word).exists() for room in ("", *ROOMS)) or any(ROOT.glob(f"tests/**/{word}"))
    if word.startswith("test_"):
        return word in names_of_tests()
    if re.fullmatch(r"[a-z]+(-[a-z]+)+", word):
        return word in {checker.name for checker in CHECKERS}
    owner, _, name = word.rpartition(".")
    if not owner:
        return any(has(module, name) for module in modules())
    stems = [module for module in modules() if module.__name__.rpartition(".")[2] == owner]
    classes = [vars(module)[owner] for module in modules() if owner in vars(module)]
    return any(has(one, name) for one in stems + classes)


@pytest.mark.parametrize("word", words(PAGE.read_text()))
def test_what_the_page_names_is_there(word: str) -> None:
    assert is_there(word), f"docs/raft.md names `{word}`, and there is none"


@pytest.mark.interpreted
@pytest.mark.parametrize(
    "word",
    ["elections.on_vote", "Raft.leads", "Rafts.leader", "nothing.py", "raft/core.py2", "test_of_nothing", "no-checker"],
)
def test_what_is_not_there_is_noticed(word: str) -> None:
    assert not is_there(word)


@pytest.mark.parametrize("source", SECTIONS)
def test_every_section_has_its_row(source: str) -> None:
    (part,) = [part for part in PAGE.read_text().split("\n## ") if part.startswith(f"The {source}")]
    assert {row[0].split(",")[0] for row in rows(part)} - {"section", "figure 2", "figure 3"} == set(
        SECTIONS[source].split()
    )


def test_every_row_of_a_rule_names_who_keeps_it_and_a_test_or_a_checker_that_holds_it() -> None:
    ruled = [row for part in PAGE.read_text().split("\n## ")[1:4] for row in rows(part)[1:]]
    assert len(ruled) > 60
    for row in ruled:
        *_, kept, held = row
        assert len(row) == 4, row
        assert WORD.search(kept) or "together" in kept, row
        assert re.search(r"`test_\w+`|checkers? `", held), row
        assert ".py`" not in held.replace("`bench/compare.py`", ""), f"a whole file holds no rule: {row}"
