"""Named tuples that are made without running Python code, where `make compile` could make native code for it.

`typing.NamedTuple` gives a class a constructor that is a function of Python. To a node, all else of which is compiled,
that is most of what the interpreter is run for: 32 times for one write. So its classes are given a constructor in C
(`_records.c`), which makes the same tuples; what it does not understand (arguments that are missing, or in another
order) it leaves to the one of Python. Where there is none, and from Python 3.14 on, all is as it was, and slower.
"""

from __future__ import annotations

import sys
from typing import Final

from coordinator import compiled

_NAME: Final = "coordinator._records"


def quicken(package: str) -> int:
    """Those of all modules of `package` that are imported by now; how many there are that can be made so."""
    native = compiled.native(_NAME)
    if native is None:
        return 0
    return sum(
        native.quicken(kind)
        for name, module in list(sys.modules.items())
        if name == package or name.startswith(f"{package}.")
        for kind in list(vars(module).values())
        if isinstance(kind, type)
        and kind.__module__ == name
        and kind.__bases__ == (tuple,)
        and hasattr(kind, "_field_defaults")
    )
