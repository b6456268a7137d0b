# `make run` and `make test` do all the set-up themselves; nothing needs activating.
.DEFAULT_GOAL := help
SHELL := /bin/sh
BIN := .venv/bin

.PHONY: help setup run summary reproduce flow serve test test-reproduce test-ui check format lock bench chaos chaos-flow fuzz clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 16

setup: ## install requirements.lock into .venv (only when it changed)
	@tools/setup.sh

run: setup ## fine-tune on real reviews: `dvc repro`, then a table of what came out
	@mkdir -p .dagobert && touch .dagobert/run-started
	$(BIN)/dvc --wait-for-lock repro
	@$(BIN)/dagobert summary

summary: setup ## the table again
	@$(BIN)/dagobert summary

reproduce: setup ## run the recorded experiment of HEAD again and say whether it came out the same
	$(BIN)/dagobert reproduce HEAD

flow: setup ## the same stages as a Prefect flow
	$(BIN)/python -m flows.finetune

serve: setup ## Prefect server, UI and deployments on this machine
	$(BIN)/python -m flows.serve

test: setup ## all tests (18 minutes on 2 cores)
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

test-reproduce: setup ## every test of reproduction, slow ones too (SSH, S3, killed transfers), then 500 random steps (an hour)
	$(BIN)/python -m pytest tests/reproduce -m "slow or not slow"
	$(BIN)/python -m tests.reproduce.sequences 500

test-ui: setup ## click through the Prefect UI in headless Chromium (Debian: chromium)
	$(BIN)/python -m pytest -rs tests/ui/browser.py

check: setup ## formatting, lint, types and contract tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/contracts

format: setup ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: ## write requirements.lock anew from requirements.in
	tools/lock.sh

bench: setup ## benchmarks against what people use otherwise (hours)
	$(BIN)/python -m bench.data
	$(BIN)/python -m bench.train
	$(BIN)/python -m bench.flow

chaos: setup ## kill training at 200 random moments, fill the disk, damage checkpoints, run it 20 times: the same model every time
	$(BIN)/python -m tests.chaos --kills 200 --again 20

chaos-flow: setup ## kill stages, flows, workers and servers; 100 parameter changes through both doors
	$(BIN)/python -m tests.chaos_flow --agree 100 --kills 200 --served 60 --together 5 --disk-full --broken --resume 5

fuzz: setup ## 10,000 generated files through fetch, clean and split: every row accounted for
	$(BIN)/python -m tests.fuzz --files 10000

clean: ## remove the environment, caches and checkpoints (not data, models or DVC's cache)
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis .dagobert
