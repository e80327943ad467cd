"""A leader whose disk stalls gives way (etcd#15247: there, everybody's leases were revoked instead).

Where a commit of its journal took longer than `Options.disk_stall_us`, and it has led for `Options.stall_pause_us`, it
is handing over when its turn ends, if any other full voter that stays has answered it within an election time-out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tests.simulation.watch import Checker

if TYPE_CHECKING:
    from tests.simulation.node import Node

TOLERANCE: Final = 1.01
"""Its clock may run slow."""


class StalledDisks(Checker):
    name = "stalled-disks"

    def led(self, node: Node) -> None:
        engine = node.engine
        options = engine.options
        took_us = node.journal.took_us
        now_us = node.spoken.beat_us
        if took_us < options.disk_stall_us * TOLERANCE or now_us - engine.led_since_us < options.stall_pause_us:
            return
        self.checks += 1
        # Whoever leaves with a joint configuration can take nothing over.
        voters = [member.replica for member in engine.configuration.voters if not member.witness]
        others = [r for r in voters if r != engine.replica and r in engine.progress]
        heard_us = [at_us for r in others if (at_us := engine.progress[r].heard_at_us) is not None]
        answer = [at_us for at_us in heard_us if now_us - at_us <= options.election_timeout_us_min]
        if answer and engine.transferring is None:
            self.violated(
                f"{node.name} leads on in term {engine.term}, though its journal took {took_us / 1_000:.0f} ms and "
                f"{len(answer)} others answer"
            )
