# syntax=docker/dockerfile:1
# The server as an image: docker build --build-arg LIST=cpu|cuda --tag llmkit .
# The pinned list decides every package; nothing is resolved while building.
ARG PYTHON=3.11-slim-bookworm

FROM python:${PYTHON} AS build
ARG LIST=cpu
# Another index of wheels, such as https://download.pytorch.org/whl/cpu for the CPU build of torch.
ARG PIP_EXTRA_INDEX_URL=
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/llmkit
WORKDIR /source
# First the list alone: a change of our code does not install all of it again.
COPY requirements/${LIST}.txt requirements/
RUN /opt/llmkit/bin/pip install --no-deps -r requirements/${LIST}.txt
# Where the index has no CPU build of torch, its CUDA build came, which needs more to load.
RUN /opt/llmkit/bin/python -c "import torch" \
    || /opt/llmkit/bin/pip install "$(grep '^torch==' requirements/${LIST}.txt)"
COPY pyproject.toml README.md LICENSE ./
COPY data_prep data_prep
COPY llmkit llmkit
COPY serve serve
RUN /opt/llmkit/bin/pip install --no-deps --no-build-isolation .

FROM python:${PYTHON}
# libnuma: vLLM's CPU kernels link to it. gcc: Triton compiles its launchers with it on CUDA.
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev libnuma1 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --user-group --home-dir /cache --no-create-home llmkit \
    && install -d -o llmkit -g llmkit /cache /data
COPY --from=build /opt/llmkit /opt/llmkit
# All that is ever written goes to /cache (may be lost), /data (may not) and /tmp, so that the rest
# can be read-only.
ENV PATH=/opt/llmkit/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/cache \
    XDG_CACHE_HOME=/cache \
    XDG_CONFIG_HOME=/cache/config \
    XDG_DATA_HOME=/data \
    TRITON_CACHE_DIR=/cache/triton \
    TORCHINDUCTOR_CACHE_DIR=/cache/inductor \
    NUMBA_CACHE_DIR=/cache/numba \
    FLASHINFER_WORKSPACE_BASE=/cache \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001:10001
WORKDIR /data
VOLUME ["/cache", "/data"]
EXPOSE 8000
STOPSIGNAL SIGTERM
# Healthy is ready: /ready is 200 once the model has loaded, and 503 again while draining.
HEALTHCHECK --interval=10s --timeout=5s --start-period=15m --retries=3 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/ready', timeout=4)"]
ENTRYPOINT ["llmkit"]
CMD ["serve", "--help"]
