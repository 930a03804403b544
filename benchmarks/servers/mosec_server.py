"""mosec: a Rust front, a Python process behind it. argv: --port N."""

from mosec import Server, Worker


class Echo(Worker):
    def forward(self, data: dict) -> dict:
        return {"text": data["prompt"]}


if __name__ == "__main__":
    server = Server()
    server.append_worker(Echo, num=1)
    server.run()
