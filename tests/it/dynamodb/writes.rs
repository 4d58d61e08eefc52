//! The calls that change items, each with what the API reports about them.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::{
    AttributeValue, Delete, DeleteRequest, KeysAndAttributes, Put, PutRequest, ReturnValue, TransactWriteItem,
    Update as TransactUpdate, WriteRequest,
};
use fastrand::Rng;

use super::items::{self, Item, key_of};
use super::{Table, client};

/// One item's part in a transaction.
#[derive(Clone, Debug)]
pub enum Write {
    Put(Item),
    Update(Update),
    /// The key.
    Delete(Item),
}

/// The input of UpdateItem.
#[derive(Clone, Debug)]
pub struct Update {
    key: Item,
    expression: String,
    names: HashMap<String, String>,
    values: HashMap<String, AttributeValue>,
}

impl Update {
    /// Sets some attributes, removes one, and adds to a number and to a set.
    pub fn random(rng: &mut Rng, key: &Item) -> Update {
        let mut update =
            Update { key: key.clone(), expression: String::new(), names: HashMap::new(), values: HashMap::new() };
        let mut attributes: Vec<(String, AttributeValue)> = items::attributes(rng).into_iter().collect();
        rng.shuffle(&mut attributes);
        let removed = attributes.pop();
        attributes.truncate(rng.usize(1..4));
        let mut parts = Vec::new();
        for (n, (name, value)) in attributes.into_iter().filter(|(name, _)| !key.contains_key(name)).enumerate() {
            parts.push(format!("#s{n} = :s{n}"));
            update.names.insert(format!("#s{n}"), name);
            update.values.insert(format!(":s{n}"), value);
        }
        if !parts.is_empty() {
            update.expression = format!("SET {}", parts.join(", "));
        }
        if let Some((name, _)) = removed.filter(|(name, _)| !key.contains_key(name)) {
            update.expression.push_str(" REMOVE #r");
            update.names.insert("#r".to_owned(), name);
        }
        // No other task writes these two, so their types are known.
        update.expression.push_str(" ADD #n :n, #l :l");
        update.names.extend([("#n".to_owned(), "counter".to_owned()), ("#l".to_owned(), "labels".to_owned())]);
        update.values.insert(":n".to_owned(), AttributeValue::N(rng.i16(..).to_string()));
        update.values.insert(":l".to_owned(), AttributeValue::Ss(vec![format!("label-{}", rng.u8(..10))]));
        update
    }
}

fn item(attributes: HashMap<String, AttributeValue>) -> Item {
    attributes.into_iter().collect()
}

fn map(item: &Item) -> HashMap<String, AttributeValue> {
    item.clone().into_iter().collect()
}

/// PutItem. Returns the item before it.
pub async fn put(table: &Table, item: &Item) -> Option<Item> {
    let request = client().put_item().table_name(&table.name).return_values(ReturnValue::AllOld);
    let sent = request.set_item(Some(map(item))).send().await.expect("a put");
    sent.attributes.map(self::item)
}

/// UpdateItem. Returns the item after it.
pub async fn update(table: &Table, update: &Update) -> Item {
    let request = client().update_item().table_name(&table.name).return_values(ReturnValue::AllNew);
    let sent = request
        .set_key(Some(map(&update.key)))
        .update_expression(&update.expression)
        .set_expression_attribute_names(Some(update.names.clone()))
        .set_expression_attribute_values(Some(update.values.clone()))
        .send()
        .await
        .unwrap_or_else(|error| panic!("{update:?}: {error:?}"));
    sent.attributes.map(item).expect("the new image")
}

/// DeleteItem. Returns the item before it.
pub async fn delete(table: &Table, key: Item) -> Option<Item> {
    let request = client().delete_item().table_name(&table.name).return_values(ReturnValue::AllOld);
    let sent = request.set_key(Some(map(&key))).send().await.expect("a delete");
    sent.attributes.map(item)
}

/// BatchWriteItem: each key with its new item, or none to delete it. At most 25.
pub async fn batch<'a>(table: &Table, wanted: impl Iterator<Item = (&'a Item, Option<&'a Item>)>) {
    let requests = wanted.map(|(key, new)| match new {
        Some(new) => {
            let put = PutRequest::builder().set_item(Some(map(new))).build().expect("an item");
            WriteRequest::builder().put_request(put).build()
        }
        None => {
            let delete = DeleteRequest::builder().set_key(Some(map(key))).build().expect("a key");
            WriteRequest::builder().delete_request(delete).build()
        }
    });
    let sent =
        client().batch_write_item().request_items(&table.name, requests.collect()).send().await.expect("a batch");
    assert!(sent.unprocessed_items.unwrap_or_default().is_empty(), "unprocessed items");
}

/// TransactWriteItems. At most 100.
pub async fn transact<'a>(table: &Table, writes: impl Iterator<Item = &'a Write>) {
    let writes = writes.map(|write| {
        let part = TransactWriteItem::builder();
        match write {
            Write::Put(item) => {
                let put = Put::builder().table_name(&table.name).set_item(Some(map(item))).build();
                part.put(put.expect("a put")).build()
            }
            Write::Delete(key) => {
                let delete = Delete::builder().table_name(&table.name).set_key(Some(map(key))).build();
                part.delete(delete.expect("a delete")).build()
            }
            Write::Update(update) => {
                let update = TransactUpdate::builder()
                    .table_name(&table.name)
                    .set_key(Some(map(&update.key)))
                    .update_expression(&update.expression)
                    .set_expression_attribute_names(Some(update.names.clone()))
                    .set_expression_attribute_values(Some(update.values.clone()))
                    .build();
                part.update(update.expect("an update")).build()
            }
        }
    });
    let request = client().transact_write_items().set_transact_items(Some(writes.collect()));
    request.send().await.expect("a transaction");
}

/// The items with these keys, at most 100, in order.
pub async fn get(table: &Table, keys: &[Item]) -> Vec<Option<Item>> {
    let wanted = KeysAndAttributes::builder().set_keys(Some(keys.iter().map(map).collect())).consistent_read(true);
    let request = client().batch_get_item().request_items(&table.name, wanted.build().expect("keys"));
    let sent = request.send().await.expect("a read");
    assert!(sent.unprocessed_keys.unwrap_or_default().is_empty(), "unprocessed keys");
    let found: Vec<Item> =
        sent.responses.unwrap_or_default().remove(&table.name).unwrap_or_default().into_iter().map(item).collect();
    let by_key: HashMap<String, Item> = found.into_iter().map(|item| (text(table, &item), item)).collect();
    keys.iter().map(|key| by_key.get(&text(table, key)).cloned()).collect()
}

/// The key attributes of an item.
fn text(table: &Table, item: &Item) -> String {
    let key = key_of(table.keys, item);
    super::events::marshalled(&key.iter().map(|(name, value)| (name.clone(), items::normal(value))).collect())
}
