"""The options of the command line: what each does, and what is wrong with it.

A usage error is 64 and names the option; what cannot be sent is 65, a file
that cannot be read 66, all of it before anything is asked or connected.
"""

import os
import pathlib
import re
from typing import List

import practice_server
import pytest
import reading
from calling import BASIC, MAIL, POSIX, SECRET, Call, not_sent

import smtp

# ------------------------------------------------------------- what they do


def test_the_message_from_options(call: Call, tmp_path: pathlib.Path) -> None:
    """Each option finds its place in the message."""
    path = tmp_path / 'menu.txt'
    path.write_bytes(b'Soup\n')
    done = call(
        '-n', '-f', 'Alice <alice@example.com>', '-t', 'bob@example.org',
        '--to', 'Carol <carol@example.org>, "D, E" <d@example.org>',
        '-c', 'e@example.org', '--bcc', 'f@example.org', '--subject', 'Grüße',
        '--body', 'Hällo', '--html', '<p>Hällo', '-a', str(path),
        '--attach', str(path), '-H', 'X-Lab: 3', '--header', 'X-Lab:4',
        '-H', 'Reply-To: Ö <o@example.com>', '--timezone', 'Asia/Kolkata')
    assert (done.code, done.errors) == (0, '')
    reading.lint(done.output)
    mail = reading.read(done.output)
    assert mail.sender == [('Alice', 'alice@example.com')]
    assert mail.to == [('', 'bob@example.org'), ('Carol', 'carol@example.org'),
                       ('D, E', 'd@example.org')]
    assert mail.cc == [('', 'e@example.org')]
    assert (mail.subject, mail.text) == ('Grüße', 'Hällo\r\n')
    assert mail.html == '<p>Hällo\r\n'
    assert mail.files == [('menu.txt', 'text/plain', b'Soup\n')] * 2
    assert b'f@example.org' not in done.output
    assert reading.fields(done.output, 'X-Lab') == ['3', '4']
    assert reading.fields(done.output, 'Date')[0].endswith(' +0530')


def test_fields_about_the_content(call: Call) -> None:
    """Two of the fields that begin with Content- are the user's own."""
    done = call('-n', *MAIL, '-H', 'Content-Language: de', '-H',
                'Content-Description: Menu')
    assert (done.code, done.errors) == (0, '')
    assert reading.fields(done.output, 'Content-Language') == ['de']
    assert reading.fields(done.output, 'Content-Description') == ['Menu']


def test_dry_run_is_what_is_sent(
        call: Call, session: List[str], tmp_path: pathlib.Path,
        server: practice_server.PracticeServer, monkeypatch: pytest.MonkeyPatch
        ) -> None:
    """Octet for octet, when chance and clock stand still."""
    monkeypatch.setattr(os, 'urandom', lambda size: b'\7' * size)
    monkeypatch.setattr(smtp, 'get_formatted_date',
                        lambda *_: reading.DATE)
    path = tmp_path / 'a.bin'
    path.write_bytes(bytes(range(256)) * 300)
    mail = [*BASIC, '--body', '.\n..\n.x\nHällo\r\r\n.', '-a', str(path),
            '-b', 'carol@example.org']
    printed = call('-n', *mail)
    assert (printed.code, printed.errors) == (0, '')
    sent = call(*mail, *session, '-u', practice_server.USER, password=SECRET)
    assert sent.code == 0, sent.errors
    message, = server.messages
    assert message.content == printed.output
    assert message.recipients == ('bob@example.org', 'carol@example.org')


@pytest.mark.parametrize('option', ['--version', '--help', '-h'])
def test_version_and_help(call: Call, option: str) -> None:
    """They go to standard output, and all is well."""
    done = call(option)
    assert (done.code, done.errors) == (0, '')
    assert b'smtp.py' in done.output
    if option == '--version':
        assert re.fullmatch(rb'smtp\.py [0-9.]+\r?\n', done.output)


