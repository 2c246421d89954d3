"""The transcript of -v and --explain: the wire as it was, and readable."""

import base64
import difflib
import re

import pytest

from support import checks, dialogue
from support.dialogue import BEGINS, LOGIN, ONE_BY_ONE, QUIT, SESSION

GOLDEN = dialogue.DIALOGUES.parent / 'messages' / 'golden'
LINES = '\n'.join(['Grüße', '.', '', *map('line {}'.format, range(4, 51))])
VARIES = [   # what no two sessions have in common
    (r'EHLO \[.*\]', 'EHLO [192.0.2.7]'), (r'(SIZE=)\d+', r'\g<1>2026'),
    ('(?<=Date: ).*', 'Mon, 23 Nov 2026 12:00:00 +0100'),
    ('[0-9a-f]{24,32}', '1d'), (r'( {3}# |, )\d+ ms\n', '\n'),
    (r'TLSv1\.[23], \S+', 'TLSv1.3, TLS_AES_256_GCM_SHA384')]
# Each version of Python has its own layout of --help, around the same words.
HELP = [("(-[a-zH]) ('NAME: VALUE'|[A-Z]+), --", r'\1, --'),
        ('optional arguments:', 'options:'), (r'\s+', ' ')]


@pytest.mark.parametrize('name, told', [
    ('verbose', SESSION), ('explain', ONE_BY_ONE), ('help', '')])
def test_golden(name, told, play, call, folder):
    """What people see, as a whole."""
    (folder / 'picture.png').write_bytes(bytes(range(256)) * 16)
    if told:
        result, _ = play(told, f'--{name}', '--body', LINES, '-a',
                         'picture.png', '--subject', 'Grüße')
        assert re.fullmatch(r'Sent to bob@example\.org: 250 .*\n', result.text)
        assert max(map(len, re.findall('(?m)^--.*', result.err))) <= 80
    else:
        result = call('--help', env={'COLUMNS': '80', 'NO_COLOR': '1'})
    seen = result.err or result.text
    for pattern, text in VARIES:
        seen = re.sub(pattern, text, seen)
    path, new = GOLDEN / f'{name}.txt', folder.parent / f'{name}.txt'
    new.write_text(seen, encoding='utf-8')
    wanted = path.read_text(encoding='utf-8')
    for pattern, text in HELP if name == 'help' else []:
        seen, wanted = (re.sub(pattern, text, each) for each in (seen, wanted))
    assert seen == wanted, '\n'.join(difflib.ndiff(
        wanted.split('\n'), seen.split('\n'))) + f'\ncp {new} {path}'


@pytest.mark.parametrize('count', [1, 90, *range(12, 30)])
def test_it_is_the_wire(count, play):
    """Every line of both sides, in order; what is left out is counted."""
    text = '\n'.join(f'.{number} AUTH LOGIN YQ==' for number in range(count))
    result, player = play(SESSION, '-v', '--body', text)
    sent = re.sub(r'(?m)^\.', '..', player.message.decode()).split('\r\n')
    wire = SESSION.replace('<size>', str(player.sizes[0])).replace(
        '<message>', '\nC: '.join(sent[:-1])).replace('<name>', '[127.0.0.1]')
    lines = [line for line in wire.split('\n') if line[:1] in ('C', 'S')]
    left_out = re.findall(r'(?m)^-- \(([\d,]+) more lines\)$', result.err)
    assert len(left_out) in ({1: [0], 90: [1]}.get(count, [0, 1]))
    assert len(result.lines) + sum(map(int, left_out)) == len(lines)
    rest = iter(lines)
    assert all(line in rest for line in result.lines), result.err
    assert 'C: ..0 AUTH LOGIN YQ==\n' in result.err     # that is no login


