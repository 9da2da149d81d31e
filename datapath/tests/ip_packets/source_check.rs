//! Whose source a client may use.

use std::net::{IpAddr, Ipv4Addr};

use datapath::ip::packet::{Family, Malformed, Packet};
use datapath::ip::source::{Accepted, DropReason, SourceCheck, To};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::packet::{a6, v4, v6};

fn check() -> SourceCheck {
    SourceCheck::new(
        Some(Ipv4Addr::new(10, 8, 0, 2)),
        Some((a6("2001:db8:1:2::"), 64)),
        Some(0x1234),
    )
}

fn check_v4(source: [u8; 4], destination: [u8; 4]) -> Result<To, DropReason> {
    let accepted = check().check(&v4(source, destination, 17, &[0; 8]))?;
    assert_eq!((accepted.family, accepted.len), (Family::V4, 28));
    Ok(accepted.to)
}

fn check_v6(source: &str, destination: &str) -> Result<To, DropReason> {
    let accepted = check().check(&v6(a6(source), a6(destination), 17, &[0; 8]))?;
    assert_eq!((accepted.family, accepted.len), (Family::V6, 48));
    Ok(accepted.to)
}

#[test]
fn only_the_assigned_ipv4_address_passes() {
    let mine = [10, 8, 0, 2];
    let far = [192, 0, 2, 1];
    assert_eq!(check_v4(mine, far), Ok(To::Inside));
    assert_eq!(check_v4(mine, [10, 8, 0, 1]), Ok(To::Inside));
    for group in [[255; 4], [224, 0, 0, 251], [239, 255, 255, 250]] {
        assert_eq!(check_v4(mine, group), Ok(To::Services));
    }
    for nobody in [[0; 4], [0, 1, 2, 3], [127, 0, 0, 1], [240, 0, 0, 1]] {
        assert_eq!(check_v4(mine, nobody), Err(DropReason::Destination));
    }
    assert_eq!(check_v4([0; 4], far), Err(DropReason::Zero));
    assert_eq!(
        check_v4([0; 4], [255; 4]),
        Err(DropReason::Zero),
        "DHCPDISCOVER"
    );
    assert_eq!(check_v4([127, 0, 0, 1], far), Err(DropReason::Loopback));
    for group in [[224, 0, 0, 1], [239, 1, 1, 1], [240, 0, 0, 1], [255; 4]] {
        assert_eq!(check_v4(group, far), Err(DropReason::Multicast));
    }
    for other in [
        [10, 8, 0, 1],
        [10, 8, 0, 3],
        [11, 8, 0, 2],
        [169, 254, 0, 1],
    ] {
        assert_eq!(check_v4(other, far), Err(DropReason::Foreign));
    }
}

#[test]
fn only_the_assigned_ipv6_prefix_passes() {
    let far = "2001:db8:ffff::1";
    assert_eq!(check_v6("2001:db8:1:2::", far), Ok(To::Inside));
    assert_eq!(
        check_v6("2001:db8:1:2:ffff:ffff:ffff:ffff", far),
        Ok(To::Inside)
    );
    for other in [
        "2001:db8:1:1:ffff:ffff:ffff:ffff",
        "2001:db8:1:3::",
        "2001:db9:1:2::1",
        "::ffff:10.8.0.2",
        "fec0::1",
    ] {
        assert_eq!(check_v6(other, far), Err(DropReason::Foreign));
    }
    assert_eq!(check_v6("::1", far), Err(DropReason::Loopback));
    assert_eq!(check_v6("ff02::1", far), Err(DropReason::Multicast));
    assert_eq!(check_v6("::", far), Err(DropReason::Zero));
    assert_eq!(check_v6("::", "fe80::1"), Err(DropReason::Zero));
    assert_eq!(check_v6("::", "ff02::1:ff00:1234"), Ok(To::Services));
    for nobody in ["::", "::1"] {
        assert_eq!(
            check_v6("2001:db8:1:2::1", nobody),
            Err(DropReason::Destination)
        );
    }
}

