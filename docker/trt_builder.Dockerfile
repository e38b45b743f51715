# trt_builder: ONNX to TensorRT engines. TensorRT is the base image's, or that of a lock file (target rtx).
# Build and run: compose.yaml. Layers are ordered by how often they change: packages, contract library, tool.
ARG BASE_IMAGE=nvcr.io/nvidia/tensorrt:25.01-py3

FROM ${BASE_IMAGE} AS packages
# "tensorrt-rtx", or "none" where the base image has TensorRT.
ARG TENSORRT_REQUIREMENTS=none
COPY requirements/lock/trt_builder.txt /locks/
# The vendor's constraints are for the vendor's environment; ours has its own, which sees the vendor's TensorRT.
ENV PIP_CONSTRAINT= PIP_BREAK_SYSTEM_PACKAGES=1
COPY requirements/lock/pip.txt /locks/
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=secret,id=pip_conf,target=/etc/pip.conf \
    python3 -m pip install --disable-pip-version-check --ignore-installed --require-hashes --no-deps -r /locks/pip.txt
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=secret,id=pip_conf,target=/etc/pip.conf \
    python3 -m venv --without-pip --system-site-packages /opt/venv \
    && python3 -m pip --python /opt/venv/bin/python3 install --disable-pip-version-check --ignore-installed \
        --require-hashes --no-deps --only-binary :all: -r /locks/trt_builder.txt \
    && find /opt/venv \( -name tests -o -path '*/onnx/backend/test' -o -name '*.py[ix]' -o -name '*.pxd' \) -prune -exec rm -r {} +
COPY requirements/lock/build-tools.txt requirements/lock/tensorrt-*.txt /locks/
# The vendor's wheels hang together by a source package of a few lines.
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=secret,id=pip_conf,target=/etc/pip.conf \
    if [ "${TENSORRT_REQUIREMENTS}" != none ]; then \
        for lock in build-tools "${TENSORRT_REQUIREMENTS}"; do \
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
COPY trt_builder /app/trt_builder
RUN /opt/venv/bin/python3 -m compileall -q /app && mkdir -m 1777 /state
ARG IMAGE=awml-deploy/trt_builder
ARG VERSION=0
ARG REVISION=unknown
ARG BASE_IMAGE
# What the image is pinned to, for example "tensorrt==10.8"; it does not start with another one.
ARG TENSORRT=
LABEL org.opencontainers.image.title="awml-deploy trt_builder" \
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
    AWML_DEPLOY_TOOL=trt_builder \
    AWML_DEPLOY_IMAGE=${IMAGE} \
    AWML_DEPLOY_TENSORRT=${TENSORRT}
WORKDIR /app
USER 10001:10001
ENTRYPOINT ["python3", "/app/entrypoint.py"]
