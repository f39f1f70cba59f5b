//! How long a flow is kept without a packet.

/// Nanoseconds in a second.
const SECOND: u64 = 1_000_000_000;

macro_rules! classes {
    ($($(#[doc = $doc:literal])+ $variant:ident, $field:ident = $seconds:literal,)+) => {
        /// Flows that wait equally long for their next packet.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Class { $($(#[doc = $doc])+ $variant,)+ }

        impl Class {
            /// Every class, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The name of its field in [`Timeouts`].
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => stringify!($field),)+ }
            }
        }

        /// How long a flow is kept without a packet: seconds, by class.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct Timeouts { $($(#[doc = $doc])+ pub $field: u32,)+ }

        impl Default for Timeouts {
            fn default() -> Self {
                Self { $($field: $seconds,)+ }
            }
        }

        impl Timeouts {
            /// The timeout of a class, in seconds.
            #[inline]
            pub const fn of(&self, class: Class) -> u32 {
                match class { $(Class::$variant => self.$field,)+ }
            }
        }
    };
}

classes! {
    /// TCP that asks or has been answered, not yet agreed. RFC 5382 REQ-5: transitory, not below 4 minutes. What fills
    /// a table with it is evicted, not timed out.
    TcpOpening, tcp_opening = 240,
    /// TCP under way. RFC 5382 REQ-5: not below 2 h 4 min, which is two hours to the first keepalive (RFC 9293, 3.8.4)
    /// and some for its answer.
    TcpEstablished, tcp_established = 7440,
    /// TCP of which one end is done. RFC 5382 has no number for it: longer than its transitory 4 minutes, as the other
    /// end may compute for long what it then sends; shorter than established, as an end that is done and then forgets
    /// the connection says nothing more.
    TcpHalfClosed, tcp_half_closed = 900,
    /// TCP of which both ends are done, with something not acknowledged. RFC 5382 REQ-5: transitory, not below
    /// 4 minutes.
    TcpClosing, tcp_closing = 240,
    /// TCP that is over, kept for retransmissions of the last FIN. Linux waits 60 seconds, of the 2 MSL that RFC 9293
    /// (3.4.2) puts at 4 minutes; a SYN ends it at once.
    TcpTimeWait, tcp_time_wait = 60,
    /// TCP that was reset or refused, kept for what was under way: a round trip or two.
    TcpReset, tcp_reset = 10,
    /// UDP that nobody has answered. RFC 4787 REQ-5 asks 2 minutes of a NAT, whose mapping is lost with the entry; here
    /// the initiator's next datagram opens another, and only an answer later than this is refused.
    UdpUnreplied, udp_unreplied = 30,
    /// UDP that was answered: most often one question. RFC 4787 REQ-5: not below 2 minutes.
    UdpReplied, udp_replied = 120,
    /// UDP whose initiator went on after an answer. RFC 4787 REQ-5 recommends 5 minutes or more.
    UdpStream, udp_stream = 300,
    /// ICMP echo and other queries. RFC 5508 REQ-1: not below 60 seconds.
    IcmpQuery, icmp_query = 60,
    /// SCTP and every other protocol, not answered: as UDP.
    OtherUnreplied, other_unreplied = 30,
    /// SCTP and every other protocol, answered. SCTP sends a heartbeat every 30 seconds (RFC 9260, section 16); IPsec
    /// and tunnels may be silent for long, and have no end that one could see.
    OtherReplied, other_replied = 600,
}

impl Timeouts {
    /// The timeout of a class, in nanoseconds.
    #[inline]
    pub const fn nanos(&self, class: Class) -> u64 {
        self.of(class) as u64 * SECOND
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_timeout_is_below_what_its_rfc_asks() {
        let timeouts = Timeouts::default();
        for (class, least) in [
            (Class::TcpOpening, 4 * 60),
            (Class::TcpEstablished, 2 * 3600 + 4 * 60),
            (Class::TcpHalfClosed, 4 * 60),
            (Class::TcpClosing, 4 * 60),
            (Class::UdpReplied, 2 * 60),
            (Class::UdpStream, 5 * 60),
            (Class::IcmpQuery, 60),
        ] {
            assert!(timeouts.of(class) >= least, "{class:?}");
        }
        assert_eq!(timeouts.nanos(Class::IcmpQuery), 60_000_000_000);
    }

    #[test]
    fn each_class_has_its_own_setting() {
        for (number, class) in Class::ALL.iter().enumerate() {
            assert_eq!(*class as usize, number);
            assert_eq!(Timeouts::default().of(*class) as u64 * SECOND, Timeouts::default().nanos(*class));
        }
        let timeouts = Timeouts { tcp_reset: 3, ..Timeouts::default() };
        assert_eq!((timeouts.of(Class::TcpReset), timeouts.of(Class::TcpClosing)), (3, 240));
        assert_eq!(Class::TcpReset.name(), "tcp_reset");
    }
}
