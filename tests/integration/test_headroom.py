"""The device memory that functions need for their own work is measured, and kept free."""

import asyncio
import io
from collections.abc import Callable
from pathlib import Path

import msgspec
from tests.integration.test_several_devices import MB, SPEC, Machine, Sink
from tests.property import residency_functions

from gen_worker.execution.cancellation import CancelToken
from gen_worker.execution.executor import Executor
from gen_worker.execution.request import RunRequest
from gen_worker.files.inputs import InputFiles
from gen_worker.files.local_outputs import LocalOutputs
from gen_worker.log import Log
from gen_worker.residency.place import form_name
from gen_worker.settings import RunLimits


async def visit(machine: Machine, key: str, work_bytes: int = 0, meanwhile: Callable[[], None] = lambda: None) -> None:
    """A run whose function allocates so much and gives it back."""
    run = await machine.run(key)
    end = run[0].begin_work()
    slab = machine.devices[0].new_slab(work_bytes) if work_bytes else None
    meanwhile()
    del slab
    end()
    machine.end(run)


def here(machine: Machine) -> list[str]:
    return [key for key in "012345" if machine.manager.places[0].is_here(form_name(f"hf:demo/m{key}", residency_functions.Engine))]


def test_so_much_is_left_free_as_the_function_has_needed() -> None:
    async def main() -> None:
        machine = Machine(1)
        await visit(machine, "0")
        await visit(machine, "1")
        assert here(machine) == ["0", "1"], "80 of 100 MB"
        await visit(machine, "1", 20 * MB)
        assert machine.manager.places[0].headroom.spare_bytes == 20 * MB
        assert here(machine) == ["0", "1"]
        await visit(machine, "1", 20 * MB)
        machine.devices[0].taken_bytes = 10 * MB  # another process: now the work would not fit beside both
        await visit(machine, "1", 20 * MB)
        assert here(machine) == ["1"]
        await visit(machine, "2", 20 * MB)
        assert here(machine) == ["2"], "a load makes room for the work, too"
        machine.manager.close()

    asyncio.run(main())


def test_a_model_that_would_not_fit_otherwise_is_loaded_all_the_same() -> None:
    async def main() -> None:
        machine = Machine(1)
        await visit(machine, "0", 60 * MB)
        machine.devices[0].taken_bytes = 10 * MB  # 40 + 60 of 90
        await visit(machine, "0")
        assert here(machine) == ["0"]
        await visit(machine, "1")
        assert here(machine) == ["1"]
        machine.manager.close()

    asyncio.run(main())


def test_side_by_side_nobody_knows_whose_it_was_and_both_are_given_room() -> None:
    async def main() -> None:
        machine = Machine(1)
        headroom = machine.manager.places[0].headroom
        first, second = await machine.run("0"), await machine.run("0")
        ends = [first[0].begin_work(), second[0].begin_work()]
        slab = machine.devices[0].new_slab(30 * MB)
        del slab
        for end in ends:
            end()
        assert headroom.spare_bytes == 0
        await visit(machine, "0", 25 * MB, lambda: None)
        assert headroom.spare_bytes == 25 * MB
        ends = [first[0].begin_work(), second[0].begin_work()]
        assert headroom.spare_bytes == 50 * MB
        for end in ends:
            end()
        assert headroom.spare_bytes == 25 * MB
        machine.end(first)
        machine.end(second)
        machine.manager.close()

    asyncio.run(main())


def test_a_model_that_comes_meanwhile_is_not_taken_for_work() -> None:
    async def main() -> None:
        machine = Machine(1)
        run = await machine.run("0")
        end = run[0].begin_work()
        machine.end(await machine.run("1"))
        end()
        machine.end(run)
        assert machine.manager.places[0].headroom.spare_bytes == 0
        machine.manager.close()

    asyncio.run(main())


def test_it_is_known_after_a_restart_and_falls_slowly(tmp_path: Path) -> None:
    async def main() -> None:
        first = Machine(1, measured=tmp_path / "measured.json")
        await visit(first, "0", 30 * MB)
        first.manager.close()
        second = Machine(1, measured=tmp_path / "measured.json")
        headroom = second.manager.places[0].headroom
        assert headroom.spare_bytes == 0, "nobody has called that function here"
        await visit(second, "0", 28 * MB)
        assert headroom.spare_bytes == 30 * MB
        for _ in range(3):
            await visit(second, "0", 1 * MB)
        assert 28 * MB < headroom.spare_bytes < 29 * MB
        second.manager.close()

    asyncio.run(main())


def test_runs_of_a_worker_are_measured(tmp_path: Path) -> None:
    async def main() -> None:
        machine = Machine(1)
        executor = Executor(machine.manager, InputFiles(tmp_path, None, max_bytes=0, retries=0), RunLimits(), Log(io.StringIO()))

        def function(ctx: object, payload: residency_functions.In, engine: object) -> residency_functions.In:
            machine.devices[0].new_slab(15 * MB)
            if payload.model == "1":
                raise ValueError("after it had allocated")
            return payload

        spec = msgspec.structs.replace(SPEC, function=function)
        for key, most in (("0", 15), ("1", 15)):
            request = RunRequest("r", msgspec.json.encode({"model": key}))
            outcome = await executor.run(spec, request, Sink(), CancelToken(), LocalOutputs(tmp_path))
            assert outcome.success == (key == "0")
            assert machine.manager.places[0].headroom.spare_bytes == most * MB
        executor.close()
        machine.manager.close()

    asyncio.run(main())
