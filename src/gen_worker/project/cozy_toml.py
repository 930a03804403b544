"""Reads cozy.toml into a typed value. Errors name key, line and nearest valid name."""

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from gen_worker.authoring.batch import Batch
from gen_worker.durations import parse_duration
from gen_worker.names import SECRET_NAME_RULE, did_you_mean, is_secret_name, slugify
from gen_worker.project.constraints import parse_constraint
from gen_worker.project.toml_lines import key_lines
from gen_worker.project.variables import MAX_VARIABLES, variable_problem
from gen_worker.refs import DEFAULT_DTYPES, DTYPES, ModelSpec

MAX_PROBLEMS = 50
MAX_FILE_BYTES = 1 << 20
MAX_SECONDS = 7 * 24 * 3600
MAX_COUNT = 1_000_000
MAX_WORKERS = 10_000
TOP_KEYS = ("schema_version", "name", "main", "gen_worker", "models", "functions", "resources", "host", "scaling", "env", "secrets", "dev")
FUNCTION_KEYS = ("models", "max_concurrency", "timeout_s", "start_timeout_s", "max_attempts", "queue_max", "durable", "memo", "batch")
SCALING_KEYS = ("min", "max", "idle_s")
DEV_KEYS = ("watch",)
RESOURCE_KEYS = ("vram_gb", "ram_gb", "cpu_cores", "disk_gb")


class CozyTomlError(ValueError):
    """cozy.toml cannot be used. `line` counts from 1, if known; `each` has one text for each problem."""

    def __init__(self, message: str, path: Path, line: int | None = None, others: Sequence["CozyTomlError"] = ()) -> None:
        self.line = line
        own = f"{path.name}{f':{line}' if line else ''}: {message}"
        self.each: tuple[str, ...] = (own, *(text for other in others for text in other.each))
        super().__init__("\n".join(self.each))


class _WrongError(Exception):
    """The value at `keys` cannot be used."""

    def __init__(self, message: str, keys: tuple[str, ...]) -> None:
        super().__init__(message)
        self.keys = keys


class CozyToml(msgspec.Struct, frozen=True, kw_only=True):
    """A project's declaration. `function_models` is by function slug; it replaces `models` for that function."""

    path: Path
    schema_version: int
    name: str
    main: str
    gen_worker: str
    cuda: str | None = None
    models: dict[str, ModelSpec] = msgspec.field(default_factory=dict)
    function_models: dict[str, dict[str, ModelSpec]] = msgspec.field(default_factory=dict)
    function_settings: dict[str, dict[str, Any]] = msgspec.field(default_factory=dict)
    function_lines: dict[str, int] = msgspec.field(default_factory=dict)  # line of each [functions.NAME], by NAME as written
    resources: dict[str, float] = msgspec.field(default_factory=dict)
    scaling: dict[str, int | float] = msgspec.field(default_factory=dict)  # as written: `min`, `max`, `idle_s`
    env: dict[str, str] = msgspec.field(default_factory=dict)  # variables for the author's code
    secrets: tuple[str, ...] = ()  # names of variables whose values the platform keeps
    watch: tuple[str, ...] = ()  # `[dev] watch`: files, folders and patterns that trigger a reload; empty: the project's Python files

    @property
    def endpoint_name(self) -> str:
        return slugify(self.name)

    def models_of(self, function: str) -> dict[str, ModelSpec]:
        """The keyspace of one function, by slug."""
        return self.function_models.get(function) or self.models


def check_function_names(project: CozyToml, functions: Iterable[str]) -> None:
    """`CozyTomlError` for a `[functions.NAME]` that is not one of these function slugs."""
    known = list(functions)
    for name, line in project.function_lines.items():
        if slugify(name) not in known:
            listed = ", ".join(known) or "none"
            hint = did_you_mean(slugify(name), known)
            raise CozyTomlError(
                f"[functions.{name}] names no function of {project.main}.{hint} Functions: {listed}", project.path, line or None
            )


def find_cozy_toml(root: Path, env: Mapping[str, str]) -> Path | None:
    """The project's cozy.toml: COZY_MANIFEST_PATH if set, else in `root`; None when there is none."""
    named = env.get("COZY_MANIFEST_PATH", "").strip()
    path = Path(named) if named else root / "cozy.toml"
    return path if path.is_file() else None


