# make centerpoint-all   everything, from nothing to the results (second call: up to date, stage by stage);
#                        yolox-all and calibration-all do the same for the other models
# make centerpoint-int8  the same in INT8 (yolox-int8, calibration-int8; docs/quantization.md)
# make test              all set-up, then lint, types, import rules and every test that this machine can run
# make help              the rest
#
# Variables: MODEL WORK CONFIG, and for a model of your own: MODEL_CONFIG CHECKPOINT DATA [DATA_ROOT]. REAL_DATA adds real
# lidar frames (README). DEVICE is where the backends run. SET="key=value ..." overrides keys of the deploy config.
# GATE="mAP drop > 0.5%" is a condition under which it fails.
# CLUSTER=local spreads the work over all GPUs or processors here, CLUSTER=HOST:PORT over a Ray cluster (docs/scale.md).
# RUN=docker runs each tool in its image, RUN=local in a virtual environment (docs/docker.md). TARGET is the set of images.
# Put yours into a file `local.mk` if you don't want to type them.
-include local.mk

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= python3.11
MODEL ?= centerpoint
WORK ?= work/$(subst _,-,$(MODEL))
# A config here, or one of that name that an installed package brings (make plugins).
CONFIG ?= $(or $(firstword $(wildcard configs/$(MODEL).yaml configs/$(subst -,_,$(MODEL)).yaml)),$(subst -,_,$(MODEL)))
packaged := $(if $(findstring /,$(CONFIG))$(findstring .,$(CONFIG)),,$(CONFIG))
DEVICE ?= cpu
# A package may have other data than the driving scenes, so they lie in a folder of their own.
demo_of := $(packaged:%_int8=%)
demo_suffix := $(if $(packaged),-$(subst _,-,$(demo_of)))
DEMO_DATA ?= work/demo$(demo_suffix)
# What the demo's models are calibrated on before they run in INT8: other scenes. For a model of your own: CALIBRATION.
CALIBRATION_DATA ?= work/demo-calibration$(demo_suffix)
# Driving scenes whose points and pixels are labeled, for segmentation.
LABELED_DATA ?= work/demo-labels
# An index with CPU builds of torch saves some GB on a machine without a GPU (README, "Set-up").
TORCH_INDEX ?=
PIP_OPTIONS := -q --disable-pip-version-check $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))

TOOLS := .venv/tools
EXPORTER := .venv/exporter
EXPORTER_FULL := .venv/exporter-full
WHEELS ?= .cache/wheels
MMCV_WHEEL := $(WHEELS)/mmcv.ready
RTX := .venv/rtx
DOCS := .venv/docs
MLFLOW_SERVER := .cache/mlflow
# TensorRT for RTX, which builds without a GPU, is taken where it was set up.
RTX_READY = $(wildcard $(RTX)/.ready)
TRT_BUILDER = $(if $(RTX_READY),$(RTX),$(TOOLS))/bin/trt_builder
# The exporter's compiled-ops environment is taken where it was set up.
EXPORTER_BIN = $(if $(wildcard $(EXPORTER_FULL)/.ready),$(EXPORTER_FULL),$(EXPORTER))/bin

# The user's own model, as overrides of the deploy config. DATA: an info file (.pkl), a T4 scene, or a folder of sweeps.
data_format = $(if $(wildcard $(DATA)/annotation/.),t4,$(if $(wildcard $(DATA)/.),folder,info))
overrides = $(model_overrides) $(if $(DATA),$(data_overrides),$(demo_overrides)) \
    $(if $(QUANTIZE),--set quantization.mode=$(QUANTIZE)) $(overrides_of_keys)
overrides_of_keys = $(foreach pair,$(SET),--set $(pair))

# The demo's data sets are made for a config that reads them, $(1) in work/; $(2): where one is instead. Configs of packages
# leave out where.
roots = $(foreach root,$(shell sed -nE 's/^ +root: *([^ \#]+).*/\1/p' $(CONFIG) 2>/dev/null),$(abspath \
    $(if $(filter /%,$(root)),$(root),$(dir $(CONFIG))$(root))))
