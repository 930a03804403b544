"""Loading, swapping and drawing on a real GPU: ceilings first, then ours against others. Prints Markdown, writes one JSON beside it.

python benchmarks/gpu_models.py [--only loads,swaps,runs,memory] [--device cuda] [--models sd15,sdxl,flux] [--budget-s 450] [--json FILE]
python benchmarks/gpu_models.py --tiny --device cpu       # the CPU form of each figure, in a minute; `make bench` runs it

Weights are random and made on the spot (the UNets of SD 1.5 and SDXL, 1.7 and 5 GB, FLUX's transformer of 24 GB). fastsafetensors, flashpack,
InstantTensor and runai-model-streamer are compared where they are installed. What the budget has no time for is left out, and said.
"""

import argparse
import asyncio
import io
import json
import os
import platform
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import diffusers
import torch
from gpu_bench import Bench, control
from gpu_ceilings import Machine
from gpu_peers import peers
from gpu_runs import compare, make_pipeline

from gen_worker.content.measured import Measurements
from gen_worker.content.progress import Progress
from gen_worker.log import Log
from gen_worker.residency.accounting import ModelCache
from gen_worker.residency.device import PinnedBuffer, TorchDevice
from gen_worker.residency.host_tier import HostTier
from gen_worker.residency.loaders.base import LoadControl
from gen_worker.residency.loaders.skeletons import Skeletons
from gen_worker.residency.loaders.weights import build_ahead, load_module, load_tensors, loaded_bytes
from gen_worker.residency.loads import Residency
from gen_worker.residency.reader import ReadCanceledError

PARTS = ("loads", "swaps", "runs", "memory")


