//! Keys: values that do not fit, other tables in the stream, and keys that change.

use aws_sdk_dynamodb::types::AttributeValue;

use super::{answers, captured, drop_pipes, equals, now, printed, put_event, refused, run, send};
use crate::dynamodb::items::{Item, Key, KeySchema};
use crate::dynamodb::{create_table, delete_table, enable_streaming, put_items};
use crate::engines::on_each_engine;
use crate::world::{refresh_exception, sql, wait_until};

on_each_engine!(
    numbers_that_do_not_fit_are_kept_apart_or_make_the_key_text,
    each_of_several_tables_in_a_stream_gets_its_own,
    a_table_with_other_keys_stops_the_pipe_and_loses_nothing,
    a_table_of_the_same_keys_goes_on_when_nothing_of_the_earlier_one_is_left,
);

fn numbered(id: &str) -> Item {
    [("id".to_owned(), AttributeValue::N(id.into())), ("name".to_owned(), AttributeValue::S(format!("name of {id}")))]
        .into()
}

fn named(id: &str) -> Item {
    [("id".to_owned(), AttributeValue::S(id.into()))].into()
}

const NUMBER: KeySchema = &[("id", Key::N)];

fn numbers_that_do_not_fit_are_kept_apart_or_make_the_key_text() {
    let table = captured("sqld_wide", NUMBER);
    let began = now();
    send("sqld_wide", [put_event(&table, &numbered("1"), began)]);
    printed("sqld_wide", &["--apply"]);
    let wide = numbered("12345678901234567890");
    send("sqld_wide", [put_event(&table, &wide, began), "garbage".into(), put_event(&table, &numbered("2"), began)]);
    answers("SELECT id, name FROM sqld_wide_final ORDER BY id", "1\tname of 1\n2\tname of 2\n");
    answers(
        "SELECT splitByString(': ', reason)[1], raw_message, version > 0, is_deleted FROM sqld_wide_errors ORDER BY reason LIKE '%key%' DESC FORMAT TSVRaw",
        &format!(
            "the key \"id\" does not fit Int64\t{{\"id\":12345678901234567890,\"name\":\"name of 12345678901234567890\"}}\t1\t0\n{}",
            "the payload is not a DynamoDB change event\tgarbage\t0\t0\n"
        ),
    );
    let again = printed("sqld_wide", &[]);
    assert!(
        again.contains(
            "The column \"id\" is Int64, but the sample has keys that do not fit: they go to \"sqld_wide_errors\"."
        ),
        "{again}"
    );
    sql("DROP TABLE sqld_wide_pipe");
    // If the sample has them, they turn the column into text.
    printed("sqld_wide", &["--apply", "--target", "default.sqld_wide_text"]);
    answers(
        "SELECT id, name FROM sqld_wide_text_final ORDER BY id",
        "1\tname of 1\n12345678901234567890\tname of 12345678901234567890\n2\tname of 2\n",
    );
    sql("DROP TABLE sqld_wide_text_pipe");
}

fn each_of_several_tables_in_a_stream_gets_its_own() {
    let (one, two) = (captured("sqld_one", NUMBER), create_table("sqld_two", &[("id", Key::S), ("at", Key::N)]));
    let other: Item =
        [("id".to_owned(), AttributeValue::S("x".into())), ("at".to_owned(), AttributeValue::N("1".into()))].into();
    put_items("sqld_one", [&numbered("1"), &numbered("2")]);
    put_items("sqld_two", [&other]);
    let began = now();
    let events = [
        put_event(&one, &numbered("1"), began),
        put_event(&two, &other, began),
        put_event(&one, &numbered("2"), began),
    ];
    send("sqld_one", events);
    let script = printed("sqld_one", &["--apply"]);
    assert!(script.contains("Made from 2 items"), "{script}");
    let flags = ["--listen", super::bridge().address(), "--table", "sqld_two", "--stream", "sqld_one", "--apply"];
    let script = super::succeeded(super::run_in(&[], &flags));
    assert!(
        script.contains("So far the changes of DynamoDB table \"sqld_two\" do not go to stream \"sqld_one\"."),
        "{script}"
    );
    equals("sqld_one", "default.sqld_one", 2);
    equals("sqld_two", "default.sqld_two", 1);
    assert_eq!(sql("SELECT (SELECT count() FROM sqld_one_errors), (SELECT count() FROM sqld_two_errors)"), "0\t0\n");
    drop_pipes(&["sqld_one", "sqld_two"]);
}

