"""Where native code lies: what requests pass side by side, and what only errors reach out of their way.

Between two turns of a node the others, the client, Redis and the kernel have had the processor's caches, so a turn
costs what has to be fetched again, not what is computed (docs/performance.md, "Compiled"). mypyc puts the handling of
an error behind each call, and the linker puts functions where their modules stand: of 4.7 MB a request passes some
hundred kilobytes, a few bytes in each page. Three things bring these together, and change no instruction's meaning:

- functions that requests pass stand at one place, the most called ones first (`hot_functions.txt`, which
  `python -m bench.hot_functions` counts and writes);
- what handles errors is declared to be cold, so that the compiler moves it out of the functions (GCC, "Common Function
  Attributes");
- nothing is visible from outside but a module's entry, so that its functions call one another directly.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final, NamedTuple

HOT: Final = Path(__file__).with_name("hot_functions.txt")
"""C's names of functions, one a line, the most called ones first."""
COLD: Final = """\
#if defined(__has_include) && __has_include("CPy.h")
#include <Python.h>
#include "CPy.h"
#define COLD __attribute__((cold))
COLD static void CPy_DecRef(PyObject *);
COLD void CPyTagged_DecRef(CPyTagged);
COLD void CPy_AddTraceback(const char *, const char *, int, PyObject *);
COLD void CPy_TypeError(const char *, PyObject *);
COLD void CPy_TypeErrorTraceback(const char *, const char *, int, PyObject *, const char *, PyObject *);
COLD void CPy_AttributeError(const char *, const char *, const char *, const char *, int, PyObject *);
COLD void PyErr_SetString(PyObject *, const char *);
#undef COLD
#endif
"""
"""Of mypyc's own, as its `CPy.h` declares them. What takes a reference away is cold where it is a function of its own:
mypyc calls that where an error is handled, and else writes it out (`CPy_DECREF`)."""

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


class Flags(NamedTuple):
    """What the compiler and the linker are told."""

    compiler: tuple[str, ...] = ()
    linker: tuple[str, ...] = ()


def hot_functions(file: Path = HOT) -> list[str]:
    """Raises ValueError where a line is no name: they become part of a linker's script."""
    names = file.read_text().split()
    for name in names:
        if _NAME.fullmatch(name) is None:
            raise ValueError(f"{file}: expected names of C functions, one a line; got {name!r}")
    return names


def linker_script(names: list[str]) -> str:
    """Takes the functions of these names, and what the compiler made of them beside (`f.isra.0`), out of the rest.

    GNU ld's and lld's; of -ffunction-sections, where each function is a section of its own."""
    taken = "".join(f"    *(.text.{name} .text.{name}.*)\n" for name in names)
    return f"SECTIONS\n{{\n  .text.asked :\n  {{\n{taken}  }}\n}}\nINSERT BEFORE .text;\n"


def write(directory: Path) -> Flags:
    """Put into `directory` what the flags name, and give these."""
    cold, script = directory / "cold.h", directory / "hot.ld"
    cold.write_text(COLD)
    script.write_text(linker_script(hot_functions()))
    return Flags(
        compiler=("-fvisibility=hidden", "-ffunction-sections", "-include", str(cold)),
        linker=("-Wl,-z,now", f"-Wl,-T,{script}"),
    )


__all__ = ["HOT", "Flags", "hot_functions", "linker_script", "write"]
