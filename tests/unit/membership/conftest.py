"""A company of nodes without processes, and a reconciler that looks at it."""

from __future__ import annotations

import pytest

from coordinator.consensus.members import Member
from coordinator.consensus.membership import Configuration
from coordinator.membership import nodes
from coordinator.membership.reconciler import Reconciler
from tests.unit.membership.company import Company, FakeClient
from tests.unit.membership.reconciling import DEFAULT, NAMES, Time


@pytest.fixture
def company(monkeypatch) -> Company:
    company = Company(*NAMES)
    monkeypatch.setattr(nodes, "look", company.look)
    monkeypatch.setattr(nodes, "ask", company.ask)
    monkeypatch.setattr(nodes, "outcomes", company.wait)
    client = company.clusters["default"] = FakeClient(DEFAULT, company)
    members = tuple(Member(number, f"node{number}") for number in (1, 2, 3))
    client.configuration, client.leader = Configuration(members), 1
    for member in members:
        company.host(member.node, "aa", "default", f"{member.replica:x}")
    return company


@pytest.fixture
def client(company) -> FakeClient:
    return company.clusters["default"]


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def reconciler(company, time) -> Reconciler:
    return Reconciler(company.clusters.__getitem__, time)
