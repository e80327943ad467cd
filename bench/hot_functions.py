"""Count which compiled functions requests pass, and write coordinator/hot_functions.txt (coordinator/native_layout.py).

    python -m bench.hot_functions [--calls 500] [--seconds 3]

Takes two and a half minutes and GCC with its gcov. A copy of the project is compiled so that it counts, `bench.compare`
drives it as it drives any, and what was called at least `--calls` times is written, the most called ones first. To be
run when the way of a request has changed: a function that is not in the list is as right, and stands among the seldom
ones.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).parents[1]))  # So that it also starts as a file.

from bench.options import ended_tidily, positive, seconds
from coordinator import compiled, native_layout

LOAD: Final = ("--peers", "conclave", "--works", "lock,write,read,handover", "--callers", "1,16,64", "--rounds", "1")
KEEP_COUNTS: Final = """\
#include <pthread.h>
#include <unistd.h>
extern void __gcov_dump(void);
extern void __gcov_reset(void);
static void *keep(void *unused)
{
    for (;;) { sleep(2); __gcov_dump(); __gcov_reset(); }
    return unused;
}
__attribute__((constructor)) static void start(void)
{
    pthread_t thread;
    pthread_create(&thread, NULL, keep, NULL);
}
"""
"""A node that is killed writes nothing at its end, so what was counted is written as it goes."""
BUILD: Final = """\
import sys
from pathlib import Path
from coordinator import compiled, compiling
from coordinator.native_layout import Flags
making = Path(sys.argv[1])
compiling.compile_into(making, Flags(("--coverage",), ("--coverage", "-pthread", sys.argv[2])))
compiled.BUILDS.mkdir(parents=True)
(making / "lib").rename(compiled.BUILDS / compiled.digest())
for name in compiling.EXTENSIONS:
    compiling.build_extension(name, compiled.EXTENSIONS)
"""


def calls_of(reports: Iterable[dict[str, Any]]) -> Counter[str]:
    """How often each function was called, of gcov's reports as JSON. One that stands in many files counts as one."""
    calls: Counter[str] = Counter()
    for report in reports:
        for file in report["files"]:
            for function in file["functions"]:
                calls[function["name"]] += function["execution_count"]
    return calls


def hottest(calls: Counter[str], calls_min: int) -> list[str]:
    """The most called ones first; of as many calls by name, so that the same counts give the same list."""
    return sorted((name for name, count in calls.items() if count >= calls_min), key=lambda name: (-calls[name], name))


def count(directory: Path, span_s: float) -> Counter[str]:
    """Raises subprocess.CalledProcessError where it can not be compiled, driven, or counted."""
    copy, making = directory / "copy", directory / "making"
    shutil.copytree(compiled.PROJECT, copy, ignore=shutil.ignore_patterns("var", ".venv", ".git", "__pycache__"))
    making.mkdir()
    (directory / "keep.c").write_text(KEEP_COUNTS)
    keep = directory / "keep.o"
    subprocess.run(["gcc", "-fPIC", "-c", str(directory / "keep.c"), "-o", str(keep)], check=True)
    subprocess.run([sys.executable, "-c", BUILD, str(making), str(keep)], cwd=copy, check=True)
    subprocess.run(
        [sys.executable, "-m", "bench.compare", *LOAD, "--seconds", str(span_s), "--directory", str(directory)],
        cwd=copy,
        check=True,
    )
    counted = sorted(map(str, making.rglob("*.gcda")))
    told = subprocess.run(
        ["gcov", "--json-format", "--stdout", *counted], cwd=directory, capture_output=True, text=True, check=True
    )
    return calls_of(json.loads(line) for line in told.stdout.splitlines() if line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=positive, default=500, metavar="N", help="fewer are few (500)")
    parser.add_argument("--seconds", type=seconds, default=3.0, help="of each span")
    options = parser.parse_args()
    with ended_tidily(), tempfile.TemporaryDirectory(prefix="conclave-hot-") as directory:
        names = hottest(count(Path(directory), options.seconds), options.calls)
    native_layout.HOT.write_text("".join(f"{name}\n" for name in names))
    print(f"{len(names)} functions: {native_layout.HOT}; now compile again (make compile)")


if __name__ == "__main__":
    main()
