//! Services inside the tunnel: DHCPINFORM, Router Advertisement, stateless DHCPv6, neighbours.
