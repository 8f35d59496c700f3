import contextlib
import json
import tomllib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes import BatchFake, FakeEncoded, FakeSegmenter, make_samples
from histoclick.clicks import SimulatedUser
from histoclick.crew import Alone, Processes
from histoclick.evaluate import Protocol, Task, evaluate
from histoclick.patches import PatchSet, write_patch_set
from histoclick.records import COLUMNS
from histoclick.starts import Corrupted, Folder
from histoclick.types import HistoclickError, Prediction, Prompt

MODEL = {"id": "fake", "sha256": "0"}
PROTOCOL = Protocol(max_clicks=4)
UNSTEADY = Protocol(4, user=SimulatedUser("inner", 2.0, seed=3), start=Corrupted(3))


def run(patches: PatchSet, out: Path, **options: Any) -> pd.DataFrame:
    options = {"model": MODEL, "machine": {}, "protocol": PROTOCOL} | options
    segmenter = options.pop("segmenter", FakeSegmenter())
    evaluate(segmenter, patches, out, **options)
    return pd.read_parquet(out / "clicks.parquet")


def without_times(records: pd.DataFrame) -> pd.DataFrame:
    return records.drop(columns=["seconds", "encode_seconds"])


def test_records_hold_every_click_of_every_patch(patch_set: PatchSet, tmp_path: Path) -> None:
    records = run(patch_set, tmp_path / "run")
    assert list(records.columns) == list(COLUMNS)
    assert len(records) == 5 * 4
    assert records.groupby("patch")["click"].apply(list).tolist() == [[1, 2, 3, 4]] * 5
    assert set(records["slide"]) == {"slide0", "slide1", "slide2"}
    assert (records["seconds"] >= 0).all()
    assert (records["start_iou"] == 0).all()
    assert (records["far_flipped"] <= records["flipped"]).all()
    assert not (tmp_path / "run/clicks.jsonl").exists()


class Interrupting(FakeSegmenter):
    """Ctrl-C at its ``after``-th prediction."""

    def __init__(self, after: int) -> None:
        self.left = after

    def predict(
        self, encoded: FakeEncoded, prompt: Prompt, previous: Prediction | None = None
    ) -> Prediction:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return super().predict(encoded, prompt, previous)


@settings(max_examples=12, deadline=None)
@given(cuts=st.lists(st.integers(0, 19), max_size=4), torn=st.integers(0, 40))
def test_interrupted_anywhere_and_started_again(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int], torn: int
) -> None:
    folder = tmp_path_factory.mktemp("resume")
    patches = write_patch_set(make_samples(5), folder / "patches")
    whole = run(patches, folder / "whole")
    journal = folder / "cut/clicks.jsonl"
    for cut in cuts:
        with contextlib.suppress(KeyboardInterrupt):  # none, if everything was done before
            run(patches, folder / "cut", segmenter=Interrupting(cut))
        if journal.exists() and torn:  # as if the machine had died while a line was written
            journal.write_bytes(journal.read_bytes()[:-torn])
    again = run(patches, folder / "cut")
    pd.testing.assert_frame_equal(without_times(again), without_times(whole))


class Shuffled(Alone):
    """A crew that is ready in an order of chance, and Ctrl-C after ``left`` tasks."""

    def __init__(self, seed: int, left: int | None = None) -> None:
        super().__init__(BatchFake())
        self._rng = np.random.default_rng(seed)
        self._left = left

    def map(self, task: Callable[..., Any], items: Iterable[Any]) -> Iterator[Any]:
        todo = list(items)
        for i in self._rng.permutation(len(todo)):
            if isinstance(todo[i], Task) and self._left is not None:
                self._left -= 1
                if self._left < 0:
                    raise KeyboardInterrupt
            yield from super().map(task, [todo[i]])


@settings(max_examples=15, deadline=None)
@given(
    cuts=st.lists(st.tuples(st.integers(0, 6), st.integers(1, 4)), max_size=3),
    torn=st.integers(0, 40),
    seed=st.integers(0, 99),
    protocol=st.sampled_from([PROTOCOL, UNSTEADY]),
)
def test_neither_batches_nor_the_order_of_work_nor_interrupts_show_in_the_records(
    tmp_path_factory: pytest.TempPathFactory,
    cuts: list[tuple[int, int]],
    torn: int,
    seed: int,
    protocol: Protocol,
) -> None:
    folder = tmp_path_factory.mktemp("crews")
    patches = write_patch_set(make_samples(7), folder / "patches")
    whole = run(patches, folder / "whole", protocol=protocol)
    journal = folder / "cut/clicks.jsonl"
    with mock.patch("histoclick.evaluate.TIMED", 2):
        for left, batch in cuts:
            crew = Shuffled(seed, left)
            with contextlib.suppress(KeyboardInterrupt):
                run(patches, folder / "cut", segmenter=crew, batch=batch, protocol=protocol)
            if journal.exists() and torn:
                journal.write_bytes(journal.read_bytes()[:-torn])
        again = run(patches, folder / "cut", segmenter=Shuffled(seed), batch=3, protocol=protocol)
    pd.testing.assert_frame_equal(without_times(again), without_times(whole))


