"""The network of the benchmark: a fast server, and the delay before it."""

import asyncio
import base64
import collections
import contextlib
import ctypes
import fcntl
import multiprocessing
import multiprocessing.connection
import os
import pathlib
import select
import signal
import socket
import ssl
import struct
import subprocess
import time

USER = 'alice@example.com'
PASSWORD = 'wonderland'


# === The sink: a server that takes every mail and keeps none ===============
#
# It must be faster than every client, or one would measure the server. So
# it receives into one buffer that is used again and again, and of a message
# it looks at the last octets of each piece only, for the final dot. TLS runs
# over memory (ssl.MemoryBIO): this shows the sink when octets really arrive
# and leave, which Turns needs.

class Turns:
    """Counts the round trips of one session, seen from the server.

    What a client sends after waiting for the server arrives at least a round
    trip after what it sent before; what it sends without waiting arrives
    sooner. Two turns are over before the first octet: SYN and SYN-ACK, then
    the ACK that lets the server speak.
    """

    def __init__(self, rtt, now):
        """Starts after connecting; rtt is the delay both ways, in seconds."""
        self.rtt, self.latest, self.count = rtt, now, 2

    def received(self, now):
        """Notes that octets of the client arrived at this time."""
        self.count += now - self.latest > 0.8 * self.rtt
        self.latest = now


class Wire:
    """A socket as the sink sees it: first in clear, then with TLS."""

    def __init__(self, sock, rtt):
        """Takes a connected socket."""
        self.sock = sock
        self.turns = Turns(rtt, time.monotonic())
        self.tls = None
        self.raw = memoryview(bytearray(256 << 10))
        self.plain = memoryview(bytearray(16 << 10))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _read_socket(self):
        count = self.sock.recv_into(self.raw)
        if count:
            self.turns.received(time.monotonic())
        return self.raw[:count]

    def _feed_tls(self):
        self.sock.sendall(self.outgoing.read())
        data = self._read_socket()
        if not data:
            raise EOFError
        self.incoming.write(data)

    def send(self, data):
        """Sends octets, encrypted after start_tls()."""
        if self.tls:
            self.tls.write(data)
            data = self.outgoing.read()
        self.sock.sendall(data)

    def receive(self):
        """Waits for octets; none means that the client is gone."""
        if not self.tls:
            return self._read_socket()
        while True:
            try:
                return self.plain[:self.tls.read(len(self.plain), self.plain)]
            except ssl.SSLWantReadError:
                self._feed_tls()

    def start_tls(self, context):
        """Does the server's side of the TLS handshake."""
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, True)
        while True:
            try:
                self.tls.do_handshake()
                return self.sock.sendall(self.outgoing.read())
            except ssl.SSLWantReadError:
                self._feed_tls()


def swallow_message(wire, begun, seen):
    """Reads up to the final dot; returns what follows that, maybe QUIT."""
    tail = b'\r\n' + begun
    seen['octets'] += len(begun)
    while b'\r\n.\r\n' not in tail:
        data = wire.receive()
        if not data:
            raise EOFError
        seen['octets'] += len(data)
        # Only QUIT may follow, so the dot is within the last 20 octets.
        tail = tail[-20:] + bytes(data[-20:])
    return tail.partition(b'\r\n.\r\n')[2]


EXTENSIONS = (b'250-sink\r\n250-PIPELINING\r\n250-SIZE 0\r\n250-8BITMIME\r\n'
              b'250 ')
USERNAME_CHALLENGE, PASSWORD_CHALLENGE = (
    b'334 %s\r\n' % base64.b64encode(word)
    for word in (b'Username:', b'Password:'))


def simple_reply(line, seen):
    """Returns the reply to a line that only needs an answer."""
    verb, *words = line.upper().split()
    if verb == b'EHLO':
        return EXTENSIONS + (b'AUTH LOGIN' if seen['tls'] else b'STARTTLS') \
            + b'\r\n'
    if verb == b'AUTH':
        return PASSWORD_CHALLENGE if words[1:] else USERNAME_CHALLENGE
    if line == base64.b64encode(USER.encode()):
        return PASSWORD_CHALLENGE
    if line == base64.b64encode(PASSWORD.encode()):
        seen['login'] = True
        return b'235 2.7.0 Welcome\r\n'
    seen['recipients'] += verb == b'RCPT'
    return b'250 2.0.0 Ok\r\n'


