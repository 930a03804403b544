"""gen-orchestrator: the control plane. It keeps runs, sends each to the worker that will answer soonest, and keeps releases and tags."""

__version__ = "0.2.0"
