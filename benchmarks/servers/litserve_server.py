"""LitServe. argv: port."""

import sys

import litserve


class Echo(litserve.LitAPI):
    def setup(self, device: str) -> None:
        return None

    def predict(self, request: dict) -> dict:
        return {"text": request["prompt"]}


if __name__ == "__main__":
    litserve.LitServer(Echo(api_path="/run"), accelerator="cpu").run(port=int(sys.argv[1]), log_level="warning", generate_client_file=False)
