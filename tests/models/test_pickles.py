"""Torch files with foreign objects inside: the tensors come out, and nothing runs."""

from __future__ import annotations

import builtins
import copyreg
import io
import os
import pickle
import subprocess
import sys
import textwrap
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from histoclick.models.pickles import Foreign, PickleError, read_tensors
from histoclick.models.weights import read_state_dict
from histoclick.types import HistoclickError

STATE = {"a.weight": torch.arange(6.0).view(2, 3), "a.bias": torch.tensor([1.0, -2.0])}


def program(content: Any) -> bytes:
    """The pickle that torch writes of ``content``, in which tensors lie in records from 0 on."""
    file = io.BytesIO()
    torch.save(content, file)
    with zipfile.ZipFile(file) as archive:
        return archive.read("archive/data.pkl")


def write(path: Path, pickled: bytes, *, compress: bool = False, **records: bytes) -> Path:
    """A torch file with the pickle ``pickled``, and storages ``s0``, ``s1``, ..."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if compress else 0) as archive:
        archive.writestr("archive/data.pkl", pickled)
        for name, data in records.items():
            archive.writestr(f"archive/data/{name.removeprefix('s')}", data)
    return path


def storage(key: bytes = b"0", kind: bytes = b"ctorch\nFloatStorage\n", count: int = 2) -> bytes:
    """Instructions that ask for a storage."""
    name, device = b"X\x07\0\0\0storage", b"X\x03\0\0\0cpu"
    number = b"\x8a\x08" + count.to_bytes(8, "little", signed=True)
    return (
        b"(" + name + kind + b"X" + len(key).to_bytes(4, "little") + key + device + number + b"tQ"
    )


def tensor_on(
    stored: bytes,
    start: int = 0,
    shape: bytes = b"K\x02\x85",
    strides: bytes = b"K\x01\x85",
) -> bytes:
    """Instructions for a tensor, by default of the first two numbers of a storage."""
    begin = b"\x8a\x08" + start.to_bytes(8, "little", signed=True)
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + stored + begin + shape + strides + b"\x89)tR"


def state_of(made: bytes) -> bytes:
    """The pickle of a dictionary with one entry ``a``, made by these instructions."""
    return b"\x80\x02}X\x01\0\0\0a" + made + b"s."


def tensor(start: int = 0, shape: bytes = b"K\x02\x85", strides: bytes = b"K\x01\x85") -> bytes:
    """The pickle of a state dict of one tensor on a storage of two float32."""
    return state_of(tensor_on(storage(), start, shape, strides))


TWO = torch.tensor([3.0, 4.0]).numpy().tobytes()


class TestTensors:
    def test_come_out_as_torch_reads_them(self, tmp_path: Path) -> None:
        net = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3))
        base = torch.arange(24.0).view(4, 6)
        content = {
            "state_dict": net.state_dict(),  # an ordered dictionary with metadata
            "views": [base, base[1:, 2], base.T, base[:0], torch.tensor(5.0), torch.zeros(0)],
            "learned": nn.Parameter(torch.ones(2)),
            "kinds": [
                torch.arange(3).to(dtype)
                for dtype in (
                    torch.float64,
                    torch.float16,
                    torch.bfloat16,
                    torch.int64,
                    torch.int32,
                    torch.int16,
                    torch.int8,
                    torch.uint8,
                    torch.bool,
                )
            ],
            "numbers": (1, -2, 1 << 40, 0.5, True, None, "text", ("a", [()])),
        }
        torch.save(content, tmp_path / "all.pth")
        found = read_tensors(tmp_path / "all.pth")
        expected = torch.load(tmp_path / "all.pth", weights_only=True)
        assert found.keys() == expected.keys()
        assert found["numbers"] == expected["numbers"]
        assert list(found["state_dict"]) == list(expected["state_dict"])
        for name in ("views", "kinds"):
            for one, other in zip(found[name], expected[name], strict=True):
                assert one.dtype == other.dtype
                assert torch.equal(one, other)
        for name, value in expected["state_dict"].items():
            assert torch.equal(found["state_dict"][name], value)
        assert torch.equal(found["learned"], expected["learned"])
        one, column, *_ = found["views"]
        assert one.data_ptr() + 8 * 4 == column.data_ptr()  # one storage, read once

    def test_objects_are_left_out(self, tmp_path: Path) -> None:
        torch.save({**STATE, "when": slice(1, 2), "kind": torch.float32}, tmp_path / "a.pth")
        found = read_tensors(tmp_path / "a.pth")
        assert isinstance(found["when"], Foreign)
        assert found["when"].name == "__builtin__ slice"
        assert found["kind"].name == "torch float32"
        with pytest.raises(HistoclickError, match="'when', a Foreign, among its weights"):
            read_state_dict(tmp_path / "a.pth", skip_objects=True)

    def test_only_text_is_a_key(self, tmp_path: Path) -> None:
        torch.save({"a": 1, 5: 2}, tmp_path / "a.pth")
        assert [type(each) for each in read_tensors(tmp_path / "a.pth")] == [str, Foreign]
        doubled = b"q\0h\0\x86"  # a pair of twice what was there: 64 times, hashed in 2 ** 64 steps
        nested = b"\x80\x02})" + doubled * 64 + b"Ns."
        found = read_tensors(write(tmp_path / "b.pth", nested))
        assert [each.name for each in found] == ["tuple"]


class Trap:
    """Is what ``reduced`` says when it is unpickled."""

    def __init__(self, *reduced: Any) -> None:
        self.reduced = reduced

    def __reduce__(self) -> Any:
        return self.reduced


class SetsState:
    """Touches a file when its state is set."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __setstate__(self, state: Any) -> None:
        Path(state["path"]).touch()


