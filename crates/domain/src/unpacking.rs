//! How a pull wants Kinesis records to become rows. This determines which rows exist, so it is part
//! of a batch's identity.

use std::fmt;

/// Whether compressed payloads are decompressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Decompress {
    /// gzip, zstd and zlib, detected by their first bytes.
    #[default]
    Auto,
    /// Payloads are delivered as they were put.
    None,
}

impl Decompress {
    /// All values, in the order in which messages list them.
    pub const ALL: [Decompress; 2] = [Decompress::Auto, Decompress::None];

    /// The value of the parameter `decompress`.
    pub fn name(self) -> &'static str {
        match self {
            Decompress::Auto => "auto",
            Decompress::None => "none",
        }
    }
}

/// How a payload is split into rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Split {
    /// Not at all: it is one row.
    #[default]
    None,
    /// One row per non-blank line.
    Lines,
    /// One row per JSON object, if there are several in sequence, and per element of an array.
    Json,
    /// One row per log event of a CloudWatch Logs envelope.
    CloudWatch,
}

impl Split {
    /// All values, in the order in which messages list them.
    pub const ALL: [Split; 4] = [Split::None, Split::Lines, Split::Json, Split::CloudWatch];

    /// The value of the parameter `split`.
    pub fn name(self) -> &'static str {
        match self {
            Split::None => "none",
            Split::Lines => "lines",
            Split::Json => "json",
            Split::CloudWatch => "cloudwatch",
        }
    }
}

/// What exactly the options mean. A version of the bridge that finds more in a payload introduces a
/// new edition, so that a batch or record started by an earlier version continues with the same
/// rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Edition {
    /// For texts that name no edition: gzip and zstd with no trailing bytes; a byte order mark is
    /// part of the payload.
    First,
    /// Also zlib; bytes after gzip and zstd data are skipped, as is a byte order mark before JSON.
    #[default]
    Second,
}

/// How [`Edition::Second`] is written in a lease and in a batch's shape.
pub(crate) const SECOND: &str = "edition=2";

/// What is done with a payload, in this order; KPL aggregates are always unpacked first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unpacking {
    /// Whether it is decompressed.
    pub decompress: Decompress,
    /// Whether it is split.
    pub split: Split,
    /// Which meaning of the two applies.
    pub edition: Edition,
}

impl Unpacking {
    /// All options, including defaults: never empty.
    pub fn in_full(self) -> String {
        let words = format!("decompress={} split={}", self.decompress.name(), self.split.name());
        [Some(&*words), self.edition.word()].into_iter().flatten().collect::<Vec<_>>().join(" ")
    }

    /// Parses the words that [`Unpacking`] writes from a text that contains others, such as a
    /// batch's shape. Anything missing is the default, of the first edition.
    pub fn within(text: &str) -> Unpacking {
        let mut found = Unpacking { edition: Edition::First, ..Unpacking::default() };
        for (name, value) in text.split(' ').filter_map(|word| word.split_once('=')) {
            match name {
                "edition" => found.edition = Edition::Second,
                "decompress" => found.decompress = named(&Decompress::ALL, Decompress::name, value).unwrap_or_default(),
                "split" => found.split = named(&Split::ALL, Split::name, value).unwrap_or_default(),
                _ => {}
            }
        }
        found
    }
}

impl Edition {
    fn word(self) -> Option<&'static str> {
        match self {
            Edition::First => None,
            Edition::Second => Some(SECOND),
        }
    }
}

/// Only what differs from the defaults of the first edition.
impl fmt::Display for Unpacking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decompress = Some(self.decompress).filter(|d| *d != Decompress::default());
        let split = Some(self.split).filter(|s| *s != Split::default());
        let words = [
            decompress.map(|d| format!("decompress={}", d.name())),
            split.map(|s| format!("split={}", s.name())),
            self.edition.word().map(str::to_owned),
        ];
        f.write_str(&words.into_iter().flatten().collect::<Vec<_>>().join(" "))
    }
}

/// The value of that name.
pub fn named<T: Copy>(all: &[T], name: fn(T) -> &'static str, wanted: &str) -> Option<T> {
    all.iter().copied().find(|value| name(*value) == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unpacking_is_read_back_out_of_a_shape() {
        for decompress in Decompress::ALL {
            for split in Split::ALL {
                for edition in [Edition::First, Edition::Second] {
                    let unpacking = Unpacking { decompress, split, edition };
                    assert_eq!(Unpacking::within(&format!("JSONEachRow payload=inline {unpacking}")), unpacking);
                    assert_eq!(Unpacking::within(&unpacking.in_full()), unpacking);
                }
            }
        }
        let first = Unpacking { edition: Edition::First, ..Unpacking::default() };
        assert_eq!((first.to_string(), Unpacking::default().to_string()), (String::new(), "edition=2".into()));
        assert_eq!(Unpacking::within("ArrowStream split=sideways"), first);
        // As in leases written before there were editions.
        let lines = Unpacking { split: Split::Lines, ..first };
        assert_eq!(Unpacking::within("decompress=auto split=lines"), lines);
    }
}
