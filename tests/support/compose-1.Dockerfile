# docker-compose 1.29 as Debian 12 has it, on the Debian 12 that the service's image was built on.
ARG BASE_IMAGE
# hadolint ignore=DL3006 -- the caller names the base image, with its tag
FROM ${BASE_IMAGE}
# It talks to the Docker daemon, which is as good as root.
# hadolint ignore=DL3002
USER 0:0
# hadolint ignore=DL3008
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends docker-compose \
    && rm -rf /var/lib/apt/lists/*
ENTRYPOINT ["docker-compose"]
