#!/usr/bin/env bash
# Build the image of every role and run the whole pipeline from them, as docker-compose.yml runs it: a webhook is created, an
# event is delivered to a receiver that verifies it, and every process drains. Where no Docker engine answers, one is started
# for it: see tools/with_docker.sh.
set -euo pipefail
cd "$(dirname "$0")/.."
docker info >/dev/null 2>&1 || exec tools/with_docker.sh "$0"

LIMIT_MB=250  # above the base image
PYTHON_VERSION=${PYTHON_VERSION:-$(sed -n 's/^ARG PYTHON_VERSION=//p' deploy/Dockerfile)}
GO2HOOKS_SECRET_KEYS=$(head -c 32 /dev/urandom | base64)
GO2HOOKS_POSTGRES_PASSWORD=$(head -c 18 /dev/urandom | base64 | tr '+/' '-_')
export GO2HOOKS_SECRET_KEYS GO2HOOKS_POSTGRES_PASSWORD
export GO2HOOKS_API_PORT=0 GO2HOOKS_ALLOW_INSECURE_TARGETS=true  # any free port; the receiver has no certificate
export COMPOSE_PROJECT_NAME=go2hooks-try-$$
SERVICES=(api router replayer dispatcher)
RECEIVER=$COMPOSE_PROJECT_NAME-receiver

say() { echo "try_image: $*"; }

fail() {
  say "FAILED: $*" >&2
  compose logs --tail=30 >&2 || true
  docker logs "$RECEIVER" >&2 || true
  exit 1
}

compose() {
  if docker compose version >/dev/null 2>&1; then docker compose "$@"; else docker-compose "$@"; fi
}

megabytes() { echo $(($(docker image inspect --format '{{.Size}}' "$1") / 1000000)); }

build() {
  say "building the image of $1"
  local said above
  said=$(docker build --network=host --file deploy/Dockerfile --build-arg EXTRA="$1" --build-arg PYTHON_VERSION="$PYTHON_VERSION" \
    --tag "go2hooks:$1" . 2>&1) || { tail -n 40 <<<"$said" >&2; exit 1; }
  above=$(($(megabytes "go2hooks:$1") - $(megabytes "python:$PYTHON_VERSION-slim")))
  say "go2hooks:$1 is $above MB above its base"
  [ "$above" -le "$LIMIT_MB" ] || fail "that is more than $LIMIT_MB MB"
}

# eventually SECONDS COMMAND…: until it succeeds.
eventually() {
  local until=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    [ "$SECONDS" -lt "$until" ] || fail "waited in vain for: $*"
    sleep 0.5
  done
}

are_healthy() {
  local service
  for service in "${SERVICES[@]}"; do
    [ "$(docker inspect --format '{{.State.Health.Status}}' "$(compose ps --quiet "$service")")" = healthy ] || return 1
  done
}

# What a process of this service may do, as the kernel sees it: nothing that it does not need.
check_confined() {
  compose exec -T "$1" python - <<'EOF' || fail "$1 is not confined, or not compiled"
import os
from pathlib import Path
from go2hooks.core.flow import lanes
status = dict(line.split(":\t", 1) for line in Path("/proc/1/status").read_text().splitlines() if ":\t" in line)
assert status["Uid"].split() == ["10001"] * 4, status["Uid"]
assert {int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}, status
assert status["NoNewPrivs"] == "1", status["NoNewPrivs"]
assert os.statvfs("/").f_flag & os.ST_RDONLY and os.statvfs("/tmp").f_flag & os.ST_RDONLY
assert not lanes.__file__.endswith(".py"), lanes.__file__
EOF
}

# call METHOD PATH [BODY]: the API, as a customer does.
call() {
  curl --silent --show-error --fail --request "$1" --header "Authorization: Bearer $key" \
    --header 'Content-Type: application/json' ${3:+--data "$3"} "http://$api/api/v1$2"
}

is_delivered() { call GET "/webhooks/$webhook/deliveries" | grep '"status": *"delivered"'; }

is_verified() { docker logs "$RECEIVER" 2>&1 | grep 'both signatures right'; }

clean_up() {
  docker rm --force "$RECEIVER" >/dev/null 2>&1 || true
  compose down --volumes --remove-orphans >/dev/null 2>&1 || true
}

trap clean_up EXIT
trap 'exit 130' INT TERM

docker image inspect "python:$PYTHON_VERSION-slim" >/dev/null 2>&1 || docker pull --quiet "python:$PYTHON_VERSION-slim"
build api
build dispatcher

say "starting ${SERVICES[*]}, and what they need"
said=$(compose up -d --no-build "${SERVICES[@]}" 2>&1) || fail "$said"
eventually 180 are_healthy
for service in "${SERVICES[@]}"; do check_confined "$service"; done
say "all are healthy, compiled and confined: uid 10001, no capability, nothing writable"

key=$(compose run --rm -T migrate keys create --account acme 2>/dev/null | tr -d '\r')
api=$(compose port api 8080)
created=$(call POST /webhooks "{\"name\": \"Try\", \"url\": \"http://$RECEIVER:8900/hook\", \"events\": [\"click\"]}")
field() { sed -n "s/.*\"$1\": *\"\([^\"]*\)\".*/\1/p" <<<"$created"; }
webhook=$(field id)
compose run -d --no-deps --name "$RECEIVER" -e COLUMNS=200 dispatcher listen --host 0.0.0.0 --port 8900 --secret "$(field secret)" \
  >/dev/null 2>&1
compose run --rm -T --no-deps dispatcher emit click --account acme >/dev/null 2>&1
eventually 60 is_verified
eventually 60 is_delivered
say "an event was delivered, both its signatures verified, and recorded"

docker rm --force "$RECEIVER" >/dev/null  # for compose, it is one of the dispatcher's
compose stop --timeout 30 "${SERVICES[@]}" >/dev/null 2>&1
for service in "${SERVICES[@]}"; do
  status=$(docker inspect --format '{{.State.ExitCode}}' "$(compose ps --all --quiet "$service")")
  [ "$status" = 0 ] || fail "$service ended with status $status"
done
say "all drained and ended with status 0. OK"
