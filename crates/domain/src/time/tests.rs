use super::*;

#[test]
fn the_future_is_never() {
    let now = 1_795_255_200_000;
    assert_eq!(past(now - 1, now), now - 1);
    assert_eq!(past(now + TIMESTAMP_SLACK_MS, now), now);
    assert_eq!(past(now + TIMESTAMP_SLACK_MS + 1, now), 0);
    assert_eq!((past(0, now), past(i64::MAX, now), past(i64::MAX, i64::MAX)), (0, 0, i64::MAX));
}
