//! The names that identify things, each a type of its own, so that the compiler refuses one in the
//! place of another.

use std::borrow::Borrow;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

macro_rules! names {
    ($($(#[$doc:meta])+ $name:ident,)+) => {$(
        $(#[$doc])+
        ///
        /// Reads as text wherever one name is enough, and is cheap to copy.
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl Default for $name {
            /// The empty name: none.
            fn default() -> $name {
                $name::from("")
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> $name {
                $name(text.into())
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> $name {
                $name(text.into())
            }
        }

        impl Deref for $name {
            type Target = str;

            fn deref(&self) -> &str {
                &self.0
            }
        }

        // Equal texts have equal order and hash.
        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                self
            }
        }

        impl PartialEq<str> for $name {
            fn eq(&self, other: &str) -> bool {
                **self == *other
            }
        }

        impl PartialEq<&str> for $name {
            fn eq(&self, other: &&str) -> bool {
                **self == **other
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&**self, f)
            }
        }
    )+};
}

names! {
    /// A pipe, as views name it in `pipe=`.
    PipeName,
    /// A stream, without account and region.
    StreamName,
    /// A shard of a stream.
    ShardId,
    /// A worker: a bridge process that may be replaced by a later one.
    WorkerId,
    /// A batch: 16 hexadecimal digits, as in the column `_batch`.
    BatchId,
}
