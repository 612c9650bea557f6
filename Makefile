# Which experiment, where its jobs run, and further Hydra overrides:
#   make sweep EXPERIMENT=paper LAUNCH=slurm ARGS="data=mnist n_per_class=10,13"
EXPERIMENT ?= embedded
LAUNCH ?= local
ARGS ?=
PYTHON ?= python3
VENV := .venv/bin
RUN = $(VENV)/python scripts/reproduce.py
WITH = experiment=$(EXPERIMENT) launch=$(LAUNCH) $(ARGS)

# A misspelt variable would be ignored by make, and the default experiment run in place of the one meant.
KNOWN := EXPERIMENT LAUNCH ARGS A B PYTHON
GIVEN := $(foreach v,$(.VARIABLES),$(if $(filter command,$(origin $(v))),$(v)))
UNKNOWN := $(firstword $(filter-out $(KNOWN),$(GIVEN)))
NEAR = import difflib, sys; near = difflib.get_close_matches(sys.argv[1].upper(), sys.argv[2:], 1); print(*near or sys.argv[2:])
ifdef UNKNOWN
$(error there is no variable $(UNKNOWN) here; did you mean $(shell $(PYTHON) -c '$(NEAR)' '$(UNKNOWN)' $(KNOWN))? Hydra overrides go into ARGS="...")
endif

help:       ## list the targets
	@grep -hE '^[a-z%]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand -t 12

reproduce: .venv/installed  ## everything, from training to figures and report; resumes what was interrupted
	@$(RUN) all $(WITH)
sweep: .venv/installed      ## train the grid
	@$(RUN) sweep $(WITH)
select: .venv/installed     ## tabulate all runs, keep the best of each cell
	@$(RUN) select $(WITH)
retrain: .venv/installed    ## train the selected runs again, with checkpoints
	@$(RUN) retrain $(WITH)
measure: .venv/installed    ## compute the measurements that the figures need
	@$(RUN) measure $(WITH)
figures: .venv/installed    ## draw all figures from stored results
	@$(RUN) figures $(WITH)
fig%: .venv/installed       ## one figure, computing only what it lacks: make fig5, make figx1
	@$(RUN) $@ $(WITH)
report: .venv/installed     ## one page with figures, claims, numbers and provenance
	@$(RUN) report $(WITH)
gallery: .venv/installed    ## README's score and docs/gallery from the figures drawn; the only target that changes tracked files
	@$(RUN) gallery $(WITH)
plan: .venv/installed       ## jobs, trainings, hours and disk of what is still to do
	@$(RUN) plan $(WITH)
status: .venv/installed     ## what is done, running, failed and lost
	@$(RUN) status $(WITH)
show: .venv/installed       ## what was selected for each cell, what is measured, where the time went
	@$(RUN) show $(WITH)
compare: .venv/installed    ## two experiments side by side: make compare A=embedded B=true_scale
	@$(RUN) compare $(A) $(B) $(ARGS)

wait: .venv/installed       ## on SLURM: until no job is left; Ctrl-C leaves the jobs alone
	@$(RUN) wait $(WITH)
logs: .venv/installed       ## on SLURM: the logs of what failed or was lost
	@$(RUN) logs $(WITH)
retry: .venv/installed      ## on SLURM: submit again what failed or was lost
	@$(RUN) retry $(WITH)
cancel: .venv/installed     ## on SLURM: cancel all jobs of the experiment
	@$(RUN) cancel $(WITH)
wait logs retry cancel: LAUNCH = slurm

test: .venv/complete        ## all tests
	@$(VENV)/python -m pytest --numprocesses 2
lint: .venv/complete        ## ruff and mypy
	@$(VENV)/ruff check . && $(VENV)/ruff format --check . && $(VENV)/mypy
docs: .venv/complete        ## the documentation, into site/
	@NO_MKDOCS_2_WARNING=1 $(VENV)/mkdocs build --quiet --strict

# The environment, pinned; made again when the pins change. Tests, linters and documentation need more than users do.
PIP := $(VENV)/pip --quiet --disable-pip-version-check
.venv/installed: requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(PIP) install -r requirements.txt
	$(PIP) install --no-deps --editable .
	@touch $@
.venv/complete: requirements-dev.txt .venv/installed
	$(PIP) install -r requirements-dev.txt
	@touch $@

.NOTPARALLEL:   # the stages depend on one another through outputs/
.PHONY: help reproduce sweep select retrain measure figures report gallery plan status show compare wait logs retry cancel test lint docs