reads = $(if $(DATA),,$(if $(packaged),$(filter $(1),demo $(if $(filter %_int8,$(packaged)),demo-calibration)),$(filter \
    $(abspath work/$(1)),$(roots))))
moved = $(if $(call reads,$(1)),$(if $(packaged),$(2),$(filter-out work/$(1),$(2))))
demo_targets = $(if $(call reads,demo),demo-data) $(if $(call reads,demo-calibration),calibration-data) \
    $(if $(call reads,demo-labels),labeled-data)

# DATA that isn't there would be taken for an info file.
ifneq ($(DATA),)
ifeq ($(wildcard $(DATA)),)
$(error there is no $(DATA): DATA names an info file, a T4 scene or a folder of sweeps)
endif
endif
# Our configs bring the demo's checkpoint, which is of another model.
with_checkpoint = $(if $(and $(MODEL_CONFIG),$(filter configs/% $(packaged),$(CONFIG))),$(if $(CHECKPOINT)$(filter \
    model.checkpoint=%,$(SET)),,echo "MODEL_CONFIG is set: set CHECKPOINT to its weights, too" >&2; exit 2),:)
# Whether a package brings a config, the tools know.
with_config = $(if $(packaged),:,test -f $(CONFIG) || { echo "there is no $(CONFIG): MODEL names configs/MODEL.yaml" >&2; exit 2; })

include docker/docker.mk

.PHONY: help
help: ## this text
	@grep -hE '^[a-zA-Z0-9_%-]+:.*## ' Makefile docker/docker.mk | sed -E 's/:[^#]*## /\t/' | expand -t 22

# -- the main job -----------------------------------------------------------------------------------------------------

.PHONY: all-of int8-of sweep-of tune-of all-int8 centerpoint-121m yolox-nano migrate-check
%-all: $(SETUP) ## centerpoint-all, yolox-all, yolox-seg-all, calibration-all, frnet-all, or a package's: checkpoint to report; with REAL_DATA on real data too
	@$(MAKE) all-of MODEL=$*

all-of:
	@$(with_config)
	@$(with_checkpoint)
	@$(if $(demo_targets),$(MAKE) $(demo_targets))
	@$(MAKE) pipeline
	@$(if $(REAL_DATA),$(if $(DATA),,$(if $(wildcard configs/$(MODEL)_real.yaml),$(MAKE) pipeline WORK=$(WORK)-real CONFIG=configs/$(MODEL)_real.yaml DATA_FOLDER=$(REAL_DATA))))

%-int8: $(SETUP) ## centerpoint-int8 and so on: calibrated and run in INT8, beside the float one
	@$(MAKE) int8-of MODEL=$*_int8 FLOAT=$(or $(FLOAT),$(if $(CHECKPOINT)$(DATA),,$(if $(wildcard $(dir $(WORK))$*/evaluation/.),$*)))

int8-of:
	@$(with_config)
	@$(with_checkpoint)
	@$(if $(DATA),$(if $(CALIBRATION),,echo "with DATA, set CALIBRATION to an info file of other samples" >&2; exit 2),$(if $(demo_targets),$(MAKE) $(demo_targets)))
	@$(MAKE) quantize
	@$(MAKE) pipeline

# Which precision to ship: choices of a copy of the model that is quantized in all layers but NEVER_INT8, those that
# TensorRT 8.6 does not build or that keep batch norms as nodes. A package's config says itself which layers those are.
# LAYERS: lists of layers in floating point, a choice each.
POLICIES ?= fp32_tf32 fp16 int8
LAYERS ?= $(if $(packaged),,$(CONFIG))
MAX_DROP ?= 0.25
NEVER_INT8_centerpoint_int8 := pts_voxel_encoder pts_neck.deblocks.1 pts_neck.deblocks.2
NEVER_INT8_calibration_int8 := backbone.layer4.1.conv2
NEVER_INT8 ?= $(NEVER_INT8_$(MODEL))
empty :=
comma := ,
in_all_layers = $(if $(NEVER_INT8)$(if $(packaged),,ours),--set \
    quantization.sensitive_layers=[$(subst $(empty) $(empty),$(comma),$(strip $(NEVER_INT8)))])
