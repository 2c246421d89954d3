"""At a real terminal: what is asked, in which order, and what is never shown.

pexpect plays the person. What it reads is what a person would see, echo of the
typing included; so a password that is echoed would be found there.
"""

import os
import pathlib
import re
import shlex
import sys
import time
from typing import Any, Callable, Dict, Iterator, List

import conftest
import practice
import pytest
import reading

pexpect = pytest.importorskip('pexpect')
if os.name == 'nt':
    pytest.skip('Windows has no such terminals', allow_module_level=True)

# The server is a thread beside the one that starts the terminals.
pytestmark = pytest.mark.filterwarnings(
    'ignore:.*multi-threaded.*forkpty:DeprecationWarning')

PATIENCE = 10   # seconds for each question
ALICE, BOB = practice.USER, 'bob@example.org'
GIVEN = {'From': ['-f', ALICE], 'To': ['-t', BOB], 'Subject': ['-s', 'Lunch'],
         'Text': ['--body', 'Hello']}


@pytest.fixture(scope='module')
def server() -> Iterator[practice.PracticeServer]:
    """A server for all tests of this file."""
    with practice.PracticeServer() as running:
        yield running


class Person:
    """Somebody who has started smtp.py, and answers its questions."""

    def __init__(self, child: Any) -> None:
        """Sit down before the terminal."""
        self.child = child

    def asked(self, question: str) -> None:
        """Wait for a question, at the start of a line."""
        self.child.expect(rf'(?:\A|[\r\n]){re.escape(question)}[^\r\n]*: ?')

    def types(self, text: str) -> None:
        """Type a line."""
        self.child.sendline(text)

    def sees(self, pattern: str) -> None:
        """Wait for this to be shown."""
        self.child.expect(pattern)

    def is_read(self) -> None:
        """Wait until the program has read all, and waits for more.

        That it is on the screen says nothing: the terminal echoes it, and
        throws away at Ctrl-C what nobody has read.
        """
        process = f'/proc/{self.child.pid}'
        if not os.path.exists(f'{process}/stat'):
            pytest.skip('nobody knows what the program does')
        deadline = time.monotonic() + PATIENCE
        terminal = os.open(os.readlink(f'{process}/fd/0'),
                           os.O_RDWR | os.O_NOCTTY)
        try:
            while self._unread(terminal) or self._runs(process):
                assert time.monotonic() < deadline, 'it reads no more'
                time.sleep(0.005)
        finally:
            os.close(terminal)

    def _unread(self, terminal: int) -> bool:
        """Tell whether there are lines that the program has not read."""
        import fcntl
        import termios
        answer = fcntl.ioctl(terminal, termios.FIONREAD, b'\0' * 4)
        return any(answer)

    def _runs(self, process: str) -> bool:
        """Tell whether the program does anything but wait."""
        with open(f'{process}/stat', encoding='utf-8') as file:
            return file.read().rpartition(')')[2].split()[0] != 'S'

    def ends(self) -> int:
        """Wait for the end, and return the exit code."""
        self.child.expect(pexpect.EOF)
        self.child.close()
        return self.child.exitstatus

    @property
    def screen(self) -> str:
        """All that was shown."""
        return self.child.logfile_read.getvalue()


@pytest.fixture
def person(tmp_path: pathlib.Path, clean_environment: Dict[str, str],
           server: practice.PracticeServer
           ) -> Iterator[Callable[..., Person]]:
    """A function that starts smtp.py on a terminal, with these arguments.

    Its keywords: `shell`, a pattern for a command line of a shell, with {} in
    the place of ours; `password`, for SMTP_PASSWORD.
    """
    import io
    children: List[Any] = []
    server.messages.clear()
    server.refusals.clear()

    def start(*args: str, shell: str = '', password: str = '') -> Person:
        command = [
            sys.executable, str(conftest.PROGRAM), '--server', server.host,
            '-p', str(server.port), '--ca-file', server.ca_file, *args]
        if shell:
            command = ['/bin/sh', '-c', shell.format(shlex.join(command))]
        environment = {**clean_environment, 'TERM': 'dumb'}
        if password:
            environment['SMTP_PASSWORD'] = password
        child = pexpect.spawn(
            command[0], command[1:], timeout=PATIENCE, env=environment,
            cwd=str(tmp_path), encoding='utf-8', dimensions=(24, 500),
            codec_errors='backslashreplace')
        child.delaybeforesend = None    # see types_password
        child.logfile_read = io.StringIO()
        children.append(child)
        return Person(child)
    yield start
    for child in children:
        child.close(force=True)


def types_password(someone: Person, password: str = practice.PASSWORD) -> None:
    """Answer the question for the password.

    A person does not type before the question is there, when the terminal
    would still show it; a program has to wait for that.
    """
    someone.asked('Password')
    assert someone.child.waitnoecho(PATIENCE), 'the terminal would show it'
    someone.types(password)


