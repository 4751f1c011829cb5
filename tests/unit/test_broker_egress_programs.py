"""Programs that fetch packages, through the proxy, from stand-ins on loopback: each with its own manners."""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from sshgate.broker import egress
from tests.unit.outside_world import Proxy, authority, proxy, web_server

HOST = "packages.example"
GIT = ("-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "init.defaultBranch=main")


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"there is no {program} here")


async def run(one: Proxy, home: Path, argv: Sequence[str], **more: str) -> str:
    """Run a program with the environment of a sandbox; returns its output."""
    address = f"http://127.0.0.1:{one.port}"
    environment = {
        "PATH": os.environ["PATH"], "HOME": str(home), "LANG": "C.UTF-8", "http_proxy": address, "https_proxy": address,
        "HTTP_PROXY": address, "HTTPS_PROXY": address, "NO_PROXY": "localhost,127.0.0.1,::1",
        "GIT_TERMINAL_PROMPT": "0", "GIT_CONFIG_NOSYSTEM": "1",
    }  # fmt: skip
    process = await asyncio.create_subprocess_exec(
        *argv, cwd=home, env={**environment, **more}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )  # fmt: skip
    output, _ = await asyncio.wait_for(process.communicate(), 100)
    text = output.decode(errors="replace")
    assert process.returncode == 0, text
    return text


def git(*argv: str, cwd: Path) -> None:
    subprocess.run(["git", *GIT, *argv], cwd=cwd, check=True, capture_output=True)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    root = tmp_path / "site"
    root.mkdir()
    return root


@pytest.fixture
def home(tmp_path: Path) -> Path:
    made = tmp_path / "home"
    made.mkdir()
    return made


