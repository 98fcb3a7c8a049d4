//! A small disk that a test can fill: a tmpfs, for root only.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::scratch;

/// A mounted tmpfs. Dropped, it is unmounted and removed.
#[derive(Debug)]
pub struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    /// A disk of this size in MiB.
    ///
    /// # Errors
    /// Why it cannot be mounted here.
    pub fn new(mebibytes: u32) -> Result<SmallDisk, String> {
        let path = scratch::fresh_path("disk");
        fs::create_dir(&path).expect("a folder to mount on");
        let size = format!("size={mebibytes}m,mode=755");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(&path)
            .output();
        match mounted {
            Ok(output) if output.status.success() => Ok(SmallDisk { path }),
            Ok(output) => Err(format!(
                "no tmpfs can be mounted: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            )),
            Err(error) => Err(format!("no tmpfs can be mounted: {error}")),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes this user and group own the disk.
    pub fn give_to(&self, owner: (u32, u32)) {
        chown(&self.path, Some(owner.0), Some(owner.1)).expect("the disk's owner");
        fs::set_permissions(&self.path, fs::Permissions::from_mode(0o700))
            .expect("the disk's mode");
    }

    /// Fills the disk up to this many free KiB.
    pub fn fill(&self, kibibytes_left: u64) {
        use std::io::Write;
        let mut file = fs::File::create(self.filler()).expect("a file to fill the disk with");
        // Until it is full; then the file shrinks by that much.
        let block = vec![0u8; 64 * 1024];
        while file.write_all(&block).is_ok() {}
        let length = file.metadata().expect("its length").len();
        file.set_len(length.saturating_sub(kibibytes_left * 1024))
            .expect("a shorter file");
    }

    /// Frees the space again.
    pub fn free(&self) {
        let _ = fs::remove_file(self.filler());
    }

    fn filler(&self) -> PathBuf {
        self.path.join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount")
            .arg("--lazy")
            .arg(&self.path)
            .status();
        let _ = fs::remove_dir(&self.path);
    }
}
