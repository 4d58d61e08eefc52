//! What determines a batch's bytes besides its records.

use std::fmt;
use std::sync::Arc;

use super::unpacking::{SECOND, Unpacking};

/// The response format and how records become rows. A batch that was offered in one shape may not
/// be served in another (**shape-is-identity**).
///
/// Kept as the text of the lease column `offered_shape`, since operators may write anything there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchShape(Arc<str>);

impl BatchShape {
    /// The shape of a response in `form`, a word or several such as `JSONEachRow payload=inline`.
    pub fn new(form: impl fmt::Display, unpacking: Unpacking) -> BatchShape {
        BatchShape(format!("{form} {unpacking}").trim_end().into())
    }

    /// The shape that a lease's column holds.
    pub fn of_column(text: &str) -> BatchShape {
        BatchShape(text.into())
    }

    /// The text of the lease's column.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// How records become rows. Words that are missing or not known stand for the default of the
    /// first edition.
    pub fn unpacking(&self) -> Unpacking {
        Unpacking::within(&self.0)
    }

    /// The shape as a view requests it: without the edition, which views do not choose.
    pub fn as_asked(&self) -> &str {
        self.0.strip_suffix(SECOND).unwrap_or(&self.0).trim_end()
    }
}

impl fmt::Display for BatchShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unpacking::{Edition, Split};

    #[test]
    fn a_view_asks_for_no_edition() {
        for asked in ["ArrowStream", "ArrowStream split=lines"] {
            assert_eq!(BatchShape::of_column(asked).as_asked(), asked);
            assert_eq!(BatchShape::of_column(&format!("{asked} edition=2")).as_asked(), asked);
        }
    }

    #[test]
    fn what_it_was_made_of_is_read_back() {
        let unpacking = Unpacking { split: Split::Lines, ..Unpacking::default() };
        assert_eq!(BatchShape::new("JSONEachRow payload=inline", unpacking).unpacking(), unpacking);
        let first = Unpacking { edition: Edition::First, ..Unpacking::default() };
        let plain = BatchShape::new("ArrowStream", first);
        assert_eq!((plain.as_str(), plain.unpacking()), ("ArrowStream", first));
    }
}