def test_help_knows_every_option_and_exit_code(call: Call) -> None:
    """Also what a script has to know."""
    text = call('--help').output.decode()
    for option in (
            '-f --from -t --to -c --cc -b --bcc -s --subject --body --html -a '
            '--attach -H --header --message --timezone --timezones --server '
            '-p --port --tls --ca-file --ehlo --timeout -4 -6 -u --user '
            '--auth --password-command -v --verbose --explain --step -q '
            '--quit-after -n --dry-run --talk --version -h --help').split():
        assert re.search(rf'(?<![\w-]){option}(?![\w-])', text), option
    for code in (64, 65, 66, 67, 68, 69, 74, 75, 76, 77, 78, 130):
        assert str(code) in text
    assert 'SMTP_PASSWORD' in text


def test_timezones(call: Call) -> None:
    """The names that --timezone takes, a line each."""
    done = call('--timezones')
    assert (done.code, done.errors) == (0, '')
    names = done.output.decode().split()
    assert {'UTC', 'Europe/Zurich', 'America/Chicago'} <= set(names)
    assert len(names) > 400


@pytest.mark.parametrize('name', ['Europe/Nowhere', '', '../etc/passwd', 'é',
                                  '\udcff', 'utc\0', 'UTC+3'])
def test_a_zone_that_is_none(call: Call, name: str) -> None:
    """It is a slip of the command line."""
    not_sent(call('-n', *MAIL, '--timezone', name), 64, 'zone')


# -------------------------------------------------- what is wrong with them


@pytest.mark.parametrize('args, naming', [
    (['--no-such-option'], '--no-such-option'), (['stray'], ''),
    (['--sub', 'x'], '--sub'), (['-f'], '--from'), (['--to'], '--to'),
    (['-p', '0'], '--port'), (['-p', '70000'], '--port'),
    (['-p', '65536'], '--port'), (['-p', '-1'], '--port'),
    (['-p', 'smtp'], '--port'), (['-p', ''], '--port'),
    (['-p', '9' * 5000], '--port'),
    (['--timeout', '0'], '--timeout'), (['--timeout', '-1'], '--timeout'),
    (['--timeout', 'nan'], '--timeout'), (['--timeout', 'inf'], '--timeout'),
    (['--timeout', 'soon'], '--timeout'), (['--tls', 'maybe'], '--tls'),
    (['--auth', 'ntlm'], '--auth'), (['--server', ''], '--server'),
    (['--tls', 'none', '--auth', 'login'], '--tls'),
    (['--ehlo', ''], '--ehlo'), (['--ehlo', 'two words'], '--ehlo'),
    (['--ehlo', 'a_b.example'], '--ehlo'), (['--ehlo', '[192.0.2]'], '--ehlo'),
    (['--ehlo', 'a\r\nQUIT'], '--ehlo'), (['--ehlo', '192.0.2.7]'], '--ehlo'),
    (['-H', 'no colon'], '--header'), (['-H', 'Bcc: e@example.org'], 'Bcc'),
    (['-H', 'To: e@example.org'], 'To'), (['-H', 'subject: x'], 'subject'),
    (['-H', 'Content-Type: text/html'], 'Content-Type'),
    (['-H', 'content-transfer-encoding: 8bit'], 'content-transfer-encoding'),
    (['-H', 'Content-Disposition: inline'], 'Content-Disposition'),
    (['-H', 'MIME-Version: 2'], 'MIME-Version'),
    (['-H', 'Message-Id: <x@y>'], 'Message-Id'),
    (['-H', ''], '--header'), (['-q', 'never'], '--quit-after'),
    (['--talk', '-n'], '--talk'), (['--talk', '-q', 'auth'], '--talk')],
    ids=lambda value: str(value)[:30])
def test_usage_errors(call: Call, args: List[str], naming: str) -> None:
    """64, the option is named, and a way on is shown."""
    not_sent(call('-n', *MAIL, *args), 64, naming, '--help')


