"""The setting that lists archives, and what a caller may ask for."""

from __future__ import annotations

import pytest

from model_core.errors import OptionError
from service.dicomweb.servers import (
    DicomwebServer,
    check_uid,
    choose_server,
    find_server,
    parse_servers,
)

TEXT = "hospital=https://pacs.example/dicom-web/, trial-7=http://127.0.0.1:8042/dicom-web"


def test_names_addresses_and_credentials_come_together() -> None:
    environment = {
        "SEGMAMBA_DICOMWEB_HOSPITAL_TOKEN": "t0ken",
        "SEGMAMBA_DICOMWEB_TRIAL_7_USER": "u",
        "SEGMAMBA_DICOMWEB_TRIAL_7_PASSWORD": "p",
        "SEGMAMBA_DICOMWEB_USER": "of nobody here",
    }
    servers = parse_servers(TEXT, environment)
    assert servers == {
        "hospital": DicomwebServer(
            name="hospital", url="https://pacs.example/dicom-web", token="t0ken"
        ),
        "trial-7": DicomwebServer(
            name="trial-7", url="http://127.0.0.1:8042/dicom-web", user="u", password="p"
        ),
    }
    as_json = '{"hospital": "https://pacs.example/dicom-web", '
    as_json += '"trial-7": "http://127.0.0.1:8042/dicom-web"}'
    assert parse_servers(as_json, environment) == servers
    assert list(servers) == ["hospital", "trial-7"]
    assert parse_servers("  ", environment) == {}


def test_no_secret_is_in_what_is_printed() -> None:
    server = DicomwebServer(name="a", url="http://h", user="u", password="pass7", token="tok7")
    assert "pass7" not in repr(server)
    assert "tok7" not in repr(server)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hospital", "name=url"),
        ("Hospital=https://h", "small letters"),
        ("h=ftp://h", "http or https"),
        ("h=https://", "http or https"),
        ("h=https://h:99999", "http or https"),
        ("h=https://h/?q=1", "without query"),
        ("h=https://u:secret7@h", "without credentials"),
        ("h=https://a,h=https://b", "every name once"),
        ('{"h": 1}', "an address"),
        ('{"h": "https://a", "h": "https://b"}', "every name once"),
        ('{"h"', "JSON"),
    ],
)
def test_a_setting_that_cannot_be_meant_is_refused_without_repeating_it(
    text: str, expected: str
) -> None:
    with pytest.raises(OptionError) as caught:
        parse_servers(text, {})
    assert caught.value.argument == "dicomweb_servers"
    assert expected in caught.value.expected
    assert "secret7" not in str(caught.value)


@pytest.mark.parametrize(
    "credentials",
    [{"USER": "u"}, {"PASSWORD": "p"}, {"TOKEN": "t\n"}, {"TOKEN": ""}],
)
def test_half_a_credential_is_refused_at_once(credentials: dict[str, str]) -> None:
    environment = {f"SEGMAMBA_DICOMWEB_H_{name}": value for name, value in credentials.items()}
    with pytest.raises(OptionError, match="of h"):
        parse_servers("h=https://h", environment)


def test_a_person_may_give_an_address_or_a_name() -> None:
    environment = {
        "SEGMAMBA_DICOMWEB_SERVERS": TEXT,
        "SEGMAMBA_DICOMWEB_TOKEN": "mine",
        "SEGMAMBA_DICOMWEB_HOSPITAL_TOKEN": "theirs",
    }
    given = find_server("https://other.example/x", environment)
    assert (given.url, given.token) == ("https://other.example/x", "mine")
    assert find_server("hospital", environment).token == "theirs"
    with pytest.raises(OptionError, match="one of hospital, trial-7"):
        find_server("elsewhere", environment)


def test_a_caller_reaches_only_what_is_configured() -> None:
    servers = parse_servers(TEXT, {})
    assert choose_server(servers, "hospital") is servers["hospital"]
    for wanted in ("http://169.254.169.254/latest", "HOSPITAL", ""):
        with pytest.raises(OptionError) as caught:
            choose_server(servers, wanted)
        assert "169.254" not in str(caught.value)
    with pytest.raises(OptionError, match="none is configured"):
        choose_server({}, "hospital")


@pytest.mark.parametrize("uid", ["1", "1.2.840.10008", "2.25." + "9" * 59, "1.02.3"])
def test_a_uid_is_given_back(uid: str) -> None:
    assert check_uid("study_uid", uid) == uid


@pytest.mark.parametrize(
    "uid", ["", "..", ".", "1..2", "1.", "1.2/../3", "1.2?x", "1.2 ", "1" * 65, "1.2\n", "١.٢"]
)
def test_what_is_no_uid_never_gets_into_an_address(uid: str) -> None:
    with pytest.raises(OptionError) as caught:
        check_uid("study_uid", uid)
    assert caught.value.argument == "study_uid"
