"""Which brokers a directory holds, from one start to the next."""

import json
import socket
from pathlib import Path

import pytest

from go2hooks.devstack.errors import StackError
from go2hooks.devstack.quorum import open_quorum
from go2hooks.devstack.security import secure


@pytest.mark.parametrize("brokers", [1, 2, 3, 5])
def test_the_next_start_finds_the_same_cluster_at_the_same_ports(tmp_path: Path, brokers: int) -> None:
    made = open_quorum(tmp_path, brokers)
    assert [node.id for node in made.nodes] == list(range(1, brokers + 1))
    assert len({port for node in made.nodes for port in (node.port, node.controller_port)}) == 2 * brokers
    assert open_quorum(tmp_path) == open_quorum(tmp_path, brokers) == made


def test_a_new_directory_gets_one_broker_that_lives_in_it(tmp_path: Path) -> None:
    quorum = open_quorum(tmp_path)
    assert [quorum.dir_of(node) for node in quorum.nodes] == [tmp_path]


def test_the_nodes_of_a_cluster_have_a_directory_each(tmp_path: Path) -> None:
    quorum = open_quorum(tmp_path, 3)
    assert len({quorum.dir_of(node) for node in quorum.nodes}) == 3


@pytest.mark.parametrize(("made", "asked"), [(3, 1), (1, 3), (3, 5)])
def test_another_number_of_brokers_is_refused_with_the_remedy(tmp_path: Path, made: int, asked: int) -> None:
    kept = open_quorum(tmp_path, made)
    with pytest.raises(StackError, match=rf"of {made} broker.*of {asked}: leave --brokers out .* --data-dir"):
        open_quorum(tmp_path, asked)
    assert open_quorum(tmp_path) == kept


def test_a_port_that_was_taken_meanwhile_is_replaced_for_every_node(tmp_path: Path) -> None:
    before = open_quorum(tmp_path, 3)
    with socket.socket() as other:
        other.bind(("127.0.0.1", before.nodes[0].controller_port))
        other.listen()
        after = open_quorum(tmp_path)
    assert after.nodes[1:] == before.nodes[1:]
    assert after.nodes[0].port == before.nodes[0].port
    assert f"1@127.0.0.1:{before.nodes[0].controller_port}" not in after.voters


@pytest.mark.parametrize("brokers", [None, 1])
def test_a_directory_from_before_there_was_a_file_is_a_cluster_of_one(tmp_path: Path, brokers: int | None) -> None:
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "meta.properties").write_text("#\n#Wed Nov 25\ncluster.id=abc=\nnode.id=1\nversion=1\n")
    port = open_quorum(tmp_path / "elsewhere").nodes[0].port
    (tmp_path / "port").write_text(str(port))
    quorum = open_quorum(tmp_path, brokers)
    assert (quorum.cluster_id, [node.port for node in quorum.nodes]) == ("abc=", [port])
    assert json.loads((tmp_path / "quorum.json").read_bytes())["clusterId"] == "abc="
    with pytest.raises(StackError, match="of 1 broker"):
        open_quorum(tmp_path, 3)


@pytest.mark.parametrize("made_by", ["this version", "one before quorum.json"])
def test_brokers_that_were_made_without_security_are_not_secured_afterwards(tmp_path: Path, made_by: str) -> None:
    """They would not start: their metadata has no user."""
    kafka = tmp_path / "kafka"
    if made_by == "this version":
        open_quorum(kafka)
    else:
        (kafka / "log").mkdir(parents=True)
        (kafka / "log" / "meta.properties").write_text("cluster.id=abc\n")
    with pytest.raises(StackError, match="made without --secure"):
        secure(tmp_path)
    assert not (tmp_path / "security").exists()
