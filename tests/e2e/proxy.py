"""A network that misbehaves: a TCP proxy on loopback, in a thread of the test's own.

    proxy = Proxy(field, node)        a node that runs; proxy.url is where others find it
    proxy.set(delay_s=0.1)            from now on, until it is set again; set() is a good network
    proxy.cut()                       end all connections now, each as `ends` says
    proxy.log                         [(time.monotonic(), what, number of the connection), ...]:
                                      "connected", "over" (the client knows), "half open" (it does
                                      not), "corrupted a byte", "cut", "faults: ..."

What can be set, all together if need be:

    http_only     what asks for WebSocket is answered with 403, as some gateways do
    refuse        nobody listens: dialing is refused (connections that are open stay)
    black_hole    nothing gets through, both ways, and nobody is told; what was sent comes later,
                  as TCP repeats it once the network is back
    delay_s       each piece is so long on its way
    rate          bytes a second and direction
    trickle_s     what comes from the server comes byte by byte, each after so long
    split         each byte is a segment of its own
    corrupt       one bit in about so many bytes is flipped
    lose          a connection ends after about so many bytes, as `ends` says
    ends          "close" (FIN to both), "reset" (RST to both), "half" (the server's side is reset,
                  the client's stays open and silent)

Random choices come from the field's seed, in the order in which bytes happen to come.
"""

import asyncio
import random
import socket
import struct
import threading
import time

PIECE_BYTES = 16384
GOOD = {"http_only": False, "refuse": False, "black_hole": False, "delay_s": 0, "rate": 0,
        "trickle_s": 0, "split": False, "corrupt": 0, "lose": 0, "ends": "close"}


