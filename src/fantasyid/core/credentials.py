"""Signed credentials in a file (C2PA): how it was made, by what, and whether a byte was changed since.

They stand beside the invisible mark: the mark outlives uploads and says one bit, the credentials say more, can be
trusted as far as their signer is, and go with the first program that drops metadata. Nothing here reaches for the
network: no time stamps are asked for, and credentials kept elsewhere are not fetched. docs/security.md tells what is
promised and what is not.
"""

import io
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from filelock import FileLock
from PIL import Image

from fantasyid import __version__
from fantasyid.core.errors import InvalidRequestError, UnwritableOutputError, short_reason
from fantasyid.core.input_files import check_input_file
from fantasyid.core.optional import require
from fantasyid.core.output_files import make_folder, write_together
from fantasyid.core.provenance import SOURCE_TYPE, holds_bytes

SIGNED_FORMATS: Mapping[str, str] = MappingProxyType(
    {".mp4": "video/mp4", ".gif": "image/gif", ".png": "image/png", ".jpg": "image/jpeg"}
)
"""What of our files can hold credentials, and its media type."""

State = Literal["valid", "unknown signer", "tampered", "absent"]
"""Of credentials: whole and signed by somebody known; whole and signed by anybody; not fitting the file; not there."""

_MODEL_ASSERTION = "fantasyid.model"
_NOTHING: Mapping[str, Any] = MappingProxyType({})
# The type of the box, and the first bytes of its content, that every store of credentials begins with (ISO 19566-5).
_STORE = b"jumdc2pa"
# Failures that say who signed, and not that the file was changed.
_ABOUT_THE_SIGNER = ("signingCredential.", "claimSignature.outsideValidity")
_SETTINGS: Mapping[str, Any] = MappingProxyType(
    {
        "version": 1,
        "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False},
        # One would show the face in files that the person may crop or blur later.
        "builder": {"thumbnail": {"enabled": False}},
    }
)


@dataclass(frozen=True)
class SigningKey:
    """A private key with the certificates that name its holder.

    Attributes:
        source: The file it is from.
        algorithm: C2PA's name of it, such as `"es256"`.
        private_key: PKCS #8 as PEM.
        certificates: PEM, that of the key first.
        public_sha256: Of the public key as DER (SubjectPublicKeyInfo), by which the key is known.
    """

    source: Path
    algorithm: str
    private_key: bytes = field(repr=False)
    certificates: bytes = field(repr=False)
    public_sha256: str

    @classmethod
    def local(cls) -> "SigningKey":
        """The key of this user on this computer, made at the first use; its certificate names nobody.

        Raises:
            MissingBackendError: The extra c2pa is not installed.
            InvalidRequestError: The key cannot be made or read, or others can read it.
        """
        path = local_key_file()
        if not path.exists():
            _make_local_key(path)
        mode = stat.S_IMODE(path.stat().st_mode)
        if os.name == "posix" and mode & 0o077:
            raise InvalidRequestError(
                f"Others can read the key {path} (mode {mode:04o}), so they may sign as you; remove it for a new one, "
                "or, if nobody did: chmod 600."
            )
        return cls.read(path)

    @classmethod
    def read(cls, path: Path) -> "SigningKey":
        """Read a key from a file, and try it.

        Args:
            path: PEM: a private key without a passphrase, its certificate, and those that vouch for it up to the root.

        Raises:
            MissingBackendError: The extra c2pa is not installed.
            InvalidRequestError: There is no such file, or nothing can be signed with what is in it.
        """
        check_input_file(path, "signing key")
        parts = _certificates().read_signing_parts(_read(path), path)
        key = cls(path, *parts)
        picture, signed = io.BytesIO(), io.BytesIO()
        Image.new("RGB", (1, 1)).save(picture, "png")
        picture.seek(0)
        try:
            _sign(picture, signed, "image/png", key, {})
        except _c2pa().C2paError as error:
            raise InvalidRequestError(
                f"The key and certificates in {path} cannot sign ({short_reason(error)}); C2PA wants a certificate "
                "that holds today, for digital signatures and email protection, and not a root itself."
            ) from error
        return key


@dataclass(frozen=True)
class Credentials:
    """What a file's credentials say; nothing of what tampered ones say is repeated.

    Attributes:
        state: Whether they are to be believed.
        signer: Whom the certificate names, in their own words.
        made_by: The program that they say made the file.
        ai_generated: Whether they say that a trained model made it.
    """

    state: State
    signer: str | None = None
    made_by: str | None = None
    ai_generated: bool | None = None


def local_key_file() -> Path:
    """Where `SigningKey.local` keeps the key: in the user's folder for settings.

    Raises:
        MissingBackendError: The extra c2pa is not installed.
    """
    folder = require("platformdirs", "c2pa", "find the folder of the signing key").user_config_path("fantasyid")
    return Path(folder) / "signing.pem"


def known_certificates(others: Path | None = None) -> bytes:
    """Certificates of those whose signatures count as known: this computer's own, if it has signed, and others.

    Args:
        others: PEM file of certificates.

    Returns:
        PEM, for `read_credentials`.

    Raises:
        MissingBackendError: The extra c2pa is not installed.
        InvalidRequestError: A file cannot be read, or holds no certificate.
    """
    if others is not None:
        check_input_file(others, "certificates")
    files = [path for path in (local_key_file(), others) if path is not None and path.exists()]
    return b"".join(_certificates().read_certificates(_read(path), path) for path in files)


