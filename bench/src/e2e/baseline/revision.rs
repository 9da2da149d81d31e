//! The gateway of another commit: found, built once, kept.
//!
//! ```text
//!  target/baseline/tree               git worktree while it is built, then gone
//!  target/baseline/build              cargo's, so that the next commit needs not build the dependencies
//!  target/baseline/COMMIT-rustc-N/    sstp-gw; the last few are kept
//! ```

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use serde::Serialize;

use super::super::process;

/// Binaries that are kept, the one in use among them.
const KEPT: usize = 6;

/// A commit, or what stands on one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Revision {
    /// The commit, in full.
    pub commit: String,
    /// The first line of its message.
    pub subject: String,
    /// As it was asked for.
    pub name: String,
    /// There are changes to it that are not committed.
    pub is_dirty: bool,
}

impl Revision {
    /// The commit that git knows as `name`.
    pub(super) fn find(root: &Path, name: &str) -> io::Result<Self> {
        if let Some(clean) = name.strip_suffix("-dirty") {
            let message = format!(
                "{name} names a tree with changes that are not committed, which nobody can build again: \
                 commit them and name the commit, or name {clean}"
            );
            return Err(io::Error::other(message));
        }
        let commit = format!("{name}^{{commit}}");
        let arguments = ["rev-parse", "--verify", "--end-of-options", &commit];
        let commit = git(root, &arguments).map_err(|error| {
            io::Error::other(format!(
                "--baseline {name}: this repository has no such commit; `git log --oneline` lists them ({error})"
            ))
        })?;
        Self::of(root, commit.trim(), name)
    }

    /// What this tree is at.
    pub(super) fn here(root: &Path) -> io::Result<Self> {
        let here = Self::of(root, "HEAD", "this tree")?;
        let status = git(root, &["status", "--porcelain", "--untracked-files=no"])?;
        Ok(Self {
            is_dirty: !status.trim().is_empty(),
            ..here
        })
    }

    fn of(root: &Path, commit: &str, name: &str) -> io::Result<Self> {
        let said = git(root, &["log", "-1", "--format=%H%n%s", commit])?;
        let said = said.trim();
        let (commit, subject) = said.split_once('\n').unwrap_or((said, ""));
        Ok(Self {
            commit: commit.to_owned(),
            subject: subject.to_owned(),
            name: name.to_owned(),
            is_dirty: false,
        })
    }

    /// As a reader knows it.
    pub(super) fn short(&self) -> &str {
        self.commit.get(..10).unwrap_or(&self.commit)
    }

    /// Its `sstp-gw`, of the release profile that it has itself, by the compiler of this tree.
    pub(super) fn gateway(&self, root: &Path) -> io::Result<PathBuf> {
        let place = root.join("target/baseline");
        fs::create_dir_all(&place)?;
        // Held to the end of this function: two runs do not build in one place.
        let lock = File::create(place.join("lock"))?;
        lock.lock()?;
        let kept = place.join(format!("{}-{}", self.commit, compiler(root)?));
        let binary = kept.join("sstp-gw");
        if !binary.is_file() {
            let built = self.build(root, &place)?;
            fs::create_dir_all(&kept)?;
            let half = kept.join("sstp-gw.new");
            fs::copy(built, &half)?;
            fs::rename(half, &binary)?;
        }
        File::open(&kept)?.set_modified(SystemTime::now())?;
        prune(&place)?;
        Ok(binary)
    }

    fn build(&self, root: &Path, place: &Path) -> io::Result<PathBuf> {
        let (tree, target) = (place.join("tree"), place.join("build"));
        let tree_name = tree.to_string_lossy();
        // A run that was killed may have left it.
        let _ = fs::remove_dir_all(&tree);
        git(root, &["worktree", "prune"])?;
        let add = ["worktree", "add", "--detach", &tree_name, &self.commit];
        git(root, &add)?;
        eprintln!(
            "building the gateway of {}: minutes, the first time",
            self.short()
        );
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.current_dir(&tree);
        command.args(["build", "--release", "--locked", "-q", "-p", "gateway"]);
        let status = command.arg("--target-dir").arg(&target).status();
        git(root, &["worktree", "remove", "--force", &tree_name])?;
        let binary = target.join("release/sstp-gw");
        if status?.success() && binary.is_file() {
            return Ok(binary);
        }
        Err(io::Error::other(format!(
            "the gateway of {} ({}) cannot be built; cargo says why above",
            self.short(),
            self.subject
        )))
    }
}

/// The compiler's version, in a form that a directory may have.
fn compiler(root: &Path) -> io::Result<String> {
    let said = process::run(Command::new("rustc").arg("-vV").current_dir(root))?;
    Ok(version(&said))
}

fn version(said: &str) -> String {
    let release = said.lines().find_map(|line| line.strip_prefix("release: "));
    format!("rustc-{}", release.unwrap_or("unknown").trim())
}

