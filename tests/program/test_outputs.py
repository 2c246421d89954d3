"""Where smtp.py runs: outputs closed or full, locales, time zones."""

import ast
import contextlib
import os
import re
import subprocess
import sys
from unittest import mock

import pytest

from support import checks, cli, judges
from support.post import ALICE, MAIL, PASSWORD

FULL = pytest.mark.skipif(not os.path.exists('/dev/full'), reason='no device')


@pytest.fixture
def into(run):
    """A function like `run`; '| false' is a pipe whose reader has gone."""
    def into(*args, shell):
        read, write = os.pipe()
        os.close(read)
        with open(write, 'wb', buffering=0) as pipe:
            return run(*args, password=PASSWORD, **(
                {'stdout': pipe} if shell == '| false' else {'shell': shell}))
    return into


@pytest.mark.parametrize('shell, reason', [
    ('>&-', 'not writable'), ('| false', 'Broken pipe'),
    pytest.param('>/dev/full', 'No space left on device', marks=FULL)])
def test_printed_to_nowhere(shell, reason, into, post):
    """It says why; but where a verdict cannot go, standard error has it."""
    for args in ['-n', *MAIL], ['--version'], ['--help']:
        checks.check(into(*args, shell=shell), 66, reason)
    for args, verdict in ((MAIL, 'Sent to bob@example.org: 250 .*'),
                          (['--check', '-f', ALICE], 'Login accepted: .*')):
        result = into(*args, *post.options, shell=shell)
        assert (result.code, result.out) == (0, b''), result.err
        assert re.fullmatch(verdict + '\n', result.err)
    post.only()


@pytest.mark.parametrize('shell', [
    '2>&-', '>&- 2>&- <&-', pytest.param('2>/dev/full', marks=FULL)])
def test_nowhere_for_errors(shell, into, post):
    """The exit code is still right."""
    for args, code in ((['-n', *MAIL], 66 if '>&- <' in shell else 0),
                       ([*MAIL, '-v'], 0),
                       ([*MAIL, '-t', 'x'], 65), (['--no-such-option'], 64)):
        result = into(*post.options, *args, shell=shell)
        assert (result.code, result.err) == (code, ''), args
    post.only()