choices_of = WORK=$(if $(filter command environment,$(origin WORK)),$(WORK),work/$(subst _,-,$*)-$(1))
measured_choices = --work $(WORK) $(if $(filter cpu,$(DEVICE)),--backend onnx) --device $(DEVICE) $(overrides_of_keys) $(cluster)
%-sweep: $(SETUP) ## centerpoint-sweep and so on: latency against metric of POLICIES="fp32_tf32 fp16 int8" [LAYERS="skip.yaml ..."]
	@$(MAKE) sweep-of MODEL=$*_int8 $(call choices_of,sweep)
%-tune: $(SETUP) ## centerpoint-tune and so on: the fastest precisions that lose at most MAX_DROP points
	@$(MAKE) tune-of MODEL=$*_int8 $(call choices_of,tune)

sweep-of: all-int8
	@$(TOOLS)/bin/trt_builder sweep $(measured_choices) $(POLICIES:%=--policy %) $(LAYERS:%=--skip-from %)

# The frames that choose are neither those of the calibration nor those that results are reported on: SEARCH, an info file.
# Of a package, whose demo's data have names of its own, they are what another seed gives.
labeled = $(if $(call reads,demo-labels),-labels)
SEARCH_DATA ?= work/demo-search$(or $(demo_suffix),$(labeled))
SEARCH_centerpoint_int8 := info/t4dataset_demo_infos_val.pkl
SEARCH_yolox_int8 := info/yolox_infos_val.json
SEARCH_yolox_seg_int8 := info/yolox_infos_val.json
SEARCH_calibration_int8 := info/t4dataset_demo_calibration_infos_val.pkl
search_info = $(SEARCH_$(subst -,_,$(MODEL)))
search_frames = $(if $(SEARCH),--set data.info_file=$(SEARCH),$(if $(DATA),,--data $(SEARCH_DATA) \
    $(if $(search_info),--set data.info_file=$(abspath $(SEARCH_DATA)/$(search_info)))))
search_split = $(if $(packaged),--seed 8 --for $(demo_of),--split val --frames 40$(labeled:-%= --%))
tune-of: all-int8
	@$(if $(DATA)$(SEARCH),,$(DEMO_TOOL) generate --out $(SEARCH_DATA) $(search_split))
	@$(EXPORTER_TOOL) quantize sensitivity --config $(CONFIG) --work $(WORK) $(overrides) $(calibration_overrides) $(search_frames) $(cluster)
	@$(TOOLS)/bin/trt_builder tune $(measured_choices) $(search_frames) --max-drop $(MAX_DROP)

all-int8:
	@$(with_config)
	@$(with_checkpoint)
	@$(if $(filter docker,$(RUN_IN)),echo "this needs all tools together: RUN=local" >&2; exit 2)
	@$(if $(DATA),$(if $(CALIBRATION),,echo "with DATA, set CALIBRATION to an info file of other samples" >&2; exit 2),$(if $(demo_targets),$(MAKE) $(demo_targets)))
	@$(EXPORTER_TOOL) quantize ptq --config $(CONFIG) --work $(WORK) $(overrides) $(calibration_overrides) $(in_all_layers)
	@$(EXPORTER_TOOL) export --config $(CONFIG) --work $(WORK) $(overrides) $(in_all_layers)

