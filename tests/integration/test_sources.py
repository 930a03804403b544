"""Models of Hugging Face and of a hub, from servers on 127.0.0.1 into real caches."""

import json
import random
import struct
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.blob_server import BlobServer
from tests.fake_hub import COMMIT, FakeCozyHub, FakeHuggingFace, read_tree

from gen_worker.errors import CozyHubError, CozyHubNoCompatibleArtifactError, FatalError, ResourceError, RetryableError
from gen_worker.models.cas import tree_digest
from gen_worker.models.listing import Listing, RemoteFile
from gen_worker.models.progress import Progress
from gen_worker.models.provide import Sources, build_sources
from gen_worker.models.source import LocalModel, ModelWant
from gen_worker.refs import ModelSpec
from gen_worker.settings import ModelSettings

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
            (struct.pack("<Q", 1 << 40), "claims a header of"),
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
        with pytest.raises(FatalError, match="another content"):
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

    def test_models_that_share_files_fetch_them_once(self, server: BlobServer, env: dict[str, str]) -> None:
        hub = FakeCozyHub(server)
        shared, one, two = (random.Random(n).randbytes(1 << 20) for n in range(3))
        hub.add("cozy:demo/one:latest", {"vae/w": shared, "unet/w": one})
        hub.add("cozy:demo/two:latest", {"vae/w": shared, "unet/w": two, "again/w": two})
        found = sources(env, COZY_HUB_URL=server.url)
        for name in ("one", "two"):
            get(found, ModelWant(name, ModelSpec(f"demo/{name}")))
        assert server.sent_bytes - sum(server.sent.get(p, 0) for p in server.sent if not p.startswith("/blob/")) == 3 << 20


LISTED = "cozy:demo/listed:latest"


def listed(server: BlobServer, files: dict[str, bytes], change: Callable[[list[RemoteFile]], None] = lambda files: None) -> ModelWant:
    hub = FakeCozyHub(server)
    hub.add(LISTED, files)
    entries = [RemoteFile(str(f["path"]), int(str(f["size_bytes"])), str(f["blake3"]), str(f["url"])) for f in hub.files_of(LISTED)]
    change(entries)
    digest = tree_digest(Listing("", tuple(entries))) if not entries or entries[0].size_bytes >= 0 else "ab" * 32
    return ModelWant("listed", ModelSpec("demo/listed"), Listing(digest, tuple(entries)))


class TestListed:
    """Files that a scheduler has listed: also where the list is hostile."""

    def test_layout(self, server: BlobServer, env: dict[str, str], tmp_path: Path) -> None:
        files = {"a/w": b"1" * 5000, "b": b"", "c": b"1" * 5000}
        local = get(sources(env), listed(server, files))
        assert read_tree(local.path) == files
        assert local.path.parent == tmp_path / "cache/cas/snapshots"
        blobs = [path for path in (tmp_path / "cache/cas/blobs").rglob("*") if path.is_file()]
        assert len(blobs) == 2
        assert (local.path / "a/w").stat().st_ino == (local.path / "c").stat().st_ino

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("../../escape", "without '..'"),
            ("a/../../escape", "without '..'"),
            ("a//b", "expected a relative path"),
            ("a/./b", "expected a relative path"),
            ("bad\x00name", "expected a relative path"),
            ("x" * 300, "too long"),
            ("B", "differ only by case"),
            ("b/c", "is a file, and a folder in"),
        ],
    )
    def test_paths_that_lead_elsewhere_or_clash(
        self, server: BlobServer, env: dict[str, str], tmp_path: Path, name: str, message: str
    ) -> None:
        def change(files: list[RemoteFile]) -> None:
            files.append(RemoteFile(name, 1, "ab" * 32, server.url))

        with pytest.raises(FatalError, match=message):
            get(sources(env), listed(server, {"b": b"1"}, change))
        assert not (tmp_path / "escape").exists()
        assert server.requests == []

    def test_windows_paths_become_ours(self, server: BlobServer, env: dict[str, str]) -> None:
        assert set(read_tree(get(sources(env), listed(server, {"/a\\b": b"1"})).path)) == {"a/b"}

    def test_too_many_files(self, server: BlobServer, env: dict[str, str]) -> None:
        def change(files: list[RemoteFile]) -> None:
            files.extend(RemoteFile(f"f{n}", 0, "ab" * 32, server.url) for n in range(30_000))

        with pytest.raises(FatalError, match="at most 20000"):
            get(sources(env), listed(server, {"b": b"1"}, change))

    def test_wrong_digests_and_sizes(self, server: BlobServer, env: dict[str, str]) -> None:
        def other_digest(files: list[RemoteFile]) -> None:
            files[0] = RemoteFile("b", 3, "ab" * 32, files[0].url)

        def other_size(files: list[RemoteFile]) -> None:
            files[0] = RemoteFile("b", 4, files[0].digest, files[0].url)

        def no_digest(files: list[RemoteFile]) -> None:
            files[0] = RemoteFile("b", 3, "", files[0].url)

        def odd_digest(files: list[RemoteFile]) -> None:
            files[0] = RemoteFile("b", 3, "../../../x", files[0].url)

        cases = [(other_digest, "another content"), (other_size, "3 bytes at its source"), (no_digest, "no blake3"), (odd_digest, "digest")]
        for change, message in cases:
            with pytest.raises(FatalError, match=message):
                get(sources(env), listed(server, {"b": b"123"}, change))

    def test_a_snapshot_digest_that_is_no_digest(self, server: BlobServer, env: dict[str, str]) -> None:
        want = listed(server, {"b": b"1"})
        assert want.listing is not None
        broken = ModelWant(want.key, want.spec, Listing("../../x", want.listing.files))
        with pytest.raises((FatalError, ValueError), match="digest"):
            get(sources(env), broken)

    def test_a_disk_that_is_too_small_refuses_before_the_first_byte(self, server: BlobServer, env: dict[str, str]) -> None:
        with pytest.raises(ResourceError, match=r"disk_full: .* needs 0\.00 GB more"):
            get(sources(env, WORKER_MIN_FREE_DISK_GB="1000000"), listed(server, {"b": b"1"}))
        assert server.requests == []

    def test_expired_without_a_scheduler_to_ask(self, server: BlobServer, env: dict[str, str]) -> None:
        want = listed(server, {"b": b"1"})
        server.token = "2"
        with pytest.raises(RetryableError, match="have expired"):
            get(sources(env), want)