def load_cozy_toml(path: str | Path) -> CozyToml:
    """Read and check a cozy.toml; `CozyTomlError` (a `ValueError`) says what is wrong and on which line."""
    path = Path(path)
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise CozyTomlError(f"{path.stat().st_size} bytes long; at most {MAX_FILE_BYTES} are read", path)
        text = path.read_bytes().decode()
        data = tomllib.loads(text)
    except FileNotFoundError:
        raise CozyTomlError(
            f"not found in {path.parent.resolve()}; go to the project's folder, or start one: cozyctl init my-worker", path
        ) from None
    except UnicodeDecodeError as exc:
        raise CozyTomlError(f"is not UTF-8 text (byte {exc.start})", path) from None
    except tomllib.TOMLDecodeError as exc:
        found = re.search(r"line (\d+)", str(exc))
        line = int(found[1]) if found else text.count("\n") + 1  # it says "at end of document"
        raise CozyTomlError(f"not valid TOML: {exc}{_line_shown(text, line)}", path, line) from None
    except RecursionError:
        raise CozyTomlError("not valid TOML: nested too deep", path) from None
    return _all_or_every_problem(_Reader(path, data), path, key_lines(text))


def _all_or_every_problem(reader: "_Reader", path: Path, lines: Mapping[tuple[str, ...], int]) -> CozyToml:
    """Drop what is wrong and read the rest again, so that all problems are reported at once."""
    problems: list[tuple[str, int | None]] = []
    while True:
        try:
            found = reader.read()
            break
        except _WrongError as exc:
            line = next((lines[exc.keys[:n]] for n in range(len(exc.keys), 0, -1) if exc.keys[:n] in lines), None)
            problems.append((str(exc), line))
            if len(problems) == MAX_PROBLEMS or not reader.leave_out(exc.keys):
                break
    if not problems:
        return msgspec.structs.replace(
            found, function_lines={name: lines.get(("functions", name), 0) for name in reader.data.get("functions", {})}
        )
    (message, line), *others = problems
    raise CozyTomlError(message, path, line, [CozyTomlError(message, path, line) for message, line in others])


def _line_shown(text: str, line: int) -> str:
    lines = text.splitlines()
    return f"\n    {lines[line - 1].strip()[:120]}" if 0 < line <= len(lines) else ""


