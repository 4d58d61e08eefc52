-- From DynamoDB's JSON, which gives each value with its type, to plain JSON with all digits of all
-- numbers: {"M":{"a":{"N":"1.50"}}} becomes {"a":1.50}. As in the rows of a pipe with
-- unmarshal=dynamodb: bytes stay base64, and sets become arrays. The first branches handle values
-- that contain no other values. The rest is split into tokens; a scalar or a set is one token,
-- together with its type. Only maps and lists remain: an object that only gives the type of its
-- value is at an odd depth, a map at an even one, whatever the names in it are, so the depth tells
-- which braces to drop.
CREATE OR REPLACE FUNCTION dynamodbToJSON AS value -> multiIf(
    match(value, '^{"[SB]":"') AND endsWith(value, '"}'), substring(value, 6, length(value) - 6),
    startsWith(value, '{"N":"') AND endsWith(value, '"}'), substring(value, 7, length(value) - 8),
    value IN ('{"BOOL":true}', '{"BOOL":false}'), substring(value, 9, length(value) - 9),
    value = '{"NULL":true}', 'null',
    match(value, '^{"[SB]S":\\["') AND endsWith(value, '"]}'), substring(value, 7, length(value) - 7),
    arrayStringConcat(arrayMap(
        (token, depth) -> multiIf(
            token IN ('}', '{', ':', ',') OR startsWith(token, '"'), if((depth + (token = '}')) % 2 = 0, token, ''),
            token IN ('[', ']'), token,
            startsWith(token, '{"S"') OR startsWith(token, '{"B"'), substring(token, 6, length(token) - 6),
            startsWith(token, '{"N"'), replaceAll(substring(token, 6, length(token) - 6), '"', ''),
            startsWith(token, '{"NS"'), replaceAll(substring(token, 7, length(token) - 7), '"', ''),
            startsWith(token, '{"BOOL"'), substring(token, 9, length(token) - 9),
            startsWith(token, '{"NULL"'), 'null',
            substring(token, 7, length(token) - 7)),
        extractAll(
            if(match(value, '[][{}:,]\\s|\\s[][{}:,]'), arrayStringConcat(extractAll(value, '"(?:[^"\\\\]|\\\\.)*"|[^"\\s]+')), value),
            '{"(?:[SNB]|BOOL|NULL)":(?:"(?:[^"\\\\]|\\\\.)*"|[^][{}"]+)}|{"[SNB]S":\\[(?:"(?:[^"\\\\]|\\\\.)*"|[^][{}"])*\\]}|"(?:[^"\\\\]|\\\\.)*"|[][{}:,]') AS tokens,
        arrayCumSum(token -> multiIf(token IN ('{', '['), 1, token IN ('}', ']'), -1, 0), tokens))));

-- The same for a whole item, or an image in a change event: {"id":{"S":"x"}} becomes {"id":"x"}.
CREATE OR REPLACE FUNCTION dynamodbItemToJSON AS item -> dynamodbToJSON(concat('{"M":', item, '}'));