@pytest.mark.parametrize('args', [
    ['-p', 'hunter2'], ['-phunter2'], ['--port', 'hunter2'],
    ['--port=hunter2'], ['--password', 'hunter2'], ['--password=hunter2']],
    ids=' '.join)
def test_a_password_among_the_options(call: Call, args: List[str]) -> None:
    """Other programs take it so; here it is an error, and not repeated."""
    done = call(*MAIL, *args)
    not_sent(done, 64)
    assert 'hunter2' not in done.errors


@pytest.mark.parametrize('missing, option', [
    ('-f', '--from'), ('-t', '--to'), ('-s', '--subject')])
def test_a_missing_value_without_a_terminal(call: Call, missing: str,
                                            option: str) -> None:
    """Nobody can be asked, so the option is named."""
    place = BASIC.index(missing)
    args = BASIC[:place] + BASIC[place + 2:]
    not_sent(call('-n', *args, '--body', 'x'), 64, option)
    not_sent(call('-n', *args, input=b'text'), 64, option)


@POSIX
def test_a_missing_password_without_a_terminal(start: Call) -> None:
    """Where to put it is said, and nothing is connected."""
    done = start(*MAIL, '--server', 'nowhere.invalid')
    not_sent(done, 64, 'SMTP_PASSWORD')


def test_two_values_are_missing(call: Call) -> None:
    """The first of the questions is the one that is named."""
    not_sent(call('-n'), 64, '--from')


@pytest.mark.parametrize('args, naming', [
    (['-t', 'nobody'], 'nobody'), (['-f', 'x@y@z'], 'x@y'),
    (['-f', 'a@example.org, b@example.org'], 'From'),
    (['-f', ','], 'From'), (['-f', 'G:;'], 'From'),
    (['-t', ''], 'recipient'),
    (['-c', 'Bob <bob>'], 'Cc'), (['-b', 'bob@example..org'], 'Bcc'),
    (['-s', 'a\r\nBcc: eve@example.org'], 'Subject'),
    (['-s', 'a\udcffb'], 'Subject'), (['-t', 'b\udcff@example.org'], 'To'),
    (['--body', 'a\udcff'], 'UTF-8'), (['-H', 'X-A: a\nb'], 'X-A'),
    (['-H', 'Bad Name: x'], 'Bad Name'), (['-H', ': x'], ''),
    (['-H', 'Reply-To: nobody'], 'Reply-To')], ids=lambda value: ascii(value))
def test_messages_that_cannot_be_sent(call: Call, args: List[str], naming: str
                                      ) -> None:
    """65, and what is wrong is named; before any question or connection."""
    rest = list(BASIC)
    if args[0] in rest:
        place = rest.index(args[0])
        del rest[place:place + 2]
    not_sent(call('-n', '--body', 'x', *rest, *args), 65, naming)


@pytest.mark.parametrize('args', [
    ['-a', 'missing.txt'], ['--attach', '.'], ['--body', '@missing.txt'],
    ['--body', '@.'], ['--body', '@'], ['--body', 'x', '--html', '@missing'],
    ['--body', '@/dev/null'], ['--body', '@\udcff'], ['-a', 'a\0b'],
    ['--body', '@a\0b']], ids=lambda args: ascii(args[-1]))
def test_files_that_cannot_be_read(call: Call, args: List[str]) -> None:
    """66, before the password is asked for: nobody types it in vain."""
    not_sent(call(*BASIC, *args, '--server', 'nowhere.invalid'), 66)


def test_a_finished_message_that_is_missing(call: Call) -> None:
    """The same for --message."""
    not_sent(call('--message', 'missing.eml'), 66, 'missing.eml')


@pytest.mark.parametrize('seconds', ['4294968', '1e9', 'inf', 'nan', '0'])
def test_a_timeout_that_the_system_cannot_count(seconds: str, call: Call
                                                ) -> None:
    """It would begin again at nought, and end a wait at once."""
    not_sent(call(*MAIL, '--timeout', seconds), 64, '--timeout')