fn a_table_with_other_keys_stops_the_pipe_and_loses_nothing() {
    for (name, keys, changed) in [
        ("sqld_more", &[("id", Key::S)] as KeySchema, &[("id", Key::S), ("at", Key::N)] as KeySchema),
        ("sqld_fewer", &[("id", Key::S), ("at", Key::N)], &[("id", Key::S)]),
        ("sqld_other", &[("id", Key::S)], &[("key", Key::S)]),
    ] {
        let table = captured(name, keys);
        let item = |id: &str| -> Item {
            let mut item = named(id);
            item.insert("key".into(), AttributeValue::S(id.into()));
            // More than ClickHouse's JSON functions accept.
            item.insert("at".into(), AttributeValue::N("12345678901234567890123".into()));
            item
        };
        let began = now();
        send(name, [put_event(&table, &item("a\":\"b"), began)]);
        printed(name, &["--apply"]);
        answers(&format!("SELECT count() FROM {name}"), "1\n");
        delete_table(name);
        // A table's creation time is known to the second.
        wait_until("the next second", || now() / 1_000_000 > began / 1_000_000);
        let again = create_table(name, changed);
        let created = now();
        send(name, [put_event(&again, &item("b"), created), put_event(&again, &item("c"), created + 1)]);
        let exception = refresh_exception(&format!("{name}_pipe"));
        let mut shown: Vec<String> = keys.iter().map(|(name, _)| format!("\"{name}\"")).collect();
        shown.sort_unstable();
        let shown = shown.join(", ");
        let sentence = format!(
            "the changes of DynamoDB table \"{name}\" have other key attributes than {shown}: it was recreated with other keys; nothing is lost while this view waits; drop it and run sql dynamodb for another target"
        );
        assert!(exception.contains(&sentence), "{exception}");
        assert_eq!(sql(&format!("SELECT count() FROM {name} WHERE id != 'a\":\"b'")), "0\n");
        // As the message says.
        sql(&format!("DROP TABLE {name}_pipe"));
        let said = refused(&run(name, &["--apply"]));
        assert!(said.contains("was dropped and recreated after") && said.contains("choose another --target"), "{said}");
        let target = format!("default.{name}_new");
        enable_streaming(name, name, true);
        printed(name, &["--apply", "--target", &target]);
        answers(&format!("SELECT (SELECT count() FROM {name}_new) + (SELECT count() FROM {name}_new_errors)"), "2\n");
    }
    drop_pipes(&["sqld_more_new", "sqld_fewer_new", "sqld_other_new"]);
}

fn a_table_of_the_same_keys_goes_on_when_nothing_of_the_earlier_one_is_left() {
    let name = "sqld_same";
    let earlier = captured(name, &[("id", Key::S)]);
    let began = now();
    send(name, [put_event(&earlier, &named("old"), began)]);
    printed(name, &["--apply"]);
    answers("SELECT id FROM sqld_same FINAL", "old\n");
    delete_table(name);
    wait_until("the next second", || now() / 1_000_000 > began / 1_000_000);
    let table = create_table(name, &[("id", Key::S)]);
    enable_streaming(name, name, true);
    let said = refused(&run(name, &["--apply"]));
    assert_eq!(
        said,
        "DynamoDB table \"sqld_same\" was dropped and recreated after \"default.sqld_same\" was made, which still has items of the earlier table (1): \
         run the statement that dynamodb verify prints for them, or choose another --target"
    );
    sql(&format!("INSERT INTO sqld_same (id, version, is_deleted) VALUES ('old', {}, 1)", began + 1));
    put_items(name, [&named("new")]);
    send(name, [put_event(&table, &named("new"), now())]);
    let script = printed(name, &["--apply"]);
    assert!(script.contains("ALTER TABLE `default`.`sqld_same` MODIFY COMMENT"), "{script}");
    assert!(!printed(name, &[]).contains("MODIFY COMMENT"));
    equals(name, "default.sqld_same", 1);
    sql("DROP TABLE sqld_same_pipe");
}
