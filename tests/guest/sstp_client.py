#!/usr/bin/python3
"""An SSTP client of its own making over Python's OpenSSL, to try how a gateway carries records.

It logs in with PAP, binds the call (MS-SSTP 3.2.5.2 with the zero key of PAP), takes an IPv4 address, and
sends packets that the gateway's reflector sends back. It sees the bytes on the wire, so it can spoil
a record, cut one, and count what comes. It prints one line and ends with 0 if all was as it must be.

    sstp_client.py ADDRESS PORT USER PASSWORD [--tls 1.2|1.3] [--cipher aes128|aes256|chacha20]
                   [--bytes N] [--end close|alert|corrupt|keyupdate|partial]
"""
import argparse, ctypes, hashlib, hmac, os, random, select, socket, ssl, struct, sys, time

SUITES = {
    "aes128": ("TLS_AES_128_GCM_SHA256", "ECDHE-ECDSA-AES128-GCM-SHA256"),
    "aes256": ("TLS_AES_256_GCM_SHA384", "ECDHE-ECDSA-AES256-GCM-SHA384"),
    "chacha20": ("TLS_CHACHA20_POLY1305_SHA256", "ECDHE-ECDSA-CHACHA20-POLY1305"),
}
PACKET = 1400
WINDOW = 48 * 1024
PATIENCE = 60
SILENCE = 5

parser = argparse.ArgumentParser()
parser.add_argument("address")
parser.add_argument("port", type=int)
parser.add_argument("user")
parser.add_argument("password")
parser.add_argument("--tls", default="1.3")
parser.add_argument("--cipher", default="aes128")
parser.add_argument("--bytes", type=int, default=100_000)
parser.add_argument("--end", default="close")
args = parser.parse_args()


def wrong(why):
    print(f"wrong: {why}")
    sys.exit(1)


class Wire:
    """TLS over a socket, with the records in between within reach."""

    def __init__(self):
        version = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}[args.tls]
        tls13, tls12 = SUITES[args.cipher]
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.minimum_version = context.maximum_version = version
        context.set_ciphers(tls12)
        self.socket = socket.create_connection((args.address, args.port), timeout=PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing)
        # CPython keeps SSL* behind its object's head and one reference; ssl has no call for these two.
        self.libssl = ctypes.CDLL("libssl.so.3")
        self.pointer = ctypes.c_void_p.from_address(id(self.tls._sslobj) + 24)
        if self.libssl.SSL_set_ciphersuites(self.pointer, tls13.encode()) != 1:
            wrong("no such suite")
        self.spoil_next = False
        self.eof = False
        self.until(self.tls.do_handshake)
        if args.cipher[:3].upper() not in self.tls.cipher()[0]:
            wrong(f"agreed on {self.tls.cipher()}")

    def flush(self):
        data = self.outgoing.read()
        if data:
            self.socket.sendall(data)

    def fill(self, wait):
        ready, _, _ = select.select([self.socket], [], [], wait)
        if not ready or self.eof:
            return False
        data = self.socket.recv(1 << 18)
        self.eof = not data
        if data and self.spoil_next:
            data = data[:-1] + bytes([data[-1] ^ 1])
            self.spoil_next = False
        self.incoming.write(data)
        if self.eof:
            self.incoming.write_eof()
        return True

    def until(self, call):
        """Calls until it needs nothing more from the peer."""
        end = time.monotonic() + PATIENCE
        while True:
            try:
                result = call()
                self.flush()
                return result
            except ssl.SSLWantReadError:
                self.flush()
                if time.monotonic() > end:
                    wrong("nothing came for a minute")
                self.fill(1)

    def key_update(self, ask=True):
        """A KeyUpdate that asks for one in return, or not; it goes out with what is written next."""
        if self.libssl.SSL_key_update(self.pointer, int(ask)) != 1:
            wrong("no KeyUpdate with this version")

    def key_updates(self, count):
        """So many of them with nothing in between, all at once."""
        for _ in range(count):
            self.key_update()
            self.tls.do_handshake()
        self.flush()


