"""mosec: a Rust front, a Python process behind it; typed as ours is, by msgspec. argv: --port N."""

import msgspec
from mosec import Server, Worker


class Input(msgspec.Struct):
    prompt: str


class Output(msgspec.Struct):
    text: str


decode = msgspec.json.Decoder(Input).decode
encode = msgspec.json.Encoder().encode


class Echo(Worker):
    def deserialize(self, data: bytes) -> Input:
        return decode(data)

    def serialize(self, data: Output) -> bytes:
        return encode(data)

    def forward(self, data: Input) -> Output:
        return Output(data.prompt)


if __name__ == "__main__":
    server = Server()
    server.append_worker(Echo, num=1)
    server.run()
