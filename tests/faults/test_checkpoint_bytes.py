"""Damage to a checkpoint is noticed before anything in it is used; what is not a checkpoint is named."""

import random
import zipfile

import pytest
import torch

from scripts.errors import InputError
from scripts.network.checkpoint_file import read_state, save_state
from tests.made import refused
from tests.made.network import network

TRIALS = 100


@pytest.fixture(scope="module")
def content(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("saved") / "checkpoint.pt"
    save_state(path, {"network": network().state_dict(), "engine": {"epoch": 3}, "best": {"score": 0.5}})
    return path.read_bytes()


def is_noticed(path, content: bytes) -> bool:
    path.write_bytes(content)
    try:
        read_state(path)
    except InputError:
        return True
    return False


def test_every_single_flipped_bit_is_noticed(tmp_path, content):
    draw, noticed = random.Random(0), 0
    for _ in range(TRIALS):
        damaged = bytearray(content)
        damaged[draw.randrange(len(damaged))] ^= 1 << draw.randrange(8)
        noticed += is_noticed(tmp_path / "model.pt", damaged)
    assert noticed == TRIALS


def test_flipped_bits_at_both_ends_are_noticed(tmp_path, content):
    places = [*range(8), *range(len(content) - 100, len(content))]
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= 1
        assert is_noticed(tmp_path / "model.pt", damaged), place


def test_sixty_four_flipped_bytes_are_noticed(tmp_path, content):
    draw, noticed = random.Random(0), 0
    for _ in range(TRIALS):
        damaged = bytearray(content)
        for place in draw.sample(range(len(damaged)), 64):
            damaged[place] ^= 0xFF
        noticed += is_noticed(tmp_path / "model.pt", damaged)
    assert noticed == TRIALS


def test_truncation_by_any_number_of_bytes_is_noticed(tmp_path, content):
    for length in (*range(len(content) - 110, len(content)), *range(0, len(content), 997)):
        assert is_noticed(tmp_path / "model.pt", content[:length]), length


def test_flipped_bits_never_change_weights_of_other_programs(tmp_path):
    weights, draw = network().state_dict(), random.Random(0)
    torch.save(weights, tmp_path / "other.pt")
    content = (tmp_path / "other.pt").read_bytes()
    for _ in range(TRIALS):
        damaged = bytearray(content)
        damaged[draw.randrange(len(damaged))] ^= 1 << draw.randrange(8)
        if not is_noticed(tmp_path / "model.pt", damaged):  # the bit was in padding
            read = read_state(tmp_path / "model.pt")
            assert all(torch.equal(tensor, read[name]) for name, tensor in weights.items())


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty (0 bytes)"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n", "git lfs pull"),
        (b"\n<!DOCTYPE html><html>Not found</html>", "is a web page"),
        (b'{"message": "Not found"}', "is JSON"),
        (b"\x1f\x8b\x08\0\0", "compressed by gzip"),
        (b'\x08\0\0\0\0\0\0\0{"a": 1}', "safetensors"),
    ],
)
def test_files_given_by_mistake_are_named(tmp_path, content, reason):
    (tmp_path / "model.pt").write_bytes(content)
    assert reason in refused(read_state, tmp_path / "model.pt")


def test_a_pickled_network_is_refused_by_its_class(tmp_path):
    torch.save(network(), tmp_path / "model.pt")
    assert "holds the Python object monai.networks.nets.dynunet.DynUNet" in refused(read_state, tmp_path / "model.pt")


def test_a_torchscript_program_is_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "model.pt", "w") as archive:
        for name in ("model/constants.pkl", "model/code/__torch__.py"):
            archive.writestr(name, b"")
    assert "is a TorchScript program" in refused(read_state, tmp_path / "model.pt")
