//! PPP: frames, the option automaton, LCP, authentication, IPCP, IPV6CP (RFC 1661).
