//! A copy of all that a manager keeps, out and in.

use std::io::Write;
use std::time::Duration;

use http::Method;
use http_body_util::BodyExt;
use mgmt_types::Restored;

use crate::Error;
use crate::client::{Body, Client};

/// How long a restore may take: the manager reads all of it, then writes all of it.
const RESTORE: Duration = Duration::from_secs(60);

impl Client {
    /// Writes a backup of all that the manager keeps to `to`. It is worth something only when this returns in good order.
    ///
    /// # Errors
    /// When the manager cannot be reached or refuses, the backup breaks off, or `to` cannot be written.
    pub async fn backup(&self, mut to: impl Write) -> Result<(), Error> {
        let request = self.request(Method::GET, "/v1/backup", None)?;
        let path = request.uri().path().to_owned();
        let broken = |reason: String| Error::Body { path: path.clone(), reason };
        let mut body = self.open(request).await?.into_body();
        let silence = self.timeouts().silence;
        let mut tail: Vec<u8> = Vec::new();
        loop {
            let frame = tokio::time::timeout(silence, body.frame()).await;
            let frame = frame.map_err(|_| Error::Silent { path: path.clone(), after: silence })?;
            let Some(frame) = frame else { break };
            let frame = frame.map_err(|error| broken(error.to_string()))?;
            let Ok(data) = frame.into_data() else { continue };
            to.write_all(&data).map_err(|error| broken(error.to_string()))?;
            tail.extend_from_slice(&data);
            let keep = tail.len().saturating_sub(END);
            tail.drain(..keep);
        }
        to.flush().map_err(|error| broken(error.to_string()))?;
        let last = tail.strip_suffix(b"\n").and_then(|tail| tail.rsplit(|byte| *byte == b'\n').next());
        if last.is_some_and(|line| line.starts_with(b"{\"end\":")) {
            return Ok(());
        }
        Err(broken("it breaks off before its end; the manager's log says why".to_owned()))
    }

    /// Puts a backup in the place of all that the manager keeps; with `force` also of what is newer, with `keep_tokens`
    /// without the tokens.
    ///
    /// # Errors
    /// When the manager cannot be reached or refuses.
    pub async fn restore(&self, backup: Vec<u8>, force: bool, keep_tokens: bool) -> Result<Restored, Error> {
        let path = format!("/v1/restore?force={force}&keepTokens={keep_tokens}");
        let body = Body::raw("application/x-ndjson", backup);
        let request = self.request(Method::POST, &path, Some(body))?;
        self.json_within(RESTORE, request).await
    }
}

/// More than the last line of a backup is long, in bytes.
const END: usize = 512;
