"""What pages of `docs/` name: tables, tests, planted bugs, checkers, files and functions; and whether it is there."""

from __future__ import annotations

import importlib
import inspect
import re
from functools import cache
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[2]
DOCS: Final = ROOT / "docs"
WORD: Final = re.compile(r"`([^`]+)`")


def section(page: Path, title: str) -> str:
    """What stands below a heading, up to the next of its kind."""
    (found,) = [part for part in page.read_text().split("\n## ") if part.partition("\n")[0] == title]
    return found


def rows(text: str) -> list[list[str]]:
    """The cells of each row of a table, its heading among them."""
    lines = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| ---")]
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines]


def words(text: str) -> list[str]:
    """What stands between backticks; none of it goes over the end of a paragraph."""
    return sorted({word for paragraph in text.split("\n\n") for word in WORD.findall(paragraph)})


@cache
def names_of_tests() -> frozenset[str]:
    found = [
        re.findall(r"^\s*(?:async )?def (test_\w+)", path.read_text(), re.MULTILINE)
        for path in ROOT.glob("tests/**/test_*.py")
    ]
    return frozenset(name for names in found for name in names)


def has(owner: Any, name: str) -> bool:
    """A function, a class, a field, or what a method sets on itself."""
    if hasattr(owner, name):
        return True
    return isinstance(owner, type) and re.search(rf"\bself\.{name}\b", inspect.getsource(owner)) is not None


def has_function(place: str) -> bool:
    """Is there what `path:name` or `path:Class.name` names? The path is that of a file in `coordinator/`."""
    path, _, names = place.partition(":")
    if not (ROOT / "coordinator" / path).is_file():
        return False
    owner: Any = importlib.import_module(".".join(("coordinator", *Path(path).with_suffix("").parts)))
    for name in names.split("."):
        if not has(owner, name):
            return False
        owner = getattr(owner, name, None)
    return True
