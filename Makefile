# Two commands do everything on a fresh machine:  make report   and   make test
# TORCH=cuda installs torch with CUDA instead of the much smaller CPU build.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   ?= .venv
CORES  ?= all
JOBS   ?= 2
TORCH  ?= cpu
BIN    := $(VENV)/bin

# torch first and alone: with the extra index its CPU build is preferred where that index can be reached
ifeq ($(TORCH),cpu)
INDEX := --retries 0 --extra-index-url https://download.pytorch.org/whl/cpu
endif
PIP = PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip install --quiet --constraint constraints.txt

.PHONY: report test lint format lock bench clean doctor study

report: $(VENV)/.report  ## the default study: trains its models, analyses them, writes results/report.html
	$(BIN)/snakemake --cores $(CORES) results/report.html

test: $(VENV)/.test lint  ## every check that needs no GPU, no network and no key
	$(BIN)/python -m pytest -rs -n $(JOBS) --dist loadscope --no-loadscope-reorder

doctor: $(VENV)/.report  ## what is missing here for a study:  make doctor CONFIG=config/deepscaler.yaml
	$(BIN)/python -m reasondiff.doctor $(if $(CONFIG),--config "$(CONFIG)")

study: $(VENV)/.report  ## a config of another pair and text:  make study BASE=X TUNED=Y TEXT=Z [NAME=N]
	$(BIN)/python -m reasondiff.new_study --base "$(BASE)" --tuned "$(TUNED)" --text "$(TEXT)" $(if $(NAME),--name "$(NAME)")

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/snakemake --lint

format: $(VENV)/.test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt Snakefile workflow

lock: $(VENV)/.test  ## uv.toml and uv.lock from constraints.txt
	$(BIN)/python -m pip install --quiet uv
	printf '# Written by `make lock` from constraints.txt; do not edit.\nconstraint-dependencies = [\n' > uv.toml
	grep -v '^#' constraints.txt | sed 's/.*/    "&",/' >> uv.toml
	printf ']\n' >> uv.toml
	$(BIN)/uv lock

bench: $(VENV)/.test  ## every benchmark that can run here, beside its reference; writes benchmarks/README.md
	$(BIN)/python benchmarks/run.py

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.torch: $(BIN)/python constraints.txt
	$(PIP) $(INDEX) torch
	touch $@

$(VENV)/.report: $(VENV)/.torch pyproject.toml constraints.txt
	$(PIP) --editable .
	touch $@

$(VENV)/.test: $(VENV)/.torch pyproject.toml constraints.txt
	$(PIP) --editable '.[test,slurm]'
	touch $@ $(VENV)/.report

clean:
	rm -rf $(VENV) results logs .snakemake
