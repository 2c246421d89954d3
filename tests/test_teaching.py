"""The session that teaches: what it shows, explains, draws, and advises.

Each session here is played by the scripted server (`scripted`), or by the
practice server where something has to take time. What needs a terminal, such
as colour, --step and --talk, is in test_talk.py.
"""

import base64
import html
import inspect
import json
import os
import pathlib
import re
import shutil
import socket
import ssl
import subprocess
import sys
import tarfile
from typing import Any, Callable, Dict, Iterator, List, Set, Tuple

import practice
import pytest
import scripted
import trustme

import smtp

GREETING = """\
S: 220 mail.example.com ESMTP ready
"""
EHLO = """\
C: EHLO client.example.com
S: 250-mail.example.com Hello
S: 250-SIZE 157286400
S: 250-PIPELINING
S: 250-ENHANCEDSTATUSCODES
S: 250 STARTTLS
"""
TLS = """\
C: STARTTLS
S: 220 2.0.0 Ready to start TLS
-- TLS begins
"""
SECOND_EHLO = """\
C: EHLO client.example.com
S: 250-mail.example.com Hello
S: 250-SIZE 157286400
S: 250-PIPELINING
S: 250-ENHANCEDSTATUSCODES
S: 250 AUTH LOGIN PLAIN XOAUTH2
"""
LOGIN = """\
C: AUTH LOGIN YWxpY2VAZXhhbXBsZS5jb20=
S: 334 UGFzc3dvcmQ6
C: ********
S: 235 2.7.0 Welcome
"""
ENVELOPE = """\
C: MAIL FROM:<alice@example.com> SIZE=<size>
C: RCPT TO:<bob@example.org>
C: DATA
S: 250 2.1.0 Sender OK
S: 250 2.1.5 Recipient OK
S: 354 Start mail input
"""
MESSAGE = """\
C: <message>
C: .
C: QUIT
S: 250 2.0.0 Queued as 9F1
S: 221 2.0.0 Bye
"""
# What --explain makes of them: question and answer, one after the other.
ONE_BY_ONE = """\
C: MAIL FROM:<alice@example.com> SIZE=<size>
S: 250 2.1.0 Sender OK
C: RCPT TO:<bob@example.org>
S: 250 2.1.5 Recipient OK
C: DATA
S: 354 Start mail input
C: <message>
C: .
S: 250 2.0.0 Queued as 9F1
"""
QUIT = """\
C: QUIT
S: 221 2.0.0 Bye
"""
OPENING = GREETING + EHLO + TLS + SECOND_EHLO
SESSION = OPENING + LOGIN + ENVELOPE + MESSAGE
EXPLAINED = OPENING + LOGIN + ONE_BY_ONE + QUIT

LETTER = ['--from', 'alice@example.com', '--to', 'bob@example.org',
          '--subject', 'Greetings', '--body', 'Hello Bob!']
COMMENT = re.compile(r'(?<=\S) {2,}# .*')
NARRATION = re.compile(r'(?m)^-- .*$')

# practice.py has no annotations
practice_server: Any = practice.PracticeServer
parse_refusal: Any = practice.parse_refusal
Done = Any
Play = Callable[..., Tuple[Done, scripted.Player]]


@pytest.fixture
def play(run_main: Callable[..., Done], ca_file: str,
         server_context: ssl.SSLContext,
         monkeypatch: pytest.MonkeyPatch) -> Play:
    """A function that plays a dialogue to smtp.py and returns both sides.

    It fails the test if smtp.py says anything else than the dialogue has, or
    asks for the password; `as_written=False` leaves the first to the test.
    """
    monkeypatch.setattr('getpass.getpass',
                        lambda *_: pytest.fail('it asks for the password'))

    def play(text: str, *arguments: str, password: 'str | None' = None,
             as_written: bool = True) -> Tuple[Done, scripted.Player]:
        with scripted.playing(text, server_context) as player:
            done = run_main(
                '--server', 'localhost', '-4', '--port', str(player.port),
                '--ca-file', ca_file, '--timeout', '5',
                '--ehlo', 'client.example.com', *arguments, password=password)
        if as_written:
            assert not player.mismatch, \
                player.difference() + '\n' + done.stderr
        return done, player
    return play


def lines_of(transcript: str) -> List[str]:
    """Return the lines of both sides, without the comments beside them."""
    return [COMMENT.sub('', line) for line in transcript.split('\n')
            if re.match('[CS]:( |$)', line)]


def base64_of(text: str) -> str:
    """Return the base64 of a text."""
    return base64.b64encode(text.encode()).decode()


def forms_of(secret: str) -> Iterator[str]:
    """Yield a secret, and what every base64 of a text with it contains."""
    yield secret
    for before in range(3):
        coded = base64_of('x' * before + secret)
        yield coded[4 if before else 0:-4]


# ----------------------------------------------------------- the transcript


def test_transcript_is_the_wire(play: Play) -> None:
    """-v shows every line of both sides as it was, secrets aside."""
    done, player = play(SESSION, '-v', *LETTER, '--body', '.\nHello\n.',
                        password='open sesame, please')
    assert done.returncode == 0
    assert player.message is not None
    message = re.sub(r'(?m)^\.', '..', player.message.decode())
    wire = SESSION.replace('<size>', str(player.sizes[0])).replace(
        '<message>', '\nC: '.join(message.split('\r\n')[:-1]))
    assert lines_of(done.stderr) == [
        line for line in wire.split('\n') if line[:1] in ('C', 'S')]
    assert 'C: ..' in lines_of(done.stderr)


def test_transcript_is_for_standard_error_alone(play: Play) -> None:
    """Standard output has the result, whatever is shown beside it."""
    for option in '-v', '--explain':
        session = SESSION if option == '-v' else EXPLAINED
        done, _ = play(session, option, *LETTER, password='open sesame')
        assert re.fullmatch(r'Sent to bob@example\.org: 250 .*\n', done.stdout)
    done, _ = play(SESSION, *LETTER, password='open sesame')
    assert done.stderr == ''


def test_where_tls_begins(play: Play) -> None:
    """Version, cipher, and for whom, by whom, until when the certificate."""
    done, _ = play(SESSION, '-v', *LETTER, password='open sesame')
    words = told(done.stderr, 'Ready to start TLS')
    for wanted in (r'TLSv1\.[23]', '(TLS|ECDHE)[_-]', 'localhost', 'trustme',
                   r'\b(20|30)\d\d\b'):
        assert re.search(wanted, words), f'{wanted} is not in: {words}'