def reset(sock):
    """Close with RST instead of FIN."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    except OSError:
        pass
    sock.close()


class Connection:
    def __init__(self, proxy, number, client):
        self.proxy, self.number, self.client = proxy, number, client
        self.server = None
        self.half_open = False
        self.ended = asyncio.Event()
        self.left = proxy.draw("lose")  # bytes until it is lost
        self.clean = proxy.draw("corrupt")  # bytes until one is corrupted

    async def run(self):
        loop = asyncio.get_running_loop()
        self.server = socket.socket()
        self.server.setblocking(False)
        for sock in (self.client, self.server):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await self.proxy.passable.wait()
        try:
            await loop.sock_connect(self.server, ("127.0.0.1", self.proxy.target_port))
        except OSError:
            self.end("reset")
            return
        pumps = [asyncio.ensure_future(self.pump(self.client, self.server)),
                 asyncio.ensure_future(self.pump(self.server, self.client))]
        try:
            await self.ended.wait()
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            self.server.close()
        if self.half_open:
            await self.stay_silent()
        self.client.close()

    async def stay_silent(self):
        """The client may talk as long as it likes, and nobody hears it."""
        loop = asyncio.get_running_loop()
        try:
            while await loop.sock_recv(self.client, PIECE_BYTES):
                pass
        except OSError:
            pass
        self.proxy.note("over", self.number)

    async def pump(self, source, target):
        loop = asyncio.get_running_loop()
        try:
            while True:
                piece = await loop.sock_recv(source, PIECE_BYTES)
                await self.proxy.passable.wait()
                if not piece:
                    break
                await self.carry(piece, target, self.proxy.faults)
                if self.left is not None and self.left <= 0:
                    self.end(self.proxy.faults["ends"])
                    return
        except OSError:
            pass
        self.end("close")

    async def refuse_upgrade(self):
        self.proxy.note("refused WebSocket", self.number)
        await asyncio.get_running_loop().sock_sendall(
            self.client, b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n"
                         b"Connection: close\r\n\r\n")
        self.end("close")

    async def carry(self, piece, target, faults):
        loop = asyncio.get_running_loop()
        if faults["http_only"] and b"upgrade: websocket" in piece.lower():
            await self.refuse_upgrade()
            return
        piece = bytearray(piece)
        if self.left is not None:
            self.left -= len(piece)
        if self.clean is not None:
            if self.clean < len(piece):
                at = max(self.clean, 0)
                piece[at] ^= 1 << self.proxy.random.randrange(8)
                self.proxy.note("corrupted a byte", self.number)
                self.clean = self.proxy.draw("corrupt")
            else:
                self.clean -= len(piece)
        if faults["delay_s"]:
            await asyncio.sleep(faults["delay_s"])
        if faults["rate"]:
            await asyncio.sleep(len(piece) / faults["rate"])
        self.proxy.carried_at = time.monotonic()
        if target is self.client and faults["trickle_s"]:
            while piece and self.proxy.faults is faults:
                await loop.sock_sendall(target, bytes([piece.pop(0)]))
                await asyncio.sleep(faults["trickle_s"])
        if faults["split"]:
            for byte in piece:
                await loop.sock_sendall(target, bytes([byte]))
        else:
            await loop.sock_sendall(target, piece)

    def end(self, how):
        if self.ended.is_set():
            return
        if how == "reset":
            reset(self.client)
        if how in ("reset", "half") and self.server is not None:
            reset(self.server)
        self.half_open = how == "half"
        self.ended.set()
        self.proxy.note("half open" if self.half_open else "over", self.number)


class Proxy:
    def __init__(self, field, node):
        self.random = random.Random(field.random.random())
        self.target_port = node.port
        self.faults = dict(GOOD)
        self.log = []
        self.connections = {}
        self.accepted = 0
        self.carried_at = 0.0  # when anything last got through
        self.listener = None
        self.port = 0
        self.loop = asyncio.new_event_loop()
        self.passable = asyncio.Event()
        self.passable.set()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.call(self.listen)
        field.at_end.append(self.close)

    @property
    def url(self):
        return "ws://127.0.0.1:%d/tandem" % self.port

    @property
    def http_url(self):
        return "http://127.0.0.1:%d/tandem" % self.port

    def set(self, **faults):
        """These faults from now on, and no others."""
        unknown = set(faults) - set(GOOD)
        assert not unknown, unknown
        self.call(self.change, {**GOOD, **faults})

    def cut(self):
        self.call(self.cut_all)

    def count(self, what, since=0):
        """How often that happened since then. Refused dialing is not seen."""
        return sum(1 for at, it, _ in self.log if it == what and at >= since)

    def close(self):
        if not self.loop.is_running():
            return
        self.call(self.stop)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()

    # ---- On its thread ----

    def call(self, function, *args):
        """Run a function there and wait for it."""
        async def run():
            return await function(*args)
        return asyncio.run_coroutine_threadsafe(run(), self.loop).result(30)

    def note(self, what, number=0):
        self.log.append((time.monotonic(), what, number))

    def draw(self, fault):
        """After how many bytes it strikes; None: it does not."""
        mean = self.faults[fault]
        return int(self.random.expovariate(1 / mean)) if mean else None

    async def listen(self):
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        listener.listen(1024)
        listener.setblocking(False)
        self.port = listener.getsockname()[1]
        self.listener = listener
        self.accepting = asyncio.ensure_future(self.accept(listener))

    async def accept(self, listener):
        while True:
            client, _ = await self.loop.sock_accept(listener)
            client.setblocking(False)
            self.accepted += 1
            self.note("connected", self.accepted)
            connection = Connection(self, self.accepted, client)
            task = asyncio.ensure_future(connection.run())
            self.connections[task] = connection
            task.add_done_callback(self.connections.pop)

    async def stop_listening(self):
        if self.listener is None:
            return
        self.accepting.cancel()
        await asyncio.gather(self.accepting, return_exceptions=True)
        self.listener.close()
        self.listener = None

    async def change(self, faults):
        self.faults = faults
        self.note("faults: " + (", ".join("%s=%s" % (k, v) for k, v in sorted(faults.items())
                                          if v != GOOD[k]) or "none"))
        if faults["black_hole"]:
            self.passable.clear()
        else:
            self.passable.set()
        if faults["refuse"]:
            await self.stop_listening()
        elif self.listener is None:
            await self.listen()
        for connection in self.connections.values():
            connection.left = self.draw("lose")
            connection.clean = self.draw("corrupt")

    async def cut_all(self):
        self.note("cut")
        for connection in list(self.connections.values()):
            if connection.half_open:
                connection.client.shutdown(socket.SHUT_RDWR)
            connection.end(self.faults["ends"])

    async def stop(self):
        await self.stop_listening()
        tasks = list(self.connections)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
