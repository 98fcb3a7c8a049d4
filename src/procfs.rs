//! What the kernel says of this process and of its limits: `/proc` and files of the same form.

use std::fs;
use std::path::Path;
use std::str::FromStr;

/// A file of `/proc/self`; empty where there is none.
pub fn read(name: &str) -> String {
    fs::read_to_string(format!("/proc/self/{name}")).unwrap_or_default()
}

/// The number that is all that a file holds.
pub fn number<T: FromStr>(path: impl AsRef<Path>) -> Option<T> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// The number behind `name` on the line that begins with it.
pub fn field<T: FromStr>(text: &str, name: &str) -> Option<T> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Open descriptors. Since Linux 6.2 the folder's size is their number (proc(5)); before that each
/// one is listed.
pub fn open_descriptors() -> Option<usize> {
    match fs::metadata("/proc/self/fd").ok()?.len() {
        // Listing opens one more.
        0 => Some(
            fs::read_dir("/proc/self/fd")
                .ok()?
                .count()
                .saturating_sub(1),
        ),
        open => usize::try_from(open).ok(),
    }
}
