"""`docs/design.md` has ten rules and thirteen histories; what keeps and holds each is there, and is cited right."""

from __future__ import annotations

import re

import pytest

from tests.simulation.checkers import CHECKERS
from tests.simulation.mutants import MUTANTS
from tests.unit.pages import DOCS, ROOT, has_function, names_of_tests, section, words

PAGE = DOCS / "design.md"
PLACE = re.compile(r"[a-z_/]+\.py:[\w.]+")
NAME = re.compile(r"[a-z]+(-[a-z]+)+")
CHECKER_NAMES = {checker.name for checker in CHECKERS}
CITED = re.compile(r"docs/design\.md, (?:rules? ([\d, and]+)|histor(?:y|ies) ([\d, and]+)|\"([^\"]+)\")", re.DOTALL)


def parts(title: str) -> list[str]:
    """What stands below each heading of a rule or history, the heading first."""
    return section(PAGE, title).split("\n### ")[1:]


def test_all_rules_and_histories_are_there_in_order() -> None:
    assert [part.partition(":")[0] for part in parts("The rules")] == [f"Rule {number}" for number in range(1, 11)]
    assert [part.partition(":")[0] for part in parts("The histories")] == [f"History {n}" for n in range(1, 14)]


@pytest.mark.parametrize("part", parts("The rules") + parts("The histories"), ids=lambda part: part.partition(":")[0])
def test_each_says_what_keeps_it_and_what_holds_it(part: str) -> None:
    _, kept, held = re.split(r"\n- (?=Kept by |Held by )", part)
    assert any(PLACE.fullmatch(word) for word in words(kept))
    assert any(word in names_of_tests() or word in MUTANTS for word in words(held))
    for names, known in (
        (re.findall(r"planted\s+bugs?\s+([^;.]+)", held), {*MUTANTS}),
        (re.findall(r"checkers?\s+([^;.]+)", held), CHECKER_NAMES),
    ):
        assert {word for text in names for word in words(text)} <= known


@pytest.mark.parametrize("word", words(PAGE.read_text()))
def test_what_the_page_names_is_there(word: str) -> None:
    if PLACE.fullmatch(word):
        assert has_function(word)
    elif word.endswith(".py"):
        assert any((ROOT / room / word).is_file() for room in ("", "coordinator"))
    elif word.startswith("test_"):
        assert word in names_of_tests()
    elif NAME.fullmatch(word):
        assert word in MUTANTS or word in CHECKER_NAMES


def test_who_cites_the_page_cites_what_is_there() -> None:
    cited = 0
    besides = {*re.findall(r"\*\*([^*]+)\.\*\*", section(PAGE, "What the code cites besides"))}
    for path in [*(ROOT / "coordinator").rglob("*.py"), ROOT / "pyproject.toml"]:
        for rules, histories, title in CITED.findall(path.read_text()):
            cited += 1
            assert all(1 <= int(number) <= 10 for number in re.findall(r"\d+", rules)), path
            assert all(1 <= int(number) <= 13 for number in re.findall(r"\d+", histories)), path
            assert not title or re.sub(r"\s+", " ", title) in besides, (path, title)
    assert cited > 15


def test_nobody_cites_a_page_that_is_not_there() -> None:
    texts = [*(ROOT / "coordinator").rglob("*.py"), ROOT / "pyproject.toml", ROOT / "CONTRIBUTING.md"]
    assert [path for path in texts if re.search(r"\bDESIGN\.md", path.read_text())] == []
    for path in [*DOCS.glob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]:
        for link in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", path.read_text()):
            assert (path.parent / link).exists(), f"{path.name} links to {link}"
