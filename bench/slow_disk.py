"""A slower disk, for what is linked with libc: a library, loaded first, in which fdatasync and fsync take longer.

Ours is one that keeps its promise in 0.1 ms. Disks of clouds take 1 to 10, and what pays off there does not show here.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

VARIABLE: Final = "LD_PRELOAD"

SOURCE: Final = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>

static int later(const char *name, int file)
{
    int (*sync)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    int result = sync(file);
    struct timespec time = {SLOWER_US / 1000000, SLOWER_US % 1000000 * 1000L};
    nanosleep(&time, 0);
    return result;
}

int fdatasync(int file) { return later("fdatasync", file); }
int fsync(int file) { return later("fsync", file); }
"""


@contextmanager
def slower(directory: Path, slower_us: int) -> Iterator[None]:
    """For processes that are begun meanwhile the disk takes so much longer; 0: as long as ever. Raises RuntimeError
    where the library, which goes into `directory`, cannot be built."""
    if not slower_us:
        yield
        return
    before = os.environ.get(VARIABLE)
    library = _build(directory, slower_us)
    os.environ[VARIABLE] = f"{library}:{before}" if before else str(library)
    try:
        yield
    finally:
        del os.environ[VARIABLE]
        if before is not None:
            os.environ[VARIABLE] = before


def _build(directory: Path, slower_us: int) -> Path:
    source, library = directory / "slow_disk.c", directory / "slow_disk.so"
    if {*str(library)} & {*" \t:"}:
        raise RuntimeError(f"a slower disk needs a directory without blanks and colons in its path; came {directory}")
    source.write_text(SOURCE, encoding="utf-8")
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")[0]
    command = [compiler, "-shared", "-fPIC", f"-DSLOWER_US={slower_us}", str(source), "-o", str(library), "-ldl"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise RuntimeError(f"a slower disk needs a C compiler: {error}") from error
    if done.returncode:
        raise RuntimeError(f"{shlex.join(command)}: {done.stderr.strip()}")
    return library
