"""Every file in dialogues/ is a session that smtp.py has to hold.

`scripted` tells how such a file is written. A transcript that `smtp.py -v`
printed somewhere, saved there as a .txt file, is such a test as it is.
"""

import base64
import pathlib
import re
import socket
import ssl
from typing import Any, Callable, Iterator

import pytest
import scripted

import smtp

DIALOGUES = sorted(
    (pathlib.Path(__file__).parent / 'dialogues').glob('*.txt'))
VERDICTS = {0: r'\ASent to ', 74: r'(?m)^smtp\.py: May have been sent: '}
NOT_SENT = r'(?m)^smtp\.py: Not sent: '

Run = Callable[..., Any]


@pytest.mark.parametrize('path', DIALOGUES, ids=lambda path: path.stem)
def test_dialogue(path: pathlib.Path, run_main: Run, ca_file: str,
                  server_context: ssl.SSLContext) -> None:
    """Play the file; compare wire, exit code, verdict, words and secrets."""
    dialogue = scripted.load(path)
    with scripted.playing(dialogue, server_context) as player:
        done = hold(dialogue, player, run_main, ca_file)
    assert not player.mismatch, player.difference() + '\n' + done.stderr
    check_outputs(dialogue, done)
    check_message(dialogue, player)
    check_secrets(dialogue, player, done)


def hold(dialogue: scripted.Dialogue, player: scripted.Player,
         run_main: Run, ca_file: str) -> Any:
    """Let smtp.py hold its side of the dialogue."""
    return run_main(
        '--server', 'localhost', '-4', '--port', str(player.port),
        '--ca-file', ca_file, '--timeout', '10', '--verbose',
        *dialogue.arguments(),
        password=dialogue.setting('password', scripted.PASSWORD))


def check_outputs(dialogue: scripted.Dialogue, done: Any) -> None:
    """The exit code, its one verdict, and the words that the file asks for."""
    expected = int(dialogue.setting('exit', '0'))
    assert done.returncode == expected, done.stderr
    output = done.stdout if expected == 0 else done.stderr
    verdict = VERDICTS.get(expected, NOT_SENT)
    assert len(re.findall(verdict, output)) == 1, output
    for key, text in (('says', done.stderr), ('prints', done.stdout)):
        for wanted in dialogue.settings.get(key, []):
            assert wanted in text or re.search(wanted, text), \
                f'{wanted} is not in: {text}'


def check_message(dialogue: scripted.Dialogue,
                  player: scripted.Player) -> None:
    """SIZE counted its octets, and its text arrived as it was given."""
    if player.message is None or not player.dot_received:
        assert dialogue.setting('exit', '0') != '0'
        return
    assert set(player.sizes) <= {len(player.message)}
    assert player.message.startswith(b'From: ')
    text = '\r\n'.join(dialogue.settings.get('text', [scripted.TEXT]))
    assert player.message.endswith(f'\r\n\r\n{text}\r\n'.encode())


def check_secrets(dialogue: scripted.Dialogue, player: scripted.Player,
                  done: Any) -> None:
    """The password reached the server, under TLS, and no output."""
    password = dialogue.setting('password', scripted.PASSWORD).encode()
    assert set(player.secrets) <= {password}
    for form in (password.decode(), *base64_forms(password)):
        assert form not in done.stdout + done.stderr
        assert form not in player.clear


def base64_forms(secret: bytes) -> Iterator[str]:
    """Yield what is common to all base64 of texts with this secret in them."""
    for before in range(3):
        coded = base64.b64encode(bytes(before) + secret).decode()
        # the first and the last four characters depend on what is around
        yield coded[4 if before else 0:-4]


def test_transcript_is_a_dialogue(run_main: Run, ca_file: str,
                                  server_context: ssl.SSLContext) -> None:
    """What -v prints can be saved as a dialogue, and is held once more."""
    path = next(path for path in DIALOGUES if path.stem == 'office365')
    dialogue = scripted.load(path)
    with scripted.playing(dialogue, server_context) as player:
        first = hold(dialogue, player, run_main, ca_file)
    transcript = '\n'.join(line for line in first.stderr.split('\n')
                           if re.match(r'[CS]:( |$)|-- ', line))
    pasted = scripted.parse(transcript)
    assert [event.kind for event in pasted.events if event.kind == 'tls']
    with scripted.playing(pasted, server_context) as player:
        second = hold(pasted, player, run_main, ca_file)
    assert not player.mismatch, player.difference()
    assert second.returncode == first.returncode == 0


@pytest.mark.parametrize('mechanism', ['login', 'plain'])
@pytest.mark.parametrize('password', [
    'a', '2', '250', ' ', '-', ' OK ', '250 ok', 'AUTH', 'LOGIN', 'PLAIN',
    'STARTTLS', 'SIZE', '********', 'C:', '=', '\u2603', '\\', '%s {0}',
    'x' * 3000], ids=lambda text: text[:9])
