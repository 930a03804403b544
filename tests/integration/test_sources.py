"""Models from Hugging Face and from a hub, from servers on 127.0.0.1 into real caches."""

import json
import random
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.blob_server import BlobServer
from tests.fake_hub import COMMIT, FakeCozyHub, FakeHuggingFace, FakeOldHub, read_tree

from gen_worker.content.progress import Progress
from gen_worker.errors import CozyHubError, CozyHubNoCompatibleArtifactError, FatalError, RetryableError
from gen_worker.refs import ModelSpec
from gen_worker.settings import ModelSettings
from gen_worker.sources.build import Sources, build_sources
from gen_worker.sources.source import LocalModel, ModelWant

DIGITS = Path(__file__).parents[2] / "examples/models/digits-sd"
REF = "hf:demo/digits"


@pytest.fixture
def server() -> Iterator[BlobServer]:
    with BlobServer() as server:
        yield server


@pytest.fixture
def env(server: BlobServer, tmp_path: Path) -> dict[str, str]:
    return {
        "TENSORHUB_CACHE_DIR": str(tmp_path / "cache"),
        "HF_HOME": str(tmp_path / "hf"),
        "HF_ENDPOINT": server.url,
        "WORKER_MIN_FREE_DISK_GB": "0.01",
        "HF_TOKEN": "",
    }


def sources(env: dict[str, str], **more: str) -> Sources:
    return build_sources(ModelSettings.from_env({**env, **more}), {})


def get(found: Sources, want: ModelWant) -> LocalModel:
    return found.source.present(want) or found.source.fetch(want, Progress(want.model_id), threading.Event())


def hf(ref: str = REF, dtypes: tuple[str, ...] = ("fp16", "bf16")) -> ModelWant:
    return ModelWant("digits", ModelSpec(ref, dtypes))


def weights(size: int = 64, dtype: str = "F16", seed: int = 1) -> bytes:
    """A safetensors file with one tensor."""
    body = random.Random(seed).randbytes(size * (4 if dtype == "F32" else 2))
    header = json.dumps({"w": {"dtype": dtype, "shape": [size], "data_offsets": [0, len(body)]}}).encode()
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header + body