class IsMade:
    """Touches a file when it is made anew."""

    def __new__(cls, path: str) -> IsMade:
        Path(path).touch()
        return super().__new__(cls)

    def __init__(self, path: str) -> None:
        self.path = path

    def __getnewargs__(self) -> tuple[str]:
        return (self.path,)


class IsFilled(list[str]):
    """Touches files when it gets items."""

    def extend(self, items: Any) -> None:
        for item in items:
            Path(item).touch()

    append = extend  # type: ignore[assignment]


class IsMapped(dict[str, int]):
    """Touches files when it gets keys."""

    def __setitem__(self, key: str, value: int) -> None:
        Path(key).touch()


def filled(path: str) -> IsFilled:
    trap = IsFilled()
    list.extend(trap, [path, path])
    return trap


def mapped(path: str) -> IsMapped:
    trap = IsMapped()
    dict.update(trap, {path: 1})
    return trap


def touching(path: str) -> str:
    return f"__import__('pathlib').Path({path!r}).touch()"


TRAPS: dict[str, Callable[[str], Any]] = {
    "system": lambda path: Trap(os.system, (f"touch '{path}'",)),
    "eval": lambda path: Trap(eval, (touching(path),)),
    "exec": lambda path: Trap(builtins.exec, (touching(path),)),
    "nested": lambda path: Trap(eval, (Trap(str, (touching(path),)),)),
    "within a call": lambda path: Trap(OrderedDict, ([["a", Trap(eval, (touching(path),))]],)),
    "setstate": SetsState,
    "new": IsMade,
    "list": filled,
    "dict": mapped,
    "attribute": lambda path: Trap(getattr, (Trap(Path, (path,)), "touch")),
}
NEVER_SPRINGS = ("attribute",)  # alone; it is only a part of others


