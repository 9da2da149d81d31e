//! A TUN device in a network namespace of its own, through the driver: needs root and unshare(1).

mod sys_common;

use std::process::Command;

use datapath::io::{Completion, Io as _, TunQueue, TunRead};
use datapath::sys::clock;
use datapath::sys::driver::{Config, Driver};
use datapath::sys::tun::{TunConfig, TunError, create};
use datapath::time::Duration;

use sys_common::{
    Kind, config, descriptor_count, in_child, inside_namespace, ip, is_child, on_every_driver, run,
};

/// The ones' complement sum over `bytes`, which have an even length.
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let words = bytes.chunks_exact(2);
    let mut sum: u32 = words
        .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
        .sum();
    while sum > 0xFFFF {
        sum = (sum & 0xFFFF) + (sum >> 16);
    }
    (!u16::try_from(sum).unwrap()).to_be_bytes()
}

/// An ICMP echo request from 10.77.0.2 to 10.77.0.1 with `sequence`.
fn echo_request(sequence: u16) -> Vec<u8> {
    let mut packet = vec![
        0x45, 0, 0, 28, 0, 1, 0, 0, 64, 1, 0, 0, 10, 77, 0, 2, 10, 77, 0, 1, // IPv4
        8, 0, 0, 0, 0x12, 0x34, // ICMP echo request
    ];
    packet.extend_from_slice(&sequence.to_be_bytes());
    let header = checksum(&packet[..20]);
    packet[10..12].copy_from_slice(&header);
    let message = checksum(&packet[20..]);
    packet[22..24].copy_from_slice(&message);
    packet
}

/// The sequence number, if `packet` answers an echo request of ours.
fn echo_reply(packet: &[u8]) -> Option<u16> {
    let ours = packet.len() == 28 && packet[0] == 0x45 && packet[20] == 0;
    ours.then(|| u16::from_be_bytes([packet[26], packet[27]]))
}

on_every_driver!(
    packets_go_through_the_device_both_ways_and_its_end_is_told,
    a_queue_takes_the_place_of_one_that_is_gone_or_not,
);

fn packets_go_through_the_device_both_ways_and_its_end_is_told(kind: Kind) {
    if !inside_namespace(&kind.test("packets_go_through_the_device_both_ways_and_its_end_is_told"))
    {
        return;
    }
    let device = create(&TunConfig {
        name: Some("inside0".to_owned()),
        mtu: 1400,
        queue_len: Some(1000),
        ..TunConfig::default()
    })
    .unwrap();
    assert_eq!(device.name, "inside0");
    ip("addr add 10.77.0.1/24 dev inside0");
    let mut queues = device.queues.into_iter();
    let mut driver = kind.driver(Config {
        tun: queues.next(),
        ..config()
    });

    let mut buffer = [0; 2048];
    let mut replies = 0;
    for round in 0_u16..100 {
        for sequence in 0..10 {
            driver
                .tun_write(&[], &echo_request(round * 10 + sequence))
                .unwrap();
        }
        // The kernel answers in the course of the write, so all ten are there once told.
        let mut expected = round * 10;
        run(&mut driver, |driver, completion| {
            assert!(matches!(completion, Completion::TunReadable));
            loop {
                match driver.tun_read(&mut buffer) {
                    TunRead::Packet(len) => {
                        if let Some(sequence) = echo_reply(&buffer[..len]) {
                            assert_eq!(sequence, expected);
                            expected += 1;
                            replies += 1;
                        }
                    }
                    TunRead::Empty => return expected == round * 10 + 10,
                    TunRead::Failed(errno) => panic!("{errno}"),
                }
            }
        });
    }
    assert_eq!(replies, 1000);

    // A packet that is none is refused by name.
    let error = driver.tun_write(&[], &[0x15; 28]).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EINVAL));

    ip("link del inside0");
    run(&mut driver, |driver, completion| {
        matches!(completion, Completion::TunReadable)
            && loop {
                match driver.tun_read(&mut buffer) {
                    TunRead::Packet(_) => {}
                    TunRead::Empty => break false,
                    TunRead::Failed(errno) => {
                        assert_eq!(errno, libc::EBADFD);
                        break true;
                    }
                }
            }
    });
    let error = driver.tun_write(&[], &echo_request(0)).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EBADFD));
    // And it does not spin on the dead device.
    let mut completions = Vec::new();
    driver.turn(Some(clock::now()), &mut completions).unwrap();
    completions.clear();
    let end = clock::now() + Duration::from_millis(50);
    driver.turn(Some(end), &mut completions).unwrap();
    assert!(clock::now() >= end, "{completions:?}");
}

