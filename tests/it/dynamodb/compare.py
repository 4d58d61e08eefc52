#!/usr/bin/env python3
"""Compares a DynamoDB table with its copy in ClickHouse, item by item, with nothing of the product: boto3 scans, ClickHouse answers over HTTP.

compare.py --dynamodb URL --table T --clickhouse URL --target DATABASE.TABLE
compare.py --items FILE --keys NAME[,NAME] --clickhouse URL --target DATABASE.TABLE

FILE has an item in marshalled JSON on each line, and takes the place of the scan.
The rules are those of the copy's documentation: an item is its non-null typed columns, overlaid with the map `rest`. Prints up to 20 differences and a
last line of counts. Exit code 1 if there is a difference.
"""

import argparse
import base64
import json
import sys
import urllib.error
import urllib.parse
import urllib.request
from decimal import Decimal

import boto3
from botocore.config import Config

OWN = {"version", "is_deleted", "rest"}
SHOWN = 20


def scan(endpoint, table):
    """The key attributes' names, and all items as DynamoDB types them."""
    client = boto3.client(
        "dynamodb",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=Config(proxies={}),
    )
    schema = client.describe_table(TableName=table)["Table"]["KeySchema"]
    # The partition key first, however the schema is ordered.
    names = [k["AttributeName"] for k in sorted(schema, key=lambda k: k["KeyType"] != "HASH")]
    items = []
    for page in client.get_paginator("scan").paginate(TableName=table, ConsistentRead=True):
        items.extend(page["Items"])
    return names, items


def read(file):
    """All items of a file."""
    with open(file, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def query(endpoint, sql):
    """The rows of a SELECT, numbers as decimals."""
    settings = {
        "output_format_json_quote_64bit_integers": 1,
        "output_format_json_quote_64bit_floats": 1,
        "output_format_json_escape_forward_slashes": 0,
        "wait_end_of_query": 1,
    }
    url = endpoint + "/?" + urllib.parse.urlencode(settings)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(url, data=(sql + " FORMAT JSONEachRow").encode())
    while True:
        try:
            with opener.open(request) as answer:
                return [decoded(line) for line in answer if line.strip()]
        except urllib.error.HTTPError as error:
            said = error.read().decode(errors="replace")
            # While another test makes a function, 25.8 looks for its temporary file, which may be gone.
            if "File not found" not in said or ".sql.tmp" not in said:
                raise RuntimeError(said) from error


def decoded(text):
    return json.loads(text, parse_int=Decimal, parse_float=Decimal)


def literal(text):
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def columns(endpoint, target):
    """Column name -> (attribute, kind)."""
    database, table = target.split(".", 1)
    found = {}
    for row in query(
        endpoint,
        f"SELECT name, type, comment FROM system.columns WHERE database = {literal(database)} AND table = {literal(table)}",
    ):
        name, kind = row["name"], row["type"]
        if name in OWN:
            continue
        attribute = name
        if name.endswith("_attribute") and name[: -len("_attribute")] in OWN:
            attribute = name[: -len("_attribute")]
        while kind.startswith(("Nullable(", "LowCardinality(")):
            kind = kind[kind.index("(") + 1 : -1]
        if row["comment"].startswith("JSON"):
            kind = "JSON"
        found[name] = (attribute, kind)
    if not found:
        sys.exit(f"ClickHouse has no table {target}")
    return found


def value(kind, cell):
    """A cell as a plain value; for arrays, an empty one is no attribute."""
    if kind == "JSON":
        return decoded(cell)
    if kind in ("String", "Bool"):
        return cell
    if kind.startswith("Array("):
        element = kind[len("Array(") : -1]
        return [value(element, one) for one in cell]
    return Decimal(str(cell))


def rebuilt(kinds, row):
    """The item of a row."""
    item = {}
    for column, (attribute, kind) in kinds.items():
        cell = row[column]
        if cell is None or (kind.startswith("Array(") and not cell):
            continue
        item[attribute] = value(kind, cell)
    for attribute, text in row["rest"].items():
        item[attribute] = decoded(text)
    return item


def same(typed, plain):
    """Whether a value of DynamoDB is this plain value. Sets have no order, lists have one."""
    ((code, held),) = typed.items()
    if code == "S":
        return isinstance(plain, str) and plain == held
    if code == "N":
        return isinstance(plain, Decimal) and plain == Decimal(held)
    if code == "B":
        return plain == text_of(held)
    if code == "BOOL":
        return plain is held
    if code == "NULL":
        return plain is None
    if code == "L":
        return isinstance(plain, list) and len(plain) == len(held) and all(map(same, held, plain))
    if code == "M":
        return isinstance(plain, dict) and plain.keys() == held.keys() and all(same(held[k], plain[k]) for k in held)
    if code not in ("SS", "NS", "BS") or not isinstance(plain, list) or len(plain) != len(held):
        return False
    if code == "NS":
        return all(isinstance(one, Decimal) for one in plain) and set(plain) == set(map(Decimal, held))
    if not all(isinstance(one, str) for one in plain):
        return False
    return set(plain) == (set(held) if code == "SS" else set(map(text_of, held)))


def text_of(binary):
    """Bytes as base64; in a file they are already."""
    return binary if isinstance(binary, str) else base64.b64encode(bytes(binary)).decode()


def key_of_typed(names, item):
    def part(typed):
        ((code, held),) = typed.items()
        return Decimal(held) if code == "N" else text_of(held) if code == "B" else held

    return tuple(part(item[name]) for name in names)


def main():
    arguments = argparse.ArgumentParser()
    for name in ("dynamodb", "table", "items", "keys"):
        arguments.add_argument(f"--{name}")
    for name in ("clickhouse", "target"):
        arguments.add_argument(f"--{name}", required=True)
    given = arguments.parse_args()

    if given.items:
        names, items = given.keys.split(","), read(given.items)
    else:
        names, items = scan(given.dynamodb, given.table)
    kinds = columns(given.clickhouse, given.target)
    database, table = given.target.split(".", 1)
    quoted = ".".join("`" + part.replace("\\", "\\\\").replace("`", "\\`") + "`" for part in (database, table))
    copies, twice = {}, []
    for row in query(given.clickhouse, f"SELECT * FROM {quoted} FINAL"):
        if row["is_deleted"]:
            continue
        item = rebuilt(kinds, row)
        key = tuple(Decimal(k) if isinstance(k, Decimal) else k for k in (item.get(name) for name in names))
        if key in copies:
            twice.append(key)
        copies[key] = item

    missing, different = [], []
    for item in items:
        key = key_of_typed(names, item)
        copy = copies.pop(key, None)
        if copy is None:
            missing.append(key)
        elif copy.keys() != item.keys() or not all(same(item[name], copy[name]) for name in item):
            wrong = [
                f"{name!r}: {item.get(name, 'no attribute')} in DynamoDB, {copy.get(name, 'no attribute')} in ClickHouse"
                for name in sorted(item.keys() | copy.keys())
                if name not in item or name not in copy or not same(item[name], copy[name])
            ]
            different.append(f"{key}: " + "; ".join(wrong))
    for what, found in (("missing", missing), ("extra", list(copies)), ("different", different), ("twice", twice)):
        for one in found[:SHOWN]:
            print(f"{what} {one}")
    print(f"{len(items)} items, {len(missing)} missing, {len(copies)} extra, {len(different)} different, {len(twice)} twice")
    sys.exit(1 if missing or copies or different or twice else 0)


main()
