"""Streams of bytes between worker and scheduler: gRPC, and in memory for tests."""

import os

# The core of gRPC has handlers around every fork of the process: they touch what its own threads hold, and the child dies of it (SIGSEGV,
# SIGABRT), be it an author's `os.fork()` or a program of ours that is started. Nobody uses gRPC in a forked child.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