/// Removes all but the binaries used last.
fn prune(place: &Path) -> io::Result<()> {
    let mut kept: Vec<(SystemTime, PathBuf)> = Vec::new();
    for entry in fs::read_dir(place)?.flatten() {
        if entry.file_name().to_string_lossy().contains("-rustc-") {
            kept.push((entry.metadata()?.modified()?, entry.path()));
        }
    }
    kept.sort();
    let superfluous = kept.len().saturating_sub(KEPT);
    for (_, path) in kept.iter().take(superfluous) {
        fs::remove_dir_all(path)?;
    }
    Ok(())
}

fn git(root: &Path, arguments: &[&str]) -> io::Result<String> {
    let mut command = Command::new("git");
    // As if called by hand there, whoever called us.
    for name in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"] {
        command.env_remove(name);
    }
    let said = process::run(command.arg("-C").arg(root).args(arguments));
    said.map_err(|error| {
        let text = error.to_string();
        let (_, why) = text.rsplit_once("\": ").unwrap_or(("", &text));
        let action = arguments.first().unwrap_or(&"");
        io::Error::other(format!("git {action}: {why}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A repository with one commit; `None`, said loudly, on a host without git.
    fn repository(name: &str) -> Option<PathBuf> {
        use std::io::Write as _;

        if process::find("git").is_none() {
            let said = format!("SKIPPED {name}: no git (Debian package git)");
            eprintln!("{said}");
            if let Some(path) = std::env::var_os("SSTP_GW_SKIPPED") {
                let mut file = fs::OpenOptions::new()
                    .create(true)
                    .append(true)
                    .open(path)
                    .unwrap();
                writeln!(file, "{said}").unwrap();
            }
            return None;
        }
        let root = std::env::temp_dir().join(format!("sstp-gw-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        fs::create_dir_all(&root).unwrap();
        git(&root, &["init", "-q"]).unwrap();
        fs::write(root.join("file"), "one").unwrap();
        git(&root, &["add", "file"]).unwrap();
        let who = [
            "-c",
            "user.name=x",
            "-c",
            "user.email=x@example.com",
            "-c",
            "commit.gpgsign=false",
        ];
        let commit = ["commit", "-q", "-m", "The first: \"quoted\"\n\nAnd why."];
        git(&root, &[&who[..], &commit[..]].concat()).unwrap();
        Some(root)
    }

    #[test]
    fn a_commit_is_found_by_every_name_and_told_in_full() {
        let Some(root) = repository("revision") else {
            return;
        };
        let head = Revision::find(&root, "HEAD").unwrap();
        assert_eq!(head.commit.len(), 40);
        assert_eq!(head.subject, "The first: \"quoted\"");
        let short = head.short().to_owned();
        let again = Revision::find(&root, &short).unwrap();
        assert_eq!((again.commit, again.name), (head.commit, short));
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn this_tree_says_what_is_not_committed() {
        let Some(root) = repository("dirty") else {
            return;
        };
        assert!(!Revision::here(&root).unwrap().is_dirty);
        fs::write(root.join("file"), "two").unwrap();
        assert!(Revision::here(&root).unwrap().is_dirty);
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn what_is_no_commit_is_refused_in_words() {
        let Some(root) = repository("refused") else {
            return;
        };
        let refused = |name: &str| Revision::find(&root, name).unwrap_err().to_string();
        let dirty = refused("f2d774f-dirty");
        assert!(
            dirty.contains("not committed") && dirty.ends_with("name f2d774f"),
            "{dirty}"
        );
        for name in ["", "no-such", "--all", "HEAD:file", "HEAD..HEAD"] {
            let why = refused(name);
            assert!(
                why.contains("no such commit") && why.contains("git log"),
                "{name}: {why}"
            );
        }
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn the_binaries_used_last_are_kept() {
        let place = std::env::temp_dir().join(format!("sstp-gw-kept-{}", std::process::id()));
        let _ = fs::remove_dir_all(&place);
        for age in 0..9 {
            let path = place.join(format!("{age}-rustc-1"));
            fs::create_dir_all(&path).unwrap();
            let at = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(100 - age);
            File::open(&path).unwrap().set_modified(at).unwrap();
        }
        fs::create_dir_all(place.join("build")).unwrap();
        prune(&place).unwrap();
        let has = |name: &str| place.join(name).exists();
        assert!(has("build") && has("0-rustc-1") && has("5-rustc-1") && !has("6-rustc-1"));
        fs::remove_dir_all(place).unwrap();
    }

    #[test]
    fn another_compiler_makes_another_binary() {
        assert_eq!(version("rustc 1.95.0\nrelease: 1.95.0\n"), "rustc-1.95.0");
        assert_eq!(version(""), "rustc-unknown");
    }
}
