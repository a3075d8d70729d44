# The program as an image: `docker compose build`, see docs/deploy.md. What it needs to know comes when it runs; no secret is in a layer.

FROM python:3.12.11-slim-bookworm AS build
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY ralr_tune ralr_tune
COPY studies studies
RUN python -m venv /opt/ralr-tune \
    && /opt/ralr-tune/bin/pip install --no-cache-dir --disable-pip-version-check .

FROM python:3.12.11-slim-bookworm
# 1: with a Chromium, for `report --png` and `--svg`
ARG CHROMIUM=0
# hadolint ignore=DL3008
RUN if [ "$CHROMIUM" = 1 ]; then \
        apt-get update \
        && apt-get install --yes --no-install-recommends chromium \
        && rm -rf /var/lib/apt/lists/*; \
    fi
# A fixed number, so that it can own a folder of the host; the folders are there so that new volumes are its own.
RUN groupadd --gid 10001 ralr \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin ralr \
    && install --directory --owner=10001 --group=10001 /srv/ralr /srv/ralr/runs
COPY --from=build /opt/ralr-tune /opt/ralr-tune
ENV PATH=/opt/ralr-tune/bin:$PATH \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /srv/ralr
USER 10001:10001
# One image, several commands: docker-compose.yml looks after the dashboard, the only one that answers.
HEALTHCHECK NONE
ENTRYPOINT ["ralr-tune"]
CMD ["--help"]
