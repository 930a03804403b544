"""`cozyctl client generate`: clients of a release and of a folder, checked by mypy and tsc, formatted, and used against the platform."""

import importlib.util
import inspect
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from platform_process import COZYCTL, PlatformProcess

from gen_worker.client import Client, RunFailedError

ROOT = Path(__file__).parents[3]
PACKAGE = ROOT / "clients" / "typescript"
TSC = PACKAGE / "node_modules" / "typescript" / "bin" / "tsc"
COZY_TOML = 'schema_version = 1\nname = "odd"\nmain = "odd.main"\ngen_worker = ">=0.2.0,<0.3.0"\n'
MAIN = '''\
from __future__ import annotations
import dataclasses, datetime, decimal, enum, uuid
from collections.abc import Iterator
from typing import Annotated, Any, Literal, TypedDict
import msgspec
from gen_worker import ActionContext, Asset, Clamp, RealtimeSocket, worker_function, worker_websocket

class Mode(enum.Enum):
    FAST = "fast"
    GOOD = "good-1"

class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2

class Cat(msgspec.Struct, tag="cat"):
    """A cat."""
    lives: int = 9

class Dog(msgspec.Struct, tag="dog"):
    name: str

class Node(msgspec.Struct):
    value: int
    children: list[Node] = []

class Empty(msgspec.Struct):
    pass

class Point(msgspec.Struct, array_like=True):
    x: float
    y: float = 0.0

class Loose(TypedDict, total=False):
    a: int

@dataclasses.dataclass
class Old:
    q: int = 1

class In(msgspec.Struct, kw_only=True):
    """What it takes. With "quotes", \\\\ back * slashes */ and a quote at the end\\""""
    prompt: Annotated[str, msgspec.Meta(description="The prompt. \\'\\'\\' */\\nSecond line", min_length=1)]
    class_: int = msgspec.field(name="class", default=1)
    odd: str = msgspec.field(name="odd-name", default="x")
    umlaut: str = msgspec.field(name="größe", default="ä\\u2028")
    digit: str = msgspec.field(name="1st", default="")
    dollar: str = msgspec.field(name="$ref", default="")
    whole: str = msgspec.field(name="int", default="")
    maybe: float | None = None
    mode: Mode = Mode.FAST
    level: Level | None = None
    lit: Literal["a", "b", 3] = "a"
    animal: Cat | Dog | None = None
    node: Node | None = None
    empty: Empty = msgspec.field(default_factory=Empty)
    point: Point | None = None
    loose: Loose | None = None
    old: Old | None = None
    image: Asset | None = None
    images: list[Asset] = []
    table: dict[str, list[bool | str]] = {}
    pair: tuple[bool, str] = (True, "a")
    tags: set[str] = set()
    when: datetime.datetime | None = None
    day: datetime.date | None = None
    took: datetime.timedelta | None = None
    ident: uuid.UUID | None = None
    price: decimal.Decimal | None = None
    raw: bytes = b""
    anything: Any = None
    steps: Annotated[float, Clamp(1, 50)] = 20.0
    unset: bool | msgspec.UnsetType = msgspec.UNSET
    mixed: bool | str | list[float] | None = None

class Out(msgspec.Struct):
    text: str
    day: datetime.date | None = None
    pets: list[Cat | Dog] = []
    node: Node | None = None

class Delta(msgspec.Struct):
    chunk: str

@worker_function()
def draw(ctx: ActionContext, payload: In) -> Out:
    """Draw it.

    More */ steps cost "time"."""
    text = f"{payload.prompt} {payload.class_} {payload.mode.value} {payload.odd}"
    return Out(text=text, day=payload.day, pets=[payload.animal] if payload.animal else [], node=payload.node)

@worker_function()
def stream_it(ctx: ActionContext, payload: Empty) -> Iterator[Delta]:
    yield Delta("a")
    yield Delta("b")

@worker_function()
def import_(ctx: ActionContext, payload: Empty) -> Out:
    return Out(text="i")

@worker_websocket()
async def listen_to(ctx: ActionContext, sock: RealtimeSocket) -> None:
    """Give each message back."""
    async for data in sock.iter_bytes():
        await sock.send_bytes(data)
'''
pytestmark = pytest.mark.timeout(600)  # seconds of work; on a busy machine mypy and tsc may take a minute each
USES = """\
import datetime
from typing import assert_type
from gen_worker.client import AsyncSession, Client, RunHandle, Session
from odd_client import AsyncOdd, Cat, Delta, Dog, Empty, In, Node, Odd, Out

odd = Odd(Client("http://127.0.0.1:1"), tag="dev")
payload = In(prompt="a", class_=2, mode="good-1", lit=3, animal=Dog(name="x"), node=Node(value=1), point=(1.0, 2.0), day=datetime.date(2026, 1, 1))
assert_type(odd.draw(payload), Out)
assert_type(odd.submit_draw(payload, timeout_s=5), RunHandle[Out])
assert_type([item.chunk for item in odd.stream_it(Empty())], list[str])
assert_type(odd.submit_stream_it(Empty()).result(), list[Delta])
In(prompt=5)  # type: ignore[arg-type]
In(prompt="a", mode="slow")  # type: ignore[arg-type]
odd.draw(Empty())  # type: ignore[arg-type]
odd.draw(payload, timeout=5)  # type: ignore[call-arg]
with odd.listen_to(timeout_s=60) as session:
    assert_type(session, Session)
    assert_type([message for message in session], list[str | bytes])
    assert_type(session.receive_json(Out), Out)
odd.listen_to(priority=1)  # type: ignore[arg-type]

async def later() -> None:
    assert_type(await AsyncOdd().draw(payload), Out)
    async for item in AsyncOdd().stream_it(Empty()):
        assert_type(item, Delta)
    async with AsyncOdd().listen_to() as session:
        assert_type(session, AsyncSession)
        assert_type([message async for message in session], list[str | bytes])
"""
TS_USES = """\
import type { Session } from "gen-worker-client";
import { Odd, type Out } from "./odd.js";
const odd = new Odd();
const out: Promise<Out> = odd.draw({ prompt: "a", class: 2, mode: "good-1", lit: 3, animal: { type: "dog", name: "x" }, point: [1], day: "2026-01-01" });
void out;
// @ts-expect-error the prompt is a text
void odd.draw({ prompt: 5 });
// @ts-expect-error there is no such mode
void odd.draw({ prompt: "a", mode: "slow" });
// @ts-expect-error a dog has a name
void odd.draw({ prompt: "a", animal: { type: "dog" } });
// @ts-expect-error nothing of this name
void odd.streamIt({ a: 1 });
for await (const item of odd.streamIt({})) item.chunk.trim();
const session: Session = await odd.listenTo({ timeoutS: 60 });
await session.send(new Uint8Array(2));
for await (const message of session) if (typeof message !== "string") message.byteLength.toFixed();
// @ts-expect-error a session has no payload
void odd.listenTo({ prompt: "a" });
export {};
"""


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlatformProcess]:
    folder = tmp_path_factory.mktemp("generate")
    (folder / "odd" / "src" / "odd").mkdir(parents=True)
    (folder / "odd" / "cozy.toml").write_text(COZY_TOML)
    (folder / "odd" / "src" / "odd" / "__init__.py").write_text("")
    (folder / "odd" / "src" / "odd" / "main.py").write_text(MAIN)
    started = PlatformProcess(folder / "odd", folder / "data")
    yield started
    started.close()