def converse(wire, context, seen):
    """Speaks the server's side of one session and notes what it saw."""
    pending = b''
    wire.send(b'220 sink ESMTP\r\n')
    while True:
        while b'\r\n' not in pending:
            data = wire.receive()
            if not data:
                return
            pending += data
        # All commands that came together are answered together.
        answer = b''
        while b'\r\n' in pending:
            line, _, pending = pending.partition(b'\r\n')
            verb = line.upper()
            if verb == b'STARTTLS':
                wire.send(b'220 Go ahead\r\n')
                wire.start_tls(context)
                seen['tls'], pending = wire.tls.version(), b''
            elif verb == b'DATA':
                wire.send(answer + b'354 Go ahead\r\n')
                pending = swallow_message(wire, pending, seen)
                seen['turns'] = wire.turns.count
                answer = b'250 2.0.0 Ok: gone\r\n'
            elif verb == b'QUIT':
                seen['turns'], seen['quit'] = wire.turns.count, True
                return wire.send(answer + b'221 Bye\r\n')
            else:
                answer += simple_reply(line, seen)
        if answer:
            wire.send(answer)


def run_sink(certificate, delay, pipe, namespace):
    """Serves one client after another; the body of the sink's process.

    Args:
        certificate: path of a PEM file with key and certificate.
        delay: shared number, the round trip time in seconds.
        pipe: gets the port, then what was seen of each session.
        namespace: whether to move into a network namespace of its own.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if namespace:
        leave_namespace()
        subprocess.run(['ip', 'link', 'set', 'lo', 'up'], check=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    listener = socket.create_server(('', 0), backlog=50)
    pipe.send(listener.getsockname()[1])
    while True:
        sock, _ = listener.accept()
        seen = dict(tls=None, login=False, recipients=0, octets=0, turns=0,
                    quit=False)
        with sock, contextlib.suppress(OSError, EOFError):
            converse(Wire(sock, delay.value), context, seen)
        pipe.send(seen)


# === The delay =============================================================
#
# Three ways to put the client far from the sink, the best that works here:
# netem, the kernel's own; a link, which is two network namespaces with one
# tun device each, where a process passes the packets on when their time has
# come (connecting is delayed, too); and a relay, which passes on octets
# (connecting is not delayed, so every client seems a round trip faster).

CLONE_NEWNS, CLONE_NEWNET = 0x00020000, 0x40000000
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454ca, 0x0001, 0x1000
NEAR, FAR = '10.255.255.1', '10.255.255.2'      # exist in the namespaces only
FAR_NAME = 'sink.example.com'


def leave_namespace(flags=CLONE_NEWNET):
    """Moves this process into new namespaces, or raises OSError."""
    unshare = getattr(ctypes.CDLL(None, use_errno=True), 'unshare', None)
    if unshare is None or unshare(flags):
        raise OSError(ctypes.get_errno(), 'no new namespace')


def enter_private_network(folder):
    """Gives this process a network and a hosts file of its own, if it may."""
    try:
        leave_namespace(CLONE_NEWNET | CLONE_NEWNS)
        hosts = pathlib.Path(folder, 'hosts')
        hosts.write_text(f'127.0.0.1 localhost\n{FAR} {FAR_NAME}\n')
        for command in (['mount', '--make-rprivate', '/'],
                        ['mount', '--bind', str(hosts), '/etc/hosts'],
                        ['ip', 'link', 'set', 'lo', 'up']):
            subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return False
    return True


def open_tun(name):
    """Creates a tun device and returns its file descriptor."""
    device = os.open('/dev/net/tun', os.O_RDWR)
    fcntl.ioctl(device, TUNSETIFF,
                struct.pack('16sH22x', name.encode(), IFF_TUN | IFF_NO_PI))
    return device


def run_link(delay, far_process, pipe):
    """Joins this namespace with another; the body of the link's process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    near, far = open_tun('near'), open_tun('far')
    there = ['nsenter', '--net', f'--target={far_process}']
    for command in (
            ['ip', 'link', 'set', 'far', 'netns', str(far_process)],
            ['ip', 'address', 'add', NEAR, 'peer', FAR, 'dev', 'near'],
            ['ip', 'link', 'set', 'near', 'up'],
            there + ['ip', 'address', 'add', FAR, 'peer', NEAR, 'dev', 'far'],
            there + ['ip', 'link', 'set', 'far', 'up']):
        subprocess.run(command, check=True)
    pipe.send('ready')
    waiting = collections.deque()        # (time to leave, device, packet)
    other = {near: far, far: near}
    while True:
        pause = max(0, waiting[0][0] - time.monotonic()) if waiting else None
        for device in select.select([near, far], [], [], pause)[0]:
            packet = os.read(device, 65536)
            due = time.monotonic() + delay.value / 2
            waiting.append((due, other[device], packet))
        while waiting and waiting[0][0] <= time.monotonic():
            _, device, packet = waiting.popleft()
            os.write(device, packet)


