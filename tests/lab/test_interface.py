"""The interface that the lab prescribes: its functions and constants."""

from __future__ import annotations

import datetime
import email.utils
import io
import re
from typing import Any

import pytest

import smtp
from support.post import ALICE, BOB, PASSWORD


def test_constants(post: Any, monkeypatch: Any) -> None:
    """Office 365 is the default; SMTP_DOMAINNAME is the name in EHLO."""
    assert (smtp.SMTP_SERVER, smtp.SMTP_PORT) == ('smtp.office365.com', 587)
    assert smtp.SMTP_DOMAINNAME == ''
    monkeypatch.setattr(smtp, 'SMTP_DOMAINNAME', 'lab.example')
    shown = io.StringIO()
    receipt = smtp.smtp_send(PASSWORD, {
        'From': ALICE, 'To': [BOB], 'Subject': 'Lab'}, 'Hello\n',
        transcript=smtp.Transcript(shown), **post.session)
    assert (receipt.reply.code, receipt.recipients) == (250, [BOB])
    assert shown.getvalue().count('\nC: EHLO lab.example\n') == 2


@pytest.mark.parametrize('zone, offset', [
    ('UTC', '[+]0000'), ('Asia/Kathmandu', '[+]0545'),
    ('America/St_Johns', '-0[23]30'), (None, '[+-][0-9]{4}')])
def test_dates(zone: str | None, offset: str) -> None:
    """It is now, in that zone, in the words of RFC 5322."""
    date = smtp.get_formatted_date(zone)
    moment = email.utils.parsedate_to_datetime(date)
    now = datetime.datetime.now(datetime.timezone.utc)
    assert datetime.timedelta(0) <= now - moment < datetime.timedelta(0, 5)
    assert re.fullmatch(f'{moment:%a, %d %b %Y %H:%M:%S} {offset}', date)


def test_zones(capsys: Any) -> None:
    """Each one that is printed is known, and no others."""
    smtp.print_all_timezones()
    zones = capsys.readouterr().out.split('\n')[:-1]
    assert {'UTC', 'Europe/Zurich'} < set(zones) and len(zones) > 400
    for zone in 'Europe/Nowhere', 'ü', '':
        with pytest.raises(smtp.SMTPUsageError, match='print_all_timezones'):
            smtp.get_formatted_date(zone)
