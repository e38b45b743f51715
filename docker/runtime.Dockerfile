# runtime: a backend over a data set. One file, three images: BACKEND is onnx, pytorch or tensorrt.
# Build and run: compose.yaml. Layers are ordered by how often they change: packages, contract library, tool.
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS packages
ARG BACKEND=onnx
# PyTorch for "cuda" or "cpu"; the wheel of the latter is not on PyPI: docs/docker.md.
ARG TORCH=cuda
COPY requirements/lock/runtime-*.txt requirements/lock/torch-*.txt /locks/
COPY docker/wheels /wheels
ENV PIP_CONSTRAINT= PIP_BREAK_SYSTEM_PACKAGES=1
COPY requirements/lock/pip.txt /locks/
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=secret,id=pip_conf,target=/etc/pip.conf \
    python3 -m pip install --disable-pip-version-check --ignore-installed --require-hashes --no-deps -r /locks/pip.txt
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=secret,id=pip_conf,target=/etc/pip.conf \
    locks="runtime-${BACKEND}" \
    && if [ "${BACKEND}" = pytorch ]; then locks="${locks} torch-${TORCH}"; fi \
    && python3 -m venv --without-pip /opt/venv \
    && if [ "${BACKEND}" = tensorrt ]; then python3 -m venv --without-pip --system-site-packages /opt/venv; fi \
    && for lock in ${locks}; do \
        python3 -m pip --python /opt/venv/bin/python3 install --disable-pip-version-check --ignore-installed \
            --find-links /wheels --require-hashes --no-deps --only-binary :all: -r "/locks/${lock}.txt" || exit 1; \
    done \
    && find /opt/venv \( -name tests -o -path '*/onnx/backend/test' -o -name '*.py[ix]' -o -name '*.pxd' \) -prune -exec rm -r {} +
COPY requirements/lock/build-tools.txt requirements/lock/pycuda.txt /locks/
# pycuda is compiled with the base image's CUDA toolkit; on a base without one there is no GPU to run on either.
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=secret,id=pip_conf,target=/etc/pip.conf \
    if [ "${BACKEND}" = tensorrt ] && [ -x /usr/local/cuda/bin/nvcc ]; then \
        export PATH="/usr/local/cuda/bin:${PATH}"; \
        for lock in build-tools pycuda; do \
            python3 -m pip --python /opt/venv/bin/python3 install --disable-pip-version-check --ignore-installed \
                --require-hashes --no-deps --no-build-isolation -r "/locks/${lock}.txt" || exit 1; \
        done; \
    fi
# Ray, in images for a cluster: docs/scale.md.
ARG RAY=no
COPY requirements/lock/cluster.txt /locks/
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=secret,id=pip_conf,target=/etc/pip.conf \
    if [ "${RAY}" = yes ]; then \
        python3 -m pip --python /opt/venv/bin/python3 install --disable-pip-version-check --ignore-installed \
            --require-hashes --no-deps --only-binary :all: -r /locks/cluster.txt; \
    fi
# Packages that add to the tools: docs/docker.md.
ARG PLUGINS=no
COPY docker/plugins /plugins
RUN if [ "${PLUGINS}" = yes ]; then \
        python3 -m pip --python /opt/venv/bin/python3 install --disable-pip-version-check --no-cache-dir \
            --no-index --find-links /plugins /plugins/*.whl; \
    fi

FROM ${BASE_IMAGE}
COPY --from=packages /opt/venv /opt/venv
COPY docker/entrypoint.py /app/
COPY shared /app/shared
COPY runtime /app/runtime
RUN /opt/venv/bin/python3 -m compileall -q /app && mkdir -m 1777 /state
ARG IMAGE=awml-deploy/runtime
ARG VERSION=0
ARG REVISION=unknown
ARG BASE_IMAGE
# What the image of the TensorRT backend is pinned to, for example "tensorrt==10.8"; it does not start with another one.
ARG TENSORRT=
LABEL org.opencontainers.image.title="awml-deploy runtime" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}" \
    org.opencontainers.image.base.name="${BASE_IMAGE}" \
    org.opencontainers.image.licenses="Apache-2.0" \
    awml-deploy.tensorrt="${TENSORRT}"
ENV PATH=/opt/venv/bin:${PATH} \
    PYTHONPATH=/app \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    AWML_DEPLOY_KEY=/state/key \
    AWML_DEPLOY_TOOL=runtime \
    AWML_DEPLOY_IMAGE=${IMAGE} \
    AWML_DEPLOY_TENSORRT=${TENSORRT}
WORKDIR /app
USER 10001:10001
ENTRYPOINT ["python3", "/app/entrypoint.py"]