def check_signable(video: Path) -> None:
    """Refuse a format that holds no credentials.

    Args:
        video: Where a video will be written; a name without an end is a folder of pictures.

    Raises:
        InvalidRequestError: It is such a format.
    """
    if video.suffix.lower() == ".webm":
        raise _no_place_in(video)


def sign_file(path: Path, key: SigningKey, model: Mapping[str, Any] = _NOTHING) -> None:
    """Put credentials into a file, after all else was written to it; it is replaced when the signed one is complete.

    They say that a trained model made it, with which version of this program, and what is given here; neither prompt
    nor photo, nor a name, nor a time.

    Args:
        path: Its name ends as in `SIGNED_FORMATS`.
        key: Who signs.
        model: What to say of the model, by names of a video's record, such as `weights_sha256`.

    Raises:
        InvalidRequestError: Its name ends otherwise.
        UnwritableOutputError: It could not be signed or written.
    """
    form = SIGNED_FORMATS.get(path.suffix.lower())
    if form is None:
        raise _no_place_in(path)
    try:
        with write_together([path], overwrite=True) as (made,), path.open("rb") as source, made.open("w+b") as signed:
            _sign(source, signed, form, key, model)
    except _c2pa().C2paError as error:
        raise UnwritableOutputError(
            f"{path} could not be signed ({short_reason(error)}); make room, or leave signing out."
        ) from error


def read_credentials(path: Path, known: bytes = b"") -> Credentials:
    """Read a file's credentials and hold them against its bytes.

    Args:
        path: A video or picture of any format; may come from anyone.
        known: Certificates as PEM; who signs with them, or is vouched for by them, is known.

    Raises:
        MissingBackendError: The extra c2pa is not installed.
    """
    c2pa = _c2pa()
    settings = {**_SETTINGS, "trust": {"user_anchors": known.decode()}} if known else dict(_SETTINGS)
    with c2pa.Context.from_dict(settings) as context, path.open("rb") as file:
        try:
            with c2pa.Reader(None, file, context=context) as reader:
                store = json.loads(reader.json())
        except c2pa.C2paError:
            # There are none, or they or the file are so damaged that they cannot be read.
            return Credentials("tampered" if holds_bytes(path, _STORE) else "absent")
    failures = [status["code"] for status in store.get("validation_status", ())]
    state: State = "tampered"
    if store["validation_state"] == "Trusted":
        state = "valid"
    elif failures and all(code.startswith(_ABOUT_THE_SIGNER) for code in failures):
        state = "unknown signer"
    if state == "tampered":
        return Credentials(state)
    manifest = store["manifests"][store["active_manifest"]]
    signature = manifest.get("signature_info", {})
    programs = manifest.get("claim_generator_info") or [{}]
    return Credentials(
        state=state,
        signer=", ".join(str(signature[name]) for name in ("common_name", "issuer") if name in signature) or None,
        made_by=" ".join(str(programs[0][name]) for name in ("name", "version") if name in programs[0]) or None,
        ai_generated=any(
            action.get("digitalSourceType") == SOURCE_TYPE
            for assertion in manifest.get("assertions", ())
            if assertion["label"].startswith("c2pa.actions")
            for action in assertion["data"]["actions"]
        ),
    )


def _sign(source: Any, target: Any, form: str, key: SigningKey, model: Mapping[str, Any]) -> None:
    c2pa = _c2pa()
    program = {"name": "FantasyID", "version": __version__}
    action = {"action": "c2pa.created", "digitalSourceType": SOURCE_TYPE, "softwareAgent": program}
    assertions: list[dict[str, Any]] = [{"label": "c2pa.actions.v2", "data": {"actions": [action]}}]
    if model:
        assertions.append({"label": _MODEL_ASSERTION, "data": dict(model)})
    claim = {"claim_generator_info": [program], "assertions": assertions}
    info = c2pa.C2paSignerInfo(
        alg=c2pa.C2paSigningAlg[key.algorithm.upper()],
        sign_cert=key.certificates,
        private_key=key.private_key,
        ta_url=None,
    )
    with (
        c2pa.Context.from_dict(dict(_SETTINGS)) as context,
        c2pa.Signer.from_info(info) as signer,
        c2pa.Builder(claim, context) as builder,
    ):
        builder.sign(signer, form, source, target)


def _no_place_in(path: Path) -> InvalidRequestError:
    return InvalidRequestError(
        f"{path.name} cannot hold signed credentials, which are put into {', '.join(SIGNED_FORMATS)} files and folders "
        "of pictures; write one of those, or leave --sign out."
    )


def _c2pa() -> Any:
    return require("c2pa", "c2pa", "sign files and to check who signed them")


def _certificates() -> Any:
    return require("fantasyid.core.certificates", "c2pa", "sign files")


def _make_local_key(path: Path) -> None:
    content = _certificates().new_key_and_certificates()
    make_folder(path.parent)
    try:
        with FileLock(path.with_name(f".{path.name}.lock")):
            if path.exists():  # another process made it meanwhile
                return
            with write_together([path], overwrite=False) as (made,):
                made.touch(0o600)
                made.write_bytes(content)
    except OSError as error:
        raise InvalidRequestError(
            f"The key {path} cannot be made ({error.strerror}); see to its folder, or sign with a key of your own."
        ) from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidRequestError(f"{path} cannot be read ({error.strerror}); check its permissions.") from error
