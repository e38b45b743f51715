# evaluator: metrics, latency, report. No framework.
# Build and run: compose.yaml. Layers are ordered by how often they change: packages, contract library, tool.
ARG BASE_IMAGE=python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS packages
COPY requirements/lock/evaluator.txt /locks/
# Only what gets imported is compiled ahead: scikit-learn's and SciPy's other modules would be 30 MB of bytecode.
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=secret,id=pip_conf,target=/etc/pip.conf \
    python3 -m venv --without-pip /opt/venv \
    && python3 -m pip --python /opt/venv/bin/python3 install --disable-pip-version-check --no-compile \
        --require-hashes --no-deps --only-binary :all: -r /locks/evaluator.txt \
    && find /opt/venv \( -name tests -o -name '*.py[ix]' -o -name '*.pxd' \) -prune -exec rm -r {} + \
    && /opt/venv/bin/python3 -c 'import click, faster_coco_eval, jinja2, PIL.Image, PIL.ImageDraw, \
pydantic, rich.progress, rich.table, scipy.special, sklearn.metrics, ruamel.yaml; PIL.Image.init()'
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
COPY evaluator /app/evaluator
RUN /opt/venv/bin/python3 -m compileall -q /app && mkdir -m 1777 /state
ARG IMAGE=awml-deploy/evaluator
ARG VERSION=0
ARG REVISION=unknown
ARG BASE_IMAGE
LABEL org.opencontainers.image.title="awml-deploy evaluator" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}" \
    org.opencontainers.image.base.name="${BASE_IMAGE}" \
    org.opencontainers.image.licenses="Apache-2.0"
ENV PATH=/opt/venv/bin:${PATH} \
    PYTHONPATH=/app \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    AWML_DEPLOY_KEY=/state/key \
    AWML_DEPLOY_TOOL=evaluator \
    AWML_DEPLOY_IMAGE=${IMAGE} \
    AWML_DEPLOY_TENSORRT=
WORKDIR /app
USER 10001:10001
ENTRYPOINT ["python3", "/app/entrypoint.py"]