def test_any_password(password: str, mechanism: str, run_main: Run,
                      ca_file: str, server_context: ssl.SSLContext) -> None:
    """However short or odd, it arrives; masking it disturbs no reply."""
    begin = ('C: AUTH PLAIN' if mechanism == 'plain' else
             'C: AUTH LOGIN YWxpY2VAZXhhbXBsZS5jb20=')
    if mechanism == 'plain' and len(password) < 300:
        begin += ' ********'
    else:
        begin += '\nS: 334 \nC: ********'
    echo = password.replace('\\', '\\\\')
    dialogue = scripted.parse(f"""
run: --auth {mechanism}
exit: 69
S: 220 250 a
C: EHLO <name>
S: 250-2 a
S: 250 STARTTLS
C: STARTTLS
S: 220 a
-- TLS begins
C: EHLO <name>
S: 250-a
S: 250-SIZE 0
S: 250 AUTH LOGIN PLAIN
{begin}
S: 235 ok 250
C: MAIL FROM:<alice@example.com> SIZE=<size>
S: 250-a
S: 250 ok
C: RCPT TO:<bob@example.org>
S: 250 a
C: DATA
S: 354 a
C: <message>
C: .
S: 554 ok {echo} a
C: QUIT
S: 221 a
""")
    dialogue.settings['password'] = [password]
    with scripted.playing(dialogue, server_context) as player:
        done = hold(dialogue, player, run_main, ca_file)
    assert not player.mismatch, player.difference() + '\n' + done.stderr
    assert player.secrets == [password.encode()]
    assert done.returncode == 69
    if len(password) > 9:
        assert password not in done.stderr


@pytest.mark.parametrize('chunk, stuffed', [
    (b'a\r\n', b'a\r\n'), (b'.\r\n', b'..\r\n'), (b'', b''),
    (b'.a.\r\n', b'..a.\r\n'), (b'..\r\n.\r\n', b'...\r\n..\r\n'),
    (b'a\r\n\r\n.b\r\n.\r\n', b'a\r\n\r\n..b\r\n..\r\n'),
])
def test_dot_stuffing_of_chunks(chunk: bytes, stuffed: bytes) -> None:
    """Each chunk begins a line, so its first dot is doubled as well."""
    assert smtp.dot_stuff(chunk) == stuffed


SHORT = r"""
S: 220 hello
C: EHLO <name>
S: 250-PIPELINING
S: 250 SIZE
C: MAIL FROM:<alice@example.com> SIZE=<size>
C: DATA
S: 250 ok
S: 354 go on
C: <message>
C: .
S: 250 ok
"""
ENVELOPE = b'MAIL FROM:<alice@example.com> SIZE=4\r\nDATA\r\n'


@pytest.mark.parametrize('said, wanted', [
    ([b'EHLO a.example\r\n', ENVELOPE, b'Hi\r\n.\r\n'], None),
    ([b'EHLO [IPv6:::1]\r\n', ENVELOPE, b'..Hi\r\n.\r\n'], None),
    ([b'EHLO localhost\r\n'], 'C: EHLO localhost'),
    ([b'EHLO a.example\n'], 'bare LF'),
    ([b'EHLO a.example\r\nNOOP\r\n'], 'C: NOOP   # without waiting'),
    ([b'EHLO a.example\r\n', b'NOOP\r\n'], 'C: NOOP'),
    ([b'EHLO a.example\r\n', b'MAIL FR'], "hangs up after b'MAIL FR'"),
    ([b'EHLO a.example\r\n', ENVELOPE, b'Hi\r\n'], 'hangs up'),
    ([b'EHLO a.example\r\n', ENVELOPE, b'Hi\r\n.\r\n', b'QUIT\r\n'],
     'C: QUIT'),
    ([], 'hangs up'),
])
def test_scripted_server_notices(said: 'list[bytes]', wanted: 'str | None',
                                 server_context: ssl.SSLContext) -> None:
    """The judge is judged: a client that does it wrong does not pass."""
    with scripted.playing(SHORT, server_context) as player:
        with socket.create_connection(('127.0.0.1', player.port)) as client:
            client.settimeout(5)
            for octets in said:
                client.recv(4096)
                client.sendall(octets)
            client.shutdown(socket.SHUT_WR)
            while client.recv(4096):
                pass
    if wanted is None:
        assert player.mismatch is None, player.difference()
        assert player.dot_received
    else:
        assert player.mismatch is not None and wanted in player.mismatch


def test_scripted_server_alone(server_context: ssl.SSLContext) -> None:
    """A client that never connects is noticed, and not waited for."""
    with scripted.playing(SHORT, server_context) as player:
        pass
    assert player.mismatch == '-- nobody connects'


@pytest.mark.parametrize('text, octets', [
    ('250 ok', b'250 ok\r\n'), (r'250 ok\n', b'250 ok\n'),
    ('250 o\\', b'250 o'), (r'250 \x1b[1m', b'250 \x1b[1m\r\n'),
    (r'250 \u202ex', '250 \u202ex\r\n'.encode()), ('', b'\r\n'),
    (r'250 a\\b', b'250 a\\b\r\n'), (r'250 a\r', b'250 a\r\r\n'),
])
def test_octets_of_server_lines(text: str, octets: bytes) -> None:
    """What a server line of a file stands for on the wire."""
    assert scripted.octets_of(text) == octets
