//! How a port is attached to its workload.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Mistake;

/// How a port is attached to its workload.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Attach {
    /// A virtio-net device over a unix socket.
    VhostUser(VhostUser),
    /// A TAP device of the kernel.
    Tap(Tap),
}

/// A vhost-user socket.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VhostUser {
    /// Whether the appliance listens or connects.
    #[serde(default)]
    pub role: VhostRole,
    /// Absolute path of the socket; `<run-dir>/ports/<workload>.<port>.sock` when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket: Option<String>,
}

/// Who listens on a vhost-user socket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum VhostRole {
    /// The appliance listens, the VMM connects.
    #[default]
    Server,
    /// The VMM listens, the appliance connects and retries for ever.
    Client,
}

/// A TAP device.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Tap {
    /// Name of the device, at most 15 characters.
    #[schema(max_length = 15, example = "web-1.eth0")]
    pub device: String,
    /// Network namespace the device lives in: a name under `/run/netns` or an absolute path; the appliance's own when
    /// not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns: Option<String>,
}

/// `sockaddr_un.sun_path` less the terminating zero (unix(7)).
const MAX_SOCKET: usize = 107;

impl Attach {
    /// Adds what is wrong with it; `at` is the field it stands in.
    pub(crate) fn check(&self, found: &mut Vec<Mistake>, at: &str) {
        match self {
            Self::VhostUser(VhostUser { socket: Some(path), .. }) => {
                check_path(found, &format!("{at}.vhostUser.socket"), path, MAX_SOCKET);
            }
            Self::VhostUser(VhostUser { socket: None, .. }) => {}
            Self::Tap(tap) => check_tap(found, &format!("{at}.tap"), tap),
        }
    }
}

fn check_tap(found: &mut Vec<Mistake>, at: &str, tap: &Tap) {
    let device = &tap.device;
    // dev_valid_name() of the kernel, less what would need quoting in a shell.
    let well_formed = (1..=15).contains(&device.len())
        && device != "."
        && device != ".."
        && device.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    if !well_formed {
        found.push(
            Mistake::new(format!("{at}.device"), device, "1 to 15 characters from A-Z a-z 0-9 - _ .")
                .detail("the device name is not well formed"),
        );
    }
    match &tap.netns {
        Some(path) if path.starts_with('/') => check_path(found, &format!("{at}.netns"), path, 4095),
        Some(name)
            if name.is_empty()
                || name == "."
                || name == ".."
                || name.len() > 255
                || name.contains(['/', '\0']) =>
        {
            found.push(
                Mistake::new(
                    format!("{at}.netns"),
                    name,
                    "a name under /run/netns, or an absolute path such as /proc/1234/ns/net",
                )
                .detail("the network namespace is not well formed"),
            );
        }
        Some(_) | None => {}
    }
}

fn check_path(found: &mut Vec<Mistake>, field: &str, path: &str, max: usize) {
    let climbs = path.split('/').any(|part| part == "..");
    if !path.starts_with('/') || climbs || path.len() > max || path.contains('\0') {
        found.push(
            Mistake::new(field, path, format!("an absolute path without '..' of at most {max} bytes"))
                .detail("the path is not well formed"),
        );
    }
}
