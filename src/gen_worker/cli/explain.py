"""`cozyctl explain CODE`: what an error code means, and what to do. The texts are in error_codes.toml; `error_pages` writes the
pages of the documentation from the same file.
"""

import re
import textwrap
import tomllib
from pathlib import Path

import click
import msgspec

from gen_worker.cli.output import EXIT_NOT_FOUND, Verb, fail, json_option, print_json, print_line, table_console
from gen_worker.names import did_you_mean

_AGAIN = {
    "no": "Sending the same request again does not help.",
    "yes": "The same request may be sent again.",
    "later": "The same request may succeed later.",
}
_WHERE = {
    "run": "a run ended with it",
    "request": "a server refused a request with it",
    "client": "gen_worker.client raises it",
    "cozyctl": "cozyctl reports it",
}


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """What one code means. `http` is the usual status; `again` says whether a retry may succeed; `detail` and `error` are those of
    an example answer; `related` are codes that are easily confused with it, or that often come with it.
    """

    code: str
    title: str
    where: tuple[str, ...]
    http: int | None = None
    again: str
    cause: str
    example: str
    fix: str
    detail: str = ""
    error: str | None = None
    related: tuple[str, ...]

    @property
    def facts(self) -> str:
        """Where it appears, in one line."""
        status = f"HTTP {self.http}. " if self.http else ""
        met = ", or ".join(_WHERE[place] for place in self.where)
        return f"{status}{met[0].upper()}{met[1:]}. {_AGAIN[self.again]}"


def explanations() -> dict[str, Explanation]:
    """All explanations by code, in the order of the file."""
    found = tomllib.loads(Path(__file__).with_name("error_codes.toml").read_text("utf-8"))
    return {code: msgspec.convert({"code": code, **table}, Explanation) for code, table in found.items()}


def _complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    return [code for code in explanations() if code.startswith(incomplete)]


@click.command("explain", cls=Verb)
@click.argument("code", required=False, shell_complete=_complete)
@json_option
def command(code: str | None, as_json: bool) -> int:
    """Explain the error code CODE: what it means, its cause and its fix. Without CODE, list all codes."""
    known = explanations()
    if code is None:
        if as_json:
            print_json(list(known.values()))
        else:
            from rich.table import Column, Table

            table = Table(Column(no_wrap=True), Column(), box=None, pad_edge=False, show_header=False)
            for each in known.values():
                table.add_row(each.code, each.title)
            table_console().print(table)
        return 0
    words = {**_words(known), **known}
    found = words.get(code.strip().lower().replace("-", "_"))
    if found is None:
        hint = did_you_mean(code, words)
        return fail(f"no error code {code!r}.{hint} All of them: cozyctl explain", EXIT_NOT_FOUND, as_json=as_json, code="not_found")
    if as_json:
        print_json(found)
    else:
        print_line(as_text(found))
    return 0


def _words(known: dict[str, Explanation]) -> dict[str, Explanation]:
    """More specific words, such as `unknown_function`, with the code that appears with them."""
    return {word: each for each in known.values() for word in re.findall(r"[a-z]+(?:_[a-z]+)+", each.cause)}


def as_text(each: Explanation) -> str:
    """Text for a terminal."""
    parts = [f"{each.code}: {each.title}", _wrapped(each.facts, "")]
    parts += [f"Cause\n{_wrapped(each.cause)}", f"Example\n{textwrap.indent(each.example.strip(), '    ')}", f"Fix\n{_wrapped(each.fix)}"]
    parts.append(f"Related: {', '.join(each.related)}")
    return "\n\n".join(parts)


def _wrapped(text: str, indent: str = "    ") -> str:
    return textwrap.fill(text, 92, initial_indent=indent, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