class TestNothingRuns:
    @pytest.mark.parametrize("name", TRAPS)
    def test_when_files_hold_traps(self, tmp_path: Path, name: str) -> None:
        trace, path = tmp_path / "trace", tmp_path / "trap.pth"
        torch.save({"state_dict": STATE, "config": [TRAPS[name](str(trace))]}, path)
        trace.unlink(missing_ok=True)  # some spring when they are made
        found = read_state_dict(path, skip_objects=True)
        assert not trace.exists()
        assert list(found) == list(STATE)
        assert all(torch.equal(found[key], STATE[key]) for key in STATE)
        with pytest.raises(HistoclickError, match="holds Python objects"):
            read_state_dict(path)
        assert not trace.exists()

    @pytest.mark.parametrize("name", [name for name in TRAPS if name not in NEVER_SPRINGS])
    def test_the_traps_would_have_sprung(self, tmp_path: Path, name: str) -> None:
        trace, path = tmp_path / "trace", tmp_path / "trap.pth"
        torch.save(TRAPS[name](str(trace)), path)
        trace.unlink(missing_ok=True)
        torch.load(path, weights_only=False)
        assert trace.exists()

    def test_where_tensors_are_expected(self, tmp_path: Path) -> None:
        trace = tmp_path / "trace"
        evil = pickle.dumps(TRAPS["eval"](str(trace)), 2)[2:-1]
        rebuild = b"ctorch._utils\n_rebuild_tensor_v2\n"
        for number, made in enumerate(
            [
                rebuild + evil + b"R",  # a call for the arguments
                rebuild + b"(" + evil + b"K\0K\x02\x85K\x01\x85\x89)tR",  # for the storage
                rebuild + b"(" + storage() + b"K\0" + evil + b"K\x01\x85\x89)tR",  # for the shape
                b"ctorch._utils\n_rebuild_parameter\n(" + evil + b"\x89)tR",
                evil + b"(K\x01tR",  # a call of what a call gave
                evil + b"}X\x01\0\0\0aK\x01sb",  # the state of what a call gave
                b"(X\x06\0\0\0module" + evil + b"tQ",  # a persistent id
                b"(X\x07\0\0\0storage" + evil + b"X\x01\0\0\x000X\x03\0\0\0cpuK\x02tQ",
                storage(kind=evil),
                storage(kind=b"cos\nsystem\n"),
            ]
        ):
            path = write(
                tmp_path / f"{number}.pth", b"\x80\x02}X\x01\0\0\0a" + made + b"s.", s0=TWO
            )
            with pytest.raises(HistoclickError):
                read_state_dict(path, skip_objects=True)
            assert not trace.exists()

    @pytest.mark.parametrize(
        ("instruction", "pickled"),
        [
            ("INST", b"(S'true'\nios\nsystem\n."),
            ("OBJ", b"(cos\nsystem\nX\x04\0\0\0trueo."),
            ("EXT1", b"\x82\x01."),
            ("STACK_GLOBAL", b"\x80\x04X\x02\0\0\0osX\x06\0\0\0system\x93."),
            ("NEWOBJ_EX", b"\x80\x04cos\nsystem\n)}\x92."),
            ("PERSID", b"Pmodule\n."),
            ("LONG4", b"\x8b\x01\0\0\0\x01."),
            ("INT", b"I" + b"9" * 4000 + b"\n."),
            ("DUP", b"]2."),
            ("BYTEARRAY8", b"\x96\x01\0\0\0\0\0\0\0a."),
        ],
    )
    def test_instructions_that_torch_does_not_write(
        self, tmp_path: Path, instruction: str, pickled: bytes
    ) -> None:
        path = write(tmp_path / "odd.pth", pickled)
        with pytest.raises(PickleError, match="torch does not write") as error:
            read_tensors(path)
        assert instruction in str(error.value) or instruction == "INST"

    def test_registered_extensions_are_not_used(self, tmp_path: Path) -> None:
        copyreg.add_extension("os", "system", 0x77)
        try:
            with pytest.raises(PickleError, match="EXT1"):
                read_tensors(write(tmp_path / "odd.pth", b"\x80\x02\x82w."))
        finally:
            copyreg.remove_extension("os", "system", 0x77)

    def test_the_interpreter_hears_of_nothing(self, tmp_path: Path) -> None:
        """Every import, execution, process and attribute change that Python audits."""
        trace = tmp_path / "trace"
        torch.save({"state_dict": STATE}, tmp_path / "good.pth")
        for name, trap in TRAPS.items():
            torch.save({"state_dict": STATE, "config": trap(str(trace))}, tmp_path / f"{name}.pth")
        trace.unlink(missing_ok=True)
        script = """
            import sys
            from pathlib import Path
            from histoclick.models.weights import read_state_dict
            folder, heard, ready = Path(sys.argv[1]), set(), False
            sys.addaudithook(lambda event, _: heard.add(event) if ready else None)
            files = sorted(folder.glob("*.pth"))
            read_state_dict(folder / "good.pth", skip_objects=True)
            ready = True
            for file in files:
                assert len(read_state_dict(file, skip_objects=True)) == 2
            ready = False
            print(len(files), *sorted(heard))
        """
        ran = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
        assert ran.stdout.split() == [str(1 + len(TRAPS)), "open"]
        assert not trace.exists()

    def test_classes_that_are_not_there_are_not_looked_for(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        module = ModuleType("only_there")

        class Loss(nn.Module):
            pass

        Loss.__module__, Loss.__qualname__ = "only_there", "Loss"
        module.Loss = Loss  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "only_there", module)
        path = tmp_path / "a.pth"
        torch.save({"state_dict": STATE, "config": {"loss": Loss()}}, path)
        monkeypatch.delitem(sys.modules, "only_there")
        content = read_tensors(path)
        assert content["config"]["loss"].name == "only_there Loss"
        assert "only_there" not in sys.modules
        assert list(read_state_dict(path, skip_objects=True)) == list(STATE)


