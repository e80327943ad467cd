"""What the programs of `bench/` take on their command lines, refused before anything is started; and how they end.

Each function here makes of a word what it stands for, or says what was expected: it is the `type` of an option.
"""

from __future__ import annotations

import argparse
import math
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Final

CUT_OFF: Final = 128 + signal.SIGINT
"""The status of a program that was ended before it was done."""


def some_of(known: Iterable[str], what: str) -> Callable[[str], list[str]]:
    """Words with commas between them, each once."""
    known = [*known]

    def names(text: str) -> list[str]:
        chosen = [part for part in text.split(",") if part]
        if not chosen or not {*chosen} <= {*known}:
            raise argparse.ArgumentTypeError(f"expected {what} of {', '.join(known)}; came {text!r}")
        return [*dict.fromkeys(chosen)]

    return names


def numbers(text: str) -> list[int]:
    """Whole numbers above 0 with commas between them, each once."""
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or min(found) < 1:
        raise argparse.ArgumentTypeError(f"expected whole numbers of 1 or more, such as 1,16,64; came {text!r}")
    return [*dict.fromkeys(found)]


def at_least(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        try:
            found = int(text)
        except ValueError:
            found = least - 1
        if found < least:
            raise argparse.ArgumentTypeError(f"expected a whole number of {least} or more; came {text!r}")
        return found

    return number


positive: Final = at_least(1)


def seconds(text: str) -> float:
    """A span: anything shorter holds no figure."""
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not 0.1 <= found < math.inf:
        raise argparse.ArgumentTypeError(f"expected seconds, 0.1 or more; came {text!r}")
    return found


def cells(works: Iterable[str]) -> Callable[[str], list[tuple[str, int]]]:
    """Works and their callers: `lock:64,write:1`."""
    works = [*works]

    def pairs(text: str) -> list[tuple[str, int]]:
        found = []
        for part in text.split(","):
            work, _, callers = part.partition(":")
            if work not in works or not callers.isascii() or not callers.isdecimal() or int(callers) < 1:
                raise argparse.ArgumentTypeError(
                    f"expected a work of {', '.join(works)} and its callers, such as lock:64; came {part!r}"
                )
            found.append((work, int(callers)))
        return found

    return pairs


def file_to_write(text: str) -> Path:
    """Where it cannot be written, that is better known before a run of minutes than behind it."""
    path = Path(text).absolute()
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"expected a file that can be written; came {text!r}")
    return path


def directory(text: str) -> Path:
    """Absolute: servers run in a directory of their own."""
    return Path(text).absolute()


@contextmanager
def ended_tidily() -> Iterator[None]:
    """Meanwhile SIGTERM and a hang-up of the terminal (where that is not ignored, as by nohup) end this program as
    Ctrl-C does: what it started is stopped, and its directories are removed."""

    def end(_number: int, _frame: FrameType | None) -> None:
        for each in before:
            signal.signal(each, signal.SIG_IGN)  # What ends here is not to be cut off, too.
        raise KeyboardInterrupt

    before = {
        number: signal.getsignal(number)
        for number in (signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    for number in before:
        signal.signal(number, end)
    try:
        yield
    except KeyboardInterrupt:
        print("cut off", file=sys.stderr)
        raise SystemExit(CUT_OFF) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
