//! Run again for an existing target: new attributes get columns while the pipe is running.

use aws_sdk_dynamodb::types::AttributeValue;

use super::{answers, captured, equals, now, printed, put_event, send};
use crate::dynamodb::items::{Item, Key};
use crate::dynamodb::put_items;
use crate::engines::on_each_engine;
use crate::world::{refresh_exception, sql, wait_until};

on_each_engine!(attributes_that_came_later_get_columns,);

fn item(id: usize, more: &[(&str, AttributeValue)]) -> Item {
    let id = ("id".to_owned(), AttributeValue::S(format!("{id:03}")));
    more.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).chain([id]).collect()
}

fn attributes_that_came_later_get_columns() {
    let table = captured("sqld_again", &[("id", Key::S)]);
    let began = now();
    let n = |text: &str| AttributeValue::N(text.into());
    let s = |text: &str| AttributeValue::S(text.into());
    let first = [item(1, &[("age", n("1"))])];
    // A name that the flattening uses itself, a set, a map; and a number that no column of its type
    // can hold.
    let second: Vec<Item> = (2..50)
        .map(|id| {
            let map = AttributeValue::M([("k".to_owned(), n("0.50"))].into());
            let set = AttributeValue::Ss(vec!["x".into(), "y".into()]);
            let level = if id == 7 { n("1.5") } else { n(&id.to_string()) };
            item(id, &[("age", n("2")), ("level", level), ("item", s("text")), ("labels", set), ("map", map)])
        })
        .collect();
    put_items("sqld_again", first.iter().chain(&second));
    send("sqld_again", first.iter().map(|item| put_event(&table, item, began)));
    printed("sqld_again", &["--apply"]);
    send(
        "sqld_again",
        second.iter().filter(|item| item["level"] != n("1.5")).map(|item| put_event(&table, item, began)),
    );
    answers("SELECT count() FROM sqld_again FINAL", "48\n");
    assert_eq!(sql("SELECT countIf(rest['level'] != '') FROM sqld_again"), "47\n");
    let script = printed("sqld_again", &["--apply"]);
    for part in [
        "-- The target exists, and gets columns for \"item\", \"labels\", \"level\", \"map\".",
        "-- Left as they are: \"sqld_again_landing\", \"sqld_again_errors\", \"sqld_again_errors_mv\", \"sqld_again_pipe\".",
        "ADD COLUMN IF NOT EXISTS `level` Nullable(Int64),",
        "ALTER TABLE `default`.`sqld_again_mv` MODIFY QUERY",
        "-- Done: 3 statements were run.",
    ] {
        assert!(script.contains(part), "{part} is not in\n{script}");
    }
    // Old rows have them in rest, where the view for readers finds them, and new ones in the
    // columns.
    send(
        "sqld_again",
        second.iter().filter(|item| item["level"] == n("1.5")).map(|item| put_event(&table, item, began)),
    );
    // They are inserted by a refresh that had started before.
    answers("SELECT count() FROM sqld_again FINAL", "49\n");
    let more: Vec<Item> = (50..60).map(|id| item(id, &[("level", n("7")), ("item", s("new"))])).collect();
    put_items("sqld_again", &more);
    send("sqld_again", more.iter().map(|item| put_event(&table, item, began)));
    equals("sqld_again", "default.sqld_again", 59);
    assert_eq!(
        sql(
            "SELECT countIf(level > 0), countIf(item IN ('text', 'new')), countIf(labels = ['x', 'y']), countIf(map = '{\"k\":0.50}') FROM sqld_again_final"
        ),
        "57\t58\t48\t48\n"
    );
    assert_eq!(sql("SELECT countIf(level = 7), countIf(level IS NULL) FROM sqld_again"), "10\t49\n");
    // Dropping a view stops the pipe: without it, records would be stored nowhere. A refresh that
    // has started would continue without it.
    sql("SYSTEM STOP VIEW sqld_again_pipe");
    sql("DROP TABLE sqld_again_mv");
    sql("SYSTEM START VIEW sqld_again_pipe");
    put_items("sqld_again", [&item(60, &[])]);
    send("sqld_again", [put_event(&table, &item(60, &[]), began)]);
    let sentence = "the views \"sqld_again_mv\" and \"sqld_again_errors_mv\" must both exist";
    // The refresh that was stopped may have reported something before.
    wait_until(sentence, || refresh_exception("sqld_again_pipe").contains(sentence));
    // Everything that is missing is created again; then all that is left to do is to update the
    // views.
    sql("DROP TABLE sqld_again_pipe");
    sql("DROP TABLE sqld_again_errors");
    let script = printed("sqld_again", &["--apply"]);
    assert!(
        script.contains("has a column for every attribute of the sample that can have one")
            && script.contains("-- Done: 4 statements"),
        "{script}"
    );
    // The pipe's position belongs to the bridge: it continues where it stopped.
    let last = item(99, &[("level", n("99"))]);
    put_items("sqld_again", [&last]);
    send("sqld_again", [put_event(&table, &last, began)]);
    equals("sqld_again", "default.sqld_again", 61);
    let dry = printed("sqld_again", &["--dry-run"]);
    assert!(dry.contains("Row 1:") && dry.contains("\n-- level:  99\n"), "{dry}");
    sql("DROP TABLE sqld_again_pipe");
}
