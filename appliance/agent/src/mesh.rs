//! As whom this host speaks to its managers: as what joining left on disk says, renewed at half life.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mgmt_client::{Client, Membership};

use crate::board::Board;
use crate::identity;

/// The pause before the first look for what joining leaves; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause between two looks, and the pause between two looks at the certificate's age.
const PAUSE: Duration = Duration::from_secs(5);
/// The pause after a renewal that failed: there is half a life left.
const RETRY: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug)]
pub(crate) struct Mesh {
    pub(crate) host: String,
    pub(crate) state_dir: PathBuf,
    /// Managers to try instead of those that the host knows from joining; empty for those.
    pub(crate) managers: Vec<String>,
}

impl Mesh {
    /// Waits until this machine is a host; the board says while it is not.
    pub(crate) async fn client(&self, board: &Board) -> (Client, Membership) {
        let mut pause = FIRST_PAUSE;
        loop {
            let why = match self.read() {
                Ok(membership) => match Client::member(&membership) {
                    Ok(client) => return (client, membership),
                    Err(error) => error.to_string(),
                },
                Err(why) => why,
            };
            if pause == FIRST_PAUSE {
                log::warn!("no manager is followed: {why}");
            }
            board.set_silence(Some(format!("no manager is followed: {why}")));
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE);
        }
    }

    /// Gets the next certificate in time, and takes over what another joining leaves, for ever.
    pub(crate) async fn renew(&self, client: &Client, mut current: Membership) {
        let mut after = PAUSE;
        loop {
            tokio::time::sleep(after).await;
            after = PAUSE;
            if let Ok(kept) = self.read()
                && kept != current
            {
                current = self.speak_as(client, kept, current);
                continue;
            }
            let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
            if !current.is_due(client, now) {
                continue;
            }
            match client.renew(&current).await {
                Ok(fresh) => {
                    // Before it is used: a certificate that cannot be kept is no use after a restart.
                    match identity::keep(&self.state_dir, &fresh) {
                        Ok(()) => {
                            log::info!("host {} has a new certificate", self.host);
                            current = self.speak_as(client, fresh, current);
                        }
                        Err(error) => {
                            log::error!("a new certificate cannot be kept: {error}");
                            after = RETRY;
                        }
                    }
                }
                Err(error) => {
                    log::warn!("manager {}: no new certificate: {error}", client.url());
                    after = RETRY;
                }
            }
        }
    }

    fn speak_as(&self, client: &Client, fresh: Membership, before: Membership) -> Membership {
        match client.speak_as(&fresh) {
            Ok(()) => fresh,
            Err(error) => {
                log::error!("{error}");
                before
            }
        }
    }

    fn read(&self) -> Result<Membership, String> {
        let kept = identity::load(&self.state_dir).map_err(|error| error.to_string())?;
        let mut membership = kept.ok_or("this machine has not joined a mesh: see `palisade join`")?;
        if membership.host() != self.host {
            return Err(format!("this machine joined as host {}, not {}", membership.host(), self.host));
        }
        if !self.managers.is_empty() {
            membership.managers.clone_from(&self.managers);
        }
        Ok(membership)
    }
}
