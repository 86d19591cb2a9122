"""Files that are imported, and the command: rows with credentials in every place, and what is said of them."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from click.testing import CliRunner
from tests.canary.scene import Scene

from tierkit import TierUnavailable
from tierkit.cli.app import app
from tierkit.testing import FaultyTier


def imports(scene: Scene) -> None:
    """Warm from each format, with good rows and bad ones; and with a storage that fails on the way."""
    with scene.opened() as cache:
        for path in files(scene):
            for scheme in (None, "http"):
                try:
                    result = cache.warm_from_file(path, 900, scheme=scheme)
                except Exception as error:  # noqa: BLE001 - some are refused as a whole
                    scene.raised(f"the import of {path.name}", error)
                else:
                    scene.shows(f"the import of {path.name}", result, *result.rejects)
        url = f"http://{scene.secrets.userinfo}@feed.example/list.csv"
        for path in (Path(url), Path(f"{scene.secrets.userinfo}@host.csv"), scene.given / "none.csv"):
            scene.refused("a file that is none", cache.warm_from_file, path)
        scene.refused("a source with credentials", cache.warm_from_file, path, source=url)
        scene.refused("a scheme with credentials", cache.warm_from_file, path, scheme=url)
        for level in cache.levels[1:]:
            tier = FaultyTier(level.tier)
            level.tier = tier
            tier.fail(error=TierUnavailable("gone"))
        scene.refused("an import that broke off", cache.warm_from_file, scene.given / "good.csv")
    scene.files()


def exports(scene: Scene) -> None:
    """Exports, backups and imports of them, whole, changed and with a callback that fails; a key that is not held."""

    def fails(_done: int, _total: int | None) -> None:
        raise RuntimeError("a callback of the user's")

    folder = scene.root / "exports"
    folder.mkdir(mode=0o700, exist_ok=True)
    plain = scene.given / "plain.jsonl"  # what is given may hold them
    with scene.opened() as cache:
        cache.put_many([scene.proxy(number) for number in range(3)])
        for name in ("all.jsonl", "all.json", "all.csv", "none.csv"):
            secrets: Any = name[:4] if name.startswith("none") else "sealed"
            scene.shows("an export", cache.export_to_file(folder / name, secrets=secrets))
            scene.shows("an import", cache.import_from_file(folder / name))
        scene.shows("a backup", cache.backup(folder / "backup.jsonl"), cache.verify_backup(folder / "backup.jsonl"))
        scene.shows("an export in the clear", cache.export_to_file(plain, secrets="plain"))
        scene.refused("an export that is stopped", cache.export_to_file, plain, secrets="plain", on_progress=fails)
        scene.refused("an import that is stopped", cache.import_from_file, plain, on_progress=fails)
        text = plain.read_text()
        for bad in (
            text[:-90],
            text.replace("access_count", "password", 1),
            text.replace("unknown", scene.secrets.password),
        ):
            plain.write_text(bad)
            rejects = scene.given / "plain.rejects.jsonl"
            scene.refused("a file that was changed", cache.import_from_file, plain)
            result = cache.import_from_file(plain, accept_damage=True, rejects=rejects)
            scene.shows("what was rejected", result, *result.rejects)
        for level in cache.levels:
            tier = FaultyTier(level.tier)
            level.tier = tier
            tier.fail(error=TierUnavailable("gone"))
        plain.write_text(text)
        scene.refused("an import that broke off", cache.import_from_file, plain)
        scene.refused("an export that broke off", cache.export_to_file, plain, secrets="plain")
        scene.refused(
            "an export to a URL", cache.export_to_file, f"http://{scene.secrets.userinfo}@host.example/a.json"
        )
    scene.files()


def files(scene: Scene) -> Iterator[Path]:
    """A file of each format, good and bad; and what is no file of its format."""
    good, bad = list(good_rows(scene)), list(bad_rows(scene))
    yield scene.write("good.csv", as_csv(good))
    yield scene.write("bad.csv", as_csv([*good, *bad]))
    yield scene.write("good.json", json.dumps(good))
    yield scene.write("bad.json", json.dumps({"proxies": [*good, *bad]}))
    yield scene.write("cut.json", json.dumps([*good, *bad])[:-9])
    yield scene.write(
        "bad.jsonl",
        "".join(json.dumps(row) + "\n" for row in [*good, *bad]) + '{"password": "' + scene.secrets.password,
    )
    yield scene.write("list.txt", "\n".join(lines(scene)))
    yield scene.write("list.csv", "\n".join(lines(scene)))
    yield scene.write("list.json", "\n".join(lines(scene)))
    packed = scene.given / "bad.jsonl.gz"
    packed.write_bytes(gzip.compress((scene.given / "bad.jsonl").read_bytes())[:-12])
    yield packed


def good_rows(scene: Scene) -> Iterator[dict[str, object]]:
    """Rows that go in; columns that nobody declares are left out."""
    secrets = scene.secrets
    yield {
        "proxy_url": "http://192.0.2.60:80",
        "username": secrets.username,
        "password": secrets.password,
        "note": secrets.token,
    }
    yield {"proxy_url": f"http://{secrets.userinfo}@192.0.2.61:80", "username": "", "password": "", "note": ""}


def bad_rows(scene: Scene) -> Iterator[dict[str, object]]:
    """Rows that are refused, each for another reason."""
    secrets = scene.secrets
    yield {"proxy_url": secrets.password, "username": "192.0.2.1", "password": "80"}
    yield {"proxy_url": f"http://{secrets.userinfo}@192.0.2.1:99999"}
    yield {"proxy_url": f"http://{secrets.userinfo}@192.0.2.1:80/{secrets.password}"}
    yield {"proxy_url": f"{secrets.username}:{secrets.password}@192.0.2.1"}
    yield {"proxy_url": "http://192.0.2.1:80", "username": secrets.username, "password": f"{secrets.password}\x07"}
    yield {"proxy_url": "http://192.0.2.1:80", "password": [secrets.password]}
    yield {"proxy_url": "http://192.0.2.2:80", "source": f"http://{secrets.userinfo}@feed.example"}
    for name in ("ttl_seconds", "fetch_time", "expires_at", "health_status", "failure_count"):
        yield {"proxy_url": "http://192.0.2.3:80", name: secrets.password}
    yield {"ip": f"{secrets.password}!", "port": 80, "protocol": "http"}
    yield {"ip": "192.0.2.4", "port": secrets.password, "protocol": "http"}
    yield {"ip": "192.0.2.4", "port": 80, "protocol": f"{secrets.password}!"}
    yield {"password": secrets.password}


def as_csv(rows: list[dict[str, object]]) -> str:
    """The rows as a table."""
    text = io.StringIO()
    table = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)))
    table.writeheader()
    table.writerows(rows)
    return text.getvalue()


def lines(scene: Scene) -> Iterator[str]:
    """A list as it is sold, and what may have slipped into it."""
    secrets = scene.secrets
    for line in (
        "192.0.2.70:80:{}:{}",
        "{}:{}@192.0.2.71:80",
        "http://{}:{}@192.0.2.72:99999",
        "{}:{}",
        '"{}",{}',
        "{};{}",
    ):
        yield line.format(secrets.username, secrets.password)
    yield f"http://{secrets.userinfo}@192.0.2.73:80"


# -- the command -------------------------------------------------------------------------------------------------------


def commands(scene: Scene) -> None:
    """Every command, those that fail too, with credentials on the command line and keys in the configuration."""
    for number, text in enumerate(configurations(scene)):
        config = scene.write(f"{number}.toml", text)
        for arguments in command_lines(scene):
            run = CliRunner().invoke(app, ["--config", str(config), *arguments])
            scene.search.text(f"what `tierkit {arguments[0]}` says", run.output)
            if run.exception is not None and not isinstance(run.exception, SystemExit):
                scene.raised("the command", run.exception)
    scene.files()


def configurations(scene: Scene) -> Iterator[str]:
    """One that works, and one that cannot."""
    tiers = f'[[tierkit.tiers]]\nbackend = "sqlite"\npath = "{scene.root}/command/a.db"\n'
    yield f'[tierkit]\nencryption_key = "{scene.secrets.key}"\n{tiers}'
    yield f'[tierkit]\nencryption_key = "{scene.secrets.key}"\nfailure_threshold = 0\n{tiers}'


def command_lines(scene: Scene) -> Iterator[list[str]]:
    """Each with its secrets where users put them."""
    url = f"http://{scene.secrets.userinfo}@192.0.2.60:80"
    bad = f"http://{scene.secrets.userinfo}@192.0.2.60:port"
    given = scene.given
    yield ["-v", "warm", str(given / "good.csv"), str(given / "bad.json"), str(given / "list.txt"), "--scheme", "http"]
    yield ["warm", url, "--json"]
    yield ["warm", str(given / "good.csv"), "--source", url]
    yield ["warm", str(given / "good.csv"), "--scheme", url]
    yield ["warm", str(given / "good.csv"), "--ttl", url]
    yield ["get", url]
    yield ["-v", "get", url, "--json"]
    yield ["get", bad]
    yield ["get", url, url]
    yield ["get", f"192.0.2.60:80:{scene.secrets.username}:{scene.secrets.password}"]
    yield ["ls"]
    yield ["-v", "ls", "--json", "--all"]
    yield ["ls", "--source", url]
    yield ["ls", "--health", url]
    yield ["stats", "--json"]
    yield ["stats", "--watch", url, "--count", "1"]
    yield ["export", str(scene.root / "exports" / "command.csv"), "--json"]
    yield ["export", url]
    yield ["import", str(given / "bad.jsonl"), "--rejects", url]
    yield ["backup", url]
    yield ["restore", str(given / "bad.jsonl")]
    yield ["config"]
    yield ["config", "--json"]
    yield ["plugins", "--json"]
    yield [url]
    yield ["doctor"]
    yield ["doctor", "--json", "--fix", "--level", url]
    yield ["doctor", "--json", "--fix"]
