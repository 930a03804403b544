"""The port for workers, open for the node's whole life. Streams are served while this node leads, and redirected to the
leader otherwise.

    leading:                         the gateway serves the stream
    another leads and answers:       not_leader:<its address>
    nobody leads, or none answers:   the stream is held for a while; the next leader has the worker at once

Without that wait a worker would find no leader, wait longer from round to round, and come back seconds after the new
leader.
"""

import asyncio

from gen_orchestrator.scheduling.gateway import Gateway
from gen_orchestrator.scheduling.standing import Standing
from gen_worker.transport.grpc_server import GrpcServer, RejectError, ServerStream
from gen_worker.transport.stream import not_leader

HOLD_S = 15.0
LOOK_S = 0.5


class Door:
    """One for each node. `gateway` is that of this node's leadership, None while it is a standby."""

    def __init__(self, listen: str, standing: Standing) -> None:
        self._server = GrpcServer(self._serve, listen)
        self._standing = standing
        self._gateway: Gateway | None = None

    @property
    def port(self) -> int:
        return self._server.port

    async def start(self) -> None:
        """Listen; `OSError` when the address is not available."""
        await self._server.start()

    async def stop(self, grace_s: float | None = None) -> None:
        """End all streams and close the port. Workers keep what was not acknowledged."""
        await self._server.stop(grace_s)

    def lead_to(self, gateway: Gateway | None) -> None:
        """From now on, new streams and held ones go to this gateway."""
        self._gateway = gateway
        self._standing.tell()

    async def _serve(self, stream: ServerStream) -> None:
        loop = asyncio.get_running_loop()
        until_s = loop.time() + HOLD_S
        while self._gateway is None:
            leader = self._standing.leader
            if leader is not None and await self._standing.reachable(leader.address):
                raise RejectError(*not_leader(leader.address))
            if loop.time() > until_s:
                raise RejectError(*not_leader(""))
            await self._standing.changed(LOOK_S)
        await self._gateway.serve(stream)
