"""A bundle: one model with all that a device needs, in one uncompressed zip named `name-version.edge`.

The archive holds `manifest.json` and the files it lists, each with its size and SHA-256. The archive's comment holds
the SHA-256 of `manifest.json`, which is therefore the digest of the whole bundle: pin it to pin every byte.
Nothing is compressed, dated or ordered by chance, so the same content gives the same bytes.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import msgspec

from edge_runtime.errors import ErrorCode, HybridgeError
from edge_runtime.files import read_file, write_file
from edge_runtime.manifest import File, Manifest

__all__ = ["Bundle"]

_MANIFEST = "manifest.json"
_COMMENT = b"hybridge bundle sha256:"
# The zip epoch: the only date that carries no information.
_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Bundle:
    """A verified manifest and the files it lists, held in memory.

    Make one with `create`, `open` or `from_bytes`; each leaves only bundles whose every byte was checked.

    Attributes:
        manifest: The manifest, as far as this release knows its fields.
        files: Content of every other member, by path.
        manifest_json: The manifest's own bytes, which may have fields of a later release.

    Example:
        >>> bundle = Bundle.open("digits-1.0.edge")
        >>> bundle.manifest.labels[:3]
        ('0', '1', '2')
    """

    manifest: Manifest
    files: Mapping[str, bytes]
    manifest_json: bytes

    @classmethod
    def create(cls, manifest: Manifest, files: Mapping[str, bytes]) -> Bundle:
        """Makes a bundle of `files`, filling in the manifest's list of them.

        Args:
            manifest: The manifest; its `files` are computed here.
            files: Content by path; must hold the path that `manifest.model` names.
        """
        listed = tuple(
            File(path=path, size=len(content), sha256=hashlib.sha256(content).hexdigest())
            for path, content in sorted(files.items())
        )
        encoded = msgspec.structs.replace(manifest, files=listed).to_json()
        complete = Manifest.from_json(encoded)
        return cls(complete, _verified(complete, dict(files)), encoded)

    @classmethod
    def open(cls, path: str | PathLike[str], *, digest: str | None = None) -> Bundle:
        """Reads and verifies the bundle at `path`.

        Args:
            path: The `.edge` file.
            digest: The digest that the bundle must have, 64 hexadecimal digits, with or without ``sha256:``.

        Raises:
            HybridgeError: `file-not-found`; `bundle-damaged` for anything truncated or altered; `bundle-digest`
                for a sound bundle that is not the one asked for; `bundle-invalid`, `bundle-too-new`.
        """
        return cls.from_bytes(read_file(path), digest=digest, name=Path(path).name)

    @classmethod
    def from_bytes(cls, content: bytes, *, digest: str | None = None, name: str = "bundle") -> Bundle:
        """Reads and verifies a bundle held in memory; see `open`."""
        members, comment = _read_archive(content, name)
        encoded = members.pop(_MANIFEST, None)
        if encoded is None:
            raise _damaged(name, "an archive without manifest.json")
        actual = hashlib.sha256(encoded).hexdigest()
        if comment != _COMMENT + actual.encode():
            raise _damaged(name, "a manifest.json that was altered after the bundle was made")
        if digest is not None and digest.removeprefix("sha256:").lower() != actual:
            raise HybridgeError(
                ErrorCode.BUNDLE_DIGEST,
                name,
                received=f"digest {actual}",
                expected=digest,
                fix="fetch the bundle that this digest belongs to",
            )
        manifest = Manifest.from_json(encoded)
        return cls(manifest, _verified(manifest, members, name), encoded)

    @property
    def digest(self) -> str:
        """SHA-256 of `manifest.json`, which itself holds the SHA-256 of every file: 64 hexadecimal digits."""
        return hashlib.sha256(self.manifest_json).hexdigest()

    @property
    def model_content(self) -> bytes:
        """The `.tflite` file's bytes."""
        return self.files[self.manifest.model]

    @property
    def file_name(self) -> str:
        """The name this bundle goes by on disk, `name-version.edge`."""
        return f"{self.manifest.name}-{self.manifest.version}.edge"

    def to_bytes(self) -> bytes:
        """The archive; the same manifest and files give the same bytes."""
        import zipfile  # not at the top: with what it imports itself, a tenth of this package's start-up

        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
            for path, content in [(_MANIFEST, self.manifest_json), *sorted(self.files.items())]:
                member = zipfile.ZipInfo(path, _EPOCH)
                member.create_system = 3  # the same on every platform
                member.external_attr = 0o644 << 16
                archive.writestr(member, content)
            archive.comment = _COMMENT + self.digest.encode()
        return buffer.getvalue()

    def save(self, path: str | PathLike[str], *, overwrite: bool = False) -> Path:
        """Writes the bundle to `path`, or into it under `file_name` when it is a folder.

        Raises:
            HybridgeError: `file-exists` when something is there and `overwrite` is false, `file-unwritable`.
        """
        target = Path(path)
        if target.is_dir():
            target = target / self.file_name
        write_file(target, self.to_bytes(), overwrite=overwrite)
        return target


def _read_archive(content: bytes, name: str) -> tuple[dict[str, bytes], bytes]:
    import zipfile

    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members: dict[str, bytes] = {}
            for member in archive.infolist():
                if member.compress_type != zipfile.ZIP_STORED:
                    raise _damaged(name, f"a compressed member '{member.filename}'")
                if member.filename in members:
                    raise _damaged(name, f"two members named '{member.filename}'")
                members[member.filename] = archive.read(member)
            return members, archive.comment
    # zipfile lets struct and value errors through for some kinds of rubbish.
    except (zipfile.BadZipFile, EOFError, OSError, ValueError, NotImplementedError, RuntimeError) as error:
        raise _damaged(name, f"{len(content)} bytes that are no archive ({error})") from error


def _verified(manifest: Manifest, files: dict[str, bytes], name: str = "bundle") -> dict[str, bytes]:
    listed = {file.path: file for file in manifest.files}
    if _MANIFEST in listed:
        raise _damaged(name, f"a manifest that lists '{_MANIFEST}', itself")
    if unlisted := sorted(files.keys() - listed.keys()):
        raise _damaged(name, f"files that the manifest does not list: {', '.join(unlisted)}")
    for path, file in listed.items():
        if path not in files:
            raise _damaged(name, f"no '{path}', which the manifest lists")
        if len(files[path]) != file.size or hashlib.sha256(files[path]).hexdigest() != file.sha256:
            raise _damaged(name, f"a '{path}' whose bytes are not those the manifest lists")
    if manifest.model not in files:
        raise _damaged(name, f"no model '{manifest.model}'")
    return files


def _damaged(name: str, received: str) -> HybridgeError:
    return HybridgeError(
        ErrorCode.BUNDLE_DAMAGED,
        name,
        received=received,
        expected="a whole, unaltered bundle",
        fix="fetch or convert it again",
    )
