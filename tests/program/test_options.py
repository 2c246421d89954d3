"""The command line, by data/options.ini: what is wrong, what is made of it."""

import os
import re
import shlex
import socket

import pytest

from support import checks, judges, tables
from support.post import ALICE, BASIC, BOB, CAROL, MAIL, PASSWORD


@pytest.mark.parametrize('run, row', [
    pytest.param(run, row, id=f'{name}-{number}')
    for name, row in tables.read('options')
    for number, run in enumerate(re.split('\n| {2,}', row['run']), 1)])
def test_row(run, row, call, folder):
    """Each case: exit code, the reason, and nothing that is not so."""
    (folder / 'menu.txt').write_text('From: x@y.org\nTo: z@y.org\n\nSoup')
    run = run.format(mail=shlex.join(MAIL), basic=shlex.join(BASIC))
    result = call('-n', *(
        word.encode('latin-1', 'backslashreplace').decode('unicode_escape')
        for word in shlex.split(run)), stdin=row.get('pipe', '').encode())
    says = row['says'].split('\n') if 'says' in row else []
    if row.get('exit') == '0':
        judges.lint(result.out)
        assert all(checks.says(word, result.err) for word in says), result.err
        assert (result.code, bool(result.err)) == (0, bool(says)), result.err
    else:
        checks.check(result, int(row.get('exit', 64)), *says, absent=[
            row.get('not', 'NoneType'), 'parse_', 'invalid literal'])


def test_every_option_finds_its_place(call, folder):
    """Recipients may come anywhere, before and after options."""
    (folder / 'menu.txt').write_bytes(b'Soup\n')
    result = call('-n', BOB, *shlex.split(
        '-f "Alice <alice@example.com>" erin@example.org -t t@example.org --to'
        ' "Carol <carol@example.org>, \\"D, E\\" <d@example.org>" -c c@x.org '
        '--bcc hidden@example.net -s Grüße --body Hällo --html "<p>Hällo" -a '
        'menu.txt --attach menu.txt -H "X-Lab: 3" --header X-Lab:4'))
    assert (result.code, result.err) == (0, '')
    judges.lint(result.out)
    assert judges.read(result.out) == judges.Mail(
        [('Alice', ALICE)], [
            ('', BOB), ('', 'erin@example.org'), ('', 't@example.org'),
            ('Carol', CAROL), ('D, E', 'd@example.org')], [('', 'c@x.org')],
        'Grüße', 'Hällo\r\n', '<p>Hällo\r\n',
        [('menu.txt', 'text/plain', b'Soup\n')] * 2)
    assert b'hidden' not in result.out
    assert judges.fields(result.out, 'X-Lab') == ['3', '4']


def test_a_dry_run_is_what_is_sent(post, call, folder, monkeypatch):
    """Octet for octet, except the Date, when chance stands still."""
    monkeypatch.setattr(os, 'urandom', lambda size: b'\7' * size)
    (folder / 'a.bin').write_bytes(bytes(range(256)) * 300)
    mail = [*BASIC, '--body', '.\n..\n.x\nHällo\r\r\n.', '-a', 'a.bin',
            '-b', CAROL]
    printed = call('-n', *mail)
    checks.check(call(*mail, *post.options, password=PASSWORD), 0)
    assert post.only().recipients == (BOB, CAROL)
    first, second = (re.sub(rb'(?m)^Date: .*$', b'', octets)
                     for octets in (post.only().content, printed.out))
    assert first == second


def test_help_and_version(call):
    """The words of --help are in messages/golden/help.txt."""
    result = call('--help')
    assert (result.code, result.err, call('-h')) == (0, '', result)
    assert re.fullmatch(r'smtp\.py [0-9.]+\n', call('--version').text)


@pytest.mark.parametrize('server, options, used', [
    ('x.example', [], 'x.example'), ('', [], 'smtp.office365.com'),
    ('x.example', ['--server', 'mail.bücher.example', '-f', ALICE],
     'mail.xn--bcher-kva.example')])
def test_variables_count_as_options_would(server, options, used, call, lookup):
    """An option comes before its variable; an empty one does not count."""
    asked = lookup(socket.gaierror(socket.EAI_NONAME, 'no'))
    args = [*options, '-t', BOB, '-s', 'x', '--body', 'x']
    env = {'SMTP_SERVER': server, 'SMTP_FROM': CAROL}
    checks.check(call(*args, env=env, password='x'), 68, used)
    assert asked == [used]
    mail = judges.read(call('-n', *args, env=env).out)
    assert mail.sender == [('', ALICE if '-f' in options else CAROL)]