def test_all_questions_in_the_order_of_a_letter(
        person: Callable[..., Person], server: practice.PracticeServer
        ) -> None:
    """From, Password, To, Subject, and the text up to the dot."""
    someone = person()
    someone.asked('From')
    someone.types(f'Alice <{ALICE}>')
    types_password(someone)
    someone.asked('To')
    someone.types(f'Bób <{BOB}>, carol@example.org')
    someone.asked('Subject')
    someone.types('Grüße aus dem Labor')
    someone.sees('(?i)text[^\r\n]*dot[^\r\n]*[\r\n]')
    for line in ('Hällo,', '', '..', ' .', '.'):
        someone.types(line)
    someone.sees('Sent to bob@example.org, carol@example.org: 250 ')
    assert someone.ends() == 0
    message, = server.messages
    assert message.recipients == (BOB, 'carol@example.org')
    mail = reading.read(message.content)
    assert mail.sender == [('Alice', ALICE)]
    assert mail.to == [('Bób', BOB), ('', 'carol@example.org')]
    assert mail.subject == 'Grüße aus dem Labor'
    assert mail.text == 'Hällo,\r\n\r\n..\r\n .\r\n'
    assert practice.PASSWORD not in someone.screen
    assert someone.screen.count('Password') == 1


@pytest.mark.parametrize('missing', [*GIVEN, 'Password'])
def test_only_what_is_missing_is_asked(
        person: Callable[..., Person], server: practice.PracticeServer,
        missing: str) -> None:
    """One question, and it is sent."""
    args = [part for name, option in GIVEN.items() if name != missing
            for part in option]
    someone = person(*args, password='' if missing == 'Password'
                     else practice.PASSWORD)
    if missing == 'Password':
        types_password(someone)
    else:
        someone.asked(missing)
        someone.types({'From': ALICE, 'To': BOB, 'Subject': 'Lunch',
                       'Text': 'Hello\n.'}[missing])
    assert someone.ends() == 0, someone.screen
    for name in [*GIVEN, 'Password']:
        # At the start of a line it would be a question.
        assert len(re.findall(rf'(?m)^{name}\b.*:', someone.screen)) == (
            name == missing), someone.screen
    mail = reading.read(server.messages[0].content)
    assert (mail.subject, mail.text) == ('Lunch', 'Hello\r\n')


def test_the_password_is_asked_on_the_terminal_behind_a_pipe(
        person: Callable[..., Person], server: practice.PracticeServer
        ) -> None:
    """The text comes from the pipe, the password from the person."""
    someone = person('-f', ALICE, '-t', BOB, '-s', 'Lunch',
                     shell="printf 'from the pipe\\n.\\n' | {} | cat")
    types_password(someone)
    someone.sees('Sent to bob@example.org')
    assert someone.ends() == 0
    assert reading.read(server.messages[0].content).text == \
        'from the pipe\r\n.\r\n'
    assert practice.PASSWORD not in someone.screen


def test_nothing_else_is_asked_behind_a_pipe(person: Callable[..., Person]
                                             ) -> None:
    """The pipe holds the text, not answers."""
    someone = person('-f', ALICE, '-s', 'Lunch', password=practice.PASSWORD,
                     shell="printf 'text' | {}")
    someone.sees('smtp.py: Not sent: --to is missing')
    assert someone.ends() == 64


def test_a_wrong_password(person: Callable[..., Person],
                          server: practice.PracticeServer) -> None:
    """77, the reply in full, and what was typed is shown nowhere."""
    someone = person(*GIVEN['From'], *GIVEN['To'], *GIVEN['Subject'],
                     *GIVEN['Text'], '-v')
    types_password(someone, 'wrong-and-secret')
    someone.sees('Not sent')
    assert someone.ends() == 77
    assert '535 5.7.3' in someone.screen
    assert 'wrong-and-secret' not in someone.screen
    assert 'd3JvbmctYW5kLXNlY3JldA' not in someone.screen
    assert not server.messages


def test_a_password_beyond_ascii(person: Callable[..., Person],
                                 server: practice.PracticeServer,
                                 monkeypatch: pytest.MonkeyPatch) -> None:
    """It is sent as UTF-8."""
    monkeypatch.setattr(practice, 'PASSWORD', 'pässwörd ✓')
    someone = person(*GIVEN['From'], *GIVEN['To'], *GIVEN['Subject'],
                     *GIVEN['Text'])
    types_password(someone, 'pässwörd ✓')
    assert someone.ends() == 0, someone.screen
    assert 'pässwörd' not in someone.screen


@pytest.mark.parametrize('answer, naming', [
    ('nobody', 'nobody'), ('a@example.org, b@example.org', 'From'), ('', ''),
    ('Bob <bob@example.org', 'bob')])
def test_a_wrong_sender_is_found_before_the_next_question(
        person: Callable[..., Person], answer: str, naming: str) -> None:
    """Nobody types a password or a letter in vain."""
    someone = person()
    someone.asked('From')
    someone.types(answer)
    someone.sees('smtp.py: Not sent: |Password: ')
    assert 'Password: ' not in someone.screen
    assert someone.ends() in (64, 65)
    assert naming in someone.screen


