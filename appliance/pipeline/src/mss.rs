//! The largest segment that TCP announces, made to fit on the way (RFC 4459, section 3.2): for networks whose guests do not
//! hear of the path's MTU.

use wire::checksum;
use wire::vnet::NEEDS_CSUM;
use wire::{ethernet, ipv4, ipv6, tcp};

use crate::deliver::Target;
use crate::from_port::Context;
use crate::parse::{Fragment, Ip};
use crate::{Frame, HEAD, header};

/// Kind and length of the option (RFC 9293, section 3.2).
const OPTION: [u8; 2] = [2, 4];
/// The option that ends them all, and the one that fills.
const END: u8 = 0;
const NOTHING: u8 = 1;

/// Lowers what a SYN announces to what fits both ways, if one of the two networks asks for it.
#[cold]
pub(crate) fn clamp(context: &Context<'_>, frame: &mut Frame<'_>, ip: &Ip, target: &Target<'_>) {
    let asked = context.sender.clamps_mss() || target.port.clamps_mss();
    if !asked || ip.protocol != ipv4::TCP || ip.fragment != Fragment::Whole {
        return;
    }
    let at = ip.transport();
    if frame.head.get(at + tcp::FLAGS_OFFSET).is_none_or(|flags| flags & tcp::SYN == 0) {
        return;
    }
    let headers =
        ethernet::HEADER_LEN + if ip.v6 { ipv6::HEADER_LEN } else { ipv4::HEADER_LEN } + tcp::HEADER_LEN;
    let frame_len = context.sender.reach().min(target.port.reach());
    let most = frame_len.saturating_sub(headers as u32).min(u32::from(u16::MAX)) as u16;
    let Some(place) = option(frame.head, at, usize::from(*frame.head_len)) else { return };
    let old = header::word(frame.head, place);
    if old <= most {
        return;
    }
    header::put(frame.head, place, &most.to_be_bytes());
    // A checksum that is still open covers the option when it is finished.
    if frame.net[0] & NEEDS_CSUM != 0 {
        return;
    }
    // At an odd place the two bytes lie in two words, in the other order.
    let (old, new) = match (place - at) % 2 {
        0 => (old, most),
        _ => (old.swap_bytes(), most.swap_bytes()),
    };
    let sum = at + tcp::CHECKSUM_OFFSET;
    let updated = checksum::update(header::word(frame.head, sum), old, new);
    header::put(frame.head, sum, &updated.to_be_bytes());
}

/// Where the number lies in the head.
fn option(head: &[u8; HEAD], transport: usize, head_len: usize) -> Option<usize> {
    let words = usize::from(head.get(transport + tcp::DATA_OFFSET)? >> 4);
    let end = (transport + words * 4).min(head_len).min(HEAD);
    let mut at = transport + tcp::HEADER_LEN;
    loop {
        match head.get(at..end)? {
            [kind, len, _, _, ..] if [*kind, *len] == OPTION => return Some(at + 2),
            [END, ..] | [] => return None,
            [NOTHING, ..] => at += 1,
            [_, len, ..] if *len >= 2 => at += usize::from(*len),
            _ => return None,
        }
    }
}
