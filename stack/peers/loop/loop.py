"""What a Lambda function between Kinesis and ClickHouse does, as a loop: a batch of a shard,
json.loads, an INSERT, a checkpoint in DynamoDB.

Where AWS is, is in the variables that boto3 knows; and CLICKHOUSE_URL, STREAM, TABLE.
"""

import json
import os
import time
from urllib.parse import urlsplit

import boto3
import clickhouse_connect

STREAM, TABLE = os.environ["STREAM"], os.environ["TABLE"]
CHECKPOINTS = TABLE + "_checkpoints"
COLUMNS = ["id", "user_id", "price", "_timestamp", "_shard_id", "_sequence_number", "_sub_sequence_number"]
# Lambda polls a shard once a second when it is not behind.
PAUSE_SECONDS = 1

address = urlsplit(os.environ["CLICKHOUSE_URL"])
clickhouse = clickhouse_connect.get_client(host=address.hostname, port=address.port)
kinesis, dynamodb = boto3.client("kinesis"), boto3.client("dynamodb")


def create_checkpoints():
    try:
        dynamodb.create_table(
            TableName=CHECKPOINTS,
            KeySchema=[{"AttributeName": "shard", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "shard", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )
    except dynamodb.exceptions.ResourceInUseException:
        pass
    dynamodb.get_waiter("table_exists").wait(TableName=CHECKPOINTS)


def iterator(shard):
    found = dynamodb.get_item(TableName=CHECKPOINTS, Key={"shard": {"S": shard}}, ConsistentRead=True).get("Item")
    if found:
        start = {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": found["sequence"]["S"]}
    else:
        start = {"ShardIteratorType": "TRIM_HORIZON"}
    return kinesis.get_shard_iterator(StreamName=STREAM, ShardId=shard, **start)["ShardIterator"]


def move(shard, records):
    rows = []
    for record in records:
        order = json.loads(record["Data"])
        arrival, sequence = record["ApproximateArrivalTimestamp"], record["SequenceNumber"]
        rows.append((order["id"], order["user_id"], order["price"], arrival, shard, sequence, 0))
    clickhouse.insert(TABLE, rows, column_names=COLUMNS)
    item = {"shard": {"S": shard}, "sequence": {"S": records[-1]["SequenceNumber"]}}
    dynamodb.put_item(TableName=CHECKPOINTS, Item=item)


create_checkpoints()
iterators = {s["ShardId"]: iterator(s["ShardId"]) for s in kinesis.list_shards(StreamName=STREAM)["Shards"]}
while True:
    behind = False
    for shard, position in iterators.items():
        answer = kinesis.get_records(ShardIterator=position, Limit=10_000)
        iterators[shard] = answer["NextShardIterator"]
        behind |= answer["MillisBehindLatest"] > 0
        if answer["Records"]:
            move(shard, answer["Records"])
    if not behind:
        time.sleep(PAUSE_SECONDS)
