"""Downloads against a server on this machine that cuts, lies, hangs and changes its mind."""

from __future__ import annotations

import _thread
import hashlib
import json
import os
import queue
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2 as httpx
import pytest
from filelock import FileLock
from hypothesis import given, settings
from hypothesis import strategies as st

from histoclick.datasets.bucket import RemoteFile
from histoclick.fetch import Outcome, Patience, Result, State, fetch, get, make_plan
from histoclick.fetch.plan import RECORD, digest_of, in_words
from histoclick.fetch.web import Refused, Web
from histoclick.types import HistoclickError
from website import Fault, Site, dated, website

QUICK = Patience(connect_s=2.0, read_s=0.3, pauses_s=(0.01, 0.01, 0.01))
SLIDE = bytes(range(256)) * 4000  # 1 MB
OTHER = SLIDE[::-1]
Handler = Callable[[httpx.Request], httpx.Response]


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with website() as site:
        site.files["/a.tif"] = SLIDE
        yield site


def slide(content: bytes = SLIDE, path: str = "a.tif", checksum: bool = True) -> RemoteFile:
    return RemoteFile(path, len(content), md5(content) if checksum else "")


def run(site: Site, folder: Path, *files: RemoteFile, **options: object) -> list[Outcome]:
    chosen = {"patience": QUICK} | options
    return list(fetch(files or (slide(),), site.url, folder, **chosen))  # type: ignore[arg-type]


def one(site: Site, folder: Path, file: RemoteFile | None = None, **options: object) -> Outcome:
    (outcome,) = run(site, folder, file or slide(), **options)
    return outcome


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def leave_partial(folder: Path, content: bytes, version: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "a.tif.partial").write_bytes(content)
    (folder / "a.tif.partial.version").write_text(version)