def run_relay(delay, port, pipe):
    """Passes octets on to the sink's port; the body of the relay's process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    async def pump(reader, writer):
        data = True
        while data:
            try:
                data = await reader.read(65536)
            except OSError:
                data = b''
            act = (writer.write, data) if data else (writer.close,)
            asyncio.get_running_loop().call_later(delay.value / 2, *act)

    async def meet(reader, writer):
        sink = await asyncio.open_connection('127.0.0.1', port)
        await asyncio.gather(pump(reader, sink[1]), pump(sink[0], writer))

    async def serve():
        server = await asyncio.start_server(meet, '127.0.0.1', 0)
        pipe.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(serve())


DELAYS = {
    'netem': 'netem on the loopback device of a network namespace',
    'link': 'a link between two network namespaces (connecting is delayed)',
    'relay': 'a relay (connecting is not delayed: one round trip less)',
}


class Network:
    """The sinks and the delay between them and the clients."""

    def __init__(self, folder, authority, kind=None):
        """Starts sinks, and the best delay that works or the one named."""
        self.processes = []
        self.sessions = []
        self.delay = multiprocessing.Value('d', 0.0)
        self.certificate = os.path.join(folder, 'sink.pem')
        names = 'localhost', '127.0.0.1', '::1', FAR_NAME
        authority.issue_cert(*names).private_key_and_cert_chain_pem \
            .write_to_path(self.certificate)
        self.private = kind != 'relay' and enter_private_network(folder)
        _, self.near = self._start(run_sink, self.certificate, self.delay,
                                   last=(False,), report=True)
        self.kind, self.far = self._open_delay(kind)

    def _start(self, body, *arguments, last=(), report=False):
        """Starts a process and waits for the first thing that it tells."""
        ours, theirs = multiprocessing.Pipe(False)
        process = multiprocessing.Process(
            target=body, args=(*arguments, theirs, *last), daemon=True)
        process.start()
        theirs.close()
        self.processes.append(process)
        if report:
            self.sessions.append(ours)
        if not ours.poll(20):
            raise OSError(f'{body.__name__} did not start')
        return process, ours.recv()

    def _set_netem(self, rtt):
        command = ['tc', 'qdisc', 'del', 'dev', 'lo', 'root']
        if rtt:
            command[2] = 'replace'
            command += f'netem delay {rtt * 500}ms limit 100000'.split()
        return self.private and subprocess.run(
            command, stderr=subprocess.DEVNULL).returncode == 0

    def _open_delay(self, kind):
        """Returns the kind of the delay, and host and port behind it."""
        if kind in (None, 'netem') and self._set_netem(0.001):
            return 'netem', ('localhost', self.near)
        if kind in (None, 'link') and self.private:
            with contextlib.suppress(OSError, EOFError):
                sink, port = self._start(run_sink, self.certificate,
                                         self.delay, last=(True,), report=True)
                self._start(run_link, self.delay, sink.pid)
                return 'link', (FAR_NAME, port)
        _, port = self._start(run_relay, self.delay, self.near)
        return 'relay', ('localhost', port)

    def place(self, rtt):
        """Sets the round trip time in seconds; returns host and port."""
        self.delay.value = rtt
        if self.kind == 'netem':
            self._set_netem(rtt)
        return self.far if rtt else ('localhost', self.near)

    def sessions_seen(self, patience=2.0):
        """Returns what the sinks saw, up to the first whole message."""
        deadline = time.monotonic() + patience
        found = []
        while not any(one['octets'] for one in found):
            wait = max(0, deadline - time.monotonic())
            pipes = multiprocessing.connection.wait(self.sessions, wait)
            if not pipes:
                break
            for pipe in pipes:
                found.append(pipe.recv())
        return found

    def close(self):
        """Ends the processes, and the namespaces with them."""
        for process in self.processes:
            process.terminate()
            process.join()