class Client:
    def __init__(self):
        self.wire = Wire()
        self.stream = b""
        self.packets = []
        self.address = bytes(4)
        self.state = set()
        self.send(
            b"SSTP_DUPLEX_POST /sra_{BA195980-CD49-458b-9E23-C84EE0ADCD75}/ HTTP/1.1\r\n"
            b"Host: gateway\r\nContent-Length: 18446744073709551615\r\n\r\n"
        )
        while b"\r\n\r\n" not in self.stream:
            self.read()
        head, self.stream = self.stream.split(b"\r\n\r\n", 1)
        if b" 200 " not in head:
            wrong(head)
        self.send(bytes.fromhex("1001000e00010001") + bytes.fromhex("000100060001"))
        self.wait("ack")
        self.ppp(0xC021, bytes([1, 1, 0, 10, 5, 6, 1, 2, 3, 4]))
        self.wait("lcp", "lcp_theirs")
        user, password = args.user.encode(), args.password.encode()
        body = bytes([len(user)]) + user + bytes([len(password)]) + password
        self.ppp(0xC023, struct.pack("!BBH", 1, 1, 4 + len(body)) + body)
        self.wait("pap")
        self.bind()
        self.ask_address()
        self.wait("ipcp", "ipcp_theirs")

    def bind(self):
        certificate = hashlib.sha256(self.wire.tls.getpeercert(True)).digest()
        message = bytes.fromhex("100100700004000100030068000000") + b"\x02" + self.nonce + certificate
        key = hmac.new(bytes(32), b"SSTP inner method derived CMK" + b"\x20\x00\x01", "sha256").digest()
        self.send(message + hmac.new(key, message + bytes(32), "sha256").digest())

    def ask_address(self):
        self.ppp(0x8021, bytes([1, 1, 0, 10, 3, 6]) + self.address)

    def send(self, data):
        self.wire.until(lambda: self.wire.tls.write(data))

    def ppp(self, protocol, body):
        frame = b"\xff\x03" + struct.pack("!H", protocol) + body
        self.send(struct.pack("!BBH", 0x10, 0, 4 + len(frame)) + frame)

    def read(self):
        data = self.wire.until(lambda: self.wire.tls.read(1 << 16))
        if not data:
            wrong("the gateway closed")
        self.stream += data

    def wait(self, *states):
        while not self.state.issuperset(states):
            self.take()
            if not self.state.issuperset(states):
                self.read()

    def take(self):
        """Acts on every whole SSTP packet."""
        at = 0
        while len(self.stream) - at >= 4:
            kind, length = self.stream[at + 1], struct.unpack_from("!H", self.stream, at + 2)[0] & 0xFFF
            if len(self.stream) - at < length:
                break
            body = self.stream[at + 4 : at + length]
            at += length
            if kind & 1:
                self.control(body)
            elif body[:4] == b"\xff\x03\x00\x21":
                self.packets.append(body[4:])
            else:
                self.negotiate(struct.unpack_from("!H", body, 2)[0], body[4:])
        self.stream = self.stream[at:]

    def control(self, body):
        kind = struct.unpack_from("!H", body)[0]
        if kind == 2:
            self.nonce = body[12:44]
            self.state.add("ack")
        elif kind == 8:
            self.send(bytes.fromhex("1001000800090000"))
        elif kind == 9:
            self.state.add("echo")
        else:
            wrong(f"SSTP message {kind}")

    def negotiate(self, protocol, body):
        code, number = body[0], body[1]
        name = {0xC021: "lcp", 0xC023: "pap", 0x8021: "ipcp"}.get(protocol)
        if code == 1 and name in ("lcp", "ipcp"):
            self.ppp(protocol, b"\x02" + body[1:])
            self.state.add(name + "_theirs")
        elif code == 2 and name:
            self.state.add(name)
        elif code == 3 and name == "ipcp":
            self.address = body[6:10]
            self.ask_address()
        elif code == 9 and name == "lcp":
            self.ppp(protocol, b"\x0a" + body[1:4] + b"\x08\x01\x02\x03\x04")
        elif name is None and code == 1:
            self.ppp(0xC021, struct.pack("!BBHH", 8, number, 6 + len(body), protocol) + body)
        else:
            wrong(f"protocol {protocol:#x} code {code}")

    def poll(self, seconds):
        """Takes what comes next; False: nothing did in so many seconds."""
        end = time.monotonic() + seconds
        while True:
            try:
                data = self.wire.tls.read(1 << 16)
            except ssl.SSLWantReadError:
                self.wire.flush()
                left = end - time.monotonic()
                if left <= 0:
                    return False
                self.wire.fill(left)
                continue
            if not data:
                wrong("the gateway closed")
            self.stream += data
            return True

    def transfer(self, total, writes_a_key=None):
        """So many bytes there and back, in writes that know nothing of packets. Each packet must come back
        as it was and in its turn; one that the gateway's queue had no room for is sent again. Keys change
        after so many writes, by turns of both ends and of this one alone."""
        header = bytearray(struct.pack("!BBHHHBBH", 0x45, 0, PACKET, 0, 0, 64, 253, 0))
        header += self.address + bytes([198, 18, 0, 2])
        words = sum(struct.unpack("!10H", header))
        words = (words & 0xFFFF) + (words >> 16)
        words = (words & 0xFFFF) + (words >> 16)
        struct.pack_into("!H", header, 10, words ^ 0xFFFF)
        header = struct.pack("!BBH", 0x10, 0, PACKET + 8) + b"\xff\x03\x00\x21" + bytes(header)
        chance = random.Random(7)
        block = chance.randbytes(1 << 20)
        payload = PACKET - 20
        count = -(-total // payload)
        sent = got = dropped = silences = writes = 0
        waiting, lost, doubtful = {}, [], set()
        while got < count:
            pending = b""
            while (lost or sent < count) and len(waiting) * PACKET < WINDOW:
                number = lost.pop(0) if lost else sent
                sent += number == sent
                at = number * 7919 % (len(block) - payload)
                waiting[number] = struct.pack("!Q", number) + block[at : at + payload - 8]
                pending += header + waiting[number]
            while pending:
                cut = chance.choice((1, 100, 1400, 5000, 16384))
                writes += 1
                if writes_a_key and writes % writes_a_key == 0:
                    self.wire.key_update(ask=writes // writes_a_key % 2)
                self.send(pending[:cut])
                pending = pending[cut:]
            self.take()
            for packet in self.packets:
                number = struct.unpack_from("!Q", packet, 20)[0]
                if number not in waiting:
                    if number in doubtful:
                        continue
                    wrong(f"packet {number} came twice, or out of its turn")
                while (oldest := next(iter(waiting))) != number:
                    lost.append(oldest)
                    del waiting[oldest]
                    dropped += 1
                if waiting.pop(number) != packet[20:]:
                    wrong(f"packet {number} came back changed")
                got += 1
                silences = 0
            self.packets.clear()
            if got < count and not self.poll(SILENCE):
                # The last ones were lost, or are late; what comes now may come twice.
                silences += 1
                if silences * SILENCE > PATIENCE:
                    wrong(f"nothing came for a minute, {got} packets of {count} did")
                dropped += len(waiting)
                lost += waiting
                doubtful.update(waiting)
                waiting.clear()
        again = f", {dropped} packets sent again" if dropped else ""
        if writes_a_key:
            again += f", {writes // writes_a_key} KeyUpdates between"
        return f"{total} bytes each way{again}"

    def echo(self):
        self.state.discard("echo")
        self.send(bytes.fromhex("1001000800080000"))
        self.wait("echo")


def alerted(client, names):
    """The gateway must end the connection with an alert of one of these names."""
    try:
        while True:
            client.read()
    except ssl.SSLError as error:
        if not any(name in str(error) for name in names):
            wrong(f"ended by {error}")
        return str(error.reason)


client = Client()
said = client.transfer(args.bytes)
if args.end == "close":
    client.wire.until(client.wire.tls.unwrap)
    said += ", close_notify answered"
elif args.end == "alert":
    client.wire.spoil_next = True
    client.send(bytes.fromhex("1001000800080000"))
    try:
        client.read()
        wrong("the spoilt record was taken")
    except ssl.SSLError as error:
        client.wire.flush()
        said += f", alert sent for {error.reason}"
elif args.end == "corrupt":
    client.wire.tls.write(bytes.fromhex("1001000800080000"))
    record = bytearray(client.wire.outgoing.read())
    record[-1] ^= 1
    client.wire.socket.sendall(record)
    said += ", " + alerted(client, ["BAD_RECORD_MAC"])
elif args.end == "keyupdate":
    for _ in range(3):
        client.wire.key_update()
        client.echo()
    client.wire.key_updates(20)
    client.echo()
    said += ", 3 KeyUpdates, 20 in a row, " + client.transfer(args.bytes, writes_a_key=10)
    client.wire.until(client.wire.tls.unwrap)
elif args.end == "keyupdate_refused":
    client.wire.key_update()
    client.wire.tls.write(bytes.fromhex("1001000800080000"))
    client.wire.flush()
    said += ", " + alerted(client, ["INTERNAL_ERROR"])
elif args.end == "partial":
    # A record in two halves with a pause: the gateway must neither spin nor lose it.
    client.wire.tls.write(bytes.fromhex("1001000800080000"))
    record = client.wire.outgoing.read()
    client.wire.socket.sendall(record[:11])
    time.sleep(2)
    client.wire.socket.sendall(record[11:])
    client.state.discard("echo")
    client.wait("echo")
    said += ", a record in halves"
print(f"ok {client.wire.tls.version() or args.tls} {args.cipher}: {said}")
