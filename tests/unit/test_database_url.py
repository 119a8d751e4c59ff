"""What a connection URL's options set, as Postgres would read them."""

import psycopg.conninfo
import pytest

from go2hooks.core.errors import SettingsError
from go2hooks.database_url import is_connection, read_url
from go2hooks.settings import load_settings

URL = "postgresql://go2:secret@db.example:6432/go2hooks"


@pytest.mark.parametrize(
    ("options", "set_"),
    [
        ("-csearch_path%3Dgo2", {"search_path": "go2"}),
        ("-c%20search_path%3Dgo2%2Cpublic%20-c%20work_mem%3D64MB", {"search_path": "go2,public", "work_mem": "64MB"}),
        ("--search-path%3Dgo2", {"search_path": "go2"}),
        ("-csearch_path%3D%22two%5C%20words%22", {"search_path": '"two words"'}),
        ("-cTimeZone%3DAsia/Kolkata", {"timezone": "Asia/Kolkata"}),
        ("", {}),
    ],
)
def test_options_are_taken_out_and_read(options, set_):
    found = read_url(f"{URL}?options={options}&sslmode=require")
    assert found.options == set_
    parts = psycopg.conninfo.conninfo_to_dict(found.conninfo)
    assert parts == psycopg.conninfo.conninfo_to_dict(f"{URL}?sslmode=require")


def test_pgoptions_count_where_the_url_has_none():
    assert read_url(URL, "-csearch_path=a").options == {"search_path": "a"}
    assert read_url(f"{URL}?options=-csearch_path%3Db", "-csearch_path=a").options == {"search_path": "b"}


@pytest.mark.parametrize("options", ["-e", "-c", "-csearch_path", "search_path%3Dgo2", "-B%20100"])
def test_other_options_are_refused_where_settings_are_read(options, monkeypatch):
    for name in ("GO2HOOKS_DATABASE_URL", "GO2HOOKS_DATABASE_DIRECT_URL"):
        monkeypatch.setenv(name, f"{URL}?options={options}")
        with pytest.raises(SettingsError, match=f"{name}: .*options may be -c name=value alone") as raised:
            load_settings()
        assert "secret" not in str(raised.value)
        monkeypatch.delenv(name)


def test_a_password_that_looks_like_a_host_is_noticed():
    assert is_connection(URL)
    assert not is_connection("postgresql://go2:sec@ret@db.example/go2hooks")
    assert not is_connection("mysql://nowhere")
