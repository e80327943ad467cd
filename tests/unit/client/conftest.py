"""Fixtures for tests of the client over the real state machine."""

from __future__ import annotations

import pytest

from tests.unit.client.cluster import Cluster, TestClient


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
def client(cluster: Cluster) -> TestClient:
    return cluster.client()
