"""Judges recorded histories: python -m tests.linearizability --model register|kv FILE… [--picture DIR]"""

from __future__ import annotations

import argparse
import gc
import io
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

from tests.linearizability import jepsen, porcupine_kv
from tests.linearizability.checker import Verdict, check
from tests.linearizability.history import Operation
from tests.linearizability.models import KeyValueModel, Model, RegisterModel
from tests.linearizability.picture import draw
from tests.linearizability.source import SourceError, numbered_lines
from tests.linearizability.window import find_window

ALL_LINEARIZABLE: Final = 0
SOME_NOT_LINEARIZABLE: Final = 1
BAD_INPUT: Final = 2
SOME_UNKNOWN: Final = 3

Parser = Callable[[Iterable[tuple[int, str]], str], tuple[Operation, ...]]

_STATUSES: Final = """\
For each file one line is printed, in the order given: FILE linearizable, or FILE not linearizable (with a time limit
also FILE unknown). What is wrong with a file that can not be judged goes to standard error, and the others are still
judged.

exit status:
  0  every file was judged, and is linearizable
  1  every file was judged, and at least one is not linearizable
  2  a file could not be read as a history of this model, a picture could not be written, or the arguments are wrong
  3  every file could be read, but for at least one the time limit came first
"""

FORMATS: Final[dict[str, tuple[Callable[[], Model], Parser]]] = {
    "register": (RegisterModel, jepsen.parse),
    "kv": (KeyValueModel, porcupine_kv.parse),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Judges the files named in the arguments and returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.linearizability",
        description="Judges whether recorded histories are linearizable.",
        epilog=_STATUSES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--model",
        required=True,
        choices=sorted(FORMATS),
        help="register: files as Jepsen logged them from etcd; kv: files in the format of Porcupine's test data",
    )
    parser.add_argument(
        "--picture",
        metavar="DIR",
        type=Path,
        help="for each file that is not linearizable, write DIR/NAME.svg: the window that can not be ordered",
    )
    parser.add_argument(
        "--time-limit-s", metavar="SECONDS", type=_seconds, help="give up on a file after so long (default: never)"
    )
    parser.add_argument("files", metavar="FILE", nargs="+")
    options = parser.parse_args(arguments)
    # Millions of small tuples live long here, and none of them forms a cycle.
    gc.disable()
    status = ALL_LINEARIZABLE
    for number, name in enumerate(options.files, start=1):
        picture = None
        if options.picture is not None:
            # Files of one name from several directories have pictures of their own.
            is_again = any(Path(earlier).name == Path(name).name for earlier in options.files[: number - 1])
            picture = options.picture / (Path(name).name + (f".{number}.svg" if is_again else ".svg"))
        status = max(status, _judge(name, options.model, picture, options.time_limit_s), key=_rank)
    return status


def _judge(name: str, model_name: str, picture: Path | None, time_limit_s: float | None) -> int:
    new_model, parse = FORMATS[model_name]
    model = new_model()
    try:
        operations = parse(numbered_lines(name), name)
    except SourceError as error:
        print(error, file=sys.stderr, flush=True)
        return BAD_INPUT
    outcome = check(model, operations, time_limit_s=time_limit_s)
    print(f"{name} {outcome.verdict.value}", flush=True)
    if outcome.verdict is Verdict.UNKNOWN:
        return SOME_UNKNOWN
    if outcome.verdict is Verdict.LINEARIZABLE:
        return ALL_LINEARIZABLE
    if picture is not None:
        assert outcome.bad_key is not None
        drawing = draw(find_window(model, operations, outcome.bad_key), title=Path(name).name)
        try:
            picture.parent.mkdir(parents=True, exist_ok=True)
            picture.write_text(drawing, encoding="utf-8")
        except OSError as error:
            print(f"{picture}: {error.strerror or error}", file=sys.stderr, flush=True)
            return BAD_INPUT
    return SOME_NOT_LINEARIZABLE


def _rank(status: int) -> int:
    """Which status stands for a whole run: the worst that happened to any file."""
    return (ALL_LINEARIZABLE, SOME_NOT_LINEARIZABLE, SOME_UNKNOWN, BAD_INPUT).index(status)


def _seconds(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"expected more than 0 seconds, got {text}")
    return value


if __name__ == "__main__":
    for stream in (sys.stdout, sys.stderr):
        # A file name need not be text: it is printed as it was given.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="surrogateescape")
    sys.exit(main())
