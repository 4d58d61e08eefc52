//! Seeds, inputs made from them, and the loop that all targets share.

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{RngSeed, TestError, TestRunner};

/// The verdict on one input; `prop_assert!` makes the failures.
pub type Checked = Result<(), TestCaseError>;

/// Words of whatever is JSON, for a target's words to begin with.
pub const JSON: &[&[u8]] = &[b"{", b"}", b"[", b"]", b",", b":", b"\"", b"\\", b" ", b"\n"];

/// Longer seeds are run as they are and not damaged: bombs take long.
const DAMAGED: usize = 2_048;
/// Most edits of one seed.
const EDITS: usize = 6;

/// One place where a seed is damaged. A place is a part of whatever length the input has by then.
#[derive(Clone, Debug)]
enum Edit {
    Byte(Index, u8),
    Flip(Index, u8),
    Insert(Index, Vec<u8>),
    Replace(Index, Index, Vec<u8>),
    /// All of a name or number.
    Token(Index, Vec<u8>),
    Cut(Index, Index),
    Repeat(Index, Index, usize),
    End(Index),
}

impl Edit {
    fn apply(&self, input: &mut Vec<u8>) {
        let whole = input.len();
        let at = |place: &Index| place.index(whole + 1);
        // Pieces are short, so that most of a seed stays.
        let piece = |from: &Index, length: &Index| {
            let from = at(from);
            from..(from + length.index(16)).min(whole)
        };
        match self {
            Edit::Byte(place, byte) => {
                let place = at(place);
                if let Some(there) = input.get_mut(place) {
                    *there = *byte;
                }
            }
            Edit::Flip(place, bit) => {
                let place = at(place);
                if let Some(there) = input.get_mut(place) {
                    *there ^= 1 << bit;
                }
            }
            Edit::Insert(place, word) => drop(input.splice(at(place)..at(place), word.iter().copied())),
            Edit::Replace(from, length, word) => drop(input.splice(piece(from, length), word.iter().copied())),
            Edit::Token(place, word) => {
                let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"_.+-".contains(byte);
                let starts = |at: &usize| plain(&input[*at]) && !at.checked_sub(1).is_some_and(|at| plain(&input[at]));
                let starts: Vec<usize> = (0..whole).filter(starts).collect();
                if let Some(start) = starts.get(place.index(starts.len().max(1))) {
                    let length = input[*start..].iter().take_while(|byte| plain(byte)).count();
                    input.splice(*start..start + length, word.iter().copied());
                }
            }
            Edit::Cut(from, length) => drop(input.drain(piece(from, length))),
            Edit::Repeat(from, length, times) => {
                let piece = piece(from, length);
                let repeated = input[piece.clone()].repeat(*times);
                input.splice(piece.end..piece.end, repeated);
            }
            Edit::End(place) => input.truncate(at(place)),
        }
    }
}

