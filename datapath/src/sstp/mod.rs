//! SSTP over TLS: packets, messages, crypto binding, the call ([MS-SSTP]).
