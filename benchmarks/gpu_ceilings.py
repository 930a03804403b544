"""What this machine can do at most, without any of our code: copies to the device, reads from the disk, copies in host memory. GB/s."""

import gc
import mmap
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

PIECE = 8 << 20
REGISTER_READ_ONLY = 8  # cudaHostRegisterReadOnly


class Machine:
    """A device and a folder on the disk that models are read from."""

    def __init__(self, device: str, folder: Path, *, tiny: bool) -> None:
        self.device = device
        self.cuda = device.startswith("cuda")
        self.bytes = (8 if tiny else 2048) << 20
        self._path = folder / "ceiling"

    def timed(self, work: Callable[[], Any]) -> float:
        """Seconds of the best of three."""
        return min(self._once(work) for _ in range(3))

    def _once(self, work: Callable[[], Any]) -> float:
        gc.collect()
        self._sync()
        began = time.perf_counter()
        work()
        self._sync()
        return time.perf_counter() - began

    def _sync(self) -> None:
        if self.cuda:
            torch.cuda.synchronize(self.device)

    def short(self) -> tuple[float, float, float]:
        """Prints the best rates of pinned copies, of the disk and of the page cache, in GB/s; a few seconds in all."""
        target = torch.empty(self.bytes, dtype=torch.uint8, device=self.device)
        copy = self._copy_rate(target, min(64 << 20, self.bytes), 1)
        del target
        self._write()
        into = memoryview(mmap.mmap(-1, self.bytes))  # page-aligned, as O_DIRECT asks for
        if self.cuda:
            into = memoryview(torch.empty(self.bytes, dtype=torch.uint8, pin_memory=True).numpy())
        threads = 8 if self.cuda else os.cpu_count() or 1
        disk = self._rate(lambda: self._read(into, threads, os.O_DIRECT))
        cache = self._rate(lambda: self._read(into, threads, 0))
        self._path.unlink()
        print(f"\nCeilings, GB/s: pinned copies {copy:.1f}, disk {disk:.2f}, page cache by {threads} threads {cache:.1f}.", flush=True)
        return copy, disk, cache

    def to_device(self) -> float:
        """Prints copies from host memory; the best rate of pinned ones."""
        print("\n## Ceilings\n\n| copy to the device | GB/s |\n|---|---|")
        target = torch.empty(self.bytes, dtype=torch.uint8, device=self.device)
        best = 0.0
        for block_mib in (1, 4, 16, 64, 256):
            for streams in (1, 2) if self.cuda else (1,):
                rate = self._copy_rate(target, min(block_mib << 20, self.bytes), streams)
                best = max(best, rate)
                print(f"| pinned, blocks of {block_mib} MiB, streams: {streams} | {rate:.2f} |", flush=True)
        pageable = torch.empty(self.bytes, dtype=torch.uint8).fill_(1)
        print(f"| pageable | {self._rate(lambda: target.copy_(pageable)):.2f} |")
        if self.cuda:
            self._registered(target)
        pin_s = self._once(lambda: torch.empty(self.bytes, dtype=torch.uint8, pin_memory=self.cuda))
        print(f"\nAllocating pinned memory costs {pin_s / (self.bytes / 1e9) * 1000:.0f} ms a GB.")
        return best

    def from_disk(self) -> float:
        """Prints reads of a file into pinned memory; the best rate past the page cache."""
        print("\n| file to pinned memory | threads | GB/s |\n|---|---|---|")
        self._write()
        target = memoryview(mmap.mmap(-1, self.bytes))  # page-aligned, as O_DIRECT asks for
        if self.cuda:
            target = memoryview(torch.empty(self.bytes, dtype=torch.uint8, pin_memory=True).numpy())
        best = 0.0
        for threads in (1, 2, 4, 8):
            rate = self._rate(lambda threads=threads: self._read(target, threads, os.O_DIRECT))
            best = max(best, rate)
            print(f"| past the page cache (O_DIRECT) | {threads} | {rate:.2f} |", flush=True)
        for threads in (1, 2, 4, 8):
            rate = self._rate(lambda threads=threads: self._read(target, threads, 0))
            print(f"| from the page cache | {threads} | {rate:.2f} |", flush=True)
        self._path.unlink()
        return best

    def _write(self) -> None:
        with self._path.open("wb") as file:
            for _ in range(self.bytes // PIECE):
                file.write(os.urandom(PIECE))
            os.fsync(file.fileno())

    def _rate(self, work: Callable[[], Any]) -> float:
        return self.bytes / self.timed(work) / 1e9

    def _copy_rate(self, target: Any, block: int, streams: int) -> float:
        source = torch.empty(block, dtype=torch.uint8, pin_memory=self.cuda).fill_(1)
        lanes = [torch.cuda.Stream(self.device) for _ in range(streams)] if self.cuda else [None]

        def copy() -> None:
            for number, at in enumerate(range(0, self.bytes, block)):
                piece = target[at : at + block]
                with torch.cuda.stream(lanes[number % streams]):
                    piece.copy_(source[: len(piece)], non_blocking=True)

        def copy_plainly() -> None:
            for at in range(0, self.bytes, block):
                target[at : at + block].copy_(source[: min(block, self.bytes - at)])

        return self._rate(copy if self.cuda else copy_plainly)

    def _registered(self, target: Any) -> None:
        """A file mapped read-only and registered with the driver: pinned without a copy, if the driver does that."""
        import numpy

        self._path.write_bytes(os.urandom(self.bytes))
        mapped = numpy.memmap(self._path, mode="r")
        source = torch.from_numpy(mapped)
        runtime = torch.cuda.cudart()
        began = time.perf_counter()
        failed = int(runtime.cudaHostRegister(source.data_ptr(), self.bytes, REGISTER_READ_ONLY))
        register_s = time.perf_counter() - began
        if failed:
            print(f"| read-only mapping, registered | refused by the driver (error {failed}) |")
            return
        rate = self._rate(lambda: target.copy_(source, non_blocking=True))
        runtime.cudaHostUnregister(source.data_ptr())
        print(f"| read-only mapping, registered ({register_s / (self.bytes / 1e9) * 1000:.0f} ms a GB) | {rate:.2f} |")

    def _read(self, target: memoryview, threads: int, flags: int) -> None:
        fd = os.open(self._path, os.O_RDONLY | flags)

        def read(at: int) -> None:
            os.preadv(fd, [target[at : at + PIECE]], at)

        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(read, range(0, self.bytes, PIECE)))
        os.close(fd)
