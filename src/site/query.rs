//! The query of a request's target: `name=value` pairs, percent-decoded.

/// The value of the first pair of that name.
pub(super) fn value(target: &str, name: &str) -> Option<String> {
    let (_, query) = target.split_once('?')?;
    let pair = query
        .split('&')
        .find(|pair| pair.split('=').next() == Some(name))?;
    Some(decode(pair.split_once('=').map_or("", |(_, value)| value)))
}

/// Undoes percent-encoding and `+` for a space (the URL standard's form encoding). Replaces what is
/// not UTF-8.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let mut ahead = rest.clone();
        let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
        match (byte, digit(ahead.next()), digit(ahead.next())) {
            (b'%', Some(high), Some(low)) => {
                bytes.push((high << 4 | low) as u8);
                rest = ahead;
            }
            (b'+', ..) => bytes.push(b' '),
            _ => bytes.push(byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_decoded_and_what_is_broken_is_kept() {
        let target = "/badge.svg?label=a+b%20c%C3%A9&color=%23f00&x=%zz%4&by";
        assert_eq!(value(target, "label").as_deref(), Some("a b cé"));
        assert_eq!(value(target, "color").as_deref(), Some("#f00"));
        assert_eq!(value(target, "x").as_deref(), Some("%zz%4"));
        assert_eq!(value(target, "by").as_deref(), Some(""));
        assert_eq!(value(target, "b"), None);
        assert_eq!(value("/", "by"), None);
        assert_eq!(value("/?x=%ff", "x").as_deref(), Some("\u{fffd}"));
    }
}
