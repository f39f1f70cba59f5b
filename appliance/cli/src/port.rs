//! One port of a workload, as the manager reports it.

use mgmt_types::agent::Link;
use mgmt_types::{Attach, Enforced, PortReport, VhostRole, Workload, WorkloadReport};

use crate::failure::Failure;

/// The report on a port.
pub(crate) fn report<'a>(status: &'a WorkloadReport, port: &str) -> Option<&'a PortReport> {
    status.ports.iter().find(|report| report.name == port)
}

/// Whether a port carries traffic, in one word; `unknown` when its host is silent.
pub(crate) fn link(report: &PortReport, status: &WorkloadReport) -> &'static str {
    match report.link {
        _ if !status.connected => "unknown",
        None => "unknown",
        Some(Link::Up) => "up",
        Some(Link::Down) => "down",
        Some(Link::Waiting) => "waiting",
    }
}

/// False for a port that is broken, or that nothing is enforced on, or of which nobody can say.
pub(crate) fn is_sound((report, status): (&PortReport, &WorkloadReport)) -> bool {
    report.faults.is_empty()
        && report.enforced == Enforced::Yes
        && matches!(link(report, status), "up" | "waiting")
}

/// How a port is attached, in words.
pub(crate) fn attachment(report: &PortReport) -> String {
    match &report.attach {
        Attach::VhostUser(vhost) => {
            let verb = match vhost.role {
                VhostRole::Server => "listens on",
                VhostRole::Client => "connects to",
            };
            let socket = vhost.socket.as_deref().or(report.details.get("socket").map(String::as_str));
            format!("vhost-user, {verb} {}", socket.unwrap_or("its socket in the run directory"))
        }
        Attach::Tap(tap) => match &tap.netns {
            Some(netns) => format!("TAP device {} in network namespace {netns}", tap.device),
            None => format!("TAP device {}", tap.device),
        },
    }
}

/// `WORKLOAD` or `WORKLOAD.PORT`, as people name ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PortName {
    /// Name of the workload.
    pub(crate) workload: String,
    /// Name of the port; may be left out when there is one only.
    pub(crate) port: Option<String>,
}

impl std::str::FromStr for PortName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (workload, port) = match text.split_once('.') {
            Some((workload, port)) => (workload, Some(port)),
            None => (text, None),
        };
        mgmt_types::name::check(workload).map_err(|error| format!("the workload's name {error}"))?;
        if let Some(port) = port {
            mgmt_types::name::check_port(port).map_err(|error| format!("the port's name {error}"))?;
        }
        Ok(Self { workload: workload.to_owned(), port: port.map(str::to_owned) })
    }
}

impl PortName {
    /// The port meant, of its workload.
    pub(crate) fn choose<'a>(&self, workload: &'a Workload) -> Result<&'a PortReport, Failure> {
        let reports = workload.status.as_ref().map(|status| status.ports.as_slice()).unwrap_or_default();
        let names = || reports.iter().map(|report| report.name.as_str()).collect::<Vec<_>>().join(", ");
        match (&self.port, reports) {
            (_, []) => Err(Failure::new(format!("Workload/{} has no ports", self.workload))),
            (Some(name), _) => reports.iter().find(|report| report.name == *name).ok_or_else(|| {
                Failure::new(format!(
                    "Workload/{} has no port {name}\n  expected  one of: {}",
                    self.workload,
                    names()
                ))
            }),
            (None, [only]) => Ok(only),
            (None, _) => Err(Failure::new(format!(
                "Workload/{} has several ports\n  expected  {}.PORT with one of: {}",
                self.workload,
                self.workload,
                names()
            ))),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use mgmt_types::Resource;

    use super::*;

    /// A workload with two ports as the manager would send it.
    pub(crate) fn workload() -> Workload {
        let resource: Resource = serde_json::from_str(
            r#"{"kind": "Workload", "name": "web-1", "revision": 3, "labels": {"app": "shop"},
                "spec": {"host": "host-a", "kind": "vm", "ports": [
                    {"name": "eth0", "network": "blue", "addresses": ["10.0.1.11"]},
                    {"name": "eth1", "network": "red"}]},
                "status": {"host": "host-a", "connected": true, "groups": ["shop", "web"],
                 "policies": ["shop", "baseline"], "enforced": "partly", "ports": [
                    {"name": "eth0", "id": 1, "mac": "52:54:00:00:00:01", "addresses": ["10.0.1.11", "fd00:1::11"],
                     "attach": {"vhostUser": {"role": "server"}}, "queues": 1, "mtu": 1500, "link": "up",
                     "enforced": "yes", "flows": 12, "flowLimit": 1000,
                     "faults": ["ring 0 stopped"], "fromGuest": {"packets": 100, "bytes": 6000},
                     "toGuest": {"packets": 200, "bytes": 12000}, "drops": {"spoofed-mac": 4, "no-buffer": 3},
                     "details": {"socket": "/run/palisade/ports/web-1.eth0.sock", "features": "csum mrg-rxbuf"}},
                    {"name": "eth1", "id": 2, "mac": "52:54:00:00:00:02", "addresses": [],
                     "attach": {"tap": {"device": "web-1.eth1", "netns": "blue"}}, "queues": 2, "mtu": 9000,
                     "enforced": "no", "link": "waiting"}]}}"#,
        )
        .expect("a workload");
        let Resource::Workload(workload) = resource else { unreachable!("it says so") };
        workload
    }

    fn name(text: &str) -> PortName {
        text.parse().expect("a good name")
    }

    #[test]
    fn a_port_is_named_by_its_workload_when_it_is_the_only_one() {
        let mut workload = workload();
        assert_eq!(name("web-1.eth1").choose(&workload).expect("is there").id, 2);
        let failure = name("web-1").choose(&workload).expect_err("there are two");
        assert!(failure.text().contains("eth0, eth1"), "{}", failure.text());
        let failure = name("web-1.eth7").choose(&workload).expect_err("there is none");
        assert!(failure.text().contains("eth0, eth1"), "{}", failure.text());
        if let Some(status) = &mut workload.status {
            status.ports.truncate(1);
        }
        assert_eq!(name("web-1").choose(&workload).expect("is there").id, 1);
    }

    #[test]
    fn what_cannot_name_a_port_is_refused() {
        for text in ["", ".", "web-1.", ".eth0", "Web", "a.b.c", "a/b"] {
            assert!(text.parse::<PortName>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_link_of_a_silent_host_is_unknown() {
        let mut status = workload().status.expect("a status");
        assert_eq!(link(&status.ports[0], &status), "up");
        status.connected = false;
        assert_eq!(link(&status.ports[0], &status), "unknown");
    }

    #[test]
    fn an_attachment_names_socket_or_device() {
        let status = workload().status.expect("a status");
        let text: Vec<String> = status.ports.iter().map(attachment).collect();
        assert_eq!(text[0], "vhost-user, listens on /run/palisade/ports/web-1.eth0.sock");
        assert_eq!(text[1], "TAP device web-1.eth1 in network namespace blue");
    }
}
