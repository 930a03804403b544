"""Runs that a run asks for, between workers and the control plane.

`POST /api/v1/runs/<run id>/children`, with the run's file token, asks for one by a `ChildRequest`. The answer is the run's events as
NDJSON, to its end; `x-run-id` is its id. The same number, function and payload again give the same run, which may have ended, so a retry
of the run that asks finds what was done. `last-event-id` goes on where a stream was cut. `POST .../children/<child id>/cancel` stops one.
Every answer carries `CHILDREN_HEADER`: a server without it runs no children.
"""

import msgspec

CHILDREN_ROUTE = "/api/v1/runs/{run_id}/children"
CANCEL_ROUTE = "/api/v1/runs/{run_id}/children/{child_id}/cancel"
CHILDREN_HEADER = "x-cozy-children"
RUN_ID_HEADER = "x-run-id"
MAX_DEPTH = 8  # runs that call one another, the first one included


class ChildRequest(msgspec.Struct, frozen=True):
    """`ref`: a function of the same release, or `[owner/]endpoint/function[:tag]`. `number` counts what the run asks for, from 1.
    `timeout_ms`: what is left of its time, 0 for no limit."""

    ref: str
    number: int
    payload: msgspec.Raw
    timeout_ms: int = 0