@pytest.mark.skipif(not os.path.exists('/proc/self'), reason='no /proc here')
def test_a_full_pipe_that_does_not_wait(start):
    """Another program has set it so; the verdict is not lost."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(write, bytes(4096))
    process = start('--no-such-option', stderr=write)
    os.close(write)
    cli.wait_until(lambda: process.poll() is not None
                   or cli.waits(process.pid))       # until somebody reads
    with open(read, 'rb') as pipe:
        assert pipe.read().strip(b'\0').startswith(b'smtp.py: Not sent: ')
    assert process.wait(20) == 64


@pytest.mark.parametrize('last', [b'S: 220', b'C: DATA', b'C: .'])
def test_a_reader_of_the_transcript_who_goes(last, start, post):
    """As in `smtp.py -v ... 2>&1 | head`: the mail is sent all the same."""
    process = start(*MAIL, *post.options, '-v', password=PASSWORD)
    with process.stderr as transcript:
        assert any(line.startswith(last) for line in transcript)
    process.stderr = None
    assert process.wait(20) == 0
    post.only()


@pytest.mark.parametrize('error, word', [
    (RuntimeError('the socket is broken'), 'socket is broken'),
    # which may have octets of a secret in it
    (UnicodeDecodeError('utf-8', b'hunter-2\xff', 8, 9, 'bad'), 'Unicode')])
def test_a_fault_of_ours(error, word, call, monkeypatch):
    """There is a verdict, without a traceback."""
    monkeypatch.setattr('socket.socket', mock.Mock(side_effect=error))
    result = call(*MAIL, '--server=127.0.0.1', password=PASSWORD)
    checks.check(result, 70, word, absent='hunter')


@pytest.mark.parametrize('env', [
    {'LC_ALL': 'C'}, {'LC_ALL': None, 'HOME': '/nonexistent', 'TERM': None},
    {'LC_ALL': 'xx_XX.NOT-A-CHARSET'}, {'PYTHONIOENCODING': 'ascii'}], ids=str)
def test_any_locale(env, run, post):
    """The message is UTF-8; what cannot be printed is escaped."""
    result = run(*MAIL, *post.options, 'bób@example.org', password=PASSWORD,
                 env=env)
    checks.check(result, 0, r'Sent to b(ó|\\xf3)b@')
    checks.check(run('-n', *MAIL, '-c', 'bó@', env=env), 65, r'b(ó|\\xf3)@')
    mail = judges.read(run(
        '-n', *MAIL, '-f', f'Älice <{ALICE}>', '-s', 'Grüße', '--body=-',
        stdin='Hällo'.encode(), env=env).out)
    assert (mail.sender, mail.subject, mail.text) == (
        [('Älice', ALICE)], 'Grüße', 'Hällo\r\n')


@pytest.mark.parametrize('zone, offset', [
    (None, '[+-]....'), ('', '[+]0000'), ('UTC+3', '-0300'),
    ('<+0530>-5:30', '[+]0530'), ('../../etc/passwd', '[+]0000'),
    ('EST5EDT,M3.2.0,M11.1.0', '-0[45]00'), ('AAA-1:02:03', '[+]0102'),
    ('AAA0:00:30', '-0000|[+]0000'), (':Asia/Kathmandu', '[+]0[05][04][05]')])
def test_time_zones(zone, offset, run, call, monkeypatch):
    """The date is that of the C library, also without pytz and tzlocal."""
    result = run('-n', *MAIL, env={'TZ': zone})
    date, = judges.fields(result.out, 'Date')
    assert re.fullmatch(offset, date.rpartition(' ')[2])
    for name in 'pytz', 'tzlocal':
        monkeypatch.setitem(sys.modules, name, None)
    for each in result, call('-n', *MAIL):
        assert judges.DATE_FORM.fullmatch(*judges.fields(each.out, 'Date'))
        assert each.err == ''


def test_dates_are_english(tmp_path):
    """Also for a caller of the library in Germany."""
    if os.system(f'localedef -i de_DE -f UTF-8 {tmp_path}/de_DE.UTF-8'):
        pytest.skip('no German locale can be made here')
    date = subprocess.check_output([sys.executable, '-c', (
        'import locale, time, smtp; locale.setlocale(locale.LC_ALL, "");'
        'assert time.strftime("%A", time.gmtime(0)) == "Donnerstag";'
        'print(smtp.get_formatted_date("UTC"))')], cwd=str(cli.ROOT), env={
            'LC_ALL': 'de_DE.UTF-8', 'LOCPATH': str(tmp_path)}, text=True)
    assert judges.DATE_FORM.fullmatch(date.strip())


def test_what_is_imported():
    """SMTP and messages are spoken here by ourselves; PEP 723 is true."""
    source = cli.PROGRAM.read_text(encoding='utf-8')
    names = {(getattr(node, 'module', '') or alias.name).partition('.')[0]
             for node in ast.walk(ast.parse(source)) if isinstance(
                 node, (ast.Import, ast.ImportFrom)) for alias in node.names}
    assert not names & {'smtplib', 'email', 'quopri', 'importlib', 'ctypes'}
    if sys.version_info >= (3, 10):
        assert names - sys.stdlib_module_names == {'pytz', 'tzlocal'}
    block, = re.findall('(?ms)^# /// script\n(.*?)^# ///$', source)
    wanted = (cli.ROOT / 'requirements.txt').read_text()
    assert sorted(re.findall('"((?:pytz|tzlocal).*?)"', block)) == sorted(
        re.findall('(?m)^[a-z].*', wanted))


def test_nothing_runs_at_import():
    """No output, socket, process, signal handler, or file."""
    done = subprocess.run([sys.executable, '-B', '-c', '''if True:
        import re, signal, sys
        before = list(map(signal.getsignal, signal.valid_signals()))
        sys.addaudithook(lambda event, args: seen.append(f'{event} {args}'))
        seen = []
        import smtp
        bad = r'(socket[.][a-z]|subprocess|os[.][ps]|signal|open .*, .[wax])'
        assert not [event for event in seen if re.match(bad, event)], seen
        assert before == list(map(signal.getsignal, signal.valid_signals()))
        '''], capture_output=True, cwd=str(cli.ROOT), env=cli.clean())
    assert (done.returncode, done.stdout, done.stderr) == (0, b'', b'')
