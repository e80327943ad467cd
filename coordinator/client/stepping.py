"""One step of a flow. Not compiled: there, whatever catches an error makes a traceback for it first, of a code and a
frame of its own, and every flow ends with a StopIteration."""

from __future__ import annotations

from typing import Any

from coordinator.client.calls import Call
from coordinator.client.flows import Flow


def advance(flow: Flow, value: Any, throw: BaseException | None) -> tuple[Call | None, Any]:
    """Send `value` into the flow, or throw the error in. The call that it waits for now; or None, and its value. Raises
    what it raises."""
    try:
        return (flow.send(value) if throw is None else flow.throw(throw)), None
    except StopIteration as end:
        return None, end.value
