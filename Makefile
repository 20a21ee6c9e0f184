# Two commands to start with: `make demo` shows the whole thing at work, `make test` checks it.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# DATA: a data set's folder instead of the synthetic one; BROKER: embedded, docker, or host:port of a running Kafka.
DATA ?=
# CLICK_AT: the rating from which on a rating of that data set is a click.
CLICK_AT ?=
BROKER ?= embedded
# KEEP=1: the demo goes on with its traffic after the report, with the live page open, until Ctrl-C.
KEEP ?=
# BACKBONE: pre-trained weights for the demo's model, e.g. smollm2 (docs/pretrained.md); LAYERS: how many of its layers.
BACKBONE ?=
LAYERS ?=
# Further arguments for every pip install, e.g. PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu".
PIP_ARGS ?=

.PHONY: install demo test fast mutants lint types contracts docs audit wheels generated clean

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV) (a few minutes the first time)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c constraints.txt setuptools
	@# torch first and by its exact pin: asked for through others, it may come with gigabytes of CUDA.
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) "$$(grep '^torch==' constraints.txt)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c constraints.txt \
		--no-build-isolation -e '.[demo,data,lora,pretrained,tracing,benchmarks,docs,dev]'
	@touch $@

demo: install
	@exec $(BIN)/exitstream demo --broker $(BROKER) $(if $(DATA),--data $(DATA)) $(if $(CLICK_AT),--click-at $(CLICK_AT)) $(if $(KEEP),--keep) \
		$(if $(BACKBONE),--backbone $(BACKBONE)) $(if $(LAYERS),--layers $(LAYERS))

# Everything CI checks. Fast checks come first.
test: install lint types contracts docs
	$(BIN)/python -m pytest -q tests --ignore=tests/integration
	$(BIN)/python -m pytest -q tests/integration

# What tells within a minute whether something basic broke.
fast: install
	$(BIN)/python -m pytest -q -x tests -m "not slow and not docker" --ignore=tests/integration

# Puts small faults into the modules of tests/mutation/modules.toml and counts those that no test notices: docs/testing.md.
# MODULES: only these, e.g. "worker/ models/prompt.py"; JOBS: mutants at a time.
MODULES ?=
JOBS ?= $(shell nproc)
mutants: install
	$(BIN)/python tests/mutation/run.py --jobs $(JOBS) $(MODULES)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy

contracts: install
	$(BIN)/lint-imports --no-cache

# The docs' site, into out/site. A link or anchor that leads nowhere is an error (not with --quiet, which hides it).
docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --site-dir out/site

# Compares the pins with the known vulnerabilities; needs the internet. A pin that cannot be looked up is a failure.
audit: install
	@test -x out/audit/bin/pip-audit || { $(PYTHON) -m venv out/audit && \
		out/audit/bin/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) pip-audit; }
	out/audit/bin/pip-audit --strict --no-deps --disable-pip -r constraints.txt

# Fills deploy/wheels, for an image build that reaches no package index.
wheels: install
	$(BIN)/python -m pip download --quiet --disable-pip-version-check --dest deploy/wheels $(PIP_ARGS) \
		"$$(grep '^torch==' constraints.txt)"
	$(BIN)/python deploy/requirements.py lora tracing >deploy/wheels/requirements.txt
	$(BIN)/python -m pip download --quiet --disable-pip-version-check --dest deploy/wheels --find-links deploy/wheels \
		$(PIP_ARGS) -c constraints.txt setuptools -r deploy/wheels/requirements.txt

# Writes what is generated anew: the message contracts and the reference of settings, metrics, messages and commands.
generated: install
	$(BIN)/exitstream schemas generate
	$(BIN)/exitstream settings >docs/settings.md
	$(BIN)/exitstream reference

clean:
	rm -rf .demo out build dist *.egg-info
