r"""A small SMTP server that plays one dialogue from a text file, once.

A dialogue is written as the RFCs write theirs, and as `smtp.py -v` prints its
transcript, so that a transcript from the field can be pasted in as a test:

    # What this dialogue shows, and where the RFC says so.
    run: --auth plain                 further arguments of smtp.py
    exit: 77                          its exit code (0 unless said otherwise)
    says: credentials were incorrect  text, or a regular expression, that its
                                      standard error holds (may be repeated)
    prints: queued as 9F1             the same for its standard output
    text: Hello Bob!                  a line of the text to send (repeated)
    password: open sesame             the password that the masks stand for

    S: 220 mail.example.com ESMTP     what the server sends
    C: EHLO <name>                    what the client has to send, exactly
    -- TLS begins                     the handshake, with the server's part
    C: AUTH PLAIN ********            a masked secret: any line that fits, and
                                      the test decodes and compares it
    -- closes                         the server ends the connection (`resets`
                                      cuts it, `says nothing` lets it wait)

Consecutive `C:` lines are one pipelined group: the server answers only where
the file says `S:`, and a client that talks on before the answer that the file
has next is at fault. At the end of the file the client has to hang up.

Within `C:` lines `<name>` is any name that EHLO may carry, and `<size>` (or a
number after `SIZE=`) the octets of the message as it arrives afterwards. A
line `<message>` is everything up to the final dot; a message that is written
out is compared line by line, where Date and Message-ID may have any value and
a narration line stands for lines left out. `{1..99}` repeats a line with each
of these numbers. Within `S:` lines `\x1b`, `\u202e` and the like are those
characters; a line that ends in `\n` ends in a bare LF, and one that ends in a
backslash does not end at all. From two spaces and `# ` on a line is a comment,
and `-- ` begins a narration line; both are there for the reader.
"""

import base64
import binascii
import contextlib
import dataclasses
import difflib
import pathlib
import re
import shlex
import socket
import ssl
import threading
from typing import Dict, Iterator, List, Optional, Sequence, Tuple, Union

from wire import PATIENCE, HungUp, Mismatch, Wire

FROM, TO = 'alice@example.com', 'bob@example.org'
PASSWORD = 'open sesame, please'
TEXT = 'Hello Bob!'

SETTINGS = ('run', 'exit', 'says', 'prints', 'text', 'password')
ACTIONS = {  # the narration lines that are more than narration
    'TLS begins': 'tls',
    'closes': 'close', 'resets': 'reset', 'says nothing': 'silence',
    'The server closes': 'close', 'The server closed': 'close',
}
MASK = '********'
NAME = re.compile(  # RFC 5321, section 4.1.2: a domain or an address literal
    r'(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)+'
    r'|\[(?:\d+\.\d+\.\d+\.\d+|IPv6:[0-9a-f:.]+)\])', re.IGNORECASE)


@dataclasses.dataclass
class Event:
    """One line of the dialogue: who does what."""

    kind: str  # 'S', 'C', 'note', or one of the values of ACTIONS
    text: str  # the line as the file has it, its comment stripped
    line: str  # the whole line, for showing what went wrong


@dataclasses.dataclass
class Dialogue:
    """A dialogue file: what it shows, its settings and its events."""

    name: str
    purpose: str
    settings: Dict[str, List[str]]
    events: List[Event]

    def setting(self, key: str, default: str = '') -> str:
        """Return the last value that was given for `key`."""
        return self.settings.get(key, [default])[-1]

    def sent_by_client(self, pattern: str) -> List[str]:
        """Return what `pattern` catches in each `C:` line, each once."""
        found = (re.match(pattern, event.text) for event in self.events
                 if event.kind == 'C')
        return list(dict.fromkeys(match.group(1) for match in found if match))

    def arguments(self) -> List[str]:
        """Return what smtp.py is called with, the place of the server aside.

        Whoever sends and receives follows from the dialogue itself unless
        `run:` says so; a transcript can be played without any setting.
        """
        given = shlex.split(self.setting('run'))
        return given + [
            part for options, parts in self._from_the_dialogue().items()
            if not set(options).intersection(given) for part in parts]

    def _from_the_dialogue(self) -> Dict[Tuple[str, ...], List[str]]:
        """Return the arguments that `run:` may leave out, by option."""
        message = ('--message',)
        sender = self.sent_by_client(r'MAIL FROM:<(.*?)>') or [FROM]
        name = self.sent_by_client(r'EHLO ([^<]*)$')
        arguments: Dict[Tuple[str, ...], List[str]] = {
            ('-f', '--from') + message: ['--from', sender[0]],
            ('-t', '--to', '-c', '--cc', '-b', '--bcc') + message: [
                part for to in self.sent_by_client(r'RCPT TO:<(.*?)>') or [TO]
                for part in ('--to', to)],
            ('-s', '--subject') + message: ['--subject', 'Greetings'],
            ('--body',) + message: [
                '--body', '\n'.join(self.settings.get('text', [TEXT]))],
        }
        if name:
            arguments[('--ehlo',)] = ['--ehlo', name[0]]
        if self.events and self.events[0].kind == 'tls':
            arguments[('--tls',)] = ['--tls', 'implicit']
        return arguments


