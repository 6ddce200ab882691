# The agent's image: Python, the agent, the plugin file, libnftables, iptables, and their libraries. It has nothing else,
# no shell and no package manager: the last stage starts empty and receives single files. So BASE may contain what the build
# machine's network requires, such as a mirror or a certificate authority: the image keeps nothing of it.
# Build it with `make image` or any builder: besides BASE, the build needs only Debian and Python packages.
ARG BASE=debian:12-slim@sha256:7c7b2c966bc9ee8cedfeef67e0e279108992c77681fa595db4a9d65c06ccc587

# The plugin, frozen into one static file.
FROM ${BASE} AS plugin
RUN apt-get update -qq \
 && apt-get install -qq --no-install-recommends python3.11 libpython3.11-dev libexpat1-dev zlib1g-dev gcc libc6-dev make
WORKDIR /src
COPY Makefile ./
COPY tests/setup-packages tests/setup-packages
COPY plugin plugin
RUN mkdir build && touch -d 2100-01-01 build/.packages && make plugin

# Third-party files of the image, in /tree: Python packages, and the Debian files that the agent needs at run time.
FROM ${BASE} AS system
RUN apt-get update -qq && apt-get install -qq --no-install-recommends python3.11-venv iptables libnftables1 netbase binutils
COPY installer/requirements.txt /
RUN python3.11 -m venv /pip \
 && /pip/bin/pip install --quiet --no-cache-dir --no-compile --require-hashes --requirement /requirements.txt \
    --target /tree/usr/local/lib/python3.11/dist-packages \
 && cd /tree/usr/local/lib/python3.11/dist-packages && rm -rf bin kubernetes/aio \
 && find . -regextype posix-extended -regex '.*\.(pyi|pyx|pxd|pxi|c|h|hash)' -delete
COPY installer/image/tree.py /
RUN python3.11 /tree.py /tree

# The project's own files.
FROM system AS agent
COPY plugin /agent/plugin
COPY installer /agent/installer
RUN rm -r /agent/plugin/frozen /agent/installer/image /agent/installer/requirements.txt \
 && python3.11 -m compileall -q --invalidation-mode unchecked-hash -s /agent -p /usr/local/lib/python3.11/dist-packages /agent \
 && printf '%s\n' '#!/usr/bin/python3.11 -I' 'from installer.main import main' '' 'main()' > /install-cni && chmod 755 /install-cni

FROM scratch
COPY --from=system /tree /
COPY --from=agent /agent /usr/local/lib/python3.11/dist-packages
COPY --from=agent /install-cni /usr/local/bin/install-cni
COPY --from=plugin /src/build/istio-cni /opt/istio-cni/istio-cni
ENTRYPOINT ["/usr/local/bin/install-cni"]
CMD ["run"]
