"""Counters: a number that many add to.

Guarantees. Each addition is applied once, however often it is sent, and answers with the sum right behind it: no two
answers of additions of 1 are alike. A read is linearizable. The number has 64 bits; an addition beyond them is refused.

Source: the atomic counters of etcd's and Consul's users, as one command of the log (`AddToKey`).
"""

from __future__ import annotations

import re
from typing import Final

from coordinator.client import options
from coordinator.client.asking import Ask, Part, S, asked
from coordinator.client.errors import WrongKind
from coordinator.statemachine import commands, files

_DECIMAL: Final = re.compile(rb"-?[0-9]{1,19}")
"""What can be added to; Python would read more, as a line break behind it."""
_BEYOND: Final = 2**63


class Counter(Part[S]):
    """A counter by the name of a key, which holds the number in decimal; 0 where there is none."""

    def __init__(self, client: Part[S], name: str) -> None:
        super().__init__(client._shell)
        self.name = options.name(name)

    @asked
    def add(self, amount: int = 1, *, timeout: float | None = None) -> Ask[int]:
        """Add to it (or take away); the sum."""
        op = files.AddToKey(self.name, options.amount(amount))
        return self._command(op, lambda counted: int(counted.value), timeout=timeout)

    @asked
    def value(self, *, timeout: float | None = None) -> Ask[int]:
        """The number now. Raises WrongKind where the key holds none that could be added to."""
        return self._query(commands.GetKey(self.name), self._number, timeout=timeout)

    def _number(self, found: commands.KeyValue) -> int:
        if found.value is None:
            return 0
        number = int(found.value) if _DECIMAL.fullmatch(found.value) else _BEYOND
        if not -_BEYOND <= number < _BEYOND:
            raise WrongKind(f"the value of {self.name!r} is no decimal number of 64 bits")
        return number
