//! `stack load`: orders into a stream.

use stack::kinesis_client;
use stack::load::{ensure_stream, put_orders};

/// The flags of `stack load`.
#[derive(clap::Args)]
pub struct LoadArgs {
    /// The URL of the Kinesis to write to.
    #[arg(long, env = "AWS_ENDPOINT_URL")]
    endpoint: String,
    /// The stream; created if it does not exist.
    #[arg(long, default_value = "orders")]
    stream: String,
    /// How many shards a created stream has.
    #[arg(long, default_value_t = 4)]
    shards: i32,
    /// The number of the first order.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// How many orders to write.
    #[arg(long, default_value_t = 100_000)]
    records: u64,
}

/// Puts the orders and reports how long it took.
pub async fn run(args: LoadArgs) -> Result<i32, String> {
    let client = kinesis_client(&args.endpoint).await;
    ensure_stream(&client, &args.stream, args.shards).await?;
    let put = put_orders(&client, &args.stream, args.from, args.records).await?;
    println!(
        "{} records, {:.1} MB, into the stream {} in {:.1} s ({} sent again)",
        put.records,
        put.bytes as f64 / 1e6,
        args.stream,
        put.elapsed.as_secs_f64(),
        put.retried
    );
    Ok(0)
}
