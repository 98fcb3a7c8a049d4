//! Leaves out what only people need of a text in the program, at compile time.

/// What is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Squeeze {
    /// Empty lines, lines of `//`, and the spaces that a line begins with.
    Script,
    /// Lines that begin with `--`. What is in a function stays: people read it in their database.
    Sql,
}

impl Squeeze {
    pub(crate) const fn text<const N: usize>(self, text: &str) -> [u8; N] {
        let mut squeezed = [0; N];
        self.write(text, &mut squeezed);
        squeezed
    }

    pub(crate) const fn length(self, text: &str) -> usize {
        self.write(text, &mut [])
    }

    /// Writes as much as there is room for, and gives the length of all.
    const fn write(self, text: &str, into: &mut [u8]) -> usize {
        let text = text.as_bytes();
        let (mark, is_script) = match self {
            Squeeze::Script => (b'/', true),
            Squeeze::Sql => (b'-', false),
        };
        let (mut length, mut at, mut line_begins) = (0, 0, true);
        while at < text.len() {
            let byte = text[at];
            if line_begins && byte == mark && text[at + 1] == mark {
                while text[at] != b'\n' {
                    at += 1;
                }
            } else if !(line_begins && is_script && matches!(byte, b' ' | b'\n')) {
                if length < into.len() {
                    into[length] = byte;
                }
                length += 1;
                line_begins = byte == b'\n';
            }
            at += 1;
        }
        length
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indentation_and_comments_are_left_out_and_nothing_else() {
        let text = "// one\n\n  a { // b\n    // c\n  'd  e';\n";
        assert_eq!(
            Squeeze::Script.text::<19>(text),
            *b"a { // b\n'd  e';\n\0\0"
        );
        assert_eq!(Squeeze::Script.length(text), 17);
    }

    #[test]
    fn functions_keep_their_comments() {
        let text = "-- one\na --b\n  -- c\n--\n\nd\n";
        let kept = b"a --b\n  -- c\n\nd\n";
        assert_eq!(Squeeze::Sql.length(text), kept.len());
        assert_eq!(Squeeze::Sql.text::<16>(text), *kept);
    }
}
