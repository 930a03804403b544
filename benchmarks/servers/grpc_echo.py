"""A bare grpc.aio bidi echo: the floor under everything that travels over such a stream. Prints its port."""

import asyncio

import grpc
import grpc.aio


async def echo(_: object, context: grpc.aio.ServicerContext) -> None:
    while (data := await context.read()) is not grpc.aio.EOF:
        await context.write(data)


async def main() -> None:
    server = grpc.aio.server()
    handler = grpc.stream_stream_rpc_method_handler(echo)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Echo", {"Echo": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main())