@pytest.mark.parametrize('args', [
    ['-a', 'missing.txt'], ['--body', '@missing.txt'],
    ['-t', 'nobody'], ['-c', 'nobody'], ['-H', 'Bad Name: x']],
    ids=lambda args: ' '.join(args))
def test_what_is_wrong_is_found_before_the_typing(
        person: Callable[..., Person], args: List[str]) -> None:
    """A file or an address that is wrong shows before the text is asked for.

    A file even before the password.
    """
    someone = person(*GIVEN['From'], '-s', 'Lunch', *args,
                     *([] if args[0] == '-t' else GIVEN['To']),
                     password='' if 'missing.txt' in args[1] else 'x')
    someone.sees('smtp.py: Not sent: ')
    assert someone.ends() in (65, 66)
    assert 'Password:' not in someone.screen
    assert 'dot' not in someone.screen


def test_ctrl_d_ends_the_text(person: Callable[..., Person],
                              server: practice.PracticeServer) -> None:
    """As it does everywhere else."""
    someone = person(*GIVEN['From'], *GIVEN['To'], *GIVEN['Subject'],
                     password=practice.PASSWORD)
    someone.asked('Text')
    someone.types('Hello')
    someone.child.sendeof()
    assert someone.ends() == 0, someone.screen
    assert reading.read(server.messages[0].content).text == 'Hello\r\n'


@pytest.mark.parametrize('question', ['From', 'Password', 'To', 'Subject'])
@pytest.mark.parametrize('key', ['Ctrl-C', 'Ctrl-D'])
def test_giving_up(person: Callable[..., Person], question: str, key: str,
                   server: practice.PracticeServer) -> None:
    """130 for Ctrl-C, a missing value for Ctrl-D; no traceback for either."""
    someone = person()
    for name, answer in (('From', ALICE), ('Password', 'x'), ('To', BOB),
                         ('Subject', 'x')):
        someone.asked(name)
        if name == 'Password':
            assert someone.child.waitnoecho(PATIENCE)
        if name == question:
            break
        someone.types(answer)
    if key == 'Ctrl-C':
        someone.child.sendintr()
    else:
        someone.child.sendeof()
    someone.sees('smtp.py: Not sent: ')
    assert someone.ends() == (130 if key == 'Ctrl-C' else 64)
    assert 'Traceback' not in someone.screen
    assert not server.messages


def test_ctrl_c_while_typing_keeps_the_text(
        person: Callable[..., Person], tmp_path: pathlib.Path) -> None:
    """What was typed up to there is in a file, and nothing was sent."""
    someone = person(*GIVEN['From'], *GIVEN['To'], *GIVEN['Subject'],
                     password=practice.PASSWORD)
    someone.asked('Text')
    someone.types('precious words')
    someone.sees('precious words\r\n')
    someone.is_read()
    someone.child.sendintr()
    someone.sees('smtp.py: Not sent: ')
    assert someone.ends() == 130
    path, = tmp_path.glob('unsent-*')
    assert b'precious words' in path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600


def test_ctrl_c_before_typing_keeps_nothing(
        person: Callable[..., Person], tmp_path: pathlib.Path) -> None:
    """There is nothing that could be lost."""
    someone = person(*GIVEN['From'], *GIVEN['To'], *GIVEN['Subject'],
                     password=practice.PASSWORD)
    someone.asked('Text')
    someone.is_read()
    someone.child.sendintr()
    someone.sees('smtp.py: Not sent: ')
    assert someone.ends() == 130
    assert not list(tmp_path.glob('unsent-*'))


def test_letters_of_another_character_set(
        person: Callable[..., Person], server: practice.PracticeServer
        ) -> None:
    """A terminal that sends Latin-1: refused, and no traceback."""
    someone = person(*GIVEN['From'], *GIVEN['To'], *GIVEN['Subject'],
                     password=practice.PASSWORD)
    someone.asked('Text')
    os.write(someone.child.child_fd, b'Gr\xfc\xdfe\n.\n')
    someone.sees('smtp.py: Not sent: ')
    assert someone.ends() == 65
    assert 'Traceback' not in someone.screen
    assert not server.messages


def test_an_answer_of_another_character_set(
        person: Callable[..., Person], server: practice.PracticeServer
        ) -> None:
    """The same for a subject."""
    someone = person(*GIVEN['From'], *GIVEN['To'], *GIVEN['Text'],
                     password=practice.PASSWORD)
    someone.asked('Subject')
    os.write(someone.child.child_fd, b'Gr\xfc\xdfe\n')
    someone.sees('smtp.py: Not sent: ')
    assert someone.ends() == 65
    assert 'Traceback' not in someone.screen
    assert not server.messages


def test_a_dry_run_asks_for_no_password(person: Callable[..., Person],
                                        server: practice.PracticeServer
                                        ) -> None:
    """Nobody needs one to look at a message."""
    someone = person('-n', *GIVEN['From'], *GIVEN['Subject'])
    someone.asked('To')
    someone.types(BOB)
    someone.asked('Text')
    someone.types('Hello')
    someone.types('.')
    someone.sees('MIME-Version: 1.0')
    assert someone.ends() == 0
    assert 'Password' not in someone.screen
    assert not server.messages
