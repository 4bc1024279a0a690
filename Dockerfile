# The switch in a container: `docker run IMAGE` takes the arguments of `ofswitch run`.
# What it must be granted is in README.md, "Docker". Built and run for real by `make docker-test`.

ARG BASE=debian:bookworm-slim

# ---- Python packages, with the tools to install them, which the image itself does not need
FROM ${BASE} AS packages
RUN apt-get update && apt-get install -y --no-install-recommends python3-venv && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/ofswitch
COPY pyproject.toml README.md ./
# Secrets are optional: pip's configuration, and the certificates that it trusts, where the network asks for them.
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf --mount=type=secret,id=certificates \
    [ ! -e /run/secrets/certificates ] || export PIP_CERT=/run/secrets/certificates; \
    mkdir appliance && touch appliance/__init__.py \
    && /usr/bin/python3 -m venv --system-site-packages .venv \
    && .venv/bin/pip install -q --no-cache-dir --disable-pip-version-check --editable . \
    && rm -r .venv/lib/python3*/site-packages/os_ken/tests \
    && .venv/bin/pip uninstall -q -y pip

FROM ${BASE}
RUN apt-get update && apt-get install -y --no-install-recommends python3-bpfcc && rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/*
COPY --from=packages /opt/ofswitch/.venv /opt/ofswitch/.venv
WORKDIR /opt/ofswitch
COPY . .
ENV PATH=/opt/ofswitch/.venv/bin:$PATH
ENTRYPOINT ["ofswitch", "run"]