/// A word of the target's language, or a few bytes.
fn word(words: &[&'static [u8]]) -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![4 => select(words.to_vec()).prop_map(<[u8]>::to_vec), 1 => prop::collection::vec(any::<u8>(), 0..4)]
}

fn edit(words: &[&'static [u8]]) -> impl Strategy<Value = Edit> {
    let index = any::<Index>;
    prop_oneof![
        2 => (index(), any::<u8>()).prop_map(|(at, byte)| Edit::Byte(at, byte)),
        2 => (index(), 0..8u8).prop_map(|(at, bit)| Edit::Flip(at, bit)),
        4 => (index(), word(words)).prop_map(|(at, word)| Edit::Insert(at, word)),
        4 => (index(), index(), word(words)).prop_map(|(at, length, word)| Edit::Replace(at, length, word)),
        4 => (index(), word(words)).prop_map(|(at, word)| Edit::Token(at, word)),
        2 => (index(), index()).prop_map(|(at, length)| Edit::Cut(at, length)),
        2 => (index(), index(), 1..40usize).prop_map(|(at, length, times)| Edit::Repeat(at, length, times)),
        1 => index().prop_map(Edit::End),
    ]
}

/// A seed, the beginning of one and the end of another, or words in a row; then damaged.
fn inputs(seeds: Vec<Vec<u8>>, words: &[&'static [u8]]) -> impl Strategy<Value = Vec<u8>> {
    let seeds = select(seeds);
    let joined =
        (seeds.clone(), any::<Index>(), seeds.clone(), any::<Index>()).prop_map(|(mut one, end, other, from)| {
            one.truncate(end.index(one.len() + 1));
            one.extend_from_slice(&other[from.index(other.len() + 1)..]);
            one
        });
    let made = prop::collection::vec(word(words), 0..30).prop_map(|words| words.concat());
    let base = prop_oneof![8 => seeds, 2 => joined, 1 => made];
    (base, prop::collection::vec(edit(words), 0..EDITS)).prop_map(|(mut input, edits)| {
        edits.iter().for_each(|edit| edit.apply(&mut input));
        input
    })
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

fn folder(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target)
}

/// The seeds of a target by name, in the order of their names.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let files = std::fs::read_dir(folder(target)).expect("the folder of the target").flatten();
    let seed = |entry: std::fs::DirEntry| {
        (entry.file_name().to_string_lossy().into_owned(), std::fs::read(entry.path()).expect("a seed"))
    };
    let mut seeds: Vec<_> = files.map(seed).collect();
    seeds.sort();
    assert!(!seeds.is_empty(), "there are no seeds in corpus/{target}");
    seeds
}

/// Runs the seeds of a target, and so many inputs made from them and from the `words` of its
/// language, unless `FUZZ` says how many. The first that fails is written into the corpus.
pub fn fuzz(target: &str, words: &[&'static [u8]], inputs_of_one_run: u32, check: impl Fn(&[u8]) -> Checked) {
    let seeds = corpus(target);
    for (name, seed) in &seeds {
        // When there is a panic, the last of these lines says where.
        eprintln!("corpus/{target}/{name}");
        check(seed).unwrap_or_else(|why| panic!("{why}"));
    }
    let seed = number("SEED").unwrap_or_else(|| fastrand::u64(..));
    let count = number("FUZZ").map_or(inputs_of_one_run, |count| count.try_into().expect("FUZZ is below 2^32"));
    let config = ProptestConfig {
        cases: count,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(seed),
        ..ProptestConfig::default()
    };
    let damaged = seeds.into_iter().map(|(_, seed)| seed).filter(|seed| seed.len() <= DAMAGED).collect();
    match TestRunner::new(config).run(&inputs(damaged, words), |input| check(&input)) {
        Ok(()) => {}
        Err(TestError::Abort(why)) => panic!("{why}"),
        Err(TestError::Fail(why, input)) => {
            let kept = folder(target).join(format!("found-{seed}"));
            let kept = match std::fs::write(&kept, &input) {
                Ok(()) => format!("kept as {}: give it a name that tells what it shows", kept.display()),
                Err(error) => format!("not kept: {error}"),
            };
            panic!(
                "{why}\nwith this input, {kept}\n{}\nonce more: make fuzz ONLY={target} SEED={seed} FUZZ={count}",
                input.escape_ascii()
            );
        }
    }
}

/// The shared loop finds what is wrong with one input in many.
#[test]
fn what_is_wrong_is_found() {
    let seeds = vec![b"{\"a\":[1,2,3]}".to_vec(), b"{}".to_vec()];
    let found =
        TestRunner::new(ProptestConfig { failure_persistence: None, cases: 20_000, ..ProptestConfig::default() }).run(
            &inputs(seeds, &[b"[", b"1e5"]),
            |input| {
                prop_assert!(!input.windows(5).any(|five| five == b"[1e5,"));
                Ok(())
            },
        );
    assert!(matches!(found, Err(TestError::Fail(..))), "{found:?}");
}
