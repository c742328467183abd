# Every target sets up its own environment first; all that is needed beforehand is Python >= 3.11 and make.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

PYTHON ?= python3 python3.13 python3.12 python3.11
PY := .venv/bin/python
INSTALLED := .venv/.installed
EXTRAS := s3,plots,select,serve,client,train,ray,rl,dev
TORCH_VERSION := 2.13.0
CHAOS_SECONDS ?= 60
# What `make demo-grpo` trains with, one after another
GRPO_SEEDS ?= 0
# attacks for seconds each, nodes that come and go, every TIFF, every mode at size, every change that a kill may come before, every stop, 500 corruptions
LONG_CHAOS := tests/serve/test_hostile.py tests/jobs/test_churn.py tests/images tests/jobs/test_kills.py tests/tables
# What `make quick` tests: a folder or a file
T ?= tests
BENCHMARKS ?= assessor generation grounding grpo invariance pipeline resume planning memory scaling select_corpus serve training
FAST := not ray and not s3 and not slow and not chaos
# Files side by side, each with one thread for its arithmetic; tests with a Ray of several processes run one by one.
SIDE_BY_SIDE := OMP_NUM_THREADS=1 $(PY) -m pytest -n logical --dist loadfile
# docs/serve.md says what it does
SERVE_BY_GRPC := RAY_SERVE_THROUGHPUT_OPTIMIZED=1 RAY_SERVE_PROXY_USE_GRPC=1 RAY_SERVE_ENABLE_DIRECT_INGRESS=0
HEADS_FIRST := RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH=serve.admission.head:in_front

export RAY_USAGE_STATS_ENABLED := 0
# every process of a cluster would compile our modules anew
unexport PYTHONDONTWRITEBYTECODE

# The first interpreter of $(PYTHON) that runs and is new enough.
FIND_PYTHON = for python in $(PYTHON); do \
	  if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then break; fi; python=; \
	done; \
	if [ -z "$$python" ]; then \
	  echo "no Python >= 3.11 among: $(PYTHON); name one: make setup PYTHON=/path/to/python3.11" >&2; exit 1; \
	fi

.PHONY: help setup demo serve test check quick format tree chaos chaos-short bench demo-model demo-tuned demo-ablations demo-captions demo-written demo-grpo lock clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(INSTALLED) ## Make .venv with the pinned dependencies (minutes the first time; all others do it too)

$(INSTALLED): pyproject.toml constraints.txt
	@if [ ! -x $(PY) ]; then $(FIND_PYTHON); "$$python" -m venv .venv; fi
	@echo "installing the pinned dependencies into .venv (about 3 minutes the first time)"
	@$(PY) -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.[$(EXTRAS)]'
	@touch $@

demo: $(INSTALLED) ## Make 200 synthetic interiors, break a few more, score them all on a local Ray
	@rm -rf demo-out
	@$(PY) -m iqa_core scenes --count 200 --seed 7 --format folder --output demo-out/corpus
	@scene=$$(find demo-out/corpus -type f ! -name '*.csv' | sort | sed -n 1p); \
	mkdir demo-out/corpus/broken; \
	: > demo-out/corpus/broken/empty.jpg; \
	echo '<!doctype html><title>404 Not Found</title>' > demo-out/corpus/broken/page.jpg; \
	head -c 2000 "$$scene" > "demo-out/corpus/broken/cut.$${scene##*.}"
	@$(PY) jobs/score_corpus.py --input demo-out/corpus --output demo-out/scores
	@echo "images, three of them broken:  demo-out/corpus"
	@echo "score table and run.json:      demo-out/scores"

# IQA_API_TOKENS in the environment of make are asked for; without them this machine alone is served
serve: $(INSTALLED) ## Serve the demo assessor on http://127.0.0.1:8000 until interrupted
	@RAY_AUTH_MODE=disabled RAY_worker_niceness=0 $(SERVE_BY_GRPC) $(HEADS_FIRST) .venv/bin/serve run serve.app:app