def test_base64_has_its_meaning_beside_it(play):
    """User name and challenges, whatever they hold; the password never."""
    name, challenge = dialogue.USER, 'VXNlcjobAA=='     # User: ESC NUL
    result, _ = play(SESSION.replace(
        f' {name}', f' {name}\nS: 501 5.5.4 Not here\nC: AUTH LOGIN\n'
        f'S: 334 {challenge}\nC: {name}'), '-v')
    for line, meaning in [
            (f'C: AUTH LOGIN {name}', dialogue.FROM), (
                f'S: 334 {challenge}', r'User:\x1b\x00'),
            (f'C: {name}', dialogue.FROM), ('S: 334 UGFzc3dvcmQ6', 'Pass')]:
        assert f'\n{line}   # {meaning}' in result.err, result.err
    assert '\nC: ********\n' in result.err


def test_the_time_that_replies_took(play, monkeypatch):
    """It is beside the last line of each."""
    def slow(self, *where):
        self.over.wait(0.03)
        return answer(self, *where)
    answer = dialogue.playing._answer
    monkeypatch.setattr(dialogue.playing, '_answer', slow)
    result, _ = play(ONE_BY_ONE, '--explain')
    took = re.findall(r'(?m)^S: \d{3} .*?(?:  # |, )(\d+) ms$', result.err)
    assert sum(25 <= int(time) < 5000 for time in took) >= 10, result.err
    assert not re.search(r'(?m)^S: \d{3}-.* ms', result.err)


SECRET = 'correct horse battery staple'


@pytest.mark.parametrize('option', ['-v', '--explain'])
@pytest.mark.parametrize('mechanism, response', [
    ('login', SECRET), ('plain', f'\0alice@example.com\0{SECRET}'),
    ('xoauth2', f'user=alice@example.com\1auth=Bearer {SECRET}\1\1')])
def test_an_echo_is_masked(mechanism, response, option, play):
    """The secret, and what begins like its base64 or its response."""
    coded = [base64.b64encode(text.encode()).decode()
             for text in (SECRET, response)]
    echo = ''.join(f'S: 535-5.7.8 you said [{said}]\n' for said in (
        SECRET, *coded, coded[0][:11], coded[1][:8], coded[0] * 2))
    login = LOGIN.rpartition('S: ')[0] if mechanism == 'login' \
        else f'C: AUTH {mechanism.upper()} ********\n'
    result, _ = play(BEGINS['login'] + login + echo + 'S: 535 5.7.8 No\n'
                     + QUIT, option, '--auth', mechanism, password=SECRET)
    checks.check(result, 77, secrets=[SECRET, coded[0][:8], coded[1][:8]])
    masked = re.findall(r'(?m)^S: 535-5.7.8 you said \[(.*)\]$', result.err)
    assert masked == ['*' * 8] * 5 + ['*' * 16]


def test_a_secret_in_other_places(play):
    """As the user name and in the message it is sent, but never shown."""
    result, player = play(
        SESSION.replace(dialogue.USER, '********'), '-v', '-u', SECRET,
        '--body', f'Carol, it is {SECRET}', password=SECRET)
    assert player.secrets == [SECRET.encode()] * 2
    assert SECRET.encode() in player.message
    checks.check(result, 0, secrets=[SECRET])


@pytest.mark.parametrize('option, told, text', [
    ('-v', SESSION, LINES), ('--explain', ONE_BY_ONE, 'Hello'),
    ('-v', SESSION, '-- \nS: 250 no\nC: QUIT\n-- closes\nx = 1   # one'),
    ('--explain', BEGINS['login'] + LOGIN.replace('235', '535') + QUIT, '')])
def test_it_can_be_played_again(option, told, text, play):
    """Saved as it is, a transcript is a dialogue."""
    first, _ = play(told, option, '--body', text)
    transcript = first.err.partition('smtp.py: ')[0]
    second, _ = play(''.join(f'text: {line}\n' for line in text.split('\n'))
                     + transcript, option)
    assert second.code == first.code == (0 if '535' not in told else 77)
