"""Verbs that this distribution adds to cozyctl."""

import os

# gRPC's messages about forking would get between the lines of the screen. It reads this variable when it is imported,
# so it is set before.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
