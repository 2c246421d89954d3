"""Every file in dialogues/ is a session that smtp.py has to hold."""

import socket

import pytest

from support import checks, dialogue

FILES = sorted(dialogue.DIALOGUES.glob('*/*.txt'))


@pytest.mark.parametrize(
    'path', FILES, ids=lambda path: f'{path.parent.name}/{path.stem}')
def test_dialogue(path, play):
    """Play the file; compare wire, exit code, verdict, words and secrets."""
    told = dialogue.parse(path.read_text('utf-8'))
    result, player = play(told, '--verbose')
    secret = told.setting('token') or told.setting('password',
                                                   dialogue.PASSWORD)
    checks.check(
        result, int(told.setting('exit', '0')), *told.settings.get('says', []),
        absent=told.settings.get('not', []), who=told.setting('who'),
        secrets=[*checks.SECRETS, *[secret] * (len(secret) >= 8)])
    for key, text in (('prints', result.text), ('shows', result.err)):
        for word in told.settings.get(key, []):
            assert checks.says(word, text), f'{word} is not in: {text}'
    for word in told.settings.get('hides', []):
        assert word not in result.err, result.err
    check_message(told, player)
    assert set(player.secrets) <= {secret.encode()}
    checks.hidden([player.clear], secret)


def check_message(told, player):
    """SIZE counted its octets, and its text arrived as it was given."""
    if player.message is None or not player.dot_received:
        assert told.setting('exit', '0') != '0' or '--check' in told.setting(
            'run')
        return
    assert set(player.sizes) <= {len(player.message)}
    assert player.message.startswith(b'From: ')
    text = '\r\n'.join(told.settings.get('text', [dialogue.TEXT]))
    assert player.message.endswith(f'\r\n\r\n{text}\r\n'.encode())


@pytest.mark.parametrize('lines', [
    ['.' * length for length in range(1, 900)], ['.'] * 40_000,
    ['', '.', 'a.', '..a'] * 9000], ids=['longer', 'alone', 'mixed'])
def test_dots_wherever_a_chunk_begins(lines, play, folder):
    """A message leaves in pieces, and each may begin with a dot."""
    told = dialogue.parse((dialogue.DIALOGUES / 'login/accepted_and_sent.txt'
                           ).read_text('utf-8'))
    told.settings['text'] = lines
    (folder / 'text').write_text('\n'.join(lines))
    result, player = play(told, '--body', '@text')
    checks.check(result, 0)
    check_message(told, player)


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
HELLO = b'EHLO [127.0.0.1]\r\n'
ENVELOPE = b'MAIL FROM:<alice@example.com> SIZE=4\r\nDATA\r\n'


@pytest.mark.parametrize('said, wanted', [
    ([HELLO, ENVELOPE, b'Hi\r\n.\r\n'], ''),
    ([b'EHLO [IPv6:::1]\r\n', ENVELOPE, b'..Hi\r\n.\r\n'], ''),
    ([b'EHLO a.example\r\n'], 'C: EHLO a.example'),
    ([b'EHLO [127.0.0.1]\n'], 'bare LF'),
    ([HELLO + b'NOOP\r\n'], 'C: NOOP   # without waiting'),
    ([HELLO, b'NOOP\r\n'], 'C: NOOP'),
    ([HELLO, b'MAIL FR'], "hangs up after b'MAIL FR'"),
    ([HELLO, ENVELOPE, b'Hi\r\n'], 'hangs up'),
    ([HELLO, ENVELOPE, b'Hi\r\n.\r\n', b'QUIT\r\n'], 'C: QUIT'),
    ([], 'hangs up'), (None, '-- no client connects'),
])
def test_the_player_notices(said, wanted, server_context):
    """A client that does it wrong, or never connects, does not pass."""
    with dialogue.playing(SHORT, server_context) as player:
        if said is not None:
            with socket.create_connection(('127.0.0.1', player.port)
                                          ) as client:
                client.settimeout(5)
                for octets in said:
                    client.recv(4096)
                    client.sendall(octets)
                client.shutdown(socket.SHUT_WR)
                while client.recv(4096):
                    pass
    assert bool(player.mismatch) == bool(wanted), player.difference()
    assert wanted in (player.mismatch or '')
    assert wanted or player.dot_received


@pytest.mark.parametrize('text, octets', [
    ('250 ok', b'250 ok\r\n'), (r'250 ok\n', b'250 ok\n'),
    ('250 o\\', b'250 o'), (r'250 \x1b[1m', b'250 \x1b[1m\r\n'),
    (r'250 \u202ex', '250 \u202ex\r\n'.encode()), ('', b'\r\n'),
    (r'250 a\\b', b'250 a\\b\r\n'), (r'250 a\r', b'250 a\r\r\n'),
])
def test_octets_of_server_lines(text, octets):
    """What a server line of a file stands for on the wire."""
    assert dialogue.octets_of(text) == octets


def test_what_is_no_dialogue():
    """A line of no kind is an error of the file, not a comment."""
    for line in 'X: what', 'exits: 77', 'S:250', '--closes':
        with pytest.raises(ValueError, match='neither'):
            dialogue.parse(f'S: 220 hello\n{line}\n')