def test_batches_are_timed_on_a_few_patches_one_by_one(
    patch_set: PatchSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("histoclick.evaluate.TIMED", 2)
    model = BatchFake()
    records = run(patch_set, tmp_path / "run", segmenter=model, batch=2)
    timed = records.groupby("patch")["seconds"].apply(lambda seconds: seconds.notna().all())
    assert timed[timed].index.tolist() == ["p00", "p03", "p04"]  # and the one left over
    untimed = records[records["patch"].isin(["p01", "p02"])]
    assert untimed[["seconds", "encode_seconds"]].isna().all(axis=None)
    assert model.sizes == [2] * 4
    assert tomllib.loads((tmp_path / "run/run.toml").read_text())["machine"]["batch"] == 2


def test_who_runs_out_of_memory_goes_on_with_fewer_at_once(
    patch_set: PatchSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("histoclick.evaluate.TIMED", 1)
    for left, batch in ((1, 3), (1, 2), (None, 1)):
        crew = Shuffled(0, left)
        with contextlib.suppress(KeyboardInterrupt):
            run(patch_set, tmp_path / "run", segmenter=crew, batch=batch)
        card = tomllib.loads((tmp_path / "run/run.toml").read_text())
        assert card["machine"] == {"workers": 1, "batch": 3}  # the most there were
    assert (tmp_path / "run/clicks.parquet").exists()


def test_who_answers_one_at_a_time_is_asked_one_at_a_time(
    patch_set: PatchSet, tmp_path: Path
) -> None:
    records = run(patch_set, tmp_path / "run", batch=3)
    assert records["seconds"].notna().all()
    assert tomllib.loads((tmp_path / "run/run.toml").read_text())["machine"]["batch"] == 1


@pytest.fixture(scope="module")
def processes() -> Iterator[Processes]:
    with Processes(BatchFake, 2) as crew:
        yield crew


@pytest.mark.parametrize("batch", [1, 3])
def test_processes_make_the_same_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: Processes, batch: int
) -> None:
    """Whole, and interrupted with work under way."""
    monkeypatch.setattr("histoclick.evaluate.TIMED", 3)
    patches = write_patch_set(make_samples(12), tmp_path / "patches")
    options: dict[str, Any] = {"protocol": UNSTEADY, "predictions": True, "strips": 2}
    whole = run(patches, tmp_path / "whole", **options)

    def interrupted(patch: str, resumed: bool) -> None:
        raise KeyboardInterrupt

    options |= {"segmenter": processes, "batch": batch}
    with pytest.raises(KeyboardInterrupt):
        run(patches, tmp_path / "cut", **options, done=interrupted)
    kept = (tmp_path / "cut/clicks.jsonl").read_bytes()
    assert kept.count(b"\n") == 1
    resumed = []
    again = run(patches, tmp_path / "cut", **options, done=lambda *told: resumed.append(told[1]))
    assert sum(resumed) == 1
    pd.testing.assert_frame_equal(without_times(again), without_times(whole))
    for folder in ("predictions", "strips"):
        files = sorted((tmp_path / "whole" / folder).iterdir())
        for file in files:
            other = tmp_path / "cut" / folder / file.name
            if file.suffix == ".png":
                assert file.read_bytes() == other.read_bytes()
            else:
                with np.load(file) as one, np.load(other) as two:
                    assert all((one[name] == two[name]).all() for name in one.files)


def test_finished_patches_are_not_done_again(patch_set: PatchSet, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(patch_set, tmp_path / "run", segmenter=Interrupting(10))
    seen = []
    run(patch_set, tmp_path / "run", done=lambda patch, resumed: seen.append((patch, resumed)))
    assert [resumed for _, resumed in seen] == [True, True, False, False, False]
    counter = Interrupting(0)
    run(patch_set, tmp_path / "run", segmenter=counter)
    assert counter.left == 0
    file = tmp_path / "run/clicks.parquet"  # a run of before models were asked for their quality
    pd.read_parquet(file).drop(columns="quality").to_parquet(file, index=False)
    assert run(patch_set, tmp_path / "run", segmenter=counter)["quality"].isna().all()


@pytest.mark.parametrize("part", ["model", "data", "protocol"])
def test_another_run_is_not_continued(patch_set: PatchSet, tmp_path: Path, part: str) -> None:
    run(patch_set, tmp_path / "run")
    before = (tmp_path / "run/clicks.parquet").read_bytes()
    other: dict[str, Any] = {
        "model": {"model": MODEL | {"sha256": "1"}},
        "protocol": {"protocol": Protocol(max_clicks=5)},
        "data": {},
    }[part]
    patches = patch_set.first(3) if part == "data" else patch_set
    with pytest.raises(HistoclickError, match=f"another {part}"):
        run(patches, tmp_path / "run", **other)
    assert (tmp_path / "run/clicks.parquet").read_bytes() == before


@pytest.mark.parametrize(
    "other",
    [
        {"user": SimulatedUser("deepest", 2.0)},
        {"user": SimulatedUser("random")},
        {"start": Corrupted()},
    ],
)
def test_another_user_or_start_is_another_protocol(
    patch_set: PatchSet, tmp_path: Path, other: dict[str, Any]
) -> None:
    run(patch_set, tmp_path / "run")
    with pytest.raises(HistoclickError, match=r"another protocol \((click_rule|start)"):
        run(patch_set, tmp_path / "run", protocol=Protocol(4, **other))


def test_one_s_predictions_are_another_s_start(patch_set: PatchSet, tmp_path: Path) -> None:
    first = run(patch_set, tmp_path / "first", predictions=True)
    protocol = Protocol(3, start=Folder(tmp_path / "first/predictions"))
    second = run(patch_set, tmp_path / "second", protocol=protocol)
    last = first.groupby("patch")["iou"].last()
    assert second.groupby("patch")["start_iou"].first().tolist() == last.tolist()
    # The fake draws on top of what is there: no step back to nothing.
    assert (second.groupby("patch")["iou"].max() >= last).all()
    (tmp_path / "first/predictions").rename(tmp_path / "moved")
    moved = Protocol(3, start=Folder(tmp_path / "moved"))
    pd.testing.assert_frame_equal(run(patch_set, tmp_path / "second", protocol=moved), second)
    other = tmp_path / "moved/p00.png"
    other.write_bytes((tmp_path / "moved/p01.png").read_bytes())
    with pytest.raises(HistoclickError, match="another protocol \\(start_sha256"):
        run(patch_set, tmp_path / "second", protocol=moved)


def test_a_folder_with_something_else_is_left_alone(patch_set: PatchSet, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/thesis.docx").write_text("precious")
    with pytest.raises(HistoclickError, match="is not empty"):
        run(patch_set, tmp_path / "run")


def test_pictures_and_predictions(patch_set: PatchSet, tmp_path: Path) -> None:
    run(patch_set, tmp_path / "run", strips=2, predictions=True)
    strips = sorted((tmp_path / "run/strips").iterdir())
    assert [path.name for path in strips] == ["p00.npz", "p04.npz"]
    with np.load(strips[0]) as strip:
        assert strip["shown"].tolist() == [1, 2, 3, 4]
        assert strip["masks"].shape == (4, 64, 64)
    assert len(list((tmp_path / "run/predictions").glob("*.png"))) == 5


def test_pictures_begin_with_the_mask_to_start_from(patch_set: PatchSet, tmp_path: Path) -> None:
    run(patch_set, tmp_path / "run", strips=1, protocol=Protocol(4, start=Corrupted()))
    with np.load(tmp_path / "run/strips/p00.npz") as strip:
        assert strip["shown"].tolist() == [0, 1, 2, 3, 4]
        start = Corrupted().mask(make_samples(1)[0])
        np.testing.assert_array_equal(strip["masks"][0], start)


class Perfect(FakeSegmenter):
    """Knows the answer: everything dark."""

    def encode(self, image: np.ndarray) -> Any:
        return image[..., 1] < 128

    def predict(
        self, encoded: Any, prompt: Prompt, previous: Prediction | None = None
    ) -> Prediction:
        return Prediction(np.where(encoded, 1, -1).astype(np.float32))


def test_nobody_clicks_on_a_perfect_mask(patch_set: PatchSet, tmp_path: Path) -> None:
    records = run(patch_set, tmp_path / "run", segmenter=Perfect(), predictions=True)
    assert records["click"].tolist() == [1] * 5
    assert (records["iou"] == 1).all()
    assert len(list((tmp_path / "run/predictions").glob("*.png"))) == 5


def test_pictures_asked_for_later_are_made(patch_set: PatchSet, tmp_path: Path) -> None:
    before = run(patch_set, tmp_path / "run", strips=0)
    after = run(patch_set, tmp_path / "run", strips=2, predictions=True)
    pd.testing.assert_frame_equal(after, before)
    assert len(list((tmp_path / "run/predictions").glob("*.png"))) == 5
    assert len(list((tmp_path / "run/strips").glob("*.npz"))) == 2


def test_other_targets_need_no_other_clicks(patch_set: PatchSet, tmp_path: Path) -> None:
    before = run(patch_set, tmp_path / "run")
    other = Protocol(max_clicks=4, targets=(0.9, 0.7, 0.9))
    pd.testing.assert_frame_equal(run(patch_set, tmp_path / "run", protocol=other), before)
    card = tomllib.loads((tmp_path / "run/run.toml").read_text())
    assert card["protocol"]["targets"] == [0.7, 0.9]


def test_a_run_is_not_continued_on_another_device(patch_set: PatchSet, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(patch_set, tmp_path / "run", segmenter=Interrupting(10), machine={"device": "cpu"})
    with pytest.raises(HistoclickError, match=r"another machine \(device: 'cpu', now 'cuda'"):
        run(patch_set, tmp_path / "run", machine={"device": "cuda"})


def test_an_interrupt_while_files_are_renamed(
    patch_set: PatchSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The n-th rename of a run never happens; whichever it is, the same command goes on."""
    whole = run(patch_set, tmp_path / "whole", predictions=True)
    rename = Path.replace
    for broken in range(14):
        left = [broken]

        def interrupted(self: Path, target: Path, left: list[int] = left) -> Path:
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            return rename(self, target)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", interrupted)
            with contextlib.suppress(KeyboardInterrupt):
                run(patch_set, tmp_path / f"cut{broken}", predictions=True)
        again = run(patch_set, tmp_path / f"cut{broken}", predictions=True)
        pd.testing.assert_frame_equal(without_times(again), without_times(whole))
    assert left[0] >= 0, "more renames than this test breaks"


@pytest.mark.parametrize(
    ("file", "content", "sentence"),
    [
        ("clicks.parquet", b"PAR1", "damaged"),
        ("run.toml", b"\xff\xfe", "no protocol card"),
        ("run.toml", b"protocol = 3", "no protocol card"),
        ("clicks.jsonl", b"[1]\n", "line 1 is damaged"),
    ],
)
def test_damaged_runs(
    patch_set: PatchSet, tmp_path: Path, file: str, content: bytes, sentence: str
) -> None:
    run(patch_set, tmp_path / "run")
    if file == "clicks.jsonl":
        (tmp_path / "run/clicks.parquet").unlink()
    (tmp_path / "run" / file).write_bytes(content)
    with pytest.raises(HistoclickError, match=sentence):
        run(patch_set, tmp_path / "run")


def test_the_journal_is_one_line_a_patch(patch_set: PatchSet, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(patch_set, tmp_path / "run", segmenter=Interrupting(9))
    lines = (tmp_path / "run/clicks.jsonl").read_text().splitlines()
    assert [json.loads(line)["patch"] for line in lines] == ["p00", "p01"]


def test_a_batch_of_none_is_refused(patch_set: PatchSet, tmp_path: Path) -> None:
    with pytest.raises(HistoclickError, match="the batch is 0"):
        run(patch_set, tmp_path / "run", batch=0)


@pytest.mark.parametrize("bad", [{"max_clicks": 0}, {"targets": ()}, {"targets": (85.0,)}])
def test_impossible_protocols(bad: dict[str, Any]) -> None:
    with pytest.raises(HistoclickError, match=r"max_clicks|targets"):
        Protocol(**bad)


def test_masks_to_start_from_that_are_missing_leave_nothing_behind(
    patch_set: PatchSet, tmp_path: Path
) -> None:
    start = Folder(tmp_path)
    with pytest.raises(HistoclickError, match="no mask to start patch 'p00' from"):
        evaluate(
            FakeSegmenter(), patch_set, tmp_path / "run", model=MODEL, machine={},
            protocol=Protocol(start=start),
        )  # fmt: skip
    assert not (tmp_path / "run").exists()
