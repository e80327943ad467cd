"""How a member of a group says what it can do: in the first line of its content, before its data.

    #capabilities gpu ssd
    4 cores

A content that does not begin so is all data, of a member that says nothing of capabilities: so a content from before
them reads as ever, and who knows nothing of them sees one more line that tells a person what it is. Data that itself
begins so has an empty such line before it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from coordinator.client.errors import InvalidRequest

CAPABILITIES_MAX: Final = 64
"""Of one member."""
_WORD: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/+=-]{0,63}")
_HEAD: Final = b"#capabilities"


def checked(capabilities: Iterable[str]) -> frozenset[str]:
    """Raises InvalidRequest, saying what was expected and what came."""
    if isinstance(capabilities, str):
        raise InvalidRequest(f"capabilities are a collection of words, such as {{'gpu'}}, got {capabilities!r}")
    found = frozenset(capabilities)
    for word in found:
        if not isinstance(word, str) or not _WORD.fullmatch(word):
            raise InvalidRequest(
                f"a capability is a word of 1 to 64 letters, digits and any of ._:/+=- (at first a letter or digit), "
                f"got {word!r}"
            )
    if len(found) > CAPABILITIES_MAX:
        raise InvalidRequest(f"a member has at most {CAPABILITIES_MAX} capabilities, got {len(found)}")
    return found


def joined(capabilities: frozenset[str], data: bytes) -> bytes:
    """The content of a member."""
    if not capabilities and not data.startswith(_HEAD):
        return data
    return b"\n".join((b" ".join((_HEAD, *(word.encode() for word in sorted(capabilities)))), data))


def parted(content: bytes) -> tuple[frozenset[str], bytes]:
    """What a member can do, and its data."""
    line, _, data = content.partition(b"\n")
    words = line.split(b" ")
    if words[0] != _HEAD:
        return frozenset(), content
    # It need not have been written by `joined`: what is no capability is left out, and shown to nobody's terminal.
    said = (word.decode("utf-8", "replace") for word in words[1:])
    return frozenset(word for word in said if _WORD.fullmatch(word)), data
