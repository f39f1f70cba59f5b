//! Log lines of manager and agent, on stderr.

use env_logger::{Builder, Env};

use crate::failure::Failure;

/// Starts logging: `level` when given, else `RUST_LOG`, else from warnings up with what manager and agent have to say.
pub(crate) fn start(level: Option<&str>) -> Result<(), Failure> {
    let mut builder = match level {
        Some(level) => {
            let mut builder = Builder::new();
            builder.parse_filters(level);
            builder
        }
        None => {
            Builder::from_env(Env::default().default_filter_or("warn,palisade=info,manager=info,agent=info"))
        }
    };
    builder.try_init().map_err(|error| Failure::new(format!("logging cannot be started: {error}")))
}