def load(path: pathlib.Path) -> Dialogue:
    """Read a dialogue file."""
    return parse(path.read_text(encoding='utf-8'), path.stem)


def parse(text: str, name: str = 'dialogue') -> Dialogue:
    """Read a dialogue; raise ValueError for a line that is of no kind."""
    purpose: List[str] = []
    settings: Dict[str, List[str]] = {}
    events: List[Event] = []
    in_message = False
    for line in text.split('\n'):
        setting = re.match(r'([a-z]+):(?: +|$)(.*)', line)
        if not line.strip():
            continue
        if line.startswith('#') and not events:
            purpose.append(line.lstrip('# '))
        elif setting and setting.group(1) in SETTINGS and not events:
            settings.setdefault(setting.group(1), []).append(setting.group(2))
        elif re.match(r'[CS]:( |$)', line):
            # Within the message the same characters are part of its text.
            in_message = in_message and not line.startswith('S:')
            if not in_message:
                line = re.sub(r'(?<=\S) {2,}# .*', '', line)
            in_message = in_message or line.startswith('S: 354')
            events += [Event(line[0], one[3:], one)
                       for one in _repeated(line)]
        elif line.startswith('-- ') or line == '--':
            events.append(_narration(line))
        else:
            raise ValueError(f'{name}: neither setting nor dialogue: {line}')
    return Dialogue(name, ' '.join(purpose), settings, events)


def _repeated(line: str) -> List[str]:
    """Return the lines that `{1..99}` in a line stands for."""
    numbers = re.search(r'\{(\d+)\.\.(\d+)\}', line)
    if not numbers:
        return [line]
    first, last = (int(number) for number in numbers.groups())
    return [line.replace(numbers.group(), str(number))
            for number in range(first, last + 1)]


def _narration(line: str) -> Event:
    """Return a narration line as the event that it is."""
    for words, kind in ACTIONS.items():
        if re.match(re.escape(words) + r'\b', line[3:]):
            return Event(kind, line[3:], line)
    return Event('note', line[3:], line)


