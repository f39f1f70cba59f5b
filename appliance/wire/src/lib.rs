//! Bytes to headers and back.
