//! What fills a column of the target.

use super::types::Type;

/// A column that is filled from the payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// The path of the field, outermost name first.
    pub path: Vec<String>,
    /// Its type.
    pub ty: Type,
    /// It is a String that stores objects and arrays as their text.
    pub as_text: bool,
}
