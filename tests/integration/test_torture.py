"""Kill torture: `kill -9` of any node, of Redis or of everything, at random moments under a load that is judged.

PROVE_KILLS says how many rounds (4 where it is not set), PROVE_KILLS_SEED which. With PROVE_KILLS_STATE, a file, a run
that was cut off goes on with the rounds that are left.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from coordinator.client import Client
from tests.integration.installation import Installation
from tests.integration.quorum import NODES, wait_in_step, web_client
from tests.integration.torture import Round

ROUNDS = int(os.environ.get("PROVE_KILLS", "4"))
SEED = int(os.environ.get("PROVE_KILLS_SEED", "1"))
STATE = os.environ.get("PROVE_KILLS_STATE")
VICTIMS = (*NODES, "leader", "redis", "two nodes", "everything")
CALLERS = 3
ROUND_S_MAX = 300
READY_S_MAX = 120
"""The moments are what counts here, and not how long everything takes on a machine with other work."""

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120 + ROUND_S_MAX * ROUNDS)]


def done_before() -> int:
    return json.loads(Path(STATE).read_text())["rounds"] if STATE and Path(STATE).exists() else 0


def note(rounds: int) -> None:
    if STATE:
        Path(STATE).write_text(json.dumps({"rounds": rounds, "seed": SEED}))


def kill(installation: Installation, watcher: Client, victim: str, random: Random) -> None:
    if victim == "everything":
        installation.kill_everything()
        installation.start()
    elif victim == "two nodes":
        for node in random.sample(NODES, 2):
            installation.kill(node)
    elif victim == "leader":
        installation.kill(watcher.confirm(timeout=READY_S_MAX)[0])
    else:
        installation.kill(victim)


def test_what_was_acknowledged_survives_every_death(new_installation: Callable[..., Installation]) -> None:
    installation = new_installation()
    installation.start()
    installation.wait_until_ready(READY_S_MAX)
    url, token = installation.new_token("torture")
    judged, killed = 0, Counter[str]()
    first = done_before()
    for number in range(first, ROUNDS):
        random = Random(SEED * 1_000_003 + number)
        clients = [Client(url, token, timeout=8) for _ in range(CALLERS)]
        with web_client(installation, timeout=10) as watcher:
            wait_in_step(watcher, timeout_s=READY_S_MAX)
            load = Round(number, clients)
            load.start()
            victims = [random.choice(VICTIMS) for _ in range(random.choice((1, 1, 1, 2)))]
            for victim in victims:
                time.sleep(random.uniform(0.05, 1.0))  # The moment is the point.
                kill(installation, watcher, victim, random)
                killed[victim] += 1
            installation.wait_until_ready(READY_S_MAX)
            wait_in_step(watcher, timeout_s=READY_S_MAX)
            time.sleep(random.uniform(0.0, 0.3))
            load.finish()
        judged += load.judge()
        for client in clients:
            client.close()
        note(number + 1)
        print(f"round {number}: {', '.join(victims)}: {judged} operations judged so far", flush=True)
    print(f"{ROUNDS - first} rounds, {judged} operations judged, killed: {dict(killed)}")
    assert judged > 0 or first >= ROUNDS
    installation.stop()
