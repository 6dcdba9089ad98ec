import pytest
import torch

from kdlit.files import state_fingerprint, write_atomically, write_json


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "value.json"
    write_json(path, {"a": 1})

    def fail(temporary):
        temporary.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, fail)
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, {"a": float("nan")})
    assert path.read_text() == '{\n  "a": 1\n}\n'
    assert list(tmp_path.iterdir()) == [path]


def test_a_state_fingerprint_depends_on_names_types_shapes_and_bits():
    base = {"w": torch.zeros(2, 3)}
    others = [
        {"v": torch.zeros(2, 3)},
        {"w": torch.zeros(3, 2)},
        {"w": torch.zeros(2, 3, dtype=torch.int32)},
        {"w": -torch.zeros(2, 3)},
    ]
    found = {state_fingerprint(state) for state in [base, *others]}
    assert len(found) == 5
    assert state_fingerprint({"w": torch.zeros(2, 3)}) in found