def test_base64_has_its_meaning_beside_it(play: Play) -> None:
    """The user name, and what the server asks for, in plain letters."""
    two_lines = LOGIN.replace(
        'C: AUTH LOGIN YWxpY2VAZXhhbXBsZS5jb20=\n',
        'C: AUTH LOGIN YWxpY2VAZXhhbXBsZS5jb20=\n'
        'S: 501 5.5.4 Not on this line\n'
        'C: AUTH LOGIN\nS: 334 VXNlcm5hbWU6\n'
        'C: YWxpY2VAZXhhbXBsZS5jb20=\n')
    done, _ = play(OPENING + two_lines + QUIT, '-v', '-q', 'auth',
                   '-u', 'alice@example.com', password='open sesame')
    for line, meaning in [
            (r'C: AUTH LOGIN YWxpY2VAZXhhbXBsZS5jb20=', 'alice@example.com'),
            (r'S: 334 VXNlcm5hbWU6', 'Username:'),
            (r'C: YWxpY2VAZXhhbXBsZS5jb20=', 'alice@example.com'),
            (r'S: 334 UGFzc3dvcmQ6', 'Password:')]:
        assert re.search(f'(?m)^{line} {{2,}}# .*{meaning}', done.stderr), \
            f'{meaning} is not beside {line} in: {done.stderr}'
    assert re.search(r'(?m)^C: \*{8}$', done.stderr)


SECRET = 'correct horse battery staple'


@pytest.mark.parametrize('option', ['-v', '--explain'])
@pytest.mark.parametrize('mechanism', ['login', 'plain', 'xoauth2'])
def test_secret_is_nowhere(mechanism: str, option: str, play: Play) -> None:
    """Even a server that says it back gets it shown nowhere, drawn nowhere."""
    answers = {
        'login': LOGIN.replace('S: 235 2.7.0 Welcome', '{}'),
        'plain': 'C: AUTH PLAIN ********\n{}\n',
        'xoauth2': 'C: AUTH XOAUTH2 ********\n{}\n'}
    response = {
        'login': SECRET, 'plain': f'\0alice@example.com\0{SECRET}',
        'xoauth2': f'user=alice@example.com\1auth=Bearer {SECRET}\1\1'}
    echo = (f'S: 535-5.7.8 {SECRET} is not your password\n'
            f'S: 535-5.7.8 nor is {base64_of(SECRET)}\n'
            f'S: 535 5.7.8 nor is {base64_of(response[mechanism])}')
    done, _ = play(
        OPENING + answers[mechanism].format(echo) + QUIT, option,
        '--auth', mechanism, '--diagram', 'session.mmd', *LETTER,
        password=SECRET)
    assert done.returncode == 77
    drawn = pathlib.Path('session.mmd').read_text(encoding='utf-8')
    assert '********' in done.stderr and '********' in drawn
    for form in forms_of(SECRET):
        assert form not in done.stdout + done.stderr + drawn


def test_secret_in_the_message_is_not_shown(play: Play) -> None:
    """Whoever writes the password into the text sends it, but shows it not."""
    done, player = play(
        SESSION, '-v', '--diagram', 'session.mmd', *LETTER,
        '--body', f'Carol, it is {SECRET}', password=SECRET)
    assert player.message is not None and SECRET.encode() in player.message
    assert SECRET not in done.stderr
    assert SECRET not in pathlib.Path('session.mmd').read_text(
        encoding='utf-8')


def test_message_by_its_beginning_and_end(play: Play) -> None:
    """Header fields, first and last lines; what is between is counted."""
    text = '\n'.join(f'line {number}' for number in range(1, 101))
    done, _ = play(SESSION, '-v', *LETTER, '--body', text,
                   password='open sesame')
    shown = lines_of(done.stderr)
    for line in ('From: alice@example.com', 'Subject: Greetings', '',
                 'line 1', 'line 2', 'line 99', 'line 100'):
        assert f'C: {line}'.rstrip() in map(str.rstrip, shown)
    assert 'C: line 50' not in shown
    assert len(shown) < 70
    counted = 100 - sum(line.startswith('C: line ') for line in shown)
    assert re.search(rf'\b{counted}\b', done.stderr)


def test_attachment_by_name_and_size(play: Play, tmp_path: pathlib.Path
                                     ) -> None:
    """An attachment is one line, not its base64."""
    octets = os.urandom(4321)
    path = tmp_path / 'picture.png'
    path.write_bytes(octets)
    done, player = play(SESSION, '-v', *LETTER, '-a', str(path),
                        password='open sesame')
    assert player.message is not None
    coded = base64.b64encode(octets)[:60]
    assert coded in player.message
    assert coded.decode() not in done.stderr
    assert re.search(r'(?m)^\S.*picture\.png.*4[,.]?321', done.stderr)


@pytest.mark.parametrize('what', ['long text', 'attachment'])
def test_client_lines_are_what_the_client_sent(
        what: str, play: Play, tmp_path: pathlib.Path) -> None:
    """What only tells of lines that are not shown does not begin with C:."""
    path = tmp_path / 'data.bin'
    path.write_bytes(bytes(1000))
    more = ['-a', str(path)] if what == 'attachment' else [
        '--body', '\n'.join(f'line {number}' for number in range(100))]
    done, player = play(SESSION, '-v', *LETTER, *more, password='open sesame')
    assert player.message is not None
    sent = {line.rstrip() for line in player.message.decode().split('\r\n')}
    shown = done.stderr.partition('S: 354')[2].partition('C: .\n')[0]
    for line in shown.split('\n')[1:-1]:
        assert not line.startswith('C:') or line[3:].rstrip() in sent, line


def test_text_that_looks_like_a_login(play: Play) -> None:
    """Lines of a message are no commands: nothing is decoded beside them."""
    done, _ = play(SESSION, '-v', *LETTER, '--body',
                   'AUTH LOGIN YWxpY2U=', password='open sesame')
    assert 'C: AUTH LOGIN YWxpY2U=\n' in done.stderr


def test_time_that_replies_took(run_smtp: Callable[..., Done]) -> None:
    """Each reply has its time beside its last line."""
    with practice_server(slow=0.05) as server:
        done = run_smtp('--server', server.host, '-4', '--port',
                        str(server.port), '--ca-file', server.ca_file, '-v',
                        *LETTER, env={'SMTP_PASSWORD': practice.PASSWORD})
    assert done.returncode == 0, done.stderr
    replies = re.findall(r'(?m)^S: \d{3} .*$', done.stderr)
    assert len(replies) == 11
    times = [int(time) for line in replies
             for time in re.findall(r' {2,}# .*?(\d+) ms', line)]
    # Some replies come with the one before, and a busy computer may begin to
    # wait for one when it is half there; not for most of them, though.
    assert sum(20 <= time < 5000 for time in times) >= 5
    assert not re.search(r'(?m)^S: \d{3}-.* ms', done.stderr)


