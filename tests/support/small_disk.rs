//! A file system of its own size for one test: the test runs again, as a process in a mount
//! namespace of its own, and the file system ends with it.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where the test that runs again finds its file system.
const DISK: &str = "DRAMATIS_TEST_DISK";

/// Runs the body of the test of this name with an empty file system of so many MiB; says loudly
/// if none can be had here.
pub fn on_a_small_disk(test: &str, mib: u32, run: impl FnOnce(&Path)) {
    if let Ok(disk) = std::env::var(DISK) {
        run(Path::new(&disk));
        return;
    }
    let at = tempfile::tempdir().unwrap();
    let unshared = |flags: &[&str], then: &str| {
        let mut command = Command::new("unshare");
        let script = format!("mount -t tmpfs -o size={mib}m none \"$0\" && {then}");
        command.args(flags).args(["sh", "-c", &script]).arg(at.path());
        command
    };
    let namespaces: [&[&str]; 2] = [&["--mount"], &["--user", "--map-root-user", "--mount"]];
    let can = |flags: &&&[&str]| unshared(flags, "true").output().is_ok_and(|output| output.status.success());
    let Some(flags) = namespaces.iter().find(can) else {
        super::skipped(&format!("{test}: nobody may mount a small file system with `unshare` here"));
        return;
    };
    let status = unshared(flags, "exec \"$@\"")
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(DISK, at.path())
        .status()
        .unwrap();
    assert!(status.success(), "{test} failed on its own file system, see above");
}

/// A file that takes the room of others.
pub struct Filler(PathBuf);

impl Filler {
    /// Takes all but so many KiB of what is free.
    pub fn all_but(disk: &Path, kib: u64) -> Self {
        let path = disk.join("filler");
        let mut file = File::create(&path).unwrap();
        let mut written = 0;
        while let Ok(count) = file.write(&[1; 4_096]) {
            written += count as u64;
        }
        let left = written.checked_sub(kib * 1_024).expect("less is free already");
        OpenOptions::new().write(true).open(&path).unwrap().set_len(left).unwrap();
        Self(path)
    }

    /// Gives the room back.
    pub fn remove(self) {
        std::fs::remove_file(self.0).unwrap();
    }
}
