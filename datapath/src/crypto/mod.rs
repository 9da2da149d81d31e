//! Pure functions of MS-CHAPv2, MPPE and SSTP keys, with the vectors of their specifications.