def record(run_smtp: Callable[..., Done], *arguments: str, refusals: Any = (),
           ) -> Done:
    """Hold a session with the practice server, and return its transcript."""
    with practice_server(refusals, slow=0.005) as server:
        return run_smtp(
            '--server', server.host, '-4', '--port', str(server.port),
            '--ca-file', server.ca_file, *arguments,
            env={'SMTP_PASSWORD': practice.PASSWORD})


def replay(transcript: str, tmp_path: pathlib.Path,
           run_main: Callable[..., Done], ca_file: str,
           server_context: ssl.SSLContext, *options: str) -> Done:
    """Save a transcript as a dialogue, and play it, as test_dialogues does."""
    path = tmp_path / 'pasted.txt'
    path.write_text(transcript, encoding='utf-8')
    dialogue = scripted.load(path)
    with scripted.playing(dialogue, server_context) as player:
        done = run_main(
            '--server', 'localhost', '-4', '--port', str(player.port),
            '--ca-file', ca_file, '--timeout', '5', *options,
            *dialogue.arguments(), password=practice.PASSWORD)
    assert not player.mismatch, player.difference() + '\n' + done.stderr
    assert {secret.decode() for secret in player.secrets} \
        == {practice.PASSWORD}
    return done


@pytest.mark.parametrize('what', [
    'a line', 'dots', '100 lines', 'notation', 'comment'])
def test_transcript_pasted_is_a_dialogue(
        what: str, run_smtp: Callable[..., Done], tmp_path: pathlib.Path,
        run_main: Callable[..., Done], ca_file: str,
        server_context: ssl.SSLContext) -> None:
    """The standard error of a session that went well is a test as it is."""
    text = {'a line': 'Hello Bob!', 'dots': '.\n..\nHello\n.x\n\n.',
            '100 lines': '\n'.join(f'line {n}' for n in range(100)),
            'notation': '-- \nS: 250 no\nC: QUIT\n-- closes',
            'comment': 'x = 1   # one'}[what]
    first = record(run_smtp, '-v', *LETTER, '--body', text)
    assert first.returncode == 0, first.stderr
    settings = ''.join(f'text: {line}\n' for line in text.split('\n'))
    second = replay(settings + first.stderr, tmp_path, run_main, ca_file,
                    server_context, '-v')
    assert second.returncode == 0


@pytest.mark.parametrize('options, refusals', [
    (['--explain'], []), (['-v'], ['wrong-password']),
    (['--explain'], ['wrong-password']), (['-v'], ['relay-denied'])])
def test_explained_or_failed_session_pasted_is_a_dialogue(
        options: List[str], refusals: List[str],
        run_smtp: Callable[..., Done], tmp_path: pathlib.Path,
        run_main: Callable[..., Done], ca_file: str,
        server_context: ssl.SSLContext) -> None:
    """So is that of one that was explained, or failed: its verdict aside."""
    first = record(run_smtp, *options, *LETTER, refusals=refusals)
    assert first.returncode == (77 if refusals else 0), first.stderr
    transcript = first.stderr.partition('smtp.py: ')[0]
    second = replay(transcript, tmp_path, run_main, ca_file, server_context,
                    *options)
    assert second.returncode == first.returncode


# ------------------------------------------------------------- explanations


def paragraphs(transcript: str) -> List[List[str]]:
    """Return each run of narration lines, without the dashes."""
    blocks: List[List[str]] = [[]]
    for line in transcript.split('\n'):
        if re.match(r'-- \S', line):
            blocks[-1].append(line[3:])
        elif blocks[-1]:
            blocks.append([])
    return blocks[:-1] if not blocks[-1] else blocks


def on_one_line(text: str) -> str:
    """Return a text as one line with single spaces."""
    return ' '.join(text.split())


def told(transcript: str, after: str = '', until: str = '\nC: ') -> str:
    """Return what the narration says between two places, on one line."""
    part = transcript[transcript.index(after):].partition(until)[0]
    return on_one_line(' '.join(
        line[3:] for line in NARRATION.findall(part)))


def steps_of_the_session() -> List[Tuple[str, str]]:
    """Return the functions that the module docstring puts beside its lines.

    Each with the beginning of its line: ('C: MAIL', 'send_envelope').
    """
    session = (smtp.__doc__ or '').partition('Contents')[0]
    found = {name: '' if line.startswith('(') else ' '.join(line.split()[:2])
             for line, name in reversed(re.findall(
                 r'(?m)^    (\S.*?) {2,}([a-z]+_[a-z_]+)\b', session))}
    assert len(found) >= 8
    return [(line, name) for name, line in found.items()]


@pytest.fixture
def explained(play: Play) -> str:
    """The transcript of a session with --explain."""
    done, _ = play(EXPLAINED, '--explain', *LETTER, password='open sesame')
    assert done.returncode == 0
    return str(done.stderr)


@pytest.mark.parametrize(
    'name', sorted(name for _, name in steps_of_the_session()))
def test_explanation_is_the_docstring(name: str, explained: str) -> None:
    """Source and demo teach in the same words: there is no second text."""
    document = inspect.getdoc(getattr(smtp, name)) or ''
    beginnings = [
        on_one_line(' '.join(document.split('\n\n')[:number]))
        for number in range(1, 1 + document.count('\n\n'))]
    found = [block for block in paragraphs(explained)
             if on_one_line(' '.join(block)) in beginnings]
    assert found, f'{name} is not explained'
    for block in found:
        assert re.search(r'RFC \d{4},? sections? \d', ' '.join(block)), block
        assert len(block) <= 3, block


def test_steps_are_explained_in_order(explained: str) -> None:
    """Each explanation comes before the first line of its step."""
    text = on_one_line(explained.replace('\n-- ', ' '))
    for line, name in steps_of_the_session():
        document = inspect.getdoc(getattr(smtp, name)) or ''
        summary = document.split('\n')[0]
        if line:
            assert text.index(summary) < text.index(line)


@pytest.mark.parametrize('tls', ['starttls', 'implicit'])
def test_narration_fits_a_terminal(tls: str, play: Play) -> None:
    """Short lines, readable in a lecture hall."""
    session = EXPLAINED
    if tls == 'implicit':
        session = '-- TLS begins\n' + GREETING + SECOND_EHLO + LOGIN \
            + ONE_BY_ONE + QUIT
    done, _ = play(session, '--explain', '--tls', tls, *LETTER,
                   password='open sesame')
    lines = NARRATION.findall(done.stderr)
    assert len(lines) > 30
    assert [line for line in lines if len(line) > 80] == []
    if tls == 'implicit':
        assert 'RFC 8314' in done.stderr


