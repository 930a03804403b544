"""Texts in, vectors out, by a sentence encoder: for search, grouping, finding what is alike."""

from collections.abc import Iterator
from typing import Annotated, Any

import msgspec
from sentence_transformers import SentenceTransformer

from gen_worker import ActionContext, ModelRef, ModelRefSource, ValidationError, worker_function
from gen_worker.tasks import EmbeddingsOutput

AT_ONCE = 64  # texts


class Texts(msgspec.Struct):
    """Each text gets a vector of length 1: the product of two says how alike their texts are."""

    input: Annotated[list[str], msgspec.Meta(min_length=1, max_length=2048, examples=[["a red kite"]])]
    truncate: Annotated[bool, msgspec.Meta(description="Read the beginning of a text that is too long, instead of refusing it")] = False


@worker_function(task="embeddings")
def embed(
    ctx: ActionContext,
    encoder: Annotated[SentenceTransformer, ModelRef(ModelRefSource.FIXED, "encoder")],
    payload: Texts,
) -> EmbeddingsOutput:
    """A vector for each text."""
    tokens = sum(count_tokens(encoder, payload))
    vectors: list[list[float]] = []
    for begin in range(0, len(payload.input), AT_ONCE):
        if ctx.is_canceled():
            raise InterruptedError("canceled")
        some = encoder.encode(payload.input[begin : begin + AT_ONCE], normalize_embeddings=True, show_progress_bar=False)
        vectors += some.tolist()
        ctx.progress(len(vectors) / len(payload.input), stage="embed")
    ctx.report_usage(input_tokens=tokens)
    return EmbeddingsOutput(vectors)


def count_tokens(encoder: Any, payload: Texts) -> Iterator[int]:
    """Tokens that the model reads of each text; `ValidationError` for a text that it cannot read to its end."""
    limit = encoder.max_seq_length
    found = encoder.tokenizer(payload.input, truncation=False, padding=False, verbose=False)["input_ids"]
    for number, tokens in enumerate(found):
        if len(tokens) > limit and not payload.truncate:
            raise ValidationError(
                f"input[{number}] has {len(tokens)} tokens, and the model reads {limit}; split the text, or send truncate=true to have its "
                "beginning alone"
            )
        yield min(len(tokens), limit)