class TestHuggingFace:
    def test_a_real_pipeline_lands_where_other_tools_look(self, server: BlobServer, env: dict[str, str], tmp_path: Path) -> None:
        hub = pytest.importorskip("huggingface_hub")
        files = read_tree(DIGITS) | {"unet/diffusion_pytorch_model.bin": b"pickle" * 10_000, "README.md": b"# digits"}
        repo = FakeHuggingFace(server, "demo/digits", files)
        local = get(sources(env), hf(dtypes=("fp32", "fp16")))
        have = read_tree(local.path)
        assert have == {path: data for path, data in read_tree(DIGITS).items() if "/" in path or path == "model_index.json"}
        assert local.path == tmp_path / f"hf/hub/models--demo--digits/snapshots/{COMMIT}"
        found = hub.snapshot_download("demo/digits", cache_dir=tmp_path / "hf/hub", local_files_only=True)
        assert Path(found) == local.path
        assert not any("bin" in path for path in server.sent)
        # The second time nobody is asked, also by a process that has never seen the first one.
        requests, listings = len(server.requests), repo.listings
        assert get(sources(env), hf(dtypes=("fp32", "fp16"))).path == local.path
        assert (len(server.requests), repo.listings) == (requests, listings)

    @pytest.mark.parametrize("small", [True, False])
    def test_a_flipped_byte_of_what_we_fetched_is_not_served(self, server: BlobServer, env: dict[str, str], small: bool) -> None:
        FakeHuggingFace(server, "demo/digits", read_tree(DIGITS))
        want = hf(dtypes=("fp32", "fp16"))
        local = get(sources(env), want)
        path = local.path / ("model_index.json" if small else "unet/diffusion_pytorch_model.safetensors")
        right = path.read_bytes()
        with path.open("r+b") as file:
            file.write(bytes([right[0] ^ 1]))
        found = sources(env)
        assert found.source.present(want) is None
        assert (get(found, want).path / path.relative_to(local.path)).read_bytes() == right
        assert sources(env).source.present(want) is not None

    def test_what_another_tool_has_fetched_is_used_as_it_is(self, server: BlobServer, env: dict[str, str], tmp_path: Path) -> None:
        snapshot = tmp_path / f"hf/hub/models--demo--digits/snapshots/{COMMIT}"
        snapshot.parent.mkdir(parents=True)
        (tmp_path / "hf/hub/models--demo--digits/refs").mkdir()
        (tmp_path / "hf/hub/models--demo--digits/refs/main").write_text(COMMIT)
        import shutil

        shutil.copytree(DIGITS, snapshot)
        found = sources(env).source.present(hf(dtypes=("fp32", "fp16")))
        assert found is not None
        assert found.path == snapshot
        shutil.rmtree(snapshot / "vae")
        assert sources(env).source.present(hf(dtypes=("fp32", "fp16"))) is None
        assert server.requests == []

    def test_float32_is_not_taken_unless_it_is_listed(self, server: BlobServer, env: dict[str, str]) -> None:
        FakeHuggingFace(server, "demo/digits", read_tree(DIGITS))
        with pytest.raises(FatalError, match=r'comes in fp32, allowed are fp16, bf16\. Allow it with dtypes = \["fp32"\]'):
            get(sources(env), hf())
        assert get(sources(env, COZY_HF_WEIGHT_PRECISIONS="fp16,fp32"), hf()).path.is_dir()

    def test_the_wanted_precision_of_several(self, server: BlobServer, env: dict[str, str]) -> None:
        half, brain, full = weights(dtype="F16"), weights(dtype="BF16"), weights(dtype="F32")
        files = {"config.json": b"{}", "model.safetensors": full, "model.fp16.safetensors": half, "model.bf16.safetensors": brain}
        FakeHuggingFace(server, "demo/one", files)
        assert (get(sources(env), hf("hf:demo/one", ("bf16", "fp16"))).path / "model.bf16.safetensors").read_bytes() == brain
        assert (get(sources(env), hf("hf:demo/one", ("fp16",))).path / "model.fp16.safetensors").read_bytes() == half

    @pytest.mark.parametrize("index", ["model.safetensors.index.fp16.json", "model.fp16.safetensors.index.json"])
    def test_shards_come_complete(self, server: BlobServer, env: dict[str, str], index: str) -> None:
        shards = [f"model.fp16-0000{n}-of-00002.safetensors" for n in (1, 2)]
        content = json.dumps({"weight_map": {"a": shards[0], "b": shards[1]}}).encode()
        files = {"config.json": b"{}", index: content, **{name: weights(seed=n) for n, name in enumerate(shards)}}
        FakeHuggingFace(server, "demo/shards", files)
        assert set(read_tree(get(sources(env), hf("hf:demo/shards")).path)) == set(files)
        del files[shards[1]]
        FakeHuggingFace(server, "demo/torn", files)
        with pytest.raises(FatalError, match=f"names '{shards[1]}', which the repository lacks"):
            get(sources(env), hf("hf:demo/torn"))

    def test_a_model_and_its_tokenizer_are_of_one_version(self, server: BlobServer, env: dict[str, str]) -> None:
        files = {"config.json": b"{}", "model.safetensors": weights(), "tokenizer.json": b"{}", "onnx/model.onnx": b"o"}
        hub = FakeHuggingFace(server, "demo/both", files)
        spec = ModelSpec("hf:demo/both")
        model = get(sources(env), ModelWant("m", spec, takers=("transformers.AutoModel",)))
        assert set(read_tree(model.path)) == {"config.json", "model.safetensors"}
        tokenizer = get(sources(env), ModelWant("m", spec, takers=("transformers.AutoTokenizer",)))
        assert set(read_tree(tokenizer.path)) == {"config.json", "model.safetensors", "tokenizer.json"}
        assert (tokenizer.path, hub.listings) == (model.path, 1), "the newest version is not asked for again in between"
        offline = sources(env, HF_HUB_OFFLINE="ON")
        both = ModelWant("m", spec, takers=("transformers.AutoModel", "transformers.AutoTokenizer"))
        assert offline.source.present(both) is not None, "all of it has come for other uses"
        assert offline.source.present(ModelWant("m", spec, takers=("onnxruntime.InferenceSession",))) is None
        ((ref, _, listing),) = offline.hf.inventory()
        assert (ref, len(listing.files)) == (f"hf:demo/both@{COMMIT}", 3)
        # The version is gone at its source.
        for path in files:
            del server.blobs[f"/cdn/demo/both/{path}"]
        with pytest.raises(FatalError, match="404"):
            get(sources(env), ModelWant("m", spec, takers=("onnxruntime.InferenceSession",)))
        assert hub.listings == 2

    def test_private_and_gated_repositories(self, server: BlobServer, env: dict[str, str]) -> None:
        files = {"config.json": b"{}", "model.safetensors": weights()}
        FakeHuggingFace(server, "demo/private", files, token="hf_secret")
        with pytest.raises(FatalError, match="set HF_TOKEN"):
            get(sources(env), hf("hf:demo/private"))
        assert get(sources(env, HF_TOKEN="hf_secret"), hf("hf:demo/private")).path.is_dir()
        FakeHuggingFace(server, "demo/gated", files, token="other", gated=True)
        with pytest.raises(FatalError, match="accept its terms") as refused:
            get(sources(env, HF_TOKEN="hf_secret"), hf("hf:demo/gated"))
        assert "hf_secret" not in str(refused.value)

    def test_unknown_names_and_no_network(self, server: BlobServer, env: dict[str, str]) -> None:
        FakeHuggingFace(server, "demo/one", {"config.json": b"{}", "model.safetensors": weights()})
        with pytest.raises(FatalError, match="no revision 'nine'"):
            get(sources(env), hf("hf:demo/one@nine"))
        with pytest.raises(FatalError, match="no such repository"):
            get(sources(env), hf("hf:demo/absent"))
        with pytest.raises(RetryableError, match="--model digits=FOLDER"):
            get(sources(env, HF_ENDPOINT="http://127.0.0.1:9"), hf())
        with pytest.raises(FatalError, match="HF_HUB_OFFLINE"):
            get(sources(env, HF_HUB_OFFLINE="1"), hf())

    def test_other_kinds_of_repositories(self, server: BlobServer, env: dict[str, str]) -> None:
        gguf = {"a.Q4_K_M.gguf": b"GGUF4", "a.Q8_0.gguf": b"GGUF8", "config.json": b"{}"}
        FakeHuggingFace(server, "demo/gguf", gguf)
        assert set(read_tree(get(sources(env), hf("hf:demo/gguf", ("int8",))).path)) == {"a.Q8_0.gguf", "config.json"}
        with pytest.raises(FatalError, match="say which"):
            get(sources(env), hf("hf:demo/gguf"))
        FakeHuggingFace(server, "demo/onnx", {"onnx/model.onnx": b"o", "onnx/model_quantized.onnx": b"q", "tokenizer.json": b"{}"})
        assert set(read_tree(get(sources(env), hf("hf:demo/onnx")).path)) == {"onnx/model.onnx", "tokenizer.json"}
        FakeHuggingFace(server, "demo/lora", {"pytorch_lora_weights.safetensors": weights(), "README.md": b""})
        assert set(read_tree(get(sources(env), hf("hf:demo/lora")).path)) == {"pytorch_lora_weights.safetensors"}
        FakeHuggingFace(server, "demo/pickle", {"config.json": b"{}", "pytorch_model.bin": b"p"})
        with pytest.raises(FatalError, match=r"no \.safetensors weights \(it has pytorch_model\.bin, a pickle"):
            get(sources(env), hf("hf:demo/pickle"))

    @pytest.mark.parametrize(
        ("head", "message"),
        [
            (struct.pack("<Q", 1 << 40), "its header claims"),
            (struct.pack("<Q", 8) + b"not json", "not JSON"),
            (struct.pack("<Q", 2) + b"{}", "its tensors take 0 bytes"),
            (struct.pack("<Q", 64) + b'{"w":{"dtype":"F16","shape":[9999999999],"data_offsets":[0,8]}}'.ljust(64), "does not take 8 bytes"),
            (struct.pack("<Q", 64) + b'{"w":{"dtype":"F16","shape":[4],"data_offsets":[-8,0]}}'.ljust(64), "is described as"),
        ],
    )
    def test_header_bombs(self, server: BlobServer, env: dict[str, str], head: bytes, message: str) -> None:
        FakeHuggingFace(server, "demo/bomb", {"config.json": b"{}", "model.safetensors": head + bytes(50)})
        with pytest.raises(FatalError, match=message):
            get(sources(env), hf("hf:demo/bomb"))

    def test_lies_about_content_are_found(self, server: BlobServer, env: dict[str, str]) -> None:
        data = weights(40_000)
        FakeHuggingFace(server, "demo/lie", {"config.json": b"{}", "model.safetensors": data})
        server.blobs["/cdn/demo/lie/model.safetensors"].data = data[:-1] + bytes([data[-1] ^ 1])
        with pytest.raises(FatalError, match="does not match its digest"):
            get(sources(env), hf("hf:demo/lie"))


