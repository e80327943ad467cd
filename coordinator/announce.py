"""Says at the terminal when the page can be opened, or what it still waits for.

Started beside the parts by `manage.py up`; the standard library alone, so that it costs the start next to nothing.

    python -m coordinator.announce CONNECT_ADDRESS PORT HOST_HEADER STARTED_MONOTONIC
"""

from __future__ import annotations

import http.client
import json
import sys
import threading
import time
from typing import Final

EXIT_USAGE: Final = 2
ASK_EVERY_S: Final = 0.1
ANSWER_S_MAX: Final = 3.0
BODY_BYTES_MAX: Final = 10_000
PATIENCE_S: Final = 15.0
"""After this long without being ready, and then each time again, say what is missing."""
ASK_S_MAX: Final = 600.0
"""Then it is left to the logs and the page."""


def say(line: str) -> None:
    """A line for the person at the terminal, who may have gone."""
    try:
        print(time.strftime("%H:%M:%S"), line, flush=True)
    except (OSError, ValueError):
        return


def what_is_missing(address: str, port: int, host: str) -> str:
    """Empty once the page is served and the cluster `default` has a confirmed leader; else a reason, in words."""
    connection = http.client.HTTPConnection(address, port, timeout=ANSWER_S_MAX)
    try:
        connection.request("GET", "/readyz/default", headers={"Host": host})
        answer = connection.getresponse()
        body = answer.read(BODY_BYTES_MAX)
    except (OSError, http.client.HTTPException):
        return "the web server does not answer yet (log/web.log)"
    finally:
        connection.close()
    if answer.status == 200:
        return ""
    try:
        return str(json.loads(body)["detail"])
    except (ValueError, KeyError, TypeError):
        return f"/readyz/default answers {answer.status} (log/web.log)"


def main(address: str, port: int, host: str, started: float) -> None:
    pause = threading.Event()
    speak_at = started + PATIENCE_S
    while (now := time.monotonic()) < started + ASK_S_MAX:
        missing = what_is_missing(address, port, host)
        if not missing:
            say(f"ready after {time.monotonic() - started:.1f} s: open http://{host}/")
            return
        if now >= speak_at:
            say(f"not ready yet: {missing}")
            speak_at = now + PATIENCE_S
        pause.wait(ASK_EVERY_S)


def _arguments(given: list[str]) -> tuple[str, int, str, float]:
    try:
        address, port, host, started = given
        return address, int(port), host, float(started)
    except ValueError:
        sys.stderr.write("usage: python -m coordinator.announce CONNECT_ADDRESS PORT HOST_HEADER STARTED_MONOTONIC\n")
        sys.exit(EXIT_USAGE)


if __name__ == "__main__":
    try:
        main(*_arguments(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
