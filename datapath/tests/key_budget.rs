//! What a session does as its keys wear out, over real TLS: nothing to be noticed for far more records
//! than a count of records would allow, and at the end a polite one with its own reason.
//!
//! With KEY_BUDGET_RECORDS a number of records is carried each way under the real limit, instead of
//! a few under one lowered in proportion. More than 2^24, where rustls stops, take a minute or two:
//!
//! ```text
//! KEY_BUDGET_RECORDS=16777300 cargo nextest run --release -p datapath --test key_budget
//! ```

mod tls_support;

use std::net::Ipv4Addr;
use std::sync::Arc;

use datapath::ppp::auth::AuthMethod;
use datapath::session::event::{EndReason, Event};
use datapath::testing::fixtures::{self, GATEWAY, PASSWORD, USER};
use datapath::testing::pair::{End, Pair};
use datapath::tls::{RecordLayerKind, Suite, TlsOptions, Version};

use tls_support::{Pki, name, only};

const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 8, 0, 7);

/// Where rustls ends a connection on AES-GCM, whatever its records hold.
const RUSTLS_RECORDS_MAX: u64 = 1 << 24;

/// ⌊2^39.5⌋ blocks: the limit in force (`tls::budget`).
const LIMIT_BLOCKS: u64 = 777_472_127_993;

/// What a record of one 60-byte packet counts: 8 bytes of headers make it 68, five blocks and two.
const BLOCKS_PER_RECORD: u64 = 7;

/// A session that is up under TLS `version`, with budgets lowered to these blocks.
fn up(version: Version, client_budget: Option<u64>, server_budget: Option<u64>) -> Pair {
    let pki = Pki::new();
    let options = |key_budget| TlsOptions {
        key_budget,
        ..only(version, Suite::Aes128Gcm, RecordLayerKind::Own)
    };
    let client = pki.client(&options(client_budget));
    let mut client = fixtures::client_settings_with(client, USER, PASSWORD, AuthMethod::MsChapV2);
    client.server_name = name();
    let mut pair = Pair::new(
        Arc::new(client),
        Arc::new(fixtures::server_settings_with(
            pki.server(&options(server_budget)),
        )),
        7,
        Box::new(|question| Some(fixtures::judge(&question, 7))),
    )
    .unwrap();
    assert!(
        pair.run_until(100, Pair::is_up),
        "{:#?}",
        pair.server.edge.events
    );
    pair
}

fn end_of(end: &End) -> Option<EndReason> {
    end.edge.events.iter().find_map(|event| match event {
        Event::Ended(ended) => Some(ended.reason),
        _ => None,
    })
}

/// The packets of 60 bytes that reached the inside of this end, which forgets them.
fn take_arrived(end: &mut End) -> u64 {
    let inside = std::mem::take(&mut end.edge.inside);
    inside.iter().filter(|packet| packet.len() == 60).count() as u64
}

fn packets() -> (Vec<u8>, Vec<u8>) {
    let payload = [7; 32];
    (
        fixtures::udp(CLIENT, GATEWAY, &payload),
        fixtures::udp(GATEWAY, CLIENT, &payload),
    )
}

#[test]
fn a_tls_1_2_session_outlives_what_a_count_of_records_would_allow() {
    let records = std::env::var("KEY_BUDGET_RECORDS").ok();
    let records: Option<u64> = records.map(|text| text.parse().expect("a number of records"));
    // In the miniature the limit shrinks as the number of records does.
    const MINIATURE: u64 = RUSTLS_RECORDS_MAX >> 10;
    let (records, budget) = match records {
        Some(records) => (records, None),
        None => (MINIATURE + 84, Some(LIMIT_BLOCKS >> 10)),
    };
    let mut pair = up(Version::Tls12, budget, budget);
    let (up, down) = packets();
    let (mut up_count, mut down_count) = (0, 0);
    for number in 0..records {
        pair.client_sends(&up);
        pair.server_sends(&down);
        if number % 1024 == 0 {
            up_count += take_arrived(&mut pair.server);
            down_count += take_arrived(&mut pair.client);
        }
    }
    up_count += take_arrived(&mut pair.server);
    down_count += take_arrived(&mut pair.client);
    assert_eq!((up_count, down_count), (records, records));
    assert!(pair.is_up());
    assert_eq!((end_of(&pair.client), end_of(&pair.server)), (None, None));
    println!("{records} records each way, one packet each, 0 disconnects");
}

#[test]
fn a_tls_1_2_session_ends_politely_before_its_key_is_spent() {
    let budget = 1 << 13;
    for server_is_short in [true, false] {
        let short = |is_short: bool| is_short.then_some(budget);
        let mut pair = up(
            Version::Tls12,
            short(!server_is_short),
            short(server_is_short),
        );
        let (uplink, downlink) = packets();
        let (mut sent, mut arrived) = (0, 0);
        while end_of(&pair.client).is_none() && end_of(&pair.server).is_none() {
            assert!(sent < budget, "it must end some time");
            sent += 1;
            if server_is_short {
                pair.server_sends(&downlink);
                arrived += take_arrived(&mut pair.client);
            } else {
                pair.client_sends(&uplink);
                arrived += take_arrived(&mut pair.server);
            }
        }
        assert_eq!(arrived, sent, "all that went before it is delivered");
        // A sixteenth is left for the end; the set-up took some too.
        let expected = budget * 15 / 16 / BLOCKS_PER_RECORD;
        assert!(
            (expected - 50..=expected + 1).contains(&sent),
            "{sent} of {expected}"
        );
        pair.run_until(20, |pair| pair.client.closed && pair.server.closed);
        let ends = (end_of(&pair.client), end_of(&pair.server));
        let (keys, peer) = (
            Some(EndReason::KeysSpent),
            Some(EndReason::PeerDisconnected),
        );
        let expected = if server_is_short {
            (peer, keys)
        } else {
            (keys, peer)
        };
        assert_eq!(ends, expected);
    }
}

#[test]
fn a_tls_1_3_session_changes_its_keys_and_goes_on() {
    let budget = 1 << 13;
    let mut pair = up(Version::Tls13, Some(budget), Some(budget));
    let (up, down) = packets();
    let records = 10 * budget / BLOCKS_PER_RECORD;
    for _ in 0..records {
        pair.client_sends(&up);
        pair.server_sends(&down);
    }
    assert_eq!(take_arrived(&mut pair.server), records);
    assert_eq!(take_arrived(&mut pair.client), records);
    assert!(pair.is_up());
    assert_eq!((end_of(&pair.client), end_of(&pair.server)), (None, None));
}
