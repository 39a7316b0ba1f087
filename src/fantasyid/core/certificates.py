"""Keys and certificates for signing: making those of a computer, reading those of a user.

It needs the extra c2pa; `core.credentials` asks for that before it imports this.
"""

from datetime import datetime
from hashlib import sha256
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fantasyid.core.errors import InvalidRequestError, short_reason

# Viewers show it; nobody checked who it is.
_HOLDER = "Unverified FantasyID user"
# The same for everybody: when a key was made would tell videos apart, and no time stamp says when a video was signed,
# so that a certificate which ends would take all earlier signatures with it (RFC 5280, 4.1.2.5, has the end).
_FROM, _UNTIL = datetime(2020, 1, 1), datetime(9999, 12, 31, 23, 59, 59)
_CURVES = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}


def new_key_and_certificates() -> bytes:
    """Make a signing key, its certificate, and that of an authority, whose own key is forgotten here.

    Returns:
        All three as PEM, the key first.
    """
    authority, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    by_authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key())
    root = (
        _certificate(authority, "signing authority of one computer")
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_files=False), critical=True)
    )
    own = (
        _certificate(key, "signing key of one computer")
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_files=True), critical=True)
        # What C2PA's readers know by themselves; they refuse document signing, which says it better.
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
        .add_extension(by_authority, critical=False)
    )
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    signed = [builder.sign(authority, hashes.SHA256()).public_bytes(Encoding.PEM) for builder in (own, root)]
    return b"".join((secret, *signed))


def read_signing_parts(pem: bytes, path: Path) -> tuple[str, bytes, bytes, str]:
    """Take a file of PEM apart.

    Args:
        pem: A private key and its certificates.
        path: Where they are from, for messages.

    Returns:
        C2PA's name of the algorithm, the key as PKCS #8, the certificates, that of the key first, PEM both, and the
        SHA-256 of the public key.

    Raises:
        InvalidRequestError: Either is missing, encrypted or of a kind that C2PA does not sign with.
    """
    try:
        key = load_pem_private_key(pem, password=None)
    except (TypeError, ValueError, UnsupportedAlgorithm) as error:
        raise InvalidRequestError(
            f"{path} holds no private key that opens without a passphrase ({short_reason(error)}); give one as PEM, "
            "and its certificates in the same file."
        ) from error
    certificates = _certificates_in(pem, path)
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in _CURVES:
        algorithm = _CURVES[key.curve.name]
    elif isinstance(key, ed25519.Ed25519PrivateKey):
        algorithm = "ed25519"
    elif isinstance(key, rsa.RSAPrivateKey):
        algorithm = "ps256"
    else:
        raise InvalidRequestError(
            f"{path} holds a key of a kind that C2PA does not sign with; give one of the curves P-256, P-384 or P-521, "
            "an Ed25519 or an RSA key."
        )
    public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if certificates[0].public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) != public:
        raise InvalidRequestError(f"The first certificate in {path} is not that of its key; put that one first.")
    private_key = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return algorithm, private_key, read_certificates(pem, path), sha256(public).hexdigest()


def read_certificates(pem: bytes, path: Path) -> bytes:
    """Pick the certificates out of a file of PEM, whatever else is in it.

    Args:
        pem: Its content.
        path: Where it is from, for messages.

    Raises:
        InvalidRequestError: There is none.
    """
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in _certificates_in(pem, path))


def _certificates_in(pem: bytes, path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise InvalidRequestError(
            f"{path} holds no certificate ({short_reason(error)}); give a file of PEM with one or more."
        ) from error


def _usage(*, signs_files: bool) -> x509.KeyUsage:
    """What a key is for: to sign files, or to vouch for other keys."""
    return x509.KeyUsage(
        digital_signature=signs_files,
        key_cert_sign=not signs_files,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def _certificate(key: ec.EllipticCurvePrivateKey, name: str) -> x509.CertificateBuilder:
    """The beginning of a certificate by the authority of one computer."""

    def full(common: str) -> x509.Name:
        names = ((NameOID.COMMON_NAME, common), (NameOID.ORGANIZATION_NAME, _HOLDER))
        return x509.Name([x509.NameAttribute(kind, text) for kind, text in names])

    return (
        x509.CertificateBuilder()
        .subject_name(full(name))
        .issuer_name(full("signing authority of one computer"))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_FROM)
        .not_valid_after(_UNTIL)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
