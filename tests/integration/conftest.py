"""Fixtures of the integration tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.installation import Installation


@pytest.fixture(scope="package")
def _shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """It ends with the last integration test of its process: idle, it would take a tenth of a processor to the end."""
    with Installation(tmp_path_factory.mktemp("installation") / "data") as running:
        yield running


@pytest.fixture(scope="module")
def installation(_shared: Installation) -> Installation:
    """One that is ready, shared by all modules: names of locks, keys and tokens begin with the module's own, and what
    dies in a test comes back in it. Modules that break more, or want other settings, have one of their own."""
    _shared.wait_until_ready()
    return _shared


@pytest.fixture
def new_installation(tmp_path: Path) -> Iterator[Callable[..., Installation]]:
    """Makes installations that are not started yet, each on its own directory; ends what still runs."""
    made: list[Installation] = []

    def make(name: str = "data", **options: object) -> Installation:
        made.append(Installation(tmp_path / name, **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for one in made:
        one.__exit__(None, None, None)
