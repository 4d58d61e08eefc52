//! A value that many tasks watch.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// A value that many tasks watch. They are woken in the order in which they subscribed, so that
/// simulated runs are reproducible: a channel with many receivers wakes them in random order.
pub struct Broadcast<T>(Mutex<Inner<T>>);

struct Inner<T> {
    value: T,
    watching: Vec<watch::Sender<T>>,
}

impl<T: Clone + PartialEq> Broadcast<T> {
    /// Nobody watches yet.
    pub fn new(value: T) -> Broadcast<T> {
        Broadcast(Mutex::new(Inner { value, watching: Vec::new() }))
    }

    fn inner(&self) -> MutexGuard<'_, Inner<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The current value.
    pub fn get(&self) -> T {
        self.inner().value.clone()
    }

    /// Sets the value, and wakes whoever watches if it is another one.
    pub fn set(&self, value: T) {
        self.change(|_| value);
    }

    /// Makes a value of the current one, and wakes whoever watches if it is another one.
    pub fn change(&self, change: impl FnOnce(&T) -> T) {
        let mut inner = self.inner();
        let value = change(&inner.value);
        if value != inner.value {
            inner.value = value.clone();
            inner.watching.retain(|watching| watching.send(value.clone()).is_ok());
        }
    }

    /// Watches the value from now on.
    pub fn subscribe(&self) -> watch::Receiver<T> {
        let mut inner = self.inner();
        let (sender, receiver) = watch::channel(inner.value.clone());
        inner.watching.retain(|watching| !watching.is_closed());
        inner.watching.push(sender);
        receiver
    }
}