def test_extensions_in_words(explained: str) -> None:
    """Each extension is explained once, and then what TLS has changed."""
    first, second = (
        part.partition('\nC: ')[0]
        for part in explained.split('C: EHLO client.example.com\n')[1:])
    for keyword, words in [
            ('SIZE', '150 M'), ('PIPELINING', 'commands'),
            ('ENHANCEDSTATUSCODES', 'code'), ('STARTTLS', 'encrypt')]:
        assert re.search(rf'(?m)^-- .*\b{keyword}\b.*{words}', first)
    changed = told(second)
    for wanted in 'AUTH', 'STARTTLS', 'LOGIN PLAIN XOAUTH2', 'RFC 3207':
        assert wanted in changed
    for same in 'SIZE', 'PIPELINING', 'ENHANCEDSTATUSCODES':
        assert same not in changed, f'{same} has not changed'


@pytest.mark.parametrize('offer, wanted, unwanted', [
    ('SIZE 0', '(?i)no (fixed )?(limit|maximum)|any size', '0 M'),
    ('SIZE', r'(?i)SIZE', 'None|nan'),
    ('SIZE 500000', '500[ ,.]?000|500 k|488 K', r'\b0 M'),
    ('SIZE 35882577', r'\b3[45] M', '34[.]2'),
    ('X-ANONYMOUSTLS', 'X-ANONYMOUSTLS.*not known', '$^'),
    ('8BITMIME', 'ASCII', '$^'), ('SMTPUTF8', 'ASCII', '$^'),
    ('DSN', 'RFC 3461', '$^'), ('CHUNKING', 'BDAT', '$^'),
    ('BINARYMIME', 'octets', '$^'), ('AUTH=LOGIN', r'AUTH\b.*log in', '$^'),
    ('VRFY', 'RFC 5321', '$^'), ('HELP', 'RFC 5321', '$^'),
    ('ETRN', 'RFC 1985', '$^')])
def test_extension_in_words(offer: str, wanted: str, unwanted: str,
                            play: Play) -> None:
    """What an extension means, its parameter included."""
    done, _ = play(
        GREETING + 'C: EHLO client.example.com\nS: 250-mail.example.com\n'
        f'S: 250 {offer}\n' + QUIT, '--explain', '--tls', 'none',
        '-q', 'ehlo')
    words = told(done.stderr, f'S: 250 {offer}')
    assert re.search(wanted, words), words
    assert not re.search(unwanted, words), words


YES, GO_ON, LATER, NO = 'yes', 'go on', '(?i)not now|later', r'\bno\b'


@pytest.mark.parametrize('reply, verdict, about, status', [
    ('250 2.1.5 fine', YES, 'mail', 'address'),
    ('251 2.1.5 Will forward', YES, 'mail', 'address'),
    ('450 4.2.1 busy', LATER, 'mail', 'mailbox'),
    ('451 4.3.0 busy', LATER, 'mail', 'mail system'),
    ('452 4.4.5 busy', LATER, 'mail', 'network'),
    ('550 5.1.1 unknown', NO, 'mail', 'address'),
    ('501 5.5.4 syntax', NO, 'syntax', 'protocol'),
    ('503 5.5.1 sequence', NO, 'syntax', 'protocol'),
    ('530 5.7.0 login', NO, 'login', 'security|policy'),
    ('554 5.6.0 content', NO, 'mail', 'message|content'),
    ('550 no status', NO, 'mail', '')])
def test_reply_in_words(reply: str, verdict: str, about: str, status: str,
                        play: Play) -> None:
    """What the three digits mean, and the enhanced status code."""
    done, _ = play(
        GREETING + 'C: EHLO client.example.com\nS: 250 mail.example.com\n'
        'C: MAIL FROM:<alice@example.com>\nS: 250 ok\n'
        f'C: RCPT TO:<bob@example.org>\nS: {reply}\n' + QUIT,
        '--explain', '--tls', 'none', '-q', 'rcpt', *LETTER)
    words = told(done.stderr, f'S: {reply}')
    code, *rest = words.partition(status and reply.split()[1] or '\0')
    assert re.search(verdict, code) and re.search(about, code), words
    assert re.search(status, rest[-1]), words
    assert ('3463' in words) == bool(status)


def test_status_without_subject(explained: str) -> None:
    """X.0.Z says nothing more (RFC 3463 section 3.1), nor is more made up."""
    assert 'about anything else' not in told(explained, '2.0.0 Queued')


def test_base64_is_no_encryption(explained: str) -> None:
    """It is said where base64 is seen first, and once."""
    words = told(explained, 'S: 334', 'S: 235')
    assert re.search('base64.*(no|not) encrypt', words), words


def test_without_explain_nothing_is_explained(play: Play) -> None:
    """-v alone is the wire, and where TLS begins."""
    done, _ = play(SESSION, '-v', *LETTER, password='open sesame')
    assert 1 <= len(NARRATION.findall(done.stderr)) <= 3
    assert 'RFC' not in done.stderr


# --------------------------------------------------------------- quit after

WITHOUT_SIZE = re.compile(r'S: 250-SIZE \d+\n')
REACHED: Dict[str, Tuple[str, List[str]]] = {
    'connect': (GREETING, []),
    'ehlo': (GREETING + EHLO, []),
    'tls': (GREETING + EHLO + TLS, []),
    'auth': (OPENING + LOGIN, ['-u', 'alice@example.com']),
    'mail': (OPENING + LOGIN + 'C: MAIL FROM:<alice@example.com>\n'
             'S: 250 2.1.0 Sender OK\n', ['-f', 'alice@example.com']),
    'rcpt': (OPENING + LOGIN + 'C: MAIL FROM:<alice@example.com>\n'
             'C: RCPT TO:<bob@example.org>\nC: RCPT TO:<carol@example.org>\n'
             'S: 250 2.1.0 Sender OK\nS: 250 2.1.5 ok\nS: 250 2.1.5 ok\n',
             ['-f', 'alice@example.com', '-t', 'bob@example.org',
              '-b', 'carol@example.org']),
}
WORDS = {'connect': 'connect|greeting', 'ehlo': 'ehlo|hello',
         'tls': 'tls|encrypt', 'auth': 'auth|log', 'mail': 'mail|sender',
         'rcpt': 'rcpt|recipient'}


def check_stopped(done: Done, step: str) -> None:
    """Nothing was sent, which is what was wanted; the result says how far."""
    assert done.returncode == 0, done.stderr
    assert done.stdout == ''
    assert re.search(
        rf'(?im)^smtp\.py: Not sent: .*\b({WORDS[step]})', done.stderr)


