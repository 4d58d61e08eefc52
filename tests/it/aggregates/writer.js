// Writes KPL aggregates with the npm package aws-kinesis-agg. Each line of the input is the user records of an aggregate, in JSON:
// [[key, data in base64, explicit hash key or null], ...]. Each line of the output is its payload in base64.
'use strict';
const { RecordAggregator } = require('aws-kinesis-agg');

const lines = require('fs').readFileSync(0, 'utf8').split('\n').filter((line) => line !== '');
for (const line of lines) {
    const aggregator = new RecordAggregator();
    for (const [partitionKey, data, hashKey] of JSON.parse(line)) {
        aggregator.addUserRecord({ partitionKey, data: Buffer.from(data, 'base64'), explicitHashKey: hashKey ?? undefined });
    }
    process.stdout.write(aggregator.build().data.toString('base64') + '\n');
}
