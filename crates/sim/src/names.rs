//! The names in all runs.

use std::ops::Deref;
use std::thread::LocalKey;

use domain::names::{PipeName, StreamName};

/// A name of which each thread has its own: seeds that run side by side would otherwise count the
/// references to one, and wait for each other at each copy.
pub struct OfThread<T: 'static>(&'static LocalKey<&'static T>);

impl<T> Deref for OfThread<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.with(|name| *name)
    }
}

thread_local! {
    static ORDERS: &'static StreamName = Box::leak(Box::new("orders".into()));
    static ORDERS_PIPE: &'static PipeName = Box::leak(Box::new("orders".into()));
}

/// The only stream.
pub static STREAM: OfThread<StreamName> = OfThread(&ORDERS);
/// The pipe.
pub static PIPE: OfThread<PipeName> = OfThread(&ORDERS_PIPE);
