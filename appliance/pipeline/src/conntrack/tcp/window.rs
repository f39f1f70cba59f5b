//! Which sequence and acknowledgement numbers a connection's ends can mean.
//!
//! The bounds are van Rooij's ("Real Stateful TCP Packet Filtering in IP Filter", 2001), seen from the middle of the
//! path: whoever stands there knows of each end what it sent at most, and what the other allowed it at most. With `S`
//! the sender and `R` the receiver of a segment:
//!
//! ```text
//!  I    end of segment <= S.max_end + 2                   R allowed it; or it probes a closed window with one byte and FIN
//!  II   end of segment >= S.end - R.max_win - 3           not older than what may still be missing, or a keepalive of it
//!  III  ack            <= R.end                           R has sent it
//!  IV   ack            >= R.end - 2 * S.max_win - 2       RFC 5961, section 5.2: a window behind what was acknowledged
//! ```

/// Bytes that may stand beyond an announced window: one that probes whether it is still closed, and FIN behind it.
const PROBE: u32 = 2;
/// How far a keepalive or window probe without data stays behind what is expected (RFC 9293, section 3.8.4).
const KEEPALIVE: u32 = 1;
/// The largest window there is: 65535 shifted by 14.
pub(crate) const MAX_WINDOW: u32 = 0xffff << super::segment::MAX_SCALE;
/// The most that an acknowledgement may lie behind: a quarter of all numbers, so that "behind" keeps its meaning.
const MAX_BEHIND: u32 = 1 << 30;

/// What one end of a connection has sent, may send, and takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// The sequence number behind the last it sent, SYN and FIN included.
    pub end: u32,
    /// The sequence number up to which its peer ever allowed it to send.
    pub max_end: u32,
    /// The largest window it announced, in bytes, scaled.
    pub max_win: u32,
    /// How far its windows are to be shifted.
    pub scale: u8,
}

/// Whether `x` is one of the numbers from `low` to `high`, both included, on the circle of sequence numbers.
#[inline]
pub(crate) const fn within(x: u32, low: u32, high: u32) -> bool {
    x.wrapping_sub(low) <= high.wrapping_sub(low)
}

/// The later of two numbers that lie less than half the circle apart.
#[inline]
pub(crate) const fn later(one: u32, other: u32) -> u32 {
    if (other.wrapping_sub(one) as i32) > 0 { other } else { one }
}

/// I and II: whether the receiver can still want a segment that ends at `end`.
#[inline]
pub(crate) const fn wanted(sender: &Window, receiver: &Window, end: u32) -> bool {
    let low = sender.end.wrapping_sub(receiver.max_win).wrapping_sub(PROBE + KEEPALIVE);
    within(end, low, sender.max_end.wrapping_add(PROBE))
}

/// III and IV: whether the sender can mean `ack`, given that the receiver has sent no more than up to `sent`.
#[inline]
pub(crate) const fn meant(sender: &Window, receiver: &Window, sent: u32, ack: u32) -> bool {
    let behind = sender.max_win.saturating_mul(2).saturating_add(PROBE);
    let behind = if behind < MAX_BEHIND { behind } else { MAX_BEHIND };
    within(ack, receiver.end.wrapping_sub(behind), sent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_lie_on_a_circle() {
        assert!(within(5, 5, 5) && within(1, u32::MAX, 1) && within(u32::MAX, u32::MAX - 1, 3));
        assert!(!within(4, 5, 5) && !within(2, u32::MAX, 1) && !within(u32::MAX - 2, u32::MAX - 1, 3));
        assert_eq!((later(1, 2), later(2, 1), later(u32::MAX, 3), later(3, u32::MAX)), (2, 2, 3, 3));
    }

    #[test]
    fn each_bound_holds_to_the_byte() {
        for base in [1000_u32, 0, u32::MAX - 500, 1 << 31] {
            let at = |offset: i32| base.wrapping_add_signed(offset);
            let sender = Window { end: at(0), max_end: at(300), max_win: 50, scale: 0 };
            let receiver = Window { max_win: 100, ..sender };
            assert!(wanted(&sender, &receiver, at(302)), "I");
            assert!(!wanted(&sender, &receiver, at(303)), "I");
            assert!(wanted(&sender, &receiver, at(-103)), "II");
            assert!(!wanted(&sender, &receiver, at(-104)), "II");
            let meant = |ack: i32| meant(&sender, &receiver, at(0), at(ack));
            assert!(meant(0) && !meant(1), "III");
            assert!(meant(-102) && !meant(-103), "IV");
        }
    }

    #[test]
    fn the_largest_windows_leave_half_of_all_numbers_out() {
        let open = Window { end: 0, max_end: MAX_WINDOW, max_win: MAX_WINDOW, scale: 14 };
        assert!(!wanted(&open, &open, 1 << 31) && !meant(&open, &open, 0, 1 << 31));
    }
}
