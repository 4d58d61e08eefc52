//! Which ClickHouse a test runs on.
//!
//! A test that queries ClickHouse is a plain function. [`on_each_engine`] turns it into two tests,
//! `name::on_25_8` and `name::on_26_7`, in which everything shared (`world::stack`, `real::real`,
//! …) belongs to that engine. A `#[test]` runs on 26.7 unless it starts something of its own.

use std::cell::Cell;
use std::sync::OnceLock;

use stack::Engine;

thread_local! {
    static MEANT: Cell<Engine> = const { Cell::new(Engine::V26_7) };
}

tokio::task_local! {
    static OF_TASK: Engine;
}

/// The engine of this test.
pub fn engine() -> Engine {
    OF_TASK.try_with(|engine| *engine).unwrap_or_else(|_| MEANT.get())
}

/// A task of this test, to be spawned: it may run on any thread.
pub fn of_task<F: Future>(task: F) -> impl Future<Output = F::Output> {
    OF_TASK.scope(engine(), task)
}

/// Runs a test's body, or what it runs on another thread, on an engine. Each test has a thread of
/// its own.
pub fn on<T>(engine: Engine, body: impl FnOnce() -> T) -> T {
    MEANT.set(engine);
    body()
}

/// Something that exists once per engine, created when first needed.
pub struct PerEngine<T> {
    of: [OnceLock<T>; Engine::ALL.len()],
}

impl<T> PerEngine<T> {
    pub const fn new() -> PerEngine<T> {
        PerEngine { of: [const { OnceLock::new() }; Engine::ALL.len()] }
    }

    /// The one for this thread's engine.
    pub fn get_or_init(&self, make: impl FnOnce() -> T) -> &T {
        self.of[engine() as usize].get_or_init(make)
    }
}

/// Turns each function into two tests, `name::on_25_8` and `name::on_26_7`. Write `async` before
/// the names of async functions.
macro_rules! on_each_engine {
    (async $($name:ident),+ $(,)?) => { $(
        mod $name {
            #[test]
            fn on_25_8() {
                $crate::engines::on(stack::Engine::V25_8, || $crate::world::block_on(super::$name()));
            }

            #[test]
            fn on_26_7() {
                $crate::engines::on(stack::Engine::V26_7, || $crate::world::block_on(super::$name()));
            }
        }
    )+ };
    ($($name:ident),+ $(,)?) => { $(
        mod $name {
            #[test]
            fn on_25_8() {
                $crate::engines::on(stack::Engine::V25_8, super::$name);
            }

            #[test]
            fn on_26_7() {
                $crate::engines::on(stack::Engine::V26_7, super::$name);
            }
        }
    )+ };
}

pub(crate) use on_each_engine;
