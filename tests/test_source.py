"""The source: its metadata, what it imports, and the interface of the lab."""

import ast
import pathlib
import re
import subprocess
import sys
from typing import Dict, List

import conftest
import pytest
import reading

import smtp


def test_metadata_are_the_requirements() -> None:
    """`uv run smtp.py` installs what requirements.txt says."""
    source = conftest.PROGRAM.read_text(encoding='utf-8')
    block = re.search('(?m)^# /// script\n((?:#.*\n)+?)# ///$', source)
    assert block
    content = re.sub('(?m)^# ?', '', block[1])
    listed = re.search(r'dependencies\s*=\s*(\[[^]]*\])', content)
    assert listed
    wanted = [line.strip() for line in (
        conftest.ROOT / 'requirements.txt').read_text().split('\n')
        if line.strip() and not line.startswith('#')]
    assert sorted(ast.literal_eval(listed[1])) == sorted(wanted)
    assert {re.split('[<>=]', name)[0] for name in wanted} == {
        'pytz', 'tzlocal'}


def imports_of(source: str) -> List[str]:
    """Return the top-level name of everything that is imported anywhere."""
    names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level and node.module
            names.append(node.module)
    return [name.partition('.')[0] for name in names]


def test_what_is_imported() -> None:
    """SMTP and messages are spoken here by ourselves."""
    source = conftest.PROGRAM.read_text(encoding='utf-8')
    names = set(imports_of(source))
    assert not names & {'smtplib', 'email', 'asyncore', 'asynchat', 'smtpd',
                        'quopri', 'importlib', 'ctypes'}
    assert '__import__' not in source
    if sys.version_info >= (3, 10):
        assert names - sys.stdlib_module_names == {'pytz', 'tzlocal'}
    at_the_top = imports_of('\n'.join(
        ast.unparse(node) for node in ast.parse(source).body
        if isinstance(node, (ast.Import, ast.ImportFrom))))
    assert not set(at_the_top) & {'fcntl', 'termios', 'tty', 'pty', 'pwd',
                                  'grp', 'resource', 'readline', 'msvcrt'}
    assert 'os.EX_' not in source


def test_nothing_runs_at_import(tmp_path: pathlib.Path,
                                clean_environment: Dict[str, str]) -> None:
    """No output, no socket, no process, no thread, no signal handler."""
    program = '''
import signal, sys, threading
before = [signal.getsignal(each) for each in signal.valid_signals()]
seen = []
sys.addaudithook(lambda event, args: seen.append((event, args)))
sys.argv = ['x', '--no-such-option']
import smtp
events = [event for event, args in seen if event.startswith(('socket.',
    'subprocess.', 'os.putenv', 'os.unsetenv', 'os.system', 'signal.'))
    and event != 'socket.__new__' or event == 'open' and
    isinstance(args[1], str) and set(args[1]) & set('wax+')
    and '__pycache__' not in str(args[0])]
assert not events, events
assert threading.active_count() == 1
assert before == [signal.getsignal(each) for each in signal.valid_signals()]
'''
    done = subprocess.run(
        [sys.executable, '-B', '-c', program], capture_output=True, text=True,
        cwd=str(conftest.ROOT), env=clean_environment, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (0, '', '')


def test_the_interface_of_the_lab() -> None:
    """The names that the assignment prescribes."""
    assert smtp.SMTP_SERVER == 'smtp.office365.com'
    assert smtp.SMTP_PORT == 587
    assert isinstance(smtp.SMTP_DOMAINNAME, str)
    assert reading.DATE_FORM.fullmatch(smtp.get_formatted_date())
    assert smtp.get_formatted_date('UTC').endswith(' +0000')
    with pytest.raises(smtp.SMTPException):
        smtp.get_formatted_date('Europe/Nowhere')
    for error in (value for value in vars(smtp).values()
                  if isinstance(value, type)
                  and issubclass(value, smtp.SMTPException)):
        assert error.__doc__
        assert error.exit_code in (0, *range(64, 71), *range(74, 79))
        assert error.may_have_been_sent == (error.exit_code == 74)
