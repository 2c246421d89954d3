"""The transcript of -v: the wire as it was, secrets aside, and readable.

What it shows of TLS, base64, times and the message, where it goes, and that a
transcript pasted into dialogues/ is a test as it is.
"""

import base64
import errno
import io
import os
import pathlib
import re
import ssl
from typing import Any, Callable, List

import pytest
import scripted
from practice_server import PASSWORD, PracticeServer
from secrecy import forms_of
from sessions import (
    EXPLAINED,
    LETTER,
    LOGIN,
    OPENING,
    QUIT,
    SESSION,
    Done,
    Play,
    base64_of,
    lines_of,
    told,
)

import smtp

# ------------------------------------------------------------ what it shows


@pytest.mark.parametrize('password', ['open sesame, please', 'a'])
def test_transcript_is_the_wire(password: str, play: Play) -> None:
    """-v shows every line of both sides as it was, secrets aside.

    A password that is a letter of many words hides none of them.
    """
    done, player = play(SESSION, '-v', *LETTER, '--body', '.\nHello\n.',
                        password=password)
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


def test_meter_whose_terminal_vanishes() -> None:
    """Nobody sees how far the message has gone; it goes on all the same."""
    class Vanished(io.StringIO):
        """A terminal that was closed."""

        def write(self, text: str) -> int:
            """Fail as the system does."""
            raise OSError(errno.EIO, 'Input/output error')

    transcript = smtp.Lesson(meter=Vanished())
    for done in range(0, 6_000_000, 1_000_000):
        transcript.progress(done, 5_000_000)


def test_time_that_replies_took(run_smtp: Callable[..., Done]) -> None:
    """Each reply has its time beside its last line."""
    with PracticeServer(slow=0.05) as server:
        done = run_smtp('--server', server.host, '-4', '--port',
                        str(server.port), '--ca-file', server.ca_file, '-v',
                        *LETTER, env={'SMTP_PASSWORD': PASSWORD})
    assert done.returncode == 0, done.stderr
    replies = re.findall(r'(?m)^S: \d{3} .*$', done.stderr)
    assert len(replies) == 11
    times = [int(time) for line in replies
             for time in re.findall(r' {2,}# .*?(\d+) ms', line)]
    # Some replies come with the one before, and a busy computer may begin to
    # wait for one when it is half there; not for most of them, though.
    assert sum(20 <= time < 5000 for time in times) >= 5
    assert not re.search(r'(?m)^S: \d{3}-.* ms', done.stderr)


# ------------------------------------------------------------ secrets in it

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


@pytest.mark.parametrize('first, second', [
    ('correct horse', 'battery staple'),
    ('2.0.0 correct horse', '2.0.0 battery staple'),
    ('no: correct hor', 'se battery staple it was'),
    ('Y29ycmVjdCBob3JzZSBi', 'YXR0ZXJ5IHN0YXBsZQ==')],
    ids=['words', 'words with status', 'within a word', 'base64'])
def test_secret_over_two_lines_of_a_reply(first: str, second: str, play: Play
                                          ) -> None:
    """Nothing is shown of either line: each half tells enough."""
    reply = f'S: 250-{first}\nS: 250 {second}\n'
    done, _ = play(
        SESSION.replace('S: 250 2.0.0 Queued as 9F1\n', reply), '-v',
        '--diagram', 'session.mmd', *LETTER, password=SECRET)
    assert done.returncode == 0
    drawn = pathlib.Path('session.mmd').read_text(encoding='utf-8')
    for shown in done.stderr, drawn:
        assert re.search(r'250-\*{8}\n.*250 \*{8}( |\n)', shown), shown
    for half in first, second:
        assert half not in done.stdout + done.stderr + drawn


@pytest.mark.parametrize('line', [SECRET, f'535-x\nS: {SECRET}'])
def test_secret_where_a_reply_should_be(line: str, play: Play) -> None:
    """What is no reply has no code that could be left as it is."""
    opening = OPENING + LOGIN.replace('235 2.7.0 Welcome', line)
    done, _ = play(opening, '-v', '--diagram', 'session.mmd', *LETTER,
                   password=SECRET)
    assert done.returncode == 76
    drawn = pathlib.Path('session.mmd').read_text(encoding='utf-8')
    for form in forms_of(SECRET):
        assert form not in done.stdout + done.stderr + drawn


def test_secret_in_another_character_set(play: Play) -> None:
    """A server may say it back in Latin-1 as well as in UTF-8."""
    reply = (r'S: 535-5.7.8 p\xe4sswort-9 is wrong' '\n'
             'S: 535 5.7.8 pässwort-9 is wrong')
    done, _ = play(
        OPENING + LOGIN.replace('S: 235 2.7.0 Welcome', reply) + QUIT, '-v',
        '--diagram', 'session.mmd', *LETTER, password='pässwort-9')
    assert done.returncode == 77
    drawn = pathlib.Path('session.mmd').read_text(encoding='utf-8')
    for shown in done.stderr, drawn:
        assert re.search(r'535.5\.7\.8 \*{8} is wrong', shown), shown
        assert 'sswort' not in shown


def test_secret_that_is_the_user_name_too(play: Play) -> None:
    """Its base64 is hidden where it stands for the user name as well."""
    login = LOGIN.replace('YWxpY2VAZXhhbXBsZS5jb20=', '********')
    done, player = play(
        SESSION.replace(LOGIN, login), '-v', '--diagram', 'session.mmd',
        '-u', SECRET, *LETTER, password=SECRET)
    assert done.returncode == 0
    assert player.secrets == [SECRET.encode()] * 2
    drawn = pathlib.Path('session.mmd').read_text(encoding='utf-8')
    for shown in done.stderr, drawn:
        assert ': AUTH LOGIN ********\n' in shown
        for form in forms_of(SECRET):
            assert form not in shown


def test_secret_that_is_the_name_of_who_is_refused(play: Play) -> None:
    """The verdict on a login names the user, but not the password."""
    login = LOGIN.replace('YWxpY2VAZXhhbXBsZS5jb20=', '********').replace(
        '235 2.7.0 Welcome', '535 5.7.8 No')
    done, _ = play(OPENING + login + QUIT, '-u', SECRET, *LETTER,
                   password=SECRET)
    assert done.returncode == 77
    assert 'refused the login of ******** by LOGIN' in done.stderr
    assert SECRET not in done.stderr


def test_secret_in_the_message_is_not_shown(play: Play) -> None:
    """Whoever writes the password into the text sends it, but shows it not."""
    done, player = play(
        SESSION, '-v', '--diagram', 'session.mmd', *LETTER,
        '--body', f'Carol, it is {SECRET}', password=SECRET)
    assert player.message is not None and SECRET.encode() in player.message
    assert SECRET not in done.stderr
    assert SECRET not in pathlib.Path('session.mmd').read_text(
        encoding='utf-8')


# ------------------------------------------------- pasted, it is a dialogue


def record(run_smtp: Callable[..., Done], *arguments: str, refusals: Any = (),
           ) -> Done:
    """Hold a session with the practice server, and return its transcript."""
    with PracticeServer(refusals, slow=0.005) as server:
        return run_smtp(
            '--server', server.host, '-4', '--port', str(server.port),
            '--ca-file', server.ca_file, *arguments,
            env={'SMTP_PASSWORD': PASSWORD})


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
            *dialogue.arguments(), password=PASSWORD)
    assert not player.mismatch, player.difference() + '\n' + done.stderr
    assert {secret.decode() for secret in player.secrets} \
        == {PASSWORD}
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
