"""Checks those parts of a Dockerfile that the build contract cares about. The file is read, not run, so what only a
shell knows stays unknown.
"""

import json
import re

import msgspec

from gen_worker.contract.manifest import BAKED_MANIFEST

ENTRYPOINT = ("python", "-m", "gen_worker.entrypoint")
ENTRYPOINT_LINE = f"ENTRYPOINT {json.dumps(list(ENTRYPOINT))}"
BAKE_LINE = f"RUN mkdir -p /app/.cozy && python -m gen_worker.discover > {BAKED_MANIFEST}"
_SECRET = re.compile(r"\b((?:\w+_)?(?:TOKEN|JWT|PASSWORD|SECRET|API_KEY))=[\"']?([^\s\"'$]+)")


class Instruction(msgspec.Struct, frozen=True):
    """`line` counts from 1."""

    name: str
    value: str
    line: int


def read_instructions(text: str) -> list[Instruction]:
    """The instructions of a Dockerfile, with continued lines joined and comments removed."""
    found: list[Instruction] = []
    joined, began = "", 0
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        if stripped.startswith("#") or (not stripped and not joined):
            continue
        began = began if joined else number
        joined += f" {stripped.removesuffix(chr(92)).strip()}"
        if stripped.endswith("\\"):
            continue
        name, _, value = joined.strip().partition(" ")
        found.append(Instruction(name.upper(), value.strip(), began))
        joined = ""
    return found


def last_stage(instructions: list[Instruction]) -> list[Instruction]:
    """The stage that becomes the image: the last FROM and everything after it."""
    starts = [number for number, instruction in enumerate(instructions) if instruction.name == "FROM"]
    return instructions[starts[-1] :] if starts else []


def problems_of(text: str) -> list[str]:
    """Breaches of the contract, each with the line that fixes it."""
    instructions = read_instructions(text)
    stage = last_stage(instructions)
    if not stage:
        return ["Dockerfile has no FROM; begin with: FROM ghcr.io/astral-sh/uv:python3.12-bookworm-slim"]
    return [*_entrypoint_problems(stage), *_manifest_problems(instructions), *_secret_problems(instructions)]


def build_argument(text: str, name: str) -> str:
    """The value of a variable in a Dockerfile's ARG or ENV; `""` for none."""
    found = ""
    for instruction in read_instructions(text):
        if instruction.name in ("ARG", "ENV"):
            for match in re.finditer(rf"\b{name}=[\"']?([^\s\"'$]*)", instruction.value):
                found = match[1] or found
    return found


def _entrypoint_problems(stage: list[Instruction]) -> list[str]:
    found = [instruction for instruction in stage if instruction.name == "ENTRYPOINT"]
    if not found:
        return [f"Dockerfile has no ENTRYPOINT, so the image would not start a worker; end with: {ENTRYPOINT_LINE}"]
    last = found[-1]
    if not last.value.startswith("["):
        return [f"Dockerfile:{last.line}: ENTRYPOINT in its shell form: a shell would get the worker's signals; write: {ENTRYPOINT_LINE}"]
    try:
        words = tuple(json.loads(last.value))
    except (ValueError, TypeError):
        return [f"Dockerfile:{last.line}: ENTRYPOINT {last.value[:80]} is not a JSON list; write: {ENTRYPOINT_LINE}"]
    if words != ENTRYPOINT:
        return [f"Dockerfile:{last.line}: ENTRYPOINT is {json.dumps(list(words))}; the platform starts workers by: {ENTRYPOINT_LINE}"]
    return []


def _manifest_problems(instructions: list[Instruction]) -> list[str]:
    for instruction in instructions:
        if instruction.name == "RUN" and "gen_worker.discover" in instruction.value:
            if ".cozy/manifest.json" in instruction.value:
                return []
            return [f"Dockerfile:{instruction.line}: the manifest does not go to {BAKED_MANIFEST}; write: {BAKE_LINE}"]
    return [f"Dockerfile does not bake the manifest, so no platform could read the image's functions; add after the code: {BAKE_LINE}"]


def _secret_problems(instructions: list[Instruction]) -> list[str]:
    found = []
    for instruction in instructions:
        if instruction.name in ("ENV", "ARG", "RUN"):
            found += [
                f"Dockerfile:{instruction.line}: {match[1]} has a value, which everybody who has the image can read; "
                f"give it when the image runs: docker run -e {match[1]}=..."
                for match in _SECRET.finditer(instruction.value)
            ]
    return found