test: $(INSTALLED) ## Run all tests but the long fault tests
	$(SIDE_BY_SIDE) -m "not ray and not chaos"
	$(PY) -m pytest -m "ray and not chaos" --durations 25

check: $(INSTALLED) ## Check format, lint, types and the fast tests (under 90 s on two cores; the first time mypy takes a minute more)
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy
	$(SIDE_BY_SIDE) -m "$(FAST)"

quick: $(INSTALLED) ## Run the fast tests of one folder or file: make quick T=tests/selection
	OMP_NUM_THREADS=1 $(PY) -m pytest -q -m "$(FAST)" $(T)

format: $(INSTALLED) ## Format the code and mend what the linter can mend
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

tree: $(INSTALLED) ## Write the tree of docs/architecture.md anew, from the first lines of the modules
	$(PY) docs/tree.py

chaos: $(INSTALLED) ## Run the long fault tests in full (by hand)
	$(PY) -m pytest -m chaos --timeout 7200

chaos-short: $(INSTALLED) ## The same in a time box (CHAOS_SECONDS of killing drivers: 60; half of it of headers that lie), without what takes long
	IQA_CHAOS_SECONDS=$(CHAOS_SECONDS) $(PY) -m pytest -m chaos $(foreach file,$(LONG_CHAOS),--deselect $(file)) \
	  --timeout 900 --session-timeout 1200 --durations 10

bench: $(INSTALLED) ## Run every benchmark; one JSON object per line
	@for benchmark in $(BENCHMARKS); do $(PY) benchmarks/$$benchmark.py --json; done

demo-model: demo-tuned ## Train the small checkpoint that ships with the project anew, and put it in its place
	$(PY) -m iqa_core.demo.card --export demo-model/run/checkpoint --figures demo-model/held-out.json

demo-tuned: $(INSTALLED) demo-model/base/assessor.toml ## The same up to its figures on held-out scenes and its ladder; what ships stays
	rm -rf demo-model/scenes demo-model/flawed demo-model/others demo-model/words demo-model/run demo-model/held-out demo-model/ladder
	$(PY) -m iqa_core scenes --count 1500 --seed 1 --output demo-model/scenes
	$(PY) -m iqa_core scenes --flawed --count 500 --seed 3 --output demo-model/flawed
	$(PY) -m iqa_core scenes --count 300 --seed 2 --output demo-model/others
	$(PY) -m iqa_core convert --annotations demo-model/others/annotations.csv --output sa-bench:demo-model/words \
	  --rubric interior-v1 --rubric interior-v2 --rubric interior-v3
	$(PY) jobs/train_sft.py --config iqa_core/demo/fine_tuning.toml
	$(PY) -m iqa_core scenes --count 500 --seed 1000003 --output demo-model/held-out
	$(PY) jobs/evaluate_assessor.py --annotations demo-model/held-out/annotations.csv --resamples 0 \
	  --assessor.checkpoint demo-model/run/checkpoint --rubric interior-v4 \
	  $(foreach version,3 2 1,--against 'demo-model/run/checkpoint?rubric=interior-v$(version)') \
	  --output demo-model/held-out.json
	$(PY) -m iqa_core check --ladder demo-model/held-out --limit 40 --output demo-model/ladder \
	  --checkpoint demo-model/run/checkpoint

demo-ablations: $(INSTALLED) demo-model/base/assessor.toml ## Fine-tune that base in other ways; the table goes into the demo's card
	$(PY) benchmarks/demo_ablations.py

