//! Order, fairness, what is dropped and for whom.

use super::*;
use crate::session::downlink::data_header_of;
use crate::time::Duration;

const PARAMETERS: Parameters = Parameters {
    target: Duration::from_millis(5),
    interval: Duration::from_millis(100),
};

struct Heap;

impl BufferSource for Heap {
    fn large(&mut self) -> Option<SendBuffer> {
        Some(SendBuffer {
            bytes: vec![0; BUFFER_LEN].into(),
            ..SendBuffer::default()
        })
    }
    fn small(&mut self) -> SendBuffer {
        self.large().unwrap_or_default()
    }
}

fn at(millis: u64) -> Instant {
    Instant::ZERO + Duration::from_millis(1_000 + millis)
}

/// A data packet of `len` bytes on the stream, of this flow, with this number in it.
fn packet(flow: u16, number: u32, len: usize, tos: u8) -> Vec<u8> {
    let ip_len = u16::try_from(len - DATA_HEADER_LEN).unwrap();
    let mut packet = vec![0; usize::from(ip_len)];
    (packet[0], packet[1]) = (0x45, tos);
    packet[2..4].copy_from_slice(&ip_len.to_be_bytes());
    (packet[8], packet[9]) = (64, 17);
    packet[12..20].copy_from_slice(&[192, 0, 2, 1, 10, 8, 0, 5]);
    let sum = crate::ip::checksum::of(&packet[..20]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet[20..22].copy_from_slice(&flow.to_be_bytes());
    packet[28..32].copy_from_slice(&number.to_be_bytes());
    [&data_header_of(&packet).unwrap()[..], &packet].concat()
}

fn put(queue: &mut FlowQueue, packet: &[u8], now: Instant) -> bool {
    let class = Class::Flow(flow::hash(&packet[DATA_HEADER_LEN..]));
    let room = queue.reserve(class, packet.len(), now, 3, &mut Heap);
    room.map(|room| room.copy_from_slice(packet)).is_some()
}

/// Flow and number of the packet that is next.
fn take(queue: &mut FlowQueue, now: Instant) -> Option<(u16, u32)> {
    let packet = queue.pop(now, &PARAMETERS)?.to_vec();
    assert!(crate::ip::checksum::is_right(&packet[8..28]));
    Some((
        u16::from_be_bytes([packet[28], packet[29]]),
        u32::from_be_bytes([packet[36], packet[37], packet[38], packet[39]]),
    ))
}

#[test]
fn a_sparse_flow_overtakes_a_bulk_and_each_keeps_its_order() {
    let mut queue = FlowQueue::default();
    for number in 0..40 {
        assert!(put(&mut queue, &packet(1, number, 1_400, 0), at(0)));
    }
    assert_eq!(take(&mut queue, at(1)), Some((1, 0)));
    assert!(put(&mut queue, &packet(2, 0, 100, 0), at(1)));
    // Flow 1 has a right to what is left of its turn; then the newcomer goes first.
    assert_eq!(take(&mut queue, at(1)), Some((1, 1)));
    assert_eq!(take(&mut queue, at(1)), Some((2, 0)));
    for number in 2..40 {
        assert_eq!(take(&mut queue, at(2)), Some((1, number)));
    }
    assert_eq!(take(&mut queue, at(2)), None);
    assert!(queue.is_empty());
}

#[test]
fn flows_share_by_bytes_and_not_by_packets() {
    let mut queue = FlowQueue::default();
    for number in 0..250 {
        assert!(put(&mut queue, &packet(1, number, 200, 0), at(0)));
    }
    for number in 0..40 {
        assert!(put(&mut queue, &packet(2, number, 1_400, 0), at(0)));
    }
    let mut bytes = [0, 0];
    for _ in 0..100 {
        let (flow, _) = take(&mut queue, at(1)).unwrap();
        bytes[usize::from(flow) - 1] += if flow == 1 { 200 } else { 1_400 };
    }
    let [small, large]: [i32; 2] = bytes;
    assert!((small - large).abs() <= 2 * 1_514, "{bytes:?}");
}

#[test]
fn when_all_room_is_taken_the_longest_flow_pays() {
    let mut queue = FlowQueue::default();
    let mut taken = 0;
    while put(&mut queue, &packet(1, taken, 1_400, 0), at(0)) {
        taken += 1;
    }
    assert_eq!(taken as usize, 3 * (BUFFER_LEN / 1_400));
    assert_eq!(
        queue.take_shed(),
        Shed::default(),
        "its own newcomer is refused"
    );
    for number in 0..20 {
        assert!(
            put(&mut queue, &packet(2, number, 300, 0), at(0)),
            "another's is not"
        );
    }
    let shed = queue.take_shed();
    // The rest of the last buffer, too short for a packet of flow 1, holds 4 of flow 2.
    assert_eq!((shed.evicted, shed.bytes), (16, 16 * 1_392));
    let mut next = [16, 0];
    while let Some((flow, number)) = take(&mut queue, at(1)) {
        let next = &mut next[usize::from(flow) - 1];
        assert_eq!(number, *next);
        *next += 1;
    }
    assert_eq!(next, [taken, 20], "the oldest are gone, the rest in order");
}

#[test]
fn more_packets_than_it_has_slots_for_are_refused() {
    let mut queue = FlowQueue::default();
    let mut taken = 0;
    while put(&mut queue, &packet(1, taken, 64, 0), at(0)) {
        taken += 1;
    }
    assert_eq!(taken as usize, PACKETS_MAX);
    assert!(put(&mut queue, &packet(2, 0, 64, 0), at(0)));
    assert_eq!(queue.count(), PACKETS_MAX);
}

#[test]
fn a_standing_queue_is_marked_if_it_can_be_and_dropped_if_not() {
    for (tos, expected) in [(0b10, (0, true)), (0, (1, false))] {
        let mut queue = FlowQueue::default();
        for number in 0..100 {
            assert!(put(&mut queue, &packet(1, number, 1_400, tos), at(0)));
        }
        // 20 ms of waiting, for 101 ms.
        take(&mut queue, at(20));
        take(&mut queue, at(119));
        assert_eq!(queue.take_shed(), Shed::default());
        let next = queue.pop(at(120), &PARAMETERS).unwrap()[9];
        assert_eq!(next & 3, if tos == 0 { 0 } else { 3 });
        let shed = queue.take_shed();
        assert_eq!((shed.late, shed.marked == 1), expected, "{tos:#b}");
    }
}

#[test]
fn control_goes_first_and_is_never_dropped() {
    let mut queue = FlowQueue::default();
    let control = [0x10, 1, 0, 8, 0, 8, 0, 0];
    let echo = [0x10, 0, 0, 10, 0xff, 3, 0xc0, 0x21, 9, 1];
    let mut laid_out = Vec::new();
    for number in 0..4 {
        laid_out.extend(packet(1, number, 1_400, 0));
    }
    laid_out.extend(control);
    laid_out.extend(echo);
    let end = laid_out.len();
    let memory = SendBuffer {
        bytes: laid_out.into(),
        ..SendBuffer::default()
    };
    queue.adopt(memory, at(0), [(0, end)].into_iter()).unwrap();
    assert_eq!(queue.count(), 4);
    assert_eq!(queue.pop(at(9_000), &PARAMETERS).unwrap(), control);
    assert_eq!(queue.pop(at(9_000), &PARAMETERS).unwrap(), echo);
    assert_eq!(take(&mut queue, at(9_000)), Some((1, 0)));
}

#[test]
fn buffers_go_back_when_nothing_waits_in_them() {
    let mut queue = FlowQueue::default();
    for round in 0..1_000 {
        for number in 0..30 {
            let flow = 1 + u16::try_from(number % 5).unwrap();
            assert!(put(&mut queue, &packet(flow, number, 1_400, 0), at(round)));
        }
        for _ in 0..30 {
            take(&mut queue, at(round)).unwrap();
        }
        assert!(queue.large_count() <= 2, "{round}");
    }
    queue.return_spent(&mut Heap);
    assert_eq!(queue.large_count(), 0);
    assert!(
        size_of::<FlowQueue>() <= 17 * 1_024,
        "{}",
        size_of::<FlowQueue>()
    );
}
