"""Orders to nodes that travel through Celery's broker, and what nodes report to whoever gives them, with a keyed hash.

The broker is a Redis, and Redis is trusted with nothing (SECURITY.md): without the installation's own key an order is
not obeyed, and a report is not believed. The key is derived from the peer key, which nodes, reconciler and management
commands of an installation have and no client does. An order is for one node and a short time, so that a copy of an old
one does nothing; what it may do twice in that time is harmless (`coordinator/replica/intents.py`).
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Any, Final

FRESH_MS: Final = 600_000
"""How old an order may be, by the clock of the node's machine. It decides whether a late one is obeyed, and no more."""

_HASH_BYTES: Final = 16


class OrderRefused(Exception):
    """It is not an order for this node, or comes too late."""


def key_of(peer_key: bytes) -> bytes:
    return hashlib.blake2b(peer_key, digest_size=32, person=b"conclave-order").digest()


def seal_order(
    key: bytes, node: str, task: str, request: str, arguments: Mapping[str, Any], at_ms: int
) -> dict[str, Any]:
    """The keyword arguments of a node's task: what is asked, when by the node's clock, and the hash."""
    mac = _mac(key, "order", [node, task, request, at_ms, arguments])
    return {"request": request, "at_ms": at_ms, "arguments": dict(arguments), "mac": mac}


def open_order(
    key: bytes, node: str, task: str, request: str, arguments: Mapping[str, Any], at_ms: int, mac: str, now_ms: int
) -> None:
    """Raises OrderRefused unless somebody with the key meant this node, this task, and about now."""
    expected = _mac(key, "order", [node, task, request, at_ms, arguments])
    if not hmac.compare_digest(expected.encode(), str(mac).encode()):
        raise OrderRefused(f"{task}: the hash is not that of an order to {node}")
    if abs(now_ms - at_ms) > FRESH_MS:
        raise OrderRefused(f"{task}: given {(now_ms - at_ms) / 1_000:.0f} s ago by the clock of this machine")


def seal_report(key: bytes, nonce: str, report: Mapping[str, Any]) -> str:
    """The hash of a node's report, for whoever asked with `nonce`."""
    return _mac(key, "report", [nonce, report])


def is_report(key: bytes, nonce: str, report: Mapping[str, Any], mac: object) -> bool:
    return hmac.compare_digest(seal_report(key, nonce, report).encode(), str(mac).encode())


def _mac(key: bytes, kind: str, body: list[Any]) -> str:
    """Over JSON with sorted keys: what comes out of a JSON transport gives the same bytes again."""
    text = json.dumps([kind, *body], sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.blake2b(text.encode(), digest_size=_HASH_BYTES, key=key).hexdigest()
