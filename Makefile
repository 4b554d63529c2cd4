.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

# The venv's tools come first, also for what they call (molecule looks for ansible-config, ansible for docker).
export PATH := $(CURDIR)/.venv/bin:$(PATH)
# A Docker client before 23 builds with BuildKit only when told so.
export DOCKER_BUILDKIT := 1

COMMA := ,
SPACE := $(subst x,,x x)

.PHONY: help setup command builder demo test test-unit test-clients bench bench-words bench-reliability bench-models tune compare memory lint docs clean requirements

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-18s %s\n", $$1, $$2}' Makefile

setup: ## install what the other targets need (they call it themselves)
	@scripts/setup.sh

command: setup ## build the command whisper-xeon, as a wheel and as one file, and the drop-in for openai-whisper, in dist/
	@python scripts/build_command.py

builder: setup ## build the packages, so that `docker build -t whisper-builder .` packs them; MODELS="small medium"
	@ansible-playbook build.yml --skip-tags publish $(if $(MODELS),-e '{"artifact_build_models": ["$(subst $(SPACE),"$(COMMA) ",$(strip $(MODELS)))"]}')
	@scripts/export_builder.sh

WEIGHTS ?= openai
demo: setup ## build, publish and deploy base and tiny.en to two systemd containers, then transcribe; WEIGHTS=fixture: toys
	@ansible-playbook -i inventory/demo playbooks/demo/demo.yml -e demo_weights=$(WEIGHTS) && scripts/demo_tour.sh

test: setup ## run all tests: lint, units, Docker build, MinIO, molecule, end to end (40 minutes)
	@pytest -n 2 $(PYTEST_ARGS)

test-unit: ## run the tests that need no Docker (a minute)
	@scripts/setup.sh --without-docker
	@pytest -n 2 tests/unit $(PYTEST_ARGS)

test-clients: ## run the clients that people have against the service: SDKs, Chromium, curl (10 minutes)
	@scripts/setup.sh --clients
	@pytest tests/clients $(PYTEST_ARGS)

bench bench-words tune compare memory bench-models: export PYTHONPATH := $(CURDIR)/app:$(CURDIR)/bench

bench: setup ## measure everything beside whisper-server and faster-whisper; writes bench/RESULTS.md (40 minutes)
	@python -m whisper_bench.wer && python -m whisper_bench $(BENCH_ARGS)

bench-words: setup ## measure words, times and silence beside openai-whisper and faster-whisper; writes bench/WORDS.md (1.5 hours)
	@python -m whisper_bench.words $(BENCH_ARGS)

bench-reliability: setup ## attack and overload the service and its releases; writes bench/RELIABILITY.md (75 minutes)
	@python -m whisper_bench.reliability $(BENCH_ARGS)

tune: setup ## find this machine's best number of engines and threads, as variables for Ansible
	@python -m whisper_bench.tune $(TUNE_ARGS)

compare: setup ## time and memory of the library adapter and of whisper-cli, side by side
	@python -m whisper_bench.compare

memory: setup ## memory of small and medium at true dimensions, and after hundreds of requests
	@python -m whisper_bench.memory

bench-models: setup ## every model, large ones too, at its true dimensions: sizes, memory, load time
	@python -m whisper_bench.models

lint: setup ## ruff, mypy, shellcheck, hadolint, clang-format, yamllint, ansible-lint
	@scripts/lint.sh

docs: setup ## write the pages that follow from the code: docs/{api,models,settings,variables}.md
	@python scripts/generate_docs.py

clean: ## remove what the project made here: containers, images, networks, its Docker daemon, build directories
	@scripts/clean.sh

requirements: ## pin requirements.txt again from requirements.in
	@scripts/pin_requirements.sh