yolox-nano: WORK = work/yolox-nano
yolox-nano: CONFIG = configs/yolox_nano.yaml
yolox-nano: setup ## Megvii's YOLOX-Nano on real images: ONNX=yolox_nano.onnx REAL_DATA=folder
	@$(if $(and $(REAL_DATA),$(ONNX)),,echo "yolox-nano: set ONNX to the file and REAL_DATA to a folder of real images" >&2; exit 2)
	@$(EXPORTER_BIN)/exporter export --config $(CONFIG) --work $(WORK) \
	    --set export.onnx_path=$(abspath $(ONNX)) $(overrides)
	@$(TOOLS)/bin/runtime run --work $(WORK) --backend onnx --device $(DEVICE)
	@for command in evaluate report summary; do $(TOOLS)/bin/evaluator $$command --work $(WORK); done

# In a temporary folder, with a frame of the demo's data in place of the user's, and random weights without CHECKPOINT.
DRY := --set export.mode=onnx --set export.onnx_path=null --set data.format=t4 --set data.info_file=null \
    --set data.sample_idx=0 --set verification.num_verify_samples=1
migrate-check: setup ## what is ahead for files of AWML: DEPLOY=deploy_config.py MODEL_CONFIG=config.py [CHECKPOINT=epoch.pth]
	@$(if $(and $(DEPLOY),$(MODEL_CONFIG)),,echo "migrate-check: set DEPLOY to a deploy_config.py, MODEL_CONFIG to the training config" >&2; exit 2)
	@work=$$(mktemp -d); trap 'rm -rf "$$work"' EXIT; bin=$(EXPORTER_BIN); weights=$(CHECKPOINT); status=0; \
	echo "1 of 3: the deploy config, key by key"; \
	$$bin/exporter config convert $(DEPLOY) --out "$$work/deploy.yaml" || status=$$?; \
	echo; echo "2 of 3: the model"; \
	$$bin/exporter inspect $(MODEL_CONFIG) $(if $(CHECKPOINT),--checkpoint $(CHECKPOINT)) $(overrides_of_keys) || status=$$?; \
	if [ $$status != 0 ]; then echo "3 of 3, a dry export, is not tried: see above" >&2; exit $$status; fi; \
	echo; echo "3 of 3: a dry export, $(if $(CHECKPOINT),with $(CHECKPOINT),with random weights)"; \
	$(if $(CHECKPOINT),,weights=$$work/weights.pth; $$bin/python -m exporter.random_checkpoint --log-level warning write \
	    --config $(MODEL_CONFIG) --out $$weights $(overrides_of_keys);) \
	$(TOOLS)/bin/python -m demo generate --out "$$work/demo" --frames 1 >/dev/null; \
	$$bin/exporter --log-level warning export --config "$$work/deploy.yaml" --work "$$work/work" --set model.config=$(MODEL_CONFIG) \
	    --set model.checkpoint=$$weights --set data.root="$$(echo "$$work"/demo/db_demo_v1/*/0)" $(DRY) $(overrides_of_keys); \
	echo "exported, and equal to PyTorch. For good: exporter config convert $(DEPLOY) --out my_model.yaml (docs/migrating.md)"

centerpoint-121m: setup ## the full-size 121 m network (random weights) on a real frame, on the CPU
	@$(if $(REAL_DATA),,echo "centerpoint-121m: set REAL_DATA to a folder of real frames (README, Real data)" >&2; exit 2)
	@$(EXPORTER_BIN)/python -m exporter.random_checkpoint write --config configs/train/centerpoint_121m.py \
	    --out work/centerpoint-121m-random.pth --seed 0
	@$(MAKE) pipeline MODEL=centerpoint WORK=work/centerpoint-121m CONFIG=configs/centerpoint_121m.yaml

CLUSTER ?=
cluster = $(CLUSTER:%=--cluster %)
run_pytorch = $(call RUNTIME_TOOL,pytorch) run --work $(WORK_ARG) --backend pytorch --device $(DEVICE) $(cluster)
run_onnx = $(call RUNTIME_TOOL,onnx) run --work $(WORK_ARG) --backend onnx --device $(DEVICE) $(cluster)
# Engines, where they were built for a GPU of this machine; of images, where compose is given the GPU.
run_tensorrt = $(if $(filter docker-none docker-,$(RUN_IN)-$(GPU)),true,$(call RUNTIME_TOOL,tensorrt) run --work $(WORK_ARG) \
    --backend tensorrt --device $(or $(filter cuda%,$(DEVICE)),cuda) --if-available $(cluster))
