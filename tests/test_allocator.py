"""What the allocator does with freed memory, counted in page faults of processes of their own."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import ctypes
import resource
from jdiff._allocator import keep_memory

assert not {keep} or keep_memory()
library, size = ctypes.CDLL(None), ctypes.c_size_t(2**26)  # 64 MB
library.malloc.restype = ctypes.c_void_p

def take():
    piece = ctypes.c_void_p(library.malloc(size))
    library.memset(piece, 1, size)
    library.free(piece)

faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
take()
before = faults()
for _ in range(20):
    take()
print((faults() - before) * resource.getpagesize() / 2**20)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library's allocator")
def test_freed_memory_is_kept():
    ask = lambda keep: subprocess.run(
        [sys.executable, "-c", PROGRAM.format(keep=keep)],
        capture_output=True,
        text=True,
        check=True,
    )
    plain, kept = (float(ask(keep).stdout) for keep in (False, True))
    # MB taken from the system anew: 20 times 64, and none but a little.
    assert plain > 640
    assert kept < 64
