"""Fixtures for tests of the client over the real state machine."""

from __future__ import annotations

import pytest

from coordinator.client import hands
from tests.unit.client.cluster import Cluster, TestClient


@pytest.fixture(autouse=True)
def _empty_hands() -> None:
    """This thread has taken nothing, whatever was left held by the tests before."""
    hands._places.set(())


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
def client(cluster: Cluster) -> TestClient:
    return cluster.client()
