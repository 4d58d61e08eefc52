//! How a Kinesis record becomes rows, as a pull asks for it. It decides which rows there are, so it is part of a batch's identity.

use std::fmt;

/// Whether compressed payloads are decompressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Decompress {
    /// gzip and zstd, known by their first bytes.
    #[default]
    Auto,
    /// Payloads are delivered as they were put.
    None,
}

impl Decompress {
    /// All values, in the order in which messages list them.
    pub const ALL: [Decompress; 2] = [Decompress::Auto, Decompress::None];

    /// The word of the parameter `decompress`.
    pub fn name(self) -> &'static str {
        match self {
            Decompress::Auto => "auto",
            Decompress::None => "none",
        }
    }
}

/// Whether a payload holds several rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Split {
    /// It is one row.
    #[default]
    None,
    /// A row for each line that is not blank.
    Lines,
    /// A row for each log event of a CloudWatch Logs envelope.
    CloudWatch,
}

impl Split {
    /// All values, in the order in which messages list them.
    pub const ALL: [Split; 3] = [Split::None, Split::Lines, Split::CloudWatch];

    /// The word of the parameter `split`.
    pub fn name(self) -> &'static str {
        match self {
            Split::None => "none",
            Split::Lines => "lines",
            Split::CloudWatch => "cloudwatch",
        }
    }
}

/// What is done with a payload, in this order; KPL aggregates are always taken apart before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unpacking {
    /// Whether it is decompressed.
    pub decompress: Decompress,
    /// Whether it is split.
    pub split: Split,
}

impl Unpacking {
    /// Both words, also where they are the defaults: never empty.
    pub fn in_full(self) -> String {
        format!("decompress={} split={}", self.decompress.name(), self.split.name())
    }

    /// Reads the words that [`Unpacking`] writes out of a text with other words, such as a batch's shape. What is not said is the default.
    pub fn within(text: &str) -> Unpacking {
        let mut found = Unpacking::default();
        for (name, value) in text.split(' ').filter_map(|word| word.split_once('=')) {
            match name {
                "decompress" => found.decompress = named(&Decompress::ALL, Decompress::name, value).unwrap_or_default(),
                "split" => found.split = named(&Split::ALL, Split::name, value).unwrap_or_default(),
                _ => {}
            }
        }
        found
    }
}

/// What differs from the default, as in a URL; nothing when nothing does.
impl fmt::Display for Unpacking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decompress = Some(self.decompress).filter(|d| *d != Decompress::default());
        let split = Some(self.split).filter(|s| *s != Split::default());
        let words =
            [decompress.map(|d| format!("decompress={}", d.name())), split.map(|s| format!("split={}", s.name()))];
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
                let unpacking = Unpacking { decompress, split };
                assert_eq!(Unpacking::within(&format!("JSONEachRow payload=inline {unpacking}")), unpacking);
                assert_eq!(Unpacking::within(&unpacking.in_full()), unpacking);
            }
        }
        assert_eq!(Unpacking::default().to_string(), "");
        assert_eq!(Unpacking::within("ArrowStream split=sideways"), Unpacking::default());
    }
}
