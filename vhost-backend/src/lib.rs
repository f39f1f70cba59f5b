//! A virtio-net device over vhost-user: frames in, frames out.
