//! Which ClickHouse a test runs on.
//!
//! A test that asks ClickHouse is a plain function. [`on_each_engine`] makes two tests of it,
//! `name::on_25_8` and `name::on_26_7`. What a test asks for (`world::stack`, `real::real`, …) is
//! that of its engine. A `#[test]` runs on
//! 26.7 unless it starts something of its own.

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

/// Runs a test's body, or what it has another thread do, on an engine. Each test has a thread of
/// its own.
pub fn on<T>(engine: Engine, body: impl FnOnce() -> T) -> T {
    MEANT.set(engine);
    body()
}

/// What there is one of for each engine, made when it is first asked for.
pub struct PerEngine<T> {
    of: [OnceLock<T>; Engine::ALL.len()],
}

impl<T> PerEngine<T> {
    pub const fn new() -> PerEngine<T> {
        PerEngine { of: [const { OnceLock::new() }; Engine::ALL.len()] }
    }

    /// That of this thread's engine.
    pub fn get_or_init(&self, make: impl FnOnce() -> T) -> &T {
        self.of[engine() as usize].get_or_init(make)
    }
}

/// Makes two tests of each function, `name::on_25_8` and `name::on_26_7`. `async` before the names
/// for functions that are.
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