@pytest.mark.parametrize('step', REACHED)
def test_quit_after(step: str, play: Play) -> None:
    """Nothing is asked for that is not needed, and QUIT is said."""
    said, options = REACHED[step]
    secret = None if step in ('connect', 'ehlo', 'tls') else 'open sesame'
    done, _ = play(WITHOUT_SIZE.sub('', said) + QUIT, '-q', step, *options,
                   password=secret)
    check_stopped(done, step)


@pytest.mark.parametrize('step', ['connect', 'ehlo', 'tls', 'auth'])
def test_quit_after_with_implicit_tls(step: str, play: Play) -> None:
    """TLS comes first here; the goodbye is the same."""
    said, options = REACHED[step]
    begins = said.replace(EHLO, '' if TLS in said else SECOND_EHLO)
    secret = 'open sesame' if step == 'auth' else None
    done, _ = play('-- TLS begins\n' + begins.replace(TLS, '') + QUIT,
                   '-q', step, '--tls', 'implicit', *options, password=secret)
    check_stopped(done, step)


@pytest.mark.parametrize('step', ['connect', 'ehlo', 'mail', 'rcpt'])
def test_quit_after_without_tls(step: str, play: Play) -> None:
    """Neither TLS nor a login, so no password."""
    said, options = REACHED[step]
    for part in TLS, SECOND_EHLO, LOGIN:
        said = said.replace(part, '')
    done, _ = play(WITHOUT_SIZE.sub('', said) + QUIT, '-q', step,
                   '--tls', 'none', *options)
    check_stopped(done, step)


def test_quit_after_does_not_invent_a_size(play: Play) -> None:
    """There is no message, so MAIL does not say how large it is."""
    said, options = REACHED['mail']
    done, _ = play(said + QUIT, '-q', 'mail', *options, password='open sesame')
    check_stopped(done, 'mail')


def test_quit_after_rcpt_says_who_was_refused(play: Play) -> None:
    """Recipients are checked, each of them, and nothing is sent."""
    said, options = REACHED['rcpt']
    refused = WITHOUT_SIZE.sub('', said).replace(
        'S: 250 2.1.5 ok\n', 'S: 550 5.1.1 No such user here\n', 1)
    done, player = play(refused + QUIT, '-q', 'rcpt', *options,
                        password='open sesame')
    assert done.returncode == 67
    assert 'bob@example.org' in done.stderr
    assert 'No such user here' in done.stderr
    assert 'carol@example.org' not in done.stderr
    assert player.message is None


def test_quit_after_auth_says_that_the_password_is_wrong(play: Play) -> None:
    """A password is checked."""
    said, options = REACHED['auth']
    done, _ = play(
        said.replace('S: 235 2.7.0 Welcome', 'S: 535 5.7.8 Go away') + QUIT,
        '-q', 'auth', *options, password='open sesame')
    assert done.returncode == 77
    assert 'Go away' in done.stderr


@pytest.mark.parametrize('step', ['auth', 'mail', 'rcpt'])
def test_quit_after_takes_addresses_from_a_message(
        step: str, play: Play, tmp_path: pathlib.Path) -> None:
    """--message says who sends and who receives, so that is not asked for."""
    path = tmp_path / 'letter.eml'
    path.write_bytes(b'From: Alice <alice@example.com>\r\n'
                     b'To: bob@example.org\r\nBcc: carol@example.org\r\n'
                     b'Subject: Greetings\r\n\r\nHello Bob!\r\n')
    said = re.sub(r'(MAIL FROM:<\S+>)\n', r'\1 SIZE=<size>\n',
                  REACHED[step][0])
    done, _ = play(said + QUIT, '-q', step, '--message', str(path),
                   password='open sesame')
    check_stopped(done, step)


# -------------------------------------------- what it means and what to do

YOU, ADMINISTRATOR, WAIT = \
    'Your turn', "Your administrator's turn", 'Wait'
TURN = re.compile(f'{YOU}|{ADMINISTRATOR}|{WAIT}(?=[:,.])')


def check_advice(said: str, turns: Set[str], action: str) -> None:
    """One party's turn, the right one, and what to do."""
    found = TURN.findall(said)
    assert len(found) == 1, f'whose turn is it? {said}'
    assert found[0] in turns, said
    lines = said[said.index(found[0]):].split('\n')
    advice = on_one_line(' '.join(lines))
    assert re.search(action, advice), f'{action} is not in: {advice}'
    assert [line for line in lines if len(line) > 80] == []


REFUSALS = {**practice.REFUSALS, **{
    'gmail-login': r'auth=535-5.7.8 Username and Password not accepted. For '
    r'more information, go to\n535 5.7.8  https://support.google.com/mail/?p='
    'BadCredentials',
    'gmail-too-often': 'auth=454 4.7.0 Too many login attempts, please try '
    'again later.',
    'postfix-relay': 'rcpt=554 5.7.1 <bob@example.org>: Relay access denied',
    'exim-relay': 'rcpt=550 relay not permitted',
    'postgrey': 'rcpt=450 4.2.0 <bob@example.org>: Recipient address rejected:'
    ' Greylisted, see http://postgrey.schweikert.ch/help/example.org.html',
    'dovecot-full': 'rcpt=552 5.2.2 <bob@example.org> Quota exceeded (mailbox '
    'for user is full)',
    'postfix-full': 'rcpt=452 4.2.2 <bob@example.org>: Mailbox full',
    'postfix-too-large': 'mail=552 5.3.4 Message size exceeds fixed limit',
    'exchange-too-large': 'message=550 5.2.3 RESOLVER.RST.RecipSizeLimit; '
    'message too large for this recipient',
    'postfix-no-user': 'rcpt=550 5.1.1 <bob@example.org>: Recipient address '
    'rejected: User unknown in local recipient table',
    'user-at-relay': 'rcpt=550 5.1.1 <bob@relay.example.org>: Recipient '
    'address rejected: User unknown in local recipient table',
    'blocklist': 'rcpt=554 5.7.1 Service unavailable; Client host [192.0.2.1] '
    'blocked using zen.spamhaus.org',
    'blocklist-numbers': 'rcpt=554 5.7.1 Service unavailable; Client host '
    '[95.2.2.17] blocked using zen.spamhaus.org',
    'gmail-content': 'message=552-5.7.0 This message was blocked because its '
    r'content presents a potential\n552 5.7.0 security issue.',
}}


