"""The environment: what is sent is the same in any locale and time zone."""

import os
import pathlib
import re
import subprocess
import sys
from typing import Dict, Optional

import conftest
import pytest
import reading
from calling import MAIL, POSIX, Call, not_sent, text_of


@pytest.mark.parametrize('env', [
    {'LC_ALL': 'C'}, {'LC_ALL': 'POSIX', 'HOME': None},
    {'LC_ALL': None, 'HOME': '/nonexistent', 'TERM': None},
    {'LC_ALL': 'xx_XX.NOT-A-CHARSET'}], ids=lambda env: str(env['LC_ALL']))
def test_locales(start: Call, env: Dict[str, Optional[str]]) -> None:
    """UTF-8 it is, whatever the locale says."""
    done = start('-n', '-f', 'Älice <alice@example.com>', '-t',
                 'bob@example.org', '-s', 'Grüße', env=env,
                 input='Hällo'.encode())
    assert text_of(done) == 'Hällo\r\n'
    mail = reading.read(done.output)
    assert mail.sender == [('Älice', 'alice@example.com')]
    assert mail.subject == 'Grüße'


@POSIX
def test_an_error_in_a_locale_that_lacks_its_letters(start: Call) -> None:
    """Letters that cannot be printed are escaped."""
    done = start('-n', *MAIL, '-c', 'bób@', env={
        'LC_ALL': 'C', 'PYTHONUTF8': '0', 'PYTHONCOERCECLOCALE': '0'})
    not_sent(done, 65, 'Cc')
    done = start('-n', *MAIL, '-c', 'bób@', env={'PYTHONIOENCODING': 'ascii'})
    not_sent(done, 65, r'b\xf3b@')


@POSIX
@pytest.mark.parametrize('zone, offset', [
    (None, '[+-][0-9]{4}'), ('', '[+]0000'), ('UTC', '[+]0000'),
    ('UTC+3', '-0300'), ('<+0530>-5:30', '[+]0530'), ('bogus', '[+]0000'),
    ('No/Such_Zone', '[+]0000'), ('../../etc/passwd', '[+]0000'),
    ('EST5EDT,M3.2.0,M11.1.0', '-0[45]00'), ('AAA-1:02:03', '[+]0102'),
    ('AAA0:00:30', '-0000|[+]0000'), ('Asia/Kolkata', '[+]0530'),
    (':Asia/Kolkata', '[+]0530'), ('/usr/share/zoneinfo/Asia/Kolkata',
                                   '[+]0530')])
def test_time_zones_of_the_environment(start: Call, zone: Optional[str],
                                       offset: str) -> None:
    """The date is that of the C library, and always by the grammar."""
    if 'Kolkata' in str(zone) and not os.path.exists(
            '/usr/share/zoneinfo/Asia/Kolkata'):
        pytest.skip('this system has no time zones')
    done = start('-n', *MAIL, env={'TZ': zone})
    assert (done.code, done.errors) == (0, '')
    date, = reading.fields(done.output, 'Date')
    assert reading.DATE_FORM.fullmatch(date)
    assert re.fullmatch(offset, date.rpartition(' ')[2])


@POSIX
def test_dates_are_english(tmp_path: pathlib.Path,
                           clean_environment: Dict[str, str]) -> None:
    """Also where the days are called Montag, Dienstag and so on."""
    try:
        subprocess.run(
            ['localedef', '-i', 'de_DE', '-f', 'UTF-8',
             str(tmp_path / 'de_DE.UTF-8')], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip('no German locale can be made here')
    program = ('import locale, time; locale.setlocale(locale.LC_ALL, ""); '
               'print(time.strftime("%A", time.gmtime(0))); import smtp; '
               'print(smtp.get_formatted_date("Europe/Zurich"))')
    done = subprocess.run(
        [sys.executable, '-c', program], capture_output=True, text=True,
        cwd=str(conftest.ROOT), check=True, env={
            **clean_environment, 'LC_ALL': 'de_DE.UTF-8',
            'LOCPATH': str(tmp_path)})
    day, date = done.stdout.split('\n')[:2]
    assert day == 'Donnerstag'
    assert reading.DATE_FORM.fullmatch(date)
