#!/usr/bin/env python3
"""Holds one thread of a running program still, while the others go on: freeze.py PID THREAD-NAME.

Prints `frozen` when it stands still, and lets it go when standard input ends.
"""
import ctypes
import os
import pathlib
import sys

ATTACH, DETACH, WALL = 16, 17, 0x40000000

process, wanted = sys.argv[1:]
tasks = pathlib.Path("/proc", process, "task")
thread = next(int(task.name) for task in tasks.iterdir() if (task / "comm").read_text().strip() == wanted)
libc = ctypes.CDLL(None, use_errno=True)
if libc.ptrace(ATTACH, thread, None, None) != 0:
    raise OSError(ctypes.get_errno(), "cannot hold thread %d (root may, and whoever kernel.yama.ptrace_scope lets)" % thread)
os.waitpid(thread, WALL)
print("frozen", flush=True)
sys.stdin.read()
libc.ptrace(DETACH, thread, None, None)