class TestDamage:
    def test_a_good_tensor_of_ours(self, tmp_path: Path) -> None:
        """Else what follows would be refused for another reason."""
        state = read_state_dict(write(tmp_path / "a.pth", tensor(), s0=TWO), skip_objects=True)
        assert state["a"].tolist() == [3, 4]

    def refused(self, path: Path) -> str:
        with pytest.raises(HistoclickError, match="is damaged or no weight file") as error:
            read_state_dict(path, skip_objects=True)
        assert "\n" not in str(error.value)
        return str(error.value)

    def test_truncated(self, tmp_path: Path) -> None:
        torch.save({"state_dict": STATE, "config": slice(3)}, tmp_path / "a.pth")
        whole = (tmp_path / "a.pth").read_bytes()
        for length in range(4, len(whole) - 1, 97):
            (tmp_path / "a.pth").write_bytes(whole[:length])
            self.refused(tmp_path / "a.pth")

    def test_truncated_inside(self, tmp_path: Path) -> None:
        whole = program({"state_dict": STATE, "config": slice(3)})
        zeros = {f"s{number}": STATE[name].numpy().tobytes() for number, name in enumerate(STATE)}
        for length in range(len(whole)):
            self.refused(write(tmp_path / "a.pth", whole[:length], **zeros))

    def test_a_bit_of_a_weight(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.pth", tensor(), s0=TWO)
        path.write_bytes(path.read_bytes().replace(TWO, bytes([*TWO[:-1], TWO[-1] ^ 1])))
        assert "CRC" in self.refused(path)

    def test_other_archives(self, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "a.pth", "w") as archive:
            archive.writestr("notes.txt", "nothing")
        assert "not written by torch" in self.refused(tmp_path / "a.pth")
        with zipfile.ZipFile(tmp_path / "a.pth", "a") as archive:
            archive.writestr("archive/data.pkl", tensor())
            archive.writestr("archive/constants.pkl", b"")
        with pytest.raises(HistoclickError, match="TorchScript"):
            read_state_dict(tmp_path / "a.pth", skip_objects=True)

    def test_another_byte_order(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.pth", tensor(), s0=TWO)
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("archive/byteorder", b"big")
        assert "byte order" in self.refused(path)

    @settings(
        max_examples=150,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    @given(
        data=st.one_of(
            st.binary(max_size=60).map(lambda end: b"\x80\x02" + end),
            st.tuples(st.integers(0, 120), st.binary(min_size=1, max_size=3)).map(
                lambda change: tensor()[: change[0]] + change[1] + tensor()[change[0] + 1 :]
            ),
        )
    )
    def test_whatever_else(self, tmp_path: Path, data: bytes) -> None:
        path = write(tmp_path / "a.pth", data, s0=TWO)
        try:
            state = read_state_dict(path, skip_objects=True)
        except HistoclickError:
            return
        assert all(value.numel() <= 2 for value in state.values())


class TestBombs:
    def refused(self, path: Path, reason: str) -> None:
        with pytest.raises(HistoclickError, match=reason):
            read_state_dict(path, skip_objects=True)

    @pytest.mark.parametrize("count", [1, 3, 1 << 40, -2])
    def test_storages_that_are_not_their_records(self, tmp_path: Path, count: int) -> None:
        pickled = tensor().replace(storage(), storage(count=count))
        self.refused(write(tmp_path / "a.pth", pickled, s0=TWO), "8 bytes for")

    def test_compressed_records(self, tmp_path: Path) -> None:
        pickled = tensor().replace(storage(), storage(count=1 << 20))
        path = write(tmp_path / "a.pth", pickled, compress=True, s0=bytes(4 << 20))
        self.refused(path, "compressed")

    def test_records_inside_records(self, tmp_path: Path) -> None:
        """A file of 1 MB whose two records take 1 MB each: one lies inside the other."""
        inner, outer = "archive/data/1", "archive/data/0"
        write(tmp_path / "inner.pth", b"", s1=bytes(1 << 20))
        with zipfile.ZipFile(tmp_path / "inner.pth") as archive:
            found = archive.getinfo(inner)
            raw = (tmp_path / "inner.pth").read_bytes()[found.header_offset : archive.start_dir]
        raw += bytes(-len(raw) % 4)
        asked = ((b"0", len(raw) // 4), (b"1", 1 << 18))
        views = [tensor_on(storage(key, count=count)) for key, count in asked]
        with zipfile.ZipFile(tmp_path / "a.pth", "w") as archive:
            archive.writestr("archive/data.pkl", b"\x80\x02](" + b"".join(views) + b"e.")
            archive.writestr(outer, raw)
            found.header_offset = archive.start_dir - len(raw)
            archive.filelist.append(found)
        assert (tmp_path / "a.pth").stat().st_size < 2 << 20
        self.refused(tmp_path / "a.pth", "record data/1 takes|Overlapped")

    @pytest.mark.parametrize(
        "pickled",
        [
            tensor(shape=b"J\0\0\0\x40\x85", strides=b"K\0\x85"),  # one number, a billion times
            tensor(shape=b"K\x02K\x02\x86", strides=b"K\x01K\0\x86"),
            tensor(shape=b"K\x03\x85"),
            tensor(start=1),
            tensor(start=-1),
            tensor(start=1 << 60, shape=b"K\x01\x85"),
            tensor(strides=b"K\x02\x85"),
            tensor(strides=b"J\xff\xff\xff\xff\x85"),
            tensor(shape=b"J\xff\xff\xff\xff\x85"),
            tensor(shape=b"(" + b"K\x01" * 9 + b"t", strides=b"(" + b"K\x01" * 9 + b"t"),
            tensor(shape=b"K\x02K\x01\x86"),
            tensor(shape=b"\x89\x85"),
            tensor(shape=b"]K\x02a"),
        ],
    )
    def test_tensors_larger_than_their_storages(self, tmp_path: Path, pickled: bytes) -> None:
        self.refused(write(tmp_path / "a.pth", pickled, s0=TWO), "a tensor")

    def test_tensors_without_numbers(self, tmp_path: Path) -> None:
        huge = b"\x8a\x08" + (1 << 62).to_bytes(8, "little")
        pickled = tensor(shape=b"K\0" + huge + huge + b"\x87", strides=b"K\x01K\x01K\x01\x87")
        self.refused(write(tmp_path / "a.pth", pickled, s0=TWO), "damaged")

    def test_one_record_as_two_storages(self, tmp_path: Path) -> None:
        ints = storage(kind=b"ctorch\nIntStorage\n")
        both = tensor_on(storage()) + tensor_on(ints)
        self.refused(write(tmp_path / "a.pth", b"\x80\x02](" + both + b"e.", s0=TWO), "two ways")

    def test_long_pickles(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.pth", b"\x80\x02](" + b"}" * (5 << 20) + b"e.")
        self.refused(path, r"data\.pkl takes")


def test_old_files_with_objects_are_still_refused(tmp_path: Path) -> None:
    content: dict[str, Any] = {"state_dict": STATE, "config": slice(1, 2)}
    torch.save(content, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    with pytest.raises(HistoclickError, match="holds Python objects"):
        read_state_dict(tmp_path / "old.pth", skip_objects=True)
    torch.save(STATE, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    found: dict[str, Tensor] = read_state_dict(tmp_path / "old.pth", skip_objects=True)
    assert list(found) == list(STATE)
