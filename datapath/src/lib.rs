//! The data path of an SSTP gateway and of its clients.
#![deny(unsafe_code)]

pub mod time;

pub mod wire;

pub mod output;

pub mod crypto;

pub mod tls;

pub mod http;

pub mod sstp;

pub mod ppp;

pub mod ip;

pub mod services;

pub mod io;

pub mod sys;

#[cfg(any(test, feature = "testing"))]
pub mod testing;
