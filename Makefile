# The main commands are `make demo` and `make test`. Each sets up what it needs and is safe to repeat.

PYTHON ?= python3
BIN := .venv/bin
TESTS ?= tests
PROFILE ?= cpu-short
DATA ?=
SHORT ?=
STUDY ?=

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow docs integrations faults test-engines calibrate bench bench-decisions results check format secrets clean

help:  ## show this
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: .venv/.installed  ## install, then run the digits study to its answer (about two minutes after the download)
	@$(BIN)/python -m ralr_tune run digits
	@echo
	@echo "Next: open runs/digits/report.html in a browser, or type: $(BIN)/python -m ralr_tune dashboard digits"
	@echo "(after \`. $(BIN)/activate\`, \`python -m ralr_tune\` and \`ralr-tune\` mean this installation)"

test: .venv/.test-installed check  ## install what tests need, lint, check types, run the tests
	@$(BIN)/pytest -q -n 2 --dist worksteal -m "not slow" $(TESTS)
	@echo "Next: make demo, then open runs/digits/report.html. The slow tests: make test-slow"

test-slow: .venv/.test-installed  ## run the slow tests too
	@$(BIN)/pytest -q -n 2 --dist worksteal $(TESTS)

docs: .venv/.test-installed  ## build the documentation as a site in site/, strictly: a broken link is an error
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build
	@echo "Next: open site/index.html in a browser, or type: $(BIN)/python -m mkdocs serve"

integrations: .venv-integrations/.installed  ## run RandomAmplifyLR, the callbacks and the examples in Lightning, Hugging Face, Keras, ..., and the trackers (minutes after the download)
	@.venv-integrations/bin/python -m pytest -q tests/integrations tests/examples tests/mirror

faults: .venv/.test-installed  ## kill, stop and restart workers, programs and databases at random for about two hours (RALR_TUNE_FAULTS=300 per database)
	@RALR_TUNE_OPENINGS=50 RALR_TUNE_AWAY_S=20 $(BIN)/pytest -q -s tests/faults

test-engines: .venv/.test-installed .venv-bench/.engines-installed  ## run studies on a real Ray, S3 server and, if it is installed, Slurm, and inject their faults (RALR_TUNE_ENGINE_FAULTS=40)
	@.venv-bench/bin/python -m pytest -q -s tests/engines tests/objects

calibrate: .venv/.test-installed  ## how often the statistics err: recreate all tables, about half an hour on two cores (RALR_TUNE_CALIBRATE=1000 studies per row)
	@OMP_NUM_THREADS=1 $(BIN)/python -m tests.calibration

bench: .venv-bench/.installed  ## compare with plain Optuna and Ray Tune, one table per case (PROFILE=cpu-short 10 minutes, cpu 45, gpu-short 14, gpu 90; DATA=cifar100.npz, see CONTRIBUTING.md)
	@.venv-bench/bin/python -m benchmarks.peers --profile $(PROFILE) --out .bench/$(PROFILE) $(if $(DATA),--cifar $(DATA))
	@echo "Next: .bench/$(PROFILE).md and .bench/$(PROFILE).json contain the same. Large studies: $(BIN)/python -m benchmarks.large"

bench-decisions: .venv-bench/.installed  ## how often this package, Optuna, Ray Tune and a fixed recipe decide rightly: under half an hour on two cores (SHORT=1: five minutes)
	@OMP_NUM_THREADS=1 .venv-bench/bin/python -m benchmarks.decisions $(if $(SHORT),--short)
	@echo "Next: .bench/decisions.md and .bench/decisions.json contain the same. More recorded curves: $(BIN)/python -m benchmarks.decisions.record digits"

results: .venv/.test-installed  ## run the studies of docs/results.md that have no stored record, one at a time, and store it (hours, resumable; STUDY=digits: that one; DATA=folder: its data sets)
	@OMP_NUM_THREADS=1 $(BIN)/python -m results $(STUDY) $(if $(DATA),--data $(DATA))

check: .venv/.test-installed  ## lint and types
	@$(BIN)/ruff format --check -q .
	@$(BIN)/ruff check -q .
	@MYPY_NUM_WORKERS=2 $(BIN)/mypy ralr_tune

format: .venv/.test-installed  ## format the code
	@$(BIN)/ruff format -q .
	@$(BIN)/ruff check -q --fix .

secrets:  ## create the random secrets that docker-compose.yml needs, if missing
	@mkdir -p -m 700 secrets
	@for name in database_password dashboard_token; do test -s secrets/$$name \
		|| (umask 333; $(PYTHON) -c 'import secrets; print(secrets.token_urlsafe(32))' > secrets/$$name); done
	@echo "Next: docker compose --profile cpu up --build (or gpu). The dashboard's token: cat secrets/dashboard_token"

clean:  ## remove the environment and what tools left behind (not runs/)
	rm -rf .venv .venv-bench .venv-integrations .bench site .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist

.venv/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "error: $(PYTHON) is older than 3.11; type: make $(MAKECMDGOALS) PYTHON=python3.11"; exit 1; }
	@$(PYTHON) -m venv .venv \
		|| { echo "error: no venv module; on Debian and Ubuntu: apt-get install python3-venv"; exit 1; }

# The stamps are written last, so that an interrupted installation is repeated.
.venv/.installed: pyproject.toml | .venv/bin/pip
	@echo "Installing into .venv (torch brings several GB the first time; one to three minutes) ..."
	@$(BIN)/pip install -q --disable-pip-version-check -e .
	@touch $@

.venv/.test-installed: pyproject.toml | .venv/bin/pip
	@echo "Installing into .venv, with what the tests need (torch brings several GB the first time) ..."
	@$(BIN)/pip install -q --disable-pip-version-check -e '.[test]'
	@touch .venv/.installed $@

# Ray is not a dependency of the project: it has a separate environment, which finds everything else in .venv.
.venv-bench/.installed: .venv/.installed
	@echo "Installing Ray Tune into .venv-bench ..."
	@$(BIN)/python -m venv .venv-bench
	@echo "import site; site.addsitedir('$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')')" \
		> $$(.venv-bench/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/project.pth
	@.venv-bench/bin/pip install -q --disable-pip-version-check 'ray[tune]'
	@touch $@

.venv-bench/.engines-installed: pyproject.toml | .venv-bench/.installed
	@echo "Installing an S3 server and its client into .venv-bench ..."
	@.venv-bench/bin/pip install -q --disable-pip-version-check -e '.[engines]'
	@touch $@

# Neither are the frameworks of tests/integrations.
.venv-integrations/.installed: pyproject.toml | .venv/.test-installed
	@echo "Installing Lightning, transformers, accelerate, Keras, ignite, timm, TensorBoard, MLflow and W&B into .venv-integrations ..."
	@$(BIN)/python -m venv .venv-integrations
	@echo "import site; site.addsitedir('$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')')" \
		> $$(.venv-integrations/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/project.pth
	@.venv-integrations/bin/pip install -q --disable-pip-version-check -e '.[integrations]'
	@touch $@
