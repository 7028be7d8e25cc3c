# make demo | test | test-all | test-containers | images | native | format | doctor | clean.  Variables: PYTHON, TORCH_INDEX_URL (docs/how-to/install.md)
export PYTHON TORCH_INDEX_URL
PYTEST ?= .venv/bin/python -m pytest -n 2 --dist loadfile

demo: .venv/ready        ## segment a generated sample study and compare with its truth
	-@scripts/native.sh
	.venv/bin/segmamba demo
test: lint types native  ## format, lint, strict types and the default tests
	$(PYTEST) -m "not slow and not containers" --reruns 1
test-all: test test-slow ## everything: also the slow tests, with the real servers they need
test-slow: native servers nnunet skullstrip triton
	SEGMAMBA_SKULLSTRIP_PYTHON=$(CURDIR)/.venv-skullstrip/bin/python $(PYTEST) -m slow --reruns 1
test-containers: .venv/ready  ## build the images and run them: Docker, Podman, or SEGMAMBA_CONTAINERS
	.venv/bin/python -m pytest -n 0 -m containers tests/docker
images:                  ## container images for the CPU and for training, and what is in them
	scripts/images.sh
lint: .venv/ready
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
types: .venv/ready
	.venv/bin/mypy
check: lint types        ## format, lint and types only
native: .venv/ready      ## rebuild the C++ kernels that changed
	scripts/native.sh
servers:                 ## Debian packages of the servers that slow tests talk to
	scripts/servers.sh
nnunet: .venv/ready      ## an environment with the real nnU-Net, for the slow tests that train with it
	scripts/nnunet.sh
skullstrip: .venv/ready  ## an environment with a skull stripper, for the slow tests that prepare a real scan
	-scripts/skullstrip.sh
triton: .venv/ready      ## an environment with Triton, for the slow tests of its scan on a machine without a GPU
	scripts/triton.sh
wheel: .venv/ready       ## build the wheel into dist/, audit it and look into it
	scripts/wheel.sh
reference: .venv/ready   ## write the pages that are made from the code, and THIRD_PARTY.md
	.venv/bin/python -m scripts.reference
	.venv/bin/python scripts/third_party.py
format: .venv/ready      ## rewrite the sources in the house format
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .
doctor: .venv/ready      ## what this machine has, what it lacks, what to do about it
	.venv/bin/segmamba doctor
bench: .venv/ready       ## measure speed and memory beside the peers: about an hour, on an idle machine
	benchmarks/run.sh $(BENCH)
clean:                   ## remove what was built here; the next make starts anew
	rm -rf .venv .venv-bench .venv-nnunet .venv-skullstrip .venv-triton .venv-wheel build dist *.egg-info model_core/ops/*.so
.venv/ready: pyproject.toml constraints.txt CMakeLists.txt scripts/setup.sh scripts/native.sh
	scripts/setup.sh
.PHONY: wheel reference demo test test-all test-slow test-containers images lint types check native servers nnunet skullstrip triton format doctor bench clean
