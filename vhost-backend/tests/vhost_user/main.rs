//! Ports against front ends: the message orders of QEMU, cloud-hypervisor and DPDK, and what no front end should do.

mod connections;
mod front_ends;
mod guest;
mod hostile;
mod leaks;
mod migration;
mod plugged;
mod random;
mod storms;
mod vmm;
