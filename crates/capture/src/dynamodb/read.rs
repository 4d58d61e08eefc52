//! Reading the items of a table.

use std::collections::HashMap;

use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::config::timeout::TimeoutConfig;
use aws_sdk_dynamodb::config::{Builder, Config};
use aws_sdk_dynamodb::types::{AttributeValue, ConsumedCapacity, KeysAndAttributes, ReturnConsumedCapacity};

use super::client::DynamoDb;
use super::error::explain;
use domain::error::Error;
use domain::limits::{READ_UNIT_BYTES, TABLE_READ_ATTEMPTS, TABLE_READ_TIMEOUT};

/// An item, or its key, as the API returns it.
pub type Attributes = HashMap<String, AttributeValue>;

/// The items of one call.
#[derive(Debug)]
pub struct Page {
    /// The items read.
    pub items: Vec<Attributes>,
    /// Read capacity units consumed; computed from the sizes if the server does not report them.
    pub units: f64,
}

impl DynamoDb {
    /// A page of a segment (`dynamodb:Scan`), eventually consistent, and where the next one starts.
    pub async fn scan(
        &self,
        table: &str,
        segment: u32,
        segments: u32,
        from: Option<Attributes>,
    ) -> Result<(Page, Option<Attributes>), Error> {
        let scan = self.client.scan().table_name(table).set_exclusive_start_key(from);
        let scan =
            scan.segment(i32::try_from(segment).unwrap_or(0)).total_segments(i32::try_from(segments).unwrap_or(1));
        let scan = scan.return_consumed_capacity(ReturnConsumedCapacity::Total).customize().config_override(patient());
        let output = scan.send().await.map_err(|e| explain("Scan", table, &self.access, &e))?;
        let items = output.items.unwrap_or_default();
        let units = units(output.consumed_capacity.as_slice())
            .unwrap_or_else(|| items.iter().map(size).sum::<usize>().div_ceil(READ_UNIT_BYTES) as f64 / 2.0);
        Ok((Page { items, units }, output.last_evaluated_key))
    }

    /// Items by key (`dynamodb:BatchGetItem`), strongly consistent, and the keys that have to be
    /// requested again. Keys without an item are in neither.
    pub async fn get(&self, table: &str, keys: Vec<Attributes>) -> Result<(Page, Vec<Attributes>), Error> {
        let asked = keys.len();
        let keys = KeysAndAttributes::builder().set_keys(Some(keys)).consistent_read(true).build();
        let keys = keys.map_err(|error| {
            Error::Internal(format!("BatchGetItem of DynamoDB table '{table}' cannot be requested: {error}"))
        })?;
        let get = self.client.batch_get_item().request_items(table, keys);
        let get = get.return_consumed_capacity(ReturnConsumedCapacity::Total).customize().config_override(patient());
        let output = get.send().await.map_err(|e| explain("BatchGetItem", table, &self.access, &e))?;
        let items: Vec<Attributes> = output.responses.unwrap_or_default().into_values().flatten().collect();
        let again: Vec<Attributes> =
            output.unprocessed_keys.unwrap_or_default().into_values().flat_map(|keys| keys.keys).collect();
        let units = units(&output.consumed_capacity.unwrap_or_default()).unwrap_or_else(|| {
            // A key without an item costs a unit, too.
            let absent = asked.saturating_sub(items.len() + again.len());
            items.iter().map(|item| size(item).div_ceil(READ_UNIT_BYTES)).sum::<usize>() as f64 + absent as f64
        });
        Ok((Page { items, units }, again))
    }
}

fn patient() -> Builder {
    let timeouts = TimeoutConfig::builder().operation_timeout(TABLE_READ_TIMEOUT).build();
    let retries = RetryConfig::standard().with_max_attempts(TABLE_READ_ATTEMPTS);
    Config::builder().retry_config(retries).timeout_config(timeouts)
}

fn units(consumed: &[ConsumedCapacity]) -> Option<f64> {
    consumed.iter().map(|capacity| capacity.capacity_units).sum::<Option<f64>>().filter(|_| !consumed.is_empty())
}

/// Size of an item as DynamoDB counts it, except for the small overhead of lists and maps.
fn size(item: &Attributes) -> usize {
    fn of(value: &AttributeValue) -> usize {
        match value {
            AttributeValue::S(text) => text.len(),
            AttributeValue::N(number) => number.len() / 2 + 1,
            AttributeValue::B(bytes) => bytes.as_ref().len(),
            AttributeValue::Ss(texts) => texts.iter().map(String::len).sum(),
            AttributeValue::Ns(numbers) => numbers.iter().map(|number| number.len() / 2 + 1).sum(),
            AttributeValue::Bs(values) => values.iter().map(|bytes| bytes.as_ref().len()).sum(),
            AttributeValue::L(values) => values.iter().map(of).sum(),
            AttributeValue::M(item) => size(item),
            _ => 1,
        }
    }
    item.iter().map(|(name, value)| name.len() + of(value)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_those_that_the_server_says() {
        let said = |units: f64| ConsumedCapacity::builder().capacity_units(units).build();
        assert_eq!(units(&[said(1.5), said(2.0)]), Some(3.5));
        assert_eq!(units(&[]), None);
        assert_eq!(units(&[ConsumedCapacity::builder().build()]), None);
    }

    #[test]
    fn an_item_has_the_size_of_names_and_values() {
        let item = [("ab", AttributeValue::S("xyz".into())), ("n", AttributeValue::N("12".into()))];
        let item: Attributes = item.map(|(name, value)| (name.into(), value)).into();
        assert_eq!(size(&item), 8);
        let nested = [("m".to_owned(), AttributeValue::M(item)), ("l".to_owned(), AttributeValue::L(vec![]))].into();
        assert_eq!(size(&nested), 10);
    }
}
