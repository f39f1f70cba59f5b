//! Ports, workers, threads and clocks of one host.