class Models(Bench):
    """What is measured, part by part."""

    # Loading

    def loads(self, names: Sequence[str]) -> None:
        machine = Machine(self.device, self.folder, tiny=self.tiny)
        copy_rate, disk_rate, cache_rate = machine.short()
        self.found["ceilings"] = {"to_device_GB_s": copy_rate, "disk_GB_s": disk_rate, "page_cache_GB_s": cache_rate}
        print(
            "\n## Loading\n\nSeconds. `first`: the module is built meanwhile; `ahead`: it was built before; `again`: it was kept. `bytes` is what the bytes take alone.\n"
        )
        print(
            "| model | GB | tensors | cold | cache: bytes | first | ahead | again | pinned: bytes | again |\n|---|---|---|---|---|---|---|---|---|---|"
        )
        rows = []
        for name in names:
            if not self.has_time({"flux": 60}.get(name, 20), f"loads of {name}"):
                continue
            kind, folder = self.make(name)
            files = self.files(folder)
            paths = [file.path for file in files]
            size = sum(path.stat().st_size for path in paths)
            row = {
                "model": name,
                "GB": size / 1e9,
                "tensors": sum(len(file.entries) for file in files),
                "cache_bytes_s": self.best(partial(load_tensors, files, self.place, control())),
                "cache_first_s": self.best(partial(self.load, kind, folder)),
                "cache_ahead_s": self._ahead(kind, folder),
                "cache_again_s": self._again(kind, folder, self.place),
                "cold_s": self.timed(partial(self.load, kind, folder), first=partial(_forget, paths)),
            }
            if self.cuda:
                pinned = TorchDevice(self.device, HostTier(size * 2, PinnedBuffer))
                load_tensors(files, pinned, control())
                row["pinned_bytes_s"] = self.best(partial(load_tensors, files, pinned, control()))
                row["pinned_again_s"] = self._again(kind, folder, pinned)
            self.place.collect()
            cells = [f"{row.get(key, float('nan')):.3f}" for key in COLUMNS]
            print(f"| {name} | {row['GB']:.2f} | {row['tensors']} | {' | '.join(cells)} |", flush=True)
            rows.append(row)
            self.found["loads"] = rows
            if name != "flux" and self.has_time(10, f"bits of {name}"):
                self.bits(kind, folder)
        for row in rows:
            if self.has_time(40 if row["model"] == "flux" else 20, f"peers with {row['model']}"):
                self.rivals(row)

    def _again(self, kind: Any, folder: Path, place: TorchDevice) -> float:
        skeletons = Skeletons()
        self.load(kind, folder, skeletons, place)

        def evict() -> None:
            skeletons.strip(folder.name)
            self.place.collect()

        evict()
        return self.best(lambda: self.load(kind, folder, skeletons, place), first=evict, count=5)

    def _ahead(self, kind: Any, folder: Path) -> float:
        """A first load whose module was built before, as a worker does it while nothing runs."""
        held: list[Skeletons] = []

        def build() -> None:
            held[:] = [Skeletons()]
            build_ahead(partial(self.recipe, kind, folder), lambda: 0, folder.name, held[0])

        return self.best(lambda: self.load(kind, folder, held[0]), first=build, count=4)

    def rivals(self, row: dict[str, Any]) -> None:
        """Seconds of other ways, page cache hot, as multiples of our first load."""
        kind, folder = self.make(row["model"])
        paths = [file.path for file in self.files(folder)]
        found: dict[str, Any] = {}
        for name, work in peers(kind, folder, paths, self.device, self.dtype(row["model"])).items():
            try:
                self.timed(work)
                found[name] = self.best(work, 1 if row["GB"] > 10 else 2)
            except ImportError:
                found[name] = "not installed"
            except Exception as exc:  # noqa: BLE001 - of another's code; the others are still to be measured
                found[name] = f"{type(exc).__name__}: {str(exc)[:80]}"
        (folder / "model.flashpack").unlink(missing_ok=True)
        row["peers_s"] = found
        cells = [
            f"{name} {value / row['cache_first_s']:.2f}" if isinstance(value, float) else f"{name}: {value}"
            for name, value in found.items()
        ]
        print(f"\n{row['model']}, page cache hot, seconds / our first load ({row['cache_first_s']:.3f} s): {'; '.join(cells)}", flush=True)

    def bits(self, kind: Any, folder: Path) -> None:
        """Where the weights lie, and whether one step gives the library's own bits."""
        ours = self.load(kind, folder)
        addresses = [tensor.data_ptr() for tensor in ours.parameters()]
        from gen_worker.residency.loaders.diffusers import _dtype_option

        theirs = kind.from_pretrained(folder, **{_dtype_option(): self.dtype(folder.name)}).to(self.device).eval()
        for parameter in () if self.cuda else theirs.parameters():
            parameter.data = (
                parameter.data.clone()
            )  # safetensors maps the file, at odd addresses, where the CPU's kernels round differently
        edge = 128 if self.tiny else 512
        same = all(torch.equal(self.step(ours, edge, seed), self.step(theirs, edge, seed)) for seed in range(2))
        aligned = sum(address % 256 == 0 for address in addresses)
        found = {"tensors": len(addresses), "at_multiples_of_256": aligned, "same_bits_as_the_library": same}
        print(f"\n{folder.name}: {aligned} of {len(addresses)} weights at multiples of 256 bytes; the library's bits in one step: {same}\n")
        self.found.setdefault("bits", {})[folder.name] = found

    # Swaps

    def swaps(self, name: str, count: int) -> None:
        kind, folder = self.make(name)
        files = self.files(folder)
        size = loaded_bytes(files, self.dtype(name).itemsize)
        places = {"page cache": self.place}
        if self.cuda:
            places["pinned"] = TorchDevice(self.device, HostTier(size * 2, PinnedBuffer))
        print("\n## Swaps\n")
        for where, place in places.items():
            if not self.has_time(20, f"swaps from {where}"):
                continue
            load_tensors(files, place, control())
            bytes_s = self.best(lambda place=place: load_tensors(files, place, control()), 5)
            place.collect()
            before = place.memory().free_bytes
            seconds, held, apart = asyncio.run(self._swap(kind, folder, place, size, count, before))
            found = {"p50_s": statistics.median(seconds[4:]), "bytes_s": bytes_s, "books_GB": held / 1e9, "apart_GB": apart / 1e9}
            found["beyond_bytes_ms"] = (found["p50_s"] - bytes_s) * 1000
            self.found.setdefault("swaps", {})[where] = found
            print(
                f"{count} alternating loads of {name} from {where}: p50 {found['p50_s']:.4f} s, its bytes alone {bytes_s:.4f} s, "
                f"beyond them {found['beyond_bytes_ms']:.1f} ms; books and device {apart / 1e9:.3f} GB apart.",
                flush=True,
            )

    async def _swap(self, kind: Any, folder: Path, place: TorchDevice, size: int, count: int, before: int) -> tuple[list[float], int, int]:
        skeletons = Skeletons()
        cache = ModelCache(max_vram_gb=size * 1.5 / 1e9)
        residency = Residency(cache, lambda: place, Measurements(None), Log(io.StringIO()), skeletons=skeletons)
        plans = [self.plan(kind, folder, f"m{number}", size, skeletons, place) for number in range(2)]
        seconds = []
        for number in range(count):
            plan = plans[number % 2]
            began = time.perf_counter()
            await residency.load(f"m{number % 2}#m", plan, Progress("m"), threading.Event())
            self.sync()
            seconds.append(time.perf_counter() - began)
            residency.release_load(plan)
        held = cache.ledger.used_bytes
        place.collect()
        apart = (before - place.memory().free_bytes - held) if self.cuda else 0
        for number in range(2):
            cache.unload_model(f"m{number}#m")
        residency.forget_dropped()
        residency.close()
        return seconds, held, apart

    # Runs

    def runs(self, scratch: Path) -> None:
        print("\n## Runs\n")
        self.beside()
        if not self.has_time(60, "hot runs over the dev runner"):
            return
        folder = make_pipeline(self.folder / "pipeline", self.device, tiny=self.tiny)
        edge, rounds = (64, 15) if self.tiny else (512, 9)
        found = compare(folder, self.device, scratch, steps=20, edge=edge, rounds=rounds)
        self.note(
            "hot_run",
            found,
            f"20 steps of {edge} px, hot: over HTTP {found['over_the_runner_s']:.4f} s, the pipeline by hand {found['by_hand_s']:.4f} s, "
            f"ratio {found['ratio']:.3f}; the same bits: {found['same_bits']}.\n"
            f"From starting the process to `listening` {found['ready_s']:.2f} s, to the first picture {found['first_picture_s']:.2f} s; "
            f"by hand {found['first_picture_by_hand_s']:.2f} s.",
        )

    def beside(self) -> None:
        """A function, alone and while models load: on a GPU a step of SDXL, else Python code that never releases the interpreter's lock.

        A machine's speed changes from one second to the next, so the two are measured in turns: the load stands still for every other one.
        """
        kind, folder = self.make("sdxl")
        unet = self.load(kind, folder) if self.cuda else None

        def work() -> Any:
            return self.step(unet, 1024) if self.cuda else sum(number * number for number in range(6_000_000))

        big = self.folder / "big"
        if not self.cuda:
            _write_gigabyte(big, 256 if self.tiny else 1024)
        skeletons, may_go, ended = Skeletons(), threading.Event(), threading.Event()

        def working() -> int:
            may_go.wait()
            return 0 if ended.is_set() else 1

        moved_bytes = beside_s = 0.0

        def moved(size_bytes: int) -> None:
            nonlocal moved_bytes
            moved_bytes += size_bytes
            may_go.wait()

        control = LoadControl(moved, ended, working=working)
        recipe = self.recipe(kind, folder)

        def reload() -> None:
            if not self.cuda:
                load_tensors(self.files(big), self.place, control)
            load_module(recipe, self.place, control, "other", skeletons)
            skeletons.strip("other")

        def first() -> None:
            load_module(recipe, self.place, control, "new", Skeletons())

        def again_and_again(load: Callable[[], None]) -> None:
            with suppress(ReadCanceledError):
                while not ended.is_set():
                    load()

        self.best(work)
        results = {}
        for name, load in (("reloads", reload), ("first loads", first)):
            ended.clear()
            thread = threading.Thread(target=again_and_again, args=(load,))
            thread.start()
            ratios = []
            for _ in range(30 if self.cuda else 5):
                may_go.clear()
                time.sleep(0.02)  # until what is being read and copied has come to its end
                alone = self.timed_plainly(work)
                may_go.set()
                time.sleep(0.004)
                seconds = self.timed_plainly(work)
                ratios.append(seconds / alone)
                beside_s += seconds
            ended.set()
            thread.join()
            results[name] = statistics.median(ratios)
        what = "A step of SDXL takes" if self.cuda else "A function that never releases the interpreter's lock takes"
        text = " and ".join(f"{value:.2f} times as long beside {name}" for name, value in results.items())
        rate = moved_bytes / beside_s / 1e9
        self.note("beside_a_load", {**results, "GB_s": rate}, f"{what} {text}; the loads read {rate:.1f} GB/s meanwhile.")

    # Memory

    def memory(self) -> None:
        kind, folder = self.make("sdxl")
        print("\n## Memory\n\n| one step of SDXL | peak beyond weights GB | s |\n|---|---|---|")
        unet = self.load(kind, folder)
        peaks = {}
        for edge in (128,) if self.tiny else (512, 1024):
            if self.cuda:
                torch.cuda.reset_peak_memory_stats(self.device)
                held = torch.cuda.memory_allocated(self.device)
            self.step(unet, edge)
            seconds = self.timed(partial(self.step, unet, edge))
            peaks[edge] = (torch.cuda.max_memory_allocated(self.device) - held) / 1e9 if self.cuda else 0.0
            print(f"| {edge} | {peaks[edge]:.2f} | {seconds:.4f} |", flush=True)
        self.found["peaks_GB"] = peaks
        unet = None
        if self.cuda:
            asyncio.run(self._out_of_memory(kind, folder))

    async def _out_of_memory(self, kind: Any, folder: Path) -> None:
        """A ballast that the ledger does not know of. Two models are idle; one of them would do."""
        self.place.collect()
        size = loaded_bytes(self.files(folder), 2)
        cache = ModelCache(max_vram_gb=size * 4 / 1e9)
        residency = Residency(cache, lambda: self.place, Measurements(None), Log(io.StringIO()), skeletons=Skeletons())
        for number in range(2):
            plan = self.plan(kind, folder, f"m{number}", size, residency.skeletons, self.place)
            await residency.load(f"m{number}#m", plan, Progress("m"), threading.Event())
            residency.release_load(plan)
        self.place.collect()
        ballast = torch.empty(max(0, self.place.memory().free_bytes - size // 2), dtype=torch.uint8, device=self.device)
        plan = self.plan(kind, folder, "m2", size, residency.skeletons, self.place)
        await residency.load("m2#m", plan, Progress("m"), threading.Event())
        left = len(cache.get_vram_models())
        self.note("out_of_memory", {"failed": residency.ooms, "models_left": left},
                  f"\nOut of memory with two models idle: {residency.ooms} failed allocation, then loaded; {left} models are on the device (best: 2).")  # fmt: skip
        del ballast
        residency.close()


COLUMNS = ("cold_s", "cache_bytes_s", "cache_first_s", "cache_ahead_s", "cache_again_s", "pinned_bytes_s", "pinned_again_s")


def _write_gigabyte(folder: Path, mib: int) -> None:
    """A weight file of this size."""
    from safetensors.torch import save_file

    if not folder.exists():
        folder.mkdir()
        save_file({f"t{number}": torch.zeros(16 << 20, dtype=torch.uint8) for number in range(mib // 16)}, folder / "model.safetensors")


def _forget(files: list[Path]) -> None:
    """Have the page cache drop these files."""
    for path in files:
        fd = os.open(path, os.O_RDONLY)
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where weights are made; default: a temporary one")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--models", default="sd15,sdxl,flux")
    parser.add_argument("--only", default=",".join(PARTS), help="some of " + ", ".join(PARTS))
    parser.add_argument("--budget-s", type=float, default=450)
    parser.add_argument("--json", type=Path, default=Path("gpu_models.json"))
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    parts = options.only.split(",")
    if unknown := set(parts) - set(PARTS):
        parser.error(f"--only {','.join(sorted(unknown))}: expected some of {', '.join(PARTS)}")
    name = torch.cuda.get_device_name(options.device) if options.device.startswith("cuda") else platform.machine()
    versions = {"torch": torch.__version__, "diffusers": diffusers.__version__, "python": platform.python_version()}
    print(f"{name}, {os.cpu_count()} processors; " + ", ".join(f"{key} {value}" for key, value in versions.items()), flush=True)
    with tempfile.TemporaryDirectory(prefix="gen-worker-gpu-") as scratch:
        bench = Models(options.device, options.folder or Path(scratch), tiny=options.tiny, budget_s=options.budget_s)
        bench.found.update(device=name, processors=os.cpu_count(), versions=versions)
        steps: dict[str, Callable[[], Any]] = {
            "loads": lambda: bench.loads(options.models.split(",")),
            "swaps": lambda: bench.swaps("sdxl", 44),
            "runs": lambda: bench.runs(Path(scratch)),
            "memory": bench.memory,
        }
        for part in parts:
            try:
                if bench.has_time(20, part):
                    steps[part]()
            except Exception as exc:  # noqa: BLE001 - a part that fails must not cost the time that the others took
                bench.note(f"failed_{part}", repr(exc), f"\n{part} failed: {exc!r}")
            options.json.write_text(json.dumps(bench.found, indent=1))


if __name__ == "__main__":
    main()
