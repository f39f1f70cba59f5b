//! How a host is, and why it is not better.

use std::time::SystemTime;

use mgmt_types::HostState;
use mgmt_types::agent::PortStatus;

use super::Report;

/// Most faults of ports that are named; the others are counted.
const NAMED: usize = 5;

/// The condition of a host by its last report.
pub(super) fn of(report: Option<&Report>, now: SystemTime) -> (HostState, Vec<String>) {
    let Some(report) = report else {
        return (HostState::Unreachable, vec!["it has not spoken since this manager started".to_owned()]);
    };
    let reasons = reasons(report);
    if !report.is_fresh(now) {
        let since = humantime::format_rfc3339_seconds(report.seen);
        let silent = format!("it has not spoken since {since}");
        return (HostState::Unreachable, std::iter::once(silent).chain(reasons).collect());
    }
    let state = if reasons.is_empty() { HostState::Ready } else { HostState::Degraded };
    (state, reasons)
}

fn reasons(report: &Report) -> Vec<String> {
    let mut reasons: Vec<String> = report.status.error.iter().cloned().collect();
    let mut faulty: Vec<&PortStatus> = report.ports.values().filter(|port| !port.faults.is_empty()).collect();
    faulty.sort_by_key(|port| (&port.workload, &port.port));
    let faults = faulty
        .iter()
        .take(NAMED)
        .map(|port| format!("port {}.{}: {}", port.workload, port.port, port.faults.join("; ")));
    reasons.extend(faults);
    if faulty.len() > NAMED {
        reasons.push(format!("{} more ports with faults", faulty.len() - NAMED));
    }
    reasons
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mgmt_types::agent::HostStatus;

    use super::*;

    fn report(error: Option<&str>, faulty: u32) -> Report {
        let port = |id: u32| PortStatus {
            id,
            workload: format!("w-{id}"),
            port: "e".into(),
            faults: vec!["ring 0 stopped".into()],
            ..PortStatus::default()
        };
        let error = error.map(str::to_owned);
        Report {
            status: HostStatus { error, ..HostStatus::default() },
            ports: (1..=faulty).map(|id| (id, port(id))).collect(),
            rules: super::super::Counted::new(),
            seen: SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000),
            to: None,
            told: None,
        }
    }

    #[test]
    fn a_host_is_ready_when_nothing_is_wrong_and_says_all_that_is() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_001);
        assert_eq!(of(Some(&report(None, 0)), now), (HostState::Ready, Vec::new()));
        let (state, reasons) = of(Some(&report(Some("revision 7 is refused: no"), 7)), now);
        assert_eq!(state, HostState::Degraded);
        assert_eq!(reasons.len(), 7);
        assert_eq!(reasons[0], "revision 7 is refused: no");
        assert_eq!(reasons[1], "port w-1.e: ring 0 stopped");
        assert_eq!(reasons[6], "2 more ports with faults");
    }

    #[test]
    fn a_host_that_is_silent_is_unreachable_since_its_last_word() {
        let later = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_016);
        let (state, reasons) = of(Some(&report(Some("the disk is full"), 0)), later);
        assert_eq!(state, HostState::Unreachable);
        assert_eq!(reasons, ["it has not spoken since 1970-01-12T13:46:40Z", "the disk is full"]);
        let (state, reasons) = of(None, later);
        assert_eq!((state, reasons.len()), (HostState::Unreachable, 1));
    }
}
