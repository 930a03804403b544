"""What `cozyctl init` writes: small, complete endpoints."""

import msgspec


class Template(msgspec.Struct, frozen=True):
    """`main` is the module's text, `first_run` the command for a first result, `test` the text of a test."""

    main: str
    first_run: str
    summary: str
    test: str
    dependencies: tuple[str, ...] = ()
    models: str = ""


_HELLO = '''"""Text in, text out."""

import msgspec
from gen_worker import ActionContext, worker_function


class Input(msgspec.Struct):
    prompt: str


class Output(msgspec.Struct):
    text: str


@worker_function()
def generate(ctx: ActionContext, payload: Input) -> Output:
    """Greet whoever the prompt names."""
    return Output(text=f"Hello, {payload.prompt}!")
'''

_STREAM = '''"""Text in, words out, one at a time."""

from collections.abc import Iterator

import msgspec
from gen_worker import ActionContext, worker_function


class Input(msgspec.Struct):
    prompt: str


class Delta(msgspec.Struct):
    chunk: str


@worker_function()
def generate(ctx: ActionContext, payload: Input) -> Iterator[Delta]:
    """Give the prompt back, one word at a time."""
    words = payload.prompt.split()
    for number, word in enumerate(words, start=1):
        if ctx.is_canceled():
            raise InterruptedError("canceled")
        ctx.progress(number / len(words))
        yield Delta(chunk=f"{word} ")
'''

_DIFFUSERS = '''"""A prompt in, a picture out, by a diffusers pipeline that the worker loads and keeps."""

import io
from typing import Annotated, Any

import msgspec
import torch
from diffusers import DiffusionPipeline
from gen_worker import ActionContext, Asset, Clamp, ModelRef, ModelRefSource, ResourceRequirements, worker_function


class Input(msgspec.Struct):
    prompt: str
    num_inference_steps: Annotated[int, Clamp(1, 50)] = 20
    seed: int = 0


class Output(msgspec.Struct):
    image: Asset


@worker_function(ResourceRequirements(max_concurrency=1))
def generate(
    ctx: ActionContext,
    pipe: Annotated[DiffusionPipeline, ModelRef(ModelRefSource.FIXED, "base")],
    payload: Input,
) -> Output:
    """Draw the prompt."""

    def on_step_end(pipe: Any, step: int, timestep: int, tensors: dict[str, Any]) -> dict[str, Any]:
        if ctx.is_canceled():
            raise InterruptedError("canceled")
        ctx.progress((step + 1) / payload.num_inference_steps, stage="draw")
        return tensors

    image = pipe(
        payload.prompt,
        num_inference_steps=payload.num_inference_steps,
        generator=torch.Generator().manual_seed(payload.seed),
        callback_on_step_end=on_step_end,
    ).images[0]
    png = io.BytesIO()
    image.save(png, "PNG")
    return Output(ctx.save_bytes(f"runs/{ctx.run_id}/outputs/image.png", png.getvalue()))
'''

_HELLO_TEST = """def test_generate(endpoint):
    assert endpoint.run("generate", {"prompt": "world"}) == {"text": "Hello, world!"}
"""

_STREAM_TEST = """def test_generate(endpoint):
    chunks = [delta["chunk"] for delta in endpoint.stream("generate", {"prompt": "one two"})]
    assert "".join(chunks).split() == ["one", "two"]
"""

_DIFFUSERS_TEST = """import pytest


def test_generate(endpoint, pytestconfig):
    if not pytestconfig.getini("endpoint_models"):
        pytest.skip("name a folder with a pipeline in pyproject.toml: [tool.pytest.ini_options] endpoint_models = ['base=FOLDER']")
    output = endpoint.run("generate", {"prompt": "a red kite", "num_inference_steps": 1}, timeout_s=300)
    assert endpoint.saved(output["image"]["ref"]).startswith(b"\\x89PNG")
"""

TEMPLATES = {
    "hello": Template(_HELLO, "run generate -i prompt=world", "Text in, text out.", _HELLO_TEST),
    "stream": Template(_STREAM, "run generate -i prompt='one two three'", "Text in, its words out, one at a time.", _STREAM_TEST),
    "diffusers": Template(
        _DIFFUSERS,
        "models plan && cozyctl run generate -i prompt='a red kite'   # the first run fetches 2.1 GB; --model base=FOLDER takes a folder",
        "A prompt in, a picture out, by a diffusers pipeline.",
        _DIFFUSERS_TEST,
        ("diffusers>=0.35", "pillow>=10", "torch>=2.6", "transformers>=4.48"),
        '\n[models]\nbase = "hf:stable-diffusion-v1-5/stable-diffusion-v1-5"\n\n[resources]\nvram_gb = 6\n',
    ),
}

