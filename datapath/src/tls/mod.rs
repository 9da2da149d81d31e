//! TLS: rustls shakes hands, our own record layer carries the data.