def generate(*arguments: str, status: int = 0) -> str:
    command = [str(COZYCTL), "client", "generate", *arguments]
    found = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)
    assert found.returncode == status, found.stderr
    return found.stdout if status == 0 else found.stderr


def test_a_python_client_is_checked_formatted_and_works(platform: PlatformProcess, tmp_path: Path) -> None:
    module = tmp_path / "odd_client.py"
    generate("local/odd:dev", "--url", platform.url, "--lang", "python", "-o", str(module))
    assert generate("local/odd:dev", "--url", platform.url, "--lang", "python") == module.read_text()
    (tmp_path / "uses.py").write_text(USES)
    formatted = [sys.executable, "-m", "ruff", "format", "--isolated", "--line-length", "140", "--diff", str(module)]
    found = subprocess.run(formatted, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr
    checked = [sys.executable, "-m", "mypy", "--strict", "--config-file", str(ROOT / "pyproject.toml"), "uses.py", "odd_client.py"]
    cache = ["--cache-dir", str(ROOT / ".mypy_cache")]
    found = subprocess.run([*checked, *cache], cwd=tmp_path, capture_output=True, text=True, timeout=250, check=False)
    assert found.returncode == 0, found.stdout + found.stderr

    made = imported(module)
    assert inspect.getdoc(made.AsyncOdd.draw) == 'Run local/odd/draw and wait for its output.\n\nDraw it.\n\nMore */ steps cost "time".'
    with Client(platform.url) as client:
        odd = made.Odd(client)
        out = odd.draw(
            made.In(prompt="a", class_=2, odd_name="y", animal=made.Dog(name="rex"), node=made.Node(value=1, children=[made.Node(value=2)]))
        )
        assert (out.text, out.pets, out.node.children[0].value) == ("a 2 fast y", [made.Dog(name="rex")], 2)
        assert [item.chunk for item in odd.stream_it(made.Empty())] == ["a", "b"]
        handle = odd.submit_stream_it(made.Empty())
        assert handle.result() == [made.Delta(chunk="a"), made.Delta(chunk="b")]
        assert client.handle(handle.id).status().tag == "dev"
        with pytest.raises(RunFailedError):
            odd.draw(made.In(prompt=""))
        with odd.listen_to() as session:
            session.send("a")
            assert session.receive() == b"a"
            assert client.handle(session.id).status().tag == "dev"


def test_a_typescript_client_is_checked(platform: PlatformProcess, tmp_path: Path) -> None:
    module = tmp_path / "odd.ts"
    generate("local/odd", "--url", platform.url, "--lang", "typescript", "-o", str(module))
    assert generate(str(platform.project), "--lang", "typescript").split("*/", 1)[1] == module.read_text().split("*/", 1)[1]
    if shutil.which("node") is None or not TSC.exists():
        pytest.skip("needs node, and in clients/typescript: npm ci --ignore-scripts")
    (tmp_path / "uses.ts").write_text(TS_USES)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    options = {"noEmit": True, "rootDir": "/", "paths": {"gen-worker-client": [str(PACKAGE / "src" / "index.ts")]}}
    config = {"extends": str(PACKAGE / "tsconfig.json"), "compilerOptions": options, "include": ["*.ts"]}
    (tmp_path / "tsconfig.json").write_text(json.dumps(config))
    found = subprocess.run(["node", str(TSC), "-p", str(tmp_path)], capture_output=True, text=True, timeout=250, check=False)
    assert found.returncode == 0, found.stdout


@pytest.mark.parametrize(
    ("ref", "status", "words"),
    [
        ("local/other", 3, "no function of local/other"),
        ("local/odd/drew", 3, "Did you mean 'draw'"),
        ("local/odd:none", 3, "its tags: dev, prod"),
        ("local/odd@none", 3, "none"),
        ("odd", 2, "expected owner/endpoint"),
        ("./nothing-here", 2, "not a folder"),
    ],
)
def test_what_is_not_there_is_told(platform: PlatformProcess, ref: str, status: int, words: str) -> None:
    assert words in generate(ref, "--url", platform.url, "--lang", "python", status=status)


def imported(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location("odd_client", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["odd_client"] = module
    spec.loader.exec_module(module)
    return module
