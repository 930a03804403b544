# Builds the worker image of a project: docker build -t my-worker -f Dockerfile examples/hello
ARG PYTHON_VERSION=3.12
FROM ghcr.io/astral-sh/uv:python${PYTHON_VERSION}-bookworm-slim

# A wheel that lies in the project's folder, a requirement such as gen-worker==0.2.0, or a git address; empty: as the project says.
ARG GEN_WORKER_SPEC=""
# A version range for torch, such as ~=2.10.0, and the build of it (cpu, cu126, cu128); empty: as the project says.
ARG TORCH_SPEC=""
ARG UV_TORCH_BACKEND=""
# A page or folder with wheels that no index has.
ARG UV_FIND_LINKS=""

# The name of another user than root, made if need be.
ARG WORKER_USER=root

ENV VIRTUAL_ENV=/opt/venv PATH=/opt/venv/bin:$PATH UV_LINK_MODE=copy PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /app
RUN id "$WORKER_USER" > /dev/null 2>&1 || useradd --create-home "$WORKER_USER"; install -d -o "$WORKER_USER" /outputs

# Dependencies: this layer is built again only when one of these files changes.
COPY pyproject.toml uv.lock* *.whl* /tmp/dependencies/
# watchfiles serves `cozyctl dev` alone, which has nothing to watch in an image; a project that names it itself gets it. Of Pygments, rich needs
# the lexer of Python and no other: the rest goes where nobody else asks for it.
RUN set -eu; cd /tmp/dependencies; touch overrides.txt; \
    grep -q watchfiles pyproject.toml || echo "watchfiles; sys_platform == 'never'" > overrides.txt; \
    case "$GEN_WORKER_SPEC" in \
      "") ;; \
      *.whl) echo "gen-worker @ file://$PWD/$GEN_WORKER_SPEC" >> overrides.txt ;; \
      *://*) echo "gen-worker @ $GEN_WORKER_SPEC" >> overrides.txt ;; \
      *) echo "$GEN_WORKER_SPEC" >> overrides.txt ;; \
    esac; \
    if [ -n "$TORCH_SPEC" ]; then echo "torch$TORCH_SPEC" >> overrides.txt; fi; \
    if [ -z "$UV_TORCH_BACKEND" ]; then unset UV_TORCH_BACKEND; fi; \
    if [ -z "$UV_FIND_LINKS" ]; then unset UV_FIND_LINKS; fi; \
    wanted=pyproject.toml; \
    if [ -f uv.lock ]; then \
      wanted=requirements.txt; \
      uv export -q --no-cache --frozen --no-dev --no-emit-project --no-hashes -o requirements.txt; \
    fi; \
    uv venv -q /opt/venv; \
    uv pip install --no-cache --override overrides.txt -r "$wanted"; \
    command -v cozyctl > /dev/null || { \
      echo "error: this gen-worker is another project's package of that name; give GEN_WORKER_SPEC, or a source in pyproject.toml" >&2; exit 1; }; \
    python -m compileall -q -j 0 --invalidation-mode unchecked-hash -x '/(pygments|rich|markdown_it|pip|grpc/(beta|framework)|gen_worker/(cli|images|testing))/' /opt/venv/lib > /dev/null || true; \
    find /opt/venv/lib \( -path '*/uvloop/*' -o -path '*/httptools/*' \) ! -name '*.py' ! -name '*.so' ! -name '*.pyi' -type f -delete; \
    find /opt/venv/lib/*/site-packages/grpc /opt/venv/lib/*/site-packages/gen_worker -name '*.py[ix]' -delete; \
    if ! grep -qi pygments pyproject.toml && [ "$(cat /opt/venv/lib/*/site-packages/*.dist-info/METADATA | grep -ci '^requires-dist: *pygments')" = 1 ]; then \
      find /opt/venv/lib/*/site-packages/pygments/lexers -name '[a-z]*.py' ! -name python.py ! -name special.py -delete; \
    fi; \
    rm -rf /tmp/dependencies

# The project: after a change of code only this layer differs.
COPY . .

# What its functions are. Equal functions make an equal layer, so times are set to one value.
RUN set -eu; touch /tmp/began; unset UV_TORCH_BACKEND UV_FIND_LINKS; \
    uv pip install -q --no-cache --no-deps -e .; \
    find /opt/venv -name uv_cache.json -newer /tmp/began -delete; \
    find /opt/venv -name RECORD -newer /tmp/began -exec sed -i '/uv_cache.json/d' {} +; \
    mkdir -p .cozy; python -m gen_worker.discover --check-version > .cozy/manifest.json; \
    find /app /opt/venv -newer /tmp/began -exec touch -h -d @1 {} +; rm /tmp/began; touch -d @1 /tmp

USER ${WORKER_USER}
ENTRYPOINT ["python", "-m", "gen_worker.entrypoint"]
