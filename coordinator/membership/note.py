"""What the live page says of a membership."""

from __future__ import annotations

from typing import NamedTuple


class Note(NamedTuple):
    """What is to be said where a membership is not as it is wanted. `refused`: by what the database says nothing is
    changed, until it takes the log's word."""

    words: str = ""
    refused: bool = False