_DOCKERFILE = """# Builds the worker's image: cozyctl build, or docker build -t {name} .
FROM ghcr.io/astral-sh/uv:python3.12-bookworm-slim
ENV UV_PROJECT_ENVIRONMENT=/opt/venv VIRTUAL_ENV=/opt/venv PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1
ENV UV_LINK_MODE=copy UV_NO_CACHE=1 UV_COMPILE_BYTECODE=1 PYC_INVALIDATION_MODE=UNCHECKED_HASH
WORKDIR /app
{git}
# Dependencies have a layer of their own, built and pushed again only when one of these files changes.
COPY pyproject.toml uv.lock* *.whl* ./
RUN uv sync --no-dev --no-install-project

# Another gen-worker than pyproject.toml names: a wheel in this folder, or a git address (--build-arg GEN_WORKER_SPEC=...).
ARG GEN_WORKER_SPEC="{spec}"
RUN if [ -n "$GEN_WORKER_SPEC" ]; then uv pip install "$GEN_WORKER_SPEC"; fi; \\
    command -v cozyctl > /dev/null || {{ echo "error: {foreign}" >&2; exit 1; }}

# The code, and the manifest of its functions. The packages are compiled already: again, they would all lie in this layer, too.
COPY . .
RUN UV_COMPILE_BYTECODE=0 uv sync --no-dev --inexact --no-install-package gen-worker \\
    && mkdir -p /app/.cozy && python -m gen_worker.discover --check-version > /app/.cozy/manifest.json

ENTRYPOINT ["python", "-m", "gen_worker.entrypoint"]
"""

_GIT = """
# gen-worker comes from a git address.
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates git && rm -rf /var/lib/apt/lists/*
"""

_FOREIGN = "this gen-worker is another project's package of that name; name ours in pyproject.toml, under [tool.uv.sources]"

_GITIGNORE = ".venv/\n__pycache__/\noutputs/\n"

_DOCKERIGNORE = ".git\n.venv*\n**/__pycache__\noutputs\n.env\n"

_README = """# {name}

{summary}

```console
uv sync --extra dev               # or: python -m venv .venv && .venv/bin/pip install {install} -e '.[dev]'
cozyctl check                     # what is missing or wrong, and how to fix it
cozyctl {run}
cozyctl dev                       # serve over HTTP; a page to try it: http://127.0.0.1:8081/docs
pytest                            # the functions, run by a real worker
cozyctl build                     # the worker's image
```

| file | what |
|---|---|
| `src/{package}/main.py` | the functions |
| `cozy.toml` | name, models, limits of functions |
| `tests/` | tests of the functions |
| `Dockerfile` | the image |
"""


class Source(msgspec.Struct, frozen=True):
    """Where a new project gets gen-worker from. `value` goes into `[tool.uv.sources]` of pyproject.toml, `spec` into the Dockerfile."""

    value: str = ""
    spec: str = ""
    install: str = "gen-worker"


def render_template(template: str, name: str, source: Source = Source()) -> dict[str, str]:  # noqa: B008 - frozen
    """Files of a new endpoint called `name` (a slug), by path."""
    return render_project(TEMPLATES[template], name, source)


def render_project(chosen: Template, name: str, source: Source = Source()) -> dict[str, str]:  # noqa: B008 - frozen
    """Like `render_template`, from a template made for one project."""
    package = name.replace("-", "_").replace(".", "_")
    if not package.isidentifier():
        package = f"endpoint_{package}"
    dependencies = "".join(f'    "{item}",\n' for item in ("gen-worker>=0.2.0,<0.3.0", *chosen.dependencies))
    note = "# The package index has another project under this name.\n"
    sources = f"\n[tool.uv.sources]\n{note}gen-worker = {source.value}\n" if source.value else ""
    run = chosen.first_run.partition("   #")[0].partition("&& cozyctl ")
    return {
        "cozy.toml": f'schema_version = 1\nname = "{name}"\nmain = "{package}.main"\ngen_worker = ">=0.2.0,<0.3.0"\n{chosen.models}',
        "pyproject.toml": (
            f'[project]\nname = "{name}"\nversion = "0.1.0"\nrequires-python = ">=3.11"\ndependencies = [\n{dependencies}]\n\n'
            '[project.optional-dependencies]\ndev = ["pytest>=8"]\n\n'
            '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n\n'
            f'[tool.hatch.build.targets.wheel]\npackages = ["src/{package}"]\n'
            f'{sources}\n[tool.pytest.ini_options]\ntestpaths = ["tests"]\npythonpath = ["src"]\n'
        ),
        "Dockerfile": render_dockerfile(name, source),
        "README.md": _README.format(
            name=name, summary=chosen.summary.format(package=package), package=package, run=run[2] or run[0], install=source.install
        ),
        ".dockerignore": _DOCKERIGNORE,
        ".gitignore": _GITIGNORE,
        f"src/{package}/__init__.py": "",
        f"src/{package}/main.py": chosen.main,
        "tests/test_main.py": chosen.test,
    }


def render_dockerfile(name: str, source: Source = Source()) -> str:  # noqa: B008 - frozen
    """The Dockerfile of an endpoint called `name`."""
    git = _GIT if source.spec.startswith("git+") else ""
    return _DOCKERFILE.format(name=name, spec=source.spec, foreign=_FOREIGN, git=git)