@pytest.mark.parametrize('name, turns, action', [
    ('server-down', {WAIT}, '(?i)again'),
    ('bad-ehlo-name', {YOU}, '--ehlo'),
    ('tls-busy', {WAIT}, '(?i)again'),
    ('old-tls', {YOU, ADMINISTRATOR}, r'TLS 1\.2'),
    ('tenant-disabled', {ADMINISTRATOR}, 'SmtpClientAuthenticationDisabled'),
    ('mailbox-disabled', {ADMINISTRATOR}, 'Authenticated SMTP'),
    ('security-defaults', {ADMINISTRATOR}, 'security defaults'),
    ('conditional-access', {ADMINISTRATOR}, '(?i)conditional access'),
    ('wrong-password', {YOU}, 'password'),
    ('basic-disabled', {YOU}, 'xoauth2'),
    ('basic-retired', {YOU}, 'xoauth2'),
    ('login-failed', {YOU}, '(?i)password.*mailbox'),
    ('no-mechanism', {YOU}, '--auth'),
    ('not-logged-in', {YOU}, '(?i)log in'),
    ('not-your-address', {YOU}, '(?i)from.*Send As'),
    ('send-as-denied', {YOU}, '(?i)from.*Send As'),
    ('too-large', {YOU}, 'attachment|link'),
    ('relay-denied', {YOU}, '(?i)log in|587'),
    ('no-such-user', {YOU}, '(?i)typ(o|ing)|spell'),
    ('daily-limit', {WAIT}, 'day|24 hours'),
    ('too-many-connections', {WAIT}, 'three'),
    ('app-password', {YOU}, '(?i)app(lication)? password'),
    ('recipient-full', {WAIT}, 'recipient'),
    ('greylisted', {WAIT}, 'again'),
    ('gmail-login', {YOU}, 'password'),
    ('gmail-too-often', {WAIT}, 'again|later'),
    ('postfix-relay', {YOU}, '(?i)log in|587'),
    ('exim-relay', {YOU}, '(?i)log in|587'),
    ('postgrey', {WAIT}, 'again'),
    ('dovecot-full', {WAIT}, 'recipient'),
    ('postfix-full', {WAIT}, 'recipient'),
    ('postfix-too-large', {YOU}, 'attachment|link'),
    ('exchange-too-large', {YOU}, 'attachment|link'),
    ('postfix-no-user', {YOU}, '(?i)typ(o|ing)|spell'),
    ('user-at-relay', {YOU}, '(?i)typ(o|ing)|spell'),
    ('blocklist', {ADMINISTRATOR}, 'list'),
    ('blocklist-numbers', {ADMINISTRATOR}, 'list'),
    # Office 365 keeps a copy of what is sent: it is one's own mailbox that
    # is full, says Microsoft of this sentence.
    ('mailbox-full', {YOU}, '(?i)your (own )?mailbox|sent items'),
])
def test_advice(name: str, turns: Set[str], action: str, play: Play) -> None:
    """Whose turn it is after a refusal that people really meet."""
    done, reply = refuse(name, play)
    check_advice(done.stderr, turns, action)
    sentence = re.split(r'[.;]( |$)', reply[4:])[0]
    assert on_one_line(sentence) in on_one_line(done.stderr)


@pytest.mark.parametrize('name, nonsense', [
    ('gmail-too-often', 'spam'), ('gmail-content', 'too large|attachments'),
    ('mailbox-full', 'of the recipient'), ('user-at-relay', '587')])
def test_advice_that_would_mislead(name: str, nonsense: str, play: Play
                                   ) -> None:
    """A sentence that only looks like another one gets no wrong advice."""
    done, _ = refuse(name, play)
    found = TURN.search(done.stderr)
    advice = done.stderr[found.start():] if found else ''
    assert not re.search(nonsense, advice), advice


def refuse(name: str, play: Play) -> Tuple[Done, str]:
    """Play a session up to a refusal; return how it ended, and the reply."""
    step, reply = parse_refusal(REFUSALS[name])
    up_to = {
        'greeting': '', 'ehlo': GREETING + 'C: EHLO client.example.com\n',
        'starttls': GREETING + EHLO + 'C: STARTTLS\n',
        'auth': OPENING + 'C: AUTH LOGIN YWxpY2VAZXhhbXBsZS5jb20=\n',
        'mail': OPENING + LOGIN + ENVELOPE.partition('S: 250')[0],
        'rcpt': OPENING + LOGIN + ENVELOPE.partition('S: 250 2.1.5')[0],
        'message': OPENING + LOGIN + ENVELOPE + MESSAGE.partition('S:')[0]}
    begins = up_to[step.partition(':')[0]]
    if step == 'auth' and reply.startswith('53'):
        begins += 'S: 334 UGFzc3dvcmQ6\nC: ********\n'
    elif reply.startswith('504'):       # then the older form is tried
        begins += f'S: {reply}\nC: AUTH LOGIN\n'
    said = ''.join(f'S: {line}\n' for line in reply.split('\r\n'))
    if step == 'mail':
        said += 'S: 503 5.5.1 No sender\n' * 2
    elif step.startswith('rcpt'):
        said += 'S: 503 5.5.1 No recipient\n'
    done, _ = play(begins + said + '-- closes\n', *LETTER,
                   password='open sesame')
    assert done.returncode not in (0, 70, 74), done.stderr
    return done, reply


def test_sentences_of_the_practice_server_have_advice() -> None:
    """No refusal that the practice server plays by name is left out above."""
    marks = test_advice.pytestmark  # type: ignore[attr-defined]
    tested = {row[0] for mark in marks for row in mark.args[1]}
    assert set(practice.REFUSALS) - tested == set()


def test_long_diagnostics_are_folded(play: Play) -> None:
    """One sentence is enough for an error; -v shows the whole reply."""
    _, reply = parse_refusal('send-as-denied')
    session = OPENING + LOGIN + ENVELOPE \
        + MESSAGE.partition('S:')[0] + f'S: {reply}\n-- closes\n'
    done, _ = play(session, *LETTER, password='open sesame')
    assert 'SendAsDenied' in done.stderr
    assert 'BeginDiagnosticData' not in done.stderr
    done, _ = play(session, '-v', *LETTER, password='open sesame')
    assert f'S: {reply}' in lines_of(done.stderr)


def test_tls_where_the_server_speaks_in_clear(play: Play) -> None:
    """--tls implicit on the port of STARTTLS: "wrong version number"."""
    done, _ = play(GREETING, *LETTER, '--tls', 'implicit',
                   password='open sesame', as_written=False)
    assert done.returncode == 76
    check_advice(done.stderr, {YOU}, '--tls starttls')


