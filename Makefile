# Start with these two: `make demo` trains on synthetic landscapes and paints held-out ones; `make test` runs the tests.
#
#   make demo DATA=path/to/monet2photo [SIZE=128] [STEPS=1400]     the demo on your own trainA trainB testA testB
#   make slow                                                      slow tests: runs and sweeps that are killed and resume; the benchmarks
#   make chaos                                                     faults across several hosts, and the table of results; Linux, as root
#   make gpu                                                       tests that need a GPU: kernels and steps, bit by bit
#   make lint                                                      ruff and mypy

PYTHON ?= python3
BIN := .venv/bin

# The folder of the demo's images; if empty, synthetic ones are drawn. SIZE is their side in pixels.
DATA ?=
SIZE ?= 128
STEPS ?=
# Not make's own functions, which would split a path at its spaces.
NAME := $(if $(DATA),$(shell basename "$(DATA)"),synthetic)-$(SIZE)px$(if $(STEPS),-$(STEPS)steps)
DEMO := demo/$(NAME)
IMAGES := $(if $(DATA),$(DATA),$(DEMO)/images)
TRUTH := $(if $(DATA),,--truth "$(IMAGES)/truthB2A")
# The demo's global batch is 2 (cluster/configs/demo.yaml): the clock is image pairs, not steps.
LENGTH := $(if $(STEPS),--schedule.images $(shell expr $(STEPS) \* 2))
# bf16 takes two thirds of the time of fp32 on CPUs with instructions for it, and 6 times as long on others, such as most laptops'.
PRECISION := $(shell grep -qsE 'avx512_bf16|amx_bf16' /proc/cpuinfo && echo bf16 || echo fp32)

.PHONY: install demo test slow chaos gpu lint debian
.DELETE_ON_ERROR:

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v <= (3, 13) else f"error: Python 3.11 to 3.13 is needed, $(PYTHON) is {v[0]}.{v[1]}; choose another with PYTHON=python3.12")'
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: install
	$(if $(DATA),,$(BIN)/python -m data_shards synth "$(IMAGES)" --size $(SIZE))
	$(BIN)/python -m nla_cyclegan evaluate --dry-run --inputs "$(IMAGES)/testB" --real "$(IMAGES)/testA" $(TRUTH)
	$(BIN)/python -m data_shards pack "$(IMAGES)" "$(DEMO)/shards" --size $(SIZE)
	$(BIN)/python -m cluster train --config cluster/configs/demo.yaml --data.uri "$(DEMO)/shards" --storage "$(DEMO)" \
	    --data.load_size $(SIZE) --step.precision $(PRECISION) $(LENGTH)
	$(BIN)/python -m nla_cyclegan translate --weights "$(DEMO)/run" --direction B2A --size $(SIZE) --out "$(DEMO)/painted" \
	    --grid "$(DEMO)/grid.png" $(TRUTH) "$(IMAGES)/testB"
	$(BIN)/python -m nla_cyclegan evaluate --translations "$(DEMO)/painted" --inputs "$(IMAGES)/testB" --real "$(IMAGES)/testA" \
	    $(TRUTH) --size $(SIZE) --inception none --json "$(DEMO)/scores.json"
	@echo
	@echo "The paintings are in $(DEMO)/painted, the picture grid is $(DEMO)/grid.png, the scores are in $(DEMO)/scores.json."

# The tests use Debian's Chromium to open the dashboard, and iproute2 to simulate hosts; without them those tests are skipped.
debian:
	apt-get update --quiet=2
	DEBIAN_FRONTEND=noninteractive apt-get install --quiet=2 --yes --no-install-recommends chromium chromium-driver iproute2

test: install
	$(BIN)/python -m pytest tests

slow: install
	$(BIN)/python -m pytest tests -m slow

chaos: install
	CHAOS_TABLE=1 $(BIN)/python -m pytest tests/chaos -m "chaos or not chaos"
	$(BIN)/python tests/helpers/fault_table.py

gpu: install
	$(BIN)/python -m pytest tests -m gpu

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --allow-untyped-defs --no-warn-unused-ignores --follow-imports silent tests/benchmarks tests/gpu