class TestOneFile:
    def test_it_is_fetched_and_then_known(self, site: Site, tmp_path: Path) -> None:
        folder = tmp_path / "new/folder"
        outcome = one(site, folder)
        assert (outcome.result, outcome.told) == (Result.FETCHED, "")
        assert outcome.target.read_bytes() == SLIDE
        assert visible(folder) == ["a.tif"]
        assert one(site, folder).result == Result.THERE
        assert len(site.log) == 1

    def test_sha256_and_empty_files(self, site: Site, tmp_path: Path) -> None:
        site.files["/none.xml"] = b""
        files = (
            RemoteFile("a.tif", len(SLIDE), hashlib.sha256(SLIDE).hexdigest()),
            slide(b"", "none.xml"),
        )
        assert {o.result for o in run(site, tmp_path, *files)} == {Result.FETCHED}
        assert (tmp_path / "none.xml").read_bytes() == b""

    @pytest.mark.parametrize("checksum", [True, False])
    def test_a_cut_is_resumed_where_it_happened(
        self, site: Site, tmp_path: Path, checksum: bool
    ) -> None:
        cuts = [Fault(cut=300_000), Fault(cut=200_000), Fault(status=503), Fault(cut=100_000)]
        site.faults["/a.tif"] = cuts
        outcome = one(site, tmp_path, slide(checksum=checksum))
        assert outcome.result == Result.FETCHED
        assert outcome.target.read_bytes() == SLIDE
        asked = site.asked("/a.tif")
        starts = [int(wanted[6:-1] or 0) if wanted else 0 for wanted in asked]
        assert starts == [0, 300_000, 500_000, 500_000, 600_000]

    def test_progress_renews_the_patience(self, site: Site, tmp_path: Path) -> None:
        site.always["/a.tif"] = Fault(cut=100_000)
        assert one(site, tmp_path).result == Result.FETCHED
        assert len(site.log) == 11

    def test_an_earlier_run_is_gone_on_with(self, site: Site, tmp_path: Path) -> None:
        leave_partial(tmp_path, SLIDE[:700_000], f'"{md5(SLIDE)}"')
        assert one(site, tmp_path).target.read_bytes() == SLIDE
        assert site.log == [("/a.tif", "bytes=700000-", f'"{md5(SLIDE)}"')]

    def test_only_the_checking_was_missing(self, site: Site, tmp_path: Path) -> None:
        leave_partial(tmp_path, SLIDE, f'"{md5(SLIDE)}"')
        assert one(site, tmp_path).target.read_bytes() == SLIDE
        assert site.log == []

    @pytest.mark.parametrize("rude", [False, True])
    @pytest.mark.parametrize("checksum", [False, True])
    def test_a_file_that_changed_is_not_glued(
        self, site: Site, tmp_path: Path, checksum: bool, rude: bool
    ) -> None:
        leave_partial(tmp_path, OTHER[:700_000], f'"{md5(OTHER)}"')
        site.faults["/a.tif"] = [Fault(ignore_if_range=rude)]
        assert one(site, tmp_path, slide(checksum=checksum)).target.read_bytes() == SLIDE

    def test_an_unversioned_partial_needs_a_checksum(self, site: Site, tmp_path: Path) -> None:
        leave_partial(tmp_path, OTHER[:700_000], "")
        assert one(site, tmp_path, slide(checksum=False)).target.read_bytes() == SLIDE
        assert site.asked("/a.tif") == [""]
        again = tmp_path / "again"
        leave_partial(again, OTHER[:700_000], "")
        assert one(site, again).target.read_bytes() == SLIDE
        assert site.asked("/a.tif") == ["", "bytes=700000-", ""]

    def test_a_rest_of_unknown_version_needs_a_checksum(self, site: Site, tmp_path: Path) -> None:
        silent = Fault(ignore_if_range=True, drop=("ETag", "Last-Modified"))
        for checksum, asked in ((True, 1), (False, 2)):
            folder = tmp_path / str(checksum)
            leave_partial(folder, SLIDE[:700_000], f'"{md5(SLIDE)}"')
            site.faults["/a.tif"] = [silent]
            site.log.clear()
            outcome = one(site, folder, slide(checksum=checksum))
            assert outcome.target.read_bytes() == SLIDE
            assert len(site.log) == asked

    def test_weak_etags_are_no_versions(self, site: Site, tmp_path: Path) -> None:
        weak = {"ETag": 'W/"x"'}
        site.faults["/a.tif"] = [Fault(cut=400_000, headers=weak), Fault(headers=weak)]
        assert one(site, tmp_path).result == Result.FETCHED
        assert site.log[1] == ("/a.tif", "bytes=400000-", dated(SLIDE))

    def test_servers_without_ranges(self, site: Site, tmp_path: Path) -> None:
        site.ranges = False
        site.faults["/a.tif"] = [Fault(cut=400_000)]
        outcome = one(site, tmp_path)
        assert outcome.target.read_bytes() == SLIDE
        assert site.asked("/a.tif") == ["", "bytes=400000-"]

    def test_a_partial_longer_than_the_file(self, site: Site, tmp_path: Path) -> None:
        leave_partial(tmp_path, SLIDE + b"x", f'"{md5(SLIDE)}"')
        assert one(site, tmp_path).target.read_bytes() == SLIDE

    def test_of_unknown_size(self, site: Site, tmp_path: Path) -> None:
        file = RemoteFile("a.tif", None, md5(SLIDE))
        assert one(site, tmp_path / "1", file).target.read_bytes() == SLIDE
        leave_partial(tmp_path / "2", SLIDE, f'"{md5(SLIDE)}"')
        site.log.clear()
        assert one(site, tmp_path / "2", file).target.read_bytes() == SLIDE
        assert site.asked("/a.tif") == [f"bytes={len(SLIDE)}-"]

    def test_redirects_are_followed(self, site: Site, tmp_path: Path) -> None:
        site.files["/b.tif"] = SLIDE
        site.faults["/a.tif"] = [Fault(status=307, headers={"Location": "/b.tif"})]
        assert one(site, tmp_path).target.read_bytes() == SLIDE


