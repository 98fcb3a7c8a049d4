//! Streams that both readings must agree on: random ones, cut ones, those at the limits, and what
//! fuzzing found.

use std::fs;
use std::path::Path;

use super::*;

/// A generator of numbers that are the same in every run (Marsaglia's xorshift64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 16).unwrap_or(0) % most
    }

    fn of<'a, T: ?Sized>(&mut self, these: &[&'a T]) -> &'a T {
        these[self.below(these.len())]
    }
}

const LINES: [&str; 16] = [
    "GET / HTTP/1.1",
    "GET /stats?x HTTP/1.1",
    "HEAD / HTTP/1.0",
    "POST / HTTP/1.1",
    "OPTIONS * HTTP/1.1",
    "GET http://a/ HTTP/1.1",
    "GET HTTPS://a:443?x/y HTTP/1.1",
    "CONNECT a:80 HTTP/1.1",
    "GET * HTTP/1.1",
    "GET / HTTP/1.2",
    "GET / HTTP/1.1 ",
    "GET  / HTTP/1.1",
    "GET /# HTTP/1.1",
    "GET /\u{e9} HTTP/1.1",
    "G@T / HTTP/1.1",
    "PRI * HTTP/2.0",
];

const FIELDS: [&str; 30] = [
    "Host: a",
    "Host: a:80",
    "host:\t[::1]:5000 \t",
    "Host:",
    "Host: a,b",
    "Host : a",
    "Content-Length: 3",
    "Content-Length: 0",
    "content-length: 003",
    "Content-Length: 3, 3",
    "Content-Length: +3",
    "Content-Length: 65537",
    "Transfer-Encoding: chunked",
    "transfer-encoding: CHUNKED",
    "Transfer-Encoding: gzip, chunked",
    "Transfer-Encoding: identity",
    "Transfer-Encoding: chunked, chunked",
    "Connection: close",
    "Connection: Keep-Alive, x",
    "Expect: 100-continue",
    "Expect: other",
    "X: y",
    "X:",
    "X: \u{e9}\u{7}",
    " folded",
    "no colon",
    ": empty",
    "X: a\0b",
    "X: a\rb",
    "Accept: */*",
];

const BODIES: [&str; 12] = [
    "abc",
    "0\r\n\r\n",
    "3\r\nabc\r\n0\r\n\r\n",
    "3;x=\"y\"\r\nabc\r\n0\r\nX: y\r\n\r\n",
    "003 \t;\r\nabc\r\n1\r\nd\r\n00\r\n\r\n",
    "3\r\nabcd\r\n0\r\n\r\n",
    "3 \r\nabc\r\n0\r\n\r\n",
    "3\nabc\n0\n\n",
    "fffffffffffffffff\r\n",
    "0\r\nX : y\r\n\r\n",
    "0\r\n folded\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
];

/// One message: nearly always of valid parts, or there would be little behind it to be read.
fn message(dice: &mut Dice) -> Vec<u8> {
    let mut text = "\r\n".repeat([0, 1, 4, 5][dice.below(40).saturating_sub(36)]);
    let line_end = |dice: &mut Dice| {
        if dice.below(100) == 0 {
            dice.of(&["\n", "\r", "\r\r\n", "\n\r"])
        } else {
            "\r\n"
        }
    };
    let common = dice.below(8) > 0;
    text += if common {
        LINES[dice.below(4)]
    } else {
        LINES[dice.below(LINES.len())]
    };
    text += line_end(dice);
    if dice.below(20) > 0 {
        text += FIELDS[dice.below(2)];
        text += line_end(dice);
    }
    for _ in 0..dice.below(3) {
        text += if dice.below(8) > 0 {
            FIELDS[21]
        } else {
            FIELDS[dice.below(FIELDS.len())]
        };
        text += line_end(dice);
    }
    if let Some(framing) = [6, 12].get(dice.below(4)) {
        text += FIELDS[*framing];
        text += line_end(dice);
    }
    text += line_end(dice);
    let body = if text.contains("hunked") {
        BODIES[1 + [dice.below(4), dice.below(10)][dice.below(2)]]
    } else {
        BODIES[0]
    };
    if text.contains("ncoding") || text.contains("ength: 3") || dice.below(20) == 0 {
        text += body;
    }
    let mut bytes = text.into_bytes();
    if dice.below(12) == 0 {
        let at = dice.below(bytes.len());
        match dice.below(3) {
            0 => bytes[at] = u8::try_from(dice.below(256)).unwrap_or(0),
            1 => drop(bytes.remove(at)),
            _ => bytes.insert(
                at,
                *dice.of(&[
                    &b'\r', &b'\n', &b' ', &b'\0', &b'0', &b';', &b':', &b',', &0xff,
                ]),
            ),
        }
    }
    bytes
}

