# The program as an image: `docker compose build`, see docs/deploy.md. It is configured at run time; no layer contains a secret.

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
# A fixed id, so that it can own a folder of the host; the folders exist so that new volumes belong to this user.
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
# One image, several commands: docker-compose.yml checks the dashboard, the only one that serves requests.
HEALTHCHECK NONE
ENTRYPOINT ["ralr-tune"]
CMD ["--help"]
