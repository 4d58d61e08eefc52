//! What was turned away: each is counted, and at most one line a minute is logged about all.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus::IntCounterVec;
use tokio::time::sleep;
use tracing::warn;

use domain::limits::{REFUSALS_EVERY, REFUSED_PEERS};

/// Why a request or a connection was turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// The bearer token is not this bridge's.
    WrongToken,
    /// There is no bearer token.
    NoToken,
    /// It comes from a web page of another origin.
    Page,
    /// It is meant for another host.
    Host,
    /// Too many requests are being answered.
    Busy,
    /// Too many connections, of which this one was silent for longest.
    Silent,
}

impl Reason {
    const ALL: [Reason; 6] =
        [Reason::WrongToken, Reason::NoToken, Reason::Page, Reason::Host, Reason::Busy, Reason::Silent];

    fn label(self) -> &'static str {
        match self {
            Reason::WrongToken => "wrong_token",
            Reason::NoToken => "no_token",
            Reason::Page => "page",
            Reason::Host => "host",
            Reason::Busy => "busy",
            Reason::Silent => "silent",
        }
    }

    fn of_many(self) -> &'static str {
        match self {
            Reason::WrongToken => "with a wrong token",
            Reason::NoToken => "without a token",
            Reason::Page => "from web pages of other origins",
            Reason::Host => "for another host",
            Reason::Busy => "beyond the limit of requests",
            Reason::Silent => "silent connections, closed for others",
        }
    }
}

/// All that was turned away.
pub struct Refusals {
    counter: IntCounterVec,
    unsaid: Mutex<Unsaid>,
}

/// What has not been logged yet.
#[derive(Default)]
struct Unsaid {
    /// A line was logged less than a minute ago, and a task waits to log the next one.
    waiting: bool,
    counts: BTreeMap<Reason, u64>,
    peers: BTreeSet<IpAddr>,
    more_peers: bool,
}

impl Refusals {
    /// Nothing so far.
    pub fn new(counter: IntCounterVec) -> Arc<Refusals> {
        // So that the first one is an increase.
        for reason in Reason::ALL {
            counter.with_label_values(&[reason.label()]).inc_by(0);
        }
        Arc::new(Refusals { counter, unsaid: Mutex::default() })
    }

    /// Counts one. It is logged at once, or else with the others of the minute.
    pub fn count(self: &Arc<Refusals>, reason: Reason, peer: IpAddr) {
        self.counter.with_label_values(&[reason.label()]).inc();
        let mut unsaid = self.unsaid();
        unsaid.add(reason, peer);
        if std::mem::replace(&mut unsaid.waiting, true) {
            return;
        }
        drop(unsaid);
        let this = self.clone();
        tokio::spawn(async move {
            while let Some(line) = this.line() {
                warn!("{line}");
                sleep(REFUSALS_EVERY).await;
            }
        });
    }

    /// The line that is due; none after a minute without any, when the next one counts as the first
    /// again.
    fn line(&self) -> Option<String> {
        let mut unsaid = self.unsaid();
        let line = unsaid.line();
        *unsaid = Unsaid { waiting: line.is_some(), ..Unsaid::default() };
        line
    }

    fn unsaid(&self) -> MutexGuard<'_, Unsaid> {
        self.unsaid.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Unsaid {
    fn add(&mut self, reason: Reason, peer: IpAddr) {
        *self.counts.entry(reason).or_default() += 1;
        if self.peers.len() < REFUSED_PEERS {
            self.peers.insert(peer);
        } else {
            self.more_peers |= !self.peers.contains(&peer);
        }
    }

    fn line(&self) -> Option<String> {
        let counts: Vec<String> = self.counts.iter().map(|(reason, n)| format!("{n} {}", reason.of_many())).collect();
        let peers: Vec<String> = self.peers.iter().map(IpAddr::to_string).collect();
        let more = if self.more_peers { " and others" } else { "" };
        (!counts.is_empty()).then(|| format!("refused: {}; sent by {}{more}", counts.join(", "), peers.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use prometheus::Opts;

    use super::*;

    #[test]
    fn a_line_has_the_counts_and_few_addresses() {
        let mut unsaid = Unsaid::default();
        assert_eq!(unsaid.line(), None);
        let peer = |n: u8| IpAddr::from([10, 0, 0, n]);
        (0..30).for_each(|_| unsaid.add(Reason::WrongToken, peer(1)));
        unsaid.add(Reason::Page, peer(2));
        let line = "refused: 30 with a wrong token, 1 from web pages of other origins; sent by 10.0.0.1, 10.0.0.2";
        assert_eq!(unsaid.line().as_deref(), Some(line));
        (0..200).for_each(|n| unsaid.add(Reason::NoToken, peer(n)));
        let line = unsaid.line().unwrap_or_default();
        assert!(line.ends_with("10.0.0.7 and others") && unsaid.peers.len() == REFUSED_PEERS, "{line}");
    }

    #[tokio::test(start_paused = true)]
    async fn all_of_a_minute_is_one_line() {
        let counter = IntCounterVec::new(Opts::new("refused", "refused"), &["reason"]).expect("a counter");
        let refusals = Refusals::new(counter.clone());
        let peer = IpAddr::from([10, 0, 0, 1]);
        refusals.count(Reason::WrongToken, peer);
        tokio::task::yield_now().await;
        assert_eq!(refusals.unsaid().line(), None, "the first is logged at once");
        (0..1_000).for_each(|_| refusals.count(Reason::WrongToken, peer));
        sleep(REFUSALS_EVERY / 2).await;
        assert_eq!(refusals.unsaid().counts[&Reason::WrongToken], 1_000, "and the others later");
        sleep(REFUSALS_EVERY).await;
        assert_eq!(refusals.unsaid().line(), None);
        assert!(refusals.unsaid().waiting);
        sleep(REFUSALS_EVERY).await;
        assert!(!refusals.unsaid().waiting, "nobody waits when nothing is refused");
        assert_eq!(counter.with_label_values(&["wrong_token"]).get(), 1_001);
    }
}