class TestHub:
    def test_pending_then_there_then_never_asked_again(self, server: BlobServer, env: dict[str, str]) -> None:
        hub = FakeCozyHub(server, token="cozy-secret")
        files = read_tree(DIGITS)
        hub.add("cozy:demo/digits:latest", files)
        hub.pending["cozy:demo/digits:latest"] = 1
        settings = {"COZY_HUB_URL": server.url, "COZY_HUB_TOKEN": "cozy-secret"}
        want = ModelWant("digits", ModelSpec("demo/digits", ("bf16",)))
        local = get(sources(env, **settings), want)
        assert read_tree(local.path) == files
        assert hub.asked[0]["constraints"]["dtypes"] == ["bf16"]  # type: ignore[index]
        downloads = [headers for (_, path, _), headers in zip(server.requests, server.headers, strict=True) if path.startswith("/blob/")]
        assert downloads
        assert all("authorization" not in headers for headers in downloads)
        asked = len(hub.asked)
        assert get(sources(env), want).path == local.path
        assert len(hub.asked) == asked

    def test_owners_share_files_but_each_asks_whether_it_may_have_them(self, server: BlobServer, env: dict[str, str]) -> None:
        hub = FakeCozyHub(server, token="cozy-secret")
        hub.add("cozy:demo/digits:latest", read_tree(DIGITS))
        settings = {"COZY_HUB_URL": server.url, "WORKER_ALLOW_COZY_HUB_API_RESOLVE": "1"}
        of_one = sources(env, **settings, COZY_HUB_TOKEN="cozy-secret", COZY_MODELS_OWNER="one")
        want = ModelWant("digits", ModelSpec("demo/digits"))
        local = get(of_one, want)
        of_two = sources(env, **settings, COZY_MODELS_OWNER="two")
        assert of_two.source.present(want) is None
        with pytest.raises(CozyHubError, match=r"refused|sign in"):
            get(of_two, want)
        sent = server.sent_bytes
        allowed = sources(env, **settings, COZY_HUB_TOKEN="cozy-secret", COZY_MODELS_OWNER="two")
        assert get(allowed, want).path == local.path
        assert server.sent_bytes - sent < 64 << 10, "only the list of files"
        asked = len(hub.asked)
        assert get(of_two, want).path == local.path
        assert len(hub.asked) == asked

    def test_another_precision_is_another_resolution(self, server: BlobServer, env: dict[str, str]) -> None:
        hub = FakeCozyHub(server)
        found = sources(env, COZY_HUB_URL=server.url)
        for precision in ("bf16", "fp16"):
            hub.add("cozy:demo/m:latest", {"w": precision.encode()})  # what the hub answers to this question
            local = get(found, ModelWant("m", ModelSpec("demo/m", (precision,))))
            assert (local.path / "w").read_text() == precision
        assert (get(found, ModelWant("m", ModelSpec("demo/m", ("bf16",)))).path / "w").read_text() == "bf16"
        assert len(hub.asked) == 2
        found.cas.forget("cozy:demo/m:latest")
        assert list(found.cas.inventory()) == []

    def test_refusals(self, server: BlobServer, env: dict[str, str]) -> None:
        hub = FakeCozyHub(server, token="cozy-secret")
        with pytest.raises(FatalError, match="orchestrator-resolved URLs are required"):
            get(sources(env), ModelWant("a", ModelSpec("demo/a")))
        with pytest.raises(CozyHubError, match="sign in; set COZY_HUB_TOKEN"):
            get(sources(env, COZY_HUB_URL=server.url), ModelWant("a", ModelSpec("demo/a")))
        server.routes["/api/v1/public/models/request"] = lambda exchange: exchange.reply(409, {"debug": {"have": "fp32"}, "error": "none"})
        with pytest.raises(CozyHubNoCompatibleArtifactError) as refused:
            get(sources(env, COZY_HUB_URL=server.url), ModelWant("a", ModelSpec("demo/a")))
        assert refused.value.debug == {"have": "fp32"}
        assert hub.asked

    def test_hf_refs_ask_the_hub_first_and_hugging_face_next(self, server: BlobServer, env: dict[str, str]) -> None:
        hub = FakeCozyHub(server)
        repo = FakeHuggingFace(server, "demo/one", {"config.json": b"{}", "model.safetensors": weights()})
        local = get(sources(env, COZY_HUB_URL=server.url), hf("hf:demo/one"))
        assert (len(hub.asked), repo.listings) == (1, 1)
        assert local.version == COMMIT
        hub.add("hf:demo/two", {"model.safetensors": weights(seed=2)})
        assert "cas" in get(sources(env, COZY_HUB_URL=server.url), hf("hf:demo/two")).path.parts

    def test_addresses_expire_in_the_middle(self, server: BlobServer, env: dict[str, str]) -> None:
        hub = FakeCozyHub(server)
        data = random.Random(1).randbytes(12 << 20)
        hub.add("cozy:demo/big:latest", {"big": data})
        path = next(path for path in server.blobs if path.startswith("/blob/"))
        server.blobs[path].cut_after = 1 << 20
        server.blobs[path].chunk_pause_s = 0.005

        def expire() -> None:
            while server.sent.get(path, 0) < 4 << 20:
                pass
            server.token = "2"

        thread = threading.Thread(target=expire)
        thread.start()
        local = get(sources(env, COZY_HUB_URL=server.url), ModelWant("big", ModelSpec("demo/big")))
        thread.join()
        assert (local.path / "big").read_bytes() == data
        assert server.sent[path] == len(data)
        assert len(hub.asked) == 2

    @pytest.mark.parametrize("pinned", [False, True])
    @pytest.mark.parametrize("knows_artifacts", [False, True])
    def test_older_hubs_are_asked_their_way(self, server: BlobServer, env: dict[str, str], pinned: bool, knows_artifacts: bool) -> None:
        files = read_tree(DIGITS)
        hub = FakeOldHub(server, files, knows_artifacts=knows_artifacts)
        settings = {"COZY_HUB_URL": server.url, "WORKER_ALLOW_COZY_HUB_API_RESOLVE": "1"}
        ref = f"demo/digits@blake3:{hub.digest}" if pinned else "demo/digits"
        want = ModelWant("digits", ModelSpec(ref, ("bf16",)))
        local = get(sources(env, **settings), want)
        assert read_tree(local.path) == files
        assert [body["tag"] for body in hub.asked] == (["latest"] if knows_artifacts and not pinned else [])
        sent = server.sent_bytes
        assert get(sources(env), want).path == local.path  # found by its digest, or by what the tag last meant
        assert server.sent_bytes == sent

    def test_older_hubs_that_do_not_know_the_model_or_lie(self, server: BlobServer, env: dict[str, str]) -> None:
        settings = {"COZY_HUB_URL": server.url, "WORKER_ALLOW_COZY_HUB_API_RESOLVE": "1"}
        with pytest.raises(CozyHubError, match="HTTP 404"):
            get(sources(env, **settings), ModelWant("a", ModelSpec("demo/unknown")))
        hub = FakeOldHub(server, read_tree(DIGITS))
        with pytest.raises(CozyHubError, match="names no digest"):
            get(sources(env, **settings), ModelWant("a", ModelSpec("demo/digits:other")))
        hub.files = {f"../{path}": data for path, data in hub.files.items()}
        with pytest.raises(FatalError, match=r"without '\.\.'"):
            get(sources(env, **settings), ModelWant("a", ModelSpec("demo/digits")))
        with pytest.raises(FatalError, match="orchestrator-resolved URLs are required"):
            get(sources(env, COZY_HUB_URL=server.url), ModelWant("a", ModelSpec(f"demo/digits@blake3:{hub.digest}")))

    def test_models_that_share_files_fetch_them_once(self, server: BlobServer, env: dict[str, str]) -> None:
        hub = FakeCozyHub(server)
        shared, one, two = (random.Random(n).randbytes(1 << 20) for n in range(3))
        hub.add("cozy:demo/one:latest", {"vae/w": shared, "unet/w": one})
        hub.add("cozy:demo/two:latest", {"vae/w": shared, "unet/w": two, "again/w": two})
        found = sources(env, COZY_HUB_URL=server.url)
        for name in ("one", "two"):
            get(found, ModelWant(name, ModelSpec(f"demo/{name}")))
        assert server.sent_bytes - sum(server.sent.get(p, 0) for p in server.sent if not p.startswith("/blob/")) == 3 << 20
