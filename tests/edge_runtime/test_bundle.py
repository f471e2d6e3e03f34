from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from edge_runtime import Bundle, ErrorCode, HybridgeError, Manifest
from edge_runtime.manifest import Requirements

MakeBundle = Callable[..., Bundle]


def test_a_saved_bundle_opens_with_the_same_content(make_bundle: MakeBundle, tmp_path: Path) -> None:
    bundle = make_bundle()
    path = bundle.save(tmp_path)
    assert path.name == "digits-1.0.edge"
    opened = Bundle.open(path)
    assert opened.manifest == bundle.manifest
    assert dict(opened.files) == dict(bundle.files)
    assert opened.digest == bundle.digest == hashlib.sha256(opened.manifest.to_json()).hexdigest()


def test_bytes_do_not_depend_on_time_order_or_process(make_bundle: MakeBundle, tmp_path: Path) -> None:
    bundle = make_bundle()
    files = {"z.txt": b"last", **bundle.files, "a.txt": b"first"}
    one = Bundle.create(bundle.manifest, files)
    other = Bundle.create(bundle.manifest, dict(reversed(files.items())))
    assert one.to_bytes() == other.to_bytes()
    path = one.save(tmp_path / "one.edge")
    script = (
        f"from edge_runtime import Bundle; Bundle.open({str(path)!r}).save({str(tmp_path / 'two.edge')!r})"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
    assert (tmp_path / "two.edge").read_bytes() == path.read_bytes()


def test_members_are_stored_and_readable_by_any_zip_tool(make_bundle: MakeBundle) -> None:
    with zipfile.ZipFile(io.BytesIO(make_bundle().to_bytes())) as archive:
        assert archive.testzip() is None
        assert {member.compress_type for member in archive.infolist()} == {zipfile.ZIP_STORED}
        assert archive.namelist() == ["manifest.json", "model.tflite"]


def test_every_truncation_is_damage(make_bundle: MakeBundle) -> None:
    content = make_bundle().to_bytes()
    for length in [0, 1, 3, *range(4, len(content), 97), len(content) - 1]:
        with pytest.raises(HybridgeError) as caught:
            Bundle.from_bytes(content[:length])
        assert caught.value.code is ErrorCode.BUNDLE_DAMAGED, length


def test_every_altered_byte_is_found_or_changes_nothing(make_bundle: MakeBundle) -> None:
    bundle = make_bundle()
    content = bundle.to_bytes()
    unnoticed, codes = 0, set()
    for position in range(0, len(content), 13):
        altered = bytearray(content)
        altered[position] ^= 0x41
        try:
            opened = Bundle.from_bytes(bytes(altered))
        except HybridgeError as error:
            codes.add(error.code)
            continue
        # A zip header has fields that nobody reads, such as a member's date; what is used must be untouched.
        unnoticed += 1
        assert opened.digest == bundle.digest
        assert dict(opened.files) == dict(bundle.files)
    assert unnoticed < 40
    assert codes <= {ErrorCode.BUNDLE_DAMAGED, ErrorCode.BUNDLE_INVALID}


def _rezip(members: dict[str, bytes], comment: bytes, *, compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        archive.comment = comment
    return buffer.getvalue()


def _members(bundle: Bundle) -> tuple[dict[str, bytes], bytes]:
    with zipfile.ZipFile(io.BytesIO(bundle.to_bytes())) as archive:
        return {name: archive.read(name) for name in archive.namelist()}, archive.comment


@pytest.mark.parametrize(
    "how", ["model", "manifest", "extra", "missing", "compressed", "comment", "no manifest"]
)
def test_a_rebuilt_archive_with_other_content_is_damage(make_bundle: MakeBundle, how: str) -> None:
    members, comment = _members(make_bundle())
    compression = zipfile.ZIP_STORED
    if how == "model":
        members["model.tflite"] = members["model.tflite"][:-1] + b"!"
    elif how == "manifest":
        members["manifest.json"] = members["manifest.json"].replace(b'"threshold": 0.5', b'"threshold": 0.0')
    elif how == "extra":
        members["payload.bin"] = b"not listed"
    elif how == "missing":
        del members["model.tflite"]
    elif how == "compressed":
        compression = zipfile.ZIP_DEFLATED
    elif how == "comment":
        comment = b""
    else:
        del members["manifest.json"]
    with pytest.raises(HybridgeError) as caught:
        Bundle.from_bytes(_rezip(members, comment, compression=compression))
    assert caught.value.code is ErrorCode.BUNDLE_DAMAGED


def test_a_pinned_digest_admits_only_that_bundle(make_bundle: MakeBundle, tmp_path: Path) -> None:
    bundle, other = make_bundle(), make_bundle(threshold=0.6)
    path = bundle.save(tmp_path)
    assert Bundle.open(path, digest=f"sha256:{bundle.digest}").digest == bundle.digest
    with pytest.raises(HybridgeError) as caught:
        Bundle.open(path, digest=other.digest)
    assert caught.value.code is ErrorCode.BUNDLE_DIGEST
    assert other.digest in caught.value.message
    assert bundle.digest in caught.value.message


def test_an_existing_file_stays_unless_asked(make_bundle: MakeBundle, tmp_path: Path) -> None:
    path = tmp_path / "m.edge"
    path.write_bytes(b"precious")
    with pytest.raises(HybridgeError) as caught:
        make_bundle().save(path)
    assert caught.value.code is ErrorCode.FILE_EXISTS
    assert path.read_bytes() == b"precious"
    make_bundle().save(path, overwrite=True)
    assert Bundle.open(path).manifest.name == "digits"
    assert [child.name for child in tmp_path.iterdir()] == ["m.edge"]


def test_a_missing_folder_and_a_missing_file_say_so(make_bundle: MakeBundle, tmp_path: Path) -> None:
    with pytest.raises(HybridgeError) as caught:
        make_bundle().save(tmp_path / "no" / "m.edge")
    assert caught.value.code is ErrorCode.FILE_UNWRITABLE
    with pytest.raises(HybridgeError) as caught:
        Bundle.open(tmp_path / "absent.edge")
    assert caught.value.code is ErrorCode.FILE_NOT_FOUND


def test_a_full_disk_leaves_what_was_there(make_bundle: MakeBundle, tmp_path: Path) -> None:
    # A limit on file size is a full disk that needs no disk: the write itself fails with an OSError.
    path = make_bundle().save(tmp_path / "m.edge")
    before = path.read_bytes()
    script = (
        "import resource, signal, sys\n"
        "from edge_runtime import Bundle, HybridgeError\n"
        f"bundle = Bundle.open({str(path)!r})\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n"
        f"    bundle.save({str(path)!r}, overwrite=True)\n"
        "except HybridgeError as error:\n"
        "    sys.exit(error.code)\n"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "file-unwritable" in run.stderr
    assert path.read_bytes() == before
    assert [child.name for child in tmp_path.iterdir()] == ["m.edge"]


def test_a_newer_schema_asks_for_an_update(make_bundle: MakeBundle) -> None:
    manifest = msgspec.structs.replace(make_bundle().manifest, schema_version=99)
    with pytest.raises(HybridgeError) as caught:
        Manifest.from_json(manifest.to_json())
    assert caught.value.code is ErrorCode.BUNDLE_TOO_NEW


def test_a_bundle_for_a_later_release_asks_for_an_update(make_bundle: MakeBundle) -> None:
    for release, readable in (("0.1", True), ("0.0.9", True), ("0.10", False), ("12.0.1", False)):
        manifest = msgspec.structs.replace(
            make_bundle().manifest, requirements=Requirements(hybridge=release)
        )
        if readable:
            assert Manifest.from_json(manifest.to_json()) == manifest
            continue
        with pytest.raises(HybridgeError) as caught:
            Manifest.from_json(manifest.to_json())
        assert caught.value.code is ErrorCode.BUNDLE_TOO_NEW


def test_unknown_fields_of_a_later_release_are_ignored_and_kept(
    make_bundle: MakeBundle, tmp_path: Path
) -> None:
    bundle = make_bundle()
    fields = msgspec.json.decode(bundle.manifest_json) | {"carbon": {"grams": 1}}
    later = msgspec.json.encode(fields)
    digest = hashlib.sha256(later).hexdigest()
    members = {"manifest.json": later, **bundle.files}
    path = tmp_path / "later.edge"
    path.write_bytes(_rezip(members, f"hybridge bundle sha256:{digest}".encode()))
    opened = Bundle.open(path, digest=digest)
    assert opened.manifest == bundle.manifest
    # Copied by this release, it is still the bundle that its digest names.
    opened.save(tmp_path / "copy.edge")
    assert Bundle.open(tmp_path / "copy.edge", digest=digest).manifest_json == later


@pytest.mark.parametrize(
    "change",
    [
        {"name": "../etc/passwd"},
        {"name": ""},
        {"signature": None},
        {"confidence": {"output": "y", "temperature": 0}},
    ],
)
def test_a_manifest_that_breaks_the_schema_is_refused(
    make_bundle: MakeBundle, change: dict[str, object]
) -> None:
    broken = msgspec.json.decode(make_bundle().manifest.to_json()) | change
    with pytest.raises(HybridgeError) as caught:
        Manifest.from_json(msgspec.json.encode(broken))
    assert caught.value.code is ErrorCode.BUNDLE_INVALID


def test_a_measurement_that_is_no_number_is_refused(make_bundle: MakeBundle) -> None:
    bundle = make_bundle()
    assert bundle.manifest.confidence is not None
    confidence = msgspec.structs.replace(bundle.manifest.confidence, temperature=float("nan"))
    with pytest.raises(HybridgeError) as caught:
        Bundle.create(msgspec.structs.replace(bundle.manifest, confidence=confidence), bundle.files)
    assert caught.value.code is ErrorCode.BUNDLE_INVALID
    assert "temperature" in caught.value.message
