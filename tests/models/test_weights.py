"""Weight files from strangers: read, refused, written."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from histoclick.files import sha256
from histoclick.models import weights
from histoclick.models.weights import check_keys, read_state_dict, shapes, write_safetensors
from histoclick.types import HistoclickError

STATE = {"a.weight": torch.arange(6.0).view(2, 3), "a.bias": torch.tensor([1.0, -2.0])}


class Trap:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def same(found: dict[str, Tensor]) -> bool:
    return list(found) == list(STATE) and all(torch.equal(found[n], STATE[n]) for n in STATE)


class TestReading:
    @pytest.mark.parametrize("suffix", [".pth", ".pt"])
    @pytest.mark.parametrize(
        "content",
        [
            STATE,
            {"state_dict": STATE, "epoch": 3},
            {"model": STATE},
            {"state_dict": STATE, "config": {"params": {"width": 18}}},
        ],
    )
    def test_torch_files_and_their_wrappers(
        self, tmp_path: Path, suffix: str, content: Any
    ) -> None:
        torch.save(content, tmp_path / f"weights{suffix}")
        assert same(read_state_dict(tmp_path / f"weights{suffix}"))

    def test_old_torch_files(self, tmp_path: Path) -> None:
        torch.save(STATE, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
        assert same(read_state_dict(tmp_path / "old.pth"))

    def test_safetensors(self, tmp_path: Path) -> None:
        save_file(STATE, tmp_path / "weights.safetensors")
        found = read_state_dict(tmp_path / "weights.safetensors")
        assert same(dict(sorted(found.items(), key=lambda item: item[0] != "a.weight")))

    @pytest.mark.parametrize("form", ["zip", "old", "bare"])
    def test_code_is_not_run(self, tmp_path: Path, form: str) -> None:
        trace, path = tmp_path / "trace", tmp_path / "trap.pth"
        content = {"a.weight": torch.zeros(2), "config": Trap(trace)}
        if form == "bare":
            path.write_bytes(pickle.dumps(content, protocol=2))
        else:
            torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
        with pytest.raises(HistoclickError, match=r"trap\.pth holds Python objects"):
            read_state_dict(path)
        assert not trace.exists()

    def test_the_trap_would_have_sprung(self, tmp_path: Path) -> None:
        pickle.loads(pickle.dumps(Trap(tmp_path / "trace")))  # noqa: S301
        assert (tmp_path / "trace").exists()

    @pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
    @pytest.mark.parametrize("content", ["half", "nothing", "text", "page"])
    def test_damaged_files_are_told(self, tmp_path: Path, suffix: str, content: str) -> None:
        path = tmp_path / f"bad{suffix}"
        if suffix == ".pth":
            torch.save(STATE, path)
        else:
            save_file(STATE, path)
        whole = path.read_bytes()
        path.write_bytes(
            {
                "half": whole[: len(whole) // 2],
                "nothing": b"",
                "text": b"not found\n",
                "page": b"<!DOCTYPE html><html><body>429 Too Many Requests</body></html>",
            }[content]
        )
        with pytest.raises(HistoclickError, match=rf"bad\{suffix} is damaged or no weight file"):
            read_state_dict(path)

    @pytest.mark.parametrize(
        "pointer",
        [
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 375042383\n",
            b"# xet version 0\nfilesize = 375042383\n",
        ],
    )
    @pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
    def test_pointers_are_told(self, tmp_path: Path, suffix: str, pointer: bytes) -> None:
        (tmp_path / f"sam{suffix}").write_bytes(pointer)
        with pytest.raises(HistoclickError, match="only points to weights kept elsewhere"):
            read_state_dict(tmp_path / f"sam{suffix}")

    def test_missing_files_and_folders_are_told(self, tmp_path: Path) -> None:
        for path in (tmp_path / "none.pth", tmp_path):
            with pytest.raises(HistoclickError, match="there is no weight file"):
                read_state_dict(path)

    def test_other_names_are_told(self, tmp_path: Path) -> None:
        (tmp_path / "weights.h5").write_bytes(b"...")
        with pytest.raises(HistoclickError, match=r"give a \.safetensors, \.pth or \.pt file"):
            read_state_dict(tmp_path / "weights.h5")

    @pytest.mark.parametrize("content", [{}, [1, 2], STATE["a.bias"], {"state_dict": {}}])
    def test_files_without_named_tensors_are_told(self, tmp_path: Path, content: Any) -> None:
        torch.save(content, tmp_path / "odd.pt")
        with pytest.raises(HistoclickError, match="holds no named tensors"):
            read_state_dict(tmp_path / "odd.pt")

    def test_strange_entries_are_told(self, tmp_path: Path) -> None:
        torch.save({**STATE, "epoch": 12}, tmp_path / "odd.pt")
        with pytest.raises(HistoclickError, match="'epoch', a int, among its weights"):
            read_state_dict(tmp_path / "odd.pt")


class TestKeys:
    def test_agreement_is_silent(self) -> None:
        check_keys(shapes(STATE), shapes(STATE), "the model")

    def test_everything_wrong_is_told_at_once(self) -> None:
        expected: dict[str, tuple[int, ...]] = {f"gone.{i}": (1,) for i in range(5)} | {"w": (2, 3)}
        with pytest.raises(HistoclickError) as error:
            check_keys({"w": (3, 2), "new": ()}, expected, "sam.pth")
        text = str(error.value)
        assert text.startswith("sam.pth does not hold")
        assert "5 missing (gone.0, gone.1, gone.2, ...)" in text
        assert "1 unexpected (new)" in text
        assert "1 of the wrong shape (w (3, 2) instead of (2, 3))" in text


class TestWriting:
    def test_round_trip_with_views_and_shared_tensors(self, tmp_path: Path) -> None:
        base = torch.arange(12.0).view(3, 4)
        state = {"base": base, "again": base, "column": base[:, 1], "turned": base.T}
        write_safetensors(state, tmp_path / "w.safetensors")
        found = read_state_dict(tmp_path / "w.safetensors")
        assert found.keys() == state.keys()
        assert all(torch.equal(found[name], state[name]) for name in state)
        assert [file.name for file in tmp_path.iterdir()] == ["w.safetensors"]

    def test_a_failure_leaves_the_old_file(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "w.safetensors"
        write_safetensors(STATE, path)
        before = path.read_bytes()

        def full_disk(tensors: Any, target: Path) -> None:
            target.write_bytes(b"half")
            raise OSError("no space left on device")

        monkeypatch.setattr(weights, "save_file", full_disk)
        with pytest.raises(OSError, match="no space left"):
            write_safetensors({"a": torch.ones(3)}, path)
        assert path.read_bytes() == before
        assert [file.name for file in tmp_path.iterdir()] == ["w.safetensors"]

    def test_sha256(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"abc" * 100_000)
        assert sha256(tmp_path / "file") == hashlib.sha256(b"abc" * 100_000).hexdigest()
