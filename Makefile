# Every target sets up .venv by itself; Python >= 3.11 and make are all it takes.
#   make quickstart   the whole idea in minutes, on synthetic faces
#   make test         the tests
#   make test-fast    a part of them, in a minute
#   make test-jax     those of the modelling core once more, on JAX
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := setup.cfg pyproject.toml

WORKERS ?= 2
OLDEST := .venv-oldest
CORE_TESTS := tests/models tests/encodings tests/callbacks \
	tests/metrics/test_keras_metrics.py tests/training/test_options.py

# What is quick, of every directory; see CONTRIBUTING.md for the tests of a change.
FAST_TESTS := tests/test_labels.py tests/test_files.py tests/test_checksums.py \
	tests/test_names_of_files.py tests/encodings/test_encoding.py \
	tests/callbacks/test_epoch_logger.py tests/callbacks/test_best_model.py \
	tests/metrics/test_table.py tests/metrics/test_intervals.py \
	tests/recipes/test_recipe.py tests/recipes/test_needs.py \
	tests/recipes/test_report_recipes.py tests/datasets/test_manifest.py \
	tests/datasets/test_splits.py tests/datasets/test_csv.py \
	tests/datasets/test_adience.py tests/datasets/test_celeba.py \
	tests/datasets/test_utkface.py tests/evaluation/test_groups.py \
	tests/evaluation/test_scores.py tests/faces/test_preprocessing.py \
	tests/faces/test_images.py tests/models/test_weights.py \
	tests/serving/test_predictions.py tests/studies/test_quickstart.py \
	tests/training/test_weight_decay.py tests/training/test_empty_recipe.py

.PHONY: quickstart test test-fast test-jax test-slow test-wheel test-oldest lint mutants bench wheel docs release clean

quickstart: $(VENV)/.installed
	$(BIN)/agegender quickstart

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

test-fast: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(FAST_TESTS)

test-jax: $(VENV)/.installed-dev
	KERAS_BACKEND=jax $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(CORE_TESTS)

test-slow: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m slow

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy tests/front_door_types.py
	$(BIN)/lint-imports setup.cfg

# Breaks one line at a time; the tests must notice. Half an hour, by hand.
mutants: $(VENV)/.installed-dev
	$(BIN)/python tests/mutants.py

bench: $(VENV)/.installed-dev
	@for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script; done

# The site in docs/_build/html; a warning or a dead link is an error.
docs: $(VENV)/.installed-dev
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	$(BIN)/python -m sphinx -n -W --keep-going docs docs/_build/html

# Wheel and sdist, both checked, installed in fresh environments and used.
release: $(VENV)/.installed-dev
	rm -rf build dist
	$(BIN)/python -m pip install --quiet twine
	$(BIN)/python -m build
	$(BIN)/python -m twine check --strict dist/*
	$(BIN)/python tests/wheel_smoke.py dist/*.whl
	$(BIN)/python tests/wheel_smoke.py dist/*.tar.gz

wheel: $(VENV)/.installed-dev
	rm -rf build
	$(BIN)/python -m build --wheel

# The wheel in an environment of its own, used once from outside the checkout.
test-wheel: wheel
	$(BIN)/python tests/wheel_smoke.py dist/*.whl

# The modelling core with the oldest versions that setup.cfg allows.
test-oldest: $(OLDEST)/.installed
	PYTHONPATH=. $(OLDEST)/bin/python -m pytest -n $(WORKERS) --dist loadfile $(CORE_TESTS)
	PYTHONPATH=. KERAS_BACKEND=jax $(OLDEST)/bin/python -m pytest -n $(WORKERS) --dist loadfile \
		$(CORE_TESTS)

$(OLDEST)/.installed: setup.cfg .ci/oldest_requirements.py
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet \
		$$($(PYTHON) .ci/oldest_requirements.py) pytest pytest-xdist hypothesis
	@touch $@

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or later is needed: make PYTHON=python3.12 …"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/python $(SOURCES)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[train]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/bin/python $(SOURCES)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $(VENV)/.installed $@

clean:
	rm -rf $(VENV) $(OLDEST) build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache
