"""Runs requested by a run, between workers and the control plane.

`POST /api/v1/runs/<run id>/children` with a `ChildRequest`, authorised by the run's file token, starts one. The answer
is the run's events as NDJSON, to its end; `x-run-id` is its id. The same number, function and payload again return the
same run, which may have ended: a retry of the calling run finds what was done. `last-event-id` continues an interrupted
stream. `POST .../children/<child id>/cancel` cancels one. Every answer carries `CHILDREN_HEADER`: a server without it
runs no children.
"""

import msgspec

CHILDREN_ROUTE = "/api/v1/runs/{run_id}/children"
CANCEL_ROUTE = "/api/v1/runs/{run_id}/children/{child_id}/cancel"
CHILDREN_HEADER = "x-cozy-children"
RUN_ID_HEADER = "x-run-id"
MAX_DEPTH = 8  # of runs that call one another, including the first


class ChildRequest(msgspec.Struct, frozen=True):
    """`ref`: a function of the same release, or `[owner/]endpoint/function[:tag]`. `number` counts the calling run's
    requests, from 1. `timeout_ms`: what is left of its time, 0 for no limit.
    """

    ref: str
    number: int
    payload: msgspec.Raw
    timeout_ms: int = 0
