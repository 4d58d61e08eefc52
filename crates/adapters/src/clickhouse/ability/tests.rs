use super::*;

const WANTED: Wanted<'static> = Wanted { user: "bridge", database: "kinesis", keeper_map: true };

fn needs() -> Needs {
    Needs { version: "24.8.4.1".into(), ..Needs::default() }
}

#[test]
fn a_server_that_lacks_nothing_is_fine_whatever_its_number() {
    assert_eq!(needs().lacking("http://ch:8123"), None);
}

#[test]
fn all_that_a_server_lacks_is_one_sentence() {
    let two = Needs { no_syntax: vec!["APPEND", "SYSTEM WAIT VIEW"], ..needs() };
    assert_eq!(
        two.lacking("http://ch:8123").as_deref(),
        Some(
            "ClickHouse 24.8.4.1 at http://ch:8123 lacks APPEND and SYSTEM WAIT VIEW, which pipes need: upgrade to 25.8 LTS or later"
        )
    );
    let more = Needs { no_columns: vec!["uuid"], no_keeper_map: true, no_settings: vec!["x"], ..needs() };
    let said = more.lacking("h").expect("a sentence");
    assert!(
        said.contains(
            "lacks system.view_refreshes.uuid, KeeperMap (unless --state is file:DIR) and the setting x, which"
        ),
        "{said}"
    );
}

#[test]
fn views_find_a_thread_each_or_are_counted() {
    let verdict = |threads, views| pool(Pool { threads, views }).verdict;
    assert_eq!(verdict(512, 3), Verdict::Fine);
    assert_eq!(verdict(SCHEDULE_POOL_THREADS, SCHEDULE_POOL_THREADS - 1), Verdict::Fine);
    assert_eq!(verdict(SCHEDULE_POOL_THREADS - 1, 0), Verdict::Note);
    assert_eq!(verdict(0, 3), Verdict::Note);
    for views in [16, 17] {
        assert_eq!(verdict(16, views), Verdict::Bad);
    }
    let unknown = unchecked(POOL, "denied");
    assert_eq!((unknown.verdict, &*unknown.says), (Verdict::Note, "could not be checked: denied"));
}

fn lacking(rights: &[&str], has_tables: bool) -> Finding {
    let all = super::rights(&WANTED, &["default".into()]).into_iter();
    let missing = all.filter_map(|right| {
        let some = right.rights.iter().copied().filter(|r| rights.contains(r)).collect::<Vec<_>>();
        (!some.is_empty()).then_some(Right { rights: some, ..right })
    });
    grants(&WANTED, &Grants { readonly: 0, missing: missing.collect(), has_tables })
}

#[test]
fn missing_grants_are_the_statements_that_give_them() {
    assert_eq!(lacking(&[], false).verdict, Verdict::Fine);
    let two = lacking(&["ALTER DELETE", "INSERT"], true);
    assert_eq!(
        (two.verdict, &*two.says),
        (Verdict::Bad, "missing: GRANT INSERT, ALTER DELETE ON `kinesis`.* TO `bridge`")
    );
}

#[test]
fn rights_to_create_are_needed_until_the_tables_are_there() {
    assert_eq!(lacking(&["TABLE ENGINE"], false).verdict, Verdict::Bad);
    let there = lacking(&["TABLE ENGINE"], true);
    assert_eq!(
        (there.verdict, &*there.says),
        (
            Verdict::Note,
            "missing: GRANT TABLE ENGINE ON KeeperMap TO `bridge` (only to create its tables, which already exist)"
        )
    );
}

#[test]
fn a_user_who_may_not_write_is_bad_whatever_the_grants() {
    let found = grants(&WANTED, &Grants { readonly: 2, missing: Vec::new(), has_tables: true });
    assert_eq!(found.verdict, Verdict::Bad);
    assert!(found.says.contains("'bridge'") && found.says.contains("readonly = 2"), "{}", found.says);
}
