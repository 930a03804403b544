"""Functions that declare a task, for the project of `platform_process`: stand-ins for models."""

TASK_FUNCTIONS = """
from gen_worker import tasks

@worker_function(task="chat")
def talk(ctx: ActionContext, payload: tasks.ChatInput) -> Iterator[tasks.ChatDelta]:
    for word in payload.messages[-1].text.split(" ") if payload.messages else ():
        if word == "wait":
            ctx.done().wait(60)
            if ctx.is_canceled(): raise InterruptedError("canceled")
        ctx.report_usage(output_tokens=1)
        yield tasks.ChatDelta(word)
    ctx.report_usage(input_tokens=len(payload.messages))

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
