#!/usr/bin/env bash
# Checks docker/compose.yaml without a container engine: with Docker's Compose plugin if there is
# one, otherwise against the schema of the Compose specification, which comes with the Python
# package check-jsonschema.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly CHECKER='check-jsonschema==0.39.0'
readonly FILE=docker/compose.yaml

fail() {
    echo "check-compose: $*" >&2
    exit 1
}

# Every file or folder mounted into a container must be in the checkout, otherwise the engine would
# create an empty folder.
check_mounts() {
    local source missing=0
    while read -r source; do
        if [[ ! -e docker/$source ]]; then
            echo "check-compose: $FILE mounts $source, which is missing" >&2
            missing=1
        fi
    done < <(sed -nE 's/^ *- (\.\/[^:]+):.*$/\1/p' "$FILE")
    return "$missing"
}

check_mounts || fail "correct the volumes of $FILE"

if docker compose version >/dev/null 2>&1; then
    docker compose --file "$FILE" config --quiet || fail "$FILE is not valid, see above"
    echo "check-compose: $FILE is valid (docker compose)"
    exit 0
fi

command -v python3 >/dev/null || fail 'neither the Docker Compose plugin nor python3 is there: install one of them'
if [[ ! -x .stack/venv/bin/check-jsonschema ]] ||
    ! .stack/venv/bin/python -m pip freeze 2>/dev/null | grep -qxF "$CHECKER"; then
    echo "check-compose: installing $CHECKER into .stack/venv"
    python3 -m venv --clear .stack/venv || fail 'python3 cannot make a virtual environment: install python3-venv'
    .stack/venv/bin/python -m pip install --quiet --disable-pip-version-check "$CHECKER"
fi
.stack/venv/bin/check-jsonschema --builtin-schema vendor.compose-spec "$FILE" || fail "$FILE is not valid, see above"
echo "check-compose: $FILE is valid (schema of the Compose specification)"
