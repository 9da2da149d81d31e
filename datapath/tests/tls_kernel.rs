//! A record layer with a direction in the kernel, as a session sees it; the kernel's part is played by
//! hand, so this runs where no kernel TLS is.

use datapath::tls::{Connection, Control, Error, Half, Opened, Suite, Version};

const VERSIONS: [Version; 2] = [Version::Tls12, Version::Tls13];

fn connection(version: Version) -> Connection {
    Connection::with_known_keys(version, Suite::Aes128Gcm, &[7; 16], &[9; 12]).unwrap()
}

fn moved(version: Version, halves: &[Half]) -> Connection {
    let mut tls = connection(version);
    for &half in halves {
        tls.moved_to_kernel(half);
    }
    tls
}

#[test]
fn with_tx_in_the_kernel_plaintext_stays_as_it_is_and_needs_no_room() {
    for version in VERSIONS {
        let mut tls = moved(version, &[Half::Tx]);
        assert_eq!((tls.prefix_len(), tls.suffix_len()), (0, 0));
        let mut record = *b"plaintext";
        assert_eq!(tls.seal(&mut record, 9), Ok(9));
        assert_eq!(&record, b"plaintext");
        assert_eq!(tls.last_sealed_len(), 9);
        assert_eq!(tls.seal(&mut record, 10), Err(Error::Room));
        assert_eq!(tls.budget().sealed.records, 2, "errs on the safe side");
    }
}

#[test]
fn with_tx_in_the_kernel_alerts_come_out_as_controls_in_order() {
    for version in VERSIONS {
        let mut tls = moved(version, &[Half::Tx]);
        let mut out = Vec::new();
        tls.close_notify(&mut out);
        assert!(out.is_empty());
        assert!(tls.has_pending_output());
        let close = Control {
            content_type: 21,
            bytes: vec![1, 0],
        };
        assert_eq!(tls.take_control(), Some(close));
        assert_eq!(tls.take_control(), None);
        assert!(!tls.has_pending_output());
        assert_eq!(tls.seal(&mut [0; 4], 4), Err(Error::Closed));
    }
}

#[test]
fn with_rx_in_the_kernel_records_come_by_their_type() {
    for version in VERSIONS {
        let mut tls = moved(version, &[Half::Rx]);
        assert_eq!(
            tls.open_by_kernel(23, &mut [5; 40_000]),
            Ok(Opened::Data(&mut [5; 40_000]))
        );
        assert_eq!(tls.open_by_kernel(21, &mut [1, 0]), Ok(Opened::Closed));
        // RFC 8446 §6.1: what follows is ignored.
        assert_eq!(tls.open_by_kernel(23, &mut [5]), Ok(Opened::Closed));

        let mut tls = moved(version, &[Half::Rx]);
        assert_eq!(
            tls.open_by_kernel(21, &mut [2, 20]),
            Err(Error::AlertReceived(20))
        );
        let mut tls = moved(version, &[Half::Rx]);
        assert!(tls.open_by_kernel(99, &mut [0]).is_err());
    }
}

/// Before Linux 6.14 keys in the kernel cannot change: the connection ends with a named reason, and says
/// so to the peer (RFC 8446 §6.2: internal_error).
#[test]
fn a_key_update_that_the_kernel_cannot_follow_ends_the_connection() {
    for (halves, request) in [
        (&[Half::Rx][..], 0),
        (&[Half::Rx], 1),
        (&[Half::Tx, Half::Rx], 1),
    ] {
        let mut tls = moved(Version::Tls13, halves);
        let mut message = [24, 0, 0, 1, request];
        let opened = tls.open_by_kernel(22, &mut message);
        assert!(matches!(opened, Err(Error::KernelTls(_))), "{opened:?}");
        let mut out = Vec::new();
        assert!(tls.has_pending_output());
        tls.pending_output(&mut out);
        match tls.take_control() {
            Some(control) => assert_eq!((control.content_type, control.bytes), (21, vec![2, 80])),
            None => assert!(!out.is_empty(), "sealed by our own layer"),
        }
    }
    // Sending alone in the kernel: the peer may change its own key, but not ask for ours.
    let update = |request| {
        let mut tls = moved(Version::Tls13, &[Half::Tx]);
        let mut record = first_record(22, &[24, 0, 0, 1, request]);
        tls.open(&mut record).map(|_| ())
    };
    assert!(matches!(update(1), Err(Error::KernelTls(_))));
    let mut tls = moved(Version::Tls13, &[Half::Tx]);
    let refused = tls.update_keys(&mut Vec::new());
    assert!(matches!(refused, Err(Error::KernelTls(_))));
}

/// The peer's first record, of that type.
fn first_record(kind: u8, message: &[u8]) -> Vec<u8> {
    use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
    let mut sealed = message.to_vec();
    sealed.push(kind);
    let len = u16::try_from(sealed.len() + 16).unwrap().to_be_bytes();
    let header = [23, 3, 3, len[0], len[1]];
    let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &[7; 16]).unwrap());
    let nonce = Nonce::assume_unique_for_key([9; 12]);
    key.seal_in_place_append_tag(nonce, Aad::from(header), &mut sealed)
        .unwrap();
    [&header[..], &sealed].concat()
}

#[test]
fn keys_in_the_kernel_are_not_given_away() {
    for half in [Half::Tx, Half::Rx] {
        let tls = moved(Version::Tls13, &[half]);
        assert!(tls.export().is_none());
        assert!(tls.is_in_kernel(half));
    }
}

#[test]
fn nobody_is_asked_for_keys_unless_it_was_wished() {
    for version in VERSIONS {
        let tls = connection(version);
        assert!(!tls.owes_kernel_keys());
        assert!(tls.keys_for_kernel(Half::Tx).is_none());
        assert!(tls.keys_for_kernel(Half::Rx).is_none());
    }
}
