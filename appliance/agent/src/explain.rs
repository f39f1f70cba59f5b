//! The way of a packet, told to people.

use mgmt_types::question::{Trace, TraceEnd, TraceOutcome, TraceRequest, TraceStep};
use pipeline::policy::{Action, Direction};
use pipeline::{
    DropReason, Encapsulation, Finding, FlowRecord, FlowTable, Frame, HEAD, Instant, PortIndex, Stage,
};

use crate::directory::{Directory, full_name};
use crate::probe::ProbeFrame;

/// Sends a packet that nobody sent through the pipeline. Nothing is changed by it.
pub(crate) fn trace(
    directory: &Directory,
    flows: &FlowTable,
    request: &TraceRequest,
    probe: &ProbeFrame,
    now: Instant,
) -> Trace {
    let mut head = [0; HEAD];
    let len = probe.bytes.len().min(HEAD);
    head[..len].copy_from_slice(&probe.bytes[..len]);
    let mut net = probe.net;
    let mut frame = Frame {
        head: &mut head,
        head_len: &mut (len as u16),
        len: &mut (probe.bytes.len() as u32),
        net: &mut net,
    };
    let found = pipeline::trace(&directory.snapshot, flows, probe.port, now, &mut frame);
    let mut steps: Vec<TraceStep> = Vec::new();
    for step in &found.steps {
        match (step.finding, steps.last_mut()) {
            // The firewall's refusal has been told with the rule that refuses.
            (Finding::Dropped(reason), Some(last))
                if step.stage == Stage::Firewall && !last.outcome.is_good() =>
            {
                last.reason = Some(reason.name().to_owned());
            }
            (finding, _) => steps.push(told(directory, step.stage, &finding)),
        }
    }
    let end = |address| {
        let holder = directory.holder(probe.network, address).map(|(_, port)| port);
        TraceEnd {
            port: holder.map(full_name),
            host: holder.map(|port| port.host.clone()),
            address,
            groups: directory.groups(directory.snapshot.endpoint_at(probe.network, address)),
        }
    };
    Trace {
        host: directory.slice.host.clone(),
        revision: directory.snapshot.revision(),
        source: end(probe.source),
        destination: end(probe.destination),
        network: directory.network(probe.network),
        service: request.service,
        outcome: steps.last().map_or(TraceOutcome::Dropped, |step| step.outcome),
        steps,
    }
}

fn told(directory: &Directory, stage: Stage, finding: &Finding) -> TraceStep {
    let name = |port: PortIndex| directory.port(port).map(full_name).unwrap_or_default();
    let mut step = TraceStep {
        stage: stage.name().to_owned(),
        outcome: TraceOutcome::Passed,
        reason: None,
        detail: None,
        rules: Vec::new(),
    };
    match finding {
        Finding::Passed => {}
        Finding::Dropped(reason) => {
            step.outcome = match reason {
                DropReason::PolicyReject => TraceOutcome::Rejected,
                _ => TraceOutcome::Dropped,
            };
            step.reason = Some(reason.name().to_owned());
            step.detail = Some(reason.meaning().trim().to_owned());
        }
        Finding::Answered => {
            step.outcome = TraceOutcome::Answered;
            step.detail = Some("the appliance answers by itself".to_owned());
        }
        Finding::Known(flow) => {
            step.rules = directory.rules_of(flow);
            step.detail = Some(format!("{}, judged already", known(flow)));
        }
        Finding::Stale(flow) => {
            step.detail = Some(format!("{}, judged at revision {}: asked again", known(flow), flow.revision));
        }
        Finding::New => step.detail = Some("begins a flow".to_owned()),
        Finding::Asked(answer) => {
            let does = match answer.direction {
                Direction::Out => "sends",
                Direction::In => "receives",
            };
            step.outcome = match answer.action {
                Action::Allow => TraceOutcome::Passed,
                Action::Drop => TraceOutcome::Dropped,
                Action::Reject => TraceOutcome::Rejected,
            };
            let mut detail = format!("what {} {does}", name(answer.port));
            match answer.rule {
                Some(rule) => step.rules.push(directory.rule_at(rule, answer.direction)),
                None => detail.push_str(": no rule of any policy matches"),
            }
            if let Some((rule, action)) = answer.would {
                let word = match action {
                    Action::Allow => "allow",
                    Action::Drop => "drop",
                    Action::Reject => "reject",
                };
                let rule = directory.rule_at(rule, answer.direction);
                detail.push_str(&format!("; in audit, {}/{} would {word}", rule.policy, rule.rule));
            }
            step.detail = Some(detail);
        }
        Finding::Excluded { port, .. } => {
            step.detail = Some(match directory.port(*port) {
                Some(entry) if entry.host != directory.slice.host => {
                    format!("{} is on host {}: asked there", name(*port), entry.host)
                }
                _ => format!("{} is excluded from the firewall", name(*port)),
            });
        }
        Finding::Routed(port) => {
            let to = directory.snapshot.port(*port).network();
            let router = directory.router_of(to).unwrap_or_default();
            let network = directory.network(to);
            step.detail = Some(format!("router {router} sends it to {} on network {network}", name(*port)));
        }
        Finding::Encapsulated(encapsulation) => step.detail = Some(header(directory, encapsulation)),
        Finding::Delivered(port) if !directory.snapshot.port(*port).is_local() => {
            step.outcome = TraceOutcome::Delivered;
            let host = directory.port(*port).map(|port| port.host.as_str()).unwrap_or_default();
            step.detail = Some(format!("to host {host}, which asks what {} receives", name(*port)));
        }
        Finding::Delivered(port) => {
            step.outcome = TraceOutcome::Delivered;
            step.detail = Some(format!("to {}", name(*port)));
        }
        Finding::Flooded => {
            step.outcome = TraceOutcome::Delivered;
            step.detail = Some("to every port of the network that admits it".to_owned());
        }
    }
    step
}

/// A tunnel header, in words.
fn header(directory: &Directory, encapsulation: &Encapsulation) -> String {
    let Encapsulation { host, header } = encapsulation;
    let mut text =
        format!("in GENEVE to host {}, VNI {}", directory.host(*host).unwrap_or_default(), header.vni);
    if let Some(identity) = header.identity {
        text.push_str(&format!(", identity {identity}"));
    }
    if let Some(port) = header.port {
        text.push_str(&format!(", port {port}"));
    }
    text
}

fn known(flow: &FlowRecord) -> String {
    let packets = flow.packets.iter().sum::<u64>();
    format!("belongs to a flow ({}, {packets} packets)", flow.state)
}
