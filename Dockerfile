# Three stages: the plugin frozen into one static file, the agent's packages, and an image of both without a tool besides.
ARG BASE=debian:12-slim

FROM ${BASE} AS plugin
RUN apt-get update -qq \
 && apt-get install -qq --no-install-recommends python3.11 libpython3.11-dev libexpat1-dev zlib1g-dev gcc libc6-dev make
WORKDIR /src
COPY Makefile ./
COPY tests/setup-packages tests/setup-packages
COPY plugin plugin
RUN mkdir build && touch -d 2100-01-01 build/.packages && make plugin

FROM ${BASE} AS packages
RUN apt-get update -qq && apt-get install -qq --no-install-recommends python3.11-venv
WORKDIR /opt/istio-cni
COPY installer/requirements.txt ./
RUN python3.11 -m venv --without-pip venv && python3.11 -m venv /tmp/pip \
 && /tmp/pip/bin/pip --python venv/bin/python install --quiet --no-cache-dir --require-hashes -r requirements.txt
COPY plugin venv/lib/python3.11/site-packages/plugin
COPY installer venv/lib/python3.11/site-packages/installer

FROM ${BASE}
RUN apt-get update -qq \
 && apt-get install -qq --no-install-recommends python3.11-minimal libpython3.11-stdlib libnftables1 iptables \
 && rm -rf /var/lib/apt/lists/*
COPY --from=packages /opt/istio-cni/venv /opt/istio-cni/venv
COPY --from=plugin /src/build/istio-cni /opt/istio-cni/istio-cni
ENTRYPOINT ["/opt/istio-cni/venv/bin/python", "-I", "-m", "installer"]
CMD ["run"]
