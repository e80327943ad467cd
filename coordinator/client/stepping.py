"""One step of a flow. Not compiled: there, whatever catches an error makes a traceback for it first, of a code and a
frame of its own, and every flow ends with a StopIteration."""

from __future__ import annotations

import logging
from typing import Any

from coordinator.client.calls import Call
from coordinator.client.flows import Flow

logger = logging.getLogger(__name__)


def advance(flow: Flow, value: Any, throw: BaseException | None) -> tuple[Call | None, Any, BaseException | None]:
    """Send `value` into the flow, or throw the error in. The call that it waits for now; or None, and what it returned
    or raised. Raises what is thrown into this thread before the flow goes on."""
    try:
        return (flow.send(value) if throw is None else flow.throw(throw)), None, None
    except StopIteration as end:
        return None, end.value, None
    except BaseException as error:  # noqa: BLE001 - it is raised on the caller's thread
        # Of the flow, which has ended; or thrown into this thread as it came back from it, and then it cleans up.
        close(flow)
        return None, None, error


def close(flow: Flow) -> None:
    """Have a flow that nobody asks any more clean up, where it has not ended."""
    try:
        flow.close()
    except Exception:
        logger.exception("a flow did not end when it was to")
