//! Which of several queues a flow uses.

/// A hash of a frame's flow: addresses, protocol and ports, for IPv4 and IPv6 without options; else the MACs.
/// Frames of one flow, and fragments of one pair of hosts, always get the same value. Both directions of a flow may
/// differ. Not keyed: a guest that makes its flows collide loads one of the receiver's queues, which it can also do
/// with one flow.
pub(crate) fn flow_hash(head: &[u8]) -> u32 {
    /// ESP, TCP and UDP begin with 4 bytes that stay the same over a flow.
    fn has_ports(protocol: u8) -> bool {
        matches!(protocol, 6 | 17 | 50)
    }
    let mut hash = Mixer(0);
    match head.get(12..14) {
        Some([0x08, 0x00]) if head.len() >= 34 => {
            hash.add(&head[26..34]);
            hash.add(&head[23..24]);
            let whole = head[20] & 0x3f == 0 && head[21] == 0;
            let ports = 14 + usize::from(head[14] & 0x0f) * 4;
            if let Some(ports) = head.get(ports..ports + 4)
                && whole
                && has_ports(head[23])
            {
                hash.add(ports);
            }
        }
        Some([0x86, 0xdd]) if head.len() >= 54 => {
            hash.add(&head[22..54]);
            hash.add(&head[20..21]);
            if let Some(ports) = head.get(54..58)
                && has_ports(head[20])
            {
                hash.add(ports);
            }
        }
        _ => hash.add(&head[..head.len().min(12)]),
    }
    hash.finish()
}

/// Multiply and fold, eight bytes at a time.
struct Mixer(u64);

impl Mixer {
    fn add(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            let product =
                u128::from(self.0 ^ u64::from_le_bytes(word) ^ 0x9e37_79b9_7f4a_7c15) * 0xd6e8_feb8_6659_fd93;
            self.0 = product as u64 ^ (product >> 64) as u64;
        }
    }

    fn finish(self) -> u32 {
        (self.0 ^ (self.0 >> 32)) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp4(port: u16) -> Vec<u8> {
        let mut frame = vec![0; 60];
        frame[12..14].copy_from_slice(&[8, 0]);
        frame[14] = 0x45;
        frame[23] = 6;
        frame[26..34].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
        frame[34..36].copy_from_slice(&port.to_be_bytes());
        frame
    }

    fn tcp6(port: u16) -> Vec<u8> {
        let mut frame = vec![0; 80];
        frame[12..14].copy_from_slice(&[0x86, 0xdd]);
        frame[14] = 0x60;
        frame[20] = 6;
        frame[54..56].copy_from_slice(&port.to_be_bytes());
        frame
    }

    #[test]
    fn many_flows_use_every_queue_about_equally() {
        for make in [tcp4, tcp6] {
            let mut queues = [0u32; 4];
            for port in 0..4000 {
                queues[flow_hash(&make(port)) as usize % 4] += 1;
            }
            assert!(queues.iter().all(|&n| (800..1200).contains(&n)), "{queues:?}");
        }
    }

    #[test]
    fn payload_does_not_move_a_flow() {
        let mut frame = tcp4(80);
        let before = flow_hash(&frame);
        frame[50] = 9;
        assert_eq!(flow_hash(&frame), before);
    }

    #[test]
    fn all_fragments_of_two_hosts_go_one_way() {
        let fragment = |offset: u8, payload: u16| {
            let mut frame = tcp4(payload);
            (frame[20], frame[21]) = (0x20, offset);
            flow_hash(&frame)
        };
        assert_eq!(fragment(0, 80), fragment(9, 4711));
    }

    #[test]
    fn short_frames_have_a_hash_too() {
        for len in 0..60 {
            flow_hash(&tcp4(1)[..len]);
            flow_hash(&tcp6(1)[..len]);
        }
    }
}
