//! `palisade port`

use std::io::IsTerminal;
use std::path::Path;

use clap::Subcommand;
use mgmt_types::{Attach, Kind, PortReport, Resource};
use serde::Serialize;

use crate::connection::ConnectionArgs;
use crate::directories::RunDir;
use crate::failure::Failure;
use crate::output::{self, Format, OutputArgs};
use crate::port::PortName;
use crate::vmm::{Arguments, Nic, Vmm};

/// Work with single ports
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Attach(Attachment),
}

/// Print what a VMM needs to plug a port in: arguments on stdout, remarks on stderr
///
/// Without a terminal the arguments come one to a line, ready for a script: qemu-system-x86_64 … $(palisade port
/// attach web-1). For a TAP port it prints device and network namespace.
#[derive(Debug, clap::Args)]
pub(crate) struct Attachment {
    /// WORKLOAD, or WORKLOAD.PORT when it has several ports
    #[arg(value_name = "WORKLOAD[.PORT]")]
    name: PortName,
    /// Arguments for qemu-system-* (the default)
    #[arg(long, group = "vmm")]
    qemu: bool,
    /// Arguments for cloud-hypervisor
    #[arg(long, group = "vmm")]
    cloud_hypervisor: bool,
    /// XML for a libvirt domain
    #[arg(long, group = "vmm")]
    libvirt: bool,
    /// Memory of the guest, which has to be shared: a number with K, M or G
    #[arg(long, value_name = "SIZE", default_value = "1G", value_parser = memory)]
    memory: String,
    #[command(flatten)]
    run_dir: RunDir,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// What programs get of a TAP port.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Device<'a> {
    device: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    netns: Option<&'a str>,
    mac: String,
    mtu: u16,
    addresses: Vec<String>,
}

pub(crate) async fn run(command: Command) -> Result<(), Failure> {
    let Command::Attach(args) = command;
    let client = args.connection.client()?;
    let Resource::Workload(workload) = client.get(Kind::Workload, &args.name.workload).await? else {
        return Err(Failure::new(format!("the manager sent no workload for {}", args.name.workload)));
    };
    let report = args.name.choose(&workload)?;
    let vhost = match &report.attach {
        Attach::VhostUser(vhost) => vhost,
        Attach::Tap(tap) => return tap_port(args.output.format, report, &tap.device, tap.netns.as_deref()),
    };
    let nic = Nic {
        id: format!("{}-{}", workload.name, report.name),
        socket: socket(report, vhost.socket.as_deref(), &args.run_dir.absolute()?, &workload.name),
        role: vhost.role,
        mac: report.mac,
        mtu: report.mtu,
        queues: report.queues,
        memory: args.memory.clone(),
    };
    let vmm = match (args.cloud_hypervisor, args.libvirt) {
        (true, _) => Vmm::CloudHypervisor,
        (_, true) => Vmm::Libvirt,
        (false, false) => Vmm::Qemu,
    };
    let arguments = vmm.arguments(&nic);
    if args.output.format == Format::Table {
        arguments.remarks.iter().for_each(|remark| output::remark(&format!("# {remark}")));
    }
    output::result(args.output.format, &arguments, || text(&arguments, std::io::stdout().is_terminal()))
}

/// The socket: as declared, else as its host says, else where it lies by default.
fn socket(report: &PortReport, declared: Option<&str>, run_dir: &Path, workload: &str) -> String {
    let known = declared.or(report.details.get("socket").map(String::as_str));
    known.map_or_else(
        || agent::socket_path(run_dir, workload, &report.name).display().to_string(),
        str::to_owned,
    )
}

fn text(arguments: &Arguments, terminal: bool) -> String {
    if let Some(xml) = &arguments.xml {
        return xml.clone();
    }
    let separator = if terminal { " \\\n" } else { "\n" };
    format!("{}\n", arguments.lines().join(separator))
}

fn tap_port(format: Format, report: &PortReport, device: &str, netns: Option<&str>) -> Result<(), Failure> {
    let value = Device {
        device,
        netns,
        mac: report.mac.to_string(),
        mtu: report.mtu,
        addresses: report.addresses.iter().map(ToString::to_string).collect(),
    };
    if format == Format::Table {
        output::remark("# a TAP device; the agent makes it and keeps it up, nothing has to be attached");
    }
    output::result(format, &value, || {
        let netns = netns.unwrap_or("the agent's own");
        output::facts(
            0,
            &[
                ("device", device.to_owned()),
                ("netns", netns.to_owned()),
                ("mac", value.mac.clone()),
                ("mtu", value.mtu.to_string()),
                ("addresses", output::or_dash(value.addresses.join(","))),
            ],
        )
    })
}

/// Checks `512M`, `2G`, as QEMU and cloud-hypervisor both read it.
fn memory(text: &str) -> Result<String, String> {
    let digits = text.trim_end_matches(['K', 'M', 'G']);
    let good = text.len() - digits.len() <= 1 && digits.parse::<u64>().is_ok_and(|number| number > 0);
    if good {
        Ok(text.to_owned())
    } else {
        Err("expected a number with K, M or G, such as 512M or 2G".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_is_declared_or_reported_or_where_it_lies_by_default() {
        let status = crate::port::tests::workload().status.expect("a status");
        let mut report = status.ports[0].clone();
        let run_dir = Path::new("/run/other");
        assert_eq!(socket(&report, Some("/tmp/x"), run_dir, "web-1"), "/tmp/x");
        assert_eq!(socket(&report, None, run_dir, "web-1"), "/run/palisade/ports/web-1.eth0.sock");
        report.details.clear();
        assert_eq!(socket(&report, None, run_dir, "web-1"), "/run/other/ports/web-1.eth0.sock");
    }

    #[test]
    fn memory_is_a_number_with_a_unit() {
        for text in ["512M", "2G", "1048576K", "1073741824"] {
            assert_eq!(memory(text).as_deref(), Ok(text));
        }
        for text in ["", "G", "0", "-1G", "1GB", "1GG", "1.5G", "1G,share=off"] {
            assert!(memory(text).is_err(), "{text}");
        }
    }
}
