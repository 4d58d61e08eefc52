#!/usr/bin/env bash
# Fails when a dependency's licence is not in the list of deny.toml. `cargo deny check licenses` says the same of the crates; the npm packages
# that the tests use are looked at, too.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

command -v python3 >/dev/null || {
    echo 'licences: python3 (3.11 or later) is missing: install it' >&2
    exit 1
}

metadata=$(mktemp)
trap 'rm -f "$metadata"' EXIT
cargo metadata --locked --format-version 1 --filter-platform x86_64-unknown-linux-gnu >"$metadata"

python3 - "$metadata" <<'PYTHON'
import json
import re
import sys
import tomllib

with open("deny.toml", "rb") as file:
    allowed = set(tomllib.load(file)["licenses"]["allow"])
with open(sys.argv[1], "rb") as file:
    metadata = json.load(file)


def permitted(expression):
    """Whether an SPDX expression can be met with the allowed licences; AND binds tighter than OR."""
    # Before SPDX expressions, a slash meant OR.
    tokens = re.findall(r"[()]|[^\s()]+", expression.replace("/", " OR "))

    def either():
        result = both()
        while tokens and tokens[0] == "OR":
            tokens.pop(0)
            result = both() or result
        return result

    def both():
        result = single()
        while tokens and tokens[0] == "AND":
            tokens.pop(0)
            result = single() and result
        return result

    def single():
        if not tokens:
            return False
        token = tokens.pop(0)
        if token == "(":
            result = either()
            return bool(tokens) and tokens.pop(0) == ")" and result
        if tokens and tokens[0] == "WITH":
            # An exception only adds rights.
            del tokens[:2]
        return token in allowed

    return either() and not tokens


resolved = {node["id"] for node in metadata["resolve"]["nodes"]}
packages = [package for package in metadata["packages"] if package["id"] in resolved]
with open("scripts/kpl-writers/package-lock.json", "rb") as file:
    locked = json.load(file)["packages"].items()
packages += [{"name": name, "license": None} | package for name, package in locked if "version" in package]
bad = [package for package in packages if not permitted(package["license"] or "")]
for package in bad:
    print(
        f"licences: {package['name']} {package['version']} is under {package['license'] or 'no licence'}: "
        "replace it, or add the licence to deny.toml",
        file=sys.stderr,
    )
if bad:
    sys.exit(1)
print(f"licences: {len(packages)} packages, all under licences that deny.toml allows")
PYTHON
