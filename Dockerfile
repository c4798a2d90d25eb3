# The image of worker, beat, state exporter and migrations. Built by two stages: the first needs the
# package index, the second only copies what the first made. No compiler in either; all that is
# installed is pinned in docker/constraints.txt. Runs as a user without a home, on a read-only root.

FROM python:3.12.13-slim-bookworm AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore \
    PIP_CONSTRAINT=/source/docker/constraints.txt \
    PIP_BUILD_CONSTRAINT=/source/docker/constraints.txt
WORKDIR /source
COPY docker/constraints.txt ./docker/
COPY pyproject.toml README.md LICENSE ./
COPY idempotency ./idempotency
COPY scheduler ./scheduler
COPY exporter ./exporter
COPY alerts ./alerts
COPY dashboards ./dashboards
COPY demo ./demo
RUN python -m pip wheel --no-deps --wheel-dir /wheel .
RUN python -m venv --without-pip /opt/idemwatch
RUN python -m pip --python /opt/idemwatch/bin/python install --only-binary :all: \
    "$(echo /wheel/idemwatch-*.whl)[server]"

FROM python:3.12.13-slim-bookworm
LABEL org.opencontainers.image.title="idemwatch" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.source="https://github.com/idemwatch/idemwatch"
RUN groupadd --system --gid 10001 idemwatch \
    && useradd --system --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent \
    --shell /usr/sbin/nologin idemwatch
COPY --from=build /opt/idemwatch /opt/idemwatch
ENV PATH=/opt/idemwatch/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HEALTH_URL=http://127.0.0.1:9911/-/healthy
USER 10001:10001
WORKDIR /tmp
EXPOSE 9911 9912
HEALTHCHECK --interval=15s --timeout=6s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen(os.environ['HEALTH_URL'], timeout=5)"]
CMD ["idemwatch", "exporter", "--web.listen-address", "0.0.0.0:9911"]
