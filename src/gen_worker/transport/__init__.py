"""Streams of messages between worker and scheduler: over gRPC, and in memory for tests."""

import os

# gRPC's core registers handlers for every fork of the process. They touch state of its own threads, and the child
# crashes (SIGSEGV, SIGABRT), whether it is an author's `os.fork()` or a program that we start. Nobody uses gRPC in a
# forked child, so its fork support is off.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
