//! Compressed payloads with trailing bytes, and zlib streams, which start like text.

use super::*;
use domain::unpacking::Edition;

/// As a bridge read it before there were editions.
fn before(payload: &[u8]) -> (Vec<Given>, Counts) {
    let unpacking = Unpacking { edition: Edition::First, ..Unpacking::default() };
    unpacked(page(&[payload.to_vec()], 0), &Rules { unpacking, begun: None })
}

fn now(payload: &[u8]) -> (Vec<u8>, Counts) {
    let (mut rows, counts) = unpacked(page(&[payload.to_vec()], 0), &Rules::default());
    assert_eq!(rows.len(), 1);
    (rows.remove(0).3, counts)
}

fn as_it_is(payload: &[u8]) -> Counts {
    let (row, counts) = now(payload);
    assert_eq!(row, payload);
    counts
}

#[test]
fn what_follows_compressed_data_is_passed_over() {
    for (whole, kind) in [(gzip(b"text"), "gzip"), (zstd(b"text"), "zstd")] {
        for (trailing, counted) in [
            (&b"\n"[..], 0),
            (b"\r\n", 0),
            (b"\0", 0),
            (&[0; 500], 0),
            (b" ", 0),
            (b"garbage", 1),
            (b"\n{}", 1),
            (b"\x1F", 1),
        ] {
            let payload = [&whole, trailing].concat();
            let expected = Counts { decompressed: 1, trailing_bytes: counted, ..Counts::default() };
            assert_eq!(now(&payload), (b"text".to_vec(), expected), "{kind} {trailing:?}");
            let (rows, counts) = before(&payload);
            assert_eq!((&rows[0].3, counts.not_decompressed), (&payload, 1), "{kind} {trailing:?}");
        }
    }
}

#[test]
fn members_are_one_text_whatever_pads_them() {
    let (a, b) = (gzip(b"one "), gzip(b"two"));
    for padding in [&b""[..], b"\n", b"\0\0\0\0"] {
        let payload = [&a[..], padding, &b, padding].concat();
        assert_eq!(now(&payload).0, b"one two", "{padding:?}");
        // A truncated member is detected, and everything is left unchanged.
        let cut = [&a[..], padding, &b[..b.len() - 3]].concat();
        assert_eq!(as_it_is(&cut).not_decompressed, 1, "{padding:?}");
    }
    let skipped = |nibble: u8, data: &[u8]| {
        [&[0x50 | nibble, 0x2A, 0x4D, 0x18][..], &(data.len() as u32).to_le_bytes(), data].concat()
    };
    let (a, b) = (zstd(b"one "), zstd(b"two"));
    for between in
        [Vec::new(), b"\n".to_vec(), skipped(0, b""), [skipped(15, b"a note"), skipped(3, b"another")].concat()]
    {
        assert_eq!(now(&[&a[..], &between, &b].concat()).0, b"one two", "{between:?}");
    }
    // A frame that declares more than there is.
    assert_eq!(
        now(&[&a[..], &skipped(0, b"abc")[..10]].concat()),
        (b"one ".to_vec(), Counts { decompressed: 1, trailing_bytes: 1, ..Counts::default() })
    );
}

#[test]
fn a_zlib_bomb_stays_as_it_is() {
    let zeros = vec![0u8; MAX_INFLATED + 1];
    assert_eq!(as_it_is(&zlib(&zeros)).too_large, 1);
    assert_eq!(now(&zlib(&zeros[1..])).0.len(), MAX_INFLATED);
}

#[test]
fn text_that_begins_like_zlib_is_text() {
    for text in ["x", "x^", "x^2 + y^2 = 1\nx^3", "x\u{1}", "x\u{1}\u{1}\u{0}", "x^\n\n"] {
        assert_eq!(as_it_is(text.as_bytes()), Counts::default(), "{text}");
    }
    assert_eq!(one(b"x^2\nx^3\n", Split::Lines).0, ["x^2", "x^3"]);
    // Only padding may follow it.
    let whole = zlib(b"text");
    assert_eq!(now(&[&whole[..], b"\n"].concat()), (b"text".to_vec(), Counts { decompressed: 1, ..Counts::default() }));
    assert_eq!(as_it_is(&[&whole[..], b"more"].concat()), Counts::default());
    // The dictionary does not exist.
    assert_eq!(as_it_is(b"x\xBBabcdefgh"), Counts::default());
}

/// After one of four pairs of bytes, everything must be valid deflate with the right checksum: by
/// chance, one in 2^46 random payloads. Here all of them start that way, which leaves the checksum.
#[test]
#[expect(clippy::disallowed_methods, reason = "SEED repeats a run")]
fn noise_is_never_taken_for_zlib() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("SEED={seed} repeats this");
    let mut random = fastrand::Rng::with_seed(seed);
    for n in 0..200_000 {
        let length = random.usize(0..200);
        let text = n % 2 == 0;
        let mut payload: Vec<u8> = (0..length)
            .map(|_| if text { b"etaoin shrdlu\n{}\":,0123"[random.usize(..23)] } else { random.u8(..) })
            .collect();
        payload.splice(..0, [0x78, [0x01, 0x5E, 0x9C, 0xDA][random.usize(..4)]]);
        assert_eq!(as_it_is(&payload), Counts::default(), "{payload:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn zlib_comes_back(text in prop::collection::vec(any::<u8>(), 0..2_000), level in 0..10u32, cut: prop::sample::Index, bit in 0..8) {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::new(level));
        encoder.write_all(&text).unwrap();
        let packed = encoder.finish().unwrap();
        prop_assert_eq!(now(&packed), (text.clone(), Counts { decompressed: 1, ..Counts::default() }));
        let (rows, counts) = before(&packed);
        prop_assert_eq!((&rows[0].3, counts), (&packed, Counts::default()));
        // Truncated or damaged, it is delivered unchanged.
        let at = cut.index(packed.len());
        prop_assert_eq!(now(&packed[..at]).0, &packed[..at]);
        let mut flipped = packed.clone();
        flipped[at] ^= 1u8 << bit;
        let row = now(&flipped).0;
        // Some bits mean nothing: those between the last block and the checksum.
        prop_assert!(row == flipped || row == text, "bit {} of byte {}", bit, at);
    }

    #[test]
    fn whatever_follows_changes_nothing(text in prop::collection::vec(any::<u8>(), 0..200), trailing in prop::collection::vec(any::<u8>(), 1..40)) {
        for whole in [gzip(&text), zstd(&text)] {
            let payload = [&whole[..], &trailing].concat();
            prop_assert_eq!(now(&payload).0, &text[..]);
        }
    }
}