#[test]
fn link_local_stays_on_the_link() {
    assert_eq!(check_v6("fe80::1234", "ff02::2"), Ok(To::Services));
    assert_eq!(check_v6("fe80::1234", "fe80::1"), Ok(To::Services));
    assert_eq!(check_v6("2001:db8:1:2::1", "fe80::1"), Ok(To::Services));
    assert_eq!(check_v6("2001:db8:1:2::1", "ff0e::1"), Ok(To::Services));
    assert_eq!(
        check_v6("fe80::1234", "2001:db8::1"),
        Err(DropReason::LinkLocalScope)
    );
    for other in ["fe80::1", "fe80::1235", "fe80:0:0:1::1234", "febf::1234"] {
        assert_eq!(check_v6(other, "ff02::2"), Err(DropReason::LinkLocal));
    }
}

#[test]
fn a_family_that_is_not_open_is_refused() {
    let none = SourceCheck::new(None, None, None);
    let packet = v4([10, 8, 0, 2], [192, 0, 2, 1], 17, &[]);
    assert_eq!(none.check(&packet), Err(DropReason::NotAssigned));
    let packet = v6(a6("fe80::1234"), a6("ff02::2"), 58, &[]);
    assert_eq!(none.check(&packet), Err(DropReason::NotAssigned));
    assert_eq!(
        none.check(&[0x45]),
        Err(DropReason::Malformed(Malformed::Short))
    );

    // Link-local only, as after IPV6CP without a prefix; and a single assigned address.
    let link = SourceCheck::new(None, None, Some(0x1234));
    assert!(link.check(&packet).is_ok());
    let global = v6(a6("2001:db8::1"), a6("2001:db8::2"), 58, &[]);
    assert_eq!(link.check(&global), Err(DropReason::Foreign));
    let one = SourceCheck::new(None, Some((a6("2001:db8::1"), 128)), None);
    assert_eq!(
        one.check(&global),
        Ok(Accepted {
            family: Family::V6,
            len: 40,
            to: To::Inside
        })
    );
    let next = v6(a6("2001:db8::"), a6("2001:db8::2"), 58, &[]);
    assert_eq!(one.check(&next), Err(DropReason::Foreign));
    // A prefix of everything is still no licence for groups and loopback.
    let all = SourceCheck::new(None, Some((a6("::"), 0)), None);
    assert!(all.check(&global).is_ok());
    for (source, reason) in [
        ("ff05::1", DropReason::Multicast),
        ("::1", DropReason::Loopback),
    ] {
        let packet = v6(a6(source), a6("2001:db8::2"), 58, &[]);
        assert_eq!(all.check(&packet), Err(reason));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]
    #[test]
    fn no_bytes_pass_with_a_foreign_source(mut bytes in vec(any::<u8>(), 0..100), nibble in 3..8_u8) {
        if let Some(first) = bytes.first_mut() {
            *first = (*first & 0x0f) | (nibble << 4);
        }
        if bytes.len() > 6 {
            bytes[2] = 0;
            bytes[4] = 0;
        }
        let Ok(packet) = Packet::parse(&bytes) else {
            prop_assert!(check().check(&bytes).is_err());
            return Ok(());
        };
        prop_assert!(bytes.starts_with(packet.bytes()));
        if let Some(transport) = packet.transport() {
            prop_assert!(transport.offset <= packet.bytes().len());
        }
        if let Ok(accepted) = check().check(&bytes) {
            prop_assert_eq!(accepted.len, packet.bytes().len());
            let is_mine = match packet.source() {
                IpAddr::V4(source) => source == Ipv4Addr::new(10, 8, 0, 2),
                IpAddr::V6(source) => source.segments()[..4] == [0x2001, 0xdb8, 1, 2]
                    || (accepted.to == To::Services
                        && (source.is_unspecified() || source == a6("fe80::1234"))),
            };
            prop_assert!(is_mine);
        }
    }
}
