"""Modules of C, built for a test."""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType

import pytest

from coordinator import compiled, compiling


def native_module(name: str, directory: Path) -> ModuleType:
    """Made of its source in `directory`; where nothing can be compiled the test is skipped, and in CI it fails."""
    try:
        file = compiling.build_extension(name, directory)
    except compiling.CannotCompile as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"nothing can be compiled here: {error}")
    return compiled.load(name, file)
