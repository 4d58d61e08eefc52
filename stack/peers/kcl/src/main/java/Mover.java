import com.clickhouse.client.api.Client;
import com.clickhouse.client.api.insert.InsertResponse;
import com.clickhouse.data.ClickHouseFormat;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.InputStream;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.UUID;
import java.util.concurrent.TimeUnit;
import software.amazon.awssdk.services.cloudwatch.CloudWatchAsyncClient;
import software.amazon.awssdk.services.dynamodb.DynamoDbAsyncClient;
import software.amazon.awssdk.services.kinesis.KinesisAsyncClient;
import software.amazon.kinesis.common.ConfigsBuilder;
import software.amazon.kinesis.common.InitialPositionInStream;
import software.amazon.kinesis.common.InitialPositionInStreamExtended;
import software.amazon.kinesis.common.KinesisClientUtil;
import software.amazon.kinesis.coordinator.Scheduler;
import software.amazon.kinesis.lifecycle.events.InitializationInput;
import software.amazon.kinesis.lifecycle.events.LeaseLostInput;
import software.amazon.kinesis.lifecycle.events.ProcessRecordsInput;
import software.amazon.kinesis.lifecycle.events.ShardEndedInput;
import software.amazon.kinesis.lifecycle.events.ShutdownRequestedInput;
import software.amazon.kinesis.metrics.NullMetricsFactory;
import software.amazon.kinesis.processor.RecordProcessorCheckpointer;
import software.amazon.kinesis.processor.ShardRecordProcessor;
import software.amazon.kinesis.processor.SingleStreamTracker;
import software.amazon.kinesis.retrieval.KinesisClientRecord;
import software.amazon.kinesis.retrieval.polling.PollingConfig;

/**
 * The KCL into ClickHouse, as the sample in its documentation: an INSERT for each processRecords, a
 * checkpoint after it, every setting at its default. It parses nothing: an order is passed on as it
 * is, with the columns about the record appended, for ClickHouse to parse.
 *
 * <p>Where AWS is, is in the variables that its SDK knows; and CLICKHOUSE_URL, STREAM, TABLE.
 */
public final class Mover {
    private static final int ROW_BYTES = 400;
    private static final long INSERT_SECONDS = 60;

    private static final Client CLICKHOUSE = new Client.Builder()
            .addEndpoint(variable("CLICKHOUSE_URL"))
            .setUsername("default")
            .setPassword("")
            .build();

    private static String variable(String name) {
        String value = System.getenv(name);
        if (value == null) {
            throw new IllegalStateException("the variable " + name + " is not set");
        }
        return value;
    }

    private static final class Processor implements ShardRecordProcessor {
        private final String table = variable("TABLE");
        private String shard;

        @Override
        public void initialize(InitializationInput input) {
            shard = input.shardId();
        }

        @Override
        public void processRecords(ProcessRecordsInput input) {
            if (input.records().isEmpty()) {
                return;
            }
            ByteArrayOutputStream rows = new ByteArrayOutputStream(ROW_BYTES * input.records().size());
            for (KinesisClientRecord record : input.records()) {
                append(record, rows);
            }
            InputStream body = new ByteArrayInputStream(rows.toByteArray());
            try (InsertResponse done =
                    CLICKHOUSE.insert(table, body, ClickHouseFormat.JSONEachRow).get(INSERT_SECONDS, TimeUnit.SECONDS)) {
                input.checkpointer().checkpoint();
            } catch (Exception error) {
                error.printStackTrace();
                // The KCL would go on with the next batch, and these records would be lost.
                Runtime.getRuntime().halt(1);
            }
        }

        /** {...} becomes {...,"_timestamp":...}: a payload is an object, its last byte the brace. */
        private void append(KinesisClientRecord record, ByteArrayOutputStream rows) {
            ByteBuffer data = record.data();
            byte[] order = new byte[data.remaining()];
            data.get(order);
            rows.write(order, 0, order.length - 1);
            String rest = ",\"_timestamp\":" + record.approximateArrivalTimestamp().toEpochMilli()
                    + ",\"_shard_id\":\"" + shard
                    + "\",\"_sequence_number\":\"" + record.sequenceNumber()
                    + "\",\"_sub_sequence_number\":" + record.subSequenceNumber() + "}\n";
            byte[] bytes = rest.getBytes(StandardCharsets.US_ASCII);
            rows.write(bytes, 0, bytes.length);
        }

        @Override
        public void leaseLost(LeaseLostInput input) {}

        @Override
        public void shardEnded(ShardEndedInput input) {
            checkpoint(input.checkpointer());
        }

        @Override
        public void shutdownRequested(ShutdownRequestedInput input) {
            checkpoint(input.checkpointer());
        }

        private static void checkpoint(RecordProcessorCheckpointer checkpointer) {
            try {
                checkpointer.checkpoint();
            } catch (Exception error) {
                error.printStackTrace();
            }
        }
    }

    public static void main(String[] arguments) {
        String stream = variable("STREAM");
        KinesisAsyncClient kinesis = KinesisClientUtil.createKinesisAsyncClient(KinesisAsyncClient.builder());
        ConfigsBuilder configs = new ConfigsBuilder(
                new SingleStreamTracker(
                        stream,
                        InitialPositionInStreamExtended.newInitialPosition(InitialPositionInStream.TRIM_HORIZON)),
                // The application: what its tables in DynamoDB are named after.
                variable("TABLE"),
                kinesis,
                DynamoDbAsyncClient.create(),
                CloudWatchAsyncClient.create(),
                UUID.randomUUID().toString(),
                Processor::new);
        new Scheduler(
                        configs.checkpointConfig(),
                        configs.coordinatorConfig(),
                        configs.leaseManagementConfig(),
                        configs.lifecycleConfig(),
                        // There is no CloudWatch here.
                        configs.metricsConfig().metricsFactory(new NullMetricsFactory()),
                        configs.processorConfig(),
                        configs.retrievalConfig().retrievalSpecificConfig(new PollingConfig(stream, kinesis)))
                .run();
    }
}
