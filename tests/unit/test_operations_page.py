"""docs/operations.md: its commands take the options that it gives them, its settings and permissions are those of the
code. tests/integration/test_machines.py does what it says of several machines."""

from __future__ import annotations

import re
import shlex
from typing import Final

import pytest
from django.core.management import get_commands, load_command_class

from coordinator.access import RIGHT_OF_PERMISSION
from coordinator.config import Config
from tests.unit.pages import DOCS, rows, section

PAGE: Final = DOCS / "operations.md"
COMMANDS: Final = re.findall(r"python manage\.py ((?:cluster|token|access|changepassword) [^`\n#]+)", PAGE.read_text())


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_takes_what_the_page_gives_it(line: str) -> None:
    name, *arguments = shlex.split(re.sub(r" N$", " 1", line.strip()))
    load_command_class(get_commands()[name], name).create_parser("manage.py", name).parse_args(arguments)


def test_there_are_commands_of_each_kind() -> None:
    assert {line.split()[0] for line in COMMANDS} == {"access", "changepassword", "cluster", "token"}


def test_settings_are_those_that_are_read() -> None:
    read = {str(field.validation_alias) for field in Config.model_fields.values()} | {"CONCLAVE_URL"}
    said = {*re.findall(r"\b(CONCLAVE_[A-Z_]+|[A-Z]+_URL)\b", PAGE.read_text())}
    assert said
    assert said <= read


def test_the_permissions_are_those_that_there_are() -> None:
    _, *table = rows(section(PAGE, "People"))
    assert [permission.strip("`") for permission, _ in table] == [*RIGHT_OF_PERMISSION]
