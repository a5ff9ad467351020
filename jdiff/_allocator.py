"""The C library's allocator, told to keep what a process frees.

XLA's CPU programs ask for their temporary memory at every call and give it back at its end. glibc
returns pieces of that size to the system, which hands them out again page by page, zeroed: a UNet's
training step pays a hundred thousand page faults for it. Kept, the memory is there.
"""

import ctypes
import sys

# Parameters of mallopt, from malloc.h, and what they are set to: no piece gets a mapping of its
# own, the end of the heap is given back beyond 2 GB only, all threads share one heap.
_KEEP = ((-4, 0), (-1, 2**31 - 1), (-8, 1))


def keep_memory() -> bool:
    """Changes this process for good, so that it belongs to programs and not to libraries.

    Returns:
      Whether the C library took it; others than glibc are left alone.
    """
    if not sys.platform.startswith("linux"):
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    return all([library.mallopt(name, value) == 1 for name, value in _KEEP])
