"""The door of a cloud: TLS and the vendor's rules for a connection, in front of a broker that knows neither.

A cloud is no broker between its clients: what a device says goes to the service alone, and only the service speaks to it. So
behind the door every topic of the device begins with `up/` and every topic for it with `down/`.

What breaks a rule is written down and ends the connection, as the vendors do it.
"""

import asyncio
import ssl
import threading
import time

CONNECT, CONNACK, PUBLISH, PUBACK, SUBSCRIBE = 1, 2, 3, 4, 8


class Broken(Exception):
    """A rule of the vendor was broken."""


def number(data, at):
    """A length of MQTT: seven bits a byte."""
    value, shift = 0, 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def as_number(value):
    said = bytearray()
    while True:
        value, byte = divmod(value, 128)
        said.append(byte | (0x80 if value else 0))
        if not value:
            return bytes(said)


def piece(data, at):
    end = at + 2 + int.from_bytes(data[at : at + 2], "big")
    return data[at + 2 : end], end


def as_piece(said):
    return len(said).to_bytes(2, "big") + said


def as_packet(kind, flags, body):
    return bytes([kind << 4 | flags]) + as_number(len(body)) + body


async def packet(reader):
    first = (await reader.readexactly(1))[0]
    length, shift = 0, 0
    while True:
        byte = (await reader.readexactly(1))[0]
        length |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
    return first >> 4, first & 0x0F, await reader.readexactly(length)


class Hello:
    """A CONNECT: what the rules look at, and the same again with the will's topic behind the door."""

    def __init__(self, body):
        at = piece(body, 0)[1]
        self.level, flags = body[at], body[at + 1]
        at += 4
        if self.level == 5:
            length, at = number(body, at)
            at += length
        head = body[:at]
        client, at = piece(body, at)
        rest = head + as_piece(client)
        self.client = client.decode()
        self.clean = bool(flags & 0x02)
        self.will = None
        if flags & 0x04:
            if self.level == 5:
                length, end = number(body, at)
                rest += body[at : end + length]
                at = end + length
            topic, at = piece(body, at)
            will, at = piece(body, at)
            self.will = topic.decode()
            self.will_qos, self.will_retain = flags >> 3 & 3, bool(flags & 0x20)
            rest += as_piece(b"up/" + topic) + as_piece(will)
        self.behind = rest + body[at:]
        self.user = self.password = None
        if flags & 0x80:
            user, at = piece(body, at)
            self.user = user.decode()
        if flags & 0x40:
            password, at = piece(body, at)
            self.password = password.decode()
        self.certificate = None


class Rules:
    """What a vendor asks of a connection; each door has its own."""

    alpn = None
    wants_certificate = False
    acknowledges_twice = False

    def hello(self, hello):
        """A return code of CONNACK where the connection is refused."""

    def lasts(self, hello):
        """Seconds after which the vendor ends the connection."""

    def subscribe(self, filters):
        pass

    def publish(self, topic, qos, retain, payload):
        pass

    def opened(self, hello):
        pass

    def closed(self):
        pass


class Door:
    """Listens on loopback, with `server.crt`, `server.key` and `ca.crt` of a folder."""

    def __init__(self, rules, broker, folder):
        self.rules, self.broker, self.folder = rules, broker, folder
        self.broken, self.refused = [], []
        self.is_down = False
        self.writers = set()
        self.loop = asyncio.new_event_loop()
        started = threading.Event()
        threading.Thread(target=self.run, args=(started,), daemon=True).start()
        started.wait()

    def run(self, started):
        asyncio.set_event_loop(self.loop)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(f"{self.folder}/server.crt", f"{self.folder}/server.key")
        if self.rules.alpn:
            context.set_alpn_protocols([self.rules.alpn])
        if self.rules.wants_certificate:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(f"{self.folder}/ca.crt")
        server = self.loop.run_until_complete(asyncio.start_server(self.serve, "127.0.0.1", 0, ssl=context))
        self.port = server.sockets[0].getsockname()[1]
        started.set()
        self.loop.run_forever()

    def link(self, word):
        """`down` ends every connection and takes no new one, `up` takes them again."""

        def turn():
            self.is_down = word == "down"
            for writer in list(self.writers):
                writer.transport.abort()

        self.loop.call_soon_threadsafe(turn)

    async def serve(self, reader, writer):
        if self.is_down:
            writer.transport.abort()
            return
        self.writers.add(writer)
        behind = None
        try:
            hello = await self.greet(reader, writer)
            if hello is None:
                return
            back, behind = await asyncio.open_connection("127.0.0.1", self.broker)
            behind.write(as_packet(CONNECT, 0, hello.behind))
            self.rules.opened(hello)
            lasts = self.rules.lasts(hello)
            ways = [asyncio.ensure_future(self.up(reader, behind, hello)), asyncio.ensure_future(self.down(back, writer))]
            done, others = await asyncio.wait(ways, timeout=lasts, return_when=asyncio.FIRST_COMPLETED)
            for way in others:
                way.cancel()
            self.rules.closed()
            if not done:
                raise Broken(f"the connection was still there when its time was over, after {lasts:.1f} s")
            for way in done:
                way.result()
        except Broken as broken:
            self.broken.append(str(broken))
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError, OSError):
            pass
        finally:
            self.writers.discard(writer)
            for one in (writer, behind):
                if one is not None:
                    one.transport.abort()

    async def greet(self, reader, writer):
        tls = writer.get_extra_info("ssl_object")
        if self.rules.alpn and tls.selected_alpn_protocol() != self.rules.alpn:
            self.refused.append("no ALPN")
            return None
        kind, _, body = await packet(reader)
        if kind != CONNECT:
            raise Broken("the first packet is no CONNECT")
        hello = Hello(body)
        hello.certificate = tls.getpeercert()
        code = self.rules.hello(hello)
        if code:
            self.refused.append(f"CONNACK {code}")
            writer.write(as_packet(CONNACK, 0, bytes([0, code]) + (b"\0" if hello.level == 5 else b"")))
            await writer.drain()
            return None
        return hello

    async def up(self, reader, behind, hello):
        while True:
            kind, flags, body = await packet(reader)
            if kind == PUBLISH:
                topic, at = piece(body, 0)
                qos = flags >> 1 & 3
                start = at + (2 if qos else 0)
                if hello.level == 5:
                    length, start = number(body, start)
                    start += length
                self.rules.publish(topic.decode(), qos, bool(flags & 1), body[start:])
                body = as_piece(b"up/" + topic) + body[at:]
            elif kind == SUBSCRIBE:
                body = self.subscribe(body, hello)
            behind.write(as_packet(kind, flags, body))
            await behind.drain()

    def subscribe(self, body, hello):
        at = 2
        if hello.level == 5:
            length, at = number(body, at)
            at += length
        said, filters = body[:at], []
        while at < len(body):
            name, at = piece(body, at)
            filters.append((name.decode(), body[at] & 3))
            said += as_piece(b"down/" + name) + body[at : at + 1]
            at += 1
        self.rules.subscribe(filters)
        return said

    async def down(self, back, writer):
        while True:
            kind, flags, body = await packet(back)
            if kind == PUBLISH:
                topic, at = piece(body, 0)
                body = as_piece(topic.removeprefix(b"down/")) + body[at:]
            writer.write(as_packet(kind, flags, body))
            if kind == PUBACK and self.rules.acknowledges_twice:
                writer.write(as_packet(kind, flags, body))
            await writer.drain()


def now():
    return time.time()
