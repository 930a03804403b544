"""The documentation pages of error codes: one for each code, and one that lists them. scripts/error-codes writes them."""

import msgspec

from gen_worker.cli.explain import Explanation, explanations
from gen_worker.http.phrases import PHRASES
from gen_worker.http.problems import problem

INDEX = "docs/error-codes.md"
FOLDER = "docs/error-codes"
_GROUPS = (
    ("run", "A run ended with it", "`code` in the run's `error`, and in the answer of `POST /v1/run/FUNCTION`."),
    ("request", "A server refused a request with it", "`code` in an answer of type `application/problem+json` (RFC 9457)."),
    ("client", "The Python client raises it", "`code` of a `ClientError`."),
    ("cozyctl", "cozyctl reports it", "`code` in the output of `cozyctl ... --json`."),
)


def error_pages() -> dict[str, str]:
    """The Markdown of each page by its path in the repository."""
    known = explanations()
    return {INDEX: _index(known), **{f"{FOLDER}/{code}.md": _page(each, known) for code, each in known.items()}}


def example_answer(each: Explanation) -> str:
    """An HTTP answer with this code: a problem, or the platform's object of a run that ended with it. Empty for other codes."""
    if each.http is None or not each.detail:
        return ""
    told = problem(each.http, each.code, each.detail, error=each.error)
    if "request" in each.where:
        head, body = f"HTTP/1.1 {each.http} {PHRASES[each.http]}\ncontent-type: application/problem+json\n\n", msgspec.to_builtins(told)
    else:
        told = msgspec.structs.replace(told, retryable=each.again == "yes")
        head, body = "", {"id": "01JD...", "status": "expired" if each.code == "expired" else "failed", "error": msgspec.to_builtins(told)}
    return head + msgspec.json.format(msgspec.json.encode(body), indent=2).decode()


def _page(each: Explanation, known: dict[str, Explanation]) -> str:
    answer = example_answer(each)
    parts = [
        f"# {each.code}",
        f"**{each.title}.** {each.facts}",
        f"## Cause\n\n{each.cause}",
        f"## Example\n\n{_fenced('text', each.example.strip())}",
        f"## Example answer\n\n{_fenced('text' if answer.startswith('HTTP') else 'json', answer)}" if answer else "",
        f"## Fix\n\n{each.fix}",
        "## Related codes\n\n" + "\n".join(f"- [`{code}`]({code}.md): {known[code].title}" for code in each.related),
        f"`cozyctl explain {each.code}` prints this. All codes: [error codes](../error-codes.md).",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _index(known: dict[str, Explanation]) -> str:
    parts = [
        "# Error codes",
        "Every error has a short, stable code. Each code below links to a page with its cause, an example and the fix; "
        "`cozyctl explain CODE` prints the same text.\n[Errors](errors.md) says how exceptions in a function become codes.",
    ]
    for place, title, about in _GROUPS:
        rows = [
            f"| [`{each.code}`](error-codes/{each.code}.md) | {each.http or ''} | {each.title} |"
            for each in known.values()
            if each.where[0] == place
        ]
        parts.append(f"## {title}\n\n{about}\n\n| code | HTTP | meaning |\n|---|---|---|\n" + "\n".join(rows))
    return "\n\n".join(parts) + "\n"


def _fenced(language: str, text: str) -> str:
    return f"```{language}\n{text}\n```"
