"""What changes in the database leaves the version before able to write its rows: an operator may go back to it."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
from django.apps import apps
from django.db import connection, migrations

from coordinator import migrations as package
from coordinator.models import Birth

FIRST = "0003"
"""Before it no version was that anybody could go back to."""


def _added() -> list[tuple[str, str]]:
    """Model and field of what migrations add to tables."""
    names = sorted(path.stem for path in Path(str(package.__file__)).parent.glob("[0-9]*.py"))
    found = [importlib.import_module(f"coordinator.migrations.{name}") for name in names if name >= FIRST]
    operations = [operation for module in found for operation in module.Migration.operations]
    return [(one.model_name, one.name) for one in operations if isinstance(one, migrations.AddField)]


@pytest.mark.parametrize(("model", "name"), _added())
def test_a_column_that_the_version_before_does_not_know_has_a_value_in_the_database(model: str, name: str) -> None:
    field = apps.get_model("conclave", model)._meta.get_field(name)
    assert field.null or field.has_db_default()


@pytest.mark.django_db
def test_the_version_before_writes_down_a_birth() -> None:
    columns = "cluster_id, name, nodes, members, fingerprint, begun_at"
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {Birth._meta.db_table} ({columns}) VALUES (%s, %s, %s, %s, %s, %s)",
            ["1f", "two", "[]", "[]", "", "2026-11-30 03:00:00"],
        )
    assert Birth.objects.get(name="two").left_out == []
