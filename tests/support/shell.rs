//! Runs commands from the documents, as the user that owns PostgreSQL's files.

use std::fs;
use std::path::Path;

use super::postgres::{Cluster, SUPERUSER, SUPERUSER_PASSWORD};
use super::programs::{as_postgres, give_to_postgres, program};
use super::scratch::Folder;

/// A shell whose variables name the server and the folders.
#[derive(Debug)]
pub struct Shell {
    variables: Vec<(String, String)>,
    folder: Folder,
}

impl Shell {
    /// PostgreSQL's programs on this cluster, as its superuser, in a fresh folder.
    pub fn on(cluster: &Cluster) -> Shell {
        let folder = Folder::new("shell");
        give_to_postgres(folder.path());
        let bin = program("pg_ctl")
            .canonicalize()
            .expect("PostgreSQL's programs");
        let path = std::env::var("PATH").unwrap_or_default();
        let shell = Shell {
            variables: Vec::new(),
            folder,
        };
        let shell = shell.set(
            "PATH",
            format!("{}:{path}", bin.parent().expect("a folder").display()),
        );
        let shell = shell
            .set("PGHOST", "127.0.0.1")
            .set("PGPORT", cluster.port())
            .set("PGDATA", cluster.data().display());
        shell
            .set("PGUSER", SUPERUSER)
            .set("PGPASSWORD", SUPERUSER_PASSWORD)
    }

    /// Sets a variable, or replaces its value.
    pub fn set(mut self, name: &str, value: impl ToString) -> Shell {
        self.variables.retain(|(known, _)| known != name);
        self.variables.push((name.to_owned(), value.to_string()));
        self
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Runs commands up to the first that fails. It leaves out lines that export a variable, since
    /// the test sets those.
    ///
    /// # Panics
    /// When one fails; the message holds the output.
    #[track_caller]
    pub fn run(&self, commands: &str) -> String {
        let kept: Vec<&str> = commands
            .lines()
            .filter(|line| !line.starts_with("export "))
            .collect();
        // Into a file: a server started here keeps its output open, so a pipe would not end.
        let output = self.folder.path().join("output");
        let script = format!(
            "exec >>'{}' 2>&1 </dev/null\nset -eu\n{}\n",
            output.display(),
            kept.join("\n")
        );
        let mut command = as_postgres(&[], Path::new("/bin/sh"));
        command
            .args(["-c", &script])
            .envs(self.variables.iter().cloned())
            .current_dir(self.folder.path());
        let status = command.status().expect("a shell");
        let text = fs::read_to_string(output).unwrap_or_default();
        assert!(status.success(), "{commands}\n{status}\n{text}");
        text
    }
}