class TestWhatFails:
    """One sentence, nothing that could be taken for the file."""

    def fails(self, site: Site, folder: Path, file: RemoteFile | None = None) -> str:
        outcome = one(site, folder, file)
        assert outcome.result == Result.FAILED
        assert not outcome.target.exists()
        assert outcome.told.startswith("a.tif: ")
        return outcome.told

    def test_wrong_size(self, site: Site, tmp_path: Path) -> None:
        told = self.fails(site, tmp_path, RemoteFile("a.tif", len(SLIDE) + 1))
        assert "1024000 bytes on the server and 1024001 in its list" in told
        assert visible(tmp_path) == []

    def test_wrong_checksum(self, site: Site, tmp_path: Path) -> None:
        told = self.fails(site, tmp_path, RemoteFile("a.tif", len(SLIDE), md5(OTHER)))
        assert f"MD5 {md5(OTHER)}" in told
        assert visible(tmp_path) == []
        assert len(site.log) == 1

    def test_wrong_checksum_after_a_resume_is_tried_once_more(
        self, site: Site, tmp_path: Path
    ) -> None:
        leave_partial(tmp_path, SLIDE[:9], "")
        self.fails(site, tmp_path, RemoteFile("a.tif", len(SLIDE), md5(OTHER)))
        assert site.asked("/a.tif") == ["bytes=9-", ""]
        assert visible(tmp_path) == []

    def test_wrong_checksum_and_cuts_come_to_an_end(self, site: Site, tmp_path: Path) -> None:
        site.always["/a.tif"] = Fault(cut=600_000)
        self.fails(site, tmp_path, RemoteFile("a.tif", len(SLIDE), md5(OTHER)))
        assert site.asked("/a.tif") == ["", "bytes=600000-"] * 2

    @pytest.mark.parametrize(
        ("fault", "told"),
        [
            (Fault(status=403), "HTTP 403, it refuses access"),
            (Fault(status=404), "HTTP 404, the file is not there"),
            (Fault(status=418), "HTTP 418"),
            (Fault(headers={"Content-Encoding": "gzip"}), "compresses"),
            (Fault(drop=("Content-Length",), cut=0), "does not say how long"),
            (Fault(status=302, headers={"Location": "/a.tif"}), "more than 5 times"),
            (Fault(status=302, headers={"Location": "ftp://x/a.tif"}), "the address is none"),
        ],
    )
    def test_at_once(self, site: Site, tmp_path: Path, fault: Fault, told: str) -> None:
        site.always["/a.tif"] = fault
        assert told in self.fails(site, tmp_path)

    @pytest.mark.parametrize(
        ("fault", "told"),
        [
            (Fault(status=500), "not well (HTTP 500), 4 times in a row"),
            (Fault(status=429, headers={"Retry-After": "0"}), "not well (HTTP 429)"),
            (Fault(cut=0), "the connection was cut, 4 times in a row"),
            (Fault(hang=True), "sent nothing for 0.3 s"),
        ],
    )
    def test_after_some_tries(self, site: Site, tmp_path: Path, fault: Fault, told: str) -> None:
        site.always["/a.tif"] = fault
        assert told in self.fails(site, tmp_path)
        assert len(site.log) == len(QUICK.pauses_s) + 1

    def test_a_server_without_ranges_that_always_cuts(self, site: Site, tmp_path: Path) -> None:
        site.ranges = False
        site.always["/a.tif"] = Fault(cut=400_000)
        assert "cut" in self.fails(site, tmp_path)

    def test_500_and_then_fine(self, site: Site, tmp_path: Path) -> None:
        site.faults["/a.tif"] = [Fault(status=500), Fault(status=502), Fault(hang=True)]
        assert one(site, tmp_path).target.read_bytes() == SLIDE

    def test_nobody_there(self, site: Site, tmp_path: Path) -> None:
        (outcome,) = fetch([slide()], "http://127.0.0.1:1", tmp_path, patience=QUICK)
        assert "could not be reached" in outcome.told

    def test_more_than_it_said(self, site: Site, tmp_path: Path) -> None:
        leave_partial(tmp_path, SLIDE[:9], "")
        span = f"bytes 9-99/{len(SLIDE)}"
        length = str(2 * len(SLIDE))
        site.always["/a.tif"] = Fault(
            status=206, body=SLIDE * 2, headers={"Content-Range": span, "Content-Length": length}
        )
        assert "more than it said" in self.fails(site, tmp_path)

    def test_a_folder_where_the_file_should_be(self, site: Site, tmp_path: Path) -> None:
        (tmp_path / "a.tif" / "x").mkdir(parents=True)
        (outcome,) = run(site, tmp_path)
        assert outcome.result == Result.FAILED
        assert "cannot be written" in outcome.told


