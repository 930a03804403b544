"""Chat with a language model: tokens are sent as they are made."""

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Annotated, Any, Literal

import msgspec
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, StoppingCriteria, TextIteratorStreamer

from gen_worker import ActionContext, Clamp, ModelRef, ModelRefSource, ValidationError, worker_function
from gen_worker.tasks import ChatDelta


class Message(msgspec.Struct):
    role: Literal["system", "user", "assistant"]
    content: str


class Chat(msgspec.Struct):
    """A conversation, and how to go on with it. Temperature 0 takes the likeliest token each time."""

    messages: Annotated[
        list[Message], msgspec.Meta(min_length=1, examples=[[{"role": "user", "content": "What is the capital of France?"}]])
    ]
    max_tokens: Annotated[int, Clamp(1, 4096)] = 512
    temperature: Annotated[float, Clamp(0, 2)] = 0.7
    top_p: Annotated[float, Clamp(0.01, 1)] = 0.9


class Stop(StoppingCriteria):  # type: ignore[misc]
    """Ends the answer of a canceled run at the next token, and counts tokens."""

    def __init__(self, ctx: ActionContext) -> None:
        self.ctx = ctx
        self.tokens = 0

    def __call__(self, input_ids: Any, scores: Any, **options: Any) -> Any:
        self.tokens += 1
        return torch.full((input_ids.shape[0],), self.ctx.is_canceled(), device=input_ids.device)


@worker_function(task="chat")
def chat(
    ctx: ActionContext,
    model: Annotated[AutoModelForCausalLM, ModelRef(ModelRefSource.FIXED, "chat")],
    tokenizer: Annotated[AutoTokenizer, ModelRef(ModelRefSource.FIXED, "chat")],
    payload: Chat,
) -> Iterator[ChatDelta]:
    """Answer the last message of a conversation."""
    messages = [{"role": message.role, "content": message.content} for message in payload.messages]
    batch = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True).to(ctx.device)
    prompt_tokens = batch["input_ids"].shape[1]
    limit = model.config.max_position_embeddings
    if prompt_tokens >= limit:
        raise ValidationError(f"the messages take {prompt_tokens} tokens, the model reads {limit}; send fewer or shorter ones")
    new_tokens = min(payload.max_tokens, limit - prompt_tokens)
    streamer = TextIteratorStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
    stop = Stop(ctx)
    options: dict[str, Any] = {"do_sample": False}
    if payload.temperature > 0:
        options = {"do_sample": True, "temperature": payload.temperature, "top_p": payload.top_p}

    def end_stream(generated: Future[Any]) -> None:
        if generated.exception() is not None:
            streamer.end()

    began_s = time.monotonic()
    with ThreadPoolExecutor(1) as executor:
        generated = executor.submit(
            model.generate, **batch, **options, max_new_tokens=new_tokens, streamer=streamer, stopping_criteria=[stop]
        )
        generated.add_done_callback(end_stream)
        for text in streamer:
            if text:
                yield ChatDelta(text)
        generated.result()
    if ctx.is_canceled():
        raise InterruptedError("canceled")
    ctx.report_usage(input_tokens=prompt_tokens, output_tokens=stop.tokens)
    yield ChatDelta(finish_reason="length" if stop.tokens >= new_tokens else "stop")
    seconds = max(time.monotonic() - began_s, 1e-9)
    ctx.log(f"{prompt_tokens} tokens read, {stop.tokens} written, {stop.tokens / seconds:.1f} a second")
