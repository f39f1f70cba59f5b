//! What manager and agent say to each other: framing, slices, deltas, reports. Whatever comes, nothing panics, and no
//! delta leads to a slice other than it says.
#![no_main]

use arbitrary::{Arbitrary, Unstructured};
use libfuzzer_sys::fuzz_target;
use mgmt_types::agent::{HostStatus, SealedSlice, Slice, SliceDelta, SliceState, SliceVersion};
use mgmt_types::question::Asked;
use serde_json::{Value, json};

#[path = "../../../mgmt-api/client/src/sse.rs"]
mod sse;

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    slices: [Small; 3],
    /// Where a delta is said to begin.
    from: u8,
    /// Where the stream is cut.
    cut: u8,
    stream: &'a [u8],
}

/// A slice of few names, in which keys may come twice and numbers may name no group.
#[derive(Arbitrary, Debug)]
struct Small {
    revision: u8,
    networks: Vec<(u8, u16)>,
    ports: Vec<(u8, u8, u8)>,
    groups: Vec<u8>,
    in_order: bool,
    identities: Vec<(u8, Vec<u8>)>,
    policies: Vec<(u8, u8, Vec<u8>)>,
}

/// The most items of a section: enough for every kind of difference.
const ITEMS: usize = 6;

fn name(number: u8) -> String {
    format!("n{}", number % 8)
}

impl Small {
    fn slice(&self) -> SealedSlice {
        let mut groups: Vec<u8> = self.groups.iter().map(|group| group % 8).take(ITEMS).collect();
        if self.in_order {
            groups.sort_unstable();
            groups.dedup();
        }
        let networks = self.networks.iter().take(ITEMS).map(|(key, mtu)| {
            json!({ "name": name(*key), "vni": 1, "subnets": [], "gateways": [], "gatewayMac": "02:00:00:00:00:01", "mtu": mtu })
        });
        let ports = self.ports.iter().take(ITEMS).map(|(id, workload, identity)| {
            json!({
                "id": id % 8, "workload": name(*workload), "name": "e", "network": "n0", "host": "h",
                "mac": "02:00:00:00:00:02", "addresses": [], "attach": { "tap": { "device": "t" } }, "queues": 1,
                "identity": identity % 4,
            })
        });
        let identities = self.identities.iter().take(ITEMS).map(|(id, chosen)| {
            json!({ "id": id % 8, "groups": chosen.iter().take(4).map(|group| group % 8).collect::<Vec<_>>() })
        });
        let policies = self.policies.iter().take(ITEMS).map(|(key, priority, chosen)| {
            let peers: Vec<Value> = chosen.iter().take(4).map(|group| json!({ "group": group % 8 })).collect();
            json!({
                "name": name(*key), "revision": 1, "tier": "application", "priority": priority, "appliesTo": peers,
                "rules": [{ "id": 1, "name": "r", "action": "allow", "from": peers }],
            })
        });
        let value = json!({
            "revision": self.revision, "host": "h", "networks": networks.collect::<Vec<_>>(),
            "ports": ports.collect::<Vec<_>>(), "identities": identities.collect::<Vec<_>>(),
            "policies": policies.collect::<Vec<_>>(),
            "groups": groups.iter().map(|group| json!({ "name": name(*group) })).collect::<Vec<_>>(),
        });
        SealedSlice::new(serde_json::from_value::<Slice>(value).expect("a slice as it is written"))
    }
}

/// A delta that is taken leads where it says.
fn apply(slice: &SealedSlice, delta: &SliceDelta) -> Option<SealedSlice> {
    let next = slice.apply(delta).ok()?;
    assert_eq!(next.digest(), delta.digest);
    assert_eq!(next.slice().digest(), delta.digest);
    assert_eq!(next.slice().revision, delta.revision);
    Some(next)
}

fn events(stream: &[u8], cut: usize) -> Result<Vec<sse::Event>, sse::SseError> {
    let mut decoder = sse::Decoder::new(1 << 12);
    let mut events = Vec::new();
    let (head, tail) = stream.split_at(cut.min(stream.len()));
    decoder.feed(head, |event| events.push(event))?;
    decoder.feed(tail, |event| events.push(event))?;
    Ok(events)
}

fuzz_target!(|data: &[u8]| {
    let Ok(input) = Input::arbitrary_take_rest(Unstructured::new(data)) else { return };
    let [one, other, third] = input.slices.each_ref().map(Small::slice);
    if let Some(mut delta) = SliceDelta::between(&one, &other) {
        let text = serde_json::to_vec(&delta).expect("a delta can be written");
        assert_eq!(serde_json::from_slice::<SliceDelta>(&text).expect("what was written"), delta);
        if let Some(next) = apply(&one, &delta) {
            assert_eq!(next, other);
        }
        delta.from = input.from.into();
        apply(&third, &delta);
        delta.ports.remove.extend(third.slice().ports.iter().map(|port| port.id));
        apply(&third, &delta);
        delta.names.reverse();
        apply(&one, &delta);
    }

    let whole = events(input.stream, 0);
    assert_eq!(whole, events(input.stream, input.cut.into()), "the cut shows");
    for event in whole.into_iter().flatten() {
        if let Ok(state) = serde_json::from_str::<SliceState>(&event.data) {
            let (sealed, _) = state.seal();
            let _ = SliceDelta::between(&sealed, &one);
        }
        if let Ok(delta) = serde_json::from_str::<SliceDelta>(&event.data) {
            apply(&one, &delta);
        }
        let _ = serde_json::from_str::<Slice>(&event.data);
        let _ = serde_json::from_str::<SliceVersion>(&event.data);
        let _ = serde_json::from_str::<HostStatus>(&event.data);
        let _ = serde_json::from_str::<Asked>(&event.data);
    }
});
