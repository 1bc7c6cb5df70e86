"""Keep a process that runs for weeks from growing by the holes that large arrays leave behind."""

from __future__ import annotations

import ctypes

M_MMAP_THRESHOLD = -3  # malloc.h
LARGE = 128 * 1024  # bytes: glibc's own bound as a process starts


def map_large_blocks() -> None:
    """Have glibc map every large block by itself, so that it goes back to the system once freed.

    As it comes, glibc raises the bound to the largest block ever freed. Arrays that move on to new
    memory then leave holes in the heap that the next ones do not fit into. A C library without
    `mallopt` is left as it is.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGE)
