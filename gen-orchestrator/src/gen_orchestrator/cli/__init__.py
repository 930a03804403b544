"""Verbs that this distribution adds to cozyctl."""

import os

# gRPC's notes on forking would stand between the lines of the screen. It reads this when it is loaded, so it is set before.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
# Its handlers around a fork touch locks that its own threads hold: workers, which are started by fork and exec, died of it before their
# first line, now and then. Nobody here uses gRPC in a forked child.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
