"""Writes KPL aggregates with the PyPI package aws-kinesis-agg. Each line of the input is the user records of an aggregate, in JSON:
[[key, data in base64, explicit hash key or null], ...]. Each line of the output is its payload in base64."""

import base64
import json
import sys

from aws_kinesis_agg.aggregator import RecordAggregator

for line in sys.stdin:
    aggregator = RecordAggregator()
    for key, data, hash_key in json.loads(line):
        full = aggregator.add_user_record(key, base64.b64decode(data), hash_key)
        assert full is None, "more than an aggregate holds"
    _, _, payload = aggregator.clear_and_get().get_contents()
    print(base64.b64encode(payload).decode())
