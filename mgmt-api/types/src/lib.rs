//! Resources and the agent protocol.
