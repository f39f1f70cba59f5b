//! Where a frame goes.

use crate::snapshot::mac_key;
use crate::{DropReason, Frame, Port, Snapshot, Verdict};

/// Looks the destination MAC up in the sender's network.
pub(crate) fn deliver(snapshot: &Snapshot, sender: &Port, frame: &Frame<'_>) -> Result<Verdict, DropReason> {
    if *frame.head_len < 14 {
        return Err(DropReason::Truncated);
    }
    let destination = mac_key(frame.head[0..6].first_chunk().unwrap_or(&[0; 6]));
    if frame.head[0] & 1 != 0 {
        return Ok(Verdict::Flood);
    }
    let port = snapshot.lookup(sender.network(), destination).ok_or(DropReason::UnknownDestination)?;
    Ok(Verdict::Deliver(port))
}
