#!/usr/bin/env bash
# Checks the dependencies against deny.toml with cargo-deny: licences, sources, bans, and the
# advisories of RustSec. The npm packages that the tests use must have one of the same licences.
# Without the network the advisories are not checked, which is reported; with the argument `online`
# this is a failure.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() {
    echo "dependencies: $*" >&2
    exit 1
}

command -v python3 >/dev/null || fail 'python3 (3.11 or later) is missing: install it'
# The one from scripts/install.sh first.
program=$(compgen -G '.stack/cargo-deny/*/scripts/cargo-deny' || command -v cargo-deny) ||
    fail "cargo-deny is missing: run 'scripts/install.sh lint'"

deny() {
    "$program" --workspace --locked "$@"
}

deny check bans licenses sources || fail 'a dependency is not as deny.toml wants it, see above: replace it, or change deny.toml'

python3 - <<'PYTHON'
import json
import sys
import tomllib

with open("deny.toml", "rb") as file:
    allowed = set(tomllib.load(file)["licenses"]["allow"])
with open("scripts/kpl-writers/package-lock.json", "rb") as file:
    packages = [(name, p) for name, p in json.load(file)["packages"].items() if "version" in p]
# Each is under one licence; an expression would have to be parsed.
bad = [(name, p) for name, p in packages if p.get("license") not in allowed]
for name, package in bad:
    print(
        f"dependencies: {name} {package['version']} is under {package.get('license') or 'no licence'}: "
        "replace it, or add the licence to deny.toml",
        file=sys.stderr,
    )
if bad:
    sys.exit(1)
print(f"dependencies: {len(packages)} npm packages, all under licences that deny.toml allows")
PYTHON

# The database of advisories, and the list of yanked releases. A password prompt would wait forever.
if ! fetched=$(GIT_TERMINAL_PROMPT=0 timeout 60 "$program" --workspace --locked fetch db index 2>&1); then
    [[ ${1:-} != online ]] || fail "the advisories could not be fetched: $fetched"
    echo 'dependencies: the advisories could not be fetched, so they are not checked'
    exit
fi
deny --offline check advisories || fail 'an advisory applies, see above: update the crate, or say in deny.toml why it does not matter here'