verify = $(VERIFIER_TOOL) verify --work $(WORK_ARG)
# The float model's workspace, by its name beside WORK, for an INT8 one.
FLOAT ?=
GATE ?=
evaluate = $(EVALUATOR_TOOL) evaluate --work $(WORK_ARG) $(FLOAT:%=--float $(dir $(WORK_ARG))%) $(if $(GATE),--fail-if "$(GATE)")
report = $(EVALUATOR_TOOL) report --work $(WORK_ARG)
summary = $(EVALUATOR_TOOL) summary --work $(WORK_ARG)
# With -n nothing is asked, nor where each tool is in an image of its own.
dry := $(findstring n,$(filter-out --%,$(firstword $(MAKEFLAGS))))
ASK = $(if $(dry)$(filter docker,$(RUN_IN)),false,$(TOOLS)/bin/python -m shared.unchanged '$(run_pytorch)' '$(run_onnx)' \
    '$(run_tensorrt)' '$(verify)' '$(evaluate)' '$(report)' '$(summary)')

# The stages in their order. One process asks which are left (shared/unchanged.py says what its exit codes mean), and the
# tools are called for those. A verification or a gate that did not pass is in the report too, and make fails after it.
.PHONY: pipeline
pipeline:
	@$(MAKE) export
	@$(MAKE) build
	@$(ASK) && exit 0; case $$? in \
	    101) stages= ;; 102) stages=report ;; 103) stages="evaluate report" ;; 104) stages="verify evaluate report" ;; \
	    *) $(MAKE) run; stages="verify evaluate report" ;; \
	esac; \
	status=0; for stage in $$stages; do $(MAKE) $$stage || status=$$?; done; \
	$(if $(dry),echo '$(summary)',$(summary)); exit $$status

.PHONY: quantize export build run verify evaluate report
QUANTIZE ?=
quantize: $(SETUP) ## one stage: a model in INT8, before its export (QUANTIZE=ptq, or qat: with training)
	@$(with_checkpoint)
	@$(EXPORTER_TOOL) quantize $(or $(QUANTIZE),ptq) --config $(CONFIG_ARG) --work $(WORK_ARG) $(overrides) $(calibration_overrides)
export: $(SETUP) ## one stage: PyTorch to ONNX, with the framework's reference
	@$(with_checkpoint)
	@$(EXPORTER_TOOL) export --config $(CONFIG_ARG) --work $(WORK_ARG) $(overrides)
build: $(SETUP) ## one stage: ONNX to TensorRT, where there is a GPU and TensorRT, or TensorRT for RTX
	@$(BUILDER_TOOL) build --work $(WORK_ARG) --if-available $(cluster)
run: $(SETUP) ## one stage: the backends over the data set; TensorRT where there are engines and their GPU
	@$(run_pytorch)
	@$(run_onnx)
	@$(run_tensorrt)
verify: $(SETUP) ## one stage: do the backends agree with each other and with the framework?
	@$(verify)
evaluate: $(SETUP) ## one stage: metrics and latency
	@$(evaluate)
report: $(SETUP) ## one stage: everything about the model in one file, WORK/report/index.html
	@$(report)

TEST ?= onnx
.PHONY: attribute
attribute: $(SETUP) ## which step of the pipeline loses how much: PyTorch replaced by TEST (onnx), step by step
	@$(call RUNTIME_TOOL,pytorch) trace --work $(WORK_ARG) --backend pytorch
	@$(call RUNTIME_TOOL,$(TEST)) swap --work $(WORK_ARG) --backend $(TEST) --device $(DEVICE) --trace pytorch-cpu
	@$(VERIFIER_TOOL) attribute --work $(WORK_ARG)

