"""The command line: locks, keys, files and what is made of them, from a shell.

    python -m coordinator.client lock deploy -- ./deploy.sh          run a command under a lock
    python -m coordinator.client lock reports --shared -- ./read.sh  together with others; or --count N, --also NAME
    python -m coordinator.client locks show|check|break|breaks …     who holds it; sequencers; take it away
    python -m coordinator.client locks watch START                   who comes to hold locks, and who wants them
    python -m coordinator.client elect boss host-1 -- ./lead.sh      run a command as the elected leader
    python -m coordinator.client leader|observe NAME                 who leads; each value that is proclaimed
    python -m coordinator.client get|put|delete|add KEY              keys and counters
    python -m coordinator.client files get|put|stat|rm|mkdir|ls …    files and directories
    python -m coordinator.client files range|rm-range|watch START    many keys; each change as it is made
    python -m coordinator.client files compact REVISION              give up the history before a revision
    python -m coordinator.client transact FILE|-                     all of it or nothing, from JSON
    python -m coordinator.client queue put|take|size NAME            items that are done at least once
    python -m coordinator.client group ls|join NAME                  who is there
    python -m coordinator.client barrier close|open|wait NAME        wait for somebody
    python -m coordinator.client double-barrier NAME N ME -- ./work  run a command together with others
    python -m coordinator.client status                              who leads, and how each replica is
    python -m coordinator.client members                             who is a member, and how far each has come
    python -m coordinator.client transfer|compact NODE               hand over to a node; snapshot a node now
    python -m coordinator.client step-down                           have the leader give up its leadership

It reads CONCLAVE_URL and CONCLAVE_TOKEN, as `manage.py token NAME` prints them.
"""

from __future__ import annotations

import argparse
import signal
import sys
from types import FrameType
from typing import Final

from coordinator.client import Client, ConclaveError, Deadlock, InvalidRequest, LeaseLost, LockNotAcquired
from coordinator.client.command_line import filing, locking, operating, output, together, transacting
from coordinator.client.command_line.running import EXIT_LEASE_LOST
from coordinator.client.errors import Aborted, Busy, Changed, Compacted, Exists, NotEmpty, NotFound, WrongKind
from coordinator.client.options import DEFAULT_TIMEOUT_S

EXIT_NOT_DONE: Final = 1
"""Not as things are now: there is none, or one already, or another than was expected."""
EXIT_USAGE: Final = 2
EXIT_FAILED: Final = 69
"""The cluster refused or did not answer (EX_UNAVAILABLE)."""
EXIT_NOT_WRITTEN: Final = 74
"""What it was told could not be printed, or what it was to be given not be read (EX_IOERR)."""
EXIT_NOT_ACQUIRED: Final = 75
"""Somebody else holds the lock (EX_TEMPFAIL)."""

_ANOTHER: Final = "\0--"
"""In place of a `--` that is no end of options, while options are parsed: nothing that is given holds a NUL."""

_STATUS_OF: Final[tuple[tuple[type[ConclaveError], int], ...]] = (
    (LockNotAcquired, EXIT_NOT_ACQUIRED),
    (Deadlock, EXIT_NOT_ACQUIRED),
    (LeaseLost, EXIT_LEASE_LOST),
    (InvalidRequest, EXIT_USAGE),
    (NotFound, EXIT_NOT_DONE),
    (Exists, EXIT_NOT_DONE),
    (Changed, EXIT_NOT_DONE),
    (NotEmpty, EXIT_NOT_DONE),
    (WrongKind, EXIT_NOT_DONE),
    (Compacted, EXIT_NOT_DONE),
    (Aborted, EXIT_NOT_DONE),
    (ConclaveError, EXIT_FAILED),
)
"""The first that fits."""


def main(arguments: list[str] | None = None) -> int:
    try:
        output.prepare()
        try:
            options = _parsed(sys.argv[1:] if arguments is None else arguments)
            with Client(cluster=options.cluster, timeout=options.timeout) as client:
                status: int = options.run(client, options)
                return status
        finally:
            sys.stdout.flush()  # Here, where it can be said that it was not written.
    except ConclaveError as error:
        output.say(f"conclave: {error}{_when(error)}")
        return next(status for kind, status in _STATUS_OF if isinstance(error, kind))
    except BrokenPipeError:
        output.drop(sys.stdout)  # Nobody reads on; nor is that an error of ours.
        return 128 + signal.SIGPIPE
    except OSError as error:
        output.drop(sys.stdout)
        output.say(f"conclave: input or output failed: {error.strerror or error}")
        return EXIT_NOT_WRITTEN
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _parsed(given: list[str]) -> argparse.Namespace:
    """The first `--` ends the options. Those behind it are the command's own, as in `lock NAME -- git checkout -- F`,
    and argparse would leave out some."""
    begins = given.index("--") + 1 if "--" in given else len(given)
    behind = [_ANOTHER if each == "--" else each for each in given[begins:]]
    options = _parser().parse_args([*given[:begins], *behind])
    for name, value in vars(options).items():
        if value == _ANOTHER:
            setattr(options, name, "--")
        elif isinstance(value, list):
            setattr(options, name, ["--" if each == _ANOTHER else each for each in value])
    return options


def _when(error: ConclaveError) -> str:
    """In words, when it may be asked again, where that is known."""
    if isinstance(error, Busy) and error.retry_after is not None:
        return f"; nothing was done, ask again in {error.retry_after:.1f} seconds"
    return ""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m coordinator.client", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--cluster", default="default", help="which (default: %(default)s)")
    parser.add_argument(
        "--timeout",
        type=float,
        default=DEFAULT_TIMEOUT_S,
        help="seconds that a question may take (default: %(default)g)",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for subject in (locking, filing, transacting, together, operating):
        subject.add_to(commands)
    return parser


def _leave(number: int, frame: FrameType | None) -> None:
    """Not without a word: whoever is in a line, or in anything else, is out of it at once."""
    raise SystemExit(128 + number)


if __name__ == "__main__":
    for ends in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(ends) is signal.SIG_DFL:
            signal.signal(ends, _leave)
    sys.exit(main())