def test_starttls_where_the_server_wants_tls(
        run_main: Callable[..., Done], ca_file: str) -> None:
    """STARTTLS on port 465: both sides wait for each other in silence."""
    with socket.create_server(('127.0.0.1', 0)) as listener:
        done = run_main('--server', 'localhost', '-4', '--port',
                        str(listener.getsockname()[1]), '--ca-file', ca_file,
                        '--timeout', '0.2', *LETTER, password='open sesame')
    assert done.returncode == 75
    check_advice(done.stderr, {YOU}, '--tls implicit')


def test_port_is_closed(run_main: Callable[..., Done], ca_file: str) -> None:
    """Nobody listens there."""
    with socket.socket() as sock:
        sock.bind(('127.0.0.1', 0))     # and does not listen
        done = run_main('--server', 'localhost', '-4', '--port',
                        str(sock.getsockname()[1]), '--ca-file', ca_file,
                        *LETTER, password='open sesame')
    assert done.returncode == 75
    check_advice(done.stderr, {YOU}, '(?i)port')


@pytest.mark.parametrize('error', [
    socket.timeout('timed out'), OSError(113, 'No route to host'),
    OSError(101, 'Network is unreachable')], ids=str)
def test_port_is_blocked(error: OSError, run_main: Callable[..., Done],
                         monkeypatch: pytest.MonkeyPatch) -> None:
    """Many networks let nobody out on port 25 or 587."""
    def connect(*_: Any) -> None:
        raise error
    monkeypatch.setattr(socket.socket, 'connect', connect)
    done = run_main('--server', '127.0.0.1', *LETTER, password='open sesame')
    assert done.returncode == 75
    assert str(error.strerror or error) in done.stderr
    check_advice(done.stderr, {YOU, ADMINISTRATOR}, '(?i)block')


@pytest.mark.parametrize('number, code, turns, action', [
    (socket.EAI_NONAME, 68, {YOU}, '(?i)name|spell|typ'),
    (socket.EAI_AGAIN, 75, {YOU, WAIT}, '(?i)network|offline|again')])
def test_name_is_not_found(number: int, code: int, turns: Set[str],
                           action: str, run_main: Callable[..., Done],
                           monkeypatch: pytest.MonkeyPatch) -> None:
    """A typing error in the name of the server, or no network at all."""
    def look_up(*_: Any, **__: Any) -> None:
        raise socket.gaierror(number, 'as if')
    monkeypatch.setattr(socket, 'getaddrinfo', look_up)
    done = run_main('--server', 'smtp.exmaple.com', *LETTER,
                    password='open sesame')
    assert done.returncode == code
    assert 'smtp.exmaple.com' in done.stderr
    check_advice(done.stderr, turns, action)


def test_certificate_of_an_antivirus(
        run_main: Callable[..., Done], ca_file: str) -> None:
    """Its own authority vouches for everybody: who it is must be seen."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA(organization_name='Example Antivirus Mail Shield').issue_cert(
        'localhost').configure_cert(context)
    with scripted.playing(GREETING + EHLO + TLS, context) as player:
        done = run_main('--server', 'localhost', '-4', '--port',
                        str(player.port), '--ca-file', ca_file,
                        '--ehlo', 'client.example.com', *LETTER,
                        password='open sesame')
    assert done.returncode == 76
    check_advice(done.stderr, {YOU, ADMINISTRATOR}, '(?i)antivirus')
    assert 'None' not in done.stderr
    if sys.version_info >= (3, 10):     # before, nobody shows it to us
        assert 'Example Antivirus Mail Shield' in done.stderr


@pytest.mark.parametrize('user, warned', [
    ('carol@example.com', True), ('alice@example.com', False),
    ('', False)])
@pytest.mark.parametrize('how', ['--from', '--message'])
def test_warning_when_from_is_not_the_login(
        how: str, user: str, warned: bool, play: Play,
        tmp_path: pathlib.Path) -> None:
    """It comes before anything is sent, and stops nothing."""
    path = tmp_path / 'letter.eml'
    path.write_bytes(b'From: alice@example.com\r\nTo: bob@example.org\r\n'
                     b'\r\nHello Bob!\r\n')
    arguments = LETTER if how == '--from' else ['--message', str(path)]
    session = SESSION.replace(base64_of('alice@example.com'),
                              base64_of(user or 'alice@example.com'))
    done, _ = play(session, '-v', '-u', user, *arguments,
                   password='open sesame')
    assert done.returncode == 0
    before = done.stderr.partition('S: 220')[0]
    assert bool(re.search('(?i)From.*Send As|Send As.*From',
                          on_one_line(before))) == warned, done.stderr


# ----------------------------------------------------------------- diagrams


def arrows(drawn: str) -> List[str]:
    """Return the lines of a diagram's arrows, in the transcript's notation."""
    found = re.findall(r'(?m)^\s*([CS])-+>>[CS]: ?(.*)$', drawn)
    return [f'{who}: ' + re.sub(
        '#([0-9]+);', lambda number: chr(int(number[1])), text)
        for who, text in found]


def without_message(lines: List[str]) -> List[str]:
    """Return the lines of a session, those between 354 and the dot aside.

    A picture has room for no more than a hint of the message.
    """
    start = next((number + 1 for number, line in enumerate(lines)
                  if line.startswith('S: 354')), len(lines))
    end = lines.index('C: .', start) if start < len(lines) else start
    return [on_one_line(line) for line in lines[:start] + lines[end:]]


def test_diagram_shows_what_the_transcript_shows(play: Play) -> None:
    """Client, server, and a box where TLS protects the rest."""
    done, _ = play(SESSION, '-v', '--diagram', 'session.mmd', *LETTER,
                   password='open sesame')
    drawn = pathlib.Path('session.mmd').read_text(encoding='utf-8')
    assert drawn.startswith('sequenceDiagram\n')
    assert without_message(arrows(drawn)) \
        == without_message(lines_of(done.stderr))
    assert len(arrows(drawn)) > len(without_message(arrows(drawn)))
    begin = re.search(r'(?m)^ *(rect|box)\b', drawn)
    assert begin
    in_clear = arrows(drawn[:begin.start()])
    assert in_clear[-1].startswith('S: 220 2.0.0 Ready')
    assert re.fullmatch(r'\s+end', drawn.rstrip().split('\n')[-1])


def test_diagram_does_not_depend_on_the_transcript(play: Play) -> None:
    """It is the session that just ran, whatever was shown of it."""
    drawn = []
    for options in [], ['-v']:
        play(SESSION, *options, '--diagram', 'session.mmd', *LETTER,
             '-H', 'X-Test: 1', password='open sesame')
        drawn.append([line for line in arrows(
            pathlib.Path('session.mmd').read_text(encoding='utf-8'))
            if not re.match('C: (Date|Message-ID):', line)])
    assert drawn[0] == drawn[1]


def test_diagram_of_a_session_that_failed(play: Play) -> None:
    """This is when one needs it most."""
    done, _ = play(OPENING + LOGIN.replace('235 2.7.0 Welcome', '535 no')
                   + QUIT, '--diagram', 'session.mmd', *LETTER,
                   password='open sesame')
    assert done.returncode == 77
    drawn = pathlib.Path('session.mmd').read_text(encoding='utf-8')
    assert arrows(drawn)[-2:] == ['C: QUIT', 'S: 221 2.0.0 Bye']


def test_diagram_that_cannot_be_written(play: Play, tmp_path: pathlib.Path
                                        ) -> None:
    """It is noticed before anything is sent, or else the mail is sent."""
    done, player = play(
        SESSION, '--diagram', str(tmp_path / 'missing' / 'session.mmd'),
        *LETTER, password='open sesame', as_written=False)
    if player.dot_received:
        assert done.returncode == 0
        assert done.stdout.startswith('Sent to ')
        assert 'session.mmd' in done.stderr
    else:
        assert done.returncode in (64, 66, 73, 78)
        assert 'Not sent' in done.stderr and 'session.mmd' in done.stderr


NODE = """
import fs from 'fs';
// The parser cleans texts with DOMPurify, which wants a browser's window; with
// this one it finds nothing that it supports, and leaves texts as they are.
globalThis.window = {
  document: {nodeType: 9, implementation: {}, createElement: () => ({})},
  Element: class {}, DocumentFragment: class {}};