#[test]
fn both_readings_of_random_streams_are_the_same() {
    let mut dice = Dice(0x5eed_5eed_5eed_5eed);
    let (mut whole, mut refused) = (0, 0);
    for _ in 0..20_000 {
        let stream: Vec<u8> = (0..1 + dice.below(3))
            .flat_map(|_| message(&mut dice))
            .collect();
        let pieces: Vec<usize> = (0..1 + dice.below(4)).map(|_| 1 + dice.below(40)).collect();
        check(&stream, &[usize::MAX]);
        check(&stream, &pieces);
        let (messages, end) = read_slowly(&stream);
        whole += messages.len();
        refused += usize::from(end == End::Refused);
    }
    // What is generated must be worth reading.
    assert!(
        whole > 10_000 && (5_000..15_000).contains(&refused),
        "{whole} requests, {refused} refusals"
    );
}

#[test]
fn both_readings_are_the_same_wherever_a_stream_is_cut() {
    let mut dice = Dice(0x0c07_0c07_0c07_0c07);
    for _ in 0..200 {
        let stream: Vec<u8> = (0..1 + dice.below(2))
            .flat_map(|_| message(&mut dice))
            .collect();
        check(&stream, &[1]);
        (1..stream.len()).for_each(|cut| check(&stream, &[cut, usize::MAX]));
        (0..stream.len()).for_each(|end| check(&stream[..end], &[usize::MAX]));
    }
}

#[test]
fn both_readings_are_the_same_at_the_limits() {
    let head = |line: usize, fields: usize, count: usize| {
        let line = format!(
            "GET /{} HTTP/1.1\r\n",
            "a".repeat(line - "GET / HTTP/1.1".len())
        );
        let many = "X:\r\n".repeat(count - 2);
        let last = fields - "Host: a\r\n".len() - many.len() - "X: \r\n\r\n".len();
        format!("{line}Host: a\r\n{many}X: {}\r\n\r\n", "a".repeat(last))
    };
    for line in [MAX_LINE - 1, MAX_LINE, MAX_LINE + 1] {
        for fields in [MAX_FIELDS_BYTES - 1, MAX_FIELDS_BYTES, MAX_FIELDS_BYTES + 1] {
            for count in [MAX_FIELDS, MAX_FIELDS + 1] {
                let stream = head(line, fields, count).repeat(2);
                for pieces in [
                    vec![usize::MAX],
                    vec![line, 1, 1, 1, usize::MAX],
                    vec![1000],
                    vec![8192, 1],
                ] {
                    check(stream.as_bytes(), &pieces);
                }
            }
        }
    }
    let chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    for size in [MAX_BODY - 1, MAX_BODY, MAX_BODY + 1] {
        let data = "x".repeat(size as usize);
        check(
            format!("{chunked}{size:x}\r\n{data}\r\n0\r\n\r\n").as_bytes(),
            &[5000],
        );
        check(
            format!("POST / HTTP/1.0\r\nContent-Length: {size}\r\n\r\n{data}").as_bytes(),
            &[5000],
        );
        let framing = "x".repeat(size as usize - "0;\r\n\r\n".len());
        check(format!("{chunked}0;{framing}\r\n\r\n").as_bytes(), &[5000]);
    }
}

/// What fuzzing found worth keeping: `fuzz/corpus/framing`, each file a byte for the pieces and
/// then the stream.
#[test]
fn both_readings_of_the_kept_corpus_are_the_same() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/framing");
    let files = fs::read_dir(&folder).into_iter().flatten().flatten();
    let inputs: Vec<Vec<u8>> = files
        .filter_map(|file| fs::read(file.path()).ok())
        .collect();
    assert!(
        inputs.len() > 20,
        "only {} inputs in {}",
        inputs.len(),
        folder.display()
    );
    inputs.iter().for_each(|input| check_input(input));
}
