"""Verbs that this distribution adds to cozyctl."""

import os

# gRPC's notes on forking would stand between the lines of the screen. It reads this when it is loaded, so it is set before.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