@needs("curl")
async def test_curl(tmp_path: Path, site: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (site / "file").write_text("from outside")
    ca, context = authority(tmp_path, [HOST])
    with web_server(site, context) as port, web_server(site) as plain:
        monkeypatch.setattr(egress, "HTTP", plain)  # 80 is for root
        async with proxy([f"{HOST}:{port}", f"{HOST}:{plain}"], {HOST: [["127.0.0.1"]]}) as one:
            curl = ("curl", "-sS", "--fail-with-body", "--cacert", str(ca))
            assert await run(one, home, [*curl, f"https://{HOST}:{port}/file"]) == "from outside"
            assert await run(one, home, [*curl, f"http://{HOST}:{plain}/file"]) == "from outside"
            refused = await run(one, home, ["sh", "-c", "curl -sSv https://evil.example/ 2>&1; test $? = 56"])
            assert 'sshgate: not in egress.allow: "evil.example"' in refused


async def test_pip(tmp_path: Path, site: Path, home: Path) -> None:
    wheel = "thing-1.0-py3-none-any.whl"
    (site / "simple" / "thing").mkdir(parents=True)
    with zipfile.ZipFile(site / wheel, "w") as archive:
        archive.writestr("thing.py", "x = 1\n")
        archive.writestr("thing-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: thing\nVersion: 1.0\n")
        archive.writestr("thing-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("thing-1.0.dist-info/RECORD", "")
    (site / "simple" / "thing" / "index.html").write_text(f'<a href="/{wheel}">{wheel}</a>')
    ca, context = authority(tmp_path, [HOST])
    with web_server(site, context) as port:
        async with proxy([f"{HOST}:{port}"], {HOST: [["127.0.0.1"]]}) as one:
            pip = [
                sys.executable,
                "-m",
                "pip",
                "--isolated",
                "download",
                "--no-deps",
                "--no-cache-dir",
                "--cert",
                str(ca),
            ]
            await run(one, home, [*pip, "--index-url", f"https://{HOST}:{port}/simple", "thing"])
            assert (home / wheel).exists()
            argv = [*pip, "--retries", "0", "https://evil.example/other-1.0-py3-none-any.whl"]
            refused = await run(one, home, ["sh", "-c", '"$@"; test $? = 1', "sh", *argv])
            assert 'not in egress.allow: "evil.example"' in refused


@needs("npm")
async def test_npm(tmp_path: Path, site: Path, home: Path) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        text = b'{"name": "thing", "version": "1.0.0"}'
        entry = tarfile.TarInfo("package/package.json")
        entry.size = len(text)
        archive.addfile(entry, io.BytesIO(text))
    (site / "thing-1.0.0.tgz").write_bytes(packed.getvalue())
    digest = base64.b64encode(hashlib.sha512(packed.getvalue()).digest()).decode()
    ca, context = authority(tmp_path, [HOST])
    with web_server(site, context) as port:
        dist = {"tarball": f"https://{HOST}:{port}/thing-1.0.0.tgz", "integrity": f"sha512-{digest}"}
        version = {"name": "thing", "version": "1.0.0", "dist": dist}
        (site / "thing").write_text(
            json.dumps({"name": "thing", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": version}})
        )
        async with proxy([f"{HOST}:{port}"], {HOST: [["127.0.0.1"]]}) as one:
            argv = ["npm", "install", "thing", "--no-audit", "--no-fund", "--no-update-notifier", "--cafile", str(ca)]
            await run(one, home, [*argv, "--registry", f"https://{HOST}:{port}/"])
            assert (home / "node_modules" / "thing" / "package.json").exists()


@needs("git")
async def test_git(tmp_path: Path, site: Path, home: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    git("init", "-q", cwd=work)
    (work / "file").write_text("from outside")
    git("add", "file", cwd=work)
    git("commit", "-q", "-m", "one", cwd=work)
    git("clone", "-q", "--bare", str(work), str(site / "thing.git"), cwd=tmp_path)
    git("update-server-info", cwd=site / "thing.git")
    ca, context = authority(tmp_path, [HOST])
    with web_server(site, context) as port:
        async with proxy([f"{HOST}:{port}"], {HOST: [["127.0.0.1"]]}) as one:
            await run(one, home, ["git", "clone", "-q", f"https://{HOST}:{port}/thing.git"], GIT_SSL_CAINFO=str(ca))
            assert (home / "thing" / "file").read_text() == "from outside"


@needs("apt-get")
async def test_apt(tmp_path: Path, site: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packages = b"Package: thing\nVersion: 1.0\nArchitecture: all\nFilename: ./thing.deb\nSize: 1\nDescription: x\n"
    (site / "Packages").write_bytes(packages)
    (site / "Packages.gz").write_bytes(gzip.compress(packages))
    sums = "".join(
        f" {hashlib.sha256((site / name).read_bytes()).hexdigest()} {(site / name).stat().st_size} {name}\n"
        for name in ("Packages", "Packages.gz")
    )
    (site / "Release").write_text(f"Origin: stand-in\nDate: Sun, 29 Nov 2026 00:00:00 UTC\nSHA256:\n{sums}")
    for name in ("state/lists/partial", "cache/archives/partial", "etc/apt.conf.d", "etc/preferences.d", "log"):
        (home / name).mkdir(parents=True)
    (home / "state" / "status").touch()
    with web_server(site) as port:
        monkeypatch.setattr(egress, "HTTP", port)
        (home / "etc" / "sources.list").write_text(f"deb [trusted=yes] http://{HOST}:{port}/ ./\n")
        settings: Mapping[str, Path | str] = {
            "Dir::Etc": home / "etc", "Dir::State": home / "state", "Dir::State::status": home / "state" / "status",
            "Dir::Cache": home / "cache", "Dir::Log": home / "log", "APT::Sandbox::User": "",
            "Acquire::Check-Date": "false",
        }  # fmt: skip
        options = [part for name, value in settings.items() for part in ("-o", f"{name}={value}")]
        async with proxy([f"{HOST}:{port}"], {HOST: [["127.0.0.1"]]}) as one:
            await run(one, home, ["apt-get", *options, "-o", "APT::Update::Error-Mode=any", "update"])
            assert "Candidate: 1.0" in await run(one, home, ["apt-cache", *options, "policy", "thing"])


@needs("go")
async def test_go(tmp_path: Path, site: Path, home: Path) -> None:
    name = "mod.example/thing"
    at = site / name / "@v"
    at.mkdir(parents=True)
    (at / "v1.0.0.info").write_text('{"Version": "v1.0.0"}')
    (at / "v1.0.0.mod").write_text(f"module {name}\n")
    with zipfile.ZipFile(at / "v1.0.0.zip", "w") as archive:
        archive.writestr(f"{name}@v1.0.0/go.mod", f"module {name}\n")
        archive.writestr(f"{name}@v1.0.0/thing.go", "package thing\n")
    ca, context = authority(tmp_path, [HOST])
    with web_server(site, context) as port:
        async with proxy([f"{HOST}:{port}"], {HOST: [["127.0.0.1"]]}) as one:
            found = await run(
                one, home, ["go", "mod", "download", "-json", f"{name}@v1.0.0"], GOPROXY=f"https://{HOST}:{port}",
                GONOSUMDB="*", GONOSUMCHECK="1", GOFLAGS="-modcacherw", GOTOOLCHAIN="local", SSL_CERT_FILE=str(ca),
            )  # fmt: skip
            assert '"Zip"' in found


@needs("cargo")
async def test_cargo(tmp_path: Path, site: Path, home: Path) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, text in (
            ("thing-1.0.0/Cargo.toml", b'[package]\nname = "thing"\nversion = "1.0.0"\nedition = "2021"\n'),
            ("thing-1.0.0/src/lib.rs", b""),
        ):
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text))
    crate = site / "dl" / "thing" / "1.0.0" / "download"
    crate.parent.mkdir(parents=True)
    crate.write_bytes(packed.getvalue())
    (site / "index" / "th" / "in").mkdir(parents=True)
    line = {"name": "thing", "vers": "1.0.0", "deps": [], "features": {}, "yanked": False}
    (site / "index" / "th" / "in" / "thing").write_text(
        json.dumps({**line, "cksum": hashlib.sha256(packed.getvalue()).hexdigest()}) + "\n"
    )
    ca, context = authority(tmp_path, [HOST])
    with web_server(site, context) as port:
        (site / "index" / "config.json").write_text(json.dumps({"dl": f"https://{HOST}:{port}/dl"}))
        (home / "src").mkdir()
        (home / "src" / "lib.rs").touch()
        (home / "Cargo.toml").write_text(
            '[package]\nname = "own"\nversion = "1.0.0"\nedition = "2021"\n'
            '[dependencies]\nthing = { version = "1", registry = "own" }\n'
        )
        async with proxy([f"{HOST}:{port}"], {HOST: [["127.0.0.1"]]}) as one:
            real = Path.home()
            await run(
                one, home, ["cargo", "fetch"], CARGO_REGISTRIES_OWN_INDEX=f"sparse+https://{HOST}:{port}/index/",
                CARGO_HTTP_CAINFO=str(ca), CARGO_HOME=str(home / "cargo"),
                RUSTUP_HOME=os.environ.get("RUSTUP_HOME", str(real / ".rustup")),
            )  # fmt: skip
            assert (home / "Cargo.lock").exists()
