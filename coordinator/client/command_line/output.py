"""What is printed: values as they are, everything else a line each, as text or as JSON."""

from __future__ import annotations

import argparse
import base64
import io
import json
import os
import sys
from typing import Any, TextIO

import msgspec

from coordinator.client.errors import InvalidRequest
from coordinator.client.events import FailOver
from coordinator.statemachine.files import ChangeView, FileContent, KeyView
from coordinator.statemachine.lock_commands import CONFLICT, LockEvent


def prepare() -> None:
    """Whatever is printed can be: also by an output of few characters, and by none at all."""
    if sys.stdout is None:  # It was closed before.
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - to the end of the program
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def drop(stream: TextIO) -> None:
    """What is left to be printed there can not be, and the end of the program is not to fail of that."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def say(text: str) -> None:
    """To whoever looks on; where nobody can, the status has to do."""
    if sys.stderr is None:  # It was closed before; and nowhere is standard output to `print`.
        return
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        drop(sys.stderr)


def given() -> bytes:
    """All of the standard input. Raises InvalidRequest where there is none."""
    if sys.stdin is None:
        raise InvalidRequest('"-" is what comes at the standard input, which is closed')
    return sys.stdin.buffer.read()


def value_of(argument: str) -> bytes:
    """A value as it was given; "-": from standard input."""
    return given() if argument == "-" else os.fsencode(argument)


def number(least: int) -> Any:
    """An argument that is a whole number from `least` on."""

    def parse(text: str) -> int:
        try:
            found = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"expected a whole number, got {text!r}") from None
        if found < least:
            raise argparse.ArgumentTypeError(f"expected a whole number from {least} on, got {text}")
        return found

    return parse


def write_value(value: bytes) -> None:
    """As it is, with nothing behind it."""
    sys.stdout.buffer.write(value)
    sys.stdout.buffer.flush()


def as_text(value: bytes | None) -> str:
    """On one line: what is no text, and line breaks, are escaped."""
    if value is None:
        return ""
    text = value.decode("utf-8", "backslashreplace")
    return text.encode("unicode_escape").decode() if not text.isprintable() else text


def line(plain: str, values: dict[str, Any], *, as_json: bool) -> None:
    """At once, since what follows may be long in coming."""
    print(json.dumps(values) if as_json else plain, flush=True)


def key(view: KeyView) -> dict[str, Any]:
    """For JSON; values in base64, as over HTTP."""
    return {
        "key": view.key,
        "value": as_base64(view.value),
        "revision": view.revision,
        "version": view.version,
        "instance": view.instance,
        "directory": view.directory,
        "ephemeral": view.ephemeral,
    }


def content(found: FileContent) -> dict[str, Any]:
    """The same of a file with its stat."""
    stat = msgspec.structs.asdict(found.stat)
    stat["checksum"] = f"{found.stat.checksum:016x}"
    stat["sessions"] = [f"s{session}" for session in found.stat.sessions]
    return {"value": as_base64(found.value), "stat": stat}


def as_base64(value: bytes | None) -> str | None:
    """For JSON."""
    return None if value is None else base64.b64encode(value).decode()


def change(told: ChangeView, *, as_json: bool, previous: bool = False) -> None:
    """`previous`: with what was there before; in plain text behind the rest."""
    done = "delete" if told.after is None else "put"
    plain = f"{told.revision} {done} {told.key} {as_text(told.after.value if told.after else None)}".rstrip()
    after = None if told.after is None else key(told.after)
    values = {"revision": told.revision, "key": told.key, "after": after}
    if previous:
        values["before"] = None if told.before is None else key(told.before)
        plain += " (new)" if told.before is None else f" (was {as_text(told.before.value)})"
    line(plain, values, as_json=as_json)


def lock_event(told: LockEvent | FailOver, *, as_json: bool) -> None:
    if isinstance(told, FailOver):
        values: dict[str, Any] = {"kind": "fail-over", "leader": told.leader, "term": told.term}
        line(f"fail-over: {told.leader} leads in term {told.term}", values, as_json=as_json)
        return
    holder = told.holder
    what = f"token {told.token}" if told.kind != CONFLICT else "waits" if told.waits else "was refused"
    plain = f"{told.revision} {told.kind} {told.name} {holder.principal} session {holder.session} {told.mode} {what}"
    values = {
        "revision": told.revision,
        "kind": told.kind,
        "name": told.name,
        "session": f"s{holder.session}",
        "acquisition": holder.acquisition,
        "principal": holder.principal,
        "mode": told.mode,
        "token": told.token,
        "waits": told.waits,
    }
    line(plain, values, as_json=as_json)
