"""Names to files, from what an S3 bucket, a plain mirror, or nobody sensible lists."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from histoclick.datasets.bucket import RemoteFile, list_bucket, read_checksums
from histoclick.datasets.camelyon16_bucket import BUCKET, Choice, choose
from histoclick.fetch import Patience, Result, fetch, get
from histoclick.types import HistoclickError
from website import Fault, Site, website

QUICK = Patience(connect_s=2.0, read_s=1.0, pauses_s=(0.01,))
GET = partial(get, patience=QUICK)
CASES = ("normal_001", "tumor_001", "tumor_002", "test_001", "test_002")


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A small CAMELYON16: two of its five slides have no tumour."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    files = {f"images/{case}.tif": case.encode() * 100 for case in CASES}
    files |= {f"masks/{case}_mask.tif": case.encode() * 10 for case in CASES}
    files |= {f"annotations/{case}.xml": b"<a/>" for case in CASES[1:4]}
    files |= {f"background_tissue/{case}_tissue.tif": b"t" for case in CASES}
    sums = "".join(f"{md5(content)} *{path}\n" for path, content in files.items())
    files |= {"README.md": b"#", "images/": b"", "checksums.md5": sums.encode()}
    with website() as site:
        site.files = {f"/CAMELYON16/{path}": content for path, content in files.items()}
        site.files["/CAMELYON17/images/patient_000_node_0.tif"] = b"17"
        site.multipart = frozenset(f"CAMELYON16/images/{case}.tif" for case in CASES)
        yield site


def paths(choice: Choice) -> list[str]:
    return [file.path for file in choice.files]


class TestChoice:
    def test_a_slide_and_what_belongs_to_it(self, site: Site) -> None:
        choice = choose(GET, ["tumor_001", "normal_001"], mirror=site.url)
        assert paths(choice) == [
            "images/normal_001.tif", "images/tumor_001.tif", "annotations/tumor_001.xml",
            "masks/normal_001_mask.tif", "masks/tumor_001_mask.tif",
        ]  # fmt: skip
        assert choice.base == f"{site.url}/CAMELYON16"
        assert choice.notes == ()
        for file in choice.files:
            content = site.files[f"/CAMELYON16/{file.path}"]
            assert (file.size, file.checksum) == (len(content), md5(content))

    def test_patterns_and_kinds(self, site: Site) -> None:
        choice = choose(GET, ["tumor_*", "test_00[2]"], ["images"], site.url)
        assert paths(choice) == [f"images/{c}.tif" for c in ("test_002", "tumor_001", "tumor_002")]
        assert len(choose(GET, [], mirror=site.url).files) == 13

    def test_lists_of_many_pages(self, site: Site) -> None:
        site.per_page = 2
        assert len(choose(GET, [], mirror=site.url).files) == 13
        assert len(site.asked("/")) == 11

    @pytest.mark.parametrize("ending", ["", "/", "/CAMELYON16", "/CAMELYON16/"])
    def test_mirrors_in_all_ways_to_say_it(self, site: Site, ending: str) -> None:
        choice = choose(GET, ["test_002"], mirror=site.url + ending)
        assert choice.base == f"{site.url}/CAMELYON16"

    def test_the_bucket_itself_is_asked_over_https(self) -> None:
        asked: list[str] = []

        def listen(url: str) -> None:
            asked.append(url)

        with pytest.raises(HistoclickError, match="neither a list"):
            choose(listen)
        assert asked[0].startswith("https://camelyon-dataset.s3.us-west-2.amazonaws.com/?list-type")
        assert asked[1] == f"{BUCKET}/CAMELYON16/checksums.md5"

    @pytest.mark.parametrize(
        ("name", "told"),
        [
            ("tumor_01", "no slide of CAMELYON16; the nearest names are tumor_001"),
            ("Tumor_001", "the nearest names are tumor_001"),
            ("tumor_001.tif", "the nearest names are tumor_001"),
            ("*.svs", "'\\*.svs' is no slide"),
            ("../tumor_001", "no slide"),
            ("normal_086", "is tumor_111 now"),
            ("test_049", "the same section as another slide"),
            ("", "'' is no slide"),
        ],
    )
    def test_unknown_names(self, site: Site, name: str, told: str) -> None:
        with pytest.raises(HistoclickError, match=told):
            choose(GET, ["tumor_002", name], mirror=site.url)

    def test_nothing_to_fetch(self, site: Site) -> None:
        with pytest.raises(HistoclickError, match=r"normal_001: no annotations to fetch"):
            choose(GET, ["normal_001"], ["annotations"], site.url)
        with pytest.raises(HistoclickError, match="'slides' is nothing CAMELYON16 has"):
            choose(GET, [], ["slides"], site.url)

    @pytest.mark.parametrize(
        "mirror",
        ["", "here", "ftp://host/x", "file:///etc", "https://", "https://host?x=1", "http://[x/"],
    )
    def test_what_is_no_mirror(self, mirror: str) -> None:
        with pytest.raises(HistoclickError, match="is no mirror"):
            choose(GET, [], mirror=mirror)


class TestChecksums:
    def test_without_the_file_single_part_etags_serve(self, site: Site) -> None:
        del site.files["/CAMELYON16/checksums.md5"]
        choice = choose(GET, ["tumor_001"], mirror=site.url)
        image, annotation, mask = choice.files
        assert (image.size, image.checksum) == (900, "")
        assert annotation.checksum == md5(b"<a/>")
        assert mask.checksum == md5(b"tumor_001" * 10)
        missing, bare = choice.notes
        assert "checksums.md5 is missing" in missing
        assert bare.startswith("1 of 3 files have no checksum (the first is images/tumor_001.tif)")

    def test_a_plain_mirror_is_known_by_its_checksums(self, site: Site, tmp_path: Path) -> None:
        site.bucket = False
        choice = choose(GET, ["test_001"], mirror=site.url)
        assert {file.size for file in choice.files} == {None}
        assert "is no S3 bucket" in choice.notes[0]
        outcomes = list(fetch(choice.files, choice.base, tmp_path, patience=QUICK))
        assert {outcome.result for outcome in outcomes} == {Result.FETCHED}
        assert (tmp_path / "images/test_001.tif").read_bytes() == b"test_001" * 100

    @pytest.mark.parametrize(
        "page",
        [
            b"<!DOCTYPE html><html><br></html>",
            b"<?xml version='1.0'?><!DOCTYPE html><html/>",
            b"<html/>",
            b"\0",
            b"",
        ],
    )
    def test_web_pages_are_no_lists(self, site: Site, page: bytes) -> None:
        site.bucket = False
        site.files["/"] = page
        assert "is no S3 bucket" in choose(GET, [], mirror=site.url).notes[0]

    def test_neither_list_nor_checksums(self, site: Site) -> None:
        site.bucket = False
        del site.files["/CAMELYON16/checksums.md5"]
        with pytest.raises(HistoclickError, match="neither a list of files nor"):
            choose(GET, [], mirror=site.url)

    def test_all_ways_to_write_them(self) -> None:
        sums = read_checksums(
            b"\xef\xbb\xbf# made by hand\r\n"
            b"D41D8CD98F00B204E9800998ECF8427E *images/a.tif\r\n"
            b"d41d8cd98f00b204e9800998ecf8427e  ./images/b c.tif\n"
            + b"0" * 64 + b"  c.tif\n" + b"0" * 40 + b"  sha1.tif\nnonsense\n\xff\xfe\n"
        )  # fmt: skip
        assert sums == {
            "images/a.tif": md5(b""), "images/b c.tif": md5(b""), "c.tif": "0" * 64,
        }  # fmt: skip


class TestStrangers:
    def test_names_that_lead_out_of_the_folder_are_not_fetched(
        self, site: Site, tmp_path: Path
    ) -> None:
        evil = ("../evil.tif", "images/../../evil.tif", "images/.hidden.tif", "images/a\\b_1.tif")
        site.files |= {f"/CAMELYON16/{path}": b"evil" for path in evil}
        sums = "".join(f"{md5(b'evil')}  {path}\n" for path in evil).encode()
        site.files["/CAMELYON16/checksums.md5"] += sums
        folder = tmp_path / "data"
        choice = choose(GET, [], mirror=site.url)
        assert len(choice.files) == 13
        list(fetch(choice.files, choice.base, folder, patience=QUICK))
        found = {path.name for path in tmp_path.rglob("*")}
        assert not any("evil" in name or "a\\b" in name for name in found)

    @pytest.mark.parametrize(
        "path",
        [
            "", "/etc/passwd", "..", "a/../b", "a/./b", "a//b", "a/", "C:/x", "c:x", "a\\b", "a\0b",
            ".ssh/x", "a/.histoclick-fetch.json", "~/x", "a b", "a.", "a/b.", "a\nb", "%2e%2e/x",
            "é.tif", "a?b", "-x",
        ],
    )  # fmt: skip
    def test_paths(self, path: str) -> None:
        with pytest.raises(HistoclickError, match="may lead out of the folder"):
            RemoteFile(path)

    @given(st.text(max_size=20))
    def test_no_path_leaves_the_folder(self, path: str) -> None:
        try:
            file = RemoteFile(path)
        except HistoclickError:
            return
        folder = Path("/data")
        assert (folder / file.path).resolve().is_relative_to(folder)
        assert (folder / file.path).resolve() != folder

    def test_what_else_is_no_file(self) -> None:
        with pytest.raises(HistoclickError, match="neither an MD5 nor a SHA-256"):
            RemoteFile("a", 1, "abc")
        with pytest.raises(HistoclickError, match="cannot be"):
            RemoteFile("a", -1)

    @pytest.mark.parametrize(
        "page",
        [
            b'<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>'
            b"<ListBucketResult>&b;</ListBucketResult>",
            b'<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a SYSTEM "file:///etc/passwd">]>'
            b"<ListBucketResult>&a;</ListBucketResult>",
            b"<ListBucketResult><Contents><Key>a</Key><Size>-1</Size></Contents></ListBucketResult>",
            b"<ListBucketResult><Contents><Key>a</Key></Contents></ListBucketResult>",
            b"<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>",
        ],
    )
    def test_lists_that_attack(self, page: bytes) -> None:
        with pytest.raises(HistoclickError, match="the list of files is damaged"):
            list_bucket(lambda _: page, "https://bucket", "")

    def test_a_list_that_breaks_off(self) -> None:
        pages = iter([_page("1"), b"<html/>"])
        with pytest.raises(HistoclickError, match="damaged"):
            list_bucket(lambda _: next(pages), "https://bucket", "")

    def test_lists_that_never_end(self) -> None:
        with pytest.raises(HistoclickError, match="damaged"):
            list_bucket(lambda _: _page("same"), "https://bucket", "")
        count = iter(range(10**6))
        with pytest.raises(HistoclickError, match="more than 200 pages"):
            list_bucket(lambda _: _page(str(next(count))), "https://bucket", "")

    def test_a_server_in_trouble_is_no_plain_mirror(self, site: Site) -> None:
        site.always["/"] = Fault(status=503)
        with pytest.raises(HistoclickError, match="not well"):
            choose(GET, [], mirror=site.url)


def _page(token: str) -> bytes:
    return (
        "<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>"
        f"{token}</NextContinuationToken></ListBucketResult>"
    ).encode()