class TestTrust:
    """What a server on this machine cannot show: https."""

    def web(self, monkeypatch: pytest.MonkeyPatch, answer: Handler) -> Web:
        transport = httpx.MockTransport(answer)
        monkeypatch.setattr(httpx.Client, "_transport_for_url", lambda *_: transport)
        return Web(QUICK, threading.Event())

    def test_nobody_is_led_from_https_to_http(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def lead(request: httpx.Request) -> httpx.Response:
            if request.url.scheme == "https":
                return httpx.Response(302, headers={"Location": "http://elsewhere/a.tif"})
            return httpx.Response(200, content=b"tampered")

        with self.web(monkeypatch, lead) as web:
            with (
                pytest.raises(Refused, match="leads from https to http://elsewhere"),
                web.answer("https://bucket/a.tif"),
            ):
                pass
            with web.answer("http://mirror/a.tif") as response:
                assert response.read() == b"tampered"

    def test_certificates(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(request: httpx.Request) -> httpx.Response:
            raise httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] self-signed certificate")

        with (
            self.web(monkeypatch, fail) as web,
            pytest.raises(Refused, match=r"not trusted here.*SSL_CERT_FILE"),
            web.answer("https://bucket/a.tif"),
        ):
            pass


class TestManyFiles:
    def test_one_that_fails_does_not_keep_the_others_back(self, site: Site, tmp_path: Path) -> None:
        files = [slide(str(i).encode() * 50_000, f"images/{i}.tif") for i in range(12)]
        for i, file in enumerate(files):
            site.files[f"/{file.path}"] = str(i).encode() * 50_000
        del site.files["/images/7.tif"]
        outcomes = run(site, tmp_path, *files, workers=3)
        failed = [o.file.path for o in outcomes if o.result == Result.FAILED]
        assert failed == ["images/7.tif"]
        assert len(outcomes) == 12
        assert (tmp_path / "images/11.tif").read_bytes() == b"11" * 50_000

    def test_they_are_fetched_at_the_same_time(self, site: Site, tmp_path: Path) -> None:
        together = threading.Barrier(3)
        files = [slide(SLIDE, f"{i}.tif") for i in range(3)]

        class Meeting(dict[str, bytes]):
            def get(self, key: str, default: bytes | None = None) -> bytes | None:  # type: ignore[override]
                together.wait(10)
                return super().get(key, default)

        site.files = Meeting({f"/{i}.tif": SLIDE for i in range(3)})
        patience = Patience(read_s=15.0, pauses_s=())
        outcomes = run(site, tmp_path, *files, workers=3, patience=patience)
        assert [o.result for o in outcomes] == [Result.FETCHED] * 3

    def test_progress(self, site: Site, tmp_path: Path) -> None:
        heard: list[tuple[str, int, int]] = []
        caller = threading.get_ident()

        def progress(path: str, done: int, total: int) -> None:
            assert threading.get_ident() == caller
            heard.append((path, done, total))

        leave_partial(tmp_path, SLIDE[:700_000], f'"{md5(SLIDE)}"')
        run(site, tmp_path, progress=progress)
        assert heard[0] == ("a.tif", 700_000, len(SLIDE))
        assert heard[-1] == ("a.tif", len(SLIDE), len(SLIDE))
        assert heard == sorted(heard)

    def test_outcomes_come_as_they_are_ready(self, site: Site, tmp_path: Path) -> None:
        site.files["/b.tif"] = OTHER
        files = [slide(), slide(OTHER, "b.tif")]
        outcomes = fetch(files, site.url, tmp_path, workers=1, patience=QUICK)
        assert next(outcomes).file.path == "a.tif"
        assert (tmp_path / "a.tif").exists()
        outcomes.close()  # type: ignore[attr-defined]
        assert [o.file.path for o in run(site, tmp_path, *files)] == ["a.tif", "b.tif"]

    def test_two_at_once_in_one_folder(self, site: Site, tmp_path: Path) -> None:
        with (
            FileLock(tmp_path / ".histoclick-fetch.lock"),
            pytest.raises(HistoclickError, match="another fetch is at work"),
        ):
            run(site, tmp_path)

    def test_folders_that_cannot_be_made(self, site: Site, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(HistoclickError, match="cannot be written"):
            run(site, tmp_path / "file/folder")
        with pytest.raises(HistoclickError, match="at least 1"):
            run(site, tmp_path, workers=0)


class TestWhatIsThere:
    def test_a_right_file_of_elsewhere_is_hashed_once(
        self, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "a.tif").write_bytes(SLIDE)
        hashed = []
        monkeypatch.setattr(
            "histoclick.fetch.downloads.digest_of",
            lambda path, *rest: hashed.append(path.name) or digest_of(path, *rest),
        )
        for _ in range(3):
            assert one(site, tmp_path).result == Result.THERE
        assert hashed == ["a.tif"]
        os.utime(tmp_path / "a.tif", ns=(0, 0))
        assert one(site, tmp_path).result == Result.THERE
        assert hashed == ["a.tif"] * 2
        assert site.log == []

    def test_another_checksum_is_checked_again(self, site: Site, tmp_path: Path) -> None:
        one(site, tmp_path)
        site.files["/a.tif"] = OTHER
        outcome = one(site, tmp_path, slide(OTHER))
        assert outcome.target.read_bytes() == OTHER
        assert outcome.told == "a.tif: what was there has another checksum and is a.tif.wrong now."
        assert (tmp_path / "a.tif.wrong").read_bytes() == SLIDE

    def test_a_wrong_file_is_kept_aside_but_never_two(self, site: Site, tmp_path: Path) -> None:
        (tmp_path / "a.tif").write_bytes(b"mine")
        outcome = one(site, tmp_path, slide(checksum=False))
        assert outcome.result == Result.FETCHED
        assert "another size" in outcome.told
        assert (tmp_path / "a.tif.wrong").read_bytes() == b"mine"
        (tmp_path / "a.tif").write_bytes(b"again")
        outcome = one(site, tmp_path)
        assert outcome.result == Result.FAILED
        assert "remove or rename one of them" in outcome.told
        assert (tmp_path / "a.tif").read_bytes() == b"again"

    @pytest.mark.parametrize("content", ["", "[]", "{", "[" * 100_000, '{"a.tif": 3}'])
    def test_a_damaged_record_only_costs_time(
        self, site: Site, tmp_path: Path, content: str
    ) -> None:
        one(site, tmp_path)
        (tmp_path / RECORD).write_text(content)
        assert one(site, tmp_path).result == Result.THERE
        assert json.loads((tmp_path / RECORD).read_text())["a.tif"]["checksum"] == md5(SLIDE)


class TestPlan:
    def test_it_touches_nothing(self, tmp_path: Path) -> None:
        folder = tmp_path / "data"
        plan = make_plan([slide(), slide(OTHER, "b.tif")], folder)
        assert [item.state for item in plan.items] == [State.MISSING] * 2
        assert (plan.size, plan.missing) == (2 * len(SLIDE), 2 * len(SLIDE))
        assert not folder.exists()

    def test_it_knows_what_is_there(self, site: Site, tmp_path: Path) -> None:
        one(site, tmp_path)
        leave_partial(tmp_path, b"", "")
        (tmp_path / "a.tif.partial").rename(tmp_path / "b.tif.partial")
        (tmp_path / "b.tif.partial").write_bytes(OTHER[:24_000])
        (tmp_path / "c.tif").write_bytes(b"short")
        (tmp_path / "d.tif").write_bytes(SLIDE)
        files = [slide(), *(slide(OTHER, f"{name}.tif") for name in "bcd"), slide(b"", "e.tif")]
        before = {path: path.stat() for path in tmp_path.rglob("*")}
        plan = make_plan([*files, RemoteFile("f.tif", None, md5(b""))], tmp_path)
        assert [item.state for item in plan.items] == [
            State.THERE, State.PARTIAL, State.WRONG, State.UNCHECKED, State.MISSING, State.MISSING,
        ]  # fmt: skip
        assert plan.missing == 1_000_000 + len(OTHER)
        assert not plan.sizes_known
        assert {path: path.stat() for path in tmp_path.rglob("*")} == before

    def test_names_that_are_one_file_on_some_systems(self, tmp_path: Path) -> None:
        with pytest.raises(HistoclickError, match="one file on some systems"):
            make_plan([slide(), slide(path="A.TIF")], tmp_path)


class TestRoom:
    def test_too_little_is_told_before_anything_is_made(self, site: Site, tmp_path: Path) -> None:
        folder = tmp_path / "data"
        with pytest.raises(HistoclickError, match=r"1\.0 MB are to be fetched .* room for 0 bytes"):
            run(site, folder, free=lambda _: 1_000_000)
        assert not folder.exists()
        assert site.log == []

    def test_what_is_there_needs_none(self, site: Site, tmp_path: Path) -> None:
        one(site, tmp_path)
        assert one(site, tmp_path, free=lambda _: 100_000_001).result == Result.THERE

    def test_a_disk_that_fills_up_keeps_the_partial(self, site: Site, tmp_path: Path) -> None:
        site.faults["/a.tif"] = [Fault(cut=400_000)]
        room = queue.SimpleQueue[int]()
        for free in (10**9, 10**9, 5):
            room.put(free)
        outcome = one(site, tmp_path, free=lambda _: room.get())
        assert "624.0 kB are missing and the disk has 5 bytes" in outcome.told
        assert (tmp_path / "a.tif.partial").read_bytes() == SLIDE[:400_000]

    def test_no_space_left_on_device(
        self, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr("histoclick.fetch.onefile._write", full)
            assert "a.tif: cannot be written (No space left" in one(site, tmp_path).told
        assert one(site, tmp_path).result == Result.FETCHED

    def test_in_words(self) -> None:
        assert [in_words(n) for n in (0, 999, 1000, 700_812_345_678)] == [
            "0 bytes", "999 bytes", "1.0 kB", "700.8 GB",
        ]  # fmt: skip


def test_what_progress_raises_ends_it(site: Site, tmp_path: Path) -> None:
    def progress(path: str, done: int, total: int) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(site, tmp_path, progress=progress)
    assert one(site, tmp_path).target.read_bytes() == SLIDE


def test_whatever_happens_no_file_is_wrong(site: Site, tmp_path: Path) -> None:
    """Any sequence of cuts, changes, rudeness and trouble, over several runs."""
    versions = (b"old" * 100, b"new" * 100)
    assert dated(versions[0]) != dated(versions[1])
    faults = st.builds(
        Fault,
        status=st.sampled_from([0, 0, 0, 0, 500, 404]),
        cut=st.none() | st.integers(0, 300),
        body=st.none() | st.sampled_from(versions),
        ignore_if_range=st.booleans(),
        drop=st.sampled_from([(), ("ETag",), ("ETag", "Last-Modified"), ("Content-Range",)]),
    )

    @settings(deadline=None, max_examples=20)
    @given(
        runs=st.lists(st.lists(faults, max_size=4), min_size=1, max_size=3),
        ranges=st.booleans(),
        checksum=st.booleans(),
        sized=st.booleans(),
    )
    def attempt(runs: list[list[Fault]], ranges: bool, checksum: bool, sized: bool) -> None:
        folder = tmp_path / "data"
        shutil.rmtree(folder, ignore_errors=True)
        site.ranges, site.files["/a.tif"] = ranges, versions[1]
        file = RemoteFile("a.tif", 300 if sized else None, md5(versions[1]) if checksum else "")
        for number, met in enumerate([*runs, []]):
            site.faults["/a.tif"] = list(met)
            outcome = one(site, folder, file, patience=Patience(pauses_s=(0.0, 0.0)))
            good = versions[1:] if checksum else versions
            if outcome.result == Result.FAILED:
                assert number < len(runs)  # the last run meets no fault
                assert not outcome.target.exists()
            else:
                assert outcome.target.read_bytes() in good

    attempt()


def test_ctrl_c_leaves_what_the_next_call_finishes(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one thread stands in a transfer and one waits for a server that is silent."""
    monkeypatch.setattr("histoclick.fetch.downloads.GOODBYE_S", 0.1)
    site.files["/b.tif"] = OTHER
    site.faults["/a.tif"] = [Fault(cut=700_000, stall=True)]
    site.faults["/b.tif"] = [Fault(hang=True)]
    files = [slide(), slide(OTHER, "b.tif")]
    partial = tmp_path / "a.tif.partial"

    def press() -> None:
        for _ in range(1000):
            if partial.exists() and partial.stat().st_size == 700_000 and site.asked("/b.tif"):
                break
            time.sleep(0.01)
        _thread.interrupt_main()

    threading.Thread(target=press).start()
    with pytest.raises(KeyboardInterrupt):
        run(site, tmp_path, *files, workers=2, patience=Patience(read_s=15.0))
    assert partial.read_bytes() == SLIDE[:700_000]
    assert visible(tmp_path) == ["a.tif.partial", "a.tif.partial.version"]
    site.let_go.set()
    site.log.clear()
    assert {o.result for o in run(site, tmp_path, *files)} == {Result.FETCHED}
    assert site.asked("/a.tif") == ["bytes=700000-"]
    assert (tmp_path / "a.tif").read_bytes() == SLIDE
    assert visible(tmp_path) == ["a.tif", "b.tif"]


class TestGet:
    def test_small_files(self, site: Site) -> None:
        site.files["/list"] = b"content"
        site.faults["/list"] = [Fault(status=500), Fault(cut=3)]
        assert get(f"{site.url}/list", QUICK) == b"content"

    @pytest.mark.parametrize("status", [403, 404, 410])
    def test_none_there(self, site: Site, status: int) -> None:
        site.always["/list"] = Fault(status=status)
        assert get(f"{site.url}/list", QUICK) is None

    def test_what_cannot_be_had(self, site: Site) -> None:
        site.always["/list"] = Fault(status=503)
        with pytest.raises(HistoclickError, match=r"/list: the server is not well .* --mirror"):
            get(f"{site.url}/list?token=secret", QUICK)
        site.always["/list"] = Fault(status=401)
        with pytest.raises(HistoclickError, match="asks for a password"):
            get(f"{site.url}/list", QUICK)

    def test_secrets_in_the_address_are_not_told(self, site: Site) -> None:
        site.always["/list"] = Fault(status=401)
        address = site.url.replace("//", "//me:secret@")
        with pytest.raises(HistoclickError) as caught:
            get(f"{address}/list?token=secret", QUICK)
        assert "secret" not in str(caught.value)

    def test_endless_lists(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("histoclick.fetch.web.MAX_PAGE", 1000)
        with pytest.raises(HistoclickError, match="longer than"):
            get(f"{site.url}/a.tif", QUICK)
