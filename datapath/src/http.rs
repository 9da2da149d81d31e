//! The HTTP exchange that opens an SSTP connection ([MS-SSTP] 3.2.4.1), both roles.