const {default: mermaid} = await import(
  './package/dist/mermaid.esm.min.mjs');
const results = [];
for (const path of process.argv.slice(2)) {
  const text = fs.readFileSync(path, 'utf8');
  await mermaid.parse(text);
  const diagram = await mermaid.mermaidAPI.getDiagramFromText(text);
  results.push({type: diagram.type, messages: diagram.db.getMessages()});
}
console.log(JSON.stringify(results));
"""
SPECIAL = ('#hash; &amp; "quoted" \'single\' <tag> <br/> %% {braces} -->> '
           '[x] (y) $1 `z` \\n ~ end é 你 #9829; # a;')


@pytest.fixture
def parse_with_mermaid(tmp_path: pathlib.Path
                       ) -> Callable[..., List[Dict[str, Any]]]:
    """A function that reads diagrams with mermaid's own parser, from npm."""
    def need(condition: Any, reason: str) -> None:
        if condition:
            return
        if os.environ.get('SMTP_TEST_REAL_SERVERS') == 'required':
            pytest.fail(f"mermaid's parser is required, but {reason}")
        pytest.skip(f"no parser of mermaid's: {reason}")

    node, npm = shutil.which('node'), shutil.which('npm')
    need(node and npm, 'node and npm are missing')
    assert node and npm
    try:
        packed = subprocess.run(
            [npm, 'pack', 'mermaid@11', '--loglevel=error', '--fetch-retries=0',
             '--cache', str(tmp_path / 'cache')], cwd=tmp_path, timeout=25,
            capture_output=True, text=True)
    except subprocess.TimeoutExpired:
        need(False, 'npm does not get it in 25 seconds')
    need(packed.returncode == 0, f'npm says: {packed.stderr[-500:]}')
    with tarfile.open(next(tmp_path.glob('mermaid-*.tgz'))) as archive:
        for member in archive:
            packed_file = archive.extractfile(member)
            if packed_file and re.fullmatch(
                    r'package/dist/(chunks/)?mermaid\.esm\.min(/[\w.-]+)?'
                    r'\.mjs', member.name):
                path = tmp_path / member.name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(packed_file.read())
    (tmp_path / 'parse.mjs').write_text(NODE, encoding='utf-8')

    def parse(*paths: pathlib.Path) -> List[Dict[str, Any]]:
        done = subprocess.run(
            [node, 'parse.mjs', *map(str, paths)], cwd=tmp_path, timeout=60,
            capture_output=True, text=True, encoding='utf-8')
        assert done.returncode == 0, done.stderr[-2000:]
        results: List[Dict[str, Any]] = json.loads(done.stdout)
        return results
    return parse


def as_rendered(text: str) -> str:
    """Return a text of the parser's as the picture has it."""
    # Inside, mermaid writes '#35;' as 'ﬂ°°35¶ß'. The text goes into the SVG,
    # and there these become character references.
    svg = html.escape(text, quote=False)
    svg = svg.replace('ﬂ°°', '&#').replace('ﬂ°', '&').replace('¶ß', ';')
    return html.unescape(svg)


def test_mermaid_reads_the_diagrams(
        parse_with_mermaid: Callable[..., List[Dict[str, Any]]],
        play: Play, run_main: Callable[..., Done]) -> None:
    """They are valid, and every text in them is what was said."""
    def drawn(name: str, *arguments: str, session: str, **more: Any
              ) -> Tuple[pathlib.Path, List[str]]:
        done, _ = play(session, '-v', '--diagram', name, *arguments, **more)
        return pathlib.Path(name).resolve(), lines_of(done.stderr)

    reply = SPECIAL.replace('\\', '\\\\')
    special = SESSION.replace('Queued as 9F1', reply).replace(
        'Recipient OK', '; end').replace('mail.example.com Hello', 'rect')
    sessions = [
        drawn('special.mmd', *LETTER, '--subject', SPECIAL[:60], '--body',
              f'{SPECIAL}\n.\nend\n\n%%{{init: {{}}}}%%\nNote over C: no\n; x',
              session=special, password=SECRET),
        drawn('greeting.mmd', '-q', 'connect', session=GREETING + QUIT),
        drawn('failed.mmd', *LETTER, session=OPENING + LOGIN.replace(
            '235 2.7.0 Welcome', f'535 5.7.8 {reply}') + QUIT,
            password=SECRET)]
    run_main('--server', 'localhost', '-4', '-p', '1', '--diagram',
             'nothing.mmd', *LETTER, password=SECRET)
    sessions.append((pathlib.Path('nothing.mmd').resolve(), []))
    results = parse_with_mermaid(*(path for path, _ in sessions))
    assert len(results) == len(sessions)
    for (path, shown), result in zip(sessions, results):  # noqa: B905
        assert result['type'] == 'sequence'
        texts = [f'{message["from"]}: {as_rendered(message["message"])}'
                 for message in result['messages'] if message.get('to')
                 and message.get('placement') is None]
        assert without_message(texts) == without_message(shown), path.name
        assert SECRET not in json.dumps(result)
    boxes = [sum(message['message'].startswith('rgb')
                 for message in result['messages']) for result in results]
    assert boxes == [1, 0, 1, 0]
