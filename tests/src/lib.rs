//! End-to-end harness: the release binary, real guests and real peers, on one machine.
//!
//! Everything that is started or made is owned by a value and ends with it: processes are killed by their own id,
//! namespaces and directories are removed. Every wait has a bound. A check that fails prints what is needed to
//! understand it: guest consoles, the palisade log, the ports' counters and captures.
//!
//! * [`process`], [`scratch`], [`netns`]: what tests are made of
//! * [`image`], [`guest`], [`console`], [`qmp`]: QEMU guests and how to talk to them
//! * [`palisade`], [`daemon`]: the binary under test, its command line and its processes
//! * [`shell`], [`traffic`], [`capture`], [`scapy`]: commands, streams and frames at either kind of end
//! * [`etcd`]: several managers that share one state
//! * [`lab`]: the usual topology of one host; [`mesh`], [`fabric`]: several hosts and what joins them
//! * [`trials`]: how a test file runs its checks

pub mod capture;
pub mod console;
pub mod daemon;
pub mod etcd;
pub mod fabric;
pub mod guest;
pub mod image;
pub mod lab;
pub mod mesh;
pub mod netns;
pub mod palisade;
pub mod process;
pub mod qmp;
pub mod scapy;
pub mod scratch;
pub mod shell;
pub mod traffic;
pub mod trials;
