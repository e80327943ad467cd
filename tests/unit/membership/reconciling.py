"""What tests of the reconciler and of making clusters share."""

from __future__ import annotations

from io import StringIO
from typing import Any

from django.core.management import call_command

from coordinator.client import errors
from coordinator.management.commands import cluster as command
from coordinator.membership import creation, edits
from coordinator.membership.reconciler import Reconciler
from coordinator.models import Cluster, Reconciliation
from tests.unit.membership.company import Company, FakeClient

DEFAULT = 0xAA
NAMES = ("node1", "node2", "node3", "node4")


class Time:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def look(reconciler: Reconciler, time: Time, times: int = 1) -> str:
    for _ in range(times):
        time.now += 11
        reconciler.look()
    said = Reconciliation.objects.get(cluster__cluster_id="aa")
    return f"{said.state}: {said.message}"


def row() -> Cluster:
    return edits.cluster_row("default", DEFAULT)


def manage(company: Company, monkeypatch, *arguments: str) -> str:
    class Clients:
        def __init__(self, timeout_s: float) -> None: ...
        def __call__(self, name: str) -> FakeClient:
            return company.clusters[name]

        def __enter__(self):
            return self

        def __exit__(self, *error: object) -> None: ...

    monkeypatch.setattr(command, "Clients", Clients)
    out = StringIO()
    call_command("cluster", *arguments, stdout=out)
    return out.getvalue()


def client_to_be(company: Company, name: str) -> Any:
    """The client of a cluster that is still to be made: it is looked up when it is there."""

    class Lazy:
        def __getattr__(self, attribute: str):
            return getattr(company.clusters[name], attribute)

        def directory(self):
            if name not in company.clusters:
                raise errors.Unavailable("no leader is known")
            return company.clusters[name].directory()

    return Lazy()


def make(company: Company, name: str = "second", replicas: int | None = None, **options) -> Cluster:
    to_be = client_to_be(company, name)

    def client_of(cluster: str) -> Any:
        return to_be if cluster == name else company.clusters[cluster]

    return creation.create(name, replicas, client_of=client_of, say=lambda _: None, **options)