class Player(threading.Thread):
    """Plays a dialogue to the one client that connects."""

    def __init__(self, dialogue: Dialogue, context: ssl.SSLContext) -> None:
        """Listen on a free port of 127.0.0.1; `start` begins to play."""
        super().__init__(daemon=True, name=dialogue.name)
        self.dialogue = dialogue
        self.context = context
        self.listener = socket.create_server(('127.0.0.1', 0))
        self.listener.settimeout(0.05)
        self.over = threading.Event()    # set when no client will come
        self.port: int = self.listener.getsockname()[1]
        self.played: List[str] = []      # the dialogue as it went
        self.mismatch: Optional[str] = None
        self.message: Optional[bytes] = None  # as sent, dots unstuffed
        self.dot_received = False
        self.secrets: List[bytes] = []   # what stood behind the masks
        self.clear = ''                  # what the client said outside TLS
        self.sizes: List[int] = []       # what MAIL announced

    def run(self) -> None:
        """Play all events, then wait for the client to hang up."""
        connection = self._accept()
        if connection is None:
            self.mismatch = '-- nobody connects'
            return
        wire = Wire(connection)
        try:
            self._play(wire)
        except Mismatch as mismatch:
            self.mismatch = str(mismatch)
            self.played.append(self.mismatch)
        finally:
            wire.close()

    def _accept(self) -> Optional[socket.socket]:
        """Return the first connection, None if the client ends without one."""
        with self.listener:
            while True:
                over = self.over.is_set()  # it may have come and gone by now
                with contextlib.suppress(socket.timeout):
                    return self.listener.accept()[0]
                if over:
                    return None

    def _play(self, wire: Wire) -> None:
        """Play the events, each by its own few lines."""
        events = self.dialogue.events
        position = 0
        while position < len(events):
            event = events[position]
            reached = position
            if event.kind == 'S':
                position = self._answer(wire, position)
            elif event.kind == 'C':
                position = self._listen(wire, position)
            else:
                self._act(wire, event)
                position += 1
            self.played += [event.line for event in events[reached:position]]
        if not wire.ended:
            self._goodbye(wire)

    def _goodbye(self, wire: Wire) -> None:
        """Wait until the client hangs up; it has nothing left to say."""
        rest, hung_up = wire.drain()
        if rest:
            line = rest.decode('utf-8', 'backslashreplace')
            raise Mismatch('C: ' + line.rstrip('\r\n'))
        if not hung_up:
            raise Mismatch('-- the client does not hang up')

    def _answer(self, wire: Wire, position: int) -> int:
        """Send all the server's lines from here on in one write."""
        events = self.dialogue.events
        if position and events[position - 1].kind == 'C' and wire.talks_on():
            raise Mismatch(f'C: {wire.read_line()}   # without waiting')
        octets = b''
        while position < len(events) and events[position].kind == 'S':
            octets += octets_of(events[position].text)
            position += 1
        wire.send(octets)
        return position

    def _listen(self, wire: Wire, position: int) -> int:
        """Compare one line of the client's, or its whole message."""
        event = self.dialogue.events[position]
        if self._begins_message(position):
            return self._listen_to_message(wire, position)
        line = wire.read_line()
        if not wire.secure:
            self.clear += line + '\r\n'
        self._compare(event, line)
        return position + 1

    def _begins_message(self, position: int) -> bool:
        """Tell whether this is the first line after a 354."""
        before = next((event for event in self.dialogue.events[:position][::-1]
                       if event.kind != 'note'), None)
        return bool(before and before.kind == 'S'
                    and before.text.startswith('354')
                    and self.message is None)

    def _compare(self, event: Event, line: str) -> None:
        """Raise Mismatch unless the line is what the file says."""
        pattern = re.escape(event.text)
        pattern = pattern.replace(re.escape('<name>'), NAME.pattern)
        pattern = pattern.replace(re.escape('<size>'), r'(\d+)')
        pattern = re.sub(r'(SIZE=)\d+', r'\1(\\d+)', pattern)
        pattern = pattern.replace(re.escape(MASK), r'(\S+)')
        matched = re.fullmatch(pattern, line)
        if not matched:
            raise Mismatch('C: ' + line)
        if MASK in event.text:
            self.secrets.append(secret_of(matched.group(1)))
        elif 'SIZE=' in event.text:
            self.sizes.append(int(matched.group(1)))

    def _listen_to_message(self, wire: Wire, position: int) -> int:
        """Take lines up to the final dot, then compare what the file has."""
        events = self.dialogue.events
        lines: List[str] = []
        self.message = b''
        last = position
        while events[last].kind in ('C', 'note') and events[last].text != '.':
            last += 1
        cut_off = events[last].kind != 'C'  # the file ends within the message
        while not lines or lines[-1] != '.':
            try:
                lines.append(wire.read_line())
            except HungUp:
                if cut_off:
                    break
                self.played += ['C: ' + line for line in lines]
                raise
        else:
            self.dot_received = True
        sent = [line for line in lines if line != '.']
        self.message = b''.join(
            line[line.startswith('.'):].encode() + b'\r\n' for line in sent)
        written = events[position:last]
        if [event.text for event in written] != ['<message>']:
            self._compare_message(written, sent)
        return last + (not cut_off)

    def _compare_message(self, written: Sequence[Event],
                         sent: Sequence[str]) -> None:
        """Compare a message that the file writes out, as far as it does."""
        rest = list(sent)
        may_skip = False
        for event in written:
            if event.kind == 'note':
                may_skip = True
                continue
            while may_skip and rest and not _alike(event.text, rest[0]):
                rest.pop(0)
            if not rest or not _alike(event.text, rest[0]):
                raise Mismatch('C: ' + (rest[0] if rest else '.'))
            rest.pop(0)
            may_skip = False
        if rest and not may_skip:
            raise Mismatch('C: ' + rest[0])

    def _act(self, wire: Wire, event: Event) -> None:
        """Do what a narration line stands for."""
        if event.kind == 'tls':
            wire.start_tls(self.context)
        elif event.kind == 'close':
            wire.close()
        elif event.kind == 'reset':
            wire.reset()
        elif event.kind == 'silence':
            self._goodbye(wire)

    def difference(self) -> str:
        """Return how the session went, beside how it should have gone."""
        expected = [event.line for event in self.dialogue.events]
        return '\n'.join(difflib.ndiff(expected, self.played))


def octets_of(text: str) -> bytes:
    """Return what the server sends for an `S:` line."""
    ends = not text.endswith(('\\n', '\\'))
    if text.endswith('\\') and not text.endswith('\\n'):
        text = text[:-1]
    octets = re.sub(
        rb'\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|([rnt\\]))',
        lambda match: (
            bytes([int(match.group(1), 16)]) if match.group(1)
            else chr(int(match.group(2), 16)).encode() if match.group(2)
            else {b'r': b'\r', b'n': b'\n', b't': b'\t',
                  b'\\': b'\\'}[match.group(3)]),
        text.encode())
    return octets + b'\r\n' * ends


def secret_of(text: str) -> bytes:
    """Return the password within the base64 of LOGIN or PLAIN."""
    try:
        decoded = base64.b64decode(text, validate=True)
    except binascii.Error:
        return text.encode()
    return decoded.split(b'\0')[-1]


def _alike(written: str, sent: str) -> bool:
    """Compare two lines of a message; these two fields never repeat."""
    for field in ('Date: ', 'Message-ID: '):
        if written.startswith(field):
            return sent.startswith(field)
    return written == sent


@contextlib.contextmanager
def playing(dialogue: Union[Dialogue, str],
            context: ssl.SSLContext) -> Iterator[Player]:
    """Play a dialogue during the `with` block, and to its end after it."""
    if isinstance(dialogue, str):
        dialogue = parse(dialogue)
    player = Player(dialogue, context)
    player.start()
    try:
        yield player
    finally:
        player.over.set()
        player.join(2 * PATIENCE)
    assert not player.is_alive(), 'the scripted server did not end'
