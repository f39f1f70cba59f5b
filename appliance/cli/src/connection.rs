//! Finding the manager: flags, then environment, then the state directory of this machine.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use mgmt_client::{Client, Endpoint};

use crate::directories::{self, StateDir};
use crate::failure::Failure;

/// Where a manager listens unless told otherwise.
pub(crate) const URL: &str = "https://127.0.0.1:7470";

/// Where the manager is and how to be let in. What is not given comes from the state directory.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct ConnectionArgs {
    /// The manager's URL, https://host:port
    #[arg(long, env = "PALISADE_URL", value_name = "URL")]
    url: Option<String>,
    /// Bearer token; others on this machine can read it from a command line, so prefer the environment or a file
    /// [env: PALISADE_TOKEN]
    #[arg(long, value_name = "TOKEN", conflicts_with = "token_file")]
    token: Option<String>,
    /// File with the bearer token [env: PALISADE_TOKEN_FILE]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// PEM file with the authority that signed the manager's certificate
    #[arg(long, env = "PALISADE_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
    #[command(flatten)]
    state_dir: StateDir,
}

impl ConnectionArgs {
    /// A client; no connection is made yet.
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        Ok(Client::connect(&self.endpoint()?)?)
    }

    /// The state directory of this machine.
    pub(crate) fn state_dir(&self) -> &StateDir {
        &self.state_dir
    }

    /// The manager's address, token and authority.
    pub(crate) fn endpoint(&self) -> Result<Endpoint, Failure> {
        self.endpoint_in(|name| std::env::var_os(name).filter(|value| !value.is_empty()))
    }

    fn endpoint_in(&self, environment: impl Fn(&str) -> Option<OsString>) -> Result<Endpoint, Failure> {
        let state_dir = &self.state_dir.absolute()?;
        let url = match &self.url {
            Some(url) => url.clone(),
            None => std::fs::read_to_string(directories::url(state_dir))
                .map_or_else(|_| URL.to_owned(), |url| url.trim().to_owned()),
        };
        // What was typed goes before the environment: that is why the two are not left to clap.
        let (typed, from_environment) = (&self.token, environment("PALISADE_TOKEN"));
        let token = match (typed, &self.token_file, from_environment, environment("PALISADE_TOKEN_FILE")) {
            (Some(token), ..) => token.clone(),
            (None, Some(file), ..) => read("the token", file, "--token-file names it")?,
            (None, None, Some(token), _) => token.to_string_lossy().into_owned(),
            (None, None, None, Some(file)) => {
                read("the token", Path::new(&file), "PALISADE_TOKEN_FILE names it")?
            }
            (None, None, None, None) => read(
                "the token",
                &directories::admin_token(state_dir),
                "give one with PALISADE_TOKEN or --token-file, or run this as the user that runs the manager",
            )?,
        };
        let ca_pem = match &self.ca {
            Some(file) => read("the manager's authority", file, "--ca or PALISADE_CA names it")?,
            None => read(
                "the manager's authority",
                &directories::ca(state_dir),
                "copy ca.pem from the manager's state directory and name it with --ca or PALISADE_CA",
            )?,
        };
        Ok(Endpoint { url, token: token.trim().to_owned(), ca_pem })
    }
}

fn read(what: &str, file: &Path, advice: &str) -> Result<String, Failure> {
    std::fs::read_to_string(file).map_err(|error| {
        Failure::new(format!("{what} cannot be read: {}: {error}\n  {advice}", file.display()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(state_dir: &Path) -> ConnectionArgs {
        ConnectionArgs {
            url: None,
            token: None,
            token_file: None,
            ca: None,
            state_dir: StateDir::at(state_dir),
        }
    }

    #[test]
    fn the_state_directory_fills_in_what_is_not_given() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("admin.token"), "secret\n").expect("writes");
        std::fs::write(dir.path().join("ca.pem"), "PEM").expect("writes");
        let endpoint = |args: &ConnectionArgs| args.endpoint_in(|_| None).expect("all is there");

        let found = endpoint(&arguments(dir.path()));
        assert_eq!((&*found.url, &*found.token, &*found.ca_pem), (URL, "secret", "PEM"));

        std::fs::write(dir.path().join("manager.url"), "https://127.0.0.1:9\n").expect("writes");
        assert_eq!(endpoint(&arguments(dir.path())).url, "https://127.0.0.1:9");

        let given = ConnectionArgs {
            url: Some("https://m:1".into()),
            token: Some("other".into()),
            ..arguments(dir.path())
        };
        let found = endpoint(&given);
        assert_eq!((&*found.url, &*found.token), ("https://m:1", "other"));
    }

    #[test]
    fn what_is_typed_goes_before_the_environment() {
        let dir = tempfile::tempdir().expect("a directory");
        for (name, text) in
            [("ca.pem", "PEM"), ("admin.token", "admin"), ("a", "typed file"), ("b", "other file")]
        {
            std::fs::write(dir.path().join(name), text).expect("writes");
        }
        let nothing = arguments(dir.path());
        let file = ConnectionArgs { token_file: Some(dir.path().join("a")), ..nothing.clone() };
        let token = ConnectionArgs { token: Some("typed".into()), ..nothing.clone() };
        let only_file = |name: &str| (name == "PALISADE_TOKEN_FILE").then(|| dir.path().join("b").into());
        let both = |name: &str| match name {
            "PALISADE_TOKEN" => Some("environment".into()),
            _ => only_file(name),
        };
        let token_of = |found: Result<Endpoint, Failure>| found.expect("all is there").token;
        assert_eq!(token_of(token.endpoint_in(both)), "typed");
        assert_eq!(token_of(file.endpoint_in(both)), "typed file");
        assert_eq!(token_of(nothing.endpoint_in(both)), "environment");
        assert_eq!(token_of(nothing.endpoint_in(only_file)), "other file");
        assert_eq!(token_of(nothing.endpoint_in(|_| None)), "admin");
    }

    #[test]
    fn a_missing_token_says_where_it_was_looked_for_and_what_to_do() {
        let dir = tempfile::tempdir().expect("a directory");
        let failure = arguments(dir.path()).endpoint_in(|_| None).expect_err("nothing is there");
        assert!(failure.text().contains("admin.token"), "{}", failure.text());
        assert!(failure.text().contains("PALISADE_TOKEN"), "{}", failure.text());
    }
}
