# The backend. Without a GPU:  docker build -t timeline-backend .
# With one:                    docker build -t timeline-backend:cuda --build-arg TORCH=cuda .
# Any image with Debian's or Docker's Python 3.10 to 3.14, its venv module included.
# A tag may change what it means: --build-arg BASE=python:3.11-slim-bookworm@sha256:… pins it (docs/operations.md).
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS environment
# Where PyTorch's wheels for CPUs come from, with TORCH=cpu.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG TORCH=cpu
COPY requirements-uv.txt /opt/
RUN python3 -m venv /opt/uv && /opt/uv/bin/pip install --no-cache-dir --require-hashes -r /opt/requirements-uv.txt
# The dependencies are a layer of their own: a change of the code leaves it as it is.
COPY install.sh requirements.txt /opt/
RUN python3 -m venv --without-pip /opt/venv \
    && sh /opt/install.sh /opt/uv/bin/uv /opt/venv/bin/python /opt/requirements.txt ${TORCH} --no-cache --compile-bytecode

FROM ${BASE}
RUN useradd --uid 10001 --no-create-home backend
COPY --from=environment /opt/venv /opt/venv
WORKDIR /app
COPY . .
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 \
    MODEL_ROOT=/models CACHE_DIR=/cache DATA_DIR=/data HOST=0.0.0.0
# yolov8n-cls, where there is a network; without one the bundled network stands in, and it is tried again later. Of a failure
# the last line is the reason.
RUN mkdir /models /cache /data \
    && python -c 'from pathlib import Path; from features.encoder import get_encoder; \
        get_encoder(None, model_root=Path("/models"), precision="fp32", fallback=False)' 2>&1 | tail --lines=1 \
    && chown --recursive backend /models /cache /data
USER backend
VOLUME /models /cache /data
EXPOSE 9090
HEALTHCHECK --start-period=60s --interval=15s --timeout=5s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://localhost:9090/health', timeout=4)"]
CMD ["gunicorn", "_wsgi:app"]
