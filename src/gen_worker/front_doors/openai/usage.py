"""Token counts in the OpenAI API's format."""

from gen_worker.contract.run import Usage
from gen_worker.front_doors.runs import DoneRun


def usage_of(done: DoneRun | None) -> dict[str, int]:
    """The tokens reported by the function; 0 if it reports none."""
    found = (done.usage if done is not None else None) or Usage()
    total = found.input_tokens + found.output_tokens
    return {"prompt_tokens": found.input_tokens, "completion_tokens": found.output_tokens, "total_tokens": total}