/// Ten pings through the device.
fn ping(driver: &mut Driver) {
    for sequence in 0..10 {
        driver.tun_write(&[], &echo_request(sequence)).unwrap();
    }
    let mut buffer = [0; 2048];
    let mut expected = 0;
    run(driver, |driver, _| {
        while let TunRead::Packet(len) = driver.tun_read(&mut buffer) {
            if let Some(sequence) = echo_reply(&buffer[..len]) {
                assert_eq!(sequence, expected);
                expected += 1;
            }
        }
        expected == 10
    });
}

fn a_queue_takes_the_place_of_one_that_is_gone_or_not(kind: Kind) {
    let test = "a_queue_takes_the_place_of_one_that_is_gone_or_not";
    if !inside_namespace(&kind.test(test)) {
        return;
    }
    let mut driver = kind.driver(config());
    let before = descriptor_count();
    for round in 0..30 {
        let name = format!("inside{round}");
        let mut device = create(&TunConfig {
            name: Some(name.clone()),
            ..TunConfig::default()
        })
        .unwrap();
        let queue = device.queues.pop().unwrap();
        driver.replace_tun(TunQueue::Descriptor(queue)).unwrap();
        ip(&format!("addr add 10.77.0.1/24 dev {name}"));
        ping(&mut driver);
        // It still has its device, or lost it, which the driver has noticed or has not.
        if round % 3 > 0 {
            ip(&format!("link del {name}"));
        } else {
            ip(&format!("addr del 10.77.0.1/24 dev {name}"));
        }
        if round % 3 == 2 {
            let mut buffer = [0; 2048];
            run(&mut driver, |driver, _| {
                loop {
                    match driver.tun_read(&mut buffer) {
                        TunRead::Packet(_) => {}
                        TunRead::Empty => break false,
                        TunRead::Failed(errno) => break errno == libc::EBADFD,
                    }
                }
            });
        }
    }
    // Every queue but the last is closed, as soon as nothing asks about it any more.
    let mut completions = Vec::new();
    let until = clock::now() + Duration::from_secs(30);
    while descriptor_count() > before + 1 {
        driver
            .turn(
                Some(clock::now() + Duration::from_millis(1)),
                &mut completions,
            )
            .unwrap();
        assert!(
            clock::now() < until,
            "{} descriptors, {before} before",
            descriptor_count()
        );
    }
}

#[test]
fn a_device_has_as_many_queues_as_asked_for() {
    if !inside_namespace("a_device_has_as_many_queues_as_asked_for") {
        return;
    }
    let device = create(&TunConfig {
        queues: 4,
        offload: true,
        ..TunConfig::default()
    })
    .unwrap();
    assert_eq!(device.queues.len(), 4);
    let count = std::fs::read_dir(format!("/sys/class/net/{}/queues", device.name));
    // /sys is that of the namespace it was mounted in; then there is nothing to look at.
    match count {
        Ok(queues) => assert!(queues.count() >= 4),
        Err(_) => eprintln!("SKIPPED in part: /sys shows another namespace"),
    }
    let other = create(&TunConfig {
        name: Some("lo".to_owned()),
        ..TunConfig::default()
    });
    assert!(matches!(other, Err(TunError::NameTaken(name)) if name == "lo"));
    let long = create(&TunConfig {
        name: Some("a-name-of-sixteen".to_owned()),
        ..TunConfig::default()
    });
    assert!(matches!(long, Err(TunError::Config(_))));
}

#[test]
fn without_the_right_there_is_no_device_and_the_reason_is_named() {
    if is_child() {
        let error = create(&TunConfig::default()).unwrap_err();
        assert!(matches!(error, TunError::NotPermitted), "{error}");
        assert!(error.to_string().contains("CAP_NET_ADMIN"));
        return;
    }
    let command = [
        "setpriv",
        "--bounding-set=-all",
        "--inh-caps=-all",
        "--no-new-privs",
    ];
    let possible = Command::new(command[0])
        .args(&command[1..])
        .arg("true")
        .output();
    let test = "without_the_right_there_is_no_device_and_the_reason_is_named";
    if possible.is_ok_and(|output| output.status.success())
        && std::path::Path::new("/dev/net/tun").exists()
    {
        in_child(&command, test);
    } else {
        eprintln!("SKIPPED {test}: needs root, setpriv(1) and /dev/net/tun");
    }
}
