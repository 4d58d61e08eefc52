//! Readiness: one question to the state store at a time, at most one a second, whoever asks.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use domain::error::Error;
use domain::limits::{READY_HOLDS, READY_TRUST, READY_WAIT};
use domain::ports::StateStore;

/// Whether the state store answers.
#[derive(Default)]
pub struct Readiness(Mutex<Option<Question>>);

#[derive(Clone)]
struct Question {
    asked: Instant,
    /// When the last question that was answered well had been asked.
    good: Option<Instant>,
    /// None while there is no answer.
    answer: watch::Receiver<Option<Result<(), Error>>>,
}

impl Readiness {
    /// An error unless the store answered within the last second, or does now; while it takes long,
    /// its last good answer counts for a while. Anyone may ask, so the error has neither addresses
    /// nor names: the log does.
    pub async fn ask(&self, store: &Arc<dyn StateStore>) -> Result<(), Error> {
        let Question { good, mut answer, .. } = self.question(store);
        match timeout(READY_WAIT, answer.wait_for(Option::is_some)).await {
            Ok(Ok(answer)) if matches!(*answer, Some(Ok(()))) => Ok(()),
            Err(_) if good.is_some_and(|good| good.elapsed() < READY_TRUST) => Ok(()),
            // Whatever the reason: 503 is what probes and load balancers expect.
            _ => Err(Error::Unavailable(
                "the state store does not answer: ClickHouse or Keeper is unavailable, or refuses the bridge; the bridge's log has the \
                 reason"
                    .into(),
            )),
        }
    }

    fn question(&self, store: &Arc<dyn StateStore>) -> Question {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = &*last {
            // Its sender is gone if the task that asked has died.
            let pending = last.answer.borrow().is_none() && last.answer.has_changed().is_ok();
            if pending || last.asked.elapsed() < READY_HOLDS {
                return last.clone();
            }
        }
        let before = last.as_ref().and_then(|last| last.answer.borrow().clone());
        let good = last.as_ref().and_then(|last| if before == Some(Ok(())) { Some(last.asked) } else { last.good });
        let (found, answer) = watch::channel(None);
        let store = store.clone();
        tokio::spawn(async move {
            let answer = store.workers().await.map(drop).map_err(Error::from);
            if before.as_ref() != Some(&answer) {
                match &answer {
                    Ok(()) => tracing::info!("ready"),
                    Err(error) => tracing::info!("not ready: {error}"),
                }
            }
            let _ = found.send(Some(answer));
        });
        last.insert(Question { asked: Instant::now(), good, answer }).clone()
    }
}