.PHONY: demo-data calibration-data labeled-data
demo-data: $(SETUP)
	@$(DEMO_TOOL) generate --out $(DEMO_ARG)$(demo_of:%= --for %)
calibration-data: $(SETUP)
	@$(DEMO_TOOL) generate --out $(CALIBRATION_ARG) --split train --frames 64$(demo_of:%= --for %)
labeled-data: $(SETUP)
	@$(DEMO_TOOL) generate --out $(LABELED_ARG) --labels

# -- set-up -----------------------------------------------------------------------------------------------------------

.PHONY: setup setup-full setup-rtx setup-mlflow setup-cluster setup-dev plugins clean
setup: $(TOOLS)/.ready $(EXPORTER)/.ready $(wildcard $(EXPORTER_FULL)/.ready) ## the virtual environments (mmcv without compiled ops)
setup-full: setup $(EXPORTER_FULL)/.ready ## the same with mmcv's compiled ops (builds for 10 minutes, then cached)
setup-rtx: $(RTX)/.ready ## TensorRT for RTX (0.4 GB), which builds engines without a GPU
setup-mlflow: $(TOOLS)/.mlflow-ready ## the evaluator's --mlflow (100 MB)
setup-cluster: $(TOOLS)/.cluster-ready $(EXPORTER)/.cluster-ready $(RTX_READY:%/.ready=%/.cluster-ready) ## --cluster and CLUSTER: Ray (240 MB in either environment)
setup-dev: setup $(TOOLS)/.dev-ready $(EXPORTER)/.dev-ready ## what tests and checks need
PLUGINS ?=
plugins: $(SETUP) ## install packages that add to the tools: those in packages/, or PLUGINS="folder, wheel or name ..." (docs/extending.md)
	@for folder in $(TOOLS) $(patsubst %/bin,%,$(EXPORTER_BIN)) $(if $(RTX_READY),$(RTX)); do \
	    $$folder/bin/pip install $(PIP_OPTIONS) $(or $(PLUGINS),$(wildcard packages/*/)); done
	@$(TOOLS)/bin/manifest plugins
clean: ## remove results and environments, but keep built wheels
	rm -rf work .venv

# pip writes into the sources here, so environments that are set up at once (make -j) take turns at it.
install_sources = $(if $(shell command -v flock),flock pyproject.toml) $(1)/bin/pip install $(PIP_OPTIONS) --no-deps \
    --no-build-isolation --config-settings editable_mode=compat -e .

$(TOOLS)/.ready: requirements/tools.txt pyproject.toml
	@echo "setting up $(TOOLS): runtime, trt_builder, verifier, evaluator"
	@$(PYTHON) -m venv $(TOOLS)
	@$(TOOLS)/bin/pip install $(PIP_OPTIONS) -r requirements/tools.txt
	@$(call install_sources,$(TOOLS))
	@touch $@

$(RTX)/.ready: requirements/rtx.txt pyproject.toml
	@echo "setting up $(RTX): TensorRT for RTX"
	@$(PYTHON) -m venv $(RTX)
	@$(RTX)/bin/pip install $(PIP_OPTIONS) -r requirements/rtx.txt
	@$(call install_sources,$(RTX))
	@touch $@

$(EXPORTER)/.ready: requirements/exporter.txt requirements/exporter-nodeps.txt pyproject.toml
	@echo "setting up $(EXPORTER): exporter"
	@$(PYTHON) -m venv $(EXPORTER)
	@$(EXPORTER)/bin/pip install $(PIP_OPTIONS) -r requirements/exporter.txt
	@$(EXPORTER)/bin/pip install $(PIP_OPTIONS) --no-deps -r requirements/exporter-nodeps.txt mmcv-lite==2.1.0
	@$(call install_sources,$(EXPORTER))
	@touch $@

$(EXPORTER_FULL)/.ready: requirements/exporter.txt requirements/exporter-nodeps.txt pyproject.toml $(MMCV_WHEEL)
	@echo "setting up $(EXPORTER_FULL): exporter with mmcv's compiled ops"
	@$(PYTHON) -m venv $(EXPORTER_FULL)
	@$(EXPORTER_FULL)/bin/pip install $(PIP_OPTIONS) -r requirements/exporter.txt -r requirements/dev.txt
	@$(EXPORTER_FULL)/bin/pip install $(PIP_OPTIONS) --no-deps -r requirements/exporter-nodeps.txt $(WHEELS)/mmcv-2.1.0-*.whl
	@$(call install_sources,$(EXPORTER_FULL))
	@touch $@

# mmcv 2.1.0 needs setuptools<70 and torch at build time, so it is built in an environment of its own.
$(MMCV_WHEEL):
	@echo "building mmcv 2.1.0 with its ops; this takes about 10 minutes on 2 cores"
	@mkdir -p $(WHEELS)
	@$(PYTHON) -m venv .venv/mmcv-build
	@.venv/mmcv-build/bin/pip install $(PIP_OPTIONS) torch==2.13.0
	@.venv/mmcv-build/bin/pip install $(PIP_OPTIONS) 'setuptools<70' wheel ninja psutil numpy
	@MMCV_WITH_OPS=1 MAX_JOBS=$${MAX_JOBS:-$$(nproc)} \
	    .venv/mmcv-build/bin/pip wheel $(PIP_OPTIONS) --no-build-isolation --no-deps mmcv==2.1.0 -w $(WHEELS)
	@rm -rf .venv/mmcv-build
	@touch $@

$(TOOLS)/.dev-ready: $(TOOLS)/.ready requirements/dev.txt requirements/dev-nodeps.txt
	@$(TOOLS)/bin/pip install $(PIP_OPTIONS) -r requirements/dev.txt
	@$(TOOLS)/bin/pip install $(PIP_OPTIONS) --no-deps -r requirements/dev-nodeps.txt
	@touch $@

$(TOOLS)/.mlflow-ready: $(TOOLS)/.ready requirements/mlflow.txt
	@$(TOOLS)/bin/pip install $(PIP_OPTIONS) -r requirements/mlflow.txt
	@touch $@

$(TOOLS)/.cluster-ready $(EXPORTER)/.cluster-ready $(RTX)/.cluster-ready: %/.cluster-ready: %/.ready requirements/cluster.txt
	@$*/bin/pip install $(PIP_OPTIONS) -r requirements/cluster.txt
	@touch $@

$(DOCS)/.ready: requirements/lock/docs.txt
	@echo "setting up $(DOCS): MkDocs"
	@$(PYTHON) -m venv $(DOCS)
	@$(DOCS)/bin/pip install $(PIP_OPTIONS) --require-hashes --no-deps -r requirements/lock/docs.txt
	@touch $@

# A tracking server for the tests of --mlflow, in an environment of its own.
$(MLFLOW_SERVER)/.ready:
	@echo "setting up $(MLFLOW_SERVER): MLflow's server, for tests"
	@$(PYTHON) -m venv $(MLFLOW_SERVER)
	@$(MLFLOW_SERVER)/bin/pip install $(PIP_OPTIONS) mlflow==3.17.2
	@touch $@

$(EXPORTER)/.dev-ready: $(EXPORTER)/.ready requirements/dev.txt
	@$(EXPORTER)/bin/pip install $(PIP_OPTIONS) -r requirements/dev.txt
	@touch $@

# -- tests and checks -------------------------------------------------------------------------------------------------

.PHONY: test lint docs test-tools test-unit test-integration test-e2e test-exporter test-mmcv-ops test-packages test-mlflow test-gpu bench-gpu bench-suite fuzz kill-test
# Suites share nothing, so two run at a time, the longest first; a line of each begins with its name. What fails lets the
# others finish. ALSO: targets to follow them.
SUITES := test-exporter test-e2e test-integration test-unit
ALSO ?=
test: setup-dev lint ## lint, and every test that needs no GPU, Docker or compiled ops
	@$(MAKE) -j 2 -k BESIDE=yes $(SUITES) $(ALSO)

lint: setup-dev ## ruff, mypy, import rules, generated docs up to date
	@$(TOOLS)/bin/ruff check .
	@$(TOOLS)/bin/ruff format --check .
	@$(TOOLS)/bin/mypy shared exporter trt_builder runtime verifier evaluator demo docs examples/plugin/clearance examples/own_model/my_project \
	    examples/compare_checkpoints examples/python_api
	@for package in packages/*/; do MYPYPATH=$$package $(TOOLS)/bin/mypy $$package || exit; done

# BESIDE: another suite has the other core, so threads of one operator would only wait for one another.
BESIDE ?=
suite = $(if $(BESIDE),OMP_NUM_THREADS=1) $(1) $(PYTEST) $(if $(BESIDE),2>&1 | sed -u 's/^/$@: /')

in_tools = $(call suite,$(TOOLS)/bin/pytest $(1) -m "not exporter and not mmcv_ops and not gpu and not docker and not packages")
test-tools: test-unit test-integration test-e2e
test-e2e test-integration: test-%: setup-dev
	@$(call in_tools,tests/$*)
test-unit: setup-dev
	@$(call in_tools,--ignore=tests/e2e --ignore=tests/integration)
test-exporter: setup-dev
	@$(call suite,$(EXPORTER)/bin/pytest -m "exporter and not mmcv_ops")
test-mmcv-ops: setup-full ## the tests that compare with mmcv's compiled ops
	@$(EXPORTER_FULL)/bin/pytest -m "mmcv_ops" $(PYTEST)
test-packages: setup-dev plugins ## the tests of packages/, which are installed for it
	@for package in packages/*/; do $(EXPORTER_BIN)/pytest $${package}tests $(PYTEST) || exit; done
test-mlflow: setup-dev setup-mlflow $(MLFLOW_SERVER)/.ready ## the tests of --mlflow, with a real server (0.9 GB)
	@$(TOOLS)/bin/pytest tests/integration/test_mlflow.py $(PYTEST)
fuzz: setup-dev ## mutated files for every reader of users' files, SECONDS each (READERS="info_pickle yaml" for some)
	@$(TOOLS)/bin/python -m tests.fuzz $(READERS) --seconds $(or $(SECONDS),60)
kill-test: setup-dev ## kill every command that writes before each change of a file (COMMANDS="merge tag" for some)
	@$(TOOLS)/bin/python -m tests.kill $(COMMANDS) $(if $(POINTS),--points $(POINTS))
test-gpu: setup-dev ## the tests that need a GPU with TensorRT
	@$(TOOLS)/bin/pytest -m gpu $(PYTEST)

bench-gpu: setup-dev ## everything that needs a GPU: tests, engines per policy, latency, soak (25 minutes at most; OUT=folder, PARTS="tests ...")
	@$(TOOLS)/bin/python benchmarks/gpu_round.py --out $(or $(OUT),work/gpu-round) $(if $(PARTS),--parts $(PARTS))

REPORT ?= work/centerpoint/report/index.html
bench-suite: setup demo-data ## the standard benchmarks on this machine: one file and one page (OUT=folder, PARTS="voxelization ...")
	@$(TOOLS)/bin/python -m benchmarks.suite --out $(or $(OUT),work/bench-suite) --demo $(DEMO_DATA) --exporter $(EXPORTER_BIN)/python $(if $(PARTS),--parts $(PARTS))

docs: setup-dev ## write the generated pages, and make the site: work/site/index.html, with pictures of REPORT
	@$(TOOLS)/bin/python docs/generate.py --write
	@$(MAKE) -s $(DOCS)/.ready
	@$(TOOLS)/bin/python docs/site_source.py work/site-source
	@$(TOOLS)/bin/python docs/screenshots.py $(REPORT) work/site-source/docs
	@NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --strict --quiet
	@echo "the site: work/site/index.html"
