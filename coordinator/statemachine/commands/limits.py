"""How much may be asked for, and the rights that there are."""

from __future__ import annotations

from typing import Final

TTL_MS_MIN: Final = 500
TTL_MS_MAX: Final = 86_400_000
WAIT_MS_MAX: Final = 3_600_000
VALUE_BYTES_MAX: Final = 1_048_576
LIST_LIMIT_MAX: Final = 1_000
ANY_ACQUISITION: Final = -1
KEY_BYTES: Final = 32
WANTED_BYTES_MAX: Final = 16 * 1024

READ: Final = "read"
WRITE: Final = "write"
LOCK: Final = "lock"
ADMINISTER: Final = "administer"
RIGHTS: Final = (READ, WRITE, LOCK, ADMINISTER)
