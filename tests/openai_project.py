"""The project that the tests of the OpenAI front door serve: stand-ins for models, one for each task."""

MEDIA = """
@worker_function(task="embeddings")
def embed(ctx: ActionContext, payload: tasks.EmbeddingsInput) -> tasks.EmbeddingsOutput:
    ctx.report_usage(input_tokens=sum(len(text.split()) for text in payload.input))
    return tasks.EmbeddingsOutput([[float(len(text)), 0.1, -2.5][: payload.dimensions] for text in payload.input])

@worker_function(task="image")
def draw(ctx: ActionContext, payload: tasks.ImageInput) -> tasks.ImageOutput:
    name, size = f"runs/{ctx.run_id}/outputs", f"{payload.width}x{payload.height}"
    return tasks.ImageOutput([ctx.save_bytes(f"{name}/{n}.png", f"\\x89PNG {size} {payload.prompt} {n}".encode("latin-1")) for n in range(payload.n)])

@worker_function(task="transcription")
def hear(ctx: ActionContext, payload: tasks.TranscriptionInput) -> tasks.TranscriptionOutput:
    words = payload.file.read_bytes().decode("latin-1").removeprefix("RIFF....WAVE").split()
    segments = [tasks.TranscriptionSegment(n, n + 0.5, word) for n, word in enumerate(words)]
    return tasks.TranscriptionOutput(" ".join(words), payload.language, float(len(words)), segments)

@worker_function(task="speech")
def speak(ctx: ActionContext, payload: tasks.SpeechInput) -> tasks.SpeechOutput:
    said = f"RIFF....WAVE{payload.voice} says {payload.input} at {payload.speed}"
    return tasks.SpeechOutput(ctx.save_bytes(f"runs/{ctx.run_id}/outputs/said.{payload.response_format}", said.encode()))
"""

CODE = (
    """
from gen_worker import tasks

class Small(msgspec.Struct):
    messages: list[tasks.ChatMessage]

class Said(msgspec.Struct):
    content: str

@worker_function(task="chat")
def chat(ctx: ActionContext, payload: tasks.ChatInput) -> Iterator[tasks.ChatDelta]:
    "Says the last message back, word by word."
    text = payload.messages[-1].text
    if text == "refuse": raise ValidationError("I take no such words")
    if text == "break": raise RuntimeError("the device is in a bad state")
    if len(payload.tools) > 1:
        calls = [tasks.ToolCallDelta(id=f"call_{n}", function=tasks.FunctionCallDelta(tool.function.name, "{}")) for n, tool in enumerate(payload.tools)]
        yield tasks.ChatDelta(tool_calls=calls)
    elif payload.tools:
        yield tasks.ChatDelta(tool_calls=[tasks.ToolCallDelta(id="call_7", function=tasks.FunctionCallDelta("weather"))])
        yield tasks.ChatDelta(tool_calls=[tasks.ToolCallDelta(function=tasks.FunctionCallDelta(arguments='{"city": '))])
        yield tasks.ChatDelta(tool_calls=[tasks.ToolCallDelta(function=tasks.FunctionCallDelta(arguments='"Oslo"}'))])
    else:
        for number, word in enumerate(text.split(" ")[: payload.max_tokens]):
            if word == "now-break": raise ValidationError("in the middle")
            if word == "wait":
                ctx.done().wait(60)
                if ctx.is_canceled(): raise InterruptedError("canceled")
            ctx.report_usage(output_tokens=1)
            yield tasks.ChatDelta(content=word if number == 0 else " " + word)
        if payload.stop: yield tasks.ChatDelta(content=f" {payload.stop} {payload.temperature}", finish_reason="length")
    ctx.report_usage(input_tokens=len(payload.messages))

@worker_function(task="chat")
def brief(ctx: ActionContext, payload: Small) -> Said:
    return Said(f"{len(payload.messages)}: {payload.messages[0].content}")

@worker_function(task="completion")
def go_on(ctx: ActionContext, payload: tasks.CompletionInput) -> Iterator[tasks.CompletionDelta]:
    for word in (payload.prompt, " and", " on"):
        yield tasks.CompletionDelta(word)

@worker_function(task="transcription")
def hear_on(ctx: ActionContext, payload: tasks.TranscriptionInput) -> Iterator[tasks.TranscriptionOutput]:
    for word in payload.file.read_bytes().decode("latin-1").removeprefix("RIFF....WAVE").split():
        yield tasks.TranscriptionOutput(word)

@worker_function()
def plain(ctx: ActionContext, payload: Small) -> Said:
    return Said("no task")
"""
    + MEDIA
)
