"""Signed credentials: whole files validate, changed ones do not, the key stays its user's, and nothing is fetched."""

import io
import json
import platform
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import av
import c2pa
import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from PIL import Image

from fantasyid import __version__
from fantasyid.core.credentials import (
    Credentials,
    SigningKey,
    check_signable,
    known_certificates,
    local_key_file,
    read_credentials,
    sign_file,
)
from fantasyid.core.errors import InvalidRequestError, MissingBackendError, UnwritableOutputError
from fantasyid.core.provenance import SOURCE_TYPE, add_xmp, container_metadata
from fantasyid.core.video import read_video, write_video
from tests.kills import contents, file_size_limit

FRAMES = np.random.default_rng(0).integers(0, 255, (3, 32, 32, 3), np.uint8)
WEIGHTS = "5" * 64


@pytest.fixture(autouse=True)
def settings_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This test's own folder for settings."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "settings"))
    return tmp_path / "settings"


def unsigned(path: Path) -> Path:
    if path.suffix == ".mp4":
        write_video(path, FRAMES, 8, container_metadata())
        add_xmp(path)
    elif path.suffix == ".gif":
        write_video(path, FRAMES, 8)
    else:
        Image.fromarray(FRAMES[0]).save(path)
    return path


def signed(path: Path) -> Path:
    sign_file(unsigned(path), SigningKey.local(), {"weights_sha256": WEIGHTS})
    return path


@pytest.mark.parametrize("suffix", [".mp4", ".gif", ".png", ".jpg"])
def test_a_signed_file_validates_and_says_what_it_should_and_no_more(suffix: str, tmp_path: Path) -> None:
    path = signed(tmp_path / f"a person smiles{suffix}")
    said = {
        "signer": "signing key of one computer, Unverified FantasyID user",
        "made_by": f"FantasyID {__version__}",
        "ai_generated": True,
    }
    assert read_credentials(path, known_certificates()) == Credentials("valid", **said)
    assert read_credentials(path) == Credentials("unknown signer", **said)
    with c2pa.Reader(path) as reader:
        assert reader.get_validation_state() == "Valid"
        store = json.loads(reader.json())
    (manifest,) = store["manifests"].values()
    program = {"name": "FantasyID", "version": __version__}
    action = {"action": "c2pa.created", "softwareAgent": program, "digitalSourceType": SOURCE_TYPE}
    assertions = {assertion["label"]: assertion["data"] for assertion in manifest["assertions"]}
    assertions.pop("c2pa.hash.bmff.v3", None)
    assert assertions == {"c2pa.actions.v2": {"actions": [action]}, "fantasyid.model": {"weights_sha256": WEIGHTS}}
    assert set(manifest) == {
        *("claim_generator_info", "instance_id", "assertions", "signature_info", "label", "claim_version")
    }
    assert set(manifest["signature_info"]) == {"alg", "issuer", "common_name", "cert_serial_number"}
    assert b"smiles" not in path.read_bytes()


def test_a_signed_video_plays_as_before(tmp_path: Path) -> None:
    before, _ = read_video(unsigned(tmp_path / "a.mp4"))
    after, fps = read_video(signed(tmp_path / "b.mp4"))
    assert np.array_equal(after, before)
    assert fps == 8


@pytest.mark.parametrize("suffix", [".mp4", ".jpg"])
def test_no_changed_byte_is_taken_for_valid(suffix: str, tmp_path: Path) -> None:
    path = signed(tmp_path / f"a{suffix}")
    content, known, states = path.read_bytes(), known_certificates(), set()
    for place in covered(content, suffix):
        damaged = bytearray(content)
        damaged[place] ^= 0x20
        path.write_bytes(damaged)
        found = read_credentials(path, known)
        assert found == Credentials(found.state), f"what they say is repeated though byte {place} is another"
        states.add(found.state)
    assert "tampered" in states
    assert states <= {"tampered", "absent"}
    path.write_bytes(content[:-1])
    assert read_credentials(path, known).state == "tampered"


def covered(content: bytes, suffix: str) -> list[int]:
    """Some bytes of all that a signature covers.

    In an MP4 the type of the file and empty space are free, and in the store of credentials what tells its layout.
    """
    step, store = 61, content.index(b"jumdc2pa")
    places = [store, *(content.index(text) for text in (b"c2pa.signature", WEIGHTS.encode(), SOURCE_TYPE.encode()))]
    if suffix == ".jpg":
        return [*places, *range(content.rindex(b"\xff\xdb"), len(content), step)]
    start = 0
    while start < len(content):
        size, kind = int.from_bytes(content[start : start + 4], "big"), content[start + 4 : start + 8]
        if kind in (b"moov", b"mdat") or (kind == b"uuid" and not start < store < start + size):
            places += [*range(start, start + 40), *range(start + 40, start + size, step)]
        start += size
    return places