PROCESS = """
    import json, os, sys, threading
    from gen_worker.models.listing import Listing, RemoteFile
    from gen_worker.models.progress import Progress
    from gen_worker.models.provide import build_sources
    from gen_worker.models.source import ModelWant
    from gen_worker.refs import ModelSpec
    from gen_worker.settings import ModelSettings
    digest, files = json.loads(sys.stdin.read())
    source = build_sources(ModelSettings.from_env(os.environ), {}).source
    want = ModelWant("k", ModelSpec("demo/listed"), Listing(digest, tuple(RemoteFile(*f) for f in files)))
    print(source.fetch(want, Progress("m"), threading.Event()).path)
"""


def start(env: dict[str, str], want: ModelWant) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", textwrap.dedent(PROCESS)]
    process = subprocess.Popen(command, env={**env, "PATH": ""}, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    assert process.stdin is not None
    assert want.listing is not None
    files = [[f.path, f.size_bytes, f.digest, f.url] for f in want.listing.files]
    process.stdin.write(json.dumps([want.listing.digest, files]))
    process.stdin.close()
    return process


def test_four_processes_and_many_threads_fetch_once(server: BlobServer, env: dict[str, str]) -> None:
    files = {f"f{n}": random.Random(n).randbytes(3 << 20) for n in range(4)}
    want = listed(server, files)
    processes = [start(env, want) for _ in range(4)]
    results: list[LocalModel] = []
    threads = [threading.Thread(target=lambda: results.append(get(sources(env), want))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(process.wait() == 0 for process in processes)
    assert len(results) == 8
    assert server.sent_bytes == 12 << 20
    assert read_tree(results[0].path) == files


def test_a_process_that_dies_is_taken_over_from(server: BlobServer, env: dict[str, str], tmp_path: Path) -> None:
    data = random.Random(5).randbytes(24 << 20)
    want = listed(server, {"f": data})
    for blob in server.blobs.values():
        blob.chunk_pause_s = 0.01
    first = start(env, want)
    while server.sent_bytes < 8 << 20:
        assert first.poll() is None
    second = start(env, want)
    first.kill()
    first.wait()
    for blob in server.blobs.values():
        blob.chunk_pause_s = 0.0
    assert second.wait() == 0
    assert server.sent_bytes < len(data) * 1.5
    assert not list((tmp_path / "cache/cas").rglob("*.part*"))
    assert not list((tmp_path / "cache/cas/locks").glob("*.lock"))
