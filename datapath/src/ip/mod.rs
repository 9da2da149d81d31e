//! IP packets: views, checksums, MSS clamp, source check.