class _Reader:
    def __init__(self, path: Path, data: dict[str, Any]) -> None:
        self.path = path
        self.data = data

    def error(self, message: str, *keys: str) -> _WrongError:
        return _WrongError(message, keys)

    def leave_out(self, keys: tuple[str, ...]) -> bool:
        """Read on as if this key were absent, or, if it is required, as if it were valid. Returns whether that changed anything."""
        if keys in _STAND_INS:
            before, self.data[keys[0]] = self.data.get(keys[0]), _STAND_INS[keys]
            return before is not self.data[keys[0]]
        table: Any = self.data
        for key in keys[:-1]:
            table = table.get(key) if isinstance(table, dict) else None
        if not isinstance(table, dict) or keys[-1] not in table:
            return False
        del table[keys[-1]]
        return True

    def read(self) -> CozyToml:
        self.known_keys(self.data, TOP_KEYS)
        version = self.data.get("schema_version")
        if version != 1 or isinstance(version, bool):
            raise self.error(f"schema_version must be 1, not {version!r}", "schema_version")
        name = self.required("name")
        try:
            slugify(name)
        except ValueError as exc:
            raise self.error(str(exc), "name") from None
        main = self.required("main")
        if not all(part.isidentifier() for part in main.split(".")):
            raise self.error(f"main = {main!r} is not a module name; expected dotted names such as 'my_pkg.main'", "main")
        functions = self.functions()
        return CozyToml(
            path=self.path,
            schema_version=1,
            name=name,
            main=main,
            gen_worker=self.constraint(self.required("gen_worker"), "gen_worker", "gen_worker"),
            cuda=self.cuda(),
            models=self.models(self.data.get("models", {}), "models"),
            function_models={slug: models for slug, (models, _) in functions.items() if models},
            function_settings={slug: settings for slug, (_, settings) in functions.items() if settings},
            resources=self.resources(),
            scaling=self.scaling(),
            env=self.env(),
            secrets=self.secrets(),
            watch=self.watch(),
        )

    def known_keys(self, table: Mapping[str, Any], known: Iterable[str], *above: str) -> None:
        for key in table:
            if key not in known:
                where = f"in [{'.'.join(above)}]" if above else "at the top level"
                raise self.error(f"unknown key {key!r} {where}.{did_you_mean(key, known)} Known keys: {', '.join(known)}", *above, key)

    def table(self, value: Any, *keys: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise self.error(f"[{'.'.join(keys)}] must be a table, not {_kind(value)}", *keys)
        return value

    def required(self, key: str) -> str:
        value = self.data.get(key)
        if value is None or (isinstance(value, str) and not value.strip()):
            raise self.error(f"missing {key}; expected a line such as {_EXAMPLES[key]}", key)
        if not isinstance(value, str):
            raise self.error(f"{key} must be a string, not {_kind(value)}", key)
        return value.strip()

    def constraint(self, spec: Any, what: str, *keys: str) -> str:
        if not isinstance(spec, str):
            raise self.error(f"{what} constraint must be a string, not {_kind(spec)}", *keys)
        try:
            parse_constraint(spec, what)
        except ValueError as exc:
            raise self.error(str(exc), *keys) from None
        return spec

    def cuda(self) -> str | None:
        host = self.table(self.data.get("host", {}), "host")
        self.known_keys(host, ("requirements",), "host")
        requirements = self.table(host.get("requirements", {}), "host", "requirements")
        self.known_keys(requirements, ("cuda",), "host", "requirements")
        if "cuda" not in requirements:
            return None
        return self.constraint(requirements["cuda"], "cuda", "host", "requirements", "cuda")

    def resources(self) -> dict[str, float]:
        table = self.table(self.data.get("resources", {}), "resources")
        self.known_keys(table, RESOURCE_KEYS, "resources")
        for key, value in table.items():
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1e9:
                raise self.error(f"resources.{key} = {value!r} must be a number from 0 up", "resources", key)
        return table

    def env(self) -> dict[str, str]:
        table = self.table(self.data.get("env", {}), "env")
        if len(table) > MAX_VARIABLES:
            raise self.error(f"[env] has {len(table)} variables; at most {MAX_VARIABLES} are taken", "env")
        for name, value in table.items():
            if problem := variable_problem(name, value):
                raise self.error(problem, "env", name)
        return table

    def secrets(self) -> tuple[str, ...]:
        """Names in `[secrets]`. The text after a name says what it is for; the value belongs to the platform, not into this file."""
        table = self.table(self.data.get("secrets", {}), "secrets")
        for name, purpose in table.items():
            if not is_secret_name(name):
                raise self.error(f"[secrets] {name[:60]}: {SECRET_NAME_RULE}", "secrets", name)
            if not isinstance(purpose, str):
                raise self.error(
                    f"[secrets] {name} must be a text that says what it is for, not {_kind(purpose)}; "
                    f"its value is set with: cozyctl secrets set OWNER/ENDPOINT {name}",
                    *("secrets", name),
                )
        return tuple(table)

    def watch(self) -> tuple[str, ...]:
        table = self.table(self.data.get("dev", {}), "dev")
        self.known_keys(table, DEV_KEYS, "dev")
        entries = table.get("watch", [])
        if not isinstance(entries, list) or not all(isinstance(entry, str) and entry.strip() and "\0" not in entry for entry in entries):
            raise self.error(
                "dev.watch must be a list of files, folders and patterns, such as watch = ['.', 'prompts/*.txt']", "dev", "watch"
            )
        return tuple(entries)

    def scaling(self) -> dict[str, int | float]:
        table = self.table(self.data.get("scaling", {}), "scaling")
        self.known_keys(table, SCALING_KEYS, "scaling")
        for key, least in (("min", 0), ("max", 0)):
            value = table.get(key, least)
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= MAX_WORKERS:
                raise self.error(f"scaling.{key} = {value!r} must be a whole number from {least} to {MAX_WORKERS}", "scaling", key)
        idle_s = table.get("idle_s", 0)
        if isinstance(idle_s, bool) or not isinstance(idle_s, (int, float)) or not 0 <= idle_s <= MAX_SECONDS:
            raise self.error(f"scaling.idle_s = {idle_s!r} must be a number of seconds from 0 to {MAX_SECONDS}", "scaling", "idle_s")
        if "max" in table and table.get("min", 0) > table["max"]:
            raise self.error(
                f"scaling.min = {table['min']} is above scaling.max = {table['max']}; raise max or lower min", "scaling", "min"
            )
        return table

    def functions(self) -> dict[str, tuple[dict[str, ModelSpec], dict[str, Any]]]:
        found: dict[str, tuple[dict[str, ModelSpec], dict[str, Any]]] = {}
        for name, value in self.table(self.data.get("functions", {}), "functions").items():
            table = self.table(value, "functions", name)
            self.known_keys(table, FUNCTION_KEYS, "functions", name)
            try:
                slug = slugify(name)
            except ValueError as exc:
                raise self.error(str(exc), "functions", name) from None
            if slug in found:
                raise self.error(f"[functions.{name}] and another table both mean the function '{slug}'", "functions", name)
            settings = {key: self.function_setting(name, key, item) for key, item in table.items() if key != "models"}
            found[slug] = (self.models(table.get("models", {}), "functions", name, "models"), settings)
        return found

    def function_setting(self, name: str, key: str, value: Any) -> Any:
        if key == "batch":
            table = self.table(value, "functions", name, "batch")
            self.known_keys(table, ("max_size", "max_wait_ms"), "functions", name, "batch")
            try:
                Batch(**table)
            except ValueError as exc:
                raise self.error(f"functions.{name}.batch: {exc}", "functions", name, "batch") from None
            return table
        if key == "durable":
            if not isinstance(value, bool):
                raise self.error(f"functions.{name}.durable = {value!r} must be true or false", "functions", name, key)
            return value
        if key == "memo":
            try:
                parse_duration(value)
            except ValueError as exc:
                raise self.error(f"functions.{name}.memo = {exc}", "functions", name, key) from None
            return value
        whole = key in ("max_concurrency", "max_attempts", "queue_max")
        least, most = (1, MAX_COUNT) if whole else (0.001, MAX_SECONDS)
        # Written this way so that NaN is refused: every comparison with NaN is false.
        if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)) or not least <= value <= most:
            kind = "a whole number above 0" if whole else "a number above 0, in seconds"
            raise self.error(f"functions.{name}.{key} = {value!r} must be {kind}: from {least} to {most}", "functions", name, key)
        return value

    def models(self, value: Any, *keys: str) -> dict[str, ModelSpec]:
        return {key: self.model(key, spec, *keys, key) for key, spec in self.table(value, *keys).items()}

    def model(self, key: str, spec: Any, *keys: str) -> ModelSpec:
        where = f"model {key!r}"
        if "/" in key or ":" in key or not key.strip():
            raise self.error(f"{where}: a key is a short name without '/' and ':'", *keys)
        if isinstance(spec, str):
            spec = {"ref": spec}
        if not isinstance(spec, dict):
            raise self.error(f"{where} must be a string or a table, not {_kind(spec)}", *keys)
        self.known_keys(spec, ("ref", "dtypes"), *keys)
        ref = spec.get("ref")
        if ref is None:
            raise self.error(f'{where}: missing ref; expected {key} = {{ ref = "hf:owner/repo" }}', *keys)
        if not isinstance(ref, str) or not ref.strip():
            raise self.error(f"{where}: ref cannot be empty; expected a string such as 'hf:owner/repo'", *keys)
        dtypes = self.dtypes(where, spec.get("dtypes", list(DEFAULT_DTYPES)), *keys)
        try:
            return ModelSpec.checked(ref.strip(), dtypes)
        except ValueError as exc:
            raise self.error(f"{where}: {exc}", *keys) from None

    def dtypes(self, where: str, dtypes: Any, *keys: str) -> list[str]:
        if not isinstance(dtypes, list) or not all(isinstance(name, str) for name in dtypes):
            raise self.error(f"{where}: dtypes must be a list of strings, such as ['fp16', 'bf16']", *keys)
        if not dtypes:
            raise self.error(f"{where}: dtypes cannot be empty; leave it out for {list(DEFAULT_DTYPES)}", *keys)
        wrong = [name for name in dtypes if name not in DTYPES]
        if wrong:
            hint = did_you_mean(wrong[0], DTYPES)
            raise self.error(f"{where}: invalid dtypes {', '.join(map(repr, wrong))}.{hint} Allowed: {', '.join(DTYPES)}", *keys)
        return dtypes


_STAND_INS: Mapping[tuple[str, ...], Any] = {("schema_version",): 1, ("name",): "x", ("main",): "x", ("gen_worker",): ">=0"}
_EXAMPLES = {"name": 'name = "my-worker"', "main": 'main = "my_pkg.main"', "gen_worker": 'gen_worker = ">=0.2.0,<0.3.0"'}


def _kind(value: Any) -> str:
    names = {dict: "a table", list: "a list", str: "a string", bool: "a boolean", int: "a number", float: "a number"}
    return names.get(type(value), type(value).__name__)