def test_credentials_of_another_file_do_not_fit(tmp_path: Path) -> None:
    one, other = signed(tmp_path / "one.jpg").read_bytes(), unsigned(tmp_path / "other.jpg")
    Image.fromarray(FRAMES[1]).save(other)
    end = one.index(b"\xff\xdb")
    (tmp_path / "mixed.jpg").write_bytes(one[:end] + other.read_bytes()[other.read_bytes().index(b"\xff\xdb") :])
    assert read_credentials(tmp_path / "mixed.jpg", known_certificates()).state == "tampered"


def test_files_without_credentials_have_none(tmp_path: Path) -> None:
    assert read_credentials(unsigned(tmp_path / "a.mp4")) == Credentials("absent")
    write_video(tmp_path / "a.webm", FRAMES, 8)
    (tmp_path / "nothing.mp4").write_bytes(b"")
    for name in ("a.webm", "nothing.mp4"):
        assert read_credentials(tmp_path / name) == Credentials("absent")
    path = signed(tmp_path / "b.mp4")
    with av.open(str(path)) as source, av.open(str(tmp_path / "copy.mp4"), "w") as copy:
        stream = copy.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                copy.mux(packet)
    assert read_credentials(tmp_path / "copy.mp4") == Credentials("absent")


def test_a_name_that_lies_about_the_format_hides_nothing(tmp_path: Path) -> None:
    path = signed(tmp_path / "a.mp4").rename(tmp_path / "a.txt")
    assert read_credentials(path, known_certificates()).state == "valid"


