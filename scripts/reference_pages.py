"""Reference pages of the documentation that are made from the code."""

import tomllib
from pathlib import Path
from typing import Any

import msgspec

from gen_orchestrator.cli.serve import ServeSettings
from gen_orchestrator.hub.retention import RetentionSettings
from gen_worker.settings.devices import DeviceSettings
from gen_worker.settings.models import ModelSettings
from gen_worker.settings.reading import Range, Switch, rule_of
from gen_worker.settings.worker import RunLimits, WorkerSettings

SETTINGS = Path(__file__).with_name("settings.toml")
STRUCTS = (WorkerSettings, RunLimits, ModelSettings, DeviceSettings, ServeSettings, RetentionSettings)


def setting_fields() -> dict[str, Any]:
    """Every variable of a settings Struct."""
    return {field.encode_name: field for kind in STRUCTS for field in msgspec.structs.fields(kind)}


def setting_sections() -> list[dict[str, Any]]:
    """Title, introduction and variables of each section."""
    sections: list[dict[str, Any]] = tomllib.loads(SETTINGS.read_text())["section"]
    return sections


def settings_page() -> str:
    """Every environment variable: its default and range from the code, its meaning from settings.toml."""
    fields = setting_fields()
    parts = [
        "# Settings\n\nEvery environment variable. An empty one counts as not set. A wrong value stops the program at its start, "
        "and the message names the variable, the value and what was expected. Sizes in GB mean 10^9 bytes.\n"
    ]
    for section in setting_sections():
        rows = []
        for name, said in section["variables"].items():
            entry = {"meaning": said} if isinstance(said, str) else said
            field = fields.get(name)
            default = entry.get("default") or (_default(field.default) if field is not None else "")
            rule = rule_of(field.type) if field is not None else None
            rows.append(f"| `{name}` | {default} | {entry['meaning']}{_expected(rule)} |")
        table = "\n".join(rows)
        parts.append(f"## {section['title']}\n\n{section.get('about', '')}\n\n| variable | default | meaning |\n|---|---|---|\n{table}\n")
    return "\n".join(parts)


def _expected(rule: Any) -> str:
    if rule is None or isinstance(rule, Switch):
        return "" if rule is None else " `1` or `0`."
    return f" Range: {rule}." if isinstance(rule, Range) else f" Expected: {rule}."


def _default(value: Any) -> str:
    """As somebody would write it."""
    if value in (None, "", msgspec.NODEFAULT):
        return ""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1 << 20 and value % (1 << 20) == 0:
        return f"{value} ({value >> 30} GiB)" if value % (1 << 30) == 0 else f"{value} ({value >> 20} MiB)"
    return f"{value:g}" if isinstance(value, float) and value < 1e6 else f"`{value}`" if isinstance(value, str) else f"{value:.0f}"