demo-captions: $(INSTALLED) ## Fine-tune the demo to read captions (minutes), and judge it on 600 scenes that it has not seen
	rm -rf demo-model/captions
	$(PY) -m iqa_core scenes --captions --count 4000 --seed 11 --output demo-model/captions/train
	$(PY) jobs/train_sft.py --config iqa_core/demo/caption_tuning.toml
	$(PY) -m iqa_core scenes --captions --count 600 --seed 1000003 --output demo-model/captions/held-out
	$(PY) jobs/evaluate_assessor.py --annotations 'demo-model/captions/held-out/captions.csv?range=own' --resamples 0 \
	  --assessor.checkpoint demo-model/captions/run/checkpoint --slot prompt=caption

demo-written: $(INSTALLED) ## Teach the demo to write (15 minutes), judge it on 500 other scenes, and put it in the place of demo-written
	rm -rf demo-model/written
	$(PY) -m iqa_core scenes --texts --count 6000 --seed 21 --output demo-model/written/scenes
	$(PY) -m iqa_core scenes --texts --count 1500 --seed 22 --output demo-model/written/perceived
	$(PY) jobs/train_sft.py --config iqa_core/demo/writing.toml
	$(PY) -m iqa_core scenes --texts --count 500 --seed 1000003 --output demo-model/written/held-out
	$(PY) jobs/evaluate_assessor.py --annotations demo-model/written/held-out/annotations.csv \
	  --annotations demo-model/written/held-out/quality.csv --resamples 0 \
	  --assessor.checkpoint demo-model/written/run/checkpoint --output demo-model/written/written.json
	$(PY) jobs/evaluate_assessor.py --annotations demo-model/written/held-out/quality.csv --resamples 0 \
	  --assessor.checkpoint demo-model/written/run/checkpoint --rubric interior-perception-v1 \
	  --output demo-model/written/perception.json
	$(PY) -m iqa_core.demo.card --written --export demo-model/written/run/checkpoint \
	  --figures demo-model/written/written.json demo-model/written/perception.json

demo-grpo: $(INSTALLED) ## Spoil demo-written by noisy numbers, train it by ranking (9 minutes a seed), and judge it on 300 other scenes
	rm -rf demo-model/ranked
	$(PY) -m iqa_core scenes --texts --noise 1 --count 2400 --seed 31 --output demo-model/ranked/noisy
	$(PY) jobs/train_sft.py --config iqa_core/demo/noisy_writing.toml
	$(PY) -m iqa_core scenes --texts --count 800 --seed 32 --output demo-model/ranked/scenes
	for seed in $(GRPO_SEEDS); do \
	  $(PY) jobs/train_grpo.py --config iqa_core/demo/ranking.toml --seed $$seed --output demo-model/ranked/run-$$seed \
	    || exit 1; \
	done
	$(PY) -m iqa_core scenes --texts --count 300 --seed 1000003 --output demo-model/ranked/held-out
	$(PY) -m iqa_core.demo.ranked --before demo-model/ranked/noisy-run/checkpoint \
	  --after $(foreach seed,$(GRPO_SEEDS),demo-model/ranked/run-$(seed)/checkpoint) \
	  --annotations demo-model/ranked/held-out/annotations.csv --annotations demo-model/ranked/held-out/quality.csv \
	  --output demo-model/ranked/ranked.json

demo-model/base/assessor.toml: | $(INSTALLED)
	$(PY) -m iqa_core.demo.base --output demo-model/base --resume

lock: ## Make constraints.txt anew from a fresh environment
	@$(FIND_PYTHON); rm -rf .venv-lock; "$$python" -m venv .venv-lock
	.venv-lock/bin/python -m pip install --disable-pip-version-check torch==$(TORCH_VERSION) -e '.[$(EXTRAS)]'
	{ grep '^#' constraints.txt; .venv-lock/bin/python -m pip freeze --exclude-editable \
	  | grep -Ev '^(nvidia-|cuda-|triton)' | sed -E 's/^(torch==[^+]+)\+.*/\1/'; } > constraints.new
	mv constraints.new constraints.txt
	rm -rf .venv-lock

clean: ## Remove the environment, caches and whatever demo and bench left behind
	rm -rf .venv .venv-lock demo-out demo-model bench-out build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
