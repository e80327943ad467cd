"""A restore, on a whole installation: backed up, gone on, removed, and begun anew from the file, by the commands that
an operator gives. (Restores of one backup again and again: tests/unit/replica/test_restore.py, without processes.)"""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor

from coordinator.client import Client
from tests.integration.quorum import NODES, web_client

NAME = "restored"


def grant(client: Client) -> int:
    with client.lock("deploy", ttl=5, wait=5) as lease:
        return lease.token


def test_a_cluster_is_restored_from_a_backup_and_one_client_goes_on_with_it(installation):
    manage = installation.manage
    manage("cluster", "create", NAME, "--replicas", "3")
    with web_client(installation, cluster=NAME, timeout=20) as client:
        client.put("k", b"in the backup")
        tokens = [grant(client)]
        found = re.search(r"\S+\.backup", manage("cluster", "backup", NAME, "node2"))
        assert found is not None
        client.put("k", b"undone")
        tokens.append(grant(client))
        lost = client.acquire("held", ttl=30, wait=5)
        with ThreadPoolExecutor() as pool:
            [*pool.map(lambda node: manage("cluster", "remove-replica", NAME, node, "--force"), NODES)]
        said = manage("cluster", "restore", NAME, found.group(), "--nodes", ",".join(NODES))
        assert "in restore epoch 1" in said
        assert client.get("k") == b"in the backup"
        assert not lost.held, "it was granted behind the backup"
        tokens += [grant(client), grant(client)]
        assert sorted(member.node for member in client.progress().voters) == sorted(NODES)
    assert tokens == sorted({*tokens})
    assert [token >> 40 for token in tokens] == [0, 0, 1, 1]
