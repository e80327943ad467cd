"""Files of recorded histories: read within bounds, decoded, and cut into numbered lines; and what is wrong with one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

FILE_BYTES_MAX: Final = 512 * 1024 * 1024
"""A longer file is refused before it fills the memory."""


class SourceError(ValueError):
    """A file can not be read as a history. The message begins with the file, and the line where there is one."""

    def __init__(self, name: str, line: int, problem: str) -> None:
        place = f"{name}, line {line}" if line else name
        super().__init__(f"{place}: {problem}")
        self.name = name
        self.line = line
        """From 1; 0 where the whole file is meant."""
        self.problem = problem


def numbered_lines(name: str) -> Iterator[tuple[int, str]]:
    """The lines of the file of that name, from 1, without their ends.

    Raises SourceError if there is no such file, it is too long, or a line is not UTF-8.
    """
    read = 0
    try:
        with Path(name).open("rb") as file:
            for number, raw in enumerate(iter(lambda: file.readline(FILE_BYTES_MAX + 1), b""), start=1):
                read += len(raw)
                if read > FILE_BYTES_MAX:
                    raise SourceError(name, 0, f"longer than {FILE_BYTES_MAX} bytes")
                try:
                    text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    raise SourceError(name, number, f"not UTF-8 text ({error.reason} at byte {error.start})") from None
                yield number, text.rstrip("\r\n")
    except OSError as error:
        raise SourceError(name, 0, error.strerror or str(error)) from None
    except ValueError as error:
        if isinstance(error, SourceError):
            raise
        raise SourceError(name, 0, str(error)) from None