def test_credentials_that_are_kept_elsewhere_are_not_fetched(tmp_path: Path) -> None:
    asked: list[str] = []

    class Server(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)

    with HTTPServer(("127.0.0.1", 0), Server) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        key = SigningKey.local()
        info = c2pa.C2paSignerInfo(c2pa.C2paSigningAlg.ES256, key.certificates, key.private_key, None)
        action = {"action": "c2pa.created", "digitalSourceType": SOURCE_TYPE}
        claim = {"assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [action]}}]}
        elsewhere = io.BytesIO()
        with c2pa.Builder(claim) as builder, unsigned(tmp_path / "a.jpg").open("rb") as source:
            builder.set_no_embed()
            builder.set_remote_url(f"http://127.0.0.1:{server.server_port}/credentials")
            builder.sign(c2pa.Signer.from_info(info), "image/jpeg", source, elsewhere)
        (tmp_path / "b.jpg").write_bytes(elsewhere.getvalue())
        assert read_credentials(tmp_path / "b.jpg") == Credentials("absent")
        with pytest.raises(c2pa.C2paError):
            c2pa.Reader(tmp_path / "b.jpg")
        server.shutdown()
    assert asked == ["/credentials"], "the library alone asks"


# The key of this computer


def test_the_key_is_made_once_and_is_its_users_alone(settings_folder: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        keys = list(threads.map(lambda _: SigningKey.local(), range(8)))
    assert len({key.private_key for key in keys}) == 1
    assert local_key_file().is_relative_to(settings_folder)
    assert [path.name for path in local_key_file().parent.glob("[!.]*")] == ["signing.pem"]
    assert local_key_file().stat().st_mode & 0o777 == 0o600
    assert "PRIVATE" not in repr(keys[0])
    local_key_file().chmod(0o644)
    with pytest.raises(InvalidRequestError, match=r"signing\.pem \(mode 0644\).*remove it for a new one.*chmod 600"):
        SigningKey.local()


def test_a_key_that_cannot_be_made_is_told_of() -> None:
    local_key_file().with_name(".signing.pem.lock").mkdir(parents=True)
    with pytest.raises(InvalidRequestError, match=r"signing\.pem cannot be made \(.+\); see to its folder"):
        SigningKey.local()


def test_the_certificates_tell_nothing_of_who_made_them(settings_folder: Path) -> None:
    def told() -> list[dict[str, Any]]:
        certificates = x509.load_pem_x509_certificates(SigningKey.local().certificates)
        shutil.rmtree(settings_folder)
        whole = b"".join(certificate.public_bytes(Encoding.DER) for certificate in certificates)
        assert platform.node().encode() not in whole
        assert Path.home().name.encode() not in whole
        return [
            {
                "subject": certificate.subject.rfc4514_string(),
                "issuer": certificate.issuer.rfc4514_string(),
                "from": certificate.not_valid_before_utc,
                "until": certificate.not_valid_after_utc,
            }
            for certificate in certificates
        ]

    assert told() == told(), "only the keys and their numbers differ"


# Keys of users

CA, LEAF = x509.BasicConstraints(True, 0), x509.BasicConstraints(False, None)


def certificate(
    key: Any, name: str, by: tuple[str, Any] | None = None, *, until: int = 2099, email: bool = True
) -> bytes:
    issuer, issuer_key = by or (name, key)
    names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)]) for text in (name, issuer)]
    usage = x509.KeyUsage(by is not None, False, False, False, False, by is None, by is None, False, False)
    builder = (
        x509.CertificateBuilder(*reversed(names), key.public_key(), x509.random_serial_number())
        .not_valid_before(datetime(2020, 1, 1))
        .not_valid_after(datetime(until, 1, 1))
        .add_extension(LEAF if by else CA, critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    if by:
        purpose = ExtendedKeyUsageOID.EMAIL_PROTECTION if email else ExtendedKeyUsageOID.SERVER_AUTH
        builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
    algorithm = None if isinstance(issuer_key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(issuer_key, algorithm).public_bytes(Encoding.PEM)


def secret(key: Any, encryption: Any = None) -> bytes:
    pem: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption())
    return pem


@pytest.fixture(scope="module")
def authority() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP384R1())


@pytest.mark.parametrize("kind", ["p256", "p384", "p521", "ed25519", "rsa"])
def test_a_users_own_key_signs_and_is_known_by_its_root(kind: str, authority: Any, tmp_path: Path) -> None:
    key: Any = {
        "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
        "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
        "p521": lambda: ec.generate_private_key(ec.SECP521R1()),
        "ed25519": ed25519.Ed25519PrivateKey.generate,
        "rsa": lambda: rsa.generate_private_key(65537, 2048),
    }[kind]()
    root = certificate(authority, "a root")
    (tmp_path / "mine.pem").write_bytes(certificate(key, "a studio", ("a root", authority)) + root + secret(key))
    (tmp_path / "root.pem").write_bytes(root)
    sign_file(unsigned(tmp_path / "a.png"), SigningKey.read(tmp_path / "mine.pem"))
    assert not local_key_file().exists()
    found = read_credentials(tmp_path / "a.png", known_certificates(tmp_path / "root.pem"))
    assert (found.state, found.signer) == ("valid", "a studio")
    SigningKey.local()
    assert read_credentials(tmp_path / "a.png", known_certificates()).state == "unknown signer"


def test_a_file_that_cannot_sign_is_refused_by_name(authority: Any, tmp_path: Path) -> None:
    key, other = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    by, root = ("a root", authority), certificate(authority, "a root")
    for content, says in (
        (b"", "holds no private key that opens without a passphrase"),
        (secret(key, BestAvailableEncryption(b"word")), "holds no private key that opens without a passphrase"),
        (secret(key), "holds no certificate"),
        (secret(dsa.generate_private_key(1024)) + root, "of a kind that C2PA does not sign with"),
        (secret(ec.generate_private_key(ec.SECP256K1())) + root, "of a kind that C2PA does not sign with"),
        (secret(key) + certificate(other, "another", by) + root, "is not that of its key"),
        (secret(key) + certificate(key, "ended", by, until=2021) + root, "cannot sign .*not valid at time of signing"),
        (secret(key) + certificate(key, "a server", by, email=False) + root, "cannot sign .*email protection"),
        (secret(authority) + root, "cannot sign"),
    ):
        (tmp_path / "mine.pem").write_bytes(content)
        with pytest.raises(InvalidRequestError, match=rf"mine\.pem.*{says}|{says}.*mine\.pem"):
            SigningKey.read(tmp_path / "mine.pem")
    with pytest.raises(InvalidRequestError, match="nowhere"):
        SigningKey.read(tmp_path / "nowhere.pem")
    (tmp_path / "known.pem").write_bytes(b"nothing")
    with pytest.raises(InvalidRequestError, match=r"known\.pem holds no certificate"):
        known_certificates(tmp_path / "known.pem")


# Files


def test_a_format_without_credentials_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match=r"a\.WEBM cannot hold signed credentials.*--sign"):
        check_signable(Path("a.WEBM"))
    for name in ("a.mp4", "a.gif", "pictures", "pictures.v2"):
        check_signable(Path(name))
    with pytest.raises(InvalidRequestError, match=r"a\.txt cannot hold signed credentials"):
        sign_file(Path("a.txt"), SigningKey.local())


def test_a_file_that_cannot_be_signed_stays_as_it_was(tmp_path: Path) -> None:
    key, path = SigningKey.local(), unsigned(tmp_path / "a.mp4")
    before = contents(tmp_path)
    with file_size_limit(path.stat().st_size), pytest.raises(UnwritableOutputError, match=r"a\.mp4"):
        sign_file(path, key)
    assert contents(tmp_path) == before
    path.write_bytes(b"not a video")
    with pytest.raises(UnwritableOutputError, match=r"a\.mp4 could not be signed"):
        sign_file(path, key)
    assert path.read_bytes() == b"not a video"


def test_what_is_missing_without_the_extra_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = signed(tmp_path / "a.png")
    for package in ("c2pa", "cryptography"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, package, None)
            patch.delitem(sys.modules, "fantasyid.core.certificates")
            with pytest.raises(MissingBackendError, match=rf"{package} is needed.*pip install 'fantasyid\[c2pa\]'"):
                SigningKey.local()
    monkeypatch.setitem(sys.modules, "c2pa", None)
    with pytest.raises(MissingBackendError, match=r"pip install 'fantasyid\[c2pa\]'"):
        read_credentials(path)
